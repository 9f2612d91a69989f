package probe

import "time"

// Aggregate is what happened in one interval of a run, whatever number of rounds that was.
type Aggregate struct {
	// Until is when the interval ended, since the run's start; 0 before that.
	Until time.Duration
	// Sent counts the rounds begun in it. They need not be those that ended in it.
	Sent uint32
	// Received, Lost and Corrupted count the rounds that ended in it, by their outcome.
	Received, Lost, Corrupted uint32
	// Late counts the late replies in it, each of which takes back a Lost of this interval or of one before.
	Late uint32
	// Duplicated counts the replies that came again in it.
	Duplicated uint32
	// RTT is over the rounds received in it, but for those that Report.RTT leaves out. It is within 1 %, and has no
	// Buckets; nil when there is none.
	RTT *Distribution
}

// Empty says that nothing happened.
func (a Aggregate) Empty() bool {
	return a.Sent == 0 && a.Received == 0 && a.Lost == 0 && a.Corrupted == 0 && a.Late == 0 && a.Duplicated == 0
}

// Aggregator sums up the samples of one run, from one Aggregate taken to the next, in memory that does not grow with how
// many there are. It is made by NewAggregator, and not safe for concurrent use.
type Aggregator struct {
	sum  Aggregate // without Until, Sent and RTT
	rtt  times
	sent uint32 // by the last Aggregate that was taken
}

// NewAggregator answers an empty one.
func NewAggregator() *Aggregator { return &Aggregator{rtt: times{digits: within1Percent}} }

// Add counts a sample.
func (g *Aggregator) Add(s Sample) {
	switch s.Outcome {
	case Received:
		g.sum.Received++
		if !s.pausedRTT() {
			g.rtt.add(*s.RTT)
		}
	case Lost:
		g.sum.Lost++
	case Corrupted:
		g.sum.Corrupted++
	case Late:
		g.sum.Late++
	case Duplicated:
		g.sum.Duplicated++
	}
}

// Take answers what was added since it was called last, and the rounds that the run's tally has counted as begun since
// then.
func (g *Aggregator) Take(t *Tally) Aggregate {
	a := g.sum
	a.RTT = g.rtt.distribution()
	sent, elapsed := t.progress()
	a.Until, a.Sent = elapsed, sent-g.sent
	*g = Aggregator{rtt: times{digits: within1Percent}, sent: sent}
	return a
}

// pausedRTT says whether a pause of this process is in RTT, which then says nothing of the network.
func (s Sample) pausedRTT() bool {
	return s.Paused && s.ApplicationRTT != nil && *s.RTT == *s.ApplicationRTT
}

// progress answers how many rounds were begun, and the time since the run's start or from there to its end, without the
// work of a report. It is 0 while the name is looked up and connections are made: the run has not started.
func (t *Tally) progress() (sent uint32, elapsed time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	start := t.sum.Start
	switch {
	case start.IsZero() && t.running:
		return t.sum.Sent, 0
	case t.running:
		return t.sum.Sent, max(time.Since(start), 0)
	case start.IsZero(): // it never did
		start = t.began
	}
	return t.sum.Sent, t.began.Add(t.sum.Elapsed).Sub(start)
}
