package echo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// TestASocketThatOutlivesItsEndpoint closes endpoints whose sockets somebody else has: they are in no loop any more.
func TestASocketThatOutlivesItsEndpoint(t *testing.T) {
	for _, protocol := range []Protocol{TCP, UDP} {
		g := New(Options{})
		e, err := g.Listen(t.Context(), Spec{Protocol: protocol, Listen: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		socket, err := e.Socket()
		if err != nil {
			t.Fatal(err)
		}
		g.Beat()
		watched := func() (n int) {
			loops, _ := g.sockets.(*loops)
			for _, l := range loops.all {
				text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", l.fd))
				if err != nil {
					t.Skip(err)
				}
				n += strings.Count(string(text), "tfd:")
			}
			return n
		}
		if n := watched(); n != 1 {
			t.Errorf("%v: the loops watch %d sockets of 1", protocol, n)
		}
		_ = e.Close(t.Context())
		if n := watched(); n != 0 {
			t.Errorf("%v: the loops watch %d sockets after the end of the endpoint", protocol, n)
		}
		if _, err := e.Socket(); !errors.Is(err, ErrClosed) {
			t.Errorf("%v: the socket of what has ended: %v", protocol, err)
		}
		again, err := Duplicate(socket)
		if err != nil {
			t.Fatal(err)
		}
		socket.Close()
		back, err := g.Adopt(t.Context(), Spec{Protocol: protocol, Listen: e.Addr().String()}, Handed{Socket: again})
		if err == nil {
			err = back.Resume()
		}
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial(strings.ToLower(protocol.String()), e.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 2)); n != 1 {
			t.Errorf("%v: the socket that came back does not echo: %v", protocol, err)
		}
		conn.Close()
		_ = g.Close(context.Background())
	}
}

func TestTheSocketOfAPortableEndpoint(t *testing.T) {
	g := New(Options{Portable: true})
	defer g.Close(context.Background())
	for _, protocol := range []Protocol{TCP, UDP} {
		e, err := g.Listen(t.Context(), Spec{Protocol: protocol, Listen: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		socket, err := e.Socket()
		if err != nil {
			t.Fatal(err)
		}
		_ = e.Close(t.Context())
		if _, err := g.Listen(t.Context(), Spec{Protocol: protocol, Listen: e.Addr().String()}); !errors.Is(err, ErrAddressInUse) {
			t.Errorf("%v: the address of a socket that is still open: %v", protocol, err)
		}
		socket.Close()
	}
}
