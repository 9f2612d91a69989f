package registry

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/netwatch"
)

// ErrHandingOver says that another process is about to take over, and nothing changes until it has, or has not.
var ErrHandingOver = errors.New("the daemon is being upgraded")

// handedEndpoint is what one daemon tells the next of an endpoint, besides its sockets. The JSON names are part of the format.
type handedEndpoint struct {
	record
	State State `json:"state"`
	// Reason is why it failed.
	Reason string `json:"reason,omitempty"`
	// Past is what it counted before its last stop.
	Past echo.Stats `json:"past,omitzero"`
	// Left is what is left of its ttl.
	Left time.Duration `json:"leftNanos,omitempty"`
	// Live says that sockets come.
	Live bool `json:"live,omitempty"`
	// Seen is what these stand on.
	Seen netwatch.Sight `json:"seen,omitzero"`
	handedManaged
}

// handedSession is the same of a session.
type handedSession struct {
	sessionRecord
	// Left is how long it waits for its client who has left already; 0: the client is there, or its time is over.
	Left time.Duration `json:"leftNanos,omitempty"`
	// Ending says that its time is over.
	Ending bool `json:"ending,omitempty"`
}

// Frozen is a registry that does not change: it takes no changes, nothing expires, and its sockets can be handed over. Its
// methods are for one goroutine.
type Frozen struct {
	registry *Registry
	entries  []*entry // by name; their turns are ours
	live     []*entry // those of them that have sockets
	paused   []*entry // those of the live that are paused
}

// Freeze waits for changes that are under way and keeps others from beginning; those wait. It is for who hands over to another
// process: Thaw or Release follows. The error is ErrClosing, or ctx's with what is still being changed; nothing is frozen then.
func (r *Registry) Freeze(ctx context.Context) (*Frozen, error) {
	entries, err := r.beginFreeze()
	if err != nil {
		return nil, err
	}
	f := &Frozen{registry: r}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		e := entries[name]
		select {
		case e.turn <- struct{}{}:
		case <-ctx.Done():
			f.Thaw()
			return nil, fmt.Errorf("%q is being changed, or drains: %w", name, context.Cause(ctx))
		}
		if e.gone {
			e.release()
			continue
		}
		f.entries = append(f.entries, e)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range f.entries {
		if e.live != nil && e.state == Serving {
			f.live = append(f.live, e)
		}
	}
	return f, nil
}

// beginFreeze has nothing begin any more, and answers what there is, by name.
func (r *Registry) beginFreeze() (map[string]*entry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing || r.frozen {
		return nil, ErrClosing
	}
	r.frozen = true
	return maps.Clone(r.entries), nil
}

// Thaw has the registry go on: sockets that are paused serve again. One that cannot is Failed.
func (f *Frozen) Thaw() {
	r := f.registry
	each(len(f.paused), func(i int) {
		e := f.paused[i]
		if err := e.live.Resume(); err != nil {
			r.failed(e, e.live, err)
		}
	})
	f.paused = nil
	for _, e := range f.entries {
		e.release()
	}
	f.entries = nil
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frozen = false
	select {
	case r.leases.wake <- struct{}{}: // something may have become due
	default:
	}
}

// Release gives up all that was paused, since another process has it. What waits for a turn is refused from here on.
func (f *Frozen) Release() {
	r := f.registry
	r.beginRelease()
	each(len(f.paused), func(i int) { f.paused[i].live.Release() })
	f.paused = nil
	r.mu.Lock()
	r.closePassedLocked()
	r.mu.Unlock()
	r.closeLeases()
	r.closeHeals()
}

func (r *Registry) beginRelease() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closing = true
}

// Sessions tells what there is of sessions, for [Decode].
func (f *Frozen) Sessions() ([]json.RawMessage, error) {
	r := f.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]json.RawMessage, 0, len(r.sessions))
	for _, name := range slices.Sorted(maps.Keys(r.sessions)) {
		s := r.sessions[name]
		h := handedSession{sessionRecord: s.sessionRecord, Ending: s.ending}
		if s.hold == nil && !s.ending {
			h.Left = max(time.Until(s.lease.at), 0)
		}
		text, err := json.Marshal(h)
		if err != nil {
			return nil, fmt.Errorf("cannot encode session %q: %w", name, err)
		}
		all = append(all, text)
	}
	return all, nil
}

// Endpoints tells what there is of endpoints, for [Decode]: by name, and those with sockets in the order that Pause has them.
func (f *Frozen) Endpoints() ([]json.RawMessage, error) {
	r := f.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]json.RawMessage, 0, len(f.entries))
	now := time.Now()
	for _, e := range f.entries {
		h := handedEndpoint{
			record: e.record(e.address, e.state != Stopped), State: e.state, Reason: e.reason, Past: e.past,
			Live: slices.Contains(f.liveAt(e), e), handedManaged: r.managedLocked(e),
		}
		if h.Live {
			h.Seen = e.seen
		} else if e.live != nil { // the engine gave it up
			h.Past = sum(e.past, e.live.Stats())
		}
		if !e.expires.IsZero() {
			h.Left = max(e.expires.Sub(now), 0)
		}
		text, err := json.Marshal(h)
		if err != nil {
			return nil, fmt.Errorf("cannot encode endpoint %q: %w", e.def.Name, err)
		}
		all = append(all, text)
	}
	return all, nil
}

