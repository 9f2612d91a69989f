package echo_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echo"
)

// Every byte comes back in order, and the end behind the last of them.
func TestTCPEchoesEveryByteAndHalfCloses(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{}))
		total := uint64(0)
		sizes := []int{0, 1, 2, 64, 1459, 32<<10 - 1, 32 << 10, 32<<10 + 1, 100_003, 3 << 20}
		for _, size := range sizes {
			conn := dial(t, e)
			sent := randomBytes(size)
			go func() {
				_, _ = conn.Write(sent)
				_ = conn.CloseWrite()
			}()
			got, err := io.ReadAll(conn)
			if err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("%d bytes: got %d, equal %t, error %v", size, len(got), bytes.Equal(got, sent), err)
			}
			total += uint64(size)
		}
		eventually(t, "all connections are closed and counted", func() bool {
			s := e.Stats()
			return s.ConnectionsOpen == 0 && s.ConnectionsTotal == uint64(len(sizes)) &&
				s.BytesIn == total && s.BytesOut == total
		})
		if s := e.Stats(); len(s.Drops) != 0 || len(s.Errors) != 0 {
			t.Errorf("drops %v, errors %v", s.Drops, s.Errors)
		}
	})
}

func TestTCPManyConnections(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{}))
		const clients, rounds = 200, 20
		conns := make([]net.Conn, clients)
		for i := range conns {
			conns[i] = dial(t, e)
		}
		var all sync.WaitGroup
		for i, conn := range conns {
			all.Go(func() {
				for round := range rounds {
					if err := tryRoundTrip(conn, fmt.Sprintf("client %d round %d", i, round)); err != nil {
						t.Errorf("client %d: %v", i, err)
						return
					}
				}
			})
		}
		all.Wait()
		if s := e.Stats(); s.ConnectionsOpen != clients || s.ConnectionsTotal != clients {
			t.Errorf("got %+v, want %d connections open", s, clients)
		}
		for _, conn := range conns {
			conn.Close()
		}
		eventually(t, "all connections are closed", func() bool { return e.Stats().ConnectionsOpen == 0 })
	})
}

func TestTCPResetFreesTheConnection(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{}))
		bystander := dial(t, e)
		eventually(t, "the bystander is accepted", func() bool { return e.Stats().ConnectionsTotal == 1 })
		for _, size := range []int{0, 1, 1 << 20} {
			before := e.Stats()
			conn := dial(t, e)
			eventually(t, "the connection is accepted", func() bool {
				return e.Stats().ConnectionsTotal == before.ConnectionsTotal+1
			})
			go func() { _, _ = conn.Write(randomBytes(size)) }()
			eventually(t, "bytes arrive", func() bool {
				return e.Stats().BytesIn-before.BytesIn >= uint64(min(size, 64<<10))
			})
			reset(t, conn)
			eventually(t, "the reset connection is gone", func() bool {
				s := e.Stats()
				return s.ConnectionsOpen == 1 && s.Errors[echo.ErrorReset] == before.Errors[echo.ErrorReset]+1
			})
		}
		roundTrip(t, bystander, "still here")
	})
}

// reset closes conn with a RST.
func reset(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	if err := conn.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestTCPSurvivesClientsThatResetAtOnce(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{}))
		for range 200 {
			reset(t, dial(t, e))
		}
		roundTrip(t, dial(t, e), "still here")
		eventually(t, "only the last is open", func() bool { return e.Stats().ConnectionsOpen == 1 })
	})
}

// A peer that writes without reading is stopped soon, and loses nothing by it.
func TestTCPBackPressure(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{}))
		conn := dial(t, e)
		// Our own side must not be what holds the bytes.
		if err := errors.Join(conn.SetReadBuffer(64<<10), conn.SetWriteBuffer(64<<10)); err != nil {
			t.Fatal(err)
		}
		sent := randomBytes(16 << 20)
		if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		stalled, err := conn.Write(sent)
		if !errors.Is(err, os.ErrDeadlineExceeded) || stalled > 8<<20 {
			t.Fatalf("wrote %d bytes before the stall, error %v; want at most 8 MiB in flight", stalled, err)
		}
		setDeadline(t, conn)
		go func() {
			_, _ = conn.Write(sent[stalled:])
			_ = conn.CloseWrite()
		}()
		got, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("got %d bytes, equal %t, error %v", len(got), bytes.Equal(got, sent), err)
		}
	})
}

