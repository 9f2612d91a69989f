//go:build unix

package echo_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echo"
)

// closeFiles closes what Pause answered and nobody took over.
func closeFiles(h echo.Handed) {
	if h.Socket != nil {
		h.Socket.Close()
	}
	for _, c := range h.Connections {
		c.Socket.Close()
	}
}

func pause(t *testing.T, e *echo.Endpoint) echo.Handed {
	t.Helper()
	h, err := e.Pause(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFiles(h) })
	return h
}

// handOver has another engine go on with an endpoint.
func handOver(t *testing.T, e *echo.Endpoint, s echo.Spec, to *echo.Engine) *echo.Endpoint {
	t.Helper()
	other := adoptIn(t, to, s, pause(t, e))
	e.Release()
	select {
	case <-e.Done():
	default:
		t.Error("not done after Release")
	}
	if e.Err() != nil || e.Stats().ConnectionsOpen != 0 {
		t.Errorf("after Release: %v, %+v", e.Err(), e.Stats())
	}
	resume(t, other)
	return other
}

// load is what peers do while endpoints are handed over. Its methods return what went wrong.
type load struct {
	tcp, udp             netip.AddrPort
	stop                 chan struct{}
	streamed             atomic.Uint64 // bytes of streams that came back
	datagrams, connected atomic.Uint64
	problems             chan error
	running              sync.WaitGroup
}

func startLoad(tcp, udp netip.AddrPort, streams, senders, dialers int) *load {
	l := &load{tcp: tcp, udp: udp, stop: make(chan struct{}), problems: make(chan error, streams+senders+dialers)}
	for _, some := range []struct {
		n    int
		what func(number int) error
	}{{streams, l.stream}, {senders, l.send}, {dialers, l.dial}} {
		for i := range some.n {
			l.running.Go(func() {
				if err := some.what(i); err != nil {
					l.problems <- err
				}
			})
		}
	}
	return l
}

// end answers what went wrong of all that was done.
func (l *load) end() (problems []error) {
	close(l.stop)
	l.running.Wait()
	close(l.problems)
	for p := range l.problems {
		problems = append(problems, p)
	}
	return problems
}

