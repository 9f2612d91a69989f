package echo

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// roundsATurn bounds what one socket may do before others have their turn.
	roundsATurn = 16
	// acceptsATurn likewise.
	acceptsATurn = 64
)

// loopTCP is a TCP endpoint that loops serve: its listener stands in one of them, its connections in all.
type loopTCP struct {
	loops    *loops
	home     *loop // of the listener
	budget   *budget
	counters *counters
	idle     atomic.Pointer[idleLimit]
	finish   func(error)

	// The listener's, touched by its loop alone.
	listener int
	at       int32
	retry    timer
	pause    time.Duration
	queued   bool // it has asked for another turn
	closed   bool

	mu      sync.Mutex // guards what follows
	options TCPOptions
	stopped bool
	open    map[*loopConn]struct{}
	ended   bool
}

func (g *loops) bindTCP(ctx context.Context, a Address, o TCPOptions, b *budget, c *counters) (server, netip.AddrPort, error) {
	if err := ctx.Err(); err != nil {
		return nil, netip.AddrPort{}, err
	}
	if err := g.ensure(); err != nil {
		return nil, netip.AddrPort{}, err
	}
	fd, bound, err := bindSocket(a, unix.SOCK_STREAM, func(fd int) error {
		return setOptions(fd,
			option{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}, // over connections in TIME_WAIT
			// Connections have these from their listener. The buffers' fixed size switches autotuning off.
			option{unix.SOL_SOCKET, unix.SO_RCVBUF, tcpSocketBytes}, option{unix.SOL_SOCKET, unix.SO_SNDBUF, tcpSocketBytes},
			option{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			option{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			option{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAlive.Idle.Seconds())},
			option{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepAlive.Interval.Seconds())},
			option{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAlive.Count})
	})
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	if err := unix.Listen(fd, listenBacklog); err != nil {
		_ = unix.Close(fd)
		return nil, netip.AddrPort{}, err
	}
	s := &loopTCP{loops: g, home: g.assign(nil), budget: b, counters: c, listener: fd, options: o, open: make(map[*loopConn]struct{})}
	s.idle.Store(&idleLimit{timeout: o.IdleTimeout})
	s.retry.call = func() { s.handle(unix.EPOLLIN) }
	return s, bound, nil
}

// start begins to accept.
func (s *loopTCP) start(finish func(error)) {
	s.finish = finish
	s.home.do(func() {
		if s.closed {
			return
		}
		at, err := s.home.add(s.listener, s)
		if err != nil {
			s.closed = true
			s.abandon()
			s.end(err)
			return
		}
		s.at = at
	})
}

// handle accepts what waits, for a while.
func (s *loopTCP) handle(events uint32) {
	if events == 0 {
		s.queued = false
	}
	if s.closed {
		return
	}
	for range acceptsATurn {
		fd, errno := acceptFD(s.listener)
		switch errno {
		case 0:
			s.pause = 0
			s.admit(fd)
		case unix.EAGAIN:
			return
		case unix.EINTR, unix.ECONNABORTED:
		default:
			// No descriptor, most likely. The connections wait in the kernel's queue meanwhile.
			s.counters.acceptErrors.Add(1)
			s.pause = min(max(2*s.pause, firstPause), maxPause)
			s.home.timers.set(&s.retry, s.home.now+s.pause)
			return
		}
	}
	if !s.queued {
		s.queued = true
		s.home.later(s)
	}
}

// admit lets a connection be served by the loop that has the least to do, or turns it away.
func (s *loopTCP) admit(fd int) {
	c := &loopConn{server: s, loop: s.loops.assign(s.home), fd: fd}
	if reason := s.register(c); reason != nil {
		reason.Add(1)
		_ = unix.Close(fd)
		c.loop.leave()
		return
	}
	s.counters.connectionsTotal.Add(1)
	s.counters.active(time.Now())
	if c.loop == s.home {
		c.begin()
		return
	}
	c.loop.do(c.begin)
}

func (s *loopTCP) register(c *loopConn) *atomic.Uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return &s.counters.closing
	}
	if limit := s.options.MaxConnections; limit > 0 && len(s.open) >= limit {
		return &s.counters.maxConnections
	}
	if !s.budget.take() {
		return &s.counters.maxSockets
	}
	c.oneShot = s.options.OneShot
	s.open[c] = struct{}{}
	s.counters.connectionsOpen.Add(1)
	return nil
}

