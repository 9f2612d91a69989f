// Package registry owns the named endpoints of a daemon and their lifetime: create, start, stop, update, delete, expiry, the
// sessions that end with their clients, and bringing all that back after a restart. It keeps definitions (in the store, when
// there is one) and asks the echo engine for what serves them. It knows no sockets and no wire format; rpc calls it, and server.
//
// Every change is in effect, and on disk where there is a store, when the call that made it returns.
package registry

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/netwatch"
)

// What a caller may decide on. The texts of the errors that wrap them name the endpoint and say what to do next.
var (
	ErrNotFound   = errors.New("no such endpoint")
	ErrExists     = errors.New("the name is taken")
	ErrNeedsStop  = errors.New("the endpoint must be stopped first")
	ErrStale      = errors.New("the endpoint has changed")
	ErrNotStored  = errors.New("the change cannot be kept")
	ErrNotServing = errors.New("the endpoint does not serve")
	ErrClosing    = errors.New("the daemon is stopping")
	ErrNoTTL      = errors.New("the endpoint has no ttl")
	ErrDraining   = errors.New("the endpoint is being stopped")
)

// Defaults of what a definition leaves open.
const (
	DefaultIdleTimeout    = 10 * time.Minute
	DefaultStallTimeout   = 5 * time.Minute
	DefaultMaxConnections = 1024
)

