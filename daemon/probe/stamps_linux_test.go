package probe

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// message makes a control message.
func message(level, kind int32, data []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(len(data))))
	binary.NativeEndian.PutUint32(b[8:], uint32(level))
	binary.NativeEndian.PutUint32(b[12:], uint32(kind))
	copy(b[unix.CmsgLen(0):], data)
	return b
}

// stampMessage makes a SCM_TIMESTAMPING of the times of the kernel and the card.
func stampMessage(kernel, card time.Duration) []byte {
	data := make([]byte, 48)
	for i, at := range []time.Duration{kernel, 0, card} {
		binary.NativeEndian.PutUint64(data[i*16:], uint64(at/time.Second))
		binary.NativeEndian.PutUint64(data[i*16+8:], uint64(at%time.Second))
	}
	return message(unix.SOL_SOCKET, unix.SO_TIMESTAMPING, data)
}

// errorMessage makes a struct sock_extended_err.
func errorMessage(level, kind int32, errno syscall.Errno, origin uint8, data uint32) []byte {
	b := make([]byte, 16)
	binary.NativeEndian.PutUint32(b, uint32(errno))
	b[4] = origin
	binary.NativeEndian.PutUint32(b[12:], data)
	return message(level, kind, b)
}

func TestParseControl(t *testing.T) {
	const at = 1_700_000_000*time.Second + 123_456_789
	number := make([]byte, 4)
	binary.NativeEndian.PutUint32(number, 42)
	for name, c := range map[string]struct {
		b    []byte
		want control
	}{
		"nothing":        {nil, control{}},
		"by the kernel":  {stampMessage(at, 0), control{stamp: stamp{kernel: int64(at)}}},
		"by the card":    {stampMessage(0, at), control{stamp: stamp{card: int64(at)}}},
		"by both":        {stampMessage(at, at+5), control{stamp: stamp{int64(at), int64(at + 5)}}},
		"none of the 3":  {stampMessage(0, 0), control{}},
		"short":          {message(unix.SOL_SOCKET, unix.SO_TIMESTAMPING, make([]byte, 8)), control{}},
		"something else": {slices.Concat(message(unix.SOL_IP, unix.IP_TTL, number), stampMessage(at, 0)), control{stamp: stamp{kernel: int64(at)}}},
		"has left": {
			slices.Concat(stampMessage(at, 0), errorMessage(unix.SOL_IP, unix.IP_RECVERR, syscall.ENOMSG, unix.SO_EE_ORIGIN_TIMESTAMPING, 7)),
			control{stamp: stamp{kernel: int64(at)}, left: true, number: 7},
		},
		"has left over IPv6": {
			slices.Concat(stampMessage(0, at), errorMessage(unix.SOL_IPV6, unix.IPV6_RECVERR, syscall.ENOMSG, unix.SO_EE_ORIGIN_TIMESTAMPING, 1<<32-1)),
			control{stamp: stamp{card: int64(at)}, left: true, number: 1<<32 - 1},
		},
		"refused": {
			errorMessage(unix.SOL_IP, unix.IP_RECVERR, syscall.ECONNREFUSED, unix.SO_EE_ORIGIN_ICMP, 0),
			control{errno: syscall.ECONNREFUSED, origin: unix.SO_EE_ORIGIN_ICMP},
		},
		"short error": {message(unix.SOL_IP, unix.IP_RECVERR, make([]byte, 12)), control{}},
		"dropped": {
			slices.Concat(message(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, number), stampMessage(at, 0)),
			control{dropped: 42, stamp: stamp{kernel: int64(at)}},
		},
		"cut": {stampMessage(at, 0)[:unix.CmsgLen(0)], control{}},
	} {
		if got := parseControl(c.b); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func FuzzParseControl(f *testing.F) {
	f.Add([]byte{})
	f.Add(stampMessage(1, 2))
	f.Add(slices.Concat(stampMessage(1, 0), errorMessage(unix.SOL_IP, unix.IP_RECVERR, syscall.ENOMSG, unix.SO_EE_ORIGIN_TIMESTAMPING, 7)))
	f.Add(errorMessage(unix.SOL_IPV6, unix.IPV6_RECVERR, syscall.EHOSTUNREACH, unix.SO_EE_ORIGIN_ICMP6, 0)[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		// Whatever is there: it does not panic, it comes to an end, and says the same again.
		if a, b := parseControl(b), parseControl(b); a != b {
			t.Errorf("%+v, then %+v", a, b)
		}
	})
}

// Which clock is believed, and when none is.
func TestTimes(t *testing.T) {
	const ms, us = time.Millisecond, time.Microsecond
	const left, took = 100 * ms, 10 * ms // as the process saw it
	at := func(kernel, card time.Duration) stamp { return stamp{int64(kernel), int64(card)} }
	for name, c := range map[string]struct {
		left, came stamp
		step       time.Duration // of the wall clock, while the round was on its way
		network    time.Duration
		clock      Clock
		pause      time.Duration
	}{
		"none":                       {network: took, clock: UserClock},
		"only when it left":          {left: at(1, 0), network: took, clock: UserClock},
		"only when it came":          {came: at(1, 0), network: took, clock: UserClock},
		"the kernel":                 {left: at(1000, 0), came: at(1000+7*ms, 0), network: 7 * ms, clock: KernelClock, pause: 3 * ms},
		"the card":                   {left: at(0, 1000), came: at(0, 1000+6*ms), network: 6 * ms, clock: HardwareClock, pause: 4 * ms},
		"both":                       {left: at(1000, 5), came: at(1000+7*ms, 5+6*ms), network: 6 * ms, clock: HardwareClock, pause: 4 * ms},
		"the card only as it left":   {left: at(1000, 5), came: at(1000+7*ms, 0), network: 7 * ms, clock: KernelClock, pause: 3 * ms},
		"the card only as it came":   {left: at(1000, 0), came: at(1000+7*ms, 9), network: 7 * ms, clock: KernelClock, pause: 3 * ms},
		"of different clocks":        {left: at(0, 1000), came: at(1000+7*ms, 0), network: took, clock: UserClock},
		"the card went back":         {left: at(1000, 9*ms), came: at(1000+7*ms, 9*ms), network: 7 * ms, clock: KernelClock, pause: 3 * ms},
		"a step forth":               {left: at(1000, 0), came: at(1000+time.Hour, 0), network: took, clock: UserClock},
		"a step back":                {left: at(time.Hour, 0), came: at(1000, 0), network: took, clock: UserClock},
		"longer than it took":        {left: at(1000, 0), came: at(1000+took+us, 0), network: took, clock: UserClock},
		"a step that makes it short": {left: at(1000, 0), came: at(1000+2*ms, 0), step: -5 * ms, network: took, clock: UserClock},
		"a step that makes it long":  {left: at(1000, 0), came: at(1000+9*ms, 0), step: 5 * ms, network: took, clock: UserClock},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRun(New(Options{}), timedPlan(UDP), nil)
			r.start = time.Now().Add(-left - took)
			r.wall.ahead = r.start.UnixNano() - int64(c.step)
			x := r.times(left+took, took, c.left, c.came)
			if want := (replyTimes{took, c.network, c.clock, c.pause}); x != want {
				t.Errorf("%+v, want %+v", x, want)
			}
		})
	}
}

