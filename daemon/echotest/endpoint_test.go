package echotest

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echo"
)

// roundTrip sends a text and answers what comes back until the peer ends or as much has come.
func roundTrip(t *testing.T, network, address, text string) string {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, len(text))
	n, err := io.ReadFull(conn, answer)
	if err != nil && n == 0 {
		t.Fatal(err)
	}
	return string(answer[:n])
}

func TestEndpointsEcho(t *testing.T) {
	t.Parallel()
	for network, address := range map[string]string{"tcp": TCP(t), "udp": UDP(t)} {
		if answer := roundTrip(t, network, address, "hello"); answer != "hello" {
			t.Errorf("%s: %q", network, answer)
		}
	}
}

func TestEndpointDoesAsItsSpecSays(t *testing.T) {
	t.Parallel()
	e := Endpoint(t, echo.Spec{TCP: echo.TCPOptions{MaxBytes: 3}})
	if answer := roundTrip(t, "tcp", e.Addr().String(), "hello"); answer != "hel" {
		t.Errorf("%q", answer)
	}
	if e.Stats().BytesOut != 3 {
		t.Errorf("%+v", e.Stats())
	}
}

// TestEndpointsAreGoneWithTheTest leaves a connection open, which is cut.
func TestEndpointsAreGoneWithTheTest(t *testing.T) {
	t.Parallel()
	var address string
	var peer net.Conn
	said, failed := do(func(t TB) {
		address = TCP(t)
		var err error
		if peer, err = net.Dial("tcp", address); err != nil {
			t.Fatalf("%v", err)
		}
	})
	defer peer.Close()
	if failed || said != "" {
		t.Errorf("failed: %v: %s", failed, said)
	}
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Errorf("%s is still there", address)
	}
	if err := peer.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(peer); err != nil {
		t.Logf("the connection was cut: %v", err)
	}
}

func TestAnEndpointThatCannotBe(t *testing.T) {
	t.Parallel()
	said, failed := do(func(t TB) {
		Endpoint(t, echo.Spec{Protocol: echo.UDP, Listen: "198.51.100.1:7"})
		t.Logf("the test went on")
	})
	if want := "cannot serve the UDP endpoint of the test: cannot bind 198.51.100.1:7: this host has no such address\n"; !failed || said != want {
		t.Errorf("failed: %v: %s", failed, said)
	}
}
