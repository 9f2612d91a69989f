package probe

import (
	"math"
	"math/rand/v2"
	"time"
)

// maxBehind is how late a round may leave without moving the schedule of the rounds after it. It absorbs the jitter of
// timers and of a busy machine; making up for more would be a burst that nobody asked for.
const maxBehind = 100 * time.Millisecond

// pacer says when rounds leave. Times are since the run's start. It is pure: no clock, no goroutine.
type pacer struct {
	count    uint32        // 0: no bound
	duration time.Duration // 0: no bound
	interval time.Duration
	apart    time.Duration // the least time between two rounds without an interval
	poisson  *rand.Rand    // draws the times between rounds; nil: they are the interval
	left     uint32        // rounds that have left
	due      time.Duration // when the next one leaves; without an interval, at the earliest
}

func newPacer(p Plan) pacer {
	pacer := pacer{count: p.Count, duration: p.Duration, interval: p.Interval}
	pacer.bound(p.MaxRate)
	if p.PathMTU != nil {
		pacer.count = 0 // a search ends by itself
	}
	if p.Pacing == Poisson {
		pacer.poisson = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	return pacer
}

// bound has no more than so many rounds leave a second where there is no interval; 0: no bound.
func (p *pacer) bound(maxRate float64) {
	p.apart = leastApart(maxRate)
}

// leastApart is the time between two rounds that keep to a rate a second; 0: there is none.
func leastApart(maxRate float64) time.Duration {
	if maxRate == 0 {
		return 0
	}
	return time.Duration(math.Ceil(float64(time.Second) / maxRate))
}

// done says whether no round leaves any more.
func (p *pacer) done(now time.Duration) bool {
	if p.left == math.MaxUint32-1 || p.count > 0 && p.left >= p.count {
		return true
	}
	return p.duration > 0 && p.at(now) >= p.duration
}

// at is when the next round leaves if nothing holds it up. Without an interval that is now, or as soon as its bound allows.
func (p *pacer) at(now time.Duration) time.Duration {
	if p.interval == 0 {
		return max(now, p.due)
	}
	if now > p.due+maxBehind {
		return now
	}
	return p.due
}

// leave takes the next round, which leaves now, and answers its number, and how much later than its time it leaves.
func (p *pacer) leave(now time.Duration) (seq uint32, late time.Duration) {
	if p.interval > 0 {
		late = max(now-p.due, 0)
	}
	p.due = p.at(now) + p.gap()
	p.left++
	return p.left, late
}

// gap is the time between two rounds.
func (p *pacer) gap() time.Duration {
	if p.interval == 0 {
		return p.apart
	}
	if p.poisson == nil {
		return p.interval
	}
	return time.Duration(p.poisson.ExpFloat64() * float64(p.interval))
}
