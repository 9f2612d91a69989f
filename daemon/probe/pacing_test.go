package probe

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/echod/echod/daemon/internal/wire"
)

// stalling is a peer in memory that answers at once, but for a time in which it answers nothing; then it answers all that
// came meanwhile.
func stalling(from, to time.Duration) *Prober {
	start := time.Now()
	return inMemory(func(_ int, c net.Conn) {
		replies := make(chan []byte, 1<<16)
		defer close(replies)
		go func() {
			for b := range replies {
				if now := time.Since(start); now >= from && now < to {
					time.Sleep(to - now)
				}
				_, _ = c.Write(b)
			}
		}()
		b := make([]byte, 1<<16)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			replies <- bytes.Clone(b[:n])
		}
	})
}

// An open loop does not wait: rounds go on leaving while a peer stalls, and their times tell how long it did. (A closed
// one would make a single round late and hide the rest: coordinated omission.)
func TestOpenLoopShowsAStall(t *testing.T) {
	const ms = time.Millisecond
	for name, plan := range map[string]Plan{
		"udp":            {Protocol: UDP},
		"udp, two flows": {Protocol: UDP, Flows: 2},
		"tcp":            {Protocol: TCP},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				plan := plan
				plan.Address, plan.Count, plan.Interval, plan.Timeout, plan.PayloadBytes = anyAddress, 1000, ms, 2*time.Second, 64
				// The stall is half a microsecond off, so that nothing happens at the same time as a round leaves.
				stall, end := 200*ms-ms/2, 700*ms-ms/2
				r, samples := runProber(t.Context(), t, stalling(stall, end), plan, nil)
				referee(t, plan, r, samples)
				wantCounts(t, r, 1000, 1000, 0, 0, 0)
				slow := 0
				for _, s := range samples {
					if want := time.Duration(s.Seq-1) * ms; s.Left != want {
						t.Errorf("round %d left at %v, want %v", s.Seq, s.Left, want)
					}
					want := time.Duration(0)
					if s.Left >= stall && s.Left < end {
						want = end - s.Left
						slow++
					}
					if *s.RTT != want {
						t.Errorf("round %d took %v, want %v", s.Seq, *s.RTT, want)
					}
				}
				if slow != 500 || r.Schedule.Late != 0 || r.Schedule.Error.Max != 0 {
					t.Errorf("%d rounds left during the stall, want 500; schedule %+v", slow, *r.Schedule)
				}
			})
		})
	}
}

// A closed loop waits for a flow's round before the next one of that flow leaves, and that is not late.
func TestClosedLoopWaits(t *testing.T) {
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		plan Plan
		left []time.Duration
	}{
		"udp":            {Plan{Protocol: UDP}, []time.Duration{0, 50 * ms, 100 * ms, 150 * ms}},
		"udp, unmarked":  {Plan{Protocol: UDP, PayloadBytes: 7}, []time.Duration{0, 50 * ms, 100 * ms, 150 * ms}},
		"udp, two flows": {Plan{Protocol: UDP, Flows: 2}, []time.Duration{0, 20 * ms, 50 * ms, 70 * ms}},
		"tcp":            {Plan{Protocol: TCP}, []time.Duration{0, 50 * ms, 100 * ms, 150 * ms}},
		"tcp, a new one": {Plan{Protocol: TCP, NewConnection: true}, []time.Duration{0, 50 * ms, 100 * ms, 150 * ms}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				plan := c.plan
				plan.Address, plan.Count, plan.Interval, plan.Timeout, plan.Pacing = anyAddress, 4, 20*ms, time.Second, Closed
				if plan.PayloadBytes == 0 {
					plan.PayloadBytes = 64
				}
				p := inMemory(each(func(_ int, b []byte, c net.Conn) {
					time.Sleep(50 * ms)
					_, _ = c.Write(b)
				}))
				r, samples := runProber(t.Context(), t, p, plan, nil)
				referee(t, plan, r, samples)
				var left []time.Duration
				for _, s := range samples {
					left = append(left, s.Left)
				}
				if !slices.Equal(left, c.left) {
					t.Errorf("rounds left at %v, want %v", left, c.left)
				}
				if r.Schedule.Late != 0 || r.Schedule.Moved != 0 {
					t.Errorf("waiting is told of as being late: %+v", *r.Schedule)
				}
			})
		})
	}
}

