package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/netwatch"
)

// perform does what is planned, or nothing. The caller has the turns of all entries.
func (r *Registry) perform(ctx context.Context, steps []*step) error {
	now := time.Now()
	r.leave(steps)
	defer r.stay(steps)
	err := r.bindNew(ctx, steps)
	if err == nil {
		err = tune(steps)
	}
	if err == nil {
		err = r.keepAll(steps, now)
	}
	if err != nil {
		return r.undo(ctx, steps, err)
	}
	r.closeOld(steps, func(s *step) bool { return !s.closed })
	for _, s := range steps {
		if s.Action == ActionDelete {
			r.discardBack(s.Name)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range steps {
		r.commitLocked(s, now)
	}
	return nil
}

// bindNew binds the sockets that are wanted. Those whose address only our own old sockets hold come second, when these have
// been closed: nothing is cut before it is known that all others can be had.
func (r *Registry) bindNew(ctx context.Context, steps []*step) error {
	wanted := sockets(steps)
	if err := r.bindAll(ctx, wanted); err != nil {
		return err
	}
	old := oldSockets(steps)
	inTheWay := map[*step]bool{}
	var late []*binding
	bad := &Problems{}
	for _, b := range wanted {
		if b.err == nil {
			continue
		}
		blockers := old.blocking(b)
		if len(blockers) == 0 {
			if !b.optional {
				bad.add(b.index, socketField(b.err), b.err)
			}
			continue
		}
		for _, s := range blockers {
			inTheWay[s] = true
		}
		late = append(late, b)
	}
	if err := bad.orNil(); err != nil {
		return err
	}
	r.closeOld(steps, func(s *step) bool { return inTheWay[s] })
	if err := r.bindAll(ctx, late); err != nil {
		return err
	}
	for _, b := range late {
		if b.err != nil && !b.optional {
			bad.add(b.index, socketField(b.err), b.err)
		}
	}
	if err := bad.orNil(); err != nil {
		return err
	}
	for _, s := range steps {
		s.leaveFailed()
	}
	return nil
}

// leaveFailed has what has Failed, is as described and cannot be bound stay what it is.
func (s *step) leaveFailed() {
	if s.socket != nil && s.socket.live == nil {
		s.Failure, s.socket = s.socket.err, nil
		s.Action, s.Revive = ActionNone, false
	}
}

// sockets are those that some steps want.
func sockets(steps []*step) (all []*binding) {
	for _, s := range steps {
		if s.socket != nil {
			all = append(all, s.socket)
		}
	}
	return all
}

// goingSockets are the sockets that are to go, and where they are.
type goingSockets struct {
	all []*step
	at  map[port][]*step
}

func oldSockets(steps []*step) goingSockets {
	g := goingSockets{at: map[port][]*step{}}
	for _, s := range steps {
		if s.old != nil {
			p := port{s.entry.def.Protocol, s.old.Addr().Port(), s.entry.def.namespace()}
			g.all, g.at[p] = append(g.all, s), append(g.at[p], s)
		}
	}
	return g
}

// blocking answers which of them may be why a socket cannot be bound.
func (g goingSockets) blocking(b *binding) []*step {
	wanted, err := spotOf(b.spec)
	_, claimed := errors.AsType[*claimedError](b.err)
	switch {
	case err != nil || claimed:
		return nil
	case errors.Is(b.err, echo.ErrAddressInUse):
		where, _ := b.spec.Place.(namespace)
		return slices.DeleteFunc(slices.Clone(g.at[port{b.spec.Protocol, wanted.address.Port, where}]), func(s *step) bool {
			had, err := spotOf(spec(s.entry.def, s.old.Addr()))
			return err != nil || !had.inTheWayOf(wanted)
		})
	case errors.Is(b.err, echo.ErrTooManyFiles):
		return g.all
	default:
		return nil
	}
}

// closeOld cuts the old sockets of some steps.
func (r *Registry) closeOld(steps []*step, which func(*step) bool) {
	var some []*step
	for _, s := range steps {
		if s.old != nil && which(s) {
			some = append(some, s)
		}
	}
	each(len(some), func(i int) {
		r.end(ended(), some[i].old)
		some[i].closed = true
	})
}

// tune gives what goes on serving its new options.
func tune(steps []*step) error {
	bad := &Problems{}
	for i, s := range steps {
		if s.Action != ActionUpdate || s.socket != nil || s.entry.live == nil {
			continue
		}
		if err := s.entry.live.Update(spec(s.After, s.address)); err != nil {
			bad.add(i, "listen", err)
			continue
		}
		s.tuned = true
	}
	return bad.orNil()
}

// keepAll writes the records of all that changes.
func (r *Registry) keepAll(steps []*step, now time.Time) error {
	var puts []record
	var deletes []string
	for _, s := range steps {
		switch s.Action {
		case ActionNone:
			if s.After.TTL > 0 { // else it is left alone, its record too
				puts = append(puts, s.record(now, r.running(s.entry)))
			}
		case ActionDelete:
			deletes = append(deletes, s.Name)
		default:
			puts = append(puts, s.record(now, r.running(s.entry)))
		}
	}
	return r.write(puts, deletes)
}

// record is what the store is to keep of an endpoint that is there afterwards.
func (s *step) record(now time.Time, running bool) record {
	rec := s.entry.record(s.address, running)
	if s.redefines() {
		rec.Definition, rec.UpdateTime = s.After, now
	}
	if s.socket != nil {
		rec.Address, rec.Running = s.socket.live.Addr(), true
	}
	rec.ExpireTime = s.entry.expiry(s.After, now)
	return rec
}

// redefines says whether an endpoint has another definition afterwards. One that is created was made with its own.
func (s *step) redefines() bool { return s.entry.tag != s.After.etag() }

// becomeLocked makes an entry what the step makes of it.
func (r *Registry) becomeLocked(s *step, now time.Time) {
	e := s.entry
	if s.redefines() {
		e.define(s.After)
		e.updated = now
	}
	e.address = s.address
	if s.socket != nil {
		r.servesLocked(e, s.socket.live, s.socket.seen)
	}
}

// commitLocked lets everybody see what has been done. The caller holds the registry's lock.
func (r *Registry) commitLocked(s *step, now time.Time) {
	e := s.entry
	if s.old != nil {
		e.past, e.live = sum(e.past, s.old.Stats()), nil
	}
	switch s.Action {
	case ActionNone:
		if s.After.TTL > 0 {
			r.leaseLocked(e, e.expiry(s.After, now))
			r.renewedLocked(e)
		}
		if s.Failure != nil && r.failLocked(e, s.Failure) {
			r.tellLocked(event.StateChanged, e)
		}
	case ActionCreate:
		r.becomeLocked(s, now)
		e.expires = s.After.expiry(now)
		r.announceLocked(e)
	case ActionUpdate, ActionReplace:
		changed := s.redefines()
		r.becomeLocked(s, now)
		r.leaseLocked(e, e.expiry(s.After, now))
		if changed {
			r.tellLocked(event.Updated, e)
		}
		if s.Revive {
			r.tellLocked(event.StateChanged, e)
		}
	case ActionDelete:
		e.state, e.reason = Stopped, ""
		r.forgetLocked(e, event.Deleted)
	}
}

// undo takes back what perform has done until it failed, and answers why it did: with what could not be taken back.
func (r *Registry) undo(ctx context.Context, steps []*step, why error) error {
	var closed []*step
	for _, s := range steps {
		if s.closed {
			closed = append(closed, s)
		}
		if s.tuned {
			_ = s.entry.live.Update(spec(s.entry.def, s.entry.address)) // as it was; an error says that it has ended, and its state does, too
		}
	}
	r.unbind(sockets(steps))
	ctx = context.WithoutCancel(ctx) // a caller that has left does not keep its endpoints from coming back
	failed := make([]error, len(closed))
	each(len(closed), func(i int) { failed[i] = r.comeBack(ctx, closed[i]) })
	var lost []error
	for _, err := range failed {
		if err != nil {
			lost = append(lost, err)
		}
	}
	var problems *Problems
	switch {
	case len(lost) == 0:
		return why
	case errors.As(why, &problems):
		problems.Lost = lost
		return problems
	default:
		return fmt.Errorf("%w; and %w", why, errors.Join(lost...))
	}
}

// comeBack binds what had to make room for a change that failed. What was FAILED before is so again.
func (r *Registry) comeBack(ctx context.Context, s *step) error {
	e := s.entry
	var live *echo.Endpoint
	var seen netwatch.Sight
	err := s.old.Err()
	if err == nil {
		live, seen, err = r.bind(ctx, spec(e.def, e.address))
	}
	if !r.cameBack(s, live, seen, err) {
		return nil
	}
	r.log.Error("cannot bring back an endpoint", "endpoint", e.def.Name, "error", err)
	return fmt.Errorf("%q could not come back where it was and is FAILED: %w", e.def.Name, err)
}

// cameBack notes what came of comeBack, and answers whether an endpoint is lost by it.
func (r *Registry) cameBack(s *step, live *echo.Endpoint, seen netwatch.Sight, err error) (lost bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := s.entry
	e.past, e.live = sum(e.past, s.old.Stats()), nil
	if err == nil {
		r.servesLocked(e, live, seen)
		return false
	}
	r.failLocked(e, err)
	if s.Revive || s.Failure != nil {
		return false
	}
	r.tellLocked(event.StateChanged, e)
	return true
}
