package echo

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
)

// Endpoint is one echo service of an [Engine]. [Engine.Listen] opens it and [Endpoint.Close] ends it.
type Endpoint struct {
	engine   *Engine
	server   server
	counters counters
	protocol Protocol
	addr     netip.AddrPort
	device   string // the interface that it is bound to; empty: none
	place    Place
	guard    *guard // of a UDP endpoint

	lone bool // it has no socket of its own, but connections alone

	stopped atomic.Bool

	updating sync.Mutex // orders updates, pauses and the end, and guards what follows
	asked    Address
	paused   bool

	mu   sync.Mutex // guards what follows; never held over anything else
	over bool
	err  error         // why, once it is over
	fail func(error)   // is told of err
	done chan struct{} // made when it is asked for: most of thousands of endpoints are never waited for
}

// server is the protocol's half of an endpoint.
type server interface {
	// start begins to answer, unless it is paused. It does not wait; once, when the last of the endpoint has gone after stop
	// or by itself, it calls finish with the reason, which may be net.ErrClosed or nil after stop.
	start(finish func(error), paused bool)
	// pause returns when nothing of it touches a socket any more.
	pause()
	// hand answers the sockets of one that is paused, and, even with an error, those that the caller is to close.
	hand(context.Context) (Handed, error)
	// socket answers a duplicate of what takes new work.
	socket() (*os.File, error)
	// resume goes on from pause. With an error, it has ended.
	resume() error
	// abandon gives back the sockets of an endpoint that is not to start, or that is paused. It does not call finish.
	abandon()
	// observe brings the counters up to what only the system counts. It may be called at any time, by anybody.
	observe()
	// update changes the options while serving.
	update(Spec)
	// stop closes the socket that takes new work, so that its port is free when it returns. It is called once.
	stop()
	// cut ends at once what is still under way after stop. It may be called more than once.
	cut()
}

// bind opens the socket of e and nothing else: no goroutine runs before it is known that there is one.
func (e *Endpoint) bind(ctx context.Context, s Spec) (err error) {
	if e.protocol == UDP {
		e.guard = newGuard(e.engine, s)
		e.server, e.addr, err = e.engine.sockets.bindUDP(ctx, e.asked, s, e.guard, e.engine.ledgers, &e.counters)
	} else {
		e.server, e.addr, err = e.engine.sockets.bindTCP(ctx, e.asked, s, &e.engine.budget, e.engine.observe, &e.counters)
	}
	if err != nil {
		return bindError(s.where(), e.asked, err)
	}
	return nil
}

// finish notes that nothing of the endpoint is left, and why.
func (e *Endpoint) finish(err error) {
	if e.stopped.Load() && errors.Is(err, net.ErrClosed) {
		err = nil
	}
	e.engine.forget(e)
	if fail := e.end(err); fail != nil && err != nil {
		fail(err)
	}
}

// end notes why the endpoint is over, and answers who is to be told when it was not closed.
func (e *Endpoint) end(err error) (fail func(error)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over, e.err = true, err
	if e.done != nil {
		close(e.done)
	}
	return e.fail
}

// Addr returns the address as bound: with the port that was picked for port 0, and "[::]:port" for a socket of all
// addresses (0.0.0.0 on a host without IPv6). It stays after Close.
func (e *Endpoint) Addr() netip.AddrPort { return e.addr }

// Update changes the options of the endpoint while it serves; no connection is dropped by it.
//
// A new IdleTimeout or StallTimeout counts from now for all open connections. All other options, Allow
// and Deny are for connections and datagrams to come: a lower MaxConnections closes none. A Listen that means the same address is no change, nor is
// port 0 again, nor the port that port 0 picked.
//
// Errors satisfy errors.Is with [ErrBadSpec], [ErrNeedsRebind], [ErrPaused], or [ErrClosed] after the endpoint is done; nothing
// has changed then.
func (e *Endpoint) Update(s Spec) error {
	address, err := s.parse()
	if err != nil {
		return err
	}
	e.updating.Lock()
	defer e.updating.Unlock()
	switch {
	case e.isOver():
		return ErrClosed
	case e.paused:
		return ErrPaused
	}
	samePort := address.Port == e.asked.Port || address.Port == e.addr.Port()
	if s.Protocol != e.protocol || address.IP != e.asked.IP || !samePort || s.Interface != e.device || s.Place != e.place {
		return ErrNeedsRebind
	}
	e.asked = address
	e.server.update(s)
	return nil
}

// Stats returns the counters as they are now.
func (e *Endpoint) Stats() Stats {
	e.server.observe()
	return e.counters.snapshot()
}

// Done returns a channel that closes when the endpoint no longer serves and all its goroutines have left.
func (e *Endpoint) Done() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done == nil {
		e.done = make(chan struct{})
		if e.over {
			close(e.done)
		}
	}
	return e.done
}

// Err returns why the endpoint ended without being closed. It is nil if it was closed, and before Done.
func (e *Endpoint) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// OnFailure has fail called when the endpoint ends without being closed, once, with what Err returns from then on. It is
// called by what serves, and so must not wait, nor call the endpoint or its engine. When that has happened already,
// OnFailure returns the reason, and fail is not called. A later call takes the place of an earlier one.
func (e *Endpoint) OnFailure(fail func(error)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fail = fail
	return e.err
}

func (e *Endpoint) isOver() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.over
}

// Close stops taking connections and datagrams at once, lets open connections go on until their peers end them or ctx
// ends, and then cuts those that are left with a reset, so that no peer takes the cut for the end of its echo. When it
// returns, always nil, the port is free and all goroutines have left. A context that has ended already cuts at once.
//
// Closing again waits in the same way and, when its context ends earlier, cuts earlier. Of a paused endpoint Close is
// [Endpoint.Release]: it is not known whether its connections are another's by now.
func (e *Endpoint) Close(ctx context.Context) error {
	e.stop()
	e.drain(ctx)
	return nil
}

func (e *Endpoint) stop() {
	e.updating.Lock()
	defer e.updating.Unlock()
	if e.releasePaused() || e.stopped.Swap(true) {
		return
	}
	e.server.stop()
}

// drain waits until everything has left, and cuts what has not when ctx ends.
func (e *Endpoint) drain(ctx context.Context) {
	done := e.Done()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	e.server.cut()
	<-done
}
