package monitor

import (
	"container/heap"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/verdict"
)

// recordKind is what the store calls our records.
const recordKind = "monitor"

// record is what the store keeps of a monitor.
type record struct {
	Definition
	UID        string    `json:"uid"`
	CreateTime time.Time `json:"createTime"`
	UpdateTime time.Time `json:"updateTime"`
}

// UpdateOptions say how an update is to be done.
type UpdateOptions struct {
	ETag         string // if not empty, the etag that the monitor must have
	ValidateOnly bool   // change nothing, answer what would be
}

// Create keeps a new monitor, whose first run comes by itself. An empty name is filled in. With validateOnly nothing is
// kept, and the answer is what would be. The error is ErrExists, ErrTooMany, ErrBadExpect, ErrNotStored or ErrClosed.
func (m *Manager) Create(ctx context.Context, def Definition, validateOnly bool) (Monitor, error) {
	if err := m.take(ctx); err != nil {
		return Monitor{}, err
	}
	defer m.release()
	def.complete()
	if err := m.admitNew(&def); err != nil {
		return Monitor{}, err
	}
	e := newEntry(uuid.NewString(), time.Now())
	if err := e.define(def); err != nil {
		return Monitor{}, err
	}
	if e.noExpect != nil {
		return Monitor{}, e.noExpect
	}
	if !validateOnly {
		if err := m.keep(e.record()); err != nil {
			return Monitor{}, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if validateOnly {
		return m.wholeLocked(e), nil
	}
	m.addLocked(e)
	m.tellLocked(event.Created, e)
	m.wakeUp()
	return m.wholeLocked(e), nil
}

// admitNew says whether there is a place for a new definition, and gives it a name if it has none. The caller has the turn.
func (m *Manager) admitNew(def *Definition) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return ErrClosed
	case m.entries[def.Name] != nil:
		return fmt.Errorf("%w: %q; choose another, or change that one with an update", ErrExists, def.Name)
	case len(m.entries) >= maxMonitors:
		return fmt.Errorf("%w: there are %d already, the most there may be; delete one first", ErrTooMany, len(m.entries))
	}
	if err := m.roomLocked(def.HistoryLimit); err != nil {
		return err
	}
	for def.Name == "" {
		if name := "monitor-" + uuid.NewString()[:6]; m.entries[name] == nil {
			def.Name = name
		}
	}
	return nil
}

// roomLocked says whether histories may grow by so many runs.
func (m *Manager) roomLocked(more int) error {
	if more > 0 && m.history+more > maxHistory {
		return fmt.Errorf("%w: they keep up to %d runs, and with %d more it would be over %d; lower the history limit of some",
			ErrTooMany, m.history, more, maxHistory)
	}
	return nil
}

