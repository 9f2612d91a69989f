package echo

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// serveLoop opens a TCP endpoint of an engine of its own and a connection to it, and returns the loop's end of that.
func serveLoop(t *testing.T, o TCPOptions) (*Endpoint, *net.TCPConn, *loopConn) {
	t.Helper()
	g := New(Options{})
	t.Cleanup(func() {
		cut, cancel := context.WithCancel(context.Background())
		cancel()
		if err := g.Close(cut); err != nil {
			t.Error(err)
		}
	})
	e, err := g.Listen(t.Context(), Spec{Protocol: TCP, Listen: "127.0.0.1:0", TCP: o})
	if err != nil {
		t.Fatal(err)
	}
	peer, c := connectLoop(t, e)
	return e, peer, c
}

// connectLoop opens one more connection.
func connectLoop(t *testing.T, e *Endpoint) (*net.TCPConn, *loopConn) {
	t.Helper()
	s := e.server.(*loopTCP)
	before := map[*loopConn]bool{}
	for _, c := range s.all() {
		before[c] = true
	}
	conn, err := net.Dial("tcp", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	ask(t, conn, 1) // it is accepted by now
	for _, c := range s.all() {
		if !before[c] {
			return conn.(*net.TCPConn), c
		}
	}
	t.Fatal("the connection is not there")
	return nil, nil
}

// ask has n bytes echoed.
func ask(t *testing.T, conn net.Conn, n int) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, n))
		done <- err
	}()
	if _, err := io.CopyN(io.Discard, conn, int64(n)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// stuff writes to a connection, and reads nothing, until the loop waits for it.
func stuff(t *testing.T, peer net.Conn, c *loopConn, chunk int) {
	t.Helper()
	stop := make(chan struct{})
	t.Cleanup(func() { <-stop })
	go func() {
		defer close(stop)
		b := make([]byte, chunk)
		for {
			if _, err := peer.Write(b); err != nil {
				return
			}
		}
	}()
	waitFull(t, c)
}

// waitFull waits until the loop waits for the peer.
func waitFull(t *testing.T, c *loopConn) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		full := false
		c.loop.await(func() { full = c.full })
		if full {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not fill")
		}
	}
}

// Of what a peer does not take, the kernel holds what is bulk, and the loop no more than a small read.
func TestStalledPeersHoldNoMemoryHere(t *testing.T) {
	for chunk, most := range map[int]int{256 << 10: 0, 500: smallRead} {
		_, peer, c := serveLoop(t, TCPOptions{})
		stuff(t, peer, c, chunk)
		held := 0
		c.loop.await(func() { held = len(c.pending) })
		if held > most {
			t.Errorf("chunks of %d: %d bytes are held, want %d at the most", chunk, held, most)
		}
		if received, sent := kernelHolds(t, c.fd); received+sent > 512<<10 {
			t.Errorf("chunks of %d: the kernel holds %d and %d bytes, more than half a mebibyte", chunk, received, sent)
		}
		peer.Close()
	}
}

// kernelHolds reads what memory a socket's buffers take: the first and the sixth number of SO_MEMINFO.
func kernelHolds(t *testing.T, fd int) (received, sent int) {
	t.Helper()
	info, errno := meminfo(fd)
	if errno != 0 {
		t.Fatal(errno)
	}
	const receiveMemory, sendQueued = 0, 5
	return int(info[receiveMemory]), int(info[sendQueued])
}

// A full connection whose peer takes something now and then has not stalled; one that takes nothing has.
func TestSlowPeerDoesNotStall(t *testing.T) {
	const timeout = time.Hour
	e, peer, c := serveLoop(t, TCPOptions{StallTimeout: timeout})
	stuff(t, peer, c, 64<<10)
	later := func() {
		c.loop.await(func() {
			c.moved -= 2 * timeout
			c.loop.timers.cancel(&c.timer)
			c.expire()
		})
	}
	later() // the first time nobody knows what it has taken before
	for range 3 {
		takeSome(t, peer, c)
		later()
		if n := e.counters.connectionsOpen.Load(); n != 1 {
			t.Fatal("a peer that takes some of it was taken for stalled")
		}
		waitFull(t, c)
	}
	later() // it may have been full anew
	later()
	if n, drops := e.counters.connectionsOpen.Load(), e.counters.snapshot().Drops; n != 0 || drops[DropStallTimeout] != 1 {
		t.Errorf("%d open, drops %v", n, drops)
	}
}