func (s *loopTCP) unregister(c *loopConn) {
	s.mu.Lock()
	delete(s.open, c)
	s.budget.give()
	s.counters.connectionsOpen.Add(-1)
	last := s.stopped && len(s.open) == 0
	s.mu.Unlock()
	if last {
		s.end(nil)
	}
}

// end says, once, that nothing of the endpoint is left.
func (s *loopTCP) end(err error) {
	s.mu.Lock()
	first := !s.ended
	s.ended = true
	s.mu.Unlock()
	if first {
		s.finish(err)
	}
}

func (s *loopTCP) connections() []*loopConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := make([]*loopConn, 0, len(s.open))
	for c := range s.open {
		open = append(open, c)
	}
	return open
}

func (s *loopTCP) update(o TCPOptions, _ UDPOptions) {
	s.mu.Lock()
	changed := o.IdleTimeout != s.options.IdleTimeout
	s.options = o
	s.mu.Unlock()
	if !changed {
		return
	}
	s.idle.Store(&idleLimit{timeout: o.IdleTimeout, since: time.Now()})
	for _, c := range s.connections() {
		c.loop.do(c.rearm)
	}
}

// stop closes the listener and returns when its port is free.
func (s *loopTCP) stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	gone := make(chan struct{})
	s.home.do(func() {
		defer close(gone)
		if s.closed {
			return
		}
		s.closed = true
		s.home.timers.cancel(&s.retry)
		s.home.release(s.at)
		s.abandon()
	})
	<-gone
	s.mu.Lock()
	last := len(s.open) == 0
	s.mu.Unlock()
	if last {
		s.end(nil)
	}
}

// observe has nothing to ask: TCP loses nothing.
func (s *loopTCP) observe() {}

// abandon gives back the listener.
func (s *loopTCP) abandon() {
	_ = unix.Close(s.listener)
	s.home.leave()
}

func (s *loopTCP) cut() {
	for _, c := range s.connections() {
		c.loop.do(c.cut)
	}
}

// loopConn is one connection, touched by its loop alone.
type loopConn struct {
	server *loopTCP
	loop   *loop
	fd     int
	at     int32
	began  bool
	gone   bool

	finBehind bool   // the peer's FIN has come; there may be bytes before it
	queued    bool   // it has asked for another turn
	oneShot   bool   // of the endpoint when it came
	answered  bool   // a one-shot connection has: what comes now is thrown away
	pending   []byte // echo that the kernel has not taken yet; nothing is read meanwhile
	moved     time.Duration
	timer     timer // idle timeout, or a one-shot's grace
}

func (c *loopConn) begin() {
	if c.gone {
		return
	}
	at, err := c.loop.add(c.fd, c)
	if err != nil {
		c.close(&c.server.counters.acceptErrors)
		return
	}
	c.at, c.began = at, true
	c.moved = time.Since(c.loop.start)
	c.timer.call = c.expire
	c.rearm()
	// What came before the descriptor was in epoll is told as an event, too.
}

func (c *loopConn) handle(events uint32) {
	if events == 0 {
		c.queued = false
	}
	if c.gone {
		return
	}
	if events&unix.EPOLLRDHUP != 0 {
		c.finBehind = true
	}
	if len(c.pending) > 0 && !c.flush() {
		return
	}
	for range roundsATurn {
		if !c.echoOnce() {
			return
		}
	}
	if !c.queued {
		c.queued = true
		c.loop.later(c)
	}
}

// echoOnce sends back what one read returns. It answers whether there may be more to read now.
func (c *loopConn) echoOnce() bool {
	b := c.loop.buffer
	if c.oneShot {
		b = b[:tcpReadBytes]
	}
	n, errno := readFD(c.fd, b)
	switch {
	case errno == unix.EAGAIN:
		return false
	case errno == unix.EINTR:
		return true
	case errno != 0:
		c.fail(&c.server.counters.readErrors, errno)
		return false
	case n == 0:
		c.close(nil) // the peer is done, and so are we: a FIN behind the last byte
		return false
	}
	c.progress(&c.server.counters.bytesIn, n)
	more := n == len(b) || c.finBehind
	if c.answered {
		c.server.counters.oneShotRest.Add(uint64(n))
		return more
	}
	if !c.write(b[:n], false) {
		return false
	}
	if c.oneShot {
		return c.answer() && more
	}
	return more
}

