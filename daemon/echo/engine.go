package echo

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Options of an [Engine]. The zero value is the engine to use.
type Options struct {
	// Portable serves by package net, a goroutine a socket, also where there is something faster: on Linux, loops over
	// epoll. Both do the same, and the same tests hold them to it.
	Portable bool
	// MaxSockets is how many sockets the engine may have open at once, those of connections included; what is left of the
	// process's descriptors is for others. A connection over it is closed as it comes, an endpoint over it is
	// [ErrTooManyFiles]. 0 is no limit but the system's.
	MaxSockets int
	// Observe is told of each TCP connection that comes and, if it wants, of its end. nil: nobody is.
	Observe Observe
}

// budget counts the sockets of an engine against their limit.
type budget struct {
	limit int64 // 0: none
	open  atomic.Int64
}

// take counts one more in, or answers false when there is none left to take. The caller owes a give.
func (b *budget) take() bool {
	if b.open.Add(1) > b.limit && b.limit > 0 {
		b.open.Add(-1)
		return false
	}
	return true
}

func (b *budget) give() { b.open.Add(-1) }

// sockets opens the sockets of an engine's endpoints.
type sockets interface {
	bindTCP(context.Context, Address, Spec, *budget, Observe, *counters) (server, netip.AddrPort, error)
	bindUDP(context.Context, Address, Spec, *guard, *ledgers, *counters) (server, netip.AddrPort, error)
	// What these answer is paused, and has sockets of its own: the files stay as they are.
	adoptTCP(Address, Spec, Handed, *budget, Observe, *counters) (server, netip.AddrPort, error)
	adoptUDP(Address, Spec, Handed, *guard, *ledgers, *counters) (server, netip.AddrPort, error)
	// beat returns when all that many sockets wait for has had a turn.
	beat()
	// close ends what serves them, once there are none left. It may be called again.
	close()
}

// Engine opens endpoints and owns their sockets and goroutines. Make one with [New] and end it with [Engine.Close].
type Engine struct {
	sockets sockets
	budget  budget
	observe Observe
	own     ownEndpoints
	ledgers *ledgers
	binding sync.WaitGroup // Listen calls under way

	mu        sync.Mutex // guards what follows
	closed    bool
	endpoints map[*Endpoint]struct{}
}

// New returns an engine without endpoints. It holds nothing until the first [Engine.Listen].
func New(o Options) *Engine {
	g := &Engine{sockets: portable{}, observe: o.Observe, ledgers: newLedgers(), endpoints: make(map[*Endpoint]struct{})}
	g.budget.limit = int64(o.MaxSockets)
	if !o.Portable {
		g.sockets = fastest()
	}
	return g
}

// Listen opens an endpoint, which is bound and answers when Listen returns. The context bounds the binding alone, not
// the life of the endpoint.
//
// Errors satisfy errors.Is with [ErrBadSpec], [ErrClosed] once [Engine.Close] was called, the context's error, or with
// [ErrAddressInUse], [ErrAddressNotAvailable], [ErrPortNeedsPrivilege], [ErrInterfaceNotAvailable] or [ErrTooManyFiles]
// when that is why the address cannot be bound, or with that of a Place which cannot be had.
func (g *Engine) Listen(ctx context.Context, s Spec) (*Endpoint, error) {
	address, err := s.parse()
	if err != nil {
		return nil, err
	}
	if !g.begin() {
		return nil, fmt.Errorf("cannot bind %s: %w", s.Listen, ErrClosed)
	}
	defer g.binding.Done()

	e := &Endpoint{engine: g, protocol: s.Protocol, asked: address, device: s.Interface, place: s.Place}
	if !g.budget.take() {
		return nil, fmt.Errorf("cannot bind %s: %w", s.Listen, ErrTooManyFiles)
	}
	if err := e.bind(ctx, s); err != nil {
		g.budget.give()
		return nil, err
	}
	if !g.start(e) {
		e.server.abandon()
		g.budget.give()
		return nil, fmt.Errorf("cannot bind %s: %w", s.Listen, ErrClosed)
	}
	return e, nil
}

// Close closes all endpoints at once, as [Endpoint.Close] does: none takes anything new from here on, open connections
// may finish until ctx ends and are cut then. It returns nil after the last goroutine has left. Closing again waits in
// the same way and, when its context ends earlier, cuts earlier.
func (g *Engine) Close(ctx context.Context) error {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.binding.Wait()

	// None is added any more: binding was waited for, and new calls are refused.
	g.mu.Lock()
	endpoints := make([]*Endpoint, 0, len(g.endpoints))
	for e := range g.endpoints {
		endpoints = append(endpoints, e)
	}
	g.mu.Unlock()

	for _, e := range endpoints {
		e.stop()
	}
	for _, e := range endpoints {
		e.drain(ctx)
	}
	g.sockets.close()
	return nil
}

// begin reports whether a Listen may go on; if so, the caller owes a binding.Done.
func (g *Engine) begin() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.binding.Add(1)
	return true
}

// start lets e serve, unless the engine was closed meanwhile.
func (g *Engine) start(e *Endpoint) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.endpoints[e] = struct{}{}
	if e.protocol == UDP {
		g.own.add(e.addr, e.guard.namespace, e.place)
	}
	e.server.start(e.finish, e.paused)
	return true
}

func (g *Engine) forget(e *Endpoint) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.endpoints, e)
	if !e.lone {
		g.budget.give()
	}
	if e.protocol == UDP {
		g.own.remove(e.addr, e.guard.namespace)
	}
}
