package store

import (
	"fmt"
	"time"
)

// Reopen opens the directory of a store again whose Close has returned, whatever it returned: with the state that the store has,
// which is what was acknowledged, and not with what lies there by now. It waits for no disk: what is asked for until the disk has
// taken the state waits, for Patience at most. As long as the disk does not take it, changes are refused, which Health tells, and
// which heals by itself.
func (s *Store) Reopen() *Store {
	next := newStore(s.dir, s.o)
	next.report, next.image, next.wait = s.report, s.image, s.o.retry
	if s.image == nil {
		next.ended.Go(func() { next.lock, _ = lock(s.dir) }) // for politeness: nothing is written
		return next
	}
	select {
	case <-s.idle:
		next.busy = time.Now()
	default: // in the disk, which does not answer
		next.broken = fmt.Errorf("%w: the disk has not answered yet", ErrNotWritable)
	}
	next.ended.Go(func() {
		<-s.idle
		next.lock, next.aside = s.lock, s.aside
		next.image.head.Running = true
		next.heal()
		next.begin()
	})
	return next
}
