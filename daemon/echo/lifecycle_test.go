package echo_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echo"
)

// forEachProtocol runs body with a specification on a free port of 127.0.0.1.
func forEachProtocol(t *testing.T, body func(t *testing.T, newEngine maker, s echo.Spec)) {
	t.Helper()
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, p := range []echo.Protocol{echo.TCP, echo.UDP} {
			t.Run(p.String(), func(t *testing.T) {
				body(t, newEngine, echo.Spec{Protocol: p, Listen: "127.0.0.1:0"})
			})
		}
	})
}

// answers reports whether something echoes at address.
func answers(p echo.Protocol, address netip.AddrPort) error {
	if p == echo.UDP {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(address))
		if err != nil {
			return err
		}
		defer conn.Close()
		return exchange(conn, []byte("ping"))
	}
	conn, err := net.Dial("tcp", address.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	return tryRoundTrip(conn, "ping")
}

func expectAnswer(t *testing.T, p echo.Protocol, address netip.AddrPort) {
	t.Helper()
	if err := answers(p, address); err != nil {
		t.Errorf("%v at %v: %v", p, address, err)
	}
}

func TestDoneErrAndAddr(t *testing.T) {
	forEachProtocol(t, func(t *testing.T, newEngine maker, s echo.Spec) {
		e := open(t, newEngine, s)
		address := e.Addr()
		if address.Addr() != netip.MustParseAddr("127.0.0.1") || address.Port() == 0 {
			t.Errorf("bound %v", address)
		}
		select {
		case <-e.Done():
			t.Error("done before it was closed")
		default:
		}
		if !e.Stats().LastActivity.IsZero() {
			t.Errorf("active at %v without a peer", e.Stats().LastActivity)
		}
		before := time.Now().Add(-time.Second)
		expectAnswer(t, s.Protocol, address)
		eventually(t, "activity shows", func() bool { return e.Stats().LastActivity.After(before) })

		for range 2 {
			if err := e.Close(patient(t)); err != nil {
				t.Error(err)
			}
		}
		<-e.Done()
		if e.Err() != nil || e.Addr() != address {
			t.Errorf("after Close: error %v, address %v; want none, %v", e.Err(), e.Addr(), address)
		}
		if err := e.Update(s); !errors.Is(err, echo.ErrClosed) {
			t.Errorf("Update after Close: %v, want ErrClosed", err)
		}
	})
}

func TestPortIsFreeAfterClose(t *testing.T) {
	forEachProtocol(t, func(t *testing.T, newEngine maker, s echo.Spec) {
		engine := newEngine()
		defer closeEngine(t, engine)
		e := listen(t, engine, s)
		s.Listen = e.Addr().String()
		for range 50 {
			expectAnswer(t, s.Protocol, e.Addr())
			if err := e.Close(endedContext()); err != nil {
				t.Fatal(err)
			}
			e = listen(t, engine, s)
		}
	})
}

func TestDrainLetsConnectionsFinish(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, by := range []string{"endpoint", "engine"} {
			t.Run(by, func(t *testing.T) {
				engine := newEngine()
				defer closeEngine(t, engine)
				e := listen(t, engine, tcpSpec(echo.TCPOptions{}))
				conn := dial(t, e)
				roundTrip(t, conn, "before")

				closed := make(chan error, 1)
				go func() {
					if by == "engine" {
						closed <- engine.Close(patient(t))
					} else {
						closed <- e.Close(patient(t))
					}
				}()
				eventually(t, "new connections are refused", func() bool {
					extra, err := net.Dial("tcp", e.Addr().String())
					if err == nil {
						extra.Close()
					}
					return err != nil
				})
				roundTrip(t, conn, "while draining")
				select {
				case err := <-closed:
					t.Fatalf("Close returned %v with a connection open", err)
				case <-e.Done():
					t.Fatal("done with a connection open")
				default:
				}
				if err := conn.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if rest, err := io.ReadAll(conn); len(rest) != 0 || err != nil {
					t.Errorf("got %q, %v; want the end", rest, err)
				}
				if err := <-closed; err != nil {
					t.Error(err)
				}
				<-e.Done()
			})
		}
	})
}

