package monitor

import (
	"container/heap"
	"context"
	"errors"
	"time"

	"github.com/echod/echod/daemon/probe"
	"github.com/echod/echod/daemon/verdict"
)

// schedule begins runs when they are due, until the manager is closed.
func (m *Manager) schedule() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		m.mu.Lock()
		closed := m.closed
		wait := m.beginDueLocked()
		m.mu.Unlock()
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

// aLongTime is what the scheduler waits when nothing is due, or nothing can begin before it is woken.
const aLongTime = 24 * time.Hour

// beginDueLocked begins what is due, and answers how long it is until there is more to do.
func (m *Manager) beginDueLocked() time.Duration {
	if m.closed {
		return 0
	}
	for len(m.due) > 0 {
		e, now := m.due[0], m.now()
		switch {
		case e.due > now:
			return e.due - now
		case e.underWay():
			e.counters.Skipped += 1 + e.turns(now) - e.turns(e.due)
			m.enqueueLocked(e, e.after(now))
		case m.running == maxRunning:
			return aLongTime // the end of a run wakes us
		default:
			m.beginLocked(e, now)
		}
	}
	return aLongTime
}

// beginLocked begins a run that is due. Only the scheduler calls it, so that the wait group is never empty when it grows.
func (m *Manager) beginLocked(e *entry, now time.Duration) {
	if now-e.due > lateLeast {
		e.counters.Late++
	}
	e.counters.Skipped += e.turns(now) - e.turns(e.due)
	if e.def.Paused {
		heap.Remove(&m.due, e.place-1)
	} else {
		m.enqueueLocked(e, e.after(now))
	}
	if e.run == nil {
		e.run = &flight{done: make(chan struct{})}
	}
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
	if f.ended, f.err = r, err; err != nil {
		e.counters.Skipped++
	} else {
		e.note(r)
	}
	name, after := e.def.Name, e.verdict
	e.run = nil
	m.mu.Unlock()
	close(f.done)
	m.wakeUp()
	if err != nil && f.void == nil {
		m.Log.Warn("a monitor's run was skipped", "monitor", name, "error", err)
	}
	if after != before && (before != Unknown || after != Met) {
		m.Log.Info("a monitor's verdict has changed", "monitor", name, "met", after == Met, "failure", r.Failure)
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
		m.planLocked(e)
	}
	return e.run, nil
}

// planLocked decides when an entry is due next, as it stands now.
func (m *Manager) planLocked(e *entry) {
	now := m.now()
	switch {
	case e.asked() && e.queued():
		m.enqueueLocked(e, min(e.due, now))
	case e.asked():
		m.enqueueLocked(e, now)
	case !e.def.Paused:
		m.enqueueLocked(e, e.first(now))
	case e.queued():
		heap.Remove(&m.due, e.place-1)
	}
}

func (m *Manager) enqueueLocked(e *entry, due time.Duration) {
	e.due = due
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
