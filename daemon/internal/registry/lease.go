package registry

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/echod/echod/daemon/internal/event"
)

// afterStart is how long what has a lease lives at least after a start of the daemon, so that its owner can renew it.
const afterStart = 5 * time.Second

// What the store refuses to delete is tried again: after the first time, then after twice as long, and so on up to the last.
const (
	refusedFirst = time.Second
	refusedLast  = time.Minute
)

// lease is when the registry is to look at something that may be over. Its times have a monotonic reading, so that a step of
// the wall clock moves none.
type lease struct {
	at      time.Time
	place   int // in the queue, from 1; 0: not in it
	refused int // how often in a row the store has refused to delete it
	entry   *entry
	session *session // this or entry
}

// patience answers how long a lease waits after the store has refused so often.
func (l *lease) patience() time.Duration { return min(refusedFirst<<min(l.refused-1, 16), refusedLast) }

// leases is the queue of what may end by itself, the earliest first, and the goroutines that look after it. The fields are
// guarded by the registry's lock.
type leases struct {
	queue   leaseQueue
	started bool
	refused bool          // the store refuses deletions, which is in the log
	wake    chan struct{} // has a token when the queue's first may have changed
	end     context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup
}

func newLeases() *leases {
	l := &leases{wake: make(chan struct{}, 1)}
	l.end, l.stop = context.WithCancel(context.Background())
	return l
}

// scheduleLocked has a lease looked at, from its place in the queue or anew. The first one starts the goroutine that looks.
func (r *Registry) scheduleLocked(l *lease, at time.Time) {
	if r.closing {
		return
	}
	l.at = at
	if l.place > 0 {
		heap.Fix(&r.leases.queue, l.place-1)
	} else {
		heap.Push(&r.leases.queue, l)
	}
	if !r.leases.started {
		r.leases.started = true
		r.leases.wg.Go(r.watchLeases)
	}
	select {
	case r.leases.wake <- struct{}{}:
	default:
	}
}

func (r *Registry) unscheduleLocked(l *lease) {
	if l.place > 0 {
		heap.Remove(&r.leases.queue, l.place-1)
	}
}

// leaseLocked sets when an entry expires; the zero time is never.
func (r *Registry) leaseLocked(e *entry, expires time.Time) {
	e.expires, e.lease.refused = expires, 0
	if expires.IsZero() {
		r.unscheduleLocked(&e.lease)
	} else if !e.gone {
		e.lease.entry = e
		r.scheduleLocked(&e.lease, expires)
	}
}

// expiry answers when an endpoint with this definition expires whose time begins now.
func (d Definition) expiry(now time.Time) time.Time {
	if d.TTL == 0 {
		return time.Time{}
	}
	return now.Add(d.TTL)
}

// expiry is that of a definition which the entry has, or gets: a renewal soon after a start takes nothing from anybody.
func (e *entry) expiry(def Definition, now time.Time) time.Time {
	expires := def.expiry(now)
	if !expires.IsZero() && expires.Before(e.atLeast) {
		return e.atLeast
	}
	return expires
}

// overLocked says whether an entry's time is over, or its session's.
func (e *entry) overLocked(now time.Time) bool {
	return !e.expires.IsZero() && !e.expires.After(now) || e.session != nil && e.session.ending
}

// watchLeases ends what is over, as its time comes, until the registry is closed. It waits for nothing else, so that what is
// slow to end holds up no other.
func (r *Registry) watchLeases() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for r.leases.end.Err() == nil {
		timer.Reset(r.endDue())
		select {
		case <-timer.C:
		case <-r.leases.wake:
		case <-r.leases.end.Done():
		}
	}
}

// aLongTime is what is waited when nothing is scheduled.
const aLongTime = 24 * time.Hour

// endDue begins to end what is over, and answers how long it is until there is more.
func (r *Registry) endDue() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.frozen {
		return aLongTime // the thaw wakes us
	}
	var due []*entry
	defer func() {
		if len(due) > 0 {
			r.leases.wg.Go(func() { r.expire(due) })
		}
	}()
	for len(r.leases.queue) > 0 {
		l := r.leases.queue[0]
		if wait := time.Until(l.at); wait > 0 {
			return wait
		}
		heap.Pop(&r.leases.queue)
		if l.session != nil {
			r.leases.wg.Go(func() { r.endSession(l.session) })
		} else {
			due = append(due, l.entry)
		}
	}
	return aLongTime
}

