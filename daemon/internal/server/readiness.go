package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/health"
	"github.com/echod/echod/daemon/internal/registry"
	"github.com/echod/echod/daemon/internal/rpc"
	"github.com/echod/echod/daemon/internal/store"
)

// What readiness depends on, in the order in which it is told.
const (
	checkRestored  = "restored"
	checkState     = "state"
	checkEndpoints = "endpoints"
	checkDraining  = "draining"
)

const (
	// lookEvery is how often it is looked at what does not tell by itself.
	lookEvery = 250 * time.Millisecond
	// tellEvery is how often at most an event tells of readiness: what comes and goes in between is not told.
	tellEvery = time.Second
	// failuresShown is how many failed endpoints are named.
	failuresShown = 3
)

// newReadiness is that of a daemon that starts.
func newReadiness() *health.Readiness {
	return health.New(
		health.Check{Name: checkRestored, State: health.NotReady, Message: "the daemon is starting and brings back what its state directory holds"},
		health.Check{Name: checkState, State: health.Ready},
		health.Check{Name: checkEndpoints, State: health.Ready},
		health.Check{Name: checkDraining, State: health.Ready},
	)
}

// lookout sets the checks of readiness by what it sees.
type lookout struct {
	readiness *health.Readiness
	events    *event.Log
	endpoints interface {
		// Beat returns when endpoints can be reached.
		Beat()
		Failures(limit int) (count int, first []registry.Failure)
	}
	store   func() error // why nothing can be kept; touches no disk; nil: there is nothing to keep
	damaged string       // what was wrong with the state file as it was opened; empty: nothing
	strict  bool         // an endpoint that failed is enough for NotReady
	pulse   pulse

	// What count has seen last, which one goroutine calls.
	seen     uint64        // the newest event then
	failures *health.Check // nil: it was not called yet
}

// run looks until ctx ends. It has two goroutines, since only one may be held up by what it looks at.
func (l *lookout) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { l.beat(ctx) })
	for wait(ctx, lookEvery) {
		l.look()
	}
}

// wait answers false when ctx ends before d is over.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// look sets what can be seen without waiting.
func (l *lookout) look() {
	state, message := health.Ready, ""
	if l.damaged != "" {
		state, message = health.Degraded, l.damaged
	}
	if l.store != nil {
		if err := l.store(); errors.Is(err, store.ErrLost) {
			state, message = health.NotReady, err.Error()
		} else if err != nil {
			state, message = health.NotReady, fmt.Sprintf("cannot be written, so that nothing can be changed: %v", err)
		}
	}
	l.readiness.Set(checkState, state, message)
	if err := l.pulse.alive(); err != nil {
		l.readiness.Set(checkEndpoints, health.NotReady, err.Error())
	}
}

// beat takes the pulse.
func (l *lookout) beat(ctx context.Context) {
	for {
		l.pulse.take(l.count)
		if !wait(ctx, lookEvery) {
			return
		}
	}
}

// count looks at the endpoints, at each of them only where something was told since it did last. It may be held up.
func (l *lookout) count() {
	l.endpoints.Beat()
	if seen := l.events.Revision(); l.failures == nil || l.seen != seen {
		l.seen, l.failures = seen, &health.Check{State: health.Ready}
		if count, first := l.endpoints.Failures(failuresShown); count > 0 {
			l.failures.State, l.failures.Message = health.Degraded, failureText(count, first)
			if l.strict {
				l.failures.State = health.NotReady
			}
		}
	}
	l.readiness.Set(checkEndpoints, l.failures.State, l.failures.Message)
}

func failureText(count int, first []registry.Failure) string {
	texts := make([]string, 0, len(first)+1)
	for _, f := range first {
		texts = append(texts, fmt.Sprintf("%s (%s)", f.Name, f.Reason))
	}
	if rest := count - len(first); rest > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", rest))
	}
	return fmt.Sprintf("%d failed: %s", count, strings.Join(texts, ", "))
}

