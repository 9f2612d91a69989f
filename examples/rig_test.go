package examples_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echotest"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

func TestOurClientKeepsItsConnection(t *testing.T) {
	daemon := echotest.StartDaemon(t, echotest.DaemonOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	endpoint, err := daemon.Endpoints().CreateEndpoint(ctx, &echov1.CreateEndpointRequest{
		Endpoint: &echov1.Endpoint{Name: "server", Protocol: echov1.Protocol_TCP},
	})
	if err != nil {
		t.Fatal(err)
	}

	useOurClient(t, endpoint.Address) // the code under test

	seen, err := daemon.Endpoints().GetEndpoint(ctx, &echov1.GetEndpointRequest{Name: "server"})
	if err != nil {
		t.Fatal(err)
	}
	if n := seen.Counters.ConnectionsTotal; n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// useOurClient is the code under test of TestOurClientKeepsItsConnection.
func useOurClient(t *testing.T, address string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 3 {
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
}
