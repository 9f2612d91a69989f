package probe

import (
	"context"
	"math"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A run without descriptors for what it waits with loses its rounds, and ends in its time.
func TestOutOfDescriptors(t *testing.T) {
	plan := udpPlan(udpPeer(t, "127.0.0.1:0", echoDatagram), 3)
	plan.Interval, plan.Timeout = time.Millisecond, 100*time.Millisecond
	for spare := range 8 {
		next, err := unix.Dup(0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Close(next); err != nil {
			t.Fatal(err)
		}
		var before unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
		few := unix.Rlimit{Cur: uint64(next + spare), Max: before.Max}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
			t.Fatal(err)
		}
		r, err := New(Options{}).Run(t.Context(), plan, nil)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
		if err != nil || r.Sent != 3 || r.Received+r.Lost != 3 {
			t.Errorf("%d to spare: %v, %+v", spare, err, r)
		}
		if spare == 0 && (r.Lost != 3 || r.Errors[0].Message != "too many open files") {
			t.Errorf("none to spare: %+v", r)
		}
	}
}

// Sequence numbers have an end, at which a run ends.
func TestEndOfSequenceNumbers(t *testing.T) {
	for _, protocol := range []Protocol{UDP, TCP} {
		plan := udpPlan(udpPeer(t, "127.0.0.1:0", echoDatagram), 0)
		if protocol == TCP {
			plan = tcpPlan(tcpPeer(t, echoStream), 0)
		}
		plan.Interval = time.Millisecond
		const left = 10
		r := newRun(New(Options{}), plan, nil)
		r.pacer.left = math.MaxUint32 - 1 - left
		r.rounds.last, r.rounds.oldest = r.pacer.left, r.pacer.left+1
		r.rounds.trips = make([]trip, windowRounds)
		if err := r.do(context.Background()); err != nil {
			t.Error(err)
		}
		if got := r.tally.Report(); got.Sent != left || got.Received != left {
			t.Errorf("%s: %+v", protocol, got)
		}
	}
}

// What the poller has to remember of a socket does not grow with the rounds, nor does it hold on to one that is closed.
func TestPollerForgets(t *testing.T) {
	plan := udpPlan(udpPeer(t, "127.0.0.1:0", echoDatagram), 2000)
	plan.Interval, plan.Flows = 0, 2
	r := newRun(New(Options{}), plan, nil)
	r.address = netip.MustParseAddrPort(plan.Address)
	r.begins()
	r.tally.reach(r.address, r.start)
	d := newDatagrams(t.Context(), r)
	p := d.sockets.(*poller)
	if err := drive(t.Context(), r, d); err != nil {
		t.Fatal(err)
	}
	if got := r.tally.Report(); got.Received != plan.Count {
		t.Errorf("%+v", got)
	}
	if len(p.failed) > plan.Flows || len(p.unread) > plan.Flows {
		t.Errorf("it remembers %d that failed and %d to read, of %d sockets", len(p.failed), len(p.unread), plan.Flows)
	}
	p.unread = nil
	closed := p.flows[0]
	closed.isUnread = false
	if p.read(closed); len(p.unread) > 0 {
		t.Error("a closed socket is to be read again")
	}
}
