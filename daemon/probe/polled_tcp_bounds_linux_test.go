package probe

import (
	"net"
	"testing"
	"time"
)

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
	r.address = addrPort(mustResolve(t, plan.Address))
	r.begins()
	s := newStreams(t.Context(), r)
	p := s.conns.(*polledConns)
	defer p.stop()
	defer s.close()
	for seq := range uint32(maxWork) { // before it is connected
		s.begin(seq+1, 0, r.begin(seq+1, 0, 0, 0))
	}
	c := p.conns[0]
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

func mustResolve(t *testing.T, address string) net.Addr {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