func TestDrainCutsWhatLingers(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for name, after := range map[string]time.Duration{"at once": 0, "at the deadline": 50 * time.Millisecond} {
			t.Run(name, func(t *testing.T) {
				e := open(t, newEngine, tcpSpec(echo.TCPOptions{}))
				idle, busy := dial(t, e), dial(t, e)
				roundTrip(t, idle, "hello")
				writing := make(chan error, 1)
				go func() {
					_, err := busy.Write(make([]byte, 64<<20)) // never read back
					writing <- err
				}()
				eventually(t, "both are open", func() bool { return e.Stats().ConnectionsOpen == 2 })

				ctx, cancel := context.WithTimeout(t.Context(), after)
				defer cancel()
				if err := e.Close(ctx); err != nil {
					t.Fatal(err)
				}
				if ctx.Err() == nil {
					t.Error("cut before the deadline")
				}
				if _, err := idle.Read(make([]byte, 1)); !isReset(err) {
					t.Errorf("idle connection: got %v, want a reset", err)
				}
				if err := <-writing; !isReset(err) {
					t.Errorf("busy connection: got %v, want a reset", err)
				}
				if s := e.Stats(); s.ConnectionsOpen != 0 || s.Drops[echo.DropClosing] != 2 || len(s.Errors) != 0 {
					t.Errorf("got %+v", s)
				}
			})
		}
	})
}