func (l *load) stopped() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// stream writes numbers of 8 bytes in order, up to 64 KiB before they come back, and sees that they come back in order; in the end
// it ends its side and sees the end come back.
func (l *load) stream(number int) error {
	conn, err := net.Dial("tcp", l.tcp.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		return err
	}
	size := 8 << (number % 14) // 8 bytes to 64 KiB
	out, in := make([]byte, size), make([]byte, size)
	next := uint64(number) << 40
	for !l.stopped() {
		for at := 0; at < size; at += 8 {
			binary.LittleEndian.PutUint64(out[at:], next)
			next++
		}
		if _, err := conn.Write(out); err != nil {
			return fmt.Errorf("stream %d: %w", number, err)
		}
		if _, err := io.ReadFull(conn, in); err != nil {
			return fmt.Errorf("stream %d: %w", number, err)
		}
		if !bytes.Equal(in, out) {
			return fmt.Errorf("stream %d: something else came back at %d", number, next)
		}
		l.streamed.Add(uint64(size))
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	if rest, err := io.ReadAll(conn); len(rest) > 0 || err != nil {
		return fmt.Errorf("stream %d: got %d bytes more, %w", number, len(rest), err)
	}
	return nil
}

// send sends numbered datagrams, four at a time, and sees that each comes back once.
func (l *load) send(number int) error {
	conn, err := net.Dial("udp", l.udp.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	var next uint64
	b := make([]byte, 100)
	for !l.stopped() {
		missing := make(map[uint64]bool)
		for range 4 {
			next++
			missing[next] = true
			binary.LittleEndian.PutUint64(b, next)
			if _, err := conn.Write(b[:8+next%90]); err != nil {
				return fmt.Errorf("sender %d: %w", number, err)
			}
		}
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		for len(missing) > 0 {
			n, err := conn.Read(b)
			if err != nil {
				return fmt.Errorf("sender %d: %d of 4 up to %d are lost: %w", number, len(missing), next, err)
			}
			came := binary.LittleEndian.Uint64(b)
			if !missing[came] || n != int(8+came%90) {
				return fmt.Errorf("sender %d: %d came again, or changed (%d bytes)", number, came, n)
			}
			delete(missing, came)
			l.datagrams.Add(1)
		}
	}
	return nil
}

// dial connects anew, again and again.
func (l *load) dial(int) error {
	for !l.stopped() {
		if err := answers(echo.TCP, l.tcp); err != nil {
			return fmt.Errorf("a new connection: %w", err)
		}
		l.connected.Add(1)
	}
	return nil
}

// moves waits until everything has moved on.
func (l *load) moves(t *testing.T) {
	t.Helper()
	streamed, datagrams, connected := l.streamed.Load(), l.datagrams.Load(), l.connected.Load()
	eventually(t, "the load moves on", func() bool {
		return len(l.problems) > 0 || l.streamed.Load() >= streamed+1<<18 && l.datagrams.Load() >= datagrams+16 && l.connected.Load() >= connected+2
	})
	if len(l.problems) > 0 {
		t.Fatal(<-l.problems)
	}
}

// seconds are the kinds of engine that those of forEachEngine hand over to.
var seconds = map[string]func(newEngine maker) *echo.Engine{
	"alike": func(newEngine maker) *echo.Engine { return newEngine() },
	"net":   func(maker) *echo.Engine { return echo.New(echo.Options{Portable: true}) },
}

// Nothing is lost, changed, reset or refused, and the counters tell so, while endpoints go from one engine to the other.
func TestHandOverUnderLoad(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for name, second := range seconds {
			t.Run(name, func(t *testing.T) {
				engines := []*echo.Engine{newEngine(), second(newEngine)}
				defer closeEngine(t, engines[0])
				defer closeEngine(t, engines[1])
				specs := []echo.Spec{tcpSpec(echo.TCPOptions{}), {Protocol: echo.UDP, Listen: "127.0.0.1:0"}}
				tcp, udp := listen(t, engines[0], specs[0]), listen(t, engines[0], specs[1])
				l := startLoad(tcp.Addr(), udp.Addr(), 200, 8, 2)
				for i := range 20 {
					l.moves(t)
					to := engines[(i+1)%2]
					tcp, udp = handOver(t, tcp, specs[0], to), handOver(t, udp, specs[1], to)
				}
				l.moves(t)
				for _, problem := range l.end() {
					t.Error(problem)
				}
				eventually(t, "all have ended", func() bool { return tcp.Stats().ConnectionsOpen == 0 })
				got, connected := tcp.Stats(), l.connected.Load()
				if want := l.streamed.Load() + 4*connected; got.BytesIn != want || got.BytesOut != want || got.ConnectionsTotal != 200+connected || len(got.Drops)+len(got.Errors) > 0 {
					t.Errorf("TCP: %d bytes of 200 streams and %d others; counted %+v", want, connected, got)
				}
				if got := udp.Stats(); got.DatagramsIn != l.datagrams.Load() || got.DatagramsOut != got.DatagramsIn || len(got.Drops)+len(got.Errors) > 0 {
					t.Errorf("UDP: %d datagrams came back; counted %+v", l.datagrams.Load(), got)
				}
			})
		}
	})
}

