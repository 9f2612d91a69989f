// Package monitor owns probes that repeat by themselves: it keeps their definitions (in the store, when there is one), runs
// each at its times, spread out so that many do not run together, and remembers for a while what came of it. How a round
// trip is made is the business of package probe; what a definition's probe means is its owner's, who gives this package
// a function for it. It knows no endpoints and no wire format; rpc calls it, and server.
//
// Every change is in effect, and on disk where there is a store, when the call that made it returns.
package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/probe"
	"github.com/echod/echod/daemon/verdict"
)

// What a definition has when it says nothing else.
const (
	DefaultInterval     = time.Minute
	DefaultHistoryLimit = 10
)

const (
	// maxMonitors and maxHistory bound what a daemon keeps; maxHistory is the sum of the history limits of all monitors.
	maxMonitors = 10_000
	maxHistory  = 100_000
	// maxRunning bounds the runs at once. A run of the default probe takes 0.8 s: that is some 300 runs a second.
	maxRunning = 256
	// lateLeast is how much later than its time a run begins that counts as late.
	lateLeast = 100 * time.Millisecond
	// firstWithin bounds how long a new monitor of a long interval waits for its first run, and after a stall any.
	firstWithin = time.Minute
	// stallLeast is how much later than it was to the scheduler looks that means the process, or the machine, stood still.
	stallLeast = time.Second
	// retryFirst is what a run waits that finds too little left before it is tried again. Each time it waits twice as long, up
	// to an eighth of its interval and retryMost.
	retryFirst = 50 * time.Millisecond
	retryMost  = time.Minute
	// retryAhead is how many of those that wait are tried, one after the other, when a run has ended.
	retryAhead = 32
	// againAfter is how many runs in a row have to come at their turns before the log says that a monitor runs again.
	againAfter = 10
	// expectKept is how many characters of an expectation older runs keep.
	expectKept = 100
)

// What a caller may decide on. The texts of the errors that wrap them name the monitor and say what to do next.
var (
	ErrNotFound  = errors.New("no such monitor")
	ErrExists    = errors.New("the name is taken")
	ErrStale     = errors.New("the monitor has changed")
	ErrNotStored = errors.New("the change cannot be kept")
	ErrTooMany   = errors.New("too many monitors")
	ErrBadExpect = errors.New("an expectation cannot be understood")
	ErrChanged   = errors.New("the monitor was paused, changed or deleted while it ran")
	ErrBusy      = errors.New("the daemon has too much to do to run the monitor")
	ErrClosed    = errors.New("the daemon is stopping")
)

// Definition is what a caller sets of a monitor. It is what the store keeps, so its JSON names are part of the format.
type Definition struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels,omitempty"`
	Description string            `json:"description,omitempty"`
	// Probe is what to run, in the form that Config.Prepare understands.
	Probe json.RawMessage `json:"probe"`
	// Expect is what is expected of each report; nothing is at least one reply.
	Expect       []string      `json:"expect,omitempty"`
	Interval     time.Duration `json:"intervalNanos"` // from the start of a run to that of the next; 0: DefaultInterval
	HistoryLimit int           `json:"historyLimit"`  // how many runs are kept; 0: DefaultHistoryLimit
	Paused       bool          `json:"paused,omitempty"`
}

// Target is what was asked to be probed, for whoever looks at a run; the plan has the address.
type Target struct {
	Endpoint string // name of an endpoint of this daemon, or empty
	Address  string // "host:port" as asked, or empty
	Protocol probe.Protocol
}

// State tells what a monitor is doing.
type State uint8

// The states of a monitor.
const (
	Waiting State = iota + 1 // between two runs
	Running                  // a run is under way
	Paused                   // no run begins by itself
)

// Verdict tells whether the last run was as expected.
type Verdict uint8

// The verdicts on a monitor.
const (
	Unknown Verdict = iota + 1 // no run of what is probed now has ended
	Met                        // all that is expected was met
	NotMet                     // something was not, or the probe could not be run
)

// Run is one run that has ended.
type Run struct {
	Start, End time.Time
	Target     Target
	Met        bool
	Failure    string            // why the probe could not be run; else empty
	Report     probe.Report      // zero where there is a Failure
	Expected   bool              // whether there was any expectation
	Verdicts   []verdict.Verdict // what became of each; of older runs the first characters of those not met
}

// Counters are running totals.
type Counters struct {
	Runs     uint64 // that ended by themselves
	Failures uint64 // of those: that were not as expected
	Skipped  uint64 // that were due and are not among Runs
	Late     uint64 // of Runs: that began more than lateLeast after their time
}

