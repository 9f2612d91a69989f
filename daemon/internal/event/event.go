// Package event keeps what happened in the daemon lately: one bounded, numbered log, written by the rooms that change something
// and read by watches, which can go on where they were. It knows nothing of what the events are about.
package event

import (
	"sync"
	"time"
)

// Type is what happened.
type Type uint8

// The types of events.
const (
	Created      Type = iota + 1
	Updated           // its definition changed
	StateChanged      // its state changed, or a monitor's verdict
	Deleted
	Expired  // deleted since its time was over, or its session ended
	RunEnded // a monitor's run has ended
)

// Kind is what an event is about.
type Kind string

// The kinds of subjects.
const (
	Endpoint Kind = "endpoint"
	Probe    Kind = "probe"
	Monitor  Kind = "monitor"
	Daemon   Kind = "daemon"
)

// Event is one thing that happened.
type Event struct {
	Revision uint64    // set by Append: one more than that of the event before it
	Time     time.Time // set by Append where it is zero
	Type     Type
	Kind     Kind
	Name     string // of the subject
	Subject  any    // a value of the room that wrote it, as the subject was after the event; nobody changes it any more
}

// Log is the log of one daemon's life. It is safe for concurrent use. The zero Log is not ready; see [New].
type Log struct {
	mu     sync.Mutex
	last   uint64
	events []Event // a ring: the event of revision r is at r % len
}

// New makes a log that keeps the last so many events.
func New(capacity int) *Log { return &Log{events: make([]Event, capacity)} }

// Append writes an event and answers its revision. It never waits for a reader, so it may be called with locks held: events
// that are written under one lock are in the order of what they tell of. A nil Log takes all and keeps nothing.
func (l *Log) Append(e Event) uint64 {
	if l == nil {
		return 0
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	e.Revision = l.last
	l.events[l.last%uint64(len(l.events))] = e
	return l.last
}
