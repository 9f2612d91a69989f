package registry

import (
	"container/heap"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
)

// How long what has Failed waits for its next retry: at first, then twice as long each time, up to the last. Of a port that is
// taken nobody tells when it is free, so that retries are all there is: its owner is not to wait for long. One costs some ten
// microseconds, so thousands may be retried that often. Of all else the network mostly tells.
const (
	healFirst     = time.Second
	healLast      = time.Minute
	healLastInUse = 5 * time.Second
)

// healWorkers bounds how many are retried at the same time. One takes lookPatience at most.
const healWorkers = 16

// healPause is how long a retry waits for somebody who is changing the endpoint, and what lies between two looks at the network.
const healPause = 100 * time.Millisecond

// heals is the queue of the endpoints that have Failed, the next to be retried first, and the goroutines that look after them.
// The fields are guarded by the registry's lock.
type heals struct {
	queue    leaseQueue
	patience func(failed int, why error) time.Duration // healPatience; tests have less, or more
	running  int
	claims   claims
	held     bool // by a Restore: nobody else is to bind what it is about to bind
	started  bool
	watched  bool
	wake     chan struct{} // has a token when the queue's first may have changed, or one may be retried more
	moved    chan struct{} // has a token when there may be something else to follow
	end      context.Context
	stop     context.CancelFunc
	wg       sync.WaitGroup
}

func newHeals() *heals {
	h := &heals{patience: healPatience, claims: claims{}, wake: make(chan struct{}, 1), moved: make(chan struct{}, 1)}
	h.end, h.stop = context.WithCancel(context.Background())
	return h
}

// failLocked notes that an entry does not serve, and when it is retried. It answers whether that is news, which the caller
// tells.
func (r *Registry) failLocked(e *entry, why error) (news bool) {
	if e.state != Failed || e.lost == nil || !errors.Is(why, e.lost) {
		news = e.state != Failed || e.reason != why.Error()
		e.state, e.reason, e.lost = Failed, why.Error(), nil
	}
	e.retry.refused++
	r.retryLocked(e, time.Now().Add(r.heals.patience(e.retry.refused, why)))
	if news {
		r.followLocked()
	}
	return news
}

// healPatience answers how long what has failed so often in a row waits for a retry: up to a fifth less than it might, so that
// those that failed together are not all retried together.
func healPatience(failed int, why error) time.Duration {
	last := healLast
	if errors.Is(why, echo.ErrAddressInUse) {
		last = healLastInUse
	}
	wait := min(healFirst<<min(failed-1, 16), last)
	return wait - rand.N(wait/5)
}

// retryLocked has an entry that has Failed retried, at a new time or for the first time. The first one starts the goroutine that
// waits for that.
func (r *Registry) retryLocked(e *entry, at time.Time) {
	if r.closing || e.gone {
		return
	}
	e.retry.entry, e.retry.at = e, at
	r.heals.claims.put(e)
	if e.retry.place > 0 {
		heap.Fix(&r.heals.queue, e.retry.place-1)
	} else {
		heap.Push(&r.heals.queue, &e.retry)
	}
	if !r.heals.started && !r.heals.held {
		r.heals.started = true
		r.heals.wg.Go(r.watchHeals)
	}
	nudge(r.heals.wake)
}

// beginHealsLocked has retried what a Restore could not bring back, and followed what it stands on.
func (r *Registry) beginHealsLocked() {
	r.heals.held = false
	for _, e := range r.entries {
		if e.state == Failed {
			r.retryLocked(e, e.retry.at)
			r.followLocked()
		} else if e.state == Serving && !footingOf(spec(e.def, e.address)).isPlain() {
			r.followLocked()
		}
	}
}

// calmLocked has an entry retried no more: it has not Failed any more.
func (r *Registry) calmLocked(e *entry) {
	if e.retry.place > 0 {
		heap.Remove(&r.heals.queue, e.retry.place-1)
	}
	r.heals.claims.drop(e)
	e.retry.refused, e.lost = 0, nil
}

// soonLocked has an entry retried at once, and patiently from anew, if it has Failed: its definition is another one.
func (r *Registry) soonLocked(e *entry) {
	if e.state == Failed {
		e.retry.refused, e.lost = 0, nil
		r.retryLocked(e, time.Now())
	}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// watchHeals retries what has Failed, as its time comes, until the registry is closed.
func (r *Registry) watchHeals() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for r.heals.end.Err() == nil {
		timer.Reset(r.healDue())
		select {
		case <-timer.C:
		case <-r.heals.wake:
		case <-r.heals.end.Done():
		}
	}
}

// healDue begins to retry what is due, and answers how long it is until there is more. Who ends makes room for the next.
func (r *Registry) healDue() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.heals.queue) > 0 && r.heals.running < healWorkers {
		l := r.heals.queue[0]
		if wait := time.Until(l.at); wait > 0 {
			return wait
		}
		heap.Pop(&r.heals.queue)
		r.heals.running++
		e := l.entry
		r.heals.wg.Go(func() {
			r.heal(e)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.heals.running--
			nudge(r.heals.wake)
		})
	}
	return aLongTime
}

// heal retries an entry, unless somebody is changing it: then later.
func (r *Registry) heal(e *entry) {
	select {
	case e.turn <- struct{}{}:
	default:
		r.mu.Lock()
		defer r.mu.Unlock()
		if e.state == Failed {
			r.retryLocked(e, time.Now().Add(healPause))
		}
		return
	}
	defer e.release()
	if r.isDue(e) {
		r.restart(r.heals.end, e)
	}
}

// isDue says whether an entry is to be retried.
func (r *Registry) isDue(e *entry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.closing && !e.gone && e.state == Failed
}

// restart binds an entry that has Failed where it was, or notes why it cannot. The caller has the turn.
func (r *Registry) restart(ctx context.Context, e *entry) {
	if err := r.start(ctx, e); err != nil {
		r.stillFailed(e, err)
		return
	}
	r.log.Info("an endpoint serves again", "endpoint", e.def.Name, "address", e.address)
}

// stillFailed notes that an entry which has Failed could not be started. The caller has the turn.
func (r *Registry) stillFailed(e *entry, why error) {
	if r.noteStillFailed(e, why) {
		r.logFailure(e.def.Name, why)
	}
}

// noteStillFailed answers whether that is news.
func (r *Registry) noteStillFailed(e *entry, why error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case e.state != Failed || errors.Is(why, ErrClosing) || errors.Is(why, context.Canceled) || errors.Is(why, context.DeadlineExceeded):
		// It is stopped, or who asked for it has left, which says nothing of the endpoint.
	case r.failLocked(e, why):
		r.tellLocked(event.StateChanged, e)
		return true
	default:
		r.renewedLocked(e) // of the time of its next retry no event tells
	}
	return false
}

// logFailure writes into the log that an endpoint does not serve. As for all that is written there, the caller must not hold the
// lock: who reads the log may be slow, and nobody who only asks is to wait for that.
func (r *Registry) logFailure(name string, why error) {
	r.log.Error("an endpoint does not serve; it is tried again", "endpoint", name, "error", why)
}

// closeHeals ends the goroutines of retries and waits for them, and for a retry that is under way.
func (r *Registry) closeHeals() {
	r.heals.stop()
	r.heals.wg.Wait()
	r.looks.wait()
}
