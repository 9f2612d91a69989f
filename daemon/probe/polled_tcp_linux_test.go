package probe

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A listener whose queue is full answers no SYN: the rounds that wait for the connection are lost when it is given up, and each
// says that there is none.
func TestTCPNoAnswerToConnect(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	address := localOf(fd).String()
	for full := false; !full; {
		c, err := net.DialTimeout("tcp", address, 200*time.Millisecond)
		if full = err != nil; !full {
			defer c.Close()
		}
	}
	plan := tcpPlan(address, 3)
	plan.Timeout = 100 * time.Millisecond
	r, _ := runPlan(t, plan)
	wantCounts(t, r, 3, 0, 3, 0, 0)
	wantReason(t, r, ReasonTimeout, 3)
	if want := "no connection to " + address + " within 100ms: context deadline exceeded"; r.Errors[0].Message != want || r.Connect != nil {
		t.Errorf("%+v, connect %+v; want %q", r.Errors, r.Connect, want)
	}
}

// A connection that the system makes with the run's own end is none: nobody listens.
func TestTCPConnectsToItself(t *testing.T) {
	address := closedPort(t, "tcp")
	plan := tcpPlan(address, 2)
	plan.Source = netip.MustParseAddrPort(address)
	r, _ := runPlan(t, plan)
	wantCounts(t, r, 2, 0, 2, 0, 0)
	wantReason(t, r, ReasonRefused, 2)
	if r.Connect != nil {
		t.Errorf("connect %+v", r.Connect)
	}
}

// What cannot even begin to connect is told in the words of the system, round by round.
func TestTCPUnreachable(t *testing.T) {
	plan := tcpPlan("255.255.255.255:9", 2) // Connecting to it fails at once, here.
	r, _ := runPlan(t, plan)
	wantCounts(t, r, 2, 0, 2, 0, 0)
	wantReason(t, r, ReasonUnreachable, 2)
}

// Rounds wait for room, and leave in their order and whole when the peer reads on.
func TestTCPWaitsForRoom(t *testing.T) {
	plan := tcpPlan(tcpPeer(t, func(n int, c *net.TCPConn) {
		time.Sleep(50 * time.Millisecond) // Without it there may be nothing to wait for, and it must work as well.
		echoStream(n, c)
	}), 40)
	plan.PayloadBytes = MaxPayloadTCP // more than the buffers on the way hold
	r, samples := runPlan(t, plan)
	referee(t, plan, r, samples)
	wantCounts(t, r, 40, 40, 0, 0, 0)
	if r.Connect.Count != 1 {
		t.Errorf("%d connections", r.Connect.Count)
	}
}

// Several flows take turns, and each has its own connection, order and time to connect.
func TestTCPFlows(t *testing.T) {
	peer := tcpPeer(t, echoStream)
	plan := tcpPlan(peer, 300)
	plan.Flows, plan.Interval = 30, 100*time.Microsecond
	r, samples := runPlan(t, plan)
	referee(t, plan, r, samples)
	wantCounts(t, r, 300, 300, 0, 0, 0)
	if r.Connect.Count != 30 {
		t.Errorf("%d connections", r.Connect.Count)
	}
	seen := map[netip.AddrPort]bool{}
	for i, f := range r.Flows {
		if !f.Source.IsValid() || seen[f.Source] || f.Received != 10 {
			t.Errorf("%d of flow %d came back, from %v", f.Received, i, f.Source)
		}
		seen[f.Source] = true
	}
}

// Where there are no descriptors to wait with, package net makes the connections, as far as there are some for it.
func TestTCPOutOfDescriptors(t *testing.T) {
	plan := tcpPlan(tcpPeer(t, echoStream), 3)
	plan.Timeout = 100 * time.Millisecond
	for spare := range 8 {
		r := withDescriptors(t, spare, plan)
		if r.Sent != 3 || r.Received+r.Lost != 3 {
			t.Errorf("%d to spare: %+v", spare, r)
		}
		if spare == 0 && (r.Lost != 3 || r.Errors[0].Message != "too many open files") {
			t.Errorf("none to spare: %+v", r)
		}
	}
}

// A reset is told as one, too, when a write meets it before the run has read: the kernel tells of it once.
func TestTCPResetBeforeWrite(t *testing.T) {
	plan := tcpPlan(tcpPeer(t, func(_ int, c *net.TCPConn) {
		readBlock(c)
		time.Sleep(500 * time.Microsecond)
		resetConn(c)
	}), 2000)
	plan.Interval = 20 * time.Microsecond // Rounds leave more often than the run looks at its sockets.
	r, _ := runPlan(t, plan)
	wantCounts(t, r, 2000, 0, 2000, 0, 0)
	wantReason(t, r, ReasonReset, 2000)
}

// However much has waited for a connection, it is written in parts between which the run sees to the others.
func TestTCPWritesInParts(t *testing.T) {
	plan := tcpPlan(tcpPeer(t, func(_ int, c *net.TCPConn) { waitForFIN(c) }), 1)
	plan.PayloadBytes = 1200
	r := newRun(New(Options{}), plan, nil)
	r.address = netip.MustParseAddrPort(plan.Address)
	r.begins()
	s := newStreams(t.Context(), r)
	p := s.conns.(*polledConns)
	defer p.stop()
	defer s.close()
	s.begin(1, 0, r.begin(1, 0, 0, 0))
	c := p.conns[0]
	for range maxWork { // as if they had waited for the connection
		c.work = append(c.work, &block{seq: 1, size: plan.PayloadBytes})
	}
	p.lookAgainAt(0)
	for turns, before := 0, maxWork; before > 0; turns++ {
		if turns == 10000 {
			t.Fatalf("%d blocks still wait", before)
		}
		p.poll(10)
		// A turn may look at a socket twice: as the poller says, and as it was left.
		if wrote := before - len(c.work); wrote > 2*(bytesAtOnce/plan.PayloadBytes+1) {
			t.Fatalf("%d blocks were written in a turn", wrote)
		}
		before = len(c.work)
	}
}
