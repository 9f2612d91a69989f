// Package runs owns the probes that a daemon runs: it names and starts them, lets them be looked at and stopped while
// they run, and keeps the last ones for a while after they ended. How a round trip is made is the business of package
// probe; rpc calls this one.
package runs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/echod/echod/daemon/internal/budget"
	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/probe"
	"github.com/echod/echod/daemon/verdict"
)

const (
	// keepCount and keepTime bound what is kept of probes that have ended.
	keepCount = 100
	keepTime  = 10 * time.Minute
	// followAhead is how many samples may wait for one that follows a probe and reads slowly.
	followAhead = 8192
)

// What a caller may decide on.
var (
	ErrNotFound = errors.New("no such probe")
	ErrExists   = errors.New("the name is taken")
	ErrClosed   = errors.New("the daemon is stopping")
	ErrTooSlow  = errors.New("the samples are not read as fast as they come")
)

// State tells how far a run is.
type State uint8

// The states of a run.
const (
	Running State = iota + 1 // rounds leave, or replies are waited for
	Done                     // it did all that its plan says
	Stopped                  // it was ended early
)

// Target is what was asked for, for whoever looks at the run: what to probe (the plan has the address), and what to
// expect of it.
type Target struct {
	Endpoint string // name of an endpoint of this daemon, or empty
	Address  string // "host:port" as asked, or empty
	Protocol probe.Protocol
	Expect   *verdict.Expectations // what the report is judged by; nil: nothing is expected
	Ledger   string                // "host:port" of the API that has the target's ledger, or empty
}

// Run is a run as it stands: a value that changes no more.
type Run struct {
	Name       string
	UID        string
	Target     Target
	Plan       probe.Plan
	State      State
	Report     probe.Report // so far
	CreateTime time.Time
	EndTime    time.Time // zero while it runs
}

// Manager is the set of a daemon's runs. It is safe for concurrent use.
type Manager struct {
	prober *probe.Prober
	budget *budget.Budget
	events *event.Log
	wg     sync.WaitGroup // the runs, and expiry

	mu     sync.Mutex // guards what follows and the fields of the runs
	runs   map[string]*run
	expiry *time.Timer // forgets what was kept for long enough; nil when nothing is kept
	closed bool
}

type run struct {
	name    string
	uid     string
	target  Target
	plan    probe.Plan
	created time.Time
	cancel  context.CancelFunc
	done    chan struct{} // closed when it has ended; what follows is written before

	stopped bool // it was asked to end early
	ended   time.Time
	report  probe.Report
	err     error
}

// New makes an empty set; prober runs its plans, as far as there is room for them in the budget. events is told of each run:
// that it was created, that it has ended, that it is kept no more. nil: nobody is.
func New(prober *probe.Prober, b *budget.Budget, events *event.Log) *Manager {
	return &Manager{prober: prober, budget: b, events: events, runs: map[string]*run{}}
}

// Handle is one run, whatever becomes of its name. It is safe for concurrent use, but for Next.
type Handle struct {
	manager *Manager
	run     *run
	samples chan probe.Sample // nil unless it follows
}

// Start starts a run and answers at once. An empty name is filled in; the name of a run that has ended may be taken
// again. The error is ErrExists, ErrClosed, probe.ErrBadPlan, or says that the target is not allowed or that the budget
// has no room. Where the target's name has to be looked up first, the run that is started ends by itself with the last
// two, and Wait and Next answer them.
func (m *Manager) Start(name string, target Target, plan probe.Plan) (*Handle, error) {
	return m.start(&Handle{manager: m}, name, target, plan, nil)
}

// Follow starts a run as Start does; Next of the handle answers each of its samples.
func (m *Manager) Follow(name string, target Target, plan probe.Plan) (*Handle, error) {
	h := &Handle{manager: m, samples: make(chan probe.Sample, followAhead)}
	return m.start(h, name, target, plan, h.take)
}