// Without an interval rounds leave as fast as answers come, of whatever kind, but no faster than they may; and to wait for
// that is nothing that went wrong.
func TestBoundOfAClosedLoop(t *testing.T) {
	const ms = time.Millisecond
	answers := inMemory(each(func(_ int, b []byte, c net.Conn) { _, _ = c.Write(b) }))
	slow := inMemory(each(func(_ int, b []byte, c net.Conn) { time.Sleep(25 * ms); _, _ = c.Write(b) }))
	refuses := New(Options{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, syscall.ECONNREFUSED }})
	breaks := inMemory(func(int, net.Conn) {})
	for name, c := range map[string]struct {
		prober *Prober
		plan   Plan
		lost   uint32
		apart  time.Duration
	}{
		"udp":                      {answers, Plan{Protocol: UDP, MaxRate: 100}, 0, 10 * ms},
		"udp, flows share it":      {answers, Plan{Protocol: UDP, MaxRate: 100, Flows: 4}, 0, 10 * ms},
		"udp, unmarked":            {answers, Plan{Protocol: UDP, MaxRate: 100, PayloadBytes: 7}, 0, 10 * ms},
		"udp, refused":             {refuses, Plan{Protocol: UDP, MaxRate: 100}, 8, 10 * ms},
		"tcp":                      {answers, Plan{Protocol: TCP, MaxRate: 100}, 0, 10 * ms},
		"tcp, refused":             {refuses, Plan{Protocol: TCP, MaxRate: 100}, 8, 10 * ms},
		"tcp, broken":              {breaks, Plan{Protocol: TCP, MaxRate: 100}, 8, 10 * ms},
		"tcp, a new one":           {answers, Plan{Protocol: TCP, MaxRate: 100, NewConnection: true}, 0, 10 * ms},
		"tcp, a new one, refused":  {refuses, Plan{Protocol: TCP, MaxRate: 100, NewConnection: true}, 8, 10 * ms},
		"answers are the slower":   {slow, Plan{Protocol: UDP, MaxRate: 100}, 0, 25 * ms},
		"no bound":                 {slow, Plan{Protocol: UDP}, 0, 25 * ms},
		"an interval has no bound": {answers, Plan{Protocol: UDP, Interval: 5 * ms, MaxRate: 1}, 0, 5 * ms},
	} {
		for _, late := range []bool{false, true} { // it is known when the name was looked up
			t.Run(fmt.Sprintf("%s, late: %v", name, late), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					plan := c.plan
					plan.Address, plan.Count, plan.Timeout = anyAddress, 8, time.Second
					if plan.PayloadBytes == 0 {
						plan.PayloadBytes = 64
					}
					if late {
						rate := plan.MaxRate
						plan.Admit = func(netip.AddrPort) (float64, error) { return rate, nil }
						plan.MaxRate *= 7
					}
					r, samples := runProber(t.Context(), t, c.prober, plan, nil)
					referee(t, plan, r, samples)
					wantCounts(t, r, 8, 8-c.lost, c.lost, 0, 0)
					for i, s := range samples {
						if want := time.Duration(i) * c.apart; s.Left != want {
							t.Errorf("round %d left at %v, want %v", s.Seq, s.Left, want)
						}
					}
					if (r.Schedule != nil) != (plan.Interval > 0) {
						t.Errorf("a schedule of no interval: %+v", r.Schedule)
					}
				})
			})
		}
	}
}

// The same over the host's sockets, where nothing wakes a run between two rounds.
func TestClosedLoopOverSocketsIsNotLate(t *testing.T) {
	var before []byte // a round, until the one after it could have left
	peer := udpPeer(t, "127.0.0.1:0", func(_ int, b []byte, reply func([]byte)) {
		before = bytes.Clone(b)
		timer := time.NewTimer(30 * time.Millisecond)
		<-timer.C
		reply(before)
	})
	plan := udpPlan(peer, 5)
	plan.Pacing, plan.Interval = Closed, 10*time.Millisecond
	r, samples := runPlan(t, plan)
	referee(t, plan, r, samples)
	wantCounts(t, r, 5, 5, 0, 0, 0)
	// Each left when the one before it was back, and on a machine that has time at once; if waiting counted, each would be
	// 20 ms late.
	if r.Schedule.Error.Min > 0 {
		t.Errorf("waiting is told of as being late: %+v", r.Schedule.Error)
	}
}

