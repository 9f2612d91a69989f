package probe

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A run without descriptors for what it waits with loses its rounds, and ends in its time.
func TestOutOfDescriptors(t *testing.T) {
	plan := udpPlan(udpPeer(t, "127.0.0.1:0", echoDatagram), 3)
	plan.Interval, plan.Timeout = time.Millisecond, 100*time.Millisecond
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

// withDescriptors runs a plan where the process can open so many descriptors more.
func withDescriptors(t *testing.T, spare int, plan Plan) Report {
	t.Helper()
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
	if err != nil {
		t.Errorf("%d to spare: %v", spare, err)
	}
	return r
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
	r, d, p := polledRun(t, plan)
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
	p.sockets[0].isUnread = false
	if p.read(0); len(p.unread) > 0 {
		t.Error("a closed socket is to be read again")
	}
}

// polledRun is a run that is to be driven.
func polledRun(t *testing.T, plan Plan) (*run, *datagrams, *poller) {
	t.Helper()
	r := newRun(New(Options{}), plan, nil)
	r.address = netip.MustParseAddrPort(plan.Address)
	r.begins()
	r.tally.reach(r.address, r.start)
	d := newDatagrams(t.Context(), r)
	return r, d, d.sockets.(*stampedSockets).poller
}

// The runtime's poller is woken for what comes while it waits for the run, and not while the run waits itself.
func TestWhoIsWoken(t *testing.T) {
	r, d, p := polledRun(t, udpPlan(udpPeer(t, "127.0.0.1:0", echoDatagram), 1))
	defer p.stop()
	defer d.close()
	watcher, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(watcher) }()
	// As the runtime's poller does it.
	watch := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}
	if err := unix.EpollCtl(watcher, unix.EPOLL_CTL_ADD, p.outer, &watch); err != nil {
		t.Fatal(err)
	}
	var events [1]unix.EpollEvent
	for range 3 {
		p.arm()
		p.setTimer(r.now() + time.Millisecond)
		for n := 0; n == 0; { // 0 with an error is a signal. It ends, or the test's own time does.
			n, _ = unix.EpollWait(watcher, events[:], 1000)
		}
		p.poll(-1)
		p.disarm()
		for range 3 {
			p.setTimer(r.now() + time.Millisecond)
			for waitHolding(p.epoll, p.events[:]) == 0 {
			}
			if n, err := unix.EpollWait(watcher, events[:], 0); n > 0 {
				t.Errorf("it was woken by what the run waits for itself: %v", err)
			}
			p.takeIn(1, false)
		}
	}
}

// refusing is a descriptor that the runtime's poller has not taken.
type refusing struct {
	syscall.RawConn
	asked int
}

func (r *refusing) Read(func(uintptr) bool) error {
	r.asked++
	return os.ErrNoDeadline
}

// Where the runtime's poller will not wait for a run, the run does it itself, and does not spin.
func TestPollerRefused(t *testing.T) {
	plan := udpPlan(udpPeer(t, "127.0.0.1:0", echoDatagram), 10)
	plan.Interval = 3 * holdBefore
	r, d, p := polledRun(t, plan)
	refuses := &refusing{}
	p.watched = refuses
	if err := drive(t.Context(), r, d); err != nil {
		t.Fatal(err)
	}
	if got := r.tally.Report(); got.Received != plan.Count {
		t.Errorf("%+v", got)
	}
	// A wait ends with a datagram, a report that it has left, a timer or its end.
	if refuses.asked == 0 || refuses.asked > 10*int(plan.Count) {
		t.Errorf("the runtime's poller was asked %d times", refuses.asked)
	}
}

// A pause between the readings of the clocks makes no timer go off early.
func TestClockAtStart(t *testing.T) {
	start := time.Now()
	readings := 0
	got, err := monotonicAtStart(func() time.Duration {
		if readings++; readings <= 4 {
			time.Sleep(5 * time.Millisecond)
		}
		return time.Since(start)
	})
	var clock unix.Timespec
	if err := errors.Join(err, unix.ClockGettime(unix.CLOCK_MONOTONIC, &clock)); err != nil {
		t.Fatal(err)
	}
	if atMost := clock.Nano() - int64(time.Since(start)); got < atMost-int64(time.Microsecond) {
		t.Errorf("timers go off %v early", time.Duration(atMost-got))
	}
}