// write echoes b. What the kernel does not take is kept, and then it answers false: nothing is read until it is gone.
// kept says that b is such a rest already, and not the loop's buffer.
func (c *loopConn) write(b []byte, kept bool) bool {
	for len(b) > 0 {
		n, errno := writeFD(c.fd, b)
		switch errno {
		case 0:
			c.progress(&c.server.counters.bytesOut, n)
			b = b[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			if !kept {
				b = append([]byte(nil), b...)
			}
			c.pending = b
			return false
		default:
			c.resetOnClose()
			c.fail(&c.server.counters.writeErrors, errno)
			return false
		}
	}
	c.pending = nil
	return true
}

// flush goes on with what the kernel had not taken.
func (c *loopConn) flush() bool {
	if !c.write(c.pending, true) {
		return false
	}
	return !c.oneShot || c.answered || c.answer()
}

// answer ends our side of a one-shot connection and lets the peer send what it still has, for a second at most: closing
// with unread bytes would send a reset, which can overtake the answer.
func (c *loopConn) answer() bool {
	if err := unix.Shutdown(c.fd, unix.SHUT_WR); err != nil {
		errno, _ := err.(syscall.Errno) //nolint:errorlint // x/sys/unix answers bare numbers
		c.fail(&c.server.counters.writeErrors, errno)
		return false
	}
	c.answered = true
	c.loop.timers.set(&c.timer, c.loop.now+oneShotGrace)
	return true
}

func (c *loopConn) progress(counter *atomic.Uint64, n int) {
	counter.Add(uint64(n))
	c.moved = c.loop.now
	c.server.counters.lastActivity.Store(c.loop.start.UnixNano() + int64(c.loop.now))
}

// rearm sets the timer by the endpoint's idle timeout as it is now. Bytes that move do not move the timer: when it fires,
// expire finds out when the last did.
func (c *loopConn) rearm() {
	if c.gone || !c.began || c.answered {
		return
	}
	if due := c.idleAt(); due != noDeadline {
		c.loop.timers.set(&c.timer, due)
		return
	}
	c.loop.timers.cancel(&c.timer)
}

// idleAt is when the connection will have been idle for too long. A timeout counts from its last change, at the earliest.
func (c *loopConn) idleAt() time.Duration {
	limit := c.server.idle.Load()
	if limit.timeout == 0 {
		return noDeadline
	}
	since := c.moved
	if !limit.since.IsZero() {
		since = max(since, limit.since.Sub(c.loop.start))
	}
	return since + limit.timeout
}

func (c *loopConn) expire() {
	switch due := c.idleAt(); {
	case c.answered:
		c.close(nil)
	case due > c.loop.now:
		c.rearm()
	default:
		if len(c.pending) > 0 {
			c.resetOnClose() // what it does not take has no taker
		}
		c.close(&c.server.counters.idleTimeout)
	}
}

// cut ends the connection at once, with a reset.
func (c *loopConn) cut() {
	if c.gone {
		return
	}
	c.resetOnClose()
	c.close(&c.server.counters.closing)
}

func (c *loopConn) resetOnClose() {
	_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// fail counts what ended the connection, as kind if it is nothing more special.
func (c *loopConn) fail(kind *atomic.Uint64, errno syscall.Errno) {
	if isReset(errno) {
		kind = &c.server.counters.resets
	}
	c.close(kind)
}

// close ends the connection and counts why, unless it is the regular end.
func (c *loopConn) close(reason *atomic.Uint64) {
	c.gone = true
	c.pending = nil
	if reason != nil {
		reason.Add(1)
	}
	if c.began {
		c.loop.timers.cancel(&c.timer)
		c.loop.release(c.at)
	}
	_ = unix.Close(c.fd)
	c.loop.leave()
	c.server.unregister(c)
}
