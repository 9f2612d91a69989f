// Package registry owns the named endpoints of a daemon and their lifetime: create, start, stop, update, delete, and
// bringing them back after a restart. It keeps definitions (in the store, when there is one) and asks the echo engine for
// what serves them. It knows no sockets and no wire format; rpc calls it, and server.
//
// Every change is in effect, and on disk where there is a store, when the call that made it returns.
package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/echod/echod/daemon/echo"
)

// What a caller may decide on. The texts of the errors that wrap them name the endpoint and say what to do next.
var (
	ErrNotFound   = errors.New("no such endpoint")
	ErrExists     = errors.New("the name is taken")
	ErrNeedsStop  = errors.New("the endpoint must be stopped first")
	ErrStale      = errors.New("the endpoint has changed")
	ErrNameFixed  = errors.New("a name cannot be changed")
	ErrNotStored  = errors.New("the change cannot be kept")
	ErrNotServing = errors.New("the endpoint does not serve")
)

// Defaults of what a definition leaves open.
const (
	DefaultIdleTimeout    = 10 * time.Minute
	DefaultMaxConnections = 1024
)

// Definition is what a caller sets of an endpoint. It is what the store keeps, so its JSON names are part of the format.
type Definition struct {
	Name        string            `json:"name"`
	Protocol    echo.Protocol     `json:"protocol"`
	Listen      string            `json:"listen"` // empty: a free port of the default host
	Labels      map[string]string `json:"labels,omitempty"`
	Description string            `json:"description,omitempty"`
	TCP         TCPOptions        `json:"tcp"` // all zero for UDP
}

// TCPOptions are the options of a TCP endpoint.
type TCPOptions struct {
	OneShot        bool          `json:"oneShot,omitempty"`
	IdleTimeout    time.Duration `json:"idleTimeoutNanos"` // 0: never
	MaxConnections uint32        `json:"maxConnections"`   // 0: no limit
}

// State tells whether an endpoint answers.
type State uint8

// The states of an endpoint.
const (
	Serving  State = iota + 1 // bound and answering
	Stopped                   // kept, but bound to nothing
	Draining                  // on the way to Stopped: open connections may finish
	Failed                    // meant to serve and does not; Reason says why
)

// Endpoint is an endpoint as it stands: a value that changes no more.
type Endpoint struct {
	Definition
	UID        string
	Address    netip.AddrPort // as bound; kept while stopped; zero when it was never bound
	State      State
	Reason     string // why it Failed
	Stats      echo.Stats
	CreateTime time.Time
	UpdateTime time.Time // of the definition
	ETag       string
}

// Store is where definitions survive a crash.
type Store interface {
	Put(kind, key string, value []byte) error
	Delete(kind, key string) error
	Each(kind string, fn func(key string, value []byte) error) error
}

// Config is what a Registry stands on.
type Config struct {
	Engine      *echo.Engine // serves the endpoints; required
	Store       Store        // nil: in memory only
	DefaultHost string       // listens for definitions that say nothing; empty: 127.0.0.1
	Log         *slog.Logger // nil: nobody is told
}

// Registry is the set of a daemon's endpoints. It is safe for concurrent use: calls on different endpoints do not wait
// for each other, calls that change the same one take turns.
type Registry struct {
	engine      *echo.Engine
	store       Store
	defaultHost string
	log         *slog.Logger

	mu      sync.Mutex // guards the map and the fields of its entries; never held over I/O
	entries map[string]*entry
}

// entry is one endpoint. A change takes the turn first and keeps it over binding and writing; only the map and the fields
// need the registry's lock, for the moment of reading or writing them.
type entry struct {
	turn chan struct{} // holds a token while somebody changes the entry

	announced bool // false while it is being created: its name is taken, but nobody is shown it
	gone      bool // deleted; who waited for the turn finds this
	def       Definition
	uid       string
	address   netip.AddrPort
	state     State
	reason    string
	created   time.Time
	updated   time.Time
	live      *echo.Endpoint // nil unless serving or draining
	past      echo.Stats     // what it counted before its last stop
}

