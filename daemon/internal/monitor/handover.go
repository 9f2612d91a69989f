package monitor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/echod/echod/daemon/internal/event"
)

// handed is what one daemon tells the next of a monitor. The JSON names are part of the format.
type handed struct {
	record
	// Left is how long it is until its next turn.
	Left time.Duration `json:"leftNanos,omitempty"`
	// Owes says that a turn has come whose run has not ended: the next daemon runs it, from its beginning.
	Owes     bool      `json:"owes,omitempty"`
	Verdict  Verdict   `json:"verdict"`
	Since    time.Time `json:"since,omitzero"`
	Counters Counters  `json:"counters"`
	History  []Run     `json:"history,omitempty"` // oldest first
}

// Freeze waits for a change that is under way and has no other begin, and no run; those that are under way go on. It is for
// who hands over to another process: Thaw follows, or Close. The error is ctx's.
func (m *Manager) Freeze(ctx context.Context) error {
	if err := m.take(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	m.frozen = true
	m.mu.Unlock()
	return nil
}

// Thaw has a frozen manager go on.
func (m *Manager) Thaw() {
	m.mu.Lock()
	m.frozen = false
	m.mu.Unlock()
	m.release()
	m.wakeUp()
}

// Export tells what there is of monitors, for [Decode]. The manager is frozen.
func (m *Manager) Export() ([]json.RawMessage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]json.RawMessage, 0, len(m.entries))
	now := m.now()
	for _, name := range slices.Sorted(maps.Keys(m.entries)) {
		e := m.entries[name]
		e.pass(now)
		h := handed{
			record: e.record(), Left: max(e.next-now, 0), Owes: e.owes || e.underWay() && e.run.turn, Verdict: e.verdict,
			Since: e.since, Counters: e.counters, History: e.history,
		}
		text, err := json.Marshal(h)
		if err != nil {
			return nil, fmt.Errorf("cannot encode monitor %q: %w", name, err)
		}
		all = append(all, text)
	}
	return all, nil
}

// Handed is what another daemon had of monitors, understood.
type Handed struct {
	monitors []handed
	entries  []*entry
}

// Decode understands what Export has told. The error names what this daemon does not know: nothing is left out in silence.
func Decode(monitors []json.RawMessage) (*Handed, error) {
	h := &Handed{monitors: make([]handed, len(monitors))}
	for i, text := range monitors {
		one := &h.monitors[i]
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		err := d.Decode(one)
		if err == nil && (one.Interval <= 0 || one.HistoryLimit <= 0 || one.Verdict < Unknown || one.Verdict > NotMet) {
			err = fmt.Errorf("its interval %v, history limit %d or verdict %d cannot be", one.Interval, one.HistoryLimit, one.Verdict)
		}
		e := newEntry(one.UID, one.CreateTime)
		if err == nil {
			e.updated, e.verdict, e.since, e.counters, e.history = one.UpdateTime, one.Verdict, one.Since, one.Counters, one.History
			err = e.define(one.Definition) // an expectation that is not understood any more fails its runs, as after a restart
		}
		if err != nil {
			return nil, fmt.Errorf("cannot take over monitor %q: %w", one.Name, err)
		}
		h.entries = append(h.entries, e)
	}
	return h, nil
}

// Begin enters what another daemon had, instead of Restore, and runs each monitor at its turns.
func (m *Manager) Begin(h *Handed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, e := range h.entries {
		m.addLocked(e)
		if one := h.monitors[i]; !e.def.Paused && !m.closed {
			now := m.now()
			e.next = now + one.Left
			due := e.next
			if one.Owes {
				e.owes, e.came, due = true, now, now
			}
			m.enqueueLocked(e, due)
		}
		m.Events.Found(m.eventLocked(event.Existing, e))
	}
	m.wakeUp()
}
