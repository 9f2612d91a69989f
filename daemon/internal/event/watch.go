package event

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// What a caller may decide on.
var (
	ErrBadToken = errors.New("the resume token is not one of this watch")
	ErrExpired  = errors.New("the resume token is too old")
	ErrTooSlow  = errors.New("the events are not read as fast as they come")
	ErrTooMany  = errors.New("too many watches")
)

const (
	lifeBytes   = 8
	tokenBytes  = lifeBytes + 8 + digestBytes
	digestBytes = 8
	// ahead is how many events a watch takes out of the log at a time.
	ahead = 64
)

// Options say what a watch begins with.
type Options struct {
	// Scope is what the watch is for, as its filter; a token is of use only where it is the same.
	Scope string
	// Token goes on behind where it was given; empty: begin with what is there, unless ChangesOnly.
	Token       string
	ChangesOnly bool
}

// Watch reads a log: first what is there, as Existing, then Synced, then each event, in the order of their revisions. What is
// there is told as it was at one moment, and the events are those behind that moment. It is for one goroutine; the log does
// not wait for it. Whoever opened it closes it.
type Watch struct {
	log    *Log
	scope  string
	at     uint64    // the revision that was told last
	there  []*record // that are still to be told
	synced bool
	batch  []*record
	closed bool
}

// Watch begins a watch. The error is ErrBadToken, ErrExpired or ErrTooMany.
func (l *Log) Watch(o Options) (*Watch, error) {
	w := &Watch{log: l, scope: o.Scope}
	if err := l.open(w, o); err != nil {
		return nil, err
	}
	slices.SortFunc(w.there, func(a, b *record) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name)) })
	return w, nil
}

func (l *Log) open(w *Watch, o Options) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.limits.Watches > 0 && l.watches >= l.limits.Watches:
		return fmt.Errorf("%w: there are %d already, the most there may be", ErrTooMany, l.watches)
	case o.Token != "":
		at, err := l.revision(o.Token, o.Scope)
		if err != nil {
			return err
		}
		if at+1 < l.first {
			return fmt.Errorf("%w: %d events have come since, and what followed it is no longer kept; watch without a token", ErrExpired, l.last-at)
		}
		w.at, w.synced = at, true
	default:
		w.at = l.last
		if !o.ChangesOnly {
			w.there = make([]*record, 0, len(l.there))
			for _, r := range l.there {
				w.there = append(w.there, r)
			}
		}
	}
	l.watches++
	return nil
}

// Next answers what comes next; ok is false when that has not happened yet, and More tells when. The error is ErrTooSlow
// when it is no longer kept.
func (w *Watch) Next() (e Event, ok bool, err error) {
	if len(w.batch) == 0 {
		if err := w.fill(); err != nil {
			return Event{}, false, err
		}
	}
	switch {
	case len(w.there) > 0:
		e = w.there[0].Event
		e.Type, e.Revision, e.Before = Existing, w.at, nil
		w.there[0] = nil
		w.there = w.there[1:]
	case !w.synced:
		w.synced = true
		e = Event{Revision: w.at, Time: time.Now(), Type: Synced}
	case len(w.batch) > 0:
		e = w.batch[0].Event
		w.at = e.Revision
		w.batch[0] = nil
		w.batch = w.batch[1:]
	default:
		return Event{}, false, nil
	}
	return e, true, nil
}

// fill takes what comes next out of the log.
func (w *Watch) fill() error {
	l := w.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.at+1 < l.first {
		return fmt.Errorf("%w: %d wait, and the first of them are no longer kept", ErrTooSlow, l.last-w.at)
	}
	if len(w.there) > 0 || !w.synced {
		return nil // not yet: what is not read may be much
	}
	for r := w.at + 1; r <= min(l.last, w.at+ahead); r++ {
		w.batch = append(w.batch, l.ring[r%uint64(len(l.ring))])
	}
	return nil
}

// More answers a channel that is closed once Next has something.
func (w *Watch) More() <-chan struct{} {
	l := w.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more == nil {
		l.more = make(chan struct{})
	}
	if w.at < l.last || !w.synced {
		return alreadyClosed
	}
	return l.more
}

var alreadyClosed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// Revision is that of the last event that Next has passed.
func (w *Watch) Revision() uint64 { return w.at }

// Token goes on behind the last event that Next has passed; empty as long as what is there is not told as a whole.
func (w *Watch) Token() string {
	if !w.synced {
		return ""
	}
	sealed := binary.BigEndian.AppendUint64(slices.Clone(w.log.life[:]), w.at)
	return base64.RawURLEncoding.EncodeToString(append(sealed, digest(sealed, w.scope)...))
}

// Close ends the watch. Closing again does nothing.
func (w *Watch) Close() {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	if !w.closed {
		w.closed = true
		w.log.watches--
	}
}

// revision reads a token. The log's lock is held.
func (l *Log) revision(token, scope string) (uint64, error) {
	sealed, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(sealed) != tokenBytes || string(digest(sealed[:tokenBytes-digestBytes], scope)) != string(sealed[tokenBytes-digestBytes:]) {
		return 0, ErrBadToken
	}
	if string(sealed[:lifeBytes]) != string(l.life[:]) {
		return 0, fmt.Errorf("%w: the daemon has been started anew since; watch without a token", ErrExpired)
	}
	at := binary.BigEndian.Uint64(sealed[lifeBytes:])
	if at > l.last {
		return 0, ErrBadToken
	}
	return at, nil
}

// digest seals a token. It keeps out what was cut, mistyped or meant for another watch; a token opens no door.
func digest(sealed []byte, scope string) []byte {
	sum := sha256.Sum256(append(slices.Clone(sealed), scope...))
	return sum[:digestBytes]
}