// New makes an empty registry.
func New(c Config) *Registry {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.DefaultHost == "" {
		c.DefaultHost = "127.0.0.1"
	}
	return &Registry{
		engine: c.Engine, store: c.Store, defaultHost: c.DefaultHost, log: c.Log, entries: map[string]*entry{},
	}
}

// Get answers one endpoint, or ErrNotFound.
func (r *Registry) Get(name string) (Endpoint, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entries[name]
	if e == nil || !e.announced {
		return Endpoint{}, notFound(name)
	}
	return e.snapshotLocked(), nil
}

// List answers up to limit endpoints for which match is true, by name, from the first after the name after; more tells
// whether there are others behind them. A nil match takes all.
func (r *Registry) List(after string, limit int, match func(*Endpoint) bool) (found []Endpoint, more bool) {
	r.mu.Lock()
	names := make([]string, 0, len(r.entries))
	for name, e := range r.entries {
		if e.announced && name > after {
			names = append(names, name)
		}
	}
	r.mu.Unlock()
	slices.Sort(names)
	for _, name := range names {
		e, err := r.Get(name)
		if err != nil || (match != nil && !match(&e)) {
			continue // deleted meanwhile, or not asked for
		}
		if len(found) == limit {
			return found, true
		}
		found = append(found, e)
	}
	return found, false
}

// Len answers how many endpoints there are, stopped ones included.
func (r *Registry) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.entries)
}

// Create binds a new endpoint and keeps it. An empty name is filled in. With validateOnly nothing is bound or kept, and
// the answer is what would be. The error is ErrExists, one of echo's for an address that cannot be had, or ErrNotStored.
func (r *Registry) Create(ctx context.Context, def Definition, validateOnly bool) (Endpoint, error) {
	r.complete(&def)
	if err := spec(def, netip.AddrPort{}).Validate(); err != nil {
		return Endpoint{}, err
	}
	now := time.Now()
	e := &entry{turn: make(chan struct{}, 1), def: def, uid: uuid.NewString(), created: now, updated: now, state: Stopped}
	e.turn <- struct{}{}
	defer e.release()
	if err := r.reserve(e, validateOnly); err != nil {
		return Endpoint{}, err
	}
	if validateOnly {
		return e.snapshotLocked(), nil // nobody else has this entry
	}
	live, err := r.engine.Listen(ctx, spec(e.def, netip.AddrPort{}))
	if err != nil {
		r.forget(e)
		return Endpoint{}, err
	}
	if err := r.keep(e.record(live.Addr(), true)); err != nil {
		r.forget(e)
		return Endpoint{}, errors.Join(err, live.Close(ended()))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e.servesLocked(live)
	e.announced = true
	return e.snapshotLocked(), nil
}

// complete fills in what a definition leaves open.
func (r *Registry) complete(def *Definition) {
	if def.Listen == "" {
		def.Listen = net.JoinHostPort(r.defaultHost, "0")
	}
}

// reserve takes the entry's name, or chooses one, so that no other create can have it while this one binds.
func (r *Registry) reserve(e *entry, validateOnly bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.def.Name != "" && r.entries[e.def.Name] != nil {
		return fmt.Errorf("%w: %q; choose another, or change that one with an update", ErrExists, e.def.Name)
	}
	for e.def.Name == "" {
		name := strings.ToLower(e.def.Protocol.String()) + "-" + uuid.NewString()[:6]
		if r.entries[name] == nil {
			e.def.Name = name
		}
	}
	if !validateOnly {
		r.entries[e.def.Name] = e
	}
	return nil
}

// forget takes an entry out of the registry.
func (r *Registry) forget(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.entries, e.def.Name)
	e.gone = true
}

// UpdateOptions say how an update is to be done.
type UpdateOptions struct {
	ETag         string // if not empty, the etag that the endpoint must have
	ValidateOnly bool   // change nothing, answer what would be
}

