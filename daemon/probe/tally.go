package probe

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Tally sums up a run. Its owner hands it to Run in a Plan and may ask for the report at any time, from any goroutine.
// The zero value is ready. It must not be copied.
type Tally struct {
	mu                              sync.Mutex
	running                         bool
	began                           time.Time
	plan                            Plan
	sum                             Report // the counts and what is known of the run; the rest is in the fields below
	seen                            seen
	rtt, application, connect, ipdv times
	schedule                        times
	late, moved, omitted            uint32
	clocks                          [HardwareClock + 1]uint32 // received rounds by who took their times
	paused                          uint32
	longestPause                    time.Duration
	sentBytes, receivedBytes        uint64
	firstLeft, lastEnd              time.Duration
	flows                           []flowTally
	seesSenders                     bool // whether replies from other addresses would be seen
	sizes                           []sizeTally
	outages                         outages
	bursts, longestBurst            uint32
	errors                          map[Reason]ErrorCount
}

// seen counts what comes besides the one answer of a round.
type seen struct{ duplicated, reordered, wrongAddress, ignored, dropped uint32 }

// flowTally sums up one flow.
type flowTally struct {
	source netip.AddrPort
	counts
	rtt     times
	highest uint32 // the last round in order whose right reply has come
	jitter  jitter
	row     row
	last    time.Duration // RTT of the round before, in order
	hasLast bool
}

// sizeTally sums up the rounds of one size.
type sizeTally struct {
	counts
	rtt times
}

// counts are what became of some of the rounds.
type counts struct{ sent, received, lost, corrupted, late uint32 }

// add counts an outcome.
func (c *counts) add(o Outcome) {
	switch o {
	case Received:
		c.received++
	case Lost:
		c.lost++
	case Corrupted:
		c.corrupted++
	case Late:
		c.late++
		c.lost--
	}
}

// lateLeast is what counts as late for a round that leaves.
const lateLeast = time.Millisecond

// start clears the tally for a run of this plan.
func (t *Tally) start(plan Plan, run uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	plan.Tally = nil
	t.running, t.began, t.plan = true, time.Now(), plan
	t.sum = Report{PayloadBytes: plan.largest(), Run: run}
	t.seen = seen{}
	t.rtt, t.application, t.connect = times{}, times{}, times{}
	t.ipdv, t.schedule = times{digits: within1Percent}, times{digits: within1Percent}
	t.late, t.moved, t.omitted = 0, 0, 0
	t.clocks, t.paused, t.longestPause = [HardwareClock + 1]uint32{}, 0, 0
	t.sentBytes, t.receivedBytes, t.firstLeft, t.lastEnd = 0, 0, 0, 0
	t.flows, t.sizes = make([]flowTally, plan.flows()), make([]sizeTally, len(plan.Sizes))
	t.outages, t.bursts, t.longestBurst, t.seesSenders = outages{}, 0, 0, false
	t.errors = make(map[Reason]ErrorCount)
}

// stop ends the run: time stands still from now on.
func (t *Tally) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running = false
	t.sum.Elapsed = time.Since(t.began)
}

// reach notes where the rounds go, and from when on they may.
func (t *Tally) reach(a netip.AddrPort, start time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sum.Address, t.sum.Start = a, start
}

// comeFrom notes where a flow comes from.
func (t *Tally) comeFrom(flow int, source netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// A zone is a number to the kernel. What its name is, package net knows of one namespace alone.
	t.flows[flow].source = netip.AddrPortFrom(source.Addr().WithZone(""), source.Port())
}

// begin counts a round as sent, at a time that is so much later than its own. It is behind the schedule by as much, or by
// more where a closed loop had to wait.
func (t *Tally) begin(flow int, seq uint32, size int, now, late, behind time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sum.Sent == 0 {
		t.firstLeft = now
	}
	t.sum.Sent++
	t.flows[flow].sent++
	if s := t.size(seq); s != nil {
		s.sent++
	}
	t.sentBytes += uint64(size)
	if t.plan.Interval == 0 {
		return
	}
	t.schedule.add(late)
	if late > lateLeast {
		t.late++
	}
	if behind > maxBehind {
		t.moved++
		t.omitted += uint32(min(behind/t.plan.Interval, math.MaxInt32))
	}
}

// size is where the round's size is summed up; nil outside of a sweep.
func (t *Tally) size(seq uint32) *sizeTally {
	if len(t.sizes) == 0 {
		return nil
	}
	return &t.sizes[(seq-1)%uint32(len(t.sizes))]
}

// seeSenders notes that replies from other addresses are seen.
func (t *Tally) seeSenders() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seesSenders = true
}

// found notes what a search has found so far.
func (t *Tally) found(x PathMTU) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sum.PathMTU = &x
}

// ignore counts a datagram that belongs to no round.
func (t *Tally) ignore() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen.ignored++
}

// drop counts datagrams that found no room in the socket's buffer.
func (t *Tally) drop(n uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen.dropped += n
}

