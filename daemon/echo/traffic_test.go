package echo_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echo"
)

// witness is an observer that keeps what it is told.
type witness struct {
	mu    sync.Mutex
	conns []*seen
}

// seen is what was told of one connection.
type seen struct {
	tag   any
	peer  netip.AddrPort
	ended []echo.Ending
}

func (w *witness) observe(tag any, peer netip.AddrPort) func(echo.Ending) {
	w.mu.Lock()
	defer w.mu.Unlock()
	one := &seen{tag: tag, peer: peer}
	w.conns = append(w.conns, one)
	return func(e echo.Ending) {
		w.mu.Lock()
		defer w.mu.Unlock()
		one.ended = append(one.ended, e)
	}
}

func (w *witness) all() (all []seen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.conns {
		all = append(all, seen{one.tag, one.peer, slices.Clone(one.ended)})
	}
	return all
}

// of waits for the end of the connection that conn is the other end of.
func (w *witness) of(t *testing.T, conn net.Conn) (found echo.Ending) {
	t.Helper()
	eventually(t, "the end is told", func() bool {
		for _, one := range w.all() {
			if one.peer.String() == conn.LocalAddr().String() && len(one.ended) > 0 {
				found = one.ended[0]
				return true
			}
		}
		return false
	})
	return found
}

// How each connection ends is told as what it was.
func TestObserveTellsWhyConnectionsEnd(t *testing.T) {
	w := new(witness)
	forEachEngineWith(t, echo.Options{Observe: w.observe}, func(t *testing.T, newEngine maker) {
		engine := newEngine()
		defer closeEngine(t, engine)
		for _, test := range []struct {
			what     string
			options  echo.TCPOptions
			do       func(*testing.T, *echo.Endpoint, *net.TCPConn)
			want     string
			in, out  uint64
			anyBytes bool // how many there are in time is not known
		}{
			{what: "the peer ends at once", do: closeWrite, want: echo.EndedPeerClosed},
			{what: "the peer ends after an echo", do: func(t *testing.T, e *echo.Endpoint, conn *net.TCPConn) {
				roundTrip(t, conn, "hello")
				closeWrite(t, e, conn)
			}, want: echo.EndedPeerClosed, in: 5, out: 5},
			{what: "the peer is silent", options: echo.TCPOptions{IdleTimeout: 50 * time.Millisecond}, do: readToEnd, want: echo.EndedIdle},
			{what: "the peer takes nothing", options: echo.TCPOptions{StallTimeout: 50 * time.Millisecond}, do: writeOnly,
				want: echo.EndedStalled, anyBytes: true},
			{what: "the peer takes nothing for longer than it may be idle", options: echo.TCPOptions{IdleTimeout: 300 * time.Millisecond},
				do: writeOnly, want: echo.EndedIdle, anyBytes: true},
			{what: "the peer resets", do: func(t *testing.T, _ *echo.Endpoint, conn *net.TCPConn) {
				roundTrip(t, conn, "hello")
				reset(t, conn)
			}, want: echo.EndedReset, in: 5, out: 5},
			{what: "one answer", options: echo.TCPOptions{OneShot: true}, do: func(t *testing.T, e *echo.Endpoint, conn *net.TCPConn) {
				roundTrip(t, conn, "hello")
				readToEnd(t, e, conn)
				if _, err := io.WriteString(conn, "and more"); err != nil {
					t.Fatal(err)
				}
				closeWrite(t, e, conn)
			}, want: echo.EndedOneShot, anyBytes: true},
			{what: "one answer, and the peer stays", options: echo.TCPOptions{OneShot: true}, do: func(t *testing.T, _ *echo.Endpoint, conn *net.TCPConn) {
				roundTrip(t, conn, "hello")
			}, want: echo.EndedOneShot, in: 5, out: 5},
			{what: "the peer wants no answer", options: echo.TCPOptions{OneShot: true, MaxBytes: 5}, do: closeWrite, want: echo.EndedPeerClosed},
			{what: "enough bytes", options: echo.TCPOptions{MaxBytes: 5}, do: func(t *testing.T, e *echo.Endpoint, conn *net.TCPConn) {
				if _, err := io.WriteString(conn, "hello and more"); err != nil {
					t.Fatal(err)
				}
				closeWrite(t, e, conn)
			}, want: echo.EndedMaxBytes, anyBytes: true},
			{what: "enough bytes, and the peer stays", options: echo.TCPOptions{MaxBytes: 5}, do: func(t *testing.T, _ *echo.Endpoint, conn *net.TCPConn) {
				roundTrip(t, conn, "hello")
			}, want: echo.EndedMaxBytes, in: 5, out: 5},
			{what: "fewer bytes than may be", options: echo.TCPOptions{MaxBytes: 6}, do: func(t *testing.T, e *echo.Endpoint, conn *net.TCPConn) {
				roundTrip(t, conn, "hello")
				closeWrite(t, e, conn)
			}, want: echo.EndedPeerClosed, in: 5, out: 5},
			{what: "the endpoint closes", do: func(t *testing.T, e *echo.Endpoint, conn *net.TCPConn) {
				roundTrip(t, conn, "hello")
				if err := e.Close(endedContext()); err != nil {
					t.Fatal(err)
				}
			}, want: echo.EndedStopped, in: 5, out: 5},
			{what: "the endpoint drains", do: func(t *testing.T, e *echo.Endpoint, conn *net.TCPConn) {
				roundTrip(t, conn, "hello")
				closeWrite(t, e, conn)
				if err := e.Close(patient(t)); err != nil {
					t.Fatal(err)
				}
			}, want: echo.EndedPeerClosed, in: 5, out: 5},
		} {
			t.Run(test.what, func(t *testing.T) {
				e := listen(t, engine, tcpSpec(test.options))
				conn := dial(t, e)
				test.do(t, e, conn)
				got := w.of(t, conn)
				if test.anyBytes {
					test.in, test.out = got.BytesIn, got.BytesOut
				}
				if want := (echo.Ending{BytesIn: test.in, BytesOut: test.out, Reason: test.want}); got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
				eventually(t, "the endpoint has counted as much", func() bool {
					s := e.Stats()
					return s.ConnectionsOpen == 0 && s.BytesIn == got.BytesIn && s.BytesOut == got.BytesOut
				})
			})
		}
	})
}

