package echo_test

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/echod/echod/daemon/echo"
)

// forge sends one datagram with a source that is not ours to send from. It needs root.
func forge(t *testing.T, from, to netip.AddrPort, hops byte, payload string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		t.Skipf("forging a source needs root: %v", err)
	}
	defer unix.Close(fd)
	// The header of IPv4 (RFC 791) without its checksum, which the kernel fills in, and UDP's (RFC 768) without one.
	b := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, hops, unix.IPPROTO_UDP, 0, 0}
	source, destination := from.Addr().As4(), to.Addr().As4()
	b = append(append(b, source[:]...), destination[:]...)
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	b = append(append(b, 0, 0), payload...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: destination}); err != nil {
		t.Fatal(err)
	}
}

// settled waits until an endpoint's counters do not change for a while, and answers them.
func settled(t *testing.T, e *echo.Endpoint) echo.Stats {
	t.Helper()
	deadline := time.Now().Add(patience)
	for last := e.Stats(); ; last = e.Stats() {
		time.Sleep(50 * time.Millisecond)
		if now := e.Stats(); now.DatagramsIn == last.DatagramsIn && now.DatagramsIn > 0 {
			return now
		}
		if time.Now().After(deadline) {
			t.Fatalf("the echo goes on and on: %+v", last)
		}
	}
}

// One forged datagram between two endpoints would be echoed for ever.
func TestLoopOfTwoEndpointsOfOneEngine(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		engine := newEngine()
		defer closeEngine(t, engine)
		for _, where := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
			a, b := listen(t, engine, udpSpec("127.0.0.1:0")), listen(t, engine, udpSpec(where))
			to := netip.AddrPortFrom(a.Addr().Addr(), b.Addr().Port())
			forge(t, a.Addr(), to, 64, "ping")
			if s := settled(t, b); s.DatagramsOut != 0 || s.Drops[echo.DropSourceIsEndpoint] != 1 {
				t.Errorf("%s: %+v", where, s)
			}
		}
	})
}

// Two engines do not know of each other, as two daemons on two hosts do not: the hops run out.
func TestLoopOfTwoEngines(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		one, other := newEngine(), newEngine()
		defer closeEngine(t, one)
		defer closeEngine(t, other)
		a, b := listen(t, one, udpSpec("127.0.0.1:0")), listen(t, other, udpSpec("127.0.0.1:0"))
		forge(t, a.Addr(), b.Addr(), 64, "ping")
		atA, atB := settled(t, a), settled(t, b)
		if sent := atA.DatagramsOut + atB.DatagramsOut; sent != 63 {
			t.Errorf("%d answers, want one for each hop but the last", sent)
		}
		if atA.Drops[echo.DropHopsSpent]+atB.Drops[echo.DropHopsSpent] != 1 {
			t.Errorf("drops %v and %v", atA.Drops, atB.Drops)
		}
	})
}

func TestForgedSources(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, udpSpec("127.0.0.1:0"))
		for from, reason := range map[string]string{
			"127.0.0.1:7": echo.DropSourceIsService, "127.0.0.1:0": echo.DropSourcePortZero,
		} {
			forge(t, netip.MustParseAddrPort(from), e.Addr(), 64, "ping")
			eventually(t, "it is counted", func() bool { return e.Stats().Drops[reason] == 1 })
		}
		if s := e.Stats(); s.DatagramsOut != 0 {
			t.Errorf("%+v", s)
		}
		// With the guard off, only what nobody can be answered at is dropped.
		spec := udpSpec("127.0.0.1:0")
		spec.UDP.NoLoopGuard = true
		if err := e.Update(spec); err != nil {
			t.Fatal(err)
		}
		forge(t, netip.MustParseAddrPort("127.0.0.1:7"), e.Addr(), 1, "ping")
		eventually(t, "it is answered", func() bool { return e.Stats().DatagramsOut == 1 })
	})
}