// What holds up a run makes rounds late, and by more than maxBehind moves the schedule.
func TestScheduleOfABusyProcess(t *testing.T) {
	const ms = time.Millisecond
	bubble(t, func(t *testing.T) {
		plan := timedPlan(UDP)
		plan.Count, plan.Interval = 50, 10*ms
		p := inMemory(each(func(_ int, b []byte, c net.Conn) {
			time.Sleep(ms)
			_, _ = c.Write(b)
		}))
		r, samples := runProber(t.Context(), t, p, plan, func(s Sample) {
			switch s.Seq {
			case 10: // Left at 90, back at 91: rounds 11 to 14 leave at 136, and 15 on time.
				time.Sleep(45 * ms)
			case 20: // Left at 190, back at 191: round 21 leaves at 391, and those after it keep their distance from it.
				time.Sleep(200 * ms)
			}
		})
		wantCounts(t, r, 50, 50, 0, 0, 0)
		left := map[uint32]time.Duration{}
		for _, s := range samples {
			left[s.Seq] = s.Left
		}
		for seq, want := range map[uint32]time.Duration{
			10: 90 * ms, 11: 136 * ms, 14: 136 * ms, 15: 140 * ms, 20: 190 * ms, 21: 391 * ms, 22: 401 * ms, 50: 681 * ms,
		} {
			if left[seq] != want {
				t.Errorf("round %d left at %v, want %v", seq, left[seq], want)
			}
		}
		// 36, 26, 16 and 6 ms late, and 191.
		if s := r.Schedule; s.Late != 5 || s.Moved != 1 || s.Error.Max != 191*ms || s.Error.Count != 50 {
			t.Errorf("schedule %+v, %+v", *s, *s.Error)
		}
	})
}

// A process that was away shows in the times that it took itself, which say so and are left out of those of the network.
func TestPausesOfTheProcess(t *testing.T) {
	const ms = time.Millisecond
	p := New(Options{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, net.ErrClosed }})
	plan := timedPlan(UDP)
	var samples []Sample
	r := newRun(p, plan, func(s Sample) error { samples = append(samples, s); return nil })
	r.start = time.Now()
	r.tally.reach(netip.MustParseAddrPort(anyAddress), r.start)
	reply := func(left, took time.Duration) {
		trip := r.begin(r.rounds.last+1, 0, 0, 0)
		trip.left = left
		r.received(r.rounds.last, r.times(left+took, took, stamp{}, stamp{}), nil)
	}
	reply(0, 5*ms)
	reply(10*ms, 7*ms)
	r.pauses.woke(22*ms, 60*ms) // It was to look at the clock at 22 ms.
	reply(20*ms, 40*ms)         // Read when it was back.
	reply(61*ms, 6*ms)
	reply(70*ms, 9*ms)
	r.tally.stop()
	report := r.tally.Report()
	referee(t, plan, report, samples)
	if x := report.Timestamps; x.Clock != UserClock || x.Paused != 1 || x.LongestPause != 38*ms || !samples[2].Paused {
		t.Errorf("timestamps %+v, sample %+v", x, samples[2])
	}
	if report.RTT.Count != 4 || report.RTT.Max != 9*ms || report.ApplicationRTT.Count != 5 || report.ApplicationRTT.Max != 40*ms {
		t.Errorf("RTT %+v, as the process saw it %+v", *report.RTT, *report.ApplicationRTT)
	}
	// 7-5 and 9-6: what has a pause in it is compared with nothing.
	if report.IPDV.Count != 2 || report.IPDV.Max != 3*ms {
		t.Errorf("IPDV %+v", *report.IPDV)
	}
}