// A round that left after a step is told by the kernel's clock again.
func TestTimesAfterAStep(t *testing.T) {
	r := newRun(New(Options{}), timedPlan(UDP), nil)
	r.start = time.Now().Add(-time.Minute)
	r.wall.ahead = r.start.UnixNano() + int64(time.Second)
	left, came := stamp{kernel: 1000}, stamp{kernel: 1000 + int64(time.Millisecond)}
	if x := r.times(50*time.Second, 2*time.Millisecond, left, came); x.clock != UserClock {
		t.Errorf("a round with a step in it: %+v", x)
	}
	if r.wall.stepped < time.Minute {
		t.Errorf("the step was seen at %v", r.wall.stepped)
	}
	// Of rounds that were on their way then, none is believed.
	if x := r.times(r.wall.stepped+time.Millisecond, 2*time.Millisecond, left, came); x.clock != UserClock {
		t.Errorf("a round that was on its way: %+v", x)
	}
	if x := r.times(r.wall.stepped+5*time.Millisecond, 2*time.Millisecond, left, came); x.clock != KernelClock || x.network != time.Millisecond {
		t.Errorf("a round after it: %+v", x)
	}
}

// stamping has the kernel take times until the test ends, and waits until it does: it begins a little after it was asked.
func stamping(t *testing.T) {
	t.Helper()
	t.Cleanup(keepStamping())
	plan := udpPlan(udpPeer(t, "127.0.0.1:0", echoDatagram), 1)
	for range 1000 {
		if r, _ := runPlan(t, plan); r.Timestamps.Clock == KernelClock {
			return
		}
	}
	t.Skip("the kernel tells no times here")
}

