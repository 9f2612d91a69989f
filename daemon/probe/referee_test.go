package probe

import (
	"cmp"
	"math"
	"slices"
	"testing"
	"time"
)

// referee sums up the samples of a run that came to its end, by the definitions and with no regard to how the engine does
// it, and holds the report against that.
func referee(t *testing.T, plan Plan, r Report, samples []Sample) {
	t.Helper()
	checkReport(t, r)
	checkSamples(t, r, samples)
	rounds := map[uint32]Sample{} // what was told first of each
	for _, s := range samples {
		if _, told := rounds[s.Seq]; !told && s.Outcome != WrongAddress {
			rounds[s.Seq] = s
		}
	}
	if r.Outstanding != 0 || len(rounds) != int(r.Sent) {
		t.Errorf("%d rounds have an end, sent %d, outstanding %d", len(rounds), r.Sent, r.Outstanding)
		return
	}
	refereeRows(t, plan, r, rounds)
	refereeTimes(t, plan, r, samples, rounds)
	refereeFlows(t, plan, r, samples)
	refereeSizes(t, plan, r, rounds, samples)
	if plan.numbered() {
		if want := reorderedIn(samples); *r.Reordered != want {
			t.Errorf("reordered %d, want %d", *r.Reordered, want)
		}
	} else if r.Reordered != nil || r.Duplicated != nil {
		t.Error("replies without a number are told of as reordered or duplicated")
	}
}

// ofFlow are the rounds of a flow in the order in which they left.
func ofFlow(plan Plan, rounds map[uint32]Sample, flow int) (out []Sample) {
	for _, s := range rounds {
		if s.Flow == flow {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b Sample) int { return cmp.Compare(a.Seq, b.Seq) })
	return out
}

// refereeRows checks loss, bursts and outages.
func refereeRows(t *testing.T, plan Plan, r Report, rounds map[uint32]Sample) {
	t.Helper()
	var outages []Outage
	var bursts, longest uint32
	for flow := range plan.flows() {
		var row []Sample
		end := func(at time.Duration, open bool) {
			if len(row) == 0 {
				return
			}
			bursts++
			longest = max(longest, uint32(len(row)))
			outages = append(outages, Outage{flow, row[0].Left, at - row[0].Left, uint32(len(row)), open})
			row = nil
		}
		for _, s := range ofFlow(plan, rounds, flow) {
			if s.Outcome == Lost {
				row = append(row, s)
				continue
			}
			end(s.Left, false)
		}
		if len(row) > 0 {
			end(row[len(row)-1].Left+plan.Timeout, true)
		}
	}
	slices.SortFunc(outages, func(a, b Outage) int { return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.Flow, b.Flow)) })
	if plan.Interval == 0 {
		outages = nil
	}
	// One that goes on lasts until its last round was given up: when that was is known to some time after its timeout.
	same := func(got, want Outage) bool {
		if got.Open && want.Open && got.Length >= want.Length && got.Length < want.Length+patience {
			got.Length = want.Length
		}
		return got == want
	}
	if len(outages) <= maxOutages && (!slices.EqualFunc(r.Outages, outages, same) || r.MoreOutages != 0) {
		t.Errorf("outages %+v and %d more, want %+v", r.Outages, r.MoreOutages, outages)
	}
	if total := len(r.Outages) + int(r.MoreOutages); total != len(outages) {
		t.Errorf("%d outages, want %d", total, len(outages))
	}
	want := Loss{
		Ratio: float64(r.Lost+r.Late) / float64(r.Sent), UpperBound: upperBound(r.Lost+r.Late, r.Sent), Bursts: bursts, LongestBurst: longest,
	}
	if r.Sent > 0 && *r.Loss != want {
		t.Errorf("loss %+v, want %+v", *r.Loss, want)
	}
}

// isNetworks says whether the RTT of a round is among those of the network.
func isNetworks(s Sample, r Report) bool {
	// Where the kernel tells the times, a round that it does not tell of is not known here.
	return s.Outcome == Received && (!s.Paused || r.Timestamps.Clock != UserClock)
}

// refereeTimes checks the distributions, jitter and throughput.
func refereeTimes(t *testing.T, plan Plan, r Report, samples []Sample, rounds map[uint32]Sample) {
	t.Helper()
	if r.Timestamps.Missing > 0 {
		return // Which rounds have whose time is not told.
	}
	var rtt, application, ipdv []time.Duration
	jitters, n := 0.0, 0
	for flow := range plan.flows() {
		var last *Sample
		for _, s := range ofFlow(plan, rounds, flow) {
			if !isNetworks(s, r) {
				last = nil
				continue
			}
			if last != nil {
				ipdv = append(ipdv, (*s.RTT - *last.RTT).Abs())
			}
			last = &s
		}
		// RFC 3550, 6.4.1: J(i) = J(i-1) + (|D(i-1,i)| - J(i-1))/16, in the order of arrival.
		j, before, seen := 0.0, 0.0, 0
		for _, s := range samples {
			if s.Flow != flow || !isNetworks(s, r) {
				continue
			}
			now := float64(*s.RTT)
			if seen++; seen > 1 {
				j += (math.Abs(now-before) - j) / 16
			}
			before = now
		}
		if seen > 1 {
			jitters, n = jitters+j, n+1
		}
	}
	for _, s := range samples {
		if s.Outcome == Received {
			application = append(application, *s.ApplicationRTT)
		}
		if isNetworks(s, r) {
			rtt = append(rtt, *s.RTT)
		}
	}
	if len(rtt) == 0 {
		rtt = application
	}
	refereeDistribution(t, "RTT", r.RTT, rtt, 0.001)
	refereeDistribution(t, "application RTT", r.ApplicationRTT, application, 0.001)
	refereeDistribution(t, "IPDV", r.IPDV, ipdv, 0.01)
	switch {
	case n == 0 && r.Jitter != nil:
		t.Errorf("jitter %v of nothing", *r.Jitter)
	case n > 0 && (r.Jitter == nil || math.Abs(float64(*r.Jitter)-jitters/float64(n)) > 1):
		t.Errorf("jitter %v, want %v", r.Jitter, time.Duration(jitters/float64(n)))
	}
}

