package echo

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// connections keeps account of the open connections of a TCP endpoint, and says which may come. C is what an engine has
// for a connection.
type connections[C comparable] struct {
	budget   *budget
	counters *counters
	observer Observe
	timeouts atomic.Pointer[timeouts]

	mu      sync.Mutex // guards what follows
	options TCPOptions
	tag     any
	sources *sources
	stopped bool
	open    map[C]struct{} // made with the first
}

// timeouts are those of TCPOptions (0 for never), and when they were set: they count from there, at the earliest.
type timeouts struct {
	idle, stall time.Duration
	since       time.Time
}

// without stands for all endpoints that have none.
var without timeouts

func (o *connections[C]) init(s Spec, b *budget, observer Observe, c *counters) {
	o.budget, o.observer, o.counters = b, observer, c
	o.options, o.tag, o.sources = s.TCP, s.Tag, newSources(s)
	o.timeouts.Store(&without)
	if s.TCP.IdleTimeout != 0 || s.TCP.StallTimeout != 0 {
		o.timeouts.Store(&timeouts{idle: s.TCP.IdleTimeout, stall: s.TCP.StallTimeout})
	}
}

// admit makes c one of the open connections and answers the options that it is to have, and the tag of the
// endpoint; or it counts why not.
func (o *connections[C]) admit(c C, from netip.Addr) (options TCPOptions, tag any, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if reason := o.refuseLocked(from); reason != noEvent {
		o.counters.count(reason, 1)
		return TCPOptions{}, nil, false
	}
	if o.open == nil {
		o.open = make(map[C]struct{})
	}
	o.open[c] = struct{}{}
	o.counters.connectionsOpen.Add(1)
	o.counters.connectionsTotal.Add(1)
	return o.options, o.tag, true
}

// adopt makes c one of the open connections, which comes from there unless it has been served before. It answers what admit does.
func (o *connections[C]) adopt(c C, served bool, from netip.Addr) (options TCPOptions, tag any, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !served && !o.sources.take(from) {
		return TCPOptions{}, nil, wrongSocket("its peer %v is not of the sources that may connect", from)
	}
	if !o.budget.take() {
		return TCPOptions{}, nil, ErrTooManyFiles
	}
	if o.open == nil {
		o.open = make(map[C]struct{})
	}
	o.open[c] = struct{}{}
	o.counters.connectionsOpen.Add(1)
	if !served {
		o.counters.connectionsTotal.Add(1)
	}
	return o.options, o.tag, nil
}

func (o *connections[C]) refuseLocked(from netip.Addr) event {
	switch limit := o.options.MaxConnections; {
	case o.stopped:
		return dropClosing
	case !o.sources.take(from):
		return dropSourceDenied
	case limit > 0 && len(o.open) >= limit:
		return dropMaxConnections
	case !o.budget.take():
		return dropMaxSockets
	}
	return noEvent
}

// leave takes c out. It answers whether nothing of the endpoint is left with it.
func (o *connections[C]) leave(c C) (last bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.open, c)
	o.budget.give()
	o.counters.connectionsOpen.Add(-1)
	return o.stopped && len(o.open) == 0
}

// stop admits no more. It answers whether none is open.
func (o *connections[C]) stop() (none bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopped = true
	return len(o.open) == 0
}

// all returns those that are open now.
func (o *connections[C]) all() []C {
	o.mu.Lock()
	defer o.mu.Unlock()
	open := make([]C, 0, len(o.open))
	for c := range o.open {
		open = append(open, c)
	}
	return open
}

// update takes new options. It answers whether the timeouts, which count for open connections, too, are others now.
func (o *connections[C]) update(s Spec) (timeoutsChanged bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	timeoutsChanged = s.TCP.IdleTimeout != o.options.IdleTimeout || s.TCP.StallTimeout != o.options.StallTimeout
	o.options, o.tag, o.sources = s.TCP, s.Tag, newSources(s)
	if timeoutsChanged {
		o.timeouts.Store(&timeouts{idle: s.TCP.IdleTimeout, stall: s.TCP.StallTimeout, since: time.Now()})
	}
	return timeoutsChanged
}

// after answers how long a connection may go on without a byte moving, and what it is ended for then; 0 is for ever.
// stalled says that its peer does not take what waits for it.
func (t *timeouts) after(stalled bool) (time.Duration, event) {
	if stalled && t.stall > 0 && (t.idle == 0 || t.stall < t.idle) {
		return t.stall, dropStallTimeout
	}
	return t.idle, dropIdleTimeout
}

// buffers are asked of the kernel, in bytes; it takes about twice as much, and no more than the system lets it
// (net.core.rmem_max and wmem_max on Linux).
type buffers struct{ receive, send int }

// shallow are those of connections that nobody has said anything of.
var shallow = buffers{tcpReceiveBytes, tcpSendBytes}

// buffers are those of a connection.
func (o TCPOptions) buffers() buffers {
	if b := o.SocketBufferBytes; b != 0 {
		return buffers{b, b}
	}
	return shallow
}