// The kernel tells the times of all rounds over the host's sockets, and none is longer than the process saw it.
func TestKernelTimes(t *testing.T) {
	stamping(t)
	for name, plan := range map[string]Plan{
		"udp":            udpPlan(udpPeer(t, "127.0.0.1:0", echoDatagram), 200),
		"udp over IPv6":  udpPlan(udpPeer(t, "[::1]:0", echoDatagram), 200),
		"udp, unmarked":  udpPlan(udpPeer(t, "127.0.0.1:0", echoDatagram), 50),
		"udp, flows":     udpPlan(udpPeer(t, "127.0.0.1:0", echoDatagram), 200),
		"tcp":            tcpPlan(tcpPeer(t, echoStream), 200),
		"tcp, a new one": tcpPlan(tcpPeer(t, echoStream), 50),
	} {
		t.Run(name, func(t *testing.T) {
			switch name {
			case "udp, unmarked":
				plan.PayloadBytes = 3
			case "udp, flows":
				plan.Flows = 4
			case "tcp, a new one":
				plan.NewConnection = true
			}
			r, samples := runPlan(t, plan)
			wantCounts(t, r, plan.Count, plan.Count, 0, 0, 0)
			x := r.Timestamps
			if x.Clock != KernelClock || x.Resolution != time.Nanosecond || x.Uncertainty <= 0 {
				t.Errorf("timestamps %+v", x)
			}
			if plan.Protocol == UDP && x.Missing > 0 {
				t.Errorf("%d rounds have no time of the kernel's", x.Missing)
			}
			if plan.Protocol == UDP {
				referee(t, plan, r, samples)
			}
			for _, s := range samples {
				if *s.RTT > *s.ApplicationRTT || *s.RTT <= 0 {
					t.Errorf("round %d took %v, and %v as the process saw it", s.Seq, *s.RTT, *s.ApplicationRTT)
				}
			}
		})
	}
}

// seenPacket is what a peer sees of a packet.
type seenPacket struct {
	from     netip.AddrPort
	tos, ttl int
}

// watchingPeer echoes, and notes how packets come.
func watchingPeer(t *testing.T, network, address string) (string, func() []seenPacket) {
	t.Helper()
	config := net.ListenConfig{Control: func(network, _ string, c syscall.RawConn) error {
		return onSocket(c, func(fd int) error {
			if network == "udp6" {
				_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1)
				return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
			}
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
			return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTTL, 1)
		})
	}}
	opened, err := config.ListenPacket(t.Context(), network, address)
	if err != nil {
		t.Skipf("cannot listen on %s here: %v", address, err)
	}
	conn := opened.(*net.UDPConn)
	var mu sync.Mutex
	var seen []seenPacket
	var serving sync.WaitGroup
	serving.Go(func() {
		b, oob := make([]byte, 1<<16), make([]byte, 512)
		for {
			n, oobn, _, from, err := conn.ReadMsgUDPAddrPort(b, oob)
			if err != nil {
				return
			}
			p := seenPacket{from: from, tos: -1, ttl: -1}
			messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
			for _, m := range messages {
				switch {
				case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_TOS:
					p.tos = int(m.Data[0])
				case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_TCLASS:
					p.tos = int(binary.NativeEndian.Uint32(m.Data))
				case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_TTL,
					m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_HOPLIMIT:
					p.ttl = int(binary.NativeEndian.Uint32(m.Data))
				}
			}
			mu.Lock()
			seen = append(seen, p)
			mu.Unlock()
			_, _ = conn.WriteToUDPAddrPort(b[:n], from)
		}
	})
	t.Cleanup(func() { _ = conn.Close(); serving.Wait() })
	return conn.LocalAddr().String(), func() []seenPacket {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(seen)
	}
}