func TestTCPIdleTimeoutClosesSilentPeer(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{IdleTimeout: 50 * time.Millisecond}))
		if got, err := io.ReadAll(dial(t, e)); len(got) != 0 || err != nil {
			t.Errorf("got %q, %v; want the end", got, err)
		}
		eventually(t, "it is counted", func() bool {
			s := e.Stats()
			return s.Drops[echo.DropIdleTimeout] == 1 && s.ConnectionsOpen == 0 && len(s.Errors) == 0
		})
	})
}

func TestTCPIdleTimeoutClosesPeerThatDoesNotRead(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{IdleTimeout: 300 * time.Millisecond}))
		conn := dial(t, e)
		_, err := conn.Write(make([]byte, 64<<20))
		if !isReset(err) {
			t.Errorf("writing on and on: got %v, want a reset", err)
		}
		eventually(t, "it is counted", func() bool {
			s := e.Stats()
			return s.Drops[echo.DropIdleTimeout] == 1 && s.ConnectionsOpen == 0 && len(s.Errors) == 0
		})
	})
}

func TestTCPMaxConnections(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{MaxConnections: 2}))
		first, second := dial(t, e), dial(t, e)
		roundTrip(t, first, "one")
		roundTrip(t, second, "two")
		expectClosed(t, dial(t, e))
		s := e.Stats()
		if s.Drops[echo.DropMaxConnections] != 1 || s.ConnectionsOpen != 2 || s.ConnectionsTotal != 2 {
			t.Errorf("got %+v", s)
		}
		roundTrip(t, first, "still one")

		second.Close()
		eventually(t, "there is room", func() bool { return e.Stats().ConnectionsOpen == 1 })
		roundTrip(t, dial(t, e), "three")
	})
}

// expectClosed waits for the end of conn, in whatever manner.
func expectClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	n, err := conn.Read(make([]byte, 1))
	if n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %d bytes, error %v; want a closed connection", n, err)
	}
}

// The echo server of Python's asyncio documentation reads once, answers and closes; its client writes, reads, closes.
func TestTCPOneShot(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{OneShot: true}))
		conn := dial(t, e)
		roundTrip(t, conn, "Hello World!")
		if rest, err := io.ReadAll(conn); len(rest) != 0 || err != nil {
			t.Errorf("after the answer: got %q, %v; want the end", rest, err)
		}
		conn.Close()
		eventually(t, "it is closed", func() bool { return e.Stats().ConnectionsOpen == 0 })
		if s := e.Stats(); s.BytesIn != 12 || s.BytesOut != 12 || len(s.Drops) != 0 || len(s.Errors) != 0 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestTCPOneShotPeerEndsFirst(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{OneShot: true}))
		conn := dial(t, e)
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); len(got) != 0 || err != nil {
			t.Errorf("got %q, %v; want the end", got, err)
		}
	})
}

// The answer arrives whole although the peer writes much more than is answered and reads last.
func TestTCPOneShotDiscardsTheRest(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{OneShot: true}))
		conn := dial(t, e)
		start := time.Now()
		sent := randomBytes(2 << 20)
		if _, err := conn.Write(sent); err != nil && time.Since(start) < time.Second {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		// On a slow machine the second may have passed; then a reset may follow, but only after the answer.
		if err != nil && !(isReset(err) && time.Since(start) >= time.Second) {
			t.Fatal(err)
		}
		if len(got) == 0 || len(got) > 32<<10 || !bytes.HasPrefix(sent, got) {
			t.Fatalf("got %d bytes, a prefix of what was sent: %t", len(got), bytes.HasPrefix(sent, got))
		}
		conn.Close()
		eventually(t, "every byte is accounted for", func() bool {
			s := e.Stats()
			return s.ConnectionsOpen == 0 && s.BytesOut == uint64(len(got)) && s.Drops[echo.DropRest] > 0 &&
				s.BytesIn == s.BytesOut+s.Drops[echo.DropRest]
		})
	})
}

// A one-shot peer that never ends its side is closed after the grace.
func TestTCPOneShotEndsByItself(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{OneShot: true, IdleTimeout: time.Hour}))
		conn := dial(t, e)
		roundTrip(t, conn, "hello")
		eventually(t, "it is closed", func() bool { return e.Stats().ConnectionsOpen == 0 })
		if s := e.Stats(); len(s.Drops) != 0 || len(s.Errors) != 0 {
			t.Errorf("got %+v", s)
		}
	})
}