func closeWrite(t *testing.T, _ *echo.Endpoint, conn *net.TCPConn) {
	t.Helper()
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

func readToEnd(t *testing.T, _ *echo.Endpoint, conn *net.TCPConn) {
	t.Helper()
	if rest, err := io.ReadAll(conn); len(rest) > 0 || err != nil {
		t.Fatalf("got %q, %v; want the end", rest, err)
	}
}

// writeOnly writes until the connection is reset.
func writeOnly(t *testing.T, _ *echo.Endpoint, conn *net.TCPConn) {
	t.Helper()
	if _, err := conn.Write(make([]byte, 64<<20)); !isReset(err) {
		t.Fatalf("got %v, want a reset", err)
	}
}

// Whatever connections do and however many come at once, each is told once, of its own peer, and once of its end, before
// its endpoint is closed; and what was told adds up to what was counted.
func TestObserveTellsEachConnectionOnce(t *testing.T) {
	for name, bound := range map[string]string{"one family": "127.0.0.1:0", "dual stack": ":0"} {
		t.Run(name, func(t *testing.T) {
			w := new(witness)
			forEachEngineWith(t, echo.Options{Observe: w.observe}, func(t *testing.T, newEngine maker) {
				s := tcpSpec(echo.TCPOptions{})
				s.Listen, s.Tag = bound, t.Name()
				engine := newEngine()
				e := listen(t, engine, s)
				peers := connectMany(t, e)
				if err := engine.Close(endedContext()); err != nil {
					t.Fatal(err)
				}
				counted := e.Stats()
				var total, in, out uint64
				for _, one := range w.all() {
					if one.tag != t.Name() {
						continue // of the other engine
					}
					total++
					delete(peers, one.peer.String())
					if len(one.ended) != 1 {
						t.Fatalf("%d ends of %v were told", len(one.ended), one.peer)
					}
					in, out = in+one.ended[0].BytesIn, out+one.ended[0].BytesOut
				}
				if total != counted.ConnectionsTotal || in != counted.BytesIn || out != counted.BytesOut || len(peers) > 0 {
					t.Errorf("told of %d connections, %d bytes in, %d out; %d echoed ones were not told; counted %+v", total, in, out, len(peers), counted)
				}
			})
		})
	}
}

// connectMany has many connections opened that end in several ways, or not at all, and answers from where those came that
// had an echo.
func connectMany(t *testing.T, e *echo.Endpoint) (echoed map[string]bool) {
	t.Helper()
	const clients, each = 8, 25
	echoed = map[string]bool{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for client := range clients {
		all.Go(func() {
			for i := range each {
				conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port(e)))
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { conn.Close() })
				_ = conn.SetDeadline(time.Now().Add(patience))
				if i%5 == 0 { // at once
					_ = conn.(*net.TCPConn).SetLinger(0)
					conn.Close()
					continue
				}
				if err := tryRoundTrip(conn, fmt.Sprintf("client %d, connection %d", client, i)); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				echoed[conn.LocalAddr().String()] = true
				mu.Unlock()
				if i%2 == 0 {
					conn.Close()
				}
			}
		})
	}
	all.Wait()
	return echoed
}