// What a plan says of its packets is what the peer sees of them.
func TestPacketsAsThePeerSeesThem(t *testing.T) {
	for _, c := range []struct{ network, address string }{{"udp4", "127.0.0.1:0"}, {"udp6", "[::1]:0"}} {
		for _, p := range []struct {
			dscp, ttl uint8
			tos, hops int
		}{{46, 9, 46 << 2, 9}, {63, 255, 63 << 2, 255}, {0, 1, 0, 1}, {8, 0, 8 << 2, 64}} {
			address, seen := watchingPeer(t, c.network, c.address)
			plan := udpPlan(address, 6)
			plan.DSCP, plan.TTL, plan.Flows = p.dscp, p.ttl, 2
			r, samples := runPlan(t, plan)
			referee(t, plan, r, samples)
			wantCounts(t, r, 6, 6, 0, 0, 0)
			packets := seen()
			if len(packets) != 6 {
				t.Fatalf("the peer saw %d packets", len(packets))
			}
			for _, x := range packets {
				if x.tos != p.tos || x.ttl != p.hops {
					t.Errorf("%s: dscp %d, ttl %d: the peer saw tos %#x, ttl %d", c.network, p.dscp, p.ttl, x.tos, x.ttl)
				}
			}
		}
	}
}

// freePorts answers the first of so many ports in a row that were free a moment ago.
func freePorts(t *testing.T, n int) uint16 {
	t.Helper()
	for range 100 {
		first := listenUDP(t)
		port := first.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		first.Close()
		if int(port)+n > 65535 {
			continue
		}
		var all []net.PacketConn
		for i := range n {
			if c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port) + i}); err == nil {
				all = append(all, c)
			}
		}
		for _, c := range all {
			c.Close()
		}
		if len(all) == n {
			return port
		}
	}
	t.Skip("there are no ports in a row that are free")
	return 0
}

// Flows come from where the plan says, each from a port of its own, and take turns.
func TestSourceOfFlows(t *testing.T) {
	address, seen := watchingPeer(t, "udp4", "127.0.0.1:0")
	plan := udpPlan(address, 12)
	first := freePorts(t, 4)
	plan.Flows, plan.Source = 4, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.7"), first)
	r, samples := runPlan(t, plan)
	referee(t, plan, r, samples)
	wantCounts(t, r, 12, 12, 0, 0, 0)
	for i, p := range seen() {
		if want := netip.AddrPortFrom(plan.Source.Addr(), first+uint16(i%4)); p.from != want {
			t.Errorf("round %d came from %v, want %v", i+1, p.from, want)
		}
	}
	for i, f := range r.Flows {
		if want := netip.AddrPortFrom(plan.Source.Addr(), first+uint16(i)); f.Source != want {
			t.Errorf("flow %d says it comes from %v, want %v", i, f.Source, want)
		}
	}

	// An address alone, and neither: then the ports are the system's, and told of.
	for _, source := range []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), 0), {}} {
		address, seen := watchingPeer(t, "udp4", "127.0.0.1:0")
		plan := udpPlan(address, 6)
		plan.Flows, plan.Source = 3, source
		r, _ := runPlan(t, plan)
		for i, p := range seen() {
			if p.from != r.Flows[i%3].Source || source.IsValid() && p.from.Addr() != source.Addr() {
				t.Errorf("round %d came from %v, flow says %v", i+1, p.from, r.Flows[i%3].Source)
			}
		}
	}
}