// takeSome reads until less waits for the peer than when the loop looked last, or the connection goes on.
func takeSome(t *testing.T, peer net.Conn, c *loopConn) {
	t.Helper()
	for {
		if _, err := io.CopyN(io.Discard, peer, 64<<10); err != nil {
			t.Fatal(err)
		}
		less := false
		c.loop.await(func() { less = !c.full || unsentBytes(c.fd) < c.unsent })
		if less {
			return
		}
	}
}

// However much has come, a connection moves so much a turn, and asks for another.
func TestBulkHasItsTurnAndNoMore(t *testing.T) {
	const asked, most = 4 << 20, roundsATurn * aloneRead
	e, peer, c := serveLoop(t, TCPOptions{SocketBufferBytes: asked})
	if given, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil || given < asked {
		t.Skipf("net.core.rmem_max of this host is too small: %d, %v", given, err)
	}
	written := make(chan struct{})
	start := make(chan struct{})
	go func() {
		defer close(written)
		<-start
		_, _ = peer.Write(make([]byte, 2*most)) // what came is looked at, not what was written
	}()
	c.loop.await(func() {
		close(start)
		for deadline := time.Now().Add(time.Minute); unread(t, c.fd) < most*3/2; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Error("it does not come")
				return
			}
		}
		before := e.counters.bytesOut.Load()
		c.bulk, c.loop.events = true, 1
		c.handle(unix.EPOLLIN)
		if moved := e.counters.bytesOut.Load() - before; moved == 0 || moved > most || !c.queued {
			t.Errorf("%d bytes moved in a turn, want %d at the most; another asked for: %v", moved, most, c.queued)
		}
	})
	if _, err := io.CopyN(io.Discard, peer, 2*most); err != nil { // all of it comes in the end
		t.Error(err)
	}
	<-written
}

// unread is how many bytes wait to be read.
func unread(t *testing.T, fd int) int {
	t.Helper()
	n, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	if err != nil {
		t.Error(err)
	}
	return n
}

// Few connections have deep buffers, those that have earned them; one that rests gives way.
func TestDeepBuffersGoToTheFew(t *testing.T) {
	e, peer, c := serveLoop(t, TCPOptions{})
	c.loop.await(func() { c.loop.deep = deep{} })
	isDeep := func(c *loopConn) (deep bool) {
		c.loop.await(func() {
			for _, other := range c.loop.deep {
				deep = deep || other == c
			}
		})
		return deep
	}
	receiveBuffer := func(c *loopConn) int {
		n, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := receiveBuffer(c)
	if before > 4*tcpReceiveBytes {
		t.Errorf("a connection begins with %d bytes", before)
	}
	for range 100 {
		ask(t, peer, 1000)
	}
	if isDeep(c) {
		t.Error("small requests made it deep")
	}
	ask(t, peer, 4*earnBytes)
	if after := receiveBuffer(c); !isDeep(c) || after <= before {
		t.Errorf("bulk did not make it deep: %d bytes, before %d", after, before)
	}

	// All places are taken by connections that move: there is none for another.
	newcomer, n := connectLoop(t, e)
	n.loop.await(func() {
		for i := range n.loop.deep {
			n.loop.deep[i] = c
		}
		c.moved = n.loop.now + time.Hour
	})
	ask(t, newcomer, 4*earnBytes)
	if isDeep(n) {
		t.Error("there was no place")
	}
	// The one that rests gives way, with all that it had, once its peer's kernel has acknowledged the last of its bytes.
	rests := false
	for deadline := time.Now().Add(time.Minute); !rests; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the kernel still holds something of the one that rests")
		}
		c.loop.await(func() { rests = c.holdsNothing() })
	}
	n.loop.await(func() { c.moved = n.loop.now - deepRest })
	ask(t, newcomer, 4*earnBytes)
	if now := receiveBuffer(c); !isDeep(n) || now > 4*tcpReceiveBytes {
		t.Errorf("the one that rests did not give way: it has %d bytes", now)
	}
	n.loop.await(func() {
		n.loop.deep = deep{n}
		c.mayDeepen = true
	})
	ask(t, peer, 4*earnBytes)
	if !isDeep(c) || !isDeep(n) {
		t.Error("it goes on, and there was a free place")
	}
	n.loop.await(n.cut)
	if isDeep(n) {
		t.Error("it is gone and has a place")
	}
}