// Of several Close calls the first context that ends cuts, and all return.
func TestConcurrentClose(t *testing.T) {
	forEachProtocol(t, func(t *testing.T, newEngine maker, s echo.Spec) {
		engine := newEngine()
		e := listen(t, engine, s)
		if s.Protocol == echo.TCP {
			roundTrip(t, dial(t, e), "lingering")
		}
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				ctx := context.Background()
				if i == 5 {
					ctx = endedContext()
				}
				var err error
				if i%2 == 0 {
					err = engine.Close(ctx)
				} else {
					err = e.Close(ctx)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		<-e.Done()
	})
}

func TestEngineClose(t *testing.T) {
	forEachProtocol(t, func(t *testing.T, newEngine maker, s echo.Spec) {
		engine := newEngine()
		first, second := listen(t, engine, s), listen(t, engine, s)
		for range 2 {
			closeEngine(t, engine)
		}
		for _, e := range []*echo.Endpoint{first, second} {
			<-e.Done()
			if e.Err() != nil {
				t.Error(e.Err())
			}
		}
		if _, err := engine.Listen(t.Context(), s); !errors.Is(err, echo.ErrClosed) {
			t.Errorf("Listen after Close: %v, want ErrClosed", err)
		}
	})
}

// A Listen that races with Close either fails or gives an endpoint that Close closed.
func TestListenRacesWithClose(t *testing.T) {
	forEachProtocol(t, func(t *testing.T, newEngine maker, s echo.Spec) {
		for range 20 {
			engine := newEngine()
			var all sync.WaitGroup
			opened := make(chan *echo.Endpoint, 8)
			for range cap(opened) {
				all.Go(func() {
					e, err := engine.Listen(context.Background(), s)
					if err == nil {
						opened <- e
					} else if !errors.Is(err, echo.ErrClosed) {
						t.Error(err)
					}
				})
			}
			runtime.Gosched()
			closeEngine(t, engine)
			all.Wait()
			close(opened)
			for e := range opened {
				select {
				case <-e.Done():
				default:
					t.Error("still serving after Engine.Close")
				}
			}
		}
	})
}

func TestManyListenCloseCycles(t *testing.T) {
	forEachProtocol(t, func(t *testing.T, newEngine maker, s echo.Spec) {
		engine := newEngine()
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() {
				e, err := engine.Listen(context.Background(), s)
				if err != nil {
					t.Error(err)
					return
				}
				if err := answers(s.Protocol, e.Addr()); err != nil {
					t.Error(err)
				}
				if err := e.Close(endedContext()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		closeEngine(t, engine) // TestMain looks for what is left behind
	})
}

func TestEnginesDoNotKnowEachOther(t *testing.T) {
	forEachProtocol(t, func(t *testing.T, newEngine maker, s echo.Spec) {
		one, other := newEngine(), newEngine()
		defer closeEngine(t, other)
		listen(t, one, s)
		e := listen(t, other, s)
		closeEngine(t, one)
		expectAnswer(t, s.Protocol, e.Addr())
		listen(t, other, s)
	})
}

func TestListenContext(t *testing.T) {
	forEachProtocol(t, func(t *testing.T, newEngine maker, s echo.Spec) {
		engine := newEngine()
		defer closeEngine(t, engine)
		if _, err := engine.Listen(endedContext(), s); !errors.Is(err, context.Canceled) {
			t.Errorf("Listen with an ended context: %v, want Canceled", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		e, err := engine.Listen(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		expectAnswer(t, s.Protocol, e.Addr())
	})
}

func TestListenErrors(t *testing.T) {
	forEachProtocol(t, func(t *testing.T, newEngine maker, s echo.Spec) {
		engine := newEngine()
		defer closeEngine(t, engine)
		taken := listen(t, engine, s).Addr().String()
		for asked, want := range map[string]error{
			taken:                echo.ErrAddressInUse,
			"198.51.100.77:0":    echo.ErrAddressNotAvailable, // RFC 5737: for documentation
			"[2001:db8::77]:0":   echo.ErrAddressNotAvailable,
			"[fe80::77%none0]:0": echo.ErrAddressNotAvailable,
		} {
			_, err := engine.Listen(t.Context(), echo.Spec{Protocol: s.Protocol, Listen: asked})
			if !errors.Is(err, want) || err.Error() != "cannot bind "+asked+": "+want.Error() {
				t.Errorf("%s: got %v, want %v", asked, err, want)
			}
		}
	})
}

func TestListenPrivilegedPort(t *testing.T) {
	if runtime.GOOS != "linux" || os.Geteuid() == 0 {
		t.Skip("this process may use any port")
	}
	forEachProtocol(t, func(t *testing.T, newEngine maker, s echo.Spec) {
		engine := newEngine()
		defer closeEngine(t, engine)
		s.Listen = "127.0.0.1:7"
		if _, err := engine.Listen(t.Context(), s); err != nil && !errors.Is(err, echo.ErrPortNeedsPrivilege) {
			t.Errorf("got %v, want ErrPortNeedsPrivilege", err)
		}
	})
}

// What each wildcard is bound to, and whom it serves.
func TestWildcards(t *testing.T) {
	needIPv6(t)
	forEachProtocol(t, func(t *testing.T, newEngine maker, s echo.Spec) {
		v4, v6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")
		for listen, want := range map[string]struct {
			bound  netip.Addr
			serves []netip.Addr
			not    []netip.Addr
		}{
			":0":        {netip.IPv6Unspecified(), []netip.Addr{v4, v6}, nil},
			"0.0.0.0:0": {netip.IPv4Unspecified(), []netip.Addr{v4}, []netip.Addr{v6}},
			"[::]:0":    {netip.IPv6Unspecified(), []netip.Addr{v6}, []netip.Addr{v4}},
		} {
			s.Listen = listen
			e := open(t, newEngine, s)
			if e.Addr().Addr() != want.bound {
				t.Errorf("%s: bound %v, want %v", listen, e.Addr(), want.bound)
			}
			for _, ip := range want.serves {
				expectAnswer(t, s.Protocol, netip.AddrPortFrom(ip, e.Addr().Port()))
			}
			for _, ip := range want.not {
				// The port is free in that family.
				s.Listen = netip.AddrPortFrom(ip, e.Addr().Port()).String()
				other := newEngine()
				if _, err := other.Listen(t.Context(), s); err != nil {
					t.Errorf("%s: %v", listen, err)
				}
				closeEngine(t, other)
			}
		}
	})
}

// An engine leaves descriptors to the rest of the process, and what it has given back may be used again.
func TestMaxSockets(t *testing.T) {
	forEachLimitedEngine(t, 4, func(t *testing.T, newEngine maker) {
		engine := newEngine()
		defer closeEngine(t, engine)
		first, second := listen(t, engine, tcpSpec(echo.TCPOptions{})), listen(t, engine, udpSpec("127.0.0.1:0"))
		one, two := dial(t, first), dial(t, first)
		roundTrip(t, one, "one")
		roundTrip(t, two, "two")
		expectClosed(t, dial(t, first))
		if s := first.Stats(); s.Drops[echo.DropMaxSockets] != 1 {
			t.Errorf("%+v", s)
		}
		if _, err := engine.Listen(t.Context(), udpSpec("127.0.0.1:0")); !errors.Is(err, echo.ErrTooManyFiles) {
			t.Errorf("a third endpoint: %v", err)
		}
		two.Close()
		eventually(t, "its socket is given back", func() bool { return first.Stats().ConnectionsOpen == 1 })
		roundTrip(t, dial(t, first), "three")
		if err := second.Close(endedContext()); err != nil {
			t.Fatal(err)
		}
		expectAnswer(t, echo.UDP, listen(t, engine, udpSpec("127.0.0.1:0")).Addr())
	})
}