// An answer has the request's DSCP and one hop less.
func TestUDPAnswersAreMarkedAsTheirRequests(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, where := range []string{"127.0.0.1:0", "0.0.0.0:0", ":0"} {
			e := open(t, newEngine, udpSpec(where))
			raw, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), e.Addr().Port())))
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			file, err := raw.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var optErr error
			if err := file.Control(func(fd uintptr) {
				for option, value := range map[int]int{
					unix.IP_TOS: 0xb8 | 1, // EF, and an ECN bit
					unix.IP_TTL: 20, unix.IP_RECVTOS: 1, unix.IP_RECVTTL: 1,
				} {
					optErr = errors.Join(optErr, unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, option, value))
				}
			}); err != nil || optErr != nil {
				t.Fatal(err, optErr)
			}
			setDeadline(t, raw)
			if _, err := raw.Write([]byte("marked")); err != nil {
				t.Fatal(err)
			}
			oob := make([]byte, 128)
			_, n, _, _, err := raw.ReadMsgUDPAddrPort(make([]byte, 16), oob)
			if err != nil {
				t.Fatal(err)
			}
			messages, err := unix.ParseSocketControlMessage(oob[:n])
			if err != nil {
				t.Fatal(err)
			}
			var tos, ttl = -1, -1
			for _, m := range messages {
				switch m.Header.Type {
				case unix.IP_TOS:
					tos = int(m.Data[0])
				case unix.IP_TTL:
					ttl = int(binary.NativeEndian.Uint32(m.Data))
				}
			}
			if tos != 0xb8 || ttl != 19 {
				t.Errorf("%s: TOS %#x, TTL %d; want 0xb8, 19", where, tos, ttl)
			}
		}
	})
}

// What the kernel drops since the buffer is full is counted, also after the endpoint is gone.
func TestUDPKernelDropsAreCounted(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, udpSpec("127.0.0.1:0"))
		payload := make([]byte, 1200)
		sent := uint64(0)
		for deadline := time.Now().Add(patience); e.Stats().Drops[echo.DropReceiveBufferFull] == 0; {
			if time.Now().After(deadline) {
				t.Skip("this machine reads as fast as it sends")
			}
			var all sync.WaitGroup
			for range 4 {
				conn, err := net.Dial("udp", e.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				all.Go(func() {
					defer conn.Close()
					for range 2000 {
						_, _ = conn.Write(payload)
					}
				})
				sent += 2000
			}
			all.Wait()
		}
		settled(t, e)
		if err := e.Close(endedContext()); err != nil {
			t.Fatal(err)
		}
		s := e.Stats()
		if s.DatagramsIn+s.Drops[echo.DropReceiveBufferFull] != sent {
			t.Errorf("%d received and %d dropped of %d", s.DatagramsIn, s.Drops[echo.DropReceiveBufferFull], sent)
		}
	})
}

// What the kernel dropped before a hand-over is counted behind it, whether somebody has asked before or not.
func TestUDPKernelDropsAreHandedOver(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		engines := []*echo.Engine{newEngine(), newEngine()}
		defer closeEngine(t, engines[0])
		defer closeEngine(t, engines[1])
		e := listen(t, engines[0], udpSpec("127.0.0.1:0"))
		conn, err := net.Dial("udp", e.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		paused := pause(t, e)
		closeFiles(paused)
		const sent = 20_000 // more than any buffer takes
		payload := make([]byte, 1200)
		for range sent {
			_, _ = conn.Write(payload)
		}
		resume(t, e)
		other := handOver(t, e, udpSpec(e.Addr().String()), engines[1])
		settled(t, other)
		if s := other.Stats(); s.Drops[echo.DropReceiveBufferFull] == 0 || s.DatagramsIn+s.Drops[echo.DropReceiveBufferFull] != sent {
			t.Errorf("%d received and %d dropped of %d", s.DatagramsIn, s.Drops[echo.DropReceiveBufferFull], sent)
		}
	})
}