// expire deletes those of the entries that are over, and returns when it has; those that the store does not let go are
// scheduled anew. Who is free is deleted as one change. Whoever is being changed has its turn first; a drain is cut.
func (r *Registry) expire(entries []*entry) {
	var free []*entry
	var busy sync.WaitGroup
	for _, e := range entries {
		select {
		case e.turn <- struct{}{}:
			free = append(free, e)
		default:
			busy.Go(func() {
				r.cutDrain(e)
				select {
				case e.turn <- struct{}{}:
					r.expireTaken([]*entry{e})
				case <-r.leases.end.Done():
				}
			})
		}
	}
	if len(free) > 0 {
		r.expireTaken(free)
	}
	busy.Wait()
}

// expireTaken is expire of entries whose turns the caller has taken. It releases them.
func (r *Registry) expireTaken(taken []*entry) {
	defer func() {
		for _, e := range taken {
			e.release()
		}
	}()
	over := r.overOf(taken)
	if len(over) == 0 {
		return
	}
	names := make([]string, 0, len(over))
	for _, e := range over {
		names = append(names, e.def.Name)
	}
	if err := r.write(nil, names); err != nil {
		r.postpone(err, over)
		return
	}
	for _, e := range over {
		r.retire(e, 0)
		r.forgetAs(e, event.Expired)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leases.refused = false
}

// overOf answers those of the entries whose time is over. Since one was found, it may have been deleted or renewed; from now on
// it cannot be, as the caller has its turn.
func (r *Registry) overOf(taken []*entry) (over []*entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range taken {
		if !r.closing && !e.gone && e.overLocked(time.Now()) {
			over = append(over, e)
		}
	}
	return over
}

// cutDrain ends the drain of an entry, if one is under way.
func (r *Registry) cutDrain(e *entry) {
	if now := r.copyOf(e); now.state == Draining && now.live != nil {
		_ = now.live.Close(ended()) // what it answers is told to the call that started the drain
	}
}

// postpone has entries looked at later that the store did not let go.
func (r *Registry) postpone(err error, entries []*entry) {
	if r.refused() {
		r.log.Error("cannot delete endpoints that have expired; they stay and are tried again", "first", entries[0].def.Name,
			"endpoints", len(entries), "error", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		e.lease.refused++
		e.lease.entry = e
		r.scheduleLocked(&e.lease, time.Now().Add(e.lease.patience()))
	}
}

// refused notes that the store does not let go what is over, and answers whether that is news: once until it does so again.
func (r *Registry) refused() (news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	news = !r.leases.refused
	r.leases.refused = true
	return news
}

// beginLeasesLocked gives what was restored its time: what is left of it, but afterStart at least. A wall clock that was set back
// while the daemon was down gives nobody more than a whole ttl.
func (r *Registry) beginLeasesLocked() {
	now := time.Now()
	for _, e := range r.entries {
		if e.def.TTL > 0 {
			r.beginLeaseLocked(e, e.expires.Sub(now), now) // e.expires is from the store: by the wall clock
		}
	}
	for _, s := range r.sessions {
		r.scheduleLocked(&s.lease, now.Add(max(s.Grace, afterStart)))
	}
}

// beginLeaseLocked gives an entry what is left of its ttl.
func (r *Registry) beginLeaseLocked(e *entry, left time.Duration, now time.Time) {
	e.atLeast = now.Add(afterStart)
	r.leaseLocked(e, now.Add(max(min(left, e.def.TTL), afterStart)))
}

// closeLeases ends the goroutines of leases and waits for them. What was over by then and is still there is so after the
// next start.
func (r *Registry) closeLeases() {
	r.leases.stop()
	r.leases.wg.Wait()
}

// Renew has an endpoint expire its ttl from now, and what a start brought back no sooner than afterStart behind that; ttl, where it
// is not 0, becomes its ttl first, which is an update. Without one it is none: neither the etag nor the update time changes, and no
// event tells of it, since owners may renew each second. It is kept when it returns. The error is ErrNotFound, ErrDraining,
// ErrNoTTL or ErrNotStored.
func (r *Registry) Renew(ctx context.Context, name string, ttl time.Duration) (Endpoint, error) {
	e, err := r.takeUndrained(ctx, name)
	if err != nil {
		return Endpoint{}, err
	}
	defer e.release()
	if ttl == 0 && e.def.TTL == 0 {
		return Endpoint{}, fmt.Errorf("%w: %q lives until it is deleted; say for how long it shall", ErrNoTTL, name)
	}
	if err := r.renewTaken([]*entry{e}, ttl); err != nil {
		return Endpoint{}, err
	}
	return r.Get(name)
}

// takeUndrained waits for the turn on an endpoint, unless that is taken until a drain is over.
func (r *Registry) takeUndrained(ctx context.Context, name string) (*entry, error) {
	for {
		if drains := r.drainError(name); drains != nil {
			return nil, drains
		}
		soon, cancel := context.WithTimeoutCause(ctx, turnPatience, errSlow)
		e, err := r.take(soon, name)
		cancel()
		if !errors.Is(err, errSlow) {
			return e, err
		}
	}
}

// drainError says that an endpoint drains, if it does. It may do so for an hour, and then it is stopped, or gone.
func (r *Registry) drainError(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entries[name]; e != nil && e.state == Draining {
		return fmt.Errorf("%w: %q drains, for a stop or a delete; renew it when it is STOPPED, or stop it again without a drain", ErrDraining, name)
	}
	return nil
}

// RenewAll renews every endpoint with a ttl that match is true for, as Renew does, and answers their names in order; a nil
// match takes all. Those that nobody is changing are renewed as one change. One that drains or is deleted meanwhile is none. The error
// is ErrNotStored; what was renewed before it stays so.
func (r *Registry) RenewAll(ctx context.Context, match func(*Endpoint) bool, ttl time.Duration) ([]string, error) {
	found := r.behind("", math.MaxInt, false)
	found = slices.DeleteFunc(found, func(s sight) bool { return s.TTL == 0 || match != nil && !match(&s.Endpoint) })
	free, busy := r.takeFree(found)
	names, err := r.renewLeased(free, ttl)
	if err != nil {
		return names, err
	}
	// Each waits by itself: who waits for turns while it has others may wait for ever, and one that drains holds up no other.
	var waiting sync.WaitGroup
	var mu sync.Mutex
	for _, e := range busy {
		waiting.Go(func() {
			more, one := r.renewBusy(ctx, e, ttl)
			mu.Lock()
			defer mu.Unlock()
			names = append(names, more...)
			if err == nil {
				err = one
			}
		})
	}
	waiting.Wait()
	slices.Sort(names)
	return names, err
}

// takeFree takes the turns on what was seen that nobody else has, and answers what is still there.
func (r *Registry) takeFree(seen []sight) (free, busy []*entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range seen {
		e := r.entries[s.Name]
		if e == nil || e.uid != s.UID {
			continue
		}
		select {
		case e.turn <- struct{}{}:
			free = append(free, e)
		default:
			busy = append(busy, e)
		}
	}
	return free, busy
}

// renewBusy is renewLeased of an entry whose turn has to be waited for.
func (r *Registry) renewBusy(ctx context.Context, e *entry, ttl time.Duration) ([]string, error) {
	name := r.copyOf(e).def.Name
	switch taken, err := r.takeUndrained(ctx, name); {
	case errors.Is(err, ErrDraining), errors.Is(err, ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case taken != e: // another has its name now
		taken.release()
		return nil, nil
	default:
		return r.renewLeased([]*entry{e}, ttl)
	}
}

// renewLeased renews those of the entries that are still there and have a ttl, and answers their names. The caller has taken
// their turns, which are released.
func (r *Registry) renewLeased(taken []*entry, ttl time.Duration) (names []string, err error) {
	var leased []*entry
	for _, e := range taken {
		defer e.release()
		if !e.gone && e.def.TTL > 0 {
			leased, names = append(leased, e), append(names, e.def.Name)
		}
	}
	if err := r.renewTaken(leased, ttl); err != nil {
		return nil, err
	}
	return names, nil
}

// renewTaken renews entries whose turns the caller has, as one change.
func (r *Registry) renewTaken(entries []*entry, ttl time.Duration) error {
	if len(entries) == 0 {
		return nil
	}
	now := time.Now()
	records := make([]record, 0, len(entries))
	for _, e := range entries {
		rec := e.record(e.address, r.running(e))
		if ttl != 0 && ttl != e.def.TTL {
			rec.TTL, rec.UpdateTime = ttl, now
		}
		rec.ExpireTime = e.expiry(rec.Definition, now)
		records = append(records, rec)
	}
	if err := r.write(records, nil); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, e := range entries {
		changed := e.def.TTL != records[i].TTL
		r.leaseLocked(e, records[i].ExpireTime)
		if changed {
			e.define(records[i].Definition)
			e.updated = now
			r.tellLocked(event.Updated, e)
		} else {
			r.renewedLocked(e)
		}
	}
	return nil
}

// renewedLocked has watches that begin later told of the new time of an entry; others are not.
func (r *Registry) renewedLocked(e *entry) { r.events.Found(r.eventLocked(event.Existing, e)) }

// leaseQueue is ordered by time; container/heap keeps it so.
type leaseQueue []*lease

func (q leaseQueue) Len() int           { return len(q) }
func (q leaseQueue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q leaseQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i+1, j+1
}

// Push implements heap.Interface.
func (q *leaseQueue) Push(x any) {
	l, _ := x.(*lease)
	*q = append(*q, l)
	l.place = len(*q)
}

// Pop implements heap.Interface.
func (q *leaseQueue) Pop() any {
	last := len(*q) - 1
	l := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	l.place = 0
	return l
}