// liveAt answers the part of the live that an entry would be in.
func (f *Frozen) liveAt(e *entry) []*entry {
	i, found := slices.BinarySearchFunc(f.live, e, func(a, b *entry) int { return cmp.Compare(a.def.Name, b.def.Name) })
	if !found {
		return nil
	}
	return f.live[i : i+1]
}

// Live is how many endpoints have sockets.
func (f *Frozen) Live() int { return len(f.live) }

// Ledgers tells what probes' rounds have left here, once all is paused.
func (f *Frozen) Ledgers() (json.RawMessage, error) { return f.registry.engine.SaveLedgers() }

// HandedSockets is what Pause answers of an endpoint: what serves it, or why it serves no more.
type HandedSockets struct {
	echo.Handed
	Failed string `json:",omitempty"`
}

// Pause has the sockets of all endpoints at rest and answers what serves them, whose files are the caller's to close. They are
// all paused at the same time. With an error nothing is paused; ErrHandingOver is none of its.
func (f *Frozen) Pause(ctx context.Context) ([]HandedSockets, error) {
	all, errs := make([]HandedSockets, len(f.live)), make([]error, len(f.live))
	var mu sync.Mutex
	each(len(f.live), func(i int) {
		e := f.live[i]
		all[i].Handed, errs[i] = e.live.Pause(ctx)
		switch {
		case errs[i] == nil:
			mu.Lock()
			defer mu.Unlock()
			f.paused = append(f.paused, e)
		case isOver(e.live): // meanwhile
			all[i].Failed, all[i].Stats, errs[i] = "it was one connection, which has ended", e.live.Stats(), nil
			if err := e.live.Err(); err != nil {
				all[i].Failed = err.Error()
			}
		default:
			errs[i] = fmt.Errorf("cannot pause %q: %w", e.def.Name, errs[i])
		}
	})
	if err := firstOf(errs); err != nil {
		for _, h := range all {
			h.CloseFiles()
		}
		each(len(f.paused), func(i int) { _ = f.paused[i].live.Resume() }) // its failure is told to OnFailure
		f.paused = nil
		return nil, err
	}
	return all, nil
}

// isOver says whether something serves no more: it has failed, or was one connection, which has ended.
func isOver(live *echo.Endpoint) bool {
	select {
	case <-live.Done():
		return true
	default:
		return live.Err() != nil
	}
}

// CloseFiles closes the files that are handed.
func (h HandedSockets) CloseFiles() {
	if h.Socket != nil {
		_ = h.Socket.Close() // the sockets themselves have other descriptors
	}
	for _, c := range h.Connections {
		_ = c.Socket.Close()
	}
}

// Handed is what another daemon had of endpoints and sessions, understood.
type Handed struct {
	endpoints []handedEndpoint
	sessions  []handedSession
	live      []int // which of the endpoints have sockets
}

// Decode understands what Sessions and Endpoints of a Frozen have told. The error names what this daemon does not know: nothing
// is left out in silence.
func Decode(sessions, endpoints []json.RawMessage) (*Handed, error) {
	h := &Handed{sessions: make([]handedSession, len(sessions)), endpoints: make([]handedEndpoint, len(endpoints))}
	for i, text := range sessions {
		if err := strictly(text, &h.sessions[i]); err != nil {
			return nil, fmt.Errorf("cannot take over session %q: %w", h.sessions[i].Name, err)
		}
	}
	for i, text := range endpoints {
		e := &h.endpoints[i]
		err := strictly(text, e)
		if err == nil {
			err = spec(e.Definition, e.Address).Validate()
		}
		if err == nil {
			err = errors.Join(e.Given.check(), e.Back.check())
		}
		if err == nil && (e.State < Serving || e.State > Failed) {
			err = fmt.Errorf("state %d is not known", e.State)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot take over endpoint %q: %w", e.Name, err)
		}
		if e.Live {
			h.live = append(h.live, i)
		}
	}
	return h, nil
}

