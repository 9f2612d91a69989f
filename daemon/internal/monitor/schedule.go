package monitor

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/probe"
	"github.com/echod/echod/daemon/verdict"
)

// schedule begins runs when they are due, until the manager is closed.
func (m *Manager) schedule() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	look := m.now() // when the timer is to end
	for {
		m.mu.Lock()
		closed, moved := m.closed, 0
		stall := m.now() - look
		if stall > stallLeast && !closed {
			moved = m.spreadLocked()
		}
		wait := m.beginDueLocked()
		look = m.now() + wait
		m.mu.Unlock()
		if moved > 0 {
			m.Log.Warn("the daemon stood still; the runs that it missed are spread", "for", stall.Round(time.Millisecond), "monitors", moved)
		}
		if closed {
			return
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-m.wake:
		}
	}
}

// aLongTime is what the scheduler waits when nothing is due.
const aLongTime = 24 * time.Hour

// spreadLocked moves what a stall has made overdue, so that it does not begin all at once: to the next turn, or, where that
// is far away, to a moment of its own within firstWithin. It answers how many it moved.
func (m *Manager) spreadLocked() (moved int) {
	now := m.now()
	var overdue []*entry
	for _, e := range m.due {
		if e.due <= now && e.run == nil && !e.def.Paused {
			overdue = append(overdue, e)
		}
	}
	for _, e := range overdue {
		e.pass(now)
		m.unwaitLocked(e)
		if e.next-now > firstWithin {
			m.enqueueLocked(e, now+time.Duration(e.spread%uint64(firstWithin)))
			continue
		}
		e.forgo()
		m.enqueueLocked(e, e.next)
	}
	return len(overdue)
}

// beginDueLocked begins what is due, and answers how long it is until there is more to do.
func (m *Manager) beginDueLocked() time.Duration {
	if m.closed {
		return 0
	}
	if m.frozen {
		return aLongTime // the thaw wakes us
	}
	for len(m.due) > 0 {
		e, now := m.due[0], m.now()
		switch {
		case e.due > now:
			return e.due - now
		case e.underWay():
			e.pass(now)
			if !e.run.turn {
				e.forgo()
			}
			m.enqueueLocked(e, e.next)
		case m.running == maxRunning:
			return stallLeast // the end of a run wakes us; a stall is to be seen all the same
		default:
			m.beginLocked(e, now)
		}
	}
	return aLongTime
}

// beginLocked begins a run that is due. Only the scheduler calls it, so that the wait group is never empty when it grows.
func (m *Manager) beginLocked(e *entry, now time.Duration) {
	if e.run == nil {
		e.run = &flight{done: make(chan struct{})}
	}
	e.pass(now)
	planned := e.due
	if e.owes {
		planned = e.came
	}
	e.run.turn, e.run.late = e.owes, now-planned > lateLeast
	if e.def.Paused {
		heap.Remove(&m.due, e.place-1)
	} else {
		m.enqueueLocked(e, e.next)
	}
	m.unwaitLocked(e)
	e.tried = m.ended
	ctx, cancel := context.WithCancel(context.Background())
	f, def, expect, noExpect := e.run, e.def, e.expect, e.noExpect
	f.cancel = cancel
	m.running++
	m.wg.Go(func() {
		defer cancel()
		r, err := m.fire(ctx, def, expect, noExpect)
		m.finish(e, f, r, err)
	})
}

// fire makes one run. Its error is ErrBusy when there was none.
func (m *Manager) fire(ctx context.Context, def Definition, expect *verdict.Expectations, noExpect error) (Run, error) {
	r := Run{Start: time.Now()}
	target, plan, err := m.Prepare(def.Probe)
	r.Target = target
	if err = errors.Join(err, noExpect); err == nil {
		r.Report, err = m.Prober.Run(ctx, plan, nil)
	}
	r.End = time.Now()
	if errors.Is(err, ErrBusy) {
		return Run{}, err
	}
	if err != nil {
		r.Failure, r.Report = err.Error(), probe.Report{}
	} else {
		r.judge(expect)
	}
	return r, nil
}

// judge says whether the report is as expected.
func (r *Run) judge(expect *verdict.Expectations) {
	r.Met = r.Report.Received > 0
	if expect != nil {
		r.Expected, r.Verdicts = true, expect.Judge(r.Report)
		r.Met = verdict.Met(r.Verdicts)
	}
}

// finish notes how a run ended.
func (m *Manager) finish(e *entry, f *flight, r Run, err error) {
	m.mu.Lock()
	m.running--
	if f.void != nil {
		err = f.void
	}
	before := e.verdict
	f.ended, f.err = r, err
	e.run = nil
	switch {
	case err == nil:
		e.note(r)
		e.owes = e.owes && !f.turn
		if f.late {
			e.counters.Late++
		}
	case f.turn && f.void == nil:
		m.waitLocked(e)
	case f.turn:
		e.forgo()
	default:
		e.counters.Skipped++ // it was asked for, and whoever asked is told
	}
	if f.void != nil || err == nil {
		m.ended++
	}
	if err == nil && m.entries[e.def.Name] == e {
		m.tellLocked(event.RunEnded, e)
		if e.verdict != before {
			m.tellLocked(event.StateChanged, e)
		}
	}
	m.tryWaitingLocked()
	skips, again := e.logLocked(err)
	name, after := e.def.Name, e.verdict
	m.mu.Unlock()
	close(f.done)
	m.wakeUp()
	switch {
	case skips:
		m.Log.Warn("a monitor's runs are skipped: the daemon has too much to do", "monitor", name)
	case again:
		m.Log.Info("a monitor runs at each of its turns again", "monitor", name)
	}
	if after != before && (before != Unknown || after != Met) {
		m.Log.Info("a monitor's verdict has changed", "monitor", name, "met", after == Met, "failure", r.Failure)
	}
}

