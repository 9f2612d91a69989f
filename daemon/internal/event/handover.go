package event

import "fmt"

// Place is where a log is in its life. Another process's log that goes on from there takes the tokens of this one, as far as
// nothing has happened since: the events themselves stay behind.
type Place struct {
	Life [lifeBytes]byte
	Last uint64 // the revision of the newest event
}

// Hold has events wait, from here on, until Go or for ever: another process may take over, whose events follow those until now.
// It answers where the log stands. Watches see no more of it meanwhile.
func (l *Log) Hold() Place {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = true
	return Place{l.life, l.last}
}

// Go has the log go on after a Hold, with what has waited.
func (l *Log) Go() {
	l.mu.Lock()
	waiting := l.waiting
	l.held, l.waiting = false, nil
	for _, e := range waiting {
		l.appendLocked(e)
	}
	l.mu.Unlock()
}

// ContinueAt has a log that nobody has written yet go on where another one stands.
func (l *Log) ContinueAt(p Place) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last != 0 {
		return fmt.Errorf("the log of events has %d already", l.last)
	}
	l.life, l.last, l.first = p.Life, p.Last, p.Last+1
	return nil
}

// waitLocked keeps an event until the log goes on: the newest, as many as the log itself would keep.
func (l *Log) waitLocked(e Event) {
	if len(l.waiting) == len(l.ring) {
		l.waiting = l.waiting[1:]
	}
	l.waiting = append(l.waiting, e)
}