// Definition is what a caller sets of an endpoint. It is what the store keeps, so its JSON names are part of the format.
type Definition struct {
	Name     string        `json:"name"`
	Protocol echo.Protocol `json:"protocol"`
	Listen   string        `json:"listen"` // empty: a free port of the default host
	// NetworkNamespace is where it listens, as package netns takes it. Empty: in the daemon's own.
	NetworkNamespace string `json:"networkNamespace,omitempty"`
	// Interface is the interface or VRF that it is bound to. Empty: none.
	Interface   string            `json:"interface,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Description string            `json:"description,omitempty"`
	TCP         TCPOptions        `json:"tcp"` // all zero for UDP
	UDP         UDPOptions        `json:"udp"` // all zero for TCP
	Sources     Sources           `json:"sources"`
	TTL         time.Duration     `json:"ttlNanos,omitempty"` // how long it lives from its last renewal; 0: for ever
	Session     string            `json:"session,omitempty"`  // whose end is its end; never changes; empty: nobody's
}

// UDPOptions are the options of a UDP endpoint.
type UDPOptions struct {
	NoLoopGuard        bool   `json:"noLoopGuard,omitempty"`
	MaxSourceDatagrams uint32 `json:"maxSourceDatagramsPerSecond,omitempty"` // 0: no limit
	MaxSourceBytes     uint64 `json:"maxSourceBytesPerSecond,omitempty"`     // 0: no limit
}

// TCPOptions are the options of a TCP endpoint.
type TCPOptions struct {
	OneShot     bool          `json:"oneShot,omitempty"`
	IdleTimeout time.Duration `json:"idleTimeoutNanos"` // 0: never
	// 0: never. So it is for a record of before there was a stall timeout, too: that endpoint had none.
	StallTimeout      time.Duration `json:"stallTimeoutNanos"`
	MaxConnections    uint32        `json:"maxConnections"`              // 0: no limit
	MaxBytes          uint64        `json:"maxBytes,omitempty"`          // 0: no limit
	SocketBufferBytes uint32        `json:"socketBufferBytes,omitempty"` // 0: the engine's default
}

// Sources are whose connections and datagrams an endpoint takes, with prefixes as [echo.ParseSource] makes them: those from
// Deny are not, and where Allow is not empty, only those from Allow.
type Sources struct {
	Allow []netip.Prefix `json:"allow,omitempty"`
	Deny  []netip.Prefix `json:"deny,omitempty"`
}

// State tells whether an endpoint answers.
type State uint8

// The states of an endpoint.
const (
	Serving  State = iota + 1 // bound and answering
	Stopped                   // kept, but bound to nothing
	Draining                  // on the way to Stopped: open connections may finish
	Failed                    // meant to serve and does not; Reason says why. It is tried again by itself
)

// Endpoint is an endpoint as it stands: a value that changes no more.
type Endpoint struct {
	Definition
	UID        string
	Inherited  string         // the service manager's name of its socket; empty: the daemon has bound it
	Address    netip.AddrPort // as bound; kept while stopped; zero when it was never bound
	State      State
	Reason     string // why it Failed
	Stats      echo.Stats
	CreateTime time.Time
	UpdateTime time.Time // of the definition
	ExpireTime time.Time // zero without a TTL
	RetryTime  time.Time // when it is tried again, at the latest; zero unless it Failed
	ETag       string
}

// Store is where definitions survive a crash.
type Store interface {
	Put(kind, key string, value []byte) error
	Delete(kind, key string) error
	// Write puts and deletes records as one change.
	Write(kind string, puts map[string][]byte, deletes []string) error
	Each(kind string, fn func(key string, value []byte) error) error
}

// Config is what a Registry stands on.
type Config struct {
	Engine      *echo.Engine // serves the endpoints; required
	Store       Store        // nil: in memory only
	DefaultHost string       // listens for definitions that say nothing; empty: 127.0.0.1
	Inherited   []Inherited  // sockets that exist already; Restore takes them over
	Keeper      Keeper       // has sockets outlive this process; nil: nobody does
	Events      *event.Log   // is told of every change, in order; nil: nobody is
	// Network tells when what has Failed may serve again, or what serves does so no more. The registry follows what it needs of
	// it, and leaves closing it to the caller, after its own Close. nil: nobody tells.
	Network *netwatch.Watch
	Log     *slog.Logger // nil: nobody is told
}

// Registry is the set of a daemon's endpoints. It is safe for concurrent use: calls on different endpoints do not wait
// for each other, calls that change the same one take turns.
type Registry struct {
	engine      *echo.Engine
	store       Store
	defaultHost string
	events      *event.Log
	log         *slog.Logger
	network     *netwatch.Watch
	looks       *looks

	mu       sync.Mutex // guards what follows and the fields of the entries; never held over I/O
	entries  map[string]*entry
	sessions map[string]*session
	leases   *leases
	heals    *heals
	closing  bool // set by Close: what serves drains, and nothing new is bound
	frozen   bool // nothing changes until it is thawed: another process may take over

	inherited []Inherited               // until Restore
	keeper    Keeper                    // nil: there is none
	back      map[string]*given         // by endpoint: what was kept over the last process, until it is bound
	given     map[string]*given         // by endpoint: what the service manager has made
	kept      map[*echo.Endpoint]string // by what names the keeper has their sockets

	connections struct {
		left int           // endpoints that are one connection
		over chan struct{} // closed when there is none left
	}
}

// New makes an empty registry.
func New(c Config) *Registry {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.DefaultHost == "" {
		c.DefaultHost = "127.0.0.1"
	}
	r := &Registry{
		engine: c.Engine, store: c.Store, defaultHost: c.DefaultHost, events: c.Events, log: c.Log, entries: map[string]*entry{},
		sessions: map[string]*session{}, leases: newLeases(), heals: newHeals(), network: c.Network, looks: newLooks(),
		inherited: c.Inherited, keeper: c.Keeper,
		back: map[string]*given{}, given: map[string]*given{}, kept: map[*echo.Endpoint]string{},
	}
	r.connections.over = make(chan struct{})
	return r
}

// Get answers one endpoint, or ErrNotFound.
func (r *Registry) Get(name string) (Endpoint, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entries[name]
	if e == nil || !e.announced {
		return Endpoint{}, notFound(name)
	}
	return r.snapshotLocked(e), nil
}

// List answers up to limit endpoints for which match is true, by name, from the first after the name after; more tells
// whether there are others behind them. A nil match takes all. They are as they were at one moment: of what is done as one
// change, all is seen or nothing. Match is not shown what endpoints count.
func (r *Registry) List(after string, limit int, match func(*Endpoint) bool) (found []Endpoint, more bool) {
	for _, s := range r.behind(after, limit, match == nil) {
		if match != nil && !match(&s.Endpoint) {
			continue
		}
		if len(found) == limit {
			return found, true
		}
		found = append(found, s.whole())
	}
	return found, false
}

// Matching answers the names of the endpoints for which match is true, in order. Match is not shown what they count.
func (r *Registry) Matching(match func(*Endpoint) bool) (names []string) {
	for _, s := range r.behind("", math.MaxInt, false) {
		if match(&s.Endpoint) {
			names = append(names, s.Name)
		}
	}
	return names
}

// behind answers the endpoints after a name, in order; where every one counts, one more than limit will do.
func (r *Registry) behind(name string, limit int, every bool) []sight {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make([]string, 0, len(r.entries))
	for n, e := range r.entries {
		if e.announced && n > name {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	if every && limit < len(names) {
		names = names[:limit+1]
	}
	all := make([]sight, 0, len(names))
	for _, n := range names {
		all = append(all, r.sightLocked(r.entries[n]))
	}
	return all
}

// Len answers how many endpoints there are, stopped ones included.
func (r *Registry) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.entries)
}

func notFound(name string) error { return fmt.Errorf("%w: %q", ErrNotFound, name) }
