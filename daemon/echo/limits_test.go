package echo_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echo"
)

// A peer that takes nothing of its echo is reset; one that is silent is none of that.
func TestTCPStallTimeout(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{StallTimeout: 50 * time.Millisecond}))
		silent, stuck := dial(t, e), dial(t, e)
		roundTrip(t, silent, "hello")
		if _, err := stuck.Write(make([]byte, 64<<20)); !isReset(err) {
			t.Errorf("got %v, want a reset", err)
		}
		eventually(t, "it is counted", func() bool { return e.Stats().Drops[echo.DropStallTimeout] == 1 })
		roundTrip(t, silent, "still here")
		eventually(t, "every byte is counted", func() bool {
			s := e.Stats()
			return s.BytesIn == s.BytesOut+s.Drops[echo.DropNotTaken] && s.Drops[echo.DropIdleTimeout] == 0
		})
	})
}

// The timeout can come while a peer stalls.
func TestUpdateStallTimeoutOfOpenConnections(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{IdleTimeout: time.Hour}))
		conn := dial(t, e)
		writing := make(chan error, 1)
		go func() {
			_, err := conn.Write(make([]byte, 64<<20)) // never read back
			writing <- err
		}()
		eventually(t, "it writes", func() bool { return e.Stats().BytesOut > 0 })
		update(t, e, echo.TCPOptions{IdleTimeout: time.Hour, StallTimeout: 50 * time.Millisecond})
		if err := <-writing; !isReset(err) {
			t.Errorf("got %v, want a reset", err)
		}
		eventually(t, "it is counted", func() bool { return e.Stats().Drops[echo.DropStallTimeout] == 1 })
	})
}

// So many bytes come back and the end behind them; the rest is counted and thrown away.
func TestTCPMaxBytes(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, test := range []struct{ limit, sent int }{{7, 10}, {7, 7}, {1, 1 << 20}, {300_000, 1 << 20}, {1 << 20, 1<<20 - 1}} {
			e := open(t, newEngine, tcpSpec(echo.TCPOptions{MaxBytes: uint64(test.limit)}))
			conn := dial(t, e)
			payload := randomBytes(test.sent)
			go func() {
				_, _ = conn.Write(payload) // it may be reset before all is written, which reading tells
				_ = conn.CloseWrite()
			}()
			got, err := io.ReadAll(conn)
			want := payload[:min(test.limit, test.sent)]
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d of %d: got %d bytes, %v; want %d", test.limit, test.sent, len(got), err, len(want))
			}
			ended := uint64(1)
			if test.sent < test.limit {
				ended = 0
			}
			eventually(t, "all is counted", func() bool {
				s := e.Stats()
				return s.ConnectionsOpen == 0 && s.Drops[echo.DropMaxBytes] == ended && s.BytesOut == uint64(len(want)) &&
					s.BytesIn == s.BytesOut+s.Drops[echo.DropRest]
			})
		}
	})
}

func TestTCPMaxBytesIsOfEachConnection(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{MaxBytes: 6}))
		first, second := dial(t, e), dial(t, e)
		roundTrip(t, first, "one")
		roundTrip(t, second, "two")
		update(t, e, echo.TCPOptions{}) // for connections to come
		roundTrip(t, first, "six")
		if rest, err := io.ReadAll(first); len(rest) != 0 || err != nil {
			t.Errorf("got %q, %v; want the end", rest, err)
		}
		third := dial(t, e)
		roundTrip(t, third, strings.Repeat("no limit", 100))
	})
}

