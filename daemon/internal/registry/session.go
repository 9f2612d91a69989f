package registry

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
)

// What a caller may decide on of sessions.
var (
	// ErrNoSession says that an endpoint is to be created in a session that is not there, or that is ending.
	ErrNoSession = errors.New("no such session")
	// ErrOtherSession says that an endpoint is to be moved to another session, which it cannot be.
	ErrOtherSession = errors.New("an endpoint stays in the session that it was created in")
	// ErrSessionOver says that a session which is to be held again is not there any more.
	ErrSessionOver = errors.New("the session is over")
	// ErrSessionHeld says that the name is another client's.
	ErrSessionHeld = errors.New("the session is another client's")
	// ErrWrongSecret says that the session is there, and the secret is not its.
	ErrWrongSecret = errors.New("the secret is not the session's")
	// ErrTakenOver says that another client holds the session now, by its secret.
	ErrTakenOver = errors.New("the session was taken over by another client with its secret")
	// ErrTooManySessions says that there are MaxSessions.
	ErrTooManySessions = errors.New("there are too many sessions")
)

// MaxSessions is how many sessions there may be at once, those included whose client has left and whose grace lasts.
const MaxSessions = 1000

// sessionKind is what the store calls records of sessions.
const sessionKind = "session"

// Session is a session as it stands: a value that changes no more.
type Session struct {
	Name       string
	Grace      time.Duration // how long its endpoints live on when its client has left
	CreateTime time.Time
	Endpoints  int // how many it has
}

// session owns the endpoints that were created in it: they end with it. Its fields are guarded by the registry's lock.
type session struct {
	sessionRecord
	entries map[*entry]struct{}
	opening bool  // not kept yet: its name is taken, and nobody may create in it
	hold    *Hold // who holds it; nil: its client has left, and its lease runs
	ending  bool  // its lease is over, or its client has ended it: nobody may hold it or create in it any more
	lease   lease
	over    chan struct{} // closed when it is forgotten
}

// sessionRecord is what the store keeps of a session. The JSON names are part of the format.
type sessionRecord struct {
	Name       string        `json:"name"`
	SecretHash []byte        `json:"secretHash"` // SHA-256; empty: nobody has it
	Grace      time.Duration `json:"graceNanos"`
	CreateTime time.Time     `json:"createTime"`
}

// Hold is a client's hold on a session. It is safe for concurrent use.
type Hold struct {
	// Secret holds the session again after a break.
	Secret   string
	registry *Registry
	session  *session
	lost     chan struct{} // closed when it is not ours any more
	err      error         // why; written before
}

// OpenSession opens a session and holds it. An empty name is filled in. The error is ErrSessionHeld, ErrTooManySessions,
// ErrNotStored or ErrClosing.
func (r *Registry) OpenSession(name string, grace time.Duration) (*Hold, error) {
	h := &Hold{Secret: rand.Text(), registry: r, lost: make(chan struct{})}
	hash := sha256.Sum256([]byte(h.Secret))
	s := &session{
		sessionRecord: sessionRecord{Name: name, SecretHash: hash[:], Grace: grace, CreateTime: time.Now()},
		opening:       true, hold: h,
	}
	h.session = s.init()
	if err := r.reserveSession(s); err != nil {
		return nil, err
	}
	err := r.keepSession(s.sessionRecord)
	r.mu.Lock()
	defer r.mu.Unlock()
	s.opening = false
	if err != nil {
		delete(r.sessions, s.Name)
		return nil, err
	}
	return h, nil
}

// reserveSession takes a session's name, or chooses one.
func (r *Registry) reserveSession(s *session) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return ErrClosing
	}
	if there := r.sessions[s.Name]; there != nil {
		return there.takenLocked()
	}
	if len(r.sessions) >= MaxSessions {
		return fmt.Errorf("%w: %d; end one, or wait for the grace of one to end", ErrTooManySessions, MaxSessions)
	}
	for s.Name == "" {
		if name := "session-" + uuid.NewString()[:6]; r.sessions[name] == nil {
			s.Name = name
		}
	}
	r.sessions[s.Name] = s
	return nil
}

// takenLocked says why a session's name cannot be had.
func (s *session) takenLocked() error {
	switch {
	case s.ending:
		return fmt.Errorf("%w: %q is just ending; try again in a moment, or choose another name", ErrSessionHeld, s.Name)
	case s.hold == nil:
		return fmt.Errorf("%w: %q waits %.0f s more for its client, who has the secret; choose another name",
			ErrSessionHeld, s.Name, time.Until(s.lease.at).Seconds())
	default:
		return fmt.Errorf("%w: %q is held; choose another name", ErrSessionHeld, s.Name)
	}
}

// HoldSession holds a session again, by its secret, with the grace that it has. Whoever held it has lost it: it was the same
// client, whose connection has broken without the daemon's noticing yet. The error is ErrSessionOver, ErrWrongSecret or
// ErrClosing.
func (r *Registry) HoldSession(name, secret string) (*Hold, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := r.ownSessionLocked(name, secret)
	if err != nil {
		return nil, err
	}
	s.loseLocked(ErrTakenOver)
	r.unscheduleLocked(&s.lease)
	s.hold = &Hold{Secret: secret, registry: r, session: s, lost: make(chan struct{})}
	return s.hold, nil
}

// ownSessionLocked finds a session for the client who has its secret.
func (r *Registry) ownSessionLocked(name, secret string) (*session, error) {
	hash := sha256.Sum256([]byte(secret))
	s := r.sessions[name]
	switch {
	case r.closing:
		return nil, ErrClosing
	case s == nil || s.ending:
		return nil, fmt.Errorf("%w: %q, and its endpoints are deleted; open one anew, without a secret", ErrSessionOver, name)
	case s.opening || subtle.ConstantTimeCompare(s.SecretHash, hash[:]) == 0:
		return nil, fmt.Errorf("%w: %q", ErrWrongSecret, name)
	}
	return s, nil
}