// A connection whose peer does not read goes on with all that waits for it, one whose side has ended, too.
func TestHandOverOfAFullConnection(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for name, second := range seconds {
			for _, bulk := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, bulk %v", name, bulk), func(t *testing.T) {
					engines := []*echo.Engine{newEngine(), second(newEngine)}
					defer closeEngine(t, engines[0])
					defer closeEngine(t, engines[1])
					s := tcpSpec(echo.TCPOptions{SocketBufferBytes: 8 << 10})
					e := listen(t, engines[0], s)
					conn := dial(t, e)
					payload := randomBytes(8 << 20)
					written := make(chan error, 1)
					var at atomic.Int64
					go func() {
						for rest := payload; len(rest) > 0; {
							size := min(1<<20, len(rest))
							if !bulk {
								size = min(1000, len(rest))
							}
							n, err := conn.Write(rest[:size])
							at.Add(int64(n))
							if rest = rest[n:]; err != nil {
								written <- err
								return
							}
						}
						written <- conn.CloseWrite()
					}()
					stuck := func() bool { // nothing moves in any direction
						before, in, out := at.Load(), e.Stats().BytesIn, e.Stats().BytesOut
						time.Sleep(20 * time.Millisecond)
						return before > 0 && at.Load() == before && e.Stats().BytesIn == in && e.Stats().BytesOut == out
					}
					var got []byte
					for i := range 10 {
						eventually(t, "it is full", func() bool { return stuck() || at.Load() == int64(len(payload)) })
						e = handOver(t, e, s, engines[(i+1)%2])
						part := make([]byte, 100_000)
						if _, err := io.ReadFull(conn, part); err != nil {
							t.Fatal(err)
						}
						got = append(got, part...)
					}
					rest, err := io.ReadAll(conn)
					if got = append(got, rest...); err != nil || !bytes.Equal(got, payload) {
						t.Errorf("got %d bytes of %d, %v", len(got), len(payload), err)
					}
					if err := <-written; err != nil {
						t.Error(err)
					}
					eventually(t, "it has ended", func() bool { return e.Stats().ConnectionsOpen == 0 })
					if s := e.Stats(); s.BytesIn != uint64(len(payload)) || s.BytesOut != s.BytesIn || s.ConnectionsTotal != 1 || len(s.Drops)+len(s.Errors) > 0 {
						t.Errorf("counted %+v", s)
					}
				})
			}
		}
	})
}

// What comes before the end of a peer's side, and the end itself, are seen by whoever goes on.
func TestHandOverOfAHalfClosedConnection(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		engines := []*echo.Engine{newEngine(), newEngine()}
		defer closeEngine(t, engines[0])
		defer closeEngine(t, engines[1])
		s := tcpSpec(echo.TCPOptions{})
		e := listen(t, engines[0], s)
		conn := dial(t, e)
		roundTrip(t, conn, "hello")
		h := pause(t, e)
		if _, err := io.WriteString(conn, "the last"); err != nil {
			t.Fatal(err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		other := adoptIn(t, engines[1], s, h)
		e.Release()
		resume(t, other)
		if got, err := io.ReadAll(conn); string(got) != "the last" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// What a connection came under, and how far it has come, goes with it: one answer and its grace, and a number of bytes.
func TestHandOverKeepsWhatAConnectionCameUnder(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		engines := []*echo.Engine{newEngine(), newEngine()}
		defer closeEngine(t, engines[0])
		defer closeEngine(t, engines[1])
		plain := tcpSpec(echo.TCPOptions{})

		one := listen(t, engines[0], tcpSpec(echo.TCPOptions{OneShot: true}))
		asked, silent := dial(t, one), dial(t, one)
		if _, err := io.WriteString(asked, "hello"); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(asked); string(got) != "hello" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		eventually(t, "both are open", func() bool { return one.Stats().ConnectionsOpen == 2 })
		h := pause(t, one)
		for _, c := range h.Connections {
			if c.Answered && (c.Grace <= 0 || c.Grace > time.Second) {
				t.Errorf("%v of the grace is left", c.Grace)
			}
		}
		if _, err := io.WriteString(asked, "rest"); err != nil {
			t.Fatal(err)
		}
		other := adoptIn(t, engines[1], plain, h)
		one.Release()
		resume(t, other)
		if _, err := io.WriteString(silent, "hello"); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(silent); string(got) != "hello" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		eventually(t, "both have ended", func() bool { return other.Stats().ConnectionsOpen == 0 })
		if s := other.Stats(); s.BytesIn != 14 || s.BytesOut != 10 || s.Drops[echo.DropRest] != 4 || s.ConnectionsTotal != 2 {
			t.Errorf("counted %+v", s)
		}

		few := listen(t, engines[0], tcpSpec(echo.TCPOptions{MaxBytes: 10}))
		conn := dial(t, few)
		roundTrip(t, conn, "12345")
		other = handOver(t, few, plain, engines[1])
		if _, err := io.WriteString(conn, "67890..."); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); string(got) != "67890" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		unlimited := dial(t, other)
		roundTrip(t, unlimited, "more than ten bytes")
	})
}