// Each way through the sources, for connections and datagrams alike.
func TestSources(t *testing.T) {
	forEachProtocol(t, func(t *testing.T, newEngine maker, s echo.Spec) {
		s.Listen = "127.0.0.1:0"
		for _, test := range []struct {
			allow, deny string
			taken       bool
		}{
			{"", "", true},
			{"127.0.0.0/8", "", true},
			{"127.0.0.1", "", true},
			{"192.0.2.0/24 2001:db8::/32", "", false},
			{"", "127.0.0.0/8", false},
			{"", "127.0.0.2 192.0.2.0/24", true},
			{"127.0.0.1", "127.0.0.0/8", false}, // to deny wins
			{"0.0.0.0/0", "127.0.0.2", true},
			{"::/0", "", false},
		} {
			s.Allow, s.Deny = prefixes(t, test.allow), prefixes(t, test.deny)
			e := open(t, newEngine, s)
			expectTaken(t, e, s.Protocol, test.taken)
			if denied := e.Stats().Drops[echo.DropSourceDenied]; denied != 0 == test.taken {
				t.Errorf("allow %q, deny %q: %d denied", test.allow, test.deny, denied)
			}
		}
	})
}

// What is said of sources counts for what comes from then on, also over a dual-stack socket, which has IPv4 addresses in
// another form.
func TestUpdateSources(t *testing.T) {
	forEachProtocol(t, func(t *testing.T, newEngine maker, s echo.Spec) {
		s.Listen = ":0"
		e := open(t, newEngine, s)
		for range 2 {
			expectTaken(t, e, s.Protocol, true)
			s.Deny = prefixes(t, "127.0.0.0/8")
			if err := e.Update(s); err != nil {
				t.Fatal(err)
			}
			expectTaken(t, e, s.Protocol, false)
			s.Deny = nil
			if err := e.Update(s); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func prefixes(t *testing.T, texts string) (all []netip.Prefix) {
	t.Helper()
	for text := range strings.FieldsSeq(texts) {
		p, err := echo.ParseSource(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// expectTaken asks an endpoint from 127.0.0.1.
func expectTaken(t *testing.T, e *echo.Endpoint, p echo.Protocol, taken bool) {
	t.Helper()
	to := net.JoinHostPort("127.0.0.1", port(e))
	before := e.Stats().Drops[echo.DropSourceDenied]
	conn, err := net.Dial(strings.ToLower(p.String()), to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	setDeadline(t, conn)
	if taken {
		roundTrip(t, conn, "hello")
		return
	}
	if p == echo.UDP {
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
	} else if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %d bytes, %v; want the end", n, err)
	}
	eventually(t, "it is counted", func() bool { return e.Stats().Drops[echo.DropSourceDenied] == before+1 })
}

func TestParseSource(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.0/24": "192.0.2.0/24", "192.0.2.1": "192.0.2.1/32", "0.0.0.0/0": "0.0.0.0/0",
		"2001:db8::/32": "2001:db8::/32", "2001:db8::1": "2001:db8::1/128", "::/0": "::/0",
		"::ffff:192.0.2.0/120": "192.0.2.0/24", "::ffff:192.0.2.1": "192.0.2.1/32",
	} {
		if got, err := echo.ParseSource(text); err != nil || got.String() != want {
			t.Errorf("%s: got %v, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "192.0.2.0/33", "192.0.2.1/24", "192.0.2", "example.org", "fe80::1%eth0", "fe80::%eth0/64", "::ffff:0:0/90",
		"192.0.2.0/024", "::ffff:10.0.0.0/8", strings.Repeat("1", 10000),
	} {
		if got, err := echo.ParseSource(text); !errors.Is(err, echo.ErrBadSpec) || len(err.Error()) > 200 {
			t.Errorf("%.40s: got %v, %v; want ErrBadSpec", text, got, err)
		}
	}
}

func FuzzParseSource(f *testing.F) {
	f.Add("192.0.2.0/24")
	f.Add("::ffff:192.0.2.0/120")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := echo.ParseSource(text)
		if err != nil {
			return
		}
		spec := udpSpec("127.0.0.1:0")
		spec.Allow = []netip.Prefix{p}
		if err := spec.Validate(); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if again, err := echo.ParseSource(p.String()); err != nil || again != p {
			t.Fatalf("%q: %v became %v, %v", text, p, again, err)
		}
	})
}

func TestBadLimits(t *testing.T) {
	many := make([]netip.Prefix, echo.MaxSources+1)
	for i := range many {
		many[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i)}), 32)
	}
	for what, s := range map[string]echo.Spec{
		"stall timeout -1s is negative":     tcpSpec(echo.TCPOptions{StallTimeout: -time.Second}),
		"socket buffer of 1 bytes":          tcpSpec(echo.TCPOptions{SocketBufferBytes: 1}),
		"socket buffer of -1 bytes":         tcpSpec(echo.TCPOptions{SocketBufferBytes: -1}),
		"socket buffer of 67108865 bytes":   tcpSpec(echo.TCPOptions{SocketBufferBytes: echo.MaxSocketBufferBytes + 1}),
		"257 prefixes of sources":           {Protocol: echo.UDP, Listen: ":0", Deny: many},
		"source 10.0.0.1/8 is not a prefix": {Protocol: echo.UDP, Listen: ":0", Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}},
		"source invalid Prefix":             {Protocol: echo.TCP, Listen: ":0", Allow: make([]netip.Prefix, 1)},
	} {
		if err := s.Validate(); !errors.Is(err, echo.ErrBadSpec) || !strings.Contains(err.Error(), what) {
			t.Errorf("got %v, want %s", err, what)
		}
	}
}

// What a source sends over its rate is dropped and counted, and nothing else is.
func TestUDPSourceRate(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, o := range []echo.UDPOptions{{MaxSourceDatagrams: 5}, {MaxSourceBytes: 50}} {
			s := udpSpec("127.0.0.1:0")
			s.UDP = o
			e := open(t, newEngine, s)
			conn := dialUDP(t, e.Addr())
			const sent = 100
			for range sent {
				if _, err := conn.Write(make([]byte, 10)); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "all have come, and are answered or counted", func() bool {
				s := e.Stats()
				return s.DatagramsIn == sent && s.DatagramsOut+s.Drops[echo.DropSourceRate] == sent
			})
			if now := e.Stats(); now.DatagramsOut < 5 || now.Drops[echo.DropSourceRate] == 0 {
				t.Errorf("%+v: %+v", o, now)
			}
			s.UDP = echo.UDPOptions{}
			if err := e.Update(s); err != nil {
				t.Fatal(err)
			}
			before := e.Stats().DatagramsOut
			if _, err := conn.Write([]byte("no limit")); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is answered", func() bool { return e.Stats().DatagramsOut == before+1 })
		}
	})
}