// Monitor is a monitor as it stands: a value that changes no more.
type Monitor struct {
	Definition
	UID        string
	State      State
	Verdict    Verdict
	Since      time.Time // when the run ended that made the verdict what it is; zero while Unknown
	NextRun    time.Time // zero while paused
	Last       *Run      // nil while Unknown
	History    []Run     // newest first; List leaves it out
	Counters   Counters
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

// Prober makes round trips, as *probe.Prober does. An error that is ErrBusy says that the daemon has too much to do: the
// run is tried again until the next is due. Any other is why the run failed.
type Prober interface {
	Run(ctx context.Context, plan probe.Plan, emit func(probe.Sample) error) (probe.Report, error)
}

// Config is what a Manager stands on.
type Config struct {
	Prober Prober // runs the plans; required
	// Prepare says what a definition's Probe comes to at this moment. Its error is why a run failed. Required.
	Prepare func(json.RawMessage) (Target, probe.Plan, error)
	Store   Store        // nil: in memory only
	Events  *event.Log   // is told of every change and every run, in order; nil: nobody is
	Log     *slog.Logger // nil: nobody is told
}

// Manager is the set of a daemon's monitors. It is safe for concurrent use.
type Manager struct {
	Config
	epoch time.Time      // what due times are counted from, by the monotonic clock
	turn  chan struct{}  // holds a token while somebody changes a definition; the store takes one change at a time anyway
	wake  chan struct{}  // tells the scheduler to look again
	wg    sync.WaitGroup // the scheduler and the runs

	mu      sync.Mutex // guards what follows and the fields of the entries; never held over I/O
	entries map[string]*entry
	due     queue
	waiting []*entry // refused and not under way, the one without a run for the longest first
	ended   uint64   // how many runs have ended
	running int
	history int // the sum of the history limits
	closed  bool
	frozen  bool // no run begins: another process may take over
}

// New makes an empty set and starts its scheduler, which Close ends.
func New(c Config) *Manager {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	m := &Manager{
		Config: c, epoch: time.Now(), turn: make(chan struct{}, 1), wake: make(chan struct{}, 1), entries: map[string]*entry{},
	}
	m.wg.Go(m.schedule)
	return m
}

// Get answers one monitor with its history, or ErrNotFound.
func (m *Manager) Get(name string) (Monitor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[name]
	if e == nil {
		return Monitor{}, notFound(name)
	}
	return m.wholeLocked(e), nil
}

// List answers up to limit monitors for which match is true, by name, from the first after the name after, without their
// histories; more tells whether there are others behind them. A nil match takes all.
func (m *Manager) List(after string, limit int, match func(*Monitor) bool) (found []Monitor, more bool) {
	m.mu.Lock()
	names := make([]string, 0, len(m.entries))
	for name := range m.entries {
		if name > after {
			names = append(names, name)
		}
	}
	m.mu.Unlock()
	slices.Sort(names)
	for _, name := range names {
		// One at a time: runs begin and end meanwhile, whatever match takes.
		s, ok := m.brief(name)
		if !ok || match != nil && !match(&s) {
			continue // deleted meanwhile, or not asked for
		}
		if len(found) == limit {
			return found, true
		}
		found = append(found, s)
	}
	return found, false
}

func (m *Manager) brief(name string) (Monitor, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[name]
	if e == nil {
		return Monitor{}, false
	}
	return m.snapshotLocked(e), true
}

// Close ends the runs that are under way and the scheduler, and waits for them. Definitions stay as they are.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	for _, e := range m.entries {
		m.interruptLocked(e, ErrClosed)
		m.dropRequestLocked(e, ErrClosed)
	}
	m.mu.Unlock()
	m.wakeUp()
	m.wg.Wait()
}

// snapshotLocked reads an entry, its history left out.
func (m *Manager) snapshotLocked(e *entry) Monitor {
	s := Monitor{
		Definition: e.def.clone(), UID: e.uid, State: Waiting, Verdict: e.verdict, Since: e.since, Counters: e.counters,
		CreateTime: e.created, UpdateTime: e.updated, ETag: e.tag,
	}
	if e.queued() {
		s.NextRun = e.dueAt
	}
	switch {
	case e.underWay() && e.run.void == nil:
		s.State = Running
	case e.def.Paused:
		s.State = Paused
	}
	// A run of something else says nothing of what is probed now.
	if n := len(e.history); n > 0 && e.verdict != Unknown {
		last := e.history[n-1]
		s.Last = &last
	}
	return s
}

func (m *Manager) wholeLocked(e *entry) Monitor {
	s := m.snapshotLocked(e)
	s.History = slices.Clone(e.history)
	slices.Reverse(s.History)
	return s
}

// tellLocked writes into the log of events what has happened to an entry. The caller holds the lock, since before it changed
// the entry.
func (m *Manager) tellLocked(what event.Type, e *entry) { m.Events.Append(m.eventLocked(what, e)) }

// What a monitor takes in the log of events besides its texts, about: most of it is the report of its last run.
const monitorBytes = 4096

// eventLocked is an event about an entry. It shares the definition, which is replaced as a whole and never changed.
func (m *Manager) eventLocked(what event.Type, e *entry) event.Event {
	s := m.snapshotLocked(e)
	s.Definition = e.def
	size := monitorBytes + len(e.def.Name) + len(e.def.Description) + len(e.def.Probe)
	for key, value := range e.def.Labels {
		size += len(key) + len(value)
	}
	for _, text := range e.def.Expect {
		size += len(text)
	}
	if s.Last != nil {
		s.Last.Report = Slim(s.Last.Report)
		size += len(s.Last.Failure)
		for _, v := range s.Last.Verdicts {
			size += len(v.Expect) + 64
		}
	}
	return event.Event{Type: what, Kind: event.Monitor, Name: e.def.Name, Subject: s, Bytes: size}
}

// now is the time since the epoch.
func (m *Manager) now() time.Duration { return time.Since(m.epoch) }

func notFound(name string) error { return fmt.Errorf("%w: %q", ErrNotFound, name) }