// Who is turned away had no connection.
func TestObserveIsNotToldOfWhoIsTurnedAway(t *testing.T) {
	w := new(witness)
	forEachEngineWith(t, echo.Options{Observe: w.observe}, func(t *testing.T, newEngine maker) {
		before := len(w.all())
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{MaxConnections: 1}))
		roundTrip(t, dial(t, e), "one")
		expectClosed(t, dial(t, e))
		denied := tcpSpec(echo.TCPOptions{})
		denied.Deny = prefixes(t, "127.0.0.0/8")
		expectClosed(t, dial(t, open(t, newEngine, denied)))
		if n := len(w.all()) - before; n != 1 {
			t.Errorf("told of %d connections, want one", n)
		}
	})
}

// A connection has the tag that its endpoint had when it came.
func TestUpdateTag(t *testing.T) {
	w := new(witness)
	forEachEngineWith(t, echo.Options{Observe: w.observe}, func(t *testing.T, newEngine maker) {
		s := tcpSpec(echo.TCPOptions{})
		s.Tag = "before"
		e := open(t, newEngine, s)
		first := dial(t, e)
		roundTrip(t, first, "one")
		s.Tag = "after"
		if err := e.Update(s); err != nil {
			t.Fatal(err)
		}
		second := dial(t, e)
		roundTrip(t, second, "two")
		tags := map[string]any{}
		for _, one := range w.all() {
			tags[one.peer.String()] = one.tag
		}
		if one, two := tags[first.LocalAddr().String()], tags[second.LocalAddr().String()]; one != "before" || two != "after" {
			t.Errorf("got %v and %v", one, two)
		}
	})
}

// An observer need not want to know of the end.
func TestObserveTheBeginningAlone(t *testing.T) {
	var peers sync.Map
	observe := func(_ any, peer netip.AddrPort) func(echo.Ending) {
		peers.Store(peer.String(), true)
		return nil
	}
	forEachEngineWith(t, echo.Options{Observe: observe}, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{}))
		conn := dial(t, e)
		roundTrip(t, conn, strings.Repeat("much", 20000)) // bulk
		if _, ok := peers.Load(conn.LocalAddr().String()); !ok {
			t.Error("it was not told")
		}
		conn.Close()
		eventually(t, "it has ended", func() bool { return e.Stats().ConnectionsOpen == 0 })
	})
}

// BenchmarkConnections opens connections one after the other, each for one echo.
func BenchmarkConnections(b *testing.B) {
	quiet := func(any, netip.AddrPort) func(echo.Ending) { return nil }
	for name, observe := range map[string]echo.Observe{
		"nobody": nil,
		"quiet":  quiet,
		"ends":   func(any, netip.AddrPort) func(echo.Ending) { return func(echo.Ending) {} },
	} {
		b.Run(name, func(b *testing.B) {
			engine := echo.New(echo.Options{Observe: observe})
			defer engine.Close(endedContext())
			e, err := engine.Listen(context.Background(), tcpSpec(echo.TCPOptions{}))
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				conn, err := net.Dial("tcp", e.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				if err := tryRoundTrip(conn, "hello"); err != nil {
					b.Fatal(err)
				}
				_ = conn.(*net.TCPConn).SetLinger(0) // no port waits
				conn.Close()
			}
		})
	}
}