// A pause that comes to nothing leaves an endpoint as it was; what came meanwhile is served.
func TestPauseAndResume(t *testing.T) {
	forEachProtocol(t, func(t *testing.T, newEngine maker, s echo.Spec) {
		e := open(t, newEngine, s)
		expectAnswer(t, s.Protocol, e.Addr())
		for range 20 {
			h := pause(t, e)
			if _, err := e.Pause(t.Context()); !errors.Is(err, echo.ErrPaused) {
				t.Fatalf("a pause of a pause: %v", err)
			}
			if err := e.Update(s); !errors.Is(err, echo.ErrPaused) {
				t.Fatalf("an update in a pause: %v", err)
			}
			conn, err := net.Dial(map[echo.Protocol]string{echo.TCP: "tcp", echo.UDP: "udp"}[s.Protocol], e.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			setDeadline(t, conn)
			before := e.Stats()
			if _, err := io.WriteString(conn, "in between"); err != nil {
				t.Fatal(err)
			}
			if after := e.Stats(); after.BytesIn != before.BytesIn || after.ConnectionsTotal != before.ConnectionsTotal {
				t.Fatalf("moved in a pause: %+v, %+v", before, after)
			}
			closeFiles(h)
			resume(t, e)
			b := make([]byte, 10)
			if _, err := io.ReadFull(conn, b); err != nil || string(b) != "in between" {
				t.Fatalf("got %q, %v", b, err)
			}
		}
		expectAnswer(t, s.Protocol, e.Addr())
		resume(t, e) // once more is nothing
		e.Release()  // nor is this
		expectAnswer(t, s.Protocol, e.Addr())
		if err := e.Update(s); err != nil {
			t.Error(err)
		}
	})
}

// endingContext ends when it was asked so often.
type endingContext struct {
	context.Context
	left int
}

func (c *endingContext) Err() error {
	if c.left--; c.left < 0 {
		return context.DeadlineExceeded
	}
	return nil
}

// A context that ends has all go on.
func TestPauseEndsWithItsContext(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{}))
		var conns []net.Conn
		for range 5 {
			conns = append(conns, dial(t, e))
			roundTrip(t, conns[len(conns)-1], "hello")
		}
		for left := range 6 {
			h, err := e.Pause(&endingContext{t.Context(), left})
			if !errors.Is(err, context.DeadlineExceeded) || h.Socket != nil || h.Connections != nil {
				t.Fatalf("after %d: %+v, %v", left, h, err)
			}
			for _, c := range conns {
				roundTrip(t, c, "still here")
			}
			expectAnswer(t, echo.TCP, e.Addr())
		}
		eventually(t, "others have left", func() bool { return e.Stats().ConnectionsOpen == 5 })
		if s := e.Stats(); len(s.Drops)+len(s.Errors) > 0 {
			t.Errorf("counted %+v", s)
		}
	})
}

// Whoever comes first, of a pause and the end: the other is told, and the end is the end.
func TestCloseRacesPause(t *testing.T) {
	forEachProtocol(t, func(t *testing.T, newEngine maker, s echo.Spec) {
		engine := newEngine()
		defer closeEngine(t, engine)
		for i := range 50 {
			e := listen(t, engine, s)
			expectAnswer(t, s.Protocol, e.Addr())
			var both sync.WaitGroup
			both.Go(func() {
				h, err := e.Pause(t.Context())
				if err != nil && !errors.Is(err, echo.ErrClosed) {
					t.Error(err)
				}
				closeFiles(h)
				if err := e.Resume(); err != nil && !errors.Is(err, echo.ErrClosed) {
					t.Error(err)
				}
			})
			both.Go(func() {
				if err := e.Close(endedContext()); err != nil {
					t.Error(err)
				}
			})
			if i%2 == 0 {
				both.Go(e.Release)
			}
			both.Wait()
			<-e.Done()
			if _, err := e.Pause(t.Context()); !errors.Is(err, echo.ErrClosed) {
				t.Errorf("a pause after the end: %v", err)
			}
			if err := e.Resume(); !errors.Is(err, echo.ErrClosed) {
				t.Errorf("going on after the end: %v", err)
			}
			s.Listen = e.Addr().String() // the port is free
		}
	})
}