// logLocked says what belongs into the log at the end of a run: that turns are skipped, or, after againAfter runs in a row
// at their turns, that they are not any more. One that is skipped now and then fills no log.
func (e *entry) logLocked(err error) (skips, again bool) {
	if e.missed > 0 {
		e.kept = 0
	} else if err == nil {
		e.kept++
	}
	skips = e.missed > 0 && !e.told
	again = e.kept >= againAfter && e.told
	e.told = (e.told || skips) && !again
	if err == nil {
		e.missed = 0
	}
	return skips, again
}

// waitLocked has an entry whose run was refused wait for another try, until its next turn.
func (m *Manager) waitLocked(e *entry) {
	now := m.now()
	if e.refused++; e.refused == 1 {
		e.hungry = now
	}
	i, _ := slices.BinarySearchFunc(m.waiting, e, byHunger)
	m.waiting = slices.Insert(m.waiting, i, e)
	m.enqueueLocked(e, min(e.next, now+e.patience()))
}

// unwaitLocked takes an entry from those that wait, if it is one of them.
func (m *Manager) unwaitLocked(e *entry) {
	if i, ok := slices.BinarySearchFunc(m.waiting, e, byHunger); ok {
		m.waiting = slices.Delete(m.waiting, i, i+1)
	}
}

// byHunger orders those that wait: who has been without a run for the longest comes first, whatever its turns are.
func byHunger(a, b *entry) int {
	return cmp.Or(cmp.Compare(a.hungry, b.hungry), cmp.Compare(a.def.Name, b.def.Name))
}

// tryWaitingLocked has the first of those that wait tried now, unless it was since a run has ended. When that one is refused
// it is the turn of the next: one that wants more than is left, or another target, holds up nobody.
func (m *Manager) tryWaitingLocked() {
	for _, e := range m.waiting[:min(len(m.waiting), retryAhead)] {
		if e.tried != m.ended {
			e.tried = m.ended
			m.enqueueLocked(e, min(e.due, m.now()))
			return
		}
	}
}

// Run runs a monitor now, paused or not, and waits until it has ended; one that is under way is waited for instead. When
// ctx ends the run goes on. The error is ErrNotFound, ErrChanged, ErrBusy, ErrClosed or ctx's.
func (m *Manager) Run(ctx context.Context, name string) (Run, error) {
	f, err := m.ask(name)
	if err != nil {
		return Run{}, err
	}
	m.wakeUp()
	select {
	case <-f.done:
		return f.ended, f.err
	case <-ctx.Done():
		return Run{}, context.Cause(ctx)
	}
}

// ask has a monitor run now.
func (m *Manager) ask(name string) (*flight, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[name]
	switch {
	case m.closed:
		return nil, ErrClosed
	case e == nil:
		return nil, notFound(name)
	}
	if e.run == nil {
		e.run = &flight{done: make(chan struct{})}
		due := m.now()
		if e.queued() {
			due = min(e.due, due)
		}
		m.enqueueLocked(e, due)
	}
	return e.run, nil
}

// planLocked has an entry begin anew, as one that was just made; one that was asked for is due now.
func (m *Manager) planLocked(e *entry) {
	now := m.now()
	m.unwaitLocked(e)
	if !e.underWay() {
		e.forgo() // what is under way pays what it owes
	}
	switch {
	case e.def.Paused && !e.asked():
		if e.queued() {
			heap.Remove(&m.due, e.place-1)
		}
	case e.asked():
		e.next = e.first(now)
		m.enqueueLocked(e, now)
	default:
		e.next = e.first(now)
		m.enqueueLocked(e, e.next)
	}
}

func (m *Manager) enqueueLocked(e *entry, due time.Duration) {
	e.due, e.dueAt = due, time.Now().Add(due-m.now())
	if e.queued() {
		heap.Fix(&m.due, e.place-1)
		return
	}
	heap.Push(&m.due, e)
}

// interruptLocked ends a run that is under way, whose outcome does not count for that reason. It answers the run, or nil
// when there is none.
func (m *Manager) interruptLocked(e *entry, reason error) *flight {
	if !e.underWay() {
		return nil
	}
	e.run.void = reason
	e.run.cancel()
	return e.run
}

// dropRequestLocked ends a run that was asked for and has not begun.
func (m *Manager) dropRequestLocked(e *entry, reason error) {
	if e.asked() {
		e.run.err = reason
		close(e.run.done)
		e.run = nil
	}
}

// wakeUp has the scheduler look again.
func (m *Manager) wakeUp() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}