// strictly decodes JSON of which all must be known.
func strictly(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// Len is how many endpoints there are.
func (h *Handed) Len() int { return len(h.endpoints) }

// Live is how many of them have sockets.
func (h *Handed) Live() int { return len(h.live) }

// Arrivals are endpoints that were handed over, and do not serve yet.
type Arrivals struct {
	registry *Registry
	entries  []*entry
	live     []*entry // those that sockets come for
	lefts    map[*entry]time.Duration
	kept     map[*entry]string // by what names a service manager keeps their sockets
	sessions []handedSession
}

// Import enters what another daemon had, with the sockets that it had from a service manager, as many as Passed says and the
// registry's from here on; it is called instead of Restore. Adopt, Resume and Begin follow. The store, if there is one, has it all already.
func (r *Registry) Import(h *Handed, passed []*os.File) *Arrivals {
	a := &Arrivals{registry: r, lefts: map[*entry]time.Duration{}, kept: map[*entry]string{}, sessions: h.sessions}
	next := func() *os.File {
		socket := passed[0]
		passed = passed[1:]
		return socket
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range h.sessions {
		s := (&session{sessionRecord: one.sessionRecord, ending: one.Ending}).init()
		r.sessions[s.Name] = s
	}
	for _, one := range h.endpoints {
		e := &entry{
			turn: make(chan struct{}, 1), announced: true, uid: one.UID, address: one.Address, state: one.State, reason: one.Reason,
			created: one.CreateTime, updated: one.UpdateTime, expires: one.ExpireTime, past: one.Past, seen: one.Seen,
		}
		e.define(one.Definition)
		r.entries[e.def.Name] = e
		r.rejoinLocked(e)
		a.entries, a.lefts[e] = append(a.entries, e), one.Left
		a.manageLocked(e, one.handedManaged, next)
		if one.Live {
			e.state = Failed // until it serves
			a.live = append(a.live, e)
		}
	}
	return a
}

// Adopt takes over the sockets of all endpoints that have some, in the order of Pause, and their files. None is served yet. With
// an error nothing has happened to the sockets, and this process is to end without closing them in any other way.
func (a *Arrivals) Adopt(ctx context.Context, all []HandedSockets) error {
	if len(all) != len(a.live) {
		return fmt.Errorf("sockets of %d endpoints came, and those of %d should have", len(all), len(a.live))
	}
	errs := make([]error, len(all))
	each(len(all), func(i int) {
		e := a.live[i]
		if all[i].Failed != "" {
			e.reason, e.past = all[i].Failed, sum(e.past, all[i].Stats)
			return
		}
		live, err := a.registry.engine.Adopt(ctx, spec(e.def, e.address), all[i].Handed)
		if err != nil {
			errs[i] = fmt.Errorf("cannot take over the sockets of %q: %w", e.def.Name, err)
			return
		}
		e.live = live
	})
	return firstOf(errs)
}

// firstOf answers the first error of some, and how many more there are: thousands of endpoints may have the same one.
func firstOf(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return fmt.Errorf("%w (and %d more)", errs[0], len(errs)-1)
}

// RestoreLedgers goes on with what Ledgers has told.
func (a *Arrivals) RestoreLedgers(all json.RawMessage) error {
	return a.registry.engine.RestoreLedgers(all)
}

// Resume serves what was adopted. An endpoint that cannot serve is Failed.
func (a *Arrivals) Resume() {
	each(len(a.live), func(i int) {
		if e := a.live[i]; e.live != nil {
			if err := e.live.Resume(); err != nil {
				a.registry.log.Error("cannot resume an endpoint", "endpoint", e.def.Name, "error", err)
				e.reason = err.Error()
			}
		}
	})
}

// Begin has the registry live: time goes on for what may expire, and what has Failed is retried. A keeper hears from here on.
func (a *Arrivals) Begin() {
	a.settleKept()
	r := a.registry
	defer r.watchConnections(a.entries)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range a.live {
		if e.live != nil && e.reason == "" {
			r.servesLocked(e, e.live, e.seen) // what has changed since is found by the next look
		}
	}
	a.beginLeasesLocked()
	r.beginHealsLocked()
	for _, e := range a.entries {
		r.events.Found(r.eventLocked(event.Existing, e))
	}
}

// longestHandOver is longer than any hand-over takes.
const longestHandOver = time.Minute

// beginLeasesLocked gives everything the time that it had left, but afterStart at least, so that its owner can come back.
func (a *Arrivals) beginLeasesLocked() {
	r, now := a.registry, time.Now()
	for _, e := range a.entries {
		if e.def.TTL > 0 {
			left := a.lefts[e]
			// The time that was told counts, to the nanosecond, unless the wall clock was set while this was under way.
			if took := left - e.expires.Sub(now); took >= 0 && took < longestHandOver {
				left -= took
			}
			r.beginLeaseLocked(e, left, now)
		}
	}
	known := map[*session]bool{}
	for _, one := range a.sessions {
		s := r.sessions[one.Name]
		known[s] = true
		left := max(s.Grace, afterStart) // as after a restart
		switch {
		case one.Ending:
			left = 0
		case one.Left > 0:
			left = max(one.Left, afterStart)
		}
		r.scheduleLocked(&s.lease, now.Add(left))
	}
	for _, s := range r.sessions {
		if !known[s] {
			r.scheduleLocked(&s.lease, now.Add(afterStart))
		}
	}
}
