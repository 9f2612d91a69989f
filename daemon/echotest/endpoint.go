package echotest

import (
	"context"

	"github.com/echod/echod/daemon/echo"
)

// TCP serves a TCP echo endpoint on a free port of 127.0.0.1 until t is over, and answers its address, "127.0.0.1:PORT".
func TCP(t TB) string {
	t.Helper()
	return Endpoint(t, echo.Spec{Protocol: echo.TCP}).Addr().String()
}

// UDP serves a UDP echo endpoint on a free port of 127.0.0.1 until t is over, and answers its address, "127.0.0.1:PORT".
//
// Its guard against loops is on: a datagram from another UDP endpoint of the process is answered, as each endpoint of this
// package has an engine of its own, but one from port 7, say, is not. See echo.UDPOptions.
func UDP(t TB) string {
	t.Helper()
	return Endpoint(t, echo.Spec{Protocol: echo.UDP}).Addr().String()
}

// Endpoint serves an endpoint as s says until t is over; connections that are open then are cut. The zero Protocol is TCP,
// and an empty Listen is "127.0.0.1:0", a free port. All methods of the endpoint may be called meanwhile, from any goroutine:
// Stats to see what came, Update to change it, Close to end it sooner.
func Endpoint(t TB, s echo.Spec) *echo.Endpoint {
	t.Helper()
	if s.Protocol == 0 {
		s.Protocol = echo.TCP
	}
	if s.Listen == "" {
		s.Listen = "127.0.0.1:0"
	}
	engine := echo.New(echo.Options{})
	t.Cleanup(func() {
		t.Helper()
		cut, cancel := context.WithCancel(context.Background())
		cancel()
		if err := engine.Close(cut); err != nil {
			t.Errorf("cannot end the %v endpoint of the test: %v", s.Protocol, err)
		}
	})
	endpoint, err := engine.Listen(context.Background(), s)
	if err != nil {
		t.Fatalf("cannot serve the %v endpoint of the test: %v", s.Protocol, err)
	}
	t.Cleanup(func() {
		t.Helper()
		if err := endpoint.Err(); err != nil {
			t.Errorf("the %v endpoint at %v ended before the test did: %v", s.Protocol, endpoint.Addr(), err)
		}
	})
	return endpoint
}
