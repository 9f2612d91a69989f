package echo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/echod/echod/daemon/echo"
)

// child is what this process is to do instead of the tests, as another process of one of them.
var child func() error

func TestMain(m *testing.M) {
	if child == nil {
		goleak.VerifyTestMain(m)
		return
	}
	if err := child(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var noEnd = context.Background()

// patience is how long a test waits for what must happen. It bounds a broken program, not a slow machine.
const patience = 30 * time.Second

// maker makes an engine to test.
type maker func() *echo.Engine

// forEachEngine runs body with each kind of engine that this system has.
func forEachEngine(t *testing.T, body func(t *testing.T, newEngine maker)) {
	t.Helper()
	forEachEngineWith(t, echo.Options{}, body)
}

// forEachLimitedEngine runs body with engines that may have so many sockets.
func forEachLimitedEngine(t *testing.T, sockets int, body func(t *testing.T, newEngine maker)) {
	t.Helper()
	forEachEngineWith(t, echo.Options{MaxSockets: sockets}, body)
}

func forEachEngineWith(t *testing.T, o echo.Options, body func(t *testing.T, newEngine maker)) {
	t.Helper()
	for name, portable := range map[string]bool{"net": true, "fast": false} {
		o.Portable = portable
		t.Run(name, func(t *testing.T) { body(t, func() *echo.Engine { return echo.New(o) }) })
	}
}

// open opens an endpoint of an engine of its own; both are cut when the test ends.
func open(t *testing.T, newEngine maker, s echo.Spec) *echo.Endpoint {
	t.Helper()
	engine := newEngine()
	t.Cleanup(func() { closeEngine(t, engine) })
	return listen(t, engine, s)
}

func listen(t *testing.T, engine *echo.Engine, s echo.Spec) *echo.Endpoint {
	t.Helper()
	e, err := engine.Listen(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func closeEngine(t *testing.T, engine *echo.Engine) {
	t.Helper()
	if err := engine.Close(endedContext()); err != nil {
		t.Errorf("Engine.Close: %v", err)
	}
}

// endedContext makes a Close cut at once.
func endedContext() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// patient returns a context for what a test waits for.
func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func tcpSpec(o echo.TCPOptions) echo.Spec {
	return echo.Spec{Protocol: echo.TCP, Listen: "127.0.0.1:0", TCP: o}
}

// dial connects to a TCP endpoint.
func dial(t *testing.T, e *echo.Endpoint) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	setDeadline(t, conn)
	return conn.(*net.TCPConn)
}

func setDeadline(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
}

// roundTrip expects message back.
func roundTrip(t *testing.T, conn net.Conn, message string) {
	t.Helper()
	if err := tryRoundTrip(conn, message); err != nil {
		t.Fatal(err)
	}
}

func tryRoundTrip(conn net.Conn, message string) error {
	if _, err := io.WriteString(conn, message); err != nil {
		return err
	}
	answer := make([]byte, len(message))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if string(answer) != message {
		return errors.New("sent " + message + ", got " + string(answer))
	}
	return nil
}

// eventually waits until condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// randomBytes returns n bytes that are the same for the same n.
func randomBytes(n int) []byte {
	var b bytes.Buffer
	_, _ = io.CopyN(&b, rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}), int64(n))
	return b.Bytes()
}

func needIPv6(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	l.Close()
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// port is an endpoint's, as text.
func port(e *echo.Endpoint) string { return strconv.Itoa(int(e.Addr().Port())) }