// refereeDistribution holds a distribution against the times that it sums up; percentiles may be so much off, in parts.
func refereeDistribution(t *testing.T, name string, d *Distribution, times []time.Duration, off float64) {
	t.Helper()
	if (d == nil) != (len(times) == 0) {
		t.Errorf("%s is %+v of %d times", name, d, len(times))
	}
	if d == nil || len(times) == 0 {
		return
	}
	slices.Sort(times)
	var sum float64
	for _, x := range times {
		sum += float64(x)
	}
	mean := sum / float64(len(times))
	if d.Count != uint32(len(times)) || d.Min != times[0] || d.Max != times[len(times)-1] || math.Abs(float64(d.Mean)-mean) > 1+mean*1e-9 {
		t.Errorf("%s %+v, want %d from %v to %v, mean %v", name, d, len(times), times[0], times[len(times)-1], time.Duration(mean))
	}
	for percent, got := range map[float64]time.Duration{50: d.P50, 90: d.P90, 95: d.P95, 99: d.P99, 99.9: d.P999} {
		// The nearest rank, or one beside it.
		rank := percent / 100 * float64(len(times))
		low, high := times[max(int(rank)-1, 0)], times[min(int(math.Ceil(rank)), len(times)-1)]
		if float64(got) < float64(low)*(1-off)-1 || float64(got) > float64(high)*(1+off)+1 {
			t.Errorf("%s p%v = %v, want %v to %v", name, percent, got, low, high)
		}
	}
	var inBuckets uint32
	for _, b := range d.Buckets {
		inBuckets += b.Count
	}
	if d.Buckets != nil && inBuckets != d.Count {
		t.Errorf("%s has %d times in buckets, want %d", name, inBuckets, d.Count)
	}
}

func refereeFlows(t *testing.T, plan Plan, r Report, samples []Sample) {
	t.Helper()
	if plan.flows() == 1 {
		if r.Flows != nil {
			t.Errorf("flows of one: %+v", r.Flows)
		}
		return
	}
	received, lost := make([]uint32, plan.flows()), make([]uint32, plan.flows())
	for _, s := range samples {
		if !plan.closed() && int(s.Seq-1)%plan.flows() != s.Flow {
			t.Errorf("round %d is of flow %d", s.Seq, s.Flow)
		}
		switch s.Outcome {
		case Received:
			received[s.Flow]++
		case Lost:
			lost[s.Flow]++
		case Late:
			lost[s.Flow]--
		}
	}
	if len(r.Flows) != plan.flows() {
		t.Fatalf("%d flows, want %d", len(r.Flows), plan.flows())
	}
	sent := uint32(0)
	for i, f := range r.Flows {
		if f.Received != received[i] || f.Lost != lost[i] || (f.RTT != nil) && f.RTT.Count > f.Received {
			t.Errorf("flow %d: %+v, want %d received, %d lost", i, f, received[i], lost[i])
		}
		sent += f.Sent
	}
	if sent != r.Sent {
		t.Errorf("flows sent %d, all of them %d", sent, r.Sent)
	}
}

func refereeSizes(t *testing.T, plan Plan, r Report, rounds map[uint32]Sample, samples []Sample) {
	t.Helper()
	if len(r.Sizes) != len(plan.Sizes) {
		t.Fatalf("%d sizes, want %d", len(r.Sizes), len(plan.Sizes))
	}
	want := make([]SizeReport, len(plan.Sizes))
	for _, s := range rounds {
		if s.PayloadBytes != plan.size(s.Seq) {
			t.Errorf("round %d has %d bytes", s.Seq, s.PayloadBytes)
		}
	}
	if len(want) == 0 {
		return
	}
	at := func(s Sample) *SizeReport { return &want[int(s.Seq-1)%len(want)] }
	for _, s := range rounds {
		at(s).Sent++
	}
	for _, s := range samples {
		switch s.Outcome {
		case Received:
			at(s).Received++
		case Lost:
			at(s).Lost++
		case Corrupted:
			at(s).Corrupted++
		case Late:
			at(s).Lost--
			at(s).Late++
		}
	}
	for i, got := range r.Sizes {
		want[i].PayloadBytes, want[i].RTT = plan.Sizes[i], got.RTT
		if got != want[i] || (got.RTT != nil) && got.RTT.Count > got.Received {
			t.Errorf("size %d: %+v, want %+v", i, got, want[i])
		}
	}
}

// reorderedIn counts the right replies that were overtaken by the reply of a later round of their flow (RFC 4737: a
// packet is reordered when its number is less than the next one that is expected).
func reorderedIn(samples []Sample) (n uint32) {
	highest := map[int]uint32{}
	for _, s := range samples {
		if s.Outcome != Received && s.Outcome != Late {
			continue
		}
		if s.Seq < highest[s.Flow] {
			n++
		}
		highest[s.Flow] = max(highest[s.Flow], s.Seq)
	}
	return n
}
