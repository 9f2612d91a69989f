package registry

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/netwatch"
)

// entry is one endpoint. A change takes the turn first and keeps it over binding and writing; only the map and the fields
// need the registry's lock, for the moment of reading or writing them. What can change without the turn is that an entry which
// serves has failed.
type entry struct {
	turn chan struct{} // holds a token while somebody changes the entry

	announced bool // false while it is being created: its name is taken, but nobody is shown it
	gone      bool // deleted; who waited for the turn finds this
	def       Definition
	tag       string // def's etag, kept since it is asked for at each reading
	uid       string
	address   netip.AddrPort
	state     State
	reason    string
	created   time.Time
	updated   time.Time
	expires   time.Time      // when its ttl is over, by the monotonic clock; zero: never
	atLeast   time.Time      // it does not expire before; zero unless it was brought back by a start, with a ttl
	lease     lease          // has it looked at then
	retry     lease          // has it tried again, while it has Failed
	claims    port           // where it is to serve again, while it has Failed
	leaves    bool           // a change is under way that moves or deletes it
	lost      error          // what it had and lost, while it has Failed for that: a retry that finds the same is no news
	seen      netwatch.Sight // what live stands on, if that may go away
	session   *session       // nil: it belongs to none
	live      *echo.Endpoint // nil unless serving or draining
	past      echo.Stats     // what it counted before its last stop
}

// take waits for the turn on an endpoint. The caller must release it.
func (r *Registry) take(ctx context.Context, name string) (*entry, error) {
	e := r.look(name)
	if e == nil {
		return nil, notFound(name)
	}
	select {
	case e.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if e.gone {
		e.release()
		return nil, notFound(name)
	}
	return e, nil
}

// copyOf answers an entry as it stands, for who does not have its turn.
func (r *Registry) copyOf(e *entry) *entry {
	if e == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := *e
	return &now
}

// define gives the entry its definition. The caller holds the registry's lock, if others know the entry.
func (e *entry) define(def Definition) { e.def, e.tag = def, def.etag() }

func (e *entry) release() { <-e.turn }

// servesLocked notes that an entry serves, on what was seen before it was bound; zero: nobody has looked. The caller tells of it.
func (r *Registry) servesLocked(e *entry, live *echo.Endpoint, seen netwatch.Sight) {
	e.live, e.seen, e.address, e.state, e.reason = live, seen, live.Addr(), Serving, ""
	r.calmLocked(e)
	if err := live.OnFailure(func(err error) { r.failed(e, live, err) }); err != nil {
		r.failLocked(e, err)
	} else if !footingOf(spec(e.def, e.address)).isPlain() {
		r.followLocked()
	}
}

// failed notes that the engine has given up what served an entry.
func (r *Registry) failed(e *entry, live *echo.Endpoint, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.live != live || e.state != Serving {
		return
	}
	r.failLocked(e, err)
	r.tellLocked(event.StateChanged, e)
	if name := e.def.Name; !r.closing {
		r.heals.wg.Go(func() { r.logFailure(name, err) }) // the engine serves others here: it waits for no log
	}
}

// serves says whether something serves the entry. The caller has the turn.
func (e *entry) serves() bool { return e.live != nil && e.live.Err() == nil }

// running says whether the entry is meant to serve.
func (r *Registry) running(e *entry) bool {
	s := r.stateOf(e)
	return s == Serving || s == Failed
}

// stateOf answers an entry's state. Who has the turn has to ask, too: what serves may fail at any time.
func (r *Registry) stateOf(e *entry) State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return e.state
}

func (e *entry) checkETag(etag string) error {
	if etag != "" && etag != e.tag {
		return fmt.Errorf("%w: %q has etag %s now, not %s; get it again and decide anew", ErrStale, e.def.Name, e.tag, etag)
	}
	return nil
}

// tellLocked writes into the log what has happened to an entry. The caller holds the registry's lock, since before it changed
// the entry, so that the log has the changes in their order.
func (r *Registry) tellLocked(what event.Type, e *entry) {
	if e.announced {
		r.events.Append(r.eventLocked(what, e))
	}
}

// announceLocked shows a created entry to everybody, and begins its time.
func (r *Registry) announceLocked(e *entry) {
	e.announced = true
	r.leaseLocked(e, e.expires)
	r.tellLocked(event.Created, e)
}

// eventLocked is an event about an entry. It shares the definition, which is replaced as a whole and never changed.
func (r *Registry) eventLocked(what event.Type, e *entry) event.Event {
	return event.Event{
		Type: what, Kind: event.Endpoint, Name: e.def.Name, Subject: r.bareLocked(e), Bytes: endpointBytes + e.def.bytes(),
	}
}

// snapshotLocked reads an entry.
func (r *Registry) snapshotLocked(e *entry) Endpoint { return r.sightLocked(e).whole() }

// sight is an entry as it stood at a moment, whose counters are not read yet: that takes longer than the lock is to be held for
// many.
type sight struct {
	Endpoint // shares its definition
	past     echo.Stats
	live     *echo.Endpoint
}

func (r *Registry) sightLocked(e *entry) sight { return sight{r.bareLocked(e), e.past, e.live} }

// whole adds what it counts, as of now, and shares nothing.
func (s sight) whole() Endpoint {
	e := s.Endpoint
	e.Definition, e.Stats = e.clone(), s.past
	if s.live != nil {
		e.Stats = sum(s.past, s.live.Stats())
	}
	return e
}

// bareLocked reads an entry without what it counts.
func (r *Registry) bareLocked(e *entry) Endpoint {
	s := Endpoint{
		Definition: e.def, UID: e.uid, Inherited: r.inheritedLocked(e.def, e.address), Address: e.address, State: e.state, Reason: e.reason, CreateTime: e.created,
		UpdateTime: e.updated, ExpireTime: e.expires, ETag: e.tag,
	}
	if e.state == Failed {
		s.RetryTime = e.retry.at
	}
	if r.closing && s.State == Serving {
		s.State = Draining
	}
	return s
}