// An engine that closes with what it has adopted, and not resumed, leaves it to who has it.
func TestClosingWhatIsNotResumedHarmsNobody(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{}))
		conn := dial(t, e)
		roundTrip(t, conn, "hello")
		h := pause(t, e)
		engine := newEngine()
		adoptIn(t, engine, tcpSpec(echo.TCPOptions{}), h)
		closeEngine(t, engine)
		resume(t, e)
		roundTrip(t, conn, "still here")
		expectAnswer(t, echo.TCP, e.Addr())
	})
}

// Those who are told of connections are told of each once, and not of one that goes.
func TestHandOverTellsNobody(t *testing.T) {
	var opened, ended atomic.Int64
	observe := func(any, netip.AddrPort) func(echo.Ending) {
		opened.Add(1)
		return func(echo.Ending) { ended.Add(1) }
	}
	forEachEngineWith(t, echo.Options{Observe: observe}, func(t *testing.T, newEngine maker) {
		opened.Store(0)
		ended.Store(0)
		engines := []*echo.Engine{newEngine(), newEngine()}
		defer closeEngine(t, engines[0])
		defer closeEngine(t, engines[1])
		s := tcpSpec(echo.TCPOptions{})
		e := listen(t, engines[0], s)
		conn := dial(t, e)
		roundTrip(t, conn, "hello")
		h := pause(t, e)
		closeFiles(h)
		resume(t, e)
		roundTrip(t, conn, "hello")
		e = handOver(t, e, s, engines[1])
		roundTrip(t, conn, "hello")
		conn.Close()
		eventually(t, "it has ended", func() bool { return e.Stats().ConnectionsOpen == 0 })
		if opened.Load() != 1 || ended.Load() != 0 {
			t.Errorf("told of %d that came and %d that ended", opened.Load(), ended.Load())
		}
		expectAnswer(t, echo.TCP, e.Addr())
		eventually(t, "a new one is told of", func() bool { return opened.Load() == 2 && ended.Load() == 1 })
	})
}

// Timeouts go on by the time that is left of them.
func TestHandOverKeepsTime(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		engine := newEngine()
		defer closeEngine(t, engine)
		s := tcpSpec(echo.TCPOptions{IdleTimeout: time.Hour})
		s.Listen = ":0"
		served := func(c echo.HandedConnection) (*echo.Endpoint, net.Conn) {
			peer, ours := connected(t)
			c.Socket, c.Served = fileOf(t, ours), true
			e := adoptIn(t, engine, s, echo.Handed{Connections: []echo.HandedConnection{c}, Stats: echo.Stats{ConnectionsTotal: 1}})
			resume(t, e)
			return e, peer
		}
		for _, late := range []echo.HandedConnection{{Left: 1, Still: 2 * time.Hour}, {Answered: true}} {
			e, peer := served(late)
			if got, err := io.ReadAll(peer); len(got) > 0 || err != nil {
				t.Errorf("got %q, %v; want the end", got, err)
			}
			<-e.Done()
			if got := e.Stats().Drops[echo.DropIdleTimeout]; got != 1 && !late.Answered || got != 0 && late.Answered {
				t.Errorf("%+v: counted %+v", late, e.Stats())
			}
		}
		e, _ := served(echo.HandedConnection{Left: 1, Still: 30 * time.Minute})
		h := pause(t, e)
		if still := h.Connections[0].Still; still < 30*time.Minute || still > 59*time.Minute || h.Socket != nil {
			t.Errorf("still for %v after 30 minutes", still)
		}
		closeFiles(h)
		resume(t, e)
		changed := s
		changed.TCP.IdleTimeout = 2 * time.Hour
		if err := e.Update(changed); err != nil {
			t.Fatal(err)
		}
		if h = pause(t, e); h.Connections[0].Still > 29*time.Minute {
			t.Errorf("still for %v, and the timeout has just been changed", h.Connections[0].Still)
		}
		e.Release()
		<-e.Done()
	})
}