// reply notes the order in which the right replies of a flow come.
func (t *Tally) reply(flow int, seq uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := &t.flows[flow]
	if seq < f.highest {
		t.seen.reordered++
	}
	f.highest = max(f.highest, seq)
}

// add counts a sample. wasLost is why the round had been lost before; it matters to a Late sample alone. The clock is who
// took the time of its RTT, and pause how much of its ApplicationRTT was this process's own.
func (t *Tally) add(s Sample, wasLost Reason, clock Clock, pause time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.flows[s.Flow].add(s.Outcome)
	if size := t.size(s.Seq); size != nil {
		size.add(s.Outcome)
	}
	switch s.Outcome {
	case Received:
		t.receive(s, clock, pause)
	case Lost:
		t.sum.Lost++
	case Corrupted:
		t.sum.Corrupted++
	case Late:
		t.sum.Late++
		t.sum.Lost--
		t.takeBack(wasLost)
	case Duplicated:
		t.seen.duplicated++
	case WrongAddress:
		t.seen.wrongAddress++
	}
	if s.Connect != nil {
		t.connect.add(*s.Connect)
	}
	if s.Reason != NoReason {
		e := t.errors[s.Reason]
		t.errors[s.Reason] = ErrorCount{Reason: s.Reason, Count: e.Count + 1, Message: s.Err}
	}
	switch s.Outcome {
	case Received:
		t.lastEnd = max(t.lastEnd, s.Left+*s.ApplicationRTT)
	case Lost, Corrupted:
		t.lastEnd = max(t.lastEnd, time.Since(t.sum.Start))
	}
}

func (t *Tally) receive(s Sample, clock Clock, pause time.Duration) {
	t.sum.Received++
	t.receivedBytes += uint64(s.PayloadBytes)
	t.clocks[clock]++
	t.application.add(*s.ApplicationRTT)
	if pause > pauseLeast {
		t.paused++
		t.longestPause = max(t.longestPause, pause)
		if clock == UserClock {
			return // it is not the network's
		}
	}
	t.rtt.add(*s.RTT)
	f := &t.flows[s.Flow]
	f.jitter.add(*s.RTT)
	if len(t.flows) > 1 {
		f.rtt.digits = within1Percent
		f.rtt.add(*s.RTT)
	}
	if size := t.size(s.Seq); size != nil {
		size.rtt.digits = within1Percent
		size.rtt.add(*s.RTT)
	}
}

func (t *Tally) takeBack(reason Reason) {
	e := t.errors[reason]
	if e.Count--; e.Count == 0 {
		delete(t.errors, reason)
		return
	}
	t.errors[reason] = e
}

// follow takes in the rounds of a flow in the order in which they left, each when it and all before it have ended.
func (t *Tally) follow(flow int, round trip) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := &t.flows[flow]
	if round.state == answered && round.rtt >= 0 {
		if f.hasLast {
			t.ipdv.add((round.rtt - f.last).Abs())
		}
		f.last, f.hasLast = round.rtt, true
	} else {
		f.hasLast = false
	}
	if round.inTime() {
		t.endRow(flow, round.left)
		return
	}
	if f.row.lost == 0 {
		f.row.start = round.left
		t.bursts++
	}
	f.row.lost++
	f.row.givenUp = round.ended
	t.longestBurst = max(t.longestBurst, f.row.lost)
}

// endRow ends a flow's row of rounds without a reply, if there is one, for a round that left now was answered.
func (t *Tally) endRow(flow int, now time.Duration) {
	row := &t.flows[flow].row
	if row.lost > 0 && t.plan.Interval > 0 {
		t.outages.add(Outage{Flow: flow, Start: row.start, Length: now - row.start, Lost: row.lost})
	}
	row.lost = 0
}

// Report answers what was measured so far, or in all. The answer is the caller's own.
func (t *Tally) Report() Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.sum
	r.Outstanding = r.Sent - r.Received - r.Lost - r.Corrupted - r.Late
	if t.running {
		r.Elapsed = time.Since(t.began)
	}
	if t.plan.Protocol == UDP {
		t.reportSeen(&r)
	}
	r.RTT, r.ApplicationRTT = t.rtt.distribution(), t.application.distribution()
	if r.RTT == nil {
		r.RTT = t.application.distribution() // all of it was paused
	}
	r.Connect = t.connect.distribution()
	r.Timestamps = t.timestamps(r)
	if t.plan.PathMTU == nil {
		t.reportPath(&r)
	}
	r.Flows, r.Sizes = t.flowReports(), t.sizeReports()
	for _, e := range t.errors {
		r.Errors = append(r.Errors, e)
	}
	slices.SortFunc(r.Errors, func(a, b ErrorCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason))
	})
	return r
}

// reportPath tells what rounds say of the path that all leave by the schedule.
func (t *Tally) reportPath(r *Report) {
	r.IPDV = t.ipdv.distribution()
	if t.plan.Interval > 0 {
		r.Schedule = &Schedule{Error: t.schedule.distribution(), Late: t.late, Moved: t.moved, Omitted: t.omitted}
	}
	r.Jitter, r.Loss, r.Throughput = t.jitter(), t.loss(*r), t.throughput(*r)
	r.Outages, r.MoreOutages = t.allOutages()
}