// Update changes the definition of an endpoint to what change makes of the present one. Labels, description, limits and
// timeouts take effect at once and drop no connection. The error is ErrNotFound, ErrStale, ErrNeedsStop, ErrNameFixed,
// ErrNotStored, or change's own.
func (r *Registry) Update(ctx context.Context, name string, opt UpdateOptions, change func(Definition) (Definition, error)) (Endpoint, error) {
	e, err := r.take(ctx, name)
	if err != nil {
		return Endpoint{}, err
	}
	defer e.release()
	// The turn is ours: nobody else writes these fields.
	if err := e.checkETag(opt.ETag); err != nil {
		return Endpoint{}, err
	}
	def, err := change(e.def.clone())
	if err != nil {
		return Endpoint{}, err
	}
	r.complete(&def)
	address, err := e.admit(def)
	if err != nil {
		return Endpoint{}, err
	}
	if opt.ValidateOnly || e.def.etag() == def.etag() {
		wanted := *e
		wanted.def, wanted.address = def, address
		r.mu.Lock()
		defer r.mu.Unlock()
		return wanted.snapshotLocked(), nil
	}
	before := e.record(e.address, e.running())
	changed := before
	changed.Definition, changed.Address, changed.UpdateTime = def, address, time.Now()
	if err := r.keep(changed); err != nil {
		return Endpoint{}, err
	}
	if e.live != nil {
		if err := e.live.Update(spec(def, e.address)); err != nil {
			return Endpoint{}, errors.Join(err, r.keep(before))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e.def, e.address, e.updated = def, address, changed.UpdateTime
	return e.snapshotLocked(), nil
}

// admit says whether an entry may become def as it stands, and which address it would keep.
func (e *entry) admit(def Definition) (netip.AddrPort, error) {
	if def.Name != e.def.Name {
		return e.address, fmt.Errorf("%w: %q cannot become %q; create another endpoint", ErrNameFixed, e.def.Name, def.Name)
	}
	if err := spec(def, netip.AddrPort{}).Validate(); err != nil {
		return e.address, err
	}
	if def.Protocol == e.def.Protocol && def.Listen == e.def.Listen {
		return e.address, nil
	}
	if e.live != nil {
		return e.address, fmt.Errorf("%w: %q serves %s on %s, and protocol and listen need a new socket",
			ErrNeedsStop, def.Name, e.def.Protocol, e.def.Listen)
	}
	return netip.AddrPort{}, nil // the next start finds a new one
}

// Delete stops an endpoint, giving open connections drain to finish, and forgets it. The error is ErrNotFound, ErrStale
// or ErrNotStored.
func (r *Registry) Delete(ctx context.Context, name, etag string, drain time.Duration) error {
	r.hurry(name, drain)
	e, err := r.take(ctx, name)
	if err != nil {
		return err
	}
	defer e.release()
	if err := e.checkETag(etag); err != nil {
		return err
	}
	if r.store != nil {
		if err := r.store.Delete(recordKind, name); err != nil {
			return fmt.Errorf("%w: %w", ErrNotStored, err)
		}
	}
	err = r.retire(e, drain)
	r.forget(e)
	return err
}

// Start binds a stopped or failed endpoint again, where it was. One that serves is answered as it is. The error is
// ErrNotFound, ErrNotStored, or one of echo's; a stopped endpoint that cannot start stays stopped.
func (r *Registry) Start(ctx context.Context, name string) (Endpoint, error) {
	e, err := r.take(ctx, name)
	if err != nil {
		return Endpoint{}, err
	}
	defer e.release()
	if e.live == nil {
		live, err := r.engine.Listen(ctx, spec(e.def, e.address))
		if err != nil {
			return Endpoint{}, err
		}
		if err := r.keep(e.record(live.Addr(), true)); err != nil {
			return Endpoint{}, errors.Join(err, live.Close(ended()))
		}
		r.mu.Lock()
		e.servesLocked(live)
		r.mu.Unlock()
	}
	return r.Get(name)
}

// Stop gives an endpoint's port back and keeps the rest. Open connections have drain to finish by themselves; 0 cuts
// them at once, and so does a second Stop that allows less. The error is ErrNotFound or ErrNotStored.
func (r *Registry) Stop(ctx context.Context, name string, drain time.Duration) (Endpoint, error) {
	r.hurry(name, drain)
	e, err := r.take(ctx, name)
	if err != nil {
		return Endpoint{}, err
	}
	defer e.release()
	if e.state != Stopped {
		if err := r.keep(e.record(e.address, false)); err != nil {
			return Endpoint{}, err
		}
		if err := r.retire(e, drain); err != nil {
			return Endpoint{}, err
		}
	}
	return r.Get(name)
}

// hurry shortens a drain that is under way: whoever stops or deletes a draining endpoint means it no later than this.
func (r *Registry) hurry(name string, drain time.Duration) {
	r.mu.Lock()
	e := r.entries[name]
	var live *echo.Endpoint
	if e != nil && e.state == Draining {
		live = e.live
	}
	r.mu.Unlock()
	if live != nil {
		ctx, cancel := drainContext(drain)
		defer cancel()
		// What it answers is told to the call that started the drain.
		_ = live.Close(ctx)
	}
}

// retire ends what serves an entry. The caller has the turn.
func (r *Registry) retire(e *entry, drain time.Duration) error {
	live := e.live
	if live == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		e.state, e.reason = Stopped, ""
		return nil
	}
	r.mu.Lock()
	e.state = Draining
	r.mu.Unlock()
	ctx, cancel := drainContext(drain)
	defer cancel()
	err := live.Close(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	e.past = sum(e.past, live.Stats())
	e.live, e.state, e.reason = nil, Stopped, ""
	return err
}

// Close drains every endpoint until ctx ends, then cuts; definitions stay as they are, so that a restart brings back
// what served.
func (r *Registry) Close(ctx context.Context) error { return r.engine.Close(ctx) }

// take waits for the turn on an endpoint. The caller must release it.
func (r *Registry) take(ctx context.Context, name string) (*entry, error) {
	r.mu.Lock()
	e := r.entries[name]
	r.mu.Unlock()
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

func (e *entry) release() { <-e.turn }

func (e *entry) servesLocked(live *echo.Endpoint) {
	e.live, e.address, e.state, e.reason = live, live.Addr(), Serving, ""
}

// running says whether the entry is meant to serve.
func (e *entry) running() bool { return e.state == Serving || e.state == Failed }

func (e *entry) checkETag(etag string) error {
	if etag != "" && etag != e.def.etag() {
		return fmt.Errorf("%w: %q has etag %s now, not %s; get it again and decide anew", ErrStale, e.def.Name, e.def.etag(), etag)
	}
	return nil
}

// snapshotLocked reads an entry. An endpoint whose engine gave it up is told as failed.
func (e *entry) snapshotLocked() Endpoint {
	s := Endpoint{
		Definition: e.def.clone(), UID: e.uid, Address: e.address, State: e.state, Reason: e.reason, Stats: e.past,
		CreateTime: e.created, UpdateTime: e.updated, ETag: e.def.etag(),
	}
	if e.live == nil {
		return s
	}
	s.Stats = sum(e.past, e.live.Stats())
	if e.state == Serving {
		select {
		case <-e.live.Done():
			if err := e.live.Err(); err != nil {
				s.State, s.Reason = Failed, err.Error()
			}
		default:
		}
	}
	return s
}

// spec says what the engine is to serve for a definition, at the address that it had, if any.
func spec(def Definition, had netip.AddrPort) echo.Spec {
	listen := def.Listen
	if had.Port() != 0 {
		if i := strings.LastIndexByte(listen, ':'); i >= 0 {
			listen = listen[:i+1] + strconv.Itoa(int(had.Port()))
		}
	}
	return echo.Spec{Protocol: def.Protocol, Listen: listen, TCP: echo.TCPOptions{
		OneShot: def.TCP.OneShot, IdleTimeout: def.TCP.IdleTimeout, MaxConnections: int(def.TCP.MaxConnections),
	}}
}

func drainContext(drain time.Duration) (context.Context, context.CancelFunc) {
	if drain <= 0 {
		return ended(), func() {}
	}
	return context.WithTimeout(context.Background(), drain)
}

// ended is a context that is over: what is closed with it is cut at once.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func notFound(name string) error { return fmt.Errorf("%w: %q", ErrNotFound, name) }