// EndSession ends a session at once, whatever its grace, for the client who has its secret. It returns when its endpoints are
// deleted; when ctx ends before, they are deleted all the same. The error is ErrSessionOver, ErrWrongSecret or ErrClosing.
func (r *Registry) EndSession(ctx context.Context, name, secret string) error {
	s, err := r.beginEnd(name, secret)
	if err != nil {
		return err
	}
	select {
	case <-s.over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-r.leases.end.Done():
		return ErrClosing
	}
}

// init makes a session ready to have entries and a lease.
func (s *session) init() *session {
	s.entries, s.over = map[*entry]struct{}{}, make(chan struct{})
	s.lease.session = s
	return s
}

// loseLocked tells whoever holds the session that it is not theirs any more.
func (s *session) loseLocked(why error) {
	if s.hold != nil {
		s.hold.err = why
		close(s.hold.lost)
		s.hold = nil
	}
}

// Session answers the session as it is now.
func (h *Hold) Session() Session {
	h.registry.mu.Lock()
	defer h.registry.mu.Unlock()
	s := h.session
	return Session{Name: s.Name, Grace: s.Grace, CreateTime: s.CreateTime, Endpoints: len(s.entries)}
}

// Lost is closed when the session is not this hold's any more; Err says why.
func (h *Hold) Lost() <-chan struct{} { return h.lost }

// Err answers, once Lost is closed, ErrTakenOver, or nil when the session was ended.
func (h *Hold) Err() error { return h.err }

// Release says that the client has left: the session ends when its grace is over, unless it is held again. When the daemon
// stops it does not end: what is kept of it waits for the client after the next start. It may be called again.
func (h *Hold) Release() {
	r, s := h.registry, h.session
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.hold == h && !r.closing {
		s.hold = nil
		r.scheduleLocked(&s.lease, time.Now().Add(s.Grace))
	}
}

// joinLocked makes an entry that is being created a part of the session that it names. With checkOnly it only says whether
// it could be.
func (r *Registry) joinLocked(e *entry, name string, checkOnly bool) error {
	if name == "" {
		return nil
	}
	s := r.sessions[name]
	if s == nil || s.opening || s.ending {
		return fmt.Errorf("%w: %q; it may have ended with its client", ErrNoSession, name)
	}
	if !checkOnly {
		e.session = s
		s.entries[e] = struct{}{}
	}
	return nil
}

// join is joinLocked for who does not hold the lock.
func (r *Registry) join(e *entry, name string, checkOnly bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.joinLocked(e, name, checkOnly)
}

// beginEnd has a session end, soon.
func (r *Registry) beginEnd(name, secret string) (*session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := r.ownSessionLocked(name, secret)
	if err != nil {
		return nil, err
	}
	s.ending = true // from here on nobody may hold it again, who would keep it from ending
	s.loseLocked(nil)
	r.scheduleLocked(&s.lease, time.Now())
	return s, nil
}

// endSession ends a session whose lease is over: its endpoints are deleted, those too that are being created in it, then it
// is forgotten. What the store does not let go is tried again.
func (r *Registry) endSession(s *session) {
	members, ends := r.membersOfEnding(s)
	if !ends {
		return
	}
	r.expire(members)
	left, closing := r.membersLeft(s)
	if closing {
		return
	}
	var err error
	if left == 0 && r.store != nil {
		err = r.store.Delete(sessionKind, s.Name)
	}
	if err != nil && r.refused() {
		r.log.Error("cannot forget a session that is over; it is tried again", "session", s.Name, "error", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if left == 0 && err == nil {
		delete(r.sessions, s.Name)
		close(s.over)
		return
	}
	s.lease.refused++
	r.scheduleLocked(&s.lease, time.Now().Add(s.lease.patience()))
}

// membersOfEnding has a session end, and answers what is to end with it, unless it is held again since its time came, and perhaps
// left again.
func (r *Registry) membersOfEnding(s *session) (members []*entry, ends bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing || s.hold != nil || s.lease.place > 0 {
		return nil, false
	}
	s.ending = true
	return slices.Collect(maps.Keys(s.entries)), true
}

func (r *Registry) membersLeft(s *session) (left int, closing bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(s.entries), r.closing
}

// keepSession writes a session's record, if there is a store.
func (r *Registry) keepSession(rec sessionRecord) error {
	if r.store == nil {
		return nil
	}
	value, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("cannot encode session %q: %w", rec.Name, err)
	}
	if err := r.store.Put(sessionKind, rec.Name, value); err != nil {
		return fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	return nil
}

// restoreSessions brings back the sessions that the store holds; their clients have left.
func (r *Registry) restoreSessions() error {
	return r.store.Each(sessionKind, func(key string, value []byte) error {
		s := (&session{}).init()
		if err := json.Unmarshal(value, &s.sessionRecord); err != nil {
			return fmt.Errorf("cannot understand session %q in the state file: %w", key, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.sessions[s.Name] = s
		return nil
	})
}

// rejoinLocked makes a restored entry a part of its session again. One whose session nothing is known of ends as if that session's
// client had left.
func (r *Registry) rejoinLocked(e *entry) {
	if e.def.Session == "" {
		return
	}
	s := r.sessions[e.def.Session]
	if s == nil {
		s = (&session{sessionRecord: sessionRecord{Name: e.def.Session, CreateTime: e.created}}).init()
		r.sessions[s.Name] = s
	}
	e.session = s
	s.entries[e] = struct{}{}
}