// Where all times have pauses in them, they are better than none.
func TestNothingButPauses(t *testing.T) {
	var tally Tally
	plan := timedPlan(UDP)
	tally.start(plan, 1)
	rtt := 50 * time.Millisecond
	tally.begin(0, 1, 64, 0, 0, 0)
	tally.add(Sample{Seq: 1, Outcome: Received, RTT: &rtt, ApplicationRTT: &rtt, Paused: true}, NoReason, UserClock, rtt)
	tally.stop()
	if r := tally.Report(); r.RTT == nil || r.RTT.Max != rtt || r.Timestamps.Paused != 1 || r.IPDV != nil || r.Jitter != nil {
		t.Errorf("%+v", r)
	}
}

// The rounds of a sweep have its sizes by turns.
func TestSweep(t *testing.T) {
	seen := make(chan int, 7)
	plan := udpPlan(udpPeer(t, "127.0.0.1:0", func(_ int, b []byte, reply func([]byte)) {
		seen <- len(b)
		reply(b)
	}), 7)
	plan.Sizes, plan.PayloadBytes, plan.Interval = []int{16, 1000, 65000}, 0, 0
	r, samples := runPlan(t, plan)
	referee(t, plan, r, samples)
	wantCounts(t, r, 7, 7, 0, 0, 0)
	for _, want := range []int{16, 1000, 65000, 16, 1000, 65000, 16} {
		if size := <-seen; size != want {
			t.Errorf("a size of %d, want %d", size, want)
		}
	}
	if r.Sizes[0].Sent != 3 || r.Sizes[2].Sent != 2 || r.PayloadBytes != 65000 {
		t.Errorf("sizes %+v, payload %d", r.Sizes, r.PayloadBytes)
	}
	waysOfTCP(t, func(t *testing.T, way wayOfTCP) {
		plan := tcpPlan(tcpPeer(t, echoStream), 9)
		plan.Sizes, plan.PayloadBytes = []int{1, 1460, 200_000}, 0
		r, samples := way.run(t, plan)
		plan.NewConnection = way.newConnection
		referee(t, plan, r, samples)
		wantCounts(t, r, 9, 9, 0, 0, 0)
	})
}

// Many rounds take no more memory than some do, whatever becomes of them.
func TestMemoryOfManyRounds(t *testing.T) {
	if testing.Short() {
		t.Skip("a million rounds take some seconds")
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	synctest.Test(t, func(t *testing.T) {
		plan := Plan{
			Protocol: UDP, Address: anyAddress, Count: 1_000_000, Interval: 100 * time.Microsecond, Timeout: 50 * time.Millisecond,
			PayloadBytes: 16, Flows: 4, Tally: new(Tally),
		}
		n := 0
		p := New(Options{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return newLossyEcho(7), nil
		}})
		var early, late uint64
		r, err := p.Run(t.Context(), plan, func(s Sample) error {
			switch n++; n {
			case 200_000:
				early = heap()
			case 900_000:
				late = heap()
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		checkReport(t, r)
		if r.Sent != plan.Count || r.Lost != plan.Count/7 || r.Received != plan.Count-r.Lost {
			t.Errorf("sent %d, received %d, lost %d", r.Sent, r.Received, r.Lost)
		}
		if late > early+1<<20 {
			t.Errorf("the heap grew from %d bytes after 200,000 rounds to %d after 900,000", early, late)
		}
	})
}

// lossyEcho is a connection that echoes but for each n-th round.
type lossyEcho struct {
	net.Conn // nil: nothing else is called
	every    uint32
	replies  chan []byte
	closed   chan struct{}
}

func newLossyEcho(every uint32) *lossyEcho {
	return &lossyEcho{every: every, replies: make(chan []byte, 1024), closed: make(chan struct{})}
}

func (c *lossyEcho) Write(b []byte) (int, error) {
	if _, seq, _ := wire.Parse(b); seq%c.every != 0 {
		c.replies <- bytes.Clone(b)
	}
	return len(b), nil
}

func (c *lossyEcho) Read(b []byte) (int, error) {
	select {
	case reply := <-c.replies:
		return copy(b, reply), nil
	case <-c.closed:
		return 0, net.ErrClosed
	}
}

func (c *lossyEcho) Close() error                     { close(c.closed); return nil }
func (c *lossyEcho) LocalAddr() net.Addr              { return &net.UDPAddr{} }
func (c *lossyEcho) SetWriteDeadline(time.Time) error { return nil }
