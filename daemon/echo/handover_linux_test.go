package echo

import (
	"testing"

	"golang.org/x/sys/unix"
)

func passEndpoint(t *testing.T, e *Endpoint, s Spec, to *Engine) *Endpoint {
	t.Helper()
	h, err := e.Pause(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other, err := to.Adopt(t.Context(), s, h)
	if err != nil {
		t.Fatal(err)
	}
	e.Release()
	if err := other.Resume(); err != nil {
		t.Fatal(err)
	}
	return other
}

func onlyConn(t *testing.T, e *Endpoint) *loopConn {
	t.Helper()
	all := e.server.(*loopTCP).all()
	if len(all) != 1 {
		t.Fatalf("%d connections", len(all))
	}
	return all[0]
}

// A connection keeps its deep buffers where there is a place for them, and gives them back where there is none; so what peers can
// have the kernel hold is bounded over any number of hand-overs.
func TestDeepBuffersAreHandedOver(t *testing.T) {
	e, peer, c := serveLoop(t, TCPOptions{})
	ask(t, peer, 4*earnBytes)
	places := func(c *loopConn) (all deep, receive int) {
		c.loop.await(func() {
			all = c.loop.deep
			receive, _ = unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		})
		return all, receive
	}
	if all, _ := places(c); all != (deep{c}) {
		t.Fatal("bulk did not make it deep")
	}
	to := New(Options{})
	defer to.Close(t.Context())
	s := Spec{Protocol: TCP, Listen: e.Addr().String()}
	loopBefore := c.loop
	e = passEndpoint(t, e, s, to)
	loopBefore.await(func() {
		if loopBefore.deep != (deep{}) {
			t.Error("its place is taken still")
		}
	})
	c = onlyConn(t, e)
	if all, receive := places(c); all != (deep{c}) || receive < deepest.receive {
		t.Errorf("it has a buffer of %d bytes, and of the places %v", receive, all)
	}
	ask(t, peer, 4*earnBytes)

	// Where all places are taken by connections that move, there is none.
	full := New(Options{})
	defer full.Close(t.Context())
	if err := full.sockets.(*loops).ensure(); err != nil {
		t.Fatal(err)
	}
	busy := &loopConn{moved: noDeadline}
	for _, l := range full.sockets.(*loops).all {
		l.await(func() {
			for i := range l.deep {
				l.deep[i] = busy
			}
		})
	}
	e = passEndpoint(t, e, s, full)
	c = onlyConn(t, e)
	if all, receive := places(c); all[0] != busy || receive > 4*tcpReceiveBytes || !c.mayDeepen {
		t.Errorf("there was no place, and it has a buffer of %d bytes", receive)
	}
	ask(t, peer, 4*earnBytes)
	if err := peer.Close(); err != nil {
		t.Error(err)
	}
	_ = e.Close(t.Context())
}

// What an endpoint of one listener's options has set is as Listen would have had it after it was adopted with others.
func TestAdoptSetsBuffers(t *testing.T) {
	from := New(Options{})
	defer from.Close(t.Context())
	plain := Spec{Protocol: TCP, Listen: "127.0.0.1:0"}
	fixed := plain
	fixed.TCP.SocketBufferBytes = 100_000
	buffersOf := func(e *Endpoint) [4]int {
		s := e.server.(*loopTCP)
		var got [4]int
		for i, name := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF, unix.SO_BUF_LOCK} {
			n, err := unix.GetsockoptInt(s.listener, unix.SOL_SOCKET, name)
			if err != nil {
				t.Skipf("the kernel does not tell: %v", err)
			}
			got[i] = n
		}
		got[3] = s.receive
		return got
	}
	for _, specs := range [][2]Spec{{plain, fixed}, {fixed, plain}, {plain, plain}, {fixed, fixed}} {
		before, err := from.Listen(t.Context(), specs[0])
		if err != nil {
			t.Fatal(err)
		}
		as, err := from.Listen(t.Context(), specs[1])
		if err != nil {
			t.Fatal(err)
		}
		if got, want := buffersOf(passEndpoint(t, before, specs[1], from)), buffersOf(as); got != want {
			t.Errorf("from %d to %d: receive and send buffer, locks and what connections get are %v, want %v", specs[0].TCP.SocketBufferBytes, specs[1].TCP.SocketBufferBytes, got, want)
		}
	}
}
