package probe

import (
	"math"
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
	left     uint32        // rounds that have left
	due      time.Duration // when the next one leaves
}

// done says whether no round leaves any more.
func (p *pacer) done(now time.Duration) bool {
	if p.left == math.MaxUint32 || p.count > 0 && p.left >= p.count {
		return true
	}
	return p.duration > 0 && p.at(now) >= p.duration
}

// at is when the next round leaves if nothing holds it up. Without an interval that is now.
func (p *pacer) at(now time.Duration) time.Duration {
	if p.interval == 0 || now > p.due+maxBehind {
		return now
	}
	return p.due
}

// leave takes the next round, which leaves now, and answers its number.
func (p *pacer) leave(now time.Duration) uint32 {
	p.due = p.at(now) + p.interval
	p.left++
	return p.left
}