func (m *Manager) start(h *Handle, name string, target Target, plan probe.Plan, emit func(probe.Sample) error) (*Handle, error) {
	if err := m.prober.Check(plan); err != nil {
		return nil, err
	}
	share, plan, err := m.budget.Reserve(plan)
	if err != nil {
		return nil, err
	}
	if plan.Tally == nil {
		plan.Tally = new(probe.Tally)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &run{
		name: name, uid: uuid.NewString(), target: target, plan: plan, created: time.Now(),
		cancel: cancel, done: make(chan struct{}),
	}
	if err := m.add(r); err != nil {
		cancel()
		share.Release()
		return nil, err
	}
	go func() {
		defer m.wg.Done()
		defer cancel()
		report, err := m.prober.Run(ctx, plan, emit)
		share.Release()
		m.finish(r, report, err)
	}()
	h.run = r
	return h, nil
}

// add enters a run, and counts it into the wait group under the lock that Close takes.
func (m *Manager) add(r *run) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pruneLocked()
	if m.closed {
		return ErrClosed
	}
	old := m.runs[r.name]
	if old != nil && old.ended.IsZero() {
		return fmt.Errorf("%w: probe %q runs; choose another, or stop that one", ErrExists, r.name)
	}
	if old != nil {
		m.dropLocked(old, event.Deleted)
	}
	for r.name == "" {
		if name := "probe-" + uuid.NewString()[:6]; m.runs[name] == nil {
			r.name = name
		}
	}
	m.runs[r.name] = r
	m.tellLocked(event.Created, r)
	m.wg.Add(1)
	return nil
}

func (m *Manager) finish(r *run, report probe.Report, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.report, r.err, r.ended = report, err, time.Now()
	r.plan.Tally, r.plan.Admit = nil, nil // the histograms are much larger than the report that is kept
	if err != nil {
		r.stopped = true
	}
	close(r.done)
	m.tellLocked(event.StateChanged, r)
	m.pruneLocked()
	m.expireLocked()
}

// pruneLocked drops what ended too long ago, and the oldest of what is too much.
func (m *Manager) pruneLocked() {
	var ended []*run
	for _, r := range m.runs {
		switch {
		case r.ended.IsZero():
		case time.Since(r.ended) >= keepTime:
			m.dropLocked(r, event.Expired)
		default:
			ended = append(ended, r)
		}
	}
	if len(ended) <= keepCount {
		return
	}
	slices.SortFunc(ended, func(a, b *run) int { return a.ended.Compare(b.ended) })
	for _, r := range ended[:len(ended)-keepCount] {
		m.dropLocked(r, event.Expired)
	}
}

// dropLocked forgets a run, and tells why.
func (m *Manager) dropLocked(r *run, why event.Type) {
	delete(m.runs, r.name)
	m.tellLocked(why, r)
}

// expireLocked has the run that has been kept for the longest forgotten in time, whether anybody looks or not.
func (m *Manager) expireLocked() {
	if m.expiry != nil || m.closed {
		return
	}
	var first time.Time
	for _, r := range m.runs {
		if !r.ended.IsZero() && (first.IsZero() || r.ended.Before(first)) {
			first = r.ended
		}
	}
	if first.IsZero() {
		return
	}
	m.wg.Add(1)
	m.expiry = time.AfterFunc(time.Until(first.Add(keepTime)), func() {
		defer m.wg.Done()
		m.mu.Lock()
		defer m.mu.Unlock()
		m.expiry = nil
		if !m.closed {
			m.pruneLocked()
			m.expireLocked()
		}
	})
}

// tellLocked writes into the log what has happened to a run.
func (m *Manager) tellLocked(what event.Type, r *run) {
	s := r.snapshotLocked()
	s.Plan.Tally, s.Plan.Admit, s.Plan.Ledger = nil, nil, nil // of a run under way they are alive
	m.events.Append(event.Event{Type: what, Kind: event.Probe, Name: r.name, Subject: s, Bytes: s.bytes()})
}

// Get answers one run, or ErrNotFound.
func (m *Manager) Get(name string) (Run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pruneLocked()
	r := m.runs[name]
	if r == nil {
		return Run{}, notFound(name)
	}
	return r.snapshotLocked(), nil
}

