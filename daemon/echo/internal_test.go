package echo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/echod/echod/daemon/internal/wire"
)

// pipe is a TCP connection in memory, whose time is that of a synctest bubble.
type pipe struct {
	net.Conn
	ended time.Time // when CloseWrite was called; read after the connection is gone
}

func (p *pipe) CloseWrite() error {
	p.ended = time.Now()
	return nil
}

func (p *pipe) SetLinger(int) error { return nil }

// serveInMemory runs one connection and returns the peer's end of it.
func serveInMemory(timeout timeouts) (peer net.Conn, c *tcpConn, gone chan struct{}) {
	peer, ours := net.Pipe()
	limits := new(atomic.Pointer[timeouts])
	limits.Store(&timeout)
	c = &tcpConn{conn: &pipe{Conn: ours}, await: func() error { return nil }, counters: new(counters), timeouts: limits, left: unlimited, moved: time.Now()}
	gone = make(chan struct{})
	go func() {
		c.run()
		close(gone)
	}()
	return peer, c, gone
}

// ping has one byte echoed.
func ping(t *testing.T, peer net.Conn) {
	t.Helper()
	if _, err := peer.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestActiveConnectionIsNotClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer, c, gone := serveInMemory(timeouts{idle: 10 * time.Second})
		for range 100 {
			time.Sleep(9 * time.Second)
			ping(t, peer)
		}
		last := time.Now()
		<-gone
		if idle := time.Since(last); idle != 10*time.Second || c.counters.of(dropIdleTimeout).Load() != 1 {
			t.Errorf("closed %v after the last byte, counted %d times", idle, c.counters.of(dropIdleTimeout).Load())
		}
	})
}

// A peer that takes its echo slowly is not idle; one that stops taking it is.
func TestSlowReaderIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer, c, gone := serveInMemory(timeouts{idle: 10 * time.Second})
		if _, err := peer.Write(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		for range 50 {
			time.Sleep(9 * time.Second)
			if _, err := peer.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		last := time.Now()
		<-gone
		if idle := time.Since(last); idle < 10*time.Second || idle > 20*time.Second {
			t.Errorf("closed %v after the last byte", idle)
		}
		if c.counters.of(dropIdleTimeout).Load() != 1 || c.counters.bytesOut.Load() != 50 {
			t.Errorf("got %+v", c.counters.snapshot())
		}
	})
}

// A new timeout counts from its change, and none at all stops the clock.
func TestNewIdleTimeoutCountsFromItsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer, c, gone := serveInMemory(timeouts{idle: time.Minute})
		set := func(timeout time.Duration) {
			c.timeouts.Store(&timeouts{idle: timeout, since: time.Now()})
			c.rearm()
		}
		time.Sleep(59 * time.Second)
		set(0)
		time.Sleep(24 * time.Hour)
		ping(t, peer)
		time.Sleep(time.Hour)
		changed := time.Now()
		set(5 * time.Second)
		<-gone
		if after := time.Since(changed); after != 5*time.Second {
			t.Errorf("closed %v after the change", after)
		}
	})
}

func TestOneShotGraceIsNotTheIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer, ours := net.Pipe()
		limits := new(atomic.Pointer[timeouts])
		limits.Store(&timeouts{idle: 100 * time.Millisecond})
		stream := &pipe{Conn: ours}
		c := &tcpConn{
			conn: stream, await: func() error { return nil }, counters: new(counters), timeouts: limits, oneShot: true,
			left: unlimited, moved: time.Now(),
		}
		gone := make(chan struct{})
		go func() {
			c.run()
			close(gone)
		}()
		ping(t, peer)
		answered := time.Now()
		time.Sleep(900 * time.Millisecond)
		if _, err := peer.Write([]byte("rest")); err != nil {
			t.Fatal(err)
		}
		c.rearm() // an update meanwhile must not prolong it
		<-gone
		s := c.counters.snapshot()
		after := time.Since(answered)
		if after != time.Second || s.Drops[DropRest] != 4 || s.Drops[DropIdleTimeout] != 0 {
			t.Errorf("closed %v after the answer, %+v", after, s)
		}
		if !stream.ended.Equal(answered) {
			t.Errorf("ended our side %v after the answer, want at once", stream.ended.Sub(answered))
		}
	})
}

// brokenListener fails as if the process had no descriptors left, until it is closed.
type brokenListener struct{ net.Listener }

func (l *brokenListener) Accept() (net.Conn, error) {
	return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
}

func (l *brokenListener) Close() error { return nil }

func TestAcceptErrorsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken, c := new(brokenListener), new(counters)
		s := newTCPServer(broken, Spec{}, new(budget), nil, c)
		ended := make(chan error, 1)
		go func() { ended <- s.serve() }()
		time.Sleep(time.Minute)
		synctest.Wait()
		// 5+10+...+640 ms are 8 pauses within 1.3 s; then one a second.
		if n := c.of(errorAccept).Load(); n < 60 || n > 68 {
			t.Errorf("%d errors in a minute, want one a second after a few quick ones", n)
		}
		s.stop()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("ended with %v", err)
		}
	})
}

// Nothing but closing ends a UDP endpoint, and failing again and again does not spin.
func TestUDPReadErrorsPass(t *testing.T) {
	g := New(Options{Portable: true})
	e, err := g.Listen(t.Context(), Spec{Protocol: UDP, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	conn := e.server.(*udpServer).conn
	if err := conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	for e.Stats().Errors[ErrorRead] < 3 {
		time.Sleep(time.Millisecond)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("udp", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Write([]byte("still here?")); err != nil {
		t.Fatal(err)
	}
	if err := client.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 100)); err != nil {
		t.Error(err)
	}
	if err := g.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// An answer that cannot be sent is counted, as each datagram that is not answered.
func TestUDPWriteErrorsAreCounted(t *testing.T) {
	c, l := new(counters), newLedgers()
	s, _, err := bindUDP(t.Context(), Address{IP: netip.MustParseAddr("127.0.0.1")}, Spec{}, newGuard(new(Engine), Spec{}), l, c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.stop()
	round := make([]byte, 20)
	wire.Fill(round, 1, 1, 0)
	for _, payload := range [][]byte{[]byte("hello"), round} {
		s.(*udpServer).reply(payload, nil, netip.MustParseAddrPort("[2001:db8::1]:4242"), time.Now())
	}
	if got := c.snapshot(); got.Errors[ErrorWrite] != 2 || got.DatagramsOut != 0 || got.BytesOut != 0 {
		t.Errorf("got %+v", got)
	}
	if got, ok := l.get(1, time.Now()); !ok || got.Received != 1 || got.Unanswered != 1 {
		t.Errorf("the ledger has %+v", got)
	}
}

// An endpoint whose socket is lost without Close says so.
func TestErrTellsWhyAnEndpointEnded(t *testing.T) {
	g := New(Options{Portable: true})
	e, err := g.Listen(t.Context(), Spec{Protocol: TCP, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if e.Err() != nil {
		t.Errorf("while serving: %v", e.Err())
	}
	told := make(chan error, 2)
	if err := e.OnFailure(func(err error) { told <- err }); err != nil {
		t.Errorf("OnFailure while serving: %v", err)
	}
	if err := e.server.(*tcpServer).listener.Close(); err != nil {
		t.Fatal(err)
	}
	<-e.Done()
	if !errors.Is(e.Err(), net.ErrClosed) {
		t.Errorf("got %v, want the listener's error", e.Err())
	}
	if err := <-told; !errors.Is(err, net.ErrClosed) {
		t.Errorf("told of %v, want the listener's error", err)
	}
	if err := e.OnFailure(func(err error) { told <- err }); !errors.Is(err, net.ErrClosed) {
		t.Errorf("OnFailure after the end: %v, want the listener's error", err)
	}
	other, err := g.Listen(t.Context(), Spec{Protocol: TCP, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.OnFailure(func(err error) { told <- err }); err != nil {
		t.Error(err)
	}
	if err := errors.Join(e.Close(context.Background()), other.Close(context.Background()), g.Close(context.Background())); err != nil {
		t.Error(err)
	}
	if len(told) > 0 {
		t.Errorf("told of %v, and the endpoint was closed", <-told)
	}
}

func TestBindErrorsNameTheReason(t *testing.T) {
	for reason, codes := range bindReasons {
		for _, code := range codes {
			cause := &net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", code)}
			err := bindError("127.0.0.1:7", Address{}, cause)
			if !errors.Is(err, reason) || err.Error() != "cannot bind 127.0.0.1:7: "+reason.Error() {
				t.Errorf("%v: got %v", code, err)
			}
		}
	}
	cause := fmt.Errorf("listen tcp 127.0.0.1:7: %w", os.NewSyscallError("bind", invalidArgument))
	other := bindError("127.0.0.1:7", Address{}, cause)
	if other.Error() != "cannot bind 127.0.0.1:7: "+invalidArgument.Error() {
		t.Errorf("got %v", other)
	}
}
