package probe

import "time"

const (
	// pauseLeast is what counts as a pause of this process: more than it takes to wake up on a machine that has time.
	pauseLeast = time.Millisecond
	// pauseWatch is how often a run with rounds on their way looks at the clock, to know its own pauses, where no time of
	// the kernel's tells them.
	pauseWatch = 2 * time.Millisecond
	// maxPauses is how many are remembered.
	maxPauses = 256
)

// pauses are the last times in which this process should have run and did not: somebody else had the processor, or the
// garbage collector. The zero value is none.
type pauses struct {
	last []pause // in order
}

// pause is from when the process should have run until it did.
type pause struct{ from, to time.Duration }

// woke notes that the process, which was to run at due, ran now.
func (p *pauses) woke(due, now time.Duration) {
	if now-due <= pauseLeast {
		return
	}
	if len(p.last) == maxPauses {
		p.last = append(p.last[:0], p.last[1:]...)
	}
	p.last = append(p.last, pause{due, now})
}

// within is how much of a time was pauses.
func (p *pauses) within(from, to time.Duration) (sum time.Duration) {
	for i := len(p.last) - 1; i >= 0 && p.last[i].to > from; i-- {
		sum += max(min(p.last[i].to, to)-max(p.last[i].from, from), 0)
	}
	return sum
}