// List answers up to limit runs by name, from the first after the name after, and whether there are others behind them.
func (m *Manager) List(after string, limit int) (found []Run, more bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pruneLocked()
	names := make([]string, 0, len(m.runs))
	for name := range m.runs {
		if name > after {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if len(found) == limit {
			return found, true
		}
		found = append(found, m.runs[name].snapshotLocked())
	}
	return found, false
}

// Run answers the run as it stands.
func (h *Handle) Run() Run {
	h.manager.mu.Lock()
	defer h.manager.mu.Unlock()
	return h.run.snapshotLocked()
}

// Wait waits until the run has ended and answers it. When ctx ends before, the run is stopped, and the answer is the run
// with what it has measured so far, with ctx's error.
func (h *Handle) Wait(ctx context.Context) (Run, error) {
	select {
	case <-h.run.done:
		return h.manager.ended(h.run), h.run.err
	case <-ctx.Done():
		return h.manager.stop(h.run), context.Cause(ctx)
	}
}

// Stop ends the run early, unless it has ended, and answers it with its report.
func (h *Handle) Stop() Run { return h.manager.stop(h.run) }

// Stop ends a run early and answers it with its report; one that has ended is answered as it is.
func (m *Manager) Stop(name string) (Run, error) {
	r, err := m.find(name)
	if err != nil {
		return Run{}, err
	}
	return m.stop(r), nil
}

// Delete stops a run if need be, and forgets it.
func (m *Manager) Delete(name string) error {
	r, err := m.find(name)
	if err != nil {
		return err
	}
	m.stop(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.runs[name] == r {
		m.dropLocked(r, event.Deleted)
	}
	return nil
}

// Close stops every run and waits for them. What they measured so far goes to whoever waits for or follows them.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	for _, r := range m.runs {
		r.stopLocked()
	}
	if m.expiry != nil && m.expiry.Stop() {
		m.expiry = nil
		m.wg.Done()
	}
	m.mu.Unlock()
	m.wg.Wait()
}

func (m *Manager) find(name string) (*run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pruneLocked()
	if r := m.runs[name]; r != nil {
		return r, nil
	}
	return nil, notFound(name)
}

func (m *Manager) stop(r *run) Run {
	m.mu.Lock()
	r.stopLocked()
	m.mu.Unlock()
	return m.ended(r)
}

func (m *Manager) ended(r *run) Run {
	<-r.done
	m.mu.Lock()
	defer m.mu.Unlock()
	return r.snapshotLocked()
}

func (r *run) stopLocked() {
	if r.ended.IsZero() {
		r.stopped = true
		r.cancel()
	}
}

func (r *run) snapshotLocked() Run {
	s := Run{
		Name: r.name, UID: r.uid, Target: r.target, Plan: r.plan, State: Running, CreateTime: r.created, EndTime: r.ended,
	}
	if r.ended.IsZero() {
		s.Report = r.plan.Tally.Report()
		if !s.Report.Address.IsValid() { // it has not begun; where an address is no name, it is known all the same
			s.Report.Address, _ = netip.ParseAddrPort(r.plan.Address)
			s.Report.PayloadBytes = r.plan.PayloadBytes
		}
		return s
	}
	s.Report, s.State = r.report, Done
	if r.stopped {
		s.State = Stopped
	}
	return s
}

// take is called by the probe for each sample; it must not block.
func (h *Handle) take(s probe.Sample) error {
	select {
	case h.samples <- s:
		return nil
	default:
		return fmt.Errorf("%w: %d wait; follow by aggregates, or at a longer interval", ErrTooSlow, followAhead)
	}
}

// Next answers the next sample; ok is false when there is none left because the run has ended. The error is ctx's, or
// ErrTooSlow when samples came faster than Next was called; the run has ended then.
func (h *Handle) Next(ctx context.Context) (s probe.Sample, ok bool, err error) {
	select {
	case s = <-h.samples:
		return s, true, nil
	default:
	}
	select {
	case s = <-h.samples:
		return s, true, nil
	case <-h.run.done:
	case <-ctx.Done():
		return s, false, context.Cause(ctx)
	}
	// The run has ended, so nothing is added any more; what is left came before the end.
	select {
	case s = <-h.samples:
		return s, true, nil
	default:
		return s, false, h.run.err
	}
}

func notFound(name string) error {
	return fmt.Errorf("%w: %q (probes that have ended are kept for %v, the last %d of them)", ErrNotFound, name, keepTime, keepCount)
}
