package probe

import (
	"net/netip"
	"testing"
	"time"
)

func TestAnAggregatorTellsIntervalsApart(t *testing.T) {
	var tally Tally
	tally.start(Plan{Protocol: UDP, PayloadBytes: 64}, 1)
	g := NewAggregator()
	if a := g.Take(&tally); !a.Empty() || a.RTT != nil || a.Until != 0 {
		t.Errorf("nothing happened, but %+v", a)
	}

	start := time.Now()
	tally.reach(netip.AddrPort{}, start)
	for seq := range uint32(4) {
		tally.begin(0, seq+1, 64, 0, 0, 0)
	}
	for _, ms := range []time.Duration{1, 2, 3} {
		rtt := ms * time.Millisecond
		g.Add(Sample{Outcome: Received, RTT: &rtt})
	}
	g.Add(Sample{Outcome: Lost, Reason: ReasonTimeout})
	a := g.Take(&tally)
	if a.Sent != 4 || a.Received != 3 || a.Lost != 1 || a.Late != 0 || a.RTT.Count != 3 || a.RTT.Min != time.Millisecond || a.RTT.Max != 3*time.Millisecond || a.RTT.Buckets != nil {
		t.Errorf("the first interval: %+v, rtt %+v", a, a.RTT)
	}

	tally.begin(0, 5, 64, 0, 0, 0)
	late := time.Second
	g.Add(Sample{Outcome: Late, RTT: &late})
	g.Add(Sample{Outcome: Duplicated, RTT: &late})
	g.Add(Sample{Outcome: Corrupted, Reason: ReasonCorrupted})
	g.Add(Sample{Outcome: WrongAddress})
	tally.stop()
	a = g.Take(&tally)
	if a.Sent != 1 || a.Received != 0 || a.Lost != 0 || a.Late != 1 || a.Duplicated != 1 || a.Corrupted != 1 || a.RTT != nil {
		t.Errorf("the second interval: %+v, rtt %+v", a, a.RTT)
	}
	if end := tally.began.Add(tally.Report().Elapsed); a.Until != end.Sub(start) {
		t.Errorf("the last interval ends at %v, want the run's end, %v", a.Until, end.Sub(start))
	}
	if a := g.Take(&tally); !a.Empty() {
		t.Errorf("after the end: %+v", a)
	}
}

// TestAnAggregateLeavesPausesOut has a pause in the process's time, and one that the kernel's time is free of.
func TestAnAggregateLeavesPausesOut(t *testing.T) {
	g := NewAggregator()
	short, long := time.Millisecond, 20*time.Millisecond
	g.Add(Sample{Outcome: Received, RTT: &long, ApplicationRTT: &long, Paused: true})
	g.Add(Sample{Outcome: Received, RTT: &short, ApplicationRTT: &long, Paused: true})
	a := g.Take(new(Tally))
	if a.Received != 2 || a.RTT.Count != 1 || a.RTT.Max != short {
		t.Errorf("%+v, rtt %+v", a, a.RTT)
	}
}
