package store

import "fmt"

// Reopen opens the directory of a store again whose Close has returned, whatever it returned: with the state that the store has,
// which is what was acknowledged, and not with what lies there by now. As long as the disk does not take that, changes are refused,
// which Health tells, and which heals by itself.
func (s *Store) Reopen() *Store {
	next := newStore(s.dir, s.o)
	next.report, next.image, next.wait = s.report, s.image, s.o.retry
	if s.image == nil {
		next.lock, _ = lock(s.dir) // for politeness: nothing is written
		return next
	}
	takeOver := func() {
		next.lock, next.aside = s.lock, s.aside
		next.image.head.Running = true
		_ = next.ready() // noted in Health
	}
	select {
	case <-s.idle:
		takeOver()
		next.begin()
	default: // in the disk, which does not answer
		next.broken = fmt.Errorf("%w: the disk has not answered yet", ErrNotWritable)
		next.ended.Go(func() {
			<-s.idle
			takeOver()
			next.begin()
		})
	}
	return next
}
