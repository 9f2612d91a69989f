package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/echod/echod/daemon/internal/registry"
)

// ErrStateLost says that a call has no answer: what it asks about was in a state that is lost.
var ErrStateLost = errors.New("endpoints and monitors are not known")

// Gate is what calls pass first. While the daemon starts they wait at it, so that whoever calls too soon is answered as soon as
// there is an answer; once the daemon stops, those that would begin something are refused with ErrStopping. What asks for the
// daemon's health always passes.
type Gate struct {
	once     sync.Once
	open     chan struct{} // closed by Open
	lost     error         // written before that
	stopping atomic.Bool
}

// NewGate makes a gate that is not open yet.
func NewGate() *Gate { return &Gate{open: make(chan struct{})} }

// Open lets calls pass: all that they need is there. What was written before it is seen by them.
func (g *Gate) Open() { g.once.Do(func() { close(g.open) }) }

// OpenWithout is Open for a daemon whose state is lost, for the reason given: calls that are about the endpoints and monitors that it
// had are refused with ErrStateLost. That there are none would be an answer that is wrong.
func (g *Gate) OpenWithout(why error) {
	g.once.Do(func() {
		g.lost = fmt.Errorf("%w: %w", ErrStateLost, why)
		close(g.open)
	})
}

// Stop refuses, from now on, calls that would begin something.
func (g *Gate) Stop() { g.stopping.Store(true) }

// pass waits until a call may go on, or ctx or stopping ends. A nil gate lets everything pass.
func (g *Gate) pass(ctx, stopping context.Context, method string) error {
	if g == nil || aboutHealth(method) {
		return nil
	}
	if begins(method) {
		if err := g.begin(); err != nil {
			return err
		}
	}
	select {
	case <-g.open:
		return g.opened(method)
	default:
	}
	select {
	case <-g.open:
		return g.opened(method)
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-stopping.Done():
		return ErrStopping
	}
}

// begin answers ErrStopping once nothing is to be begun any more. A nil gate never does.
func (g *Gate) begin() error {
	if g != nil && g.stopping.Load() {
		return ErrStopping
	}
	return nil
}

// opened answers a call that has passed an open gate.
func (g *Gate) opened(method string) error {
	if g.lost != nil && aboutState(method) {
		return g.lost
	}
	return nil
}

// Targets is targets of probes, of which none is said not to be there by a daemon whose state is lost.
func (g *Gate) Targets(t Targets) Targets { return gatedTargets{t, g} }

type gatedTargets struct {
	Targets
	gate *Gate
}

// Get implements Targets.
func (t gatedTargets) Get(name string) (registry.Endpoint, error) {
	e, err := t.Targets.Get(name)
	if !errors.Is(err, registry.ErrNotFound) {
		return e, err
	}
	select {
	case <-t.gate.open:
		if t.gate.lost != nil {
			return e, t.gate.lost
		}
	default:
	}
	return e, err
}

// aboutState says whether a method has no answer without what the state directory holds. A probe has one: its target may be
// anybody's, and Targets is for those that are ours.
func aboutState(method string) bool {
	for _, service := range []string{"EndpointService", "SessionService", "MonitorService", "EventService"} {
		if strings.HasPrefix(method, "/echo.v1."+service+"/") {
			return true
		}
	}
	return false
}

// aboutHealth says whether a method is answered whatever the daemon does: it needs nothing that may not be there.
func aboutHealth(method string) bool {
	return strings.HasPrefix(method, "/grpc.") || method == "/echo.v1.DaemonService/GetReadiness"
}

// beginnings are the first words of methods that begin something which would end with the daemon at once, or outlive it. Hold is none
// of them: it begins a session, or goes on with one, and SessionService tells these apart.
var beginnings = []string{"Apply", "BatchCreate", "Create", "Run", "Start", "Stream", "Upgrade"}

// begins says whether a method is refused by a daemon that stops. Others read, end or change what is there.
func begins(method string) bool {
	name := method[strings.LastIndexByte(method, '/')+1:]
	for _, word := range beginnings {
		if strings.HasPrefix(name, word) {
			return true
		}
	}
	return false
}