// What can be had by resting and stalling again and again is what the places hold, and no more.
func TestDeepBuffersStayBounded(t *testing.T) {
	e, _, _ := serveLoop(t, TCPOptions{})
	held := func() (bytes int) {
		for _, c := range e.server.(*loopTCP).all() {
			received, sent := 0, 0
			c.loop.await(func() {
				if !c.gone {
					received, sent = kernelHolds(t, c.fd)
				}
			})
			bytes += received + sent
		}
		return bytes
	}
	const peers = 24
	for range peers {
		peer, c := connectLoop(t, e)
		ask(t, peer, 4*earnBytes)
		stuff(t, peer, c, 256<<10)
		c.loop.await(func() { c.moved -= 2 * deepRest }) // it has been so for a while
	}
	// Each place holds up to twice what was asked for, in each direction, and a little more.
	most := deepAtOnce*2*(deepest.receive+deepest.send)*5/4 + peers*512<<10
	if got := held(); got > most {
		t.Errorf("%d peers hold %d MiB, want %d at the most", peers, got>>20, most>>20)
	}
	for _, c := range e.server.(*loopTCP).all() {
		c.loop.do(c.cut)
	}
}

// When an endpoint says that it is over, its port is free, also if the last connection leaves while it stops.
func TestOverMeansThePortIsFree(t *testing.T) {
	for range 50 {
		e, peer, _ := serveLoop(t, TCPOptions{})
		closed := make(chan error, 1)
		go func() { closed <- e.Close(t.Context()) }()
		peer.Close()
		<-e.Done()
		l, err := net.Listen("tcp", e.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if err := <-closed; err != nil {
			t.Error(err)
		}
	}
}

// What a peer does not take of a connection that it has ended is given up after the stall timeout.
func TestClosedConnectionsAreGivenUp(t *testing.T) {
	e, peer, _ := serveLoop(t, TCPOptions{StallTimeout: 100 * time.Millisecond})
	if err := peer.SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Write(make([]byte, 100<<10)); err != nil {
		t.Fatal(err)
	}
	if err := peer.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); e.counters.connectionsOpen.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not end")
		}
	}
	for deadline := time.Now().Add(time.Minute); lastAcks(t, e.Addr().Port()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the kernel keeps what nobody takes")
		}
	}
}

// lastAcks counts the sockets of a port that wait for the last acknowledgement (state 09 of /proc/net/tcp).
func lastAcks(t *testing.T, port uint16) (n int) {
	t.Helper()
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) > 3 && strings.HasSuffix(words[1], fmt.Sprintf(":%04X", port)) && words[3] == "09" {
			n++
		}
	}
	return n
}

// Connections have the buffers that their endpoint asks for, from then on.
func TestSocketBuffersAreAskedFor(t *testing.T) {
	size := func(c *loopConn, name int) int {
		n, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, name)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	e, peer, c := serveLoop(t, TCPOptions{SocketBufferBytes: 32 << 10})
	ask(t, peer, 4*earnBytes)
	if r, w := size(c, unix.SO_RCVBUF), size(c, unix.SO_SNDBUF); r != 64<<10 || w != 64<<10 {
		t.Errorf("receive %d, send %d; want twice what was asked for, and to stay so", r, w)
	}
	if err := e.Update(Spec{Protocol: TCP, Listen: "127.0.0.1:0", TCP: TCPOptions{SocketBufferBytes: 64 << 10}}); err != nil {
		t.Fatal(err)
	}
	_, later := connectLoop(t, e)
	if r, w := size(later, unix.SO_RCVBUF), size(later, unix.SO_SNDBUF); r != 128<<10 || w != 128<<10 {
		t.Errorf("after the update: receive %d, send %d", r, w)
	}
	if r := size(c, unix.SO_RCVBUF); r != 64<<10 {
		t.Errorf("a connection that was open has %d now", r)
	}
	// And back: those to come are as if nothing had ever been said, and may become deep.
	if err := e.Update(Spec{Protocol: TCP, Listen: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	back, last := connectLoop(t, e)
	_, _, fresh := serveLoop(t, TCPOptions{})
	if r, want := size(last, unix.SO_RCVBUF), size(fresh, unix.SO_RCVBUF); r != want {
		t.Errorf("back at the default: receive %d, want %d", r, want)
	}
	if w, want := size(last, unix.SO_SNDBUF), size(fresh, unix.SO_SNDBUF); w != want {
		t.Errorf("back at the default: send %d, want %d", w, want)
	}
	ask(t, back, 4*earnBytes)
	if r, was := size(last, unix.SO_RCVBUF), size(fresh, unix.SO_RCVBUF); r <= was {
		t.Errorf("it does not become deep: %d bytes", r)
	}
}