// stuckAfter is how long it may take to have the registry's lock and a turn of each loop, until nobody waits for it any more.
const stuckAfter = 10 * time.Second

// pulse tells whether the daemon does anything at all. It is taken now and then, and if that takes long, calls and endpoints are
// not answered either. A process that was stopped, or whose host slept, is not stuck.
type pulse struct {
	mu    sync.Mutex // guards began
	began time.Time  // when what is under way began; zero: nothing is
}

// take notes for how long f is under way.
func (p *pulse) take(f func()) {
	p.set(time.Now())
	f()
	p.set(time.Time{})
}

func (p *pulse) set(began time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began = began
}

// alive answers at once, with an error when the daemon is stuck. It depends on no disk and no peer.
func (p *pulse) alive() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.began.IsZero() {
		return nil
	}
	if d := time.Since(p.began); d > stuckAfter {
		return fmt.Errorf("the daemon is stuck: endpoints cannot be reached for %v; start it anew, and report its log", d.Round(time.Second))
	}
	return nil
}

// herald tells of readiness: grpc.health.v1 at once, in events and in the log now and then.
type herald struct {
	readiness *health.Readiness
	health    *grpchealth.Server
	services  []string // that health tells of
	events    *event.Log
	log       *slog.Logger

	mu    sync.Mutex // guards what follows
	told  rpc.DaemonEvent
	at    time.Time // when it was told; zero: nothing was yet
	ended bool      // that the daemon stops was told, after which there is no more to tell
}

// run tells of changes until ctx ends.
func (h *herald) run(ctx context.Context) {
	for ctx.Err() == nil {
		changed := h.readiness.Changed()
		h.serve()
		var later <-chan time.Time
		if wait := h.tell(); wait > 0 {
			later = time.After(wait)
		}
		select {
		case <-changed:
		case <-later:
		case <-ctx.Done():
		}
	}
}

// serve has grpc.health.v1 say what is the case.
func (h *herald) serve() {
	h.mu.Lock()
	defer h.mu.Unlock()
	status := grpc_health_v1.HealthCheckResponse_SERVING
	if h.readiness.Report().State == health.NotReady {
		status = grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	for _, service := range h.services {
		h.health.SetServingStatus(service, status)
	}
}

// begin tells that the daemon has started, and how.
func (h *herald) begin(start rpc.Start) {
	h.serve()
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.nowLocked()
	e.Start = start
	h.tellLocked(e)
}

// tell tells of what has changed, and answers how long it has to wait for that; 0: there is nothing to tell.
func (h *herald) tell() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.nowLocked()
	if h.at.IsZero() || h.ended || e.State == h.told.State && e.Reason == h.told.Reason {
		return 0
	}
	if wait := tellEvery - time.Since(h.at); wait > 0 {
		return wait
	}
	h.tellLocked(e)
	return 0
}

func (h *herald) nowLocked() rpc.DaemonEvent {
	report := h.readiness.Report()
	return rpc.DaemonEvent{State: rpc.StateOf(report.State), Reason: report.Reason()}
}

func (h *herald) tellLocked(e rpc.DaemonEvent) {
	first := h.at.IsZero()
	h.told, h.at = e, time.Now()
	h.events.Append(event.Event{Type: event.StateChanged, Kind: event.Daemon, Subject: e, Bytes: len(e.Reason)})
	switch {
	case e.State == rpc.DaemonDegraded:
		h.log.Warn("degraded", "reason", e.Reason)
	case e.State == rpc.DaemonNotReady:
		h.log.Error("not ready", "reason", e.Reason)
	case e.State == rpc.DaemonReady && !first:
		h.log.Info("ready again")
	}
}

// end tells at once that the daemon stops, and why that may take a while.
func (h *herald) end(reason string) {
	h.readiness.Set(checkDraining, health.NotReady, reason)
	h.serve()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended {
		h.ended = true
		h.tellLocked(rpc.DaemonEvent{State: rpc.DaemonStopping, Reason: reason})
	}
}
