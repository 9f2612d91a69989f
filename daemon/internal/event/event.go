// Package event keeps what happened in the daemon lately, and what is there now: one bounded, numbered log, written by the
// rooms that change something and read by watches, which can go on where they were. It knows nothing of what the events are
// about, and calls nobody; rpc reads it.
package event

import (
	"crypto/rand"
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

	// What a watch tells besides, which is in no log.
	Existing // it is there
	Synced   // all that is there was told

	// What a watch of connections is told, which is in no log.
	ConnectionOpened
	ConnectionClosed
)

// Kind is what an event is about.
type Kind string

// The kinds of subjects.
const (
	Endpoint Kind = "endpoint"
	Probe    Kind = "probe"
	Monitor  Kind = "monitor"
	Daemon   Kind = "daemon"
	Traffic  Kind = "traffic"
)

// Event is one thing that happened.
type Event struct {
	Revision uint64    // set by Append: one more than that of the event before it
	Time     time.Time // set by Append where it is zero
	Type     Type
	Kind     Kind
	Name     string // of the subject
	Subject  any    // a value of the room that wrote it, as the subject was after the event; nobody changes it any more
	Bytes    int    // about how much memory Subject takes
	Before   any    // set by Append: the Subject of the event before it about the same thing; nil: it was not there
}

// Limits are what a log may take.
type Limits struct {
	Events  int // that are kept; at least 1
	Bytes   int // of the subjects that they hold; the last event is kept whatever it holds. 0: no limit
	Watches int // at once; 0: no limit
}

// Log is the log of one daemon's life. It is safe for concurrent use. The zero Log is not ready; see [New].
type Log struct {
	limits Limits
	life   [lifeBytes]byte // tells this log from others

	mu      sync.Mutex // guards what follows; held for moments only, so that writers may have locks of their own
	there   map[key]*record
	ring    []*record     // the event of revision r is at r % len
	first   uint64        // the revision of the oldest event that is kept
	last    uint64        // that of the newest; one less than first when none is kept
	bytes   int           // that the kept events hold
	watches int           // that are open
	more    chan struct{} // closed by the next event; nil when nobody waits for it
	held    bool          // events wait
	waiting []Event       // for the log to go on
}

// record is an event as the log has it. It changes no more, so that watches share it.
type record struct {
	Event
	holds int // bytes: of the subject, and of the one before
}

// key is what an event is about.
type key struct {
	kind Kind
	name string
}

// New makes an empty log.
func New(limits Limits) *Log {
	l := &Log{limits: limits, there: map[key]*record{}, ring: make([]*record, limits.Events), first: 1}
	_, _ = rand.Read(l.life[:]) // never fails, says crypto/rand
	return l
}

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
	if l.held {
		l.waitLocked(e)
		return l.last
	}
	return l.appendLocked(e)
}

func (l *Log) appendLocked(e Event) uint64 {
	l.last++
	e.Revision = l.last
	r := &record{e, e.Bytes}
	if before := l.there[key{e.Kind, e.Name}]; before != nil {
		r.Before = before.Subject
		r.holds += before.Bytes
	}
	l.enterLocked(r)
	l.keepLocked(r)
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
	return l.last
}

// Found enters what is there without an event, since it was there before this log was. A nil Log takes that, too.
func (l *Log) Found(e Event) {
	if l == nil {
		return
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enterLocked(&record{Event: e})
}

// Revision is that of the newest event: where it is the same as before, nothing was told in between. 0: none was ever.
func (l *Log) Revision() uint64 {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// enterLocked brings what is there up to date.
func (l *Log) enterLocked(r *record) {
	if k := (key{r.Kind, r.Name}); r.Type == Deleted || r.Type == Expired {
		delete(l.there, k)
	} else {
		l.there[k] = r
	}
}

// keepLocked puts the newest event into the ring, in place of the oldest, if need be.
func (l *Log) keepLocked(r *record) {
	l.bytes += r.holds
	size := uint64(len(l.ring))
	for l.first < l.last && (l.last-l.first >= size || l.limits.Bytes > 0 && l.bytes > l.limits.Bytes) {
		oldest := &l.ring[l.first%size]
		l.bytes -= (*oldest).holds
		*oldest = nil
		l.first++
	}
	l.ring[l.last%size] = r
}
