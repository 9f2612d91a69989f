package echotest_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/echotest"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// test stands for the test functions that readers write: func TestEcho(t *testing.T) { ... }.
var test = echotest.RunExample

func ExampleTCP() {
	test(func(t echotest.TB) {
		conn, err := net.Dial("tcp", echotest.TCP(t))
		if err != nil {
			t.Fatalf("%v", err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Fatalf("%v", err)
		}
		answer := make([]byte, 5)
		if _, err := io.ReadFull(conn, answer); err != nil {
			t.Fatalf("%v", err)
		}
		fmt.Printf("%s\n", answer)
	})
	// Output: hello
}

func ExampleUDP() {
	test(func(t echotest.TB) {
		conn, err := net.Dial("udp", echotest.UDP(t))
		if err != nil {
			t.Fatalf("%v", err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Fatalf("%v", err)
		}
		answer := make([]byte, 1500)
		n, err := conn.Read(answer)
		if err != nil {
			t.Fatalf("%v", err)
		}
		fmt.Printf("%s\n", answer[:n])
	})
	// Output: hello
}

func ExampleEndpoint() {
	test(func(t echotest.TB) {
		e := echotest.Endpoint(t, echo.Spec{Protocol: echo.TCP, TCP: echo.TCPOptions{OneShot: true}})
		conn, err := net.Dial("tcp", e.Addr().String())
		if err != nil {
			t.Fatalf("%v", err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Fatalf("%v", err)
		}
		answer, err := io.ReadAll(conn) // a one-shot endpoint answers once and ends
		if err != nil {
			t.Fatalf("%v", err)
		}
		fmt.Printf("%s, and %d bytes in all\n", answer, e.Stats().BytesOut)
	})
	// Output: hello, and 5 bytes in all
}

func ExampleStartDaemon() {
	test(func(t echotest.TB) {
		d := echotest.StartDaemon(t, echotest.DaemonOptions{})
		ctx := context.Background()

		// Over gRPC ...
		e, err := d.Endpoints().CreateEndpoint(ctx, &echov1.CreateEndpointRequest{
			Endpoint: &echov1.Endpoint{Name: "web-1", Protocol: echov1.Protocol_TCP, Labels: map[string]string{"rack": "r1"}},
		})
		if err != nil {
			t.Fatalf("%v", err)
		}
		fmt.Println(e.Name, e.State)

		// ... and over REST.
		resp, err := d.HTTPClient().Post(d.URL+"/v1/probes:run", "application/json",
			strings.NewReader(`{"target": {"endpoint": "web-1"}, "count": 3, "interval": "1ms", "timeout": "30s", "expect": ["loss == 0%"]}`))
		if err != nil {
			t.Fatalf("%v", err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("%v", err)
		}
		fmt.Println(resp.StatusCode == http.StatusOK, strings.Contains(string(text), `"lost":0`))
	})
	// Output:
	// web-1 SERVING
	// true true
}

func ExampleStartProcess() {
	test(func(t echotest.TB) {
		dir, err := os.MkdirTemp("", "state-") // a test has t.TempDir()
		if err != nil {
			t.Fatalf("%v", err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		o := echotest.ProcessOptions{Flags: []string{"--state-dir=" + dir}}
		p := echotest.StartProcess(t, o)
		ctx := context.Background()
		if _, err := p.Endpoints().CreateEndpoint(ctx, &echov1.CreateEndpointRequest{
			Endpoint: &echov1.Endpoint{Name: "web-1", Protocol: echov1.Protocol_TCP},
		}); err != nil {
			t.Fatalf("%v", err)
		}

		// A crash loses nothing of what was acknowledged.
		p.Kill()
		p = echotest.StartProcess(t, o)
		e, err := p.Endpoints().GetEndpoint(ctx, &echov1.GetEndpointRequest{Name: "web-1"})
		if err != nil {
			t.Fatalf("%v", err)
		}
		fmt.Println(e.Name, e.State)
	})
	// Output: web-1 SERVING
}

// shared is the daemon of all tests of a package.
var shared *echotest.Process

// One process serves all tests of a package, which begin with TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(testMain(m)) }
func ExampleMain() {
	testMain := func(m *testing.M) int {
		return echotest.Main(m, func(t echotest.TB) {
			shared = echotest.StartProcess(t, echotest.ProcessOptions{})
		})
	}
	_ = testMain
}

func ExampleBuild() {
	dir, err := os.MkdirTemp("", "echod-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	binary, err := echotest.Build(dir, "-trimpath")
	if err != nil {
		fmt.Println(err)
		return
	}
	test(func(t echotest.TB) {
		p := echotest.StartProcess(t, echotest.ProcessOptions{Binary: binary})
		p.Signal(os.Interrupt)
		fmt.Println("exit code", p.Wait())
	})
	// Output: exit code 0
}