// Update changes the definition of a monitor to what change makes of the present one. When what is probed or expected
// changes, or the monitor is paused, a run that is under way has ended when this returns. The error is ErrNotFound,
// ErrStale, ErrTooMany, ErrBadExpect, ErrNotStored, or change's own.
func (m *Manager) Update(ctx context.Context, name string, opt UpdateOptions, change func(Definition) (Definition, error)) (Monitor, error) {
	if err := m.take(ctx); err != nil {
		return Monitor{}, err
	}
	defer m.release()
	// The turn is ours: nobody else writes the fields of a definition.
	e, err := m.find(name, opt.ETag)
	if err != nil {
		return Monitor{}, err
	}
	def, err := change(e.def.clone())
	if err != nil {
		return Monitor{}, err
	}
	def.Name = e.def.Name // the one thing that never changes
	def.complete()
	wanted := &entry{uid: e.uid, spread: e.spread, created: e.created, updated: time.Now(), verdict: e.verdict, since: e.since}
	if err := wanted.define(def); err != nil {
		return Monitor{}, err
	}
	same := wanted.tag == e.tag
	if wanted.noExpect != nil && !same {
		return Monitor{}, wanted.noExpect
	}
	m.mu.Lock()
	err = m.roomLocked(def.HistoryLimit - e.def.HistoryLimit)
	m.mu.Unlock()
	if err != nil {
		return Monitor{}, err
	}
	if !opt.ValidateOnly && !same {
		if err := m.keep(wanted.record()); err != nil {
			return Monitor{}, err
		}
		m.redefine(e, wanted)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.wholeLocked(e)
	if opt.ValidateOnly && !same {
		s.Definition, s.ETag = def.clone(), wanted.tag
	}
	return s, nil
}

// redefine puts a change into effect. What it ends has ended when it returns.
func (m *Manager) redefine(e, wanted *entry) {
	ended := m.replaceDefinition(e, wanted)
	m.wakeUp()
	if ended != nil {
		<-ended.done
	}
}

// replaceDefinition puts a change into effect, and answers the run that it ends, if any.
func (m *Manager) replaceDefinition(e, wanted *entry) (ended *flight) {
	m.mu.Lock()
	defer m.mu.Unlock()
	work := !e.def.sameWork(wanted.def)
	before, unjudged := e.def, work && e.verdict != Unknown
	if work || wanted.def.Paused && !e.def.Paused {
		ended = m.interruptLocked(e, fmt.Errorf("%w: %q", ErrChanged, e.def.Name))
	}
	if work {
		e.verdict, e.since = Unknown, time.Time{}
	}
	paused := wanted.def.Paused != e.def.Paused
	replan := paused || wanted.def.Interval != e.def.Interval
	m.history += wanted.def.HistoryLimit - e.def.HistoryLimit
	e.def, e.tag, e.expect, e.noExpect, e.updated = wanted.def, wanted.tag, wanted.expect, wanted.noExpect, wanted.updated
	e.trim()
	if replan && !m.closed {
		m.planLocked(e)
	}
	before.Paused = e.def.Paused // that is a change of the state
	if tag, err := before.etag(); err != nil || tag != e.tag {
		m.tellLocked(event.Updated, e)
	}
	if paused || unjudged {
		m.tellLocked(event.StateChanged, e)
	}
	return ended
}

// Delete forgets a monitor. A run that is under way has ended when it returns. The error is ErrNotFound, ErrStale or
// ErrNotStored.
func (m *Manager) Delete(ctx context.Context, name, etag string) error {
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.release()
	e, err := m.find(name, etag)
	if err != nil {
		return err
	}
	if m.Store != nil {
		if err := m.Store.Delete(recordKind, name); err != nil {
			return fmt.Errorf("%w: %w", ErrNotStored, err)
		}
	}
	if ended := m.forget(e); ended != nil {
		<-ended.done
	}
	return nil
}

// forget takes a monitor out, and answers the run that this ends, if any.
func (m *Manager) forget(e *entry) *flight {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := e.def.Name
	reason := fmt.Errorf("%w: %q", ErrChanged, name)
	ended := m.interruptLocked(e, reason)
	m.dropRequestLocked(e, reason)
	if e.queued() {
		heap.Remove(&m.due, e.place-1)
	}
	m.unwaitLocked(e)
	delete(m.entries, name)
	m.history -= e.def.HistoryLimit
	m.tellLocked(event.Deleted, e)
	return ended
}

// Restore brings back what the store holds; it is called once, before anything else. The error is about the store: a
// record that cannot be read is never skipped in silence. An expectation that is not understood any more fails the runs
// of its monitor, and holds up no other.
func (m *Manager) Restore() error {
	if m.Store == nil {
		return nil
	}
	return m.Store.Each(recordKind, func(key string, value []byte) error {
		var rec record
		if err := json.Unmarshal(value, &rec); err != nil {
			return fmt.Errorf("cannot understand monitor %q in the state file: %w", key, err)
		}
		rec.complete()
		e := newEntry(rec.UID, rec.CreateTime)
		e.updated = rec.UpdateTime
		if err := e.define(rec.Definition); err != nil {
			return err
		}
		m.mu.Lock()
		m.addLocked(e)
		m.Events.Found(m.eventLocked(event.Existing, e))
		m.mu.Unlock()
		m.wakeUp()
		return nil
	})
}

func (m *Manager) addLocked(e *entry) {
	m.entries[e.def.Name] = e
	m.history += e.def.HistoryLimit
	if !m.closed {
		m.planLocked(e)
	}
}

// define gives an entry that nobody else knows its definition.
func (e *entry) define(def Definition) (err error) {
	e.def = def
	if len(def.Expect) > 0 {
		if e.expect, err = verdict.Compile(def.Expect); err != nil {
			e.noExpect = fmt.Errorf("%w: %w", ErrBadExpect, err)
		}
	}
	e.tag, err = def.etag()
	return err
}

func (e *entry) record() record {
	return record{Definition: e.def, UID: e.uid, CreateTime: e.created, UpdateTime: e.updated}
}

// keep writes a record, if there is a store.
func (m *Manager) keep(rec record) error {
	if m.Store == nil {
		return nil
	}
	value, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("cannot encode monitor %q: %w", rec.Name, err)
	}
	if err := m.Store.Put(recordKind, rec.Name, value); err != nil {
		return fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	return nil
}

// find answers the entry of a name, if it has the etag that it must have.
func (m *Manager) find(name, etag string) (*entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[name]
	if e == nil {
		return nil, notFound(name)
	}
	if etag != "" && etag != e.tag {
		return nil, fmt.Errorf("%w: %q has etag %s now, not %s; get it again and decide anew", ErrStale, name, e.tag, etag)
	}
	return e, nil
}

// take waits for the turn to change a definition. The caller must release it.
func (m *Manager) take(ctx context.Context) error {
	select {
	case m.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (m *Manager) release() { <-m.turn }