func (t *Tally) reportSeen(r *Report) {
	seen := t.seen
	r.Ignored = &seen.ignored
	if t.plan.numbered() {
		r.Duplicated, r.Reordered = &seen.duplicated, &seen.reordered
	}
	if t.seesSenders {
		r.WrongAddress, r.DroppedHere = &seen.wrongAddress, &seen.dropped
	}
}

// timestamps tells of the clock that most times are from.
func (t *Tally) timestamps(r Report) Timestamps {
	if r.Received == 0 {
		return Timestamps{}
	}
	x := Timestamps{Clock: UserClock, Paused: t.paused, LongestPause: t.longestPause}
	for clock := UserClock; clock <= HardwareClock; clock++ {
		if t.clocks[clock] > t.clocks[x.Clock] {
			x.Clock = clock
		}
	}
	x.Missing = r.Received - t.clocks[x.Clock]
	x.Resolution = resolution(x.Clock)
	if r.RTT == nil {
		return x
	}
	switch x.Clock {
	case UserClock:
		// What a wake-up costs is in each time, and nothing measures it but how late the rounds themselves woke us.
		if d := t.schedule.distribution(); d != nil {
			x.Uncertainty = x.Resolution + d.P99
		}
	default:
		x.Uncertainty = stampError + time.Duration(math.Ceil(float64(r.RTT.P99)*maxClockError))
	}
	return x
}

// stampError is what lies between the wire and where the kernel or the card takes the times of a packet, both ways, as far
// as it can be said without knowing them.
const stampError = time.Microsecond

// maxClockError is how much faster or slower than it should the wall clock may run while it is being set right, in parts
// (adjtimex(2): 500 ppm).
const maxClockError = 500e-6

// jitter is the mean over the flows that have one.
func (t *Tally) jitter() *time.Duration {
	sum, n := 0.0, 0
	for i := range t.flows {
		if j := &t.flows[i].jitter; j.n > 1 {
			sum += j.value
			n++
		}
	}
	if n == 0 {
		return nil
	}
	mean := time.Duration(math.Round(sum / float64(n)))
	return &mean
}

func (t *Tally) loss(r Report) *Loss {
	ended := r.Sent - r.Outstanding
	if ended == 0 {
		return nil
	}
	missing := r.Lost + r.Late
	return &Loss{
		Ratio: float64(missing) / float64(ended), UpperBound: upperBound(missing, ended),
		Bursts: t.bursts, LongestBurst: t.longestBurst,
	}
}

func (t *Tally) throughput(r Report) *Throughput {
	end := t.lastEnd
	if r.Outstanding > 0 {
		end = r.Elapsed - t.sum.Start.Sub(t.began)
	}
	took := (end - t.firstLeft).Seconds()
	if r.Received == 0 || took <= 0 {
		return nil
	}
	return &Throughput{Sent: float64(t.sentBytes) * 8 / took, Received: float64(t.receivedBytes) * 8 / took}
}

// allOutages adds those that go on to those that are over.
func (t *Tally) allOutages() ([]Outage, uint32) {
	if t.plan.Interval == 0 {
		return nil, 0
	}
	all := outages{longest: slices.Clone(t.outages.longest), more: t.outages.more}
	for i := range t.flows {
		if row := t.flows[i].row; row.lost > 0 {
			all.add(Outage{Flow: i, Start: row.start, Length: row.givenUp - row.start, Lost: row.lost, Open: true})
		}
	}
	slices.SortFunc(all.longest, func(a, b Outage) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.Flow, b.Flow))
	})
	return all.longest, all.more
}

func (t *Tally) flowReports() []FlowReport {
	if len(t.flows) == 1 {
		return nil
	}
	out := make([]FlowReport, len(t.flows))
	for i := range t.flows {
		f := &t.flows[i]
		out[i] = FlowReport{Source: f.source, Sent: f.sent, Received: f.received, Lost: f.lost, Corrupted: f.corrupted, Late: f.late,
			RTT: f.rtt.distribution()}
	}
	markOutliers(out, func(flow int, than time.Duration) uint32 { return t.flows[flow].rtt.longerThan(than) })
	return out
}

func (t *Tally) sizeReports() []SizeReport {
	if len(t.sizes) == 0 {
		return nil
	}
	out := make([]SizeReport, len(t.sizes))
	for i := range t.sizes {
		s := &t.sizes[i]
		out[i] = SizeReport{
			PayloadBytes: t.plan.Sizes[i], Sent: s.sent, Received: s.received, Lost: s.lost, Corrupted: s.corrupted, Late: s.late,
			RTT: s.rtt.distribution(),
		}
	}
	return out
}

// resolution is the least difference that a clock can tell.
func resolution(c Clock) time.Duration {
	if c == UserClock {
		return clockStep()
	}
	return time.Nanosecond // what the kernel's stamps are counted in
}