// One flow of bulk leaves others their turns.
func TestTCPBulkStarvesNobody(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, tcpSpec(echo.TCPOptions{}))
		bulk, small := dial(t, e), dial(t, e)
		done := make(chan struct{})
		go func() {
			defer close(done)
			chunk := make([]byte, 256<<10)
			for {
				if _, err := bulk.Write(chunk); err != nil {
					return
				}
			}
		}()
		go func() { _, _ = io.Copy(io.Discard, bulk) }()
		for range 200 {
			roundTrip(t, small, "a turn, please")
		}
		eventually(t, "bulk moves, too", func() bool { return e.Stats().BytesOut > 1<<20 })
		reset(t, bulk)
		<-done
	})
}

// Small buffers make a connection slow, and no more than that.
func TestTCPSmallSocketBuffers(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, size := range []int{echo.MinSocketBufferBytes, 16 << 10, 1 << 20} {
			e := open(t, newEngine, tcpSpec(echo.TCPOptions{SocketBufferBytes: size}))
			conn := dial(t, e)
			payload := randomBytes(1 << 20)
			go func() {
				_, _ = conn.Write(payload) // reading tells
				_ = conn.CloseWrite()
			}()
			if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, payload) {
				t.Errorf("%d: %d bytes came back, %v", size, len(got), err)
			}
		}
	})
}
