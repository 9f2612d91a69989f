package echo

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// acceptsATurn bounds what one listener may do before others have their turn.
const acceptsATurn = 64

// loopTCP is a TCP endpoint that loops serve: its listener stands in one of them, its connections in all.
type loopTCP struct {
	connections[*loopConn]
	loops  *loops
	home   *loop // of the listener
	finish func(error)
	ended  atomic.Bool

	failure error // why no more is accepted; written before the connections are stopped

	// What follows is touched by the home loop alone.
	listener int
	given    int // the receive buffer that it had from the system
	receive  int // what connections are given as receive buffer; 0: what they have
	at       int32
	queued   bool // it has asked for another turn
	closed   bool
	backoff  time.Duration
	retry    timer
}

func (g *loops) bindTCP(ctx context.Context, a Address, spec Spec, b *budget, o Observe, c *counters) (server, netip.AddrPort, error) {
	if err := ctx.Err(); err != nil {
		return nil, netip.AddrPort{}, err
	}
	if err := g.ensure(); err != nil {
		return nil, netip.AddrPort{}, err
	}
	s := &loopTCP{loops: g}
	fd, bound, err := bindSocket(a, unix.SOCK_STREAM, spec, func(fd int) (err error) {
		if s.given, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil {
			return err
		}
		if s.receive, err = prepareBuffers(fd, spec.TCP, s.given); err != nil {
			return err
		}
		_ = setOptions(fd, option{unix.IPPROTO_TCP, unix.TCP_SAVE_SYN, 1}) // its DSCP is wanted, and can be done without
		return setOptions(fd, listenerOptions...)
	})
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	if err := unix.Listen(fd, listenBacklog); err != nil {
		_ = unix.Close(fd)
		return nil, netip.AddrPort{}, err
	}
	s.home, s.listener = g.assign(nil), fd
	s.retry.owner = s
	s.init(spec, b, o, c)
	return s, bound, nil
}

// Connections have these from their listener.
var listenerOptions = []option{
	{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}, // over connections in TIME_WAIT
	{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	// Urgent data (RFC 6093) is data: it comes back where it stood.
	{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1},
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAlive.Idle.Seconds())},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepAlive.Interval.Seconds())},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAlive.Count},
}

// start begins to accept.
func (s *loopTCP) start(finish func(error), paused bool) {
	s.finish = finish
	if paused {
		return
	}
	s.home.do(func() {
		if err := s.listen(); err != nil {
			s.end(err)
		}
	})
}

// listen has the home loop accept. If it cannot, the listener is closed.
func (s *loopTCP) listen() error {
	if s.closed {
		return nil
	}
	at, err := s.home.add(s.listener, s)
	if err != nil {
		s.closeListener()
		return err
	}
	s.at = at
	return nil
}

// handle accepts what waits, for a while.
func (s *loopTCP) handle(events uint32) {
	if events == 0 {
		s.queued = false
	}
	if s.closed || s.retry.index > 0 { // a pause lasts, whatever comes meanwhile
		return
	}
	for range acceptsATurn {
		fd, errno := acceptFD(s.listener, &s.home.name)
		switch errno {
		case 0:
			s.backoff = 0
			s.take(fd)
		case unix.EAGAIN:
			return
		case unix.EINTR, unix.ECONNABORTED:
		default:
			// No descriptor, most likely. The connections wait in the kernel's queue meanwhile.
			s.counters.count(errorAccept, 1)
			s.tryAgain()
			return
		}
	}
	if !s.queued {
		s.queued = true
		s.home.later(s)
	}
}

// expire ends a pause.
func (s *loopTCP) expire() { s.handle(unix.EPOLLIN) }

// tryAgain has the listener wait before it accepts again, ever longer.
func (s *loopTCP) tryAgain() {
	s.backoff = min(max(2*s.backoff, firstPause), maxPause)
	s.home.timers.set(&s.retry, s.home.now+s.backoff)
}

// take lets a connection be served by the loop that has the least to do, or turns it away.
func (s *loopTCP) take(fd int) {
	c := &loopConn{server: s, loop: s.loops.assign(s.home), fd: fd}
	peer := sourceOf(&s.home.name)
	options, tag, ok := s.admit(c, peer.Addr())
	if !ok {
		closeFD(fd)
		c.loop.leave()
		return
	}
	c.init(options, s.receive)
	c.told = s.observer.tell(tag, peer)
	s.counters.lastActivity.Store(s.home.clock())
	if c.loop == s.home {
		c.begin()
		return
	}
	c.loop.do(c.begin)
}

// gone notes that a connection is over.
func (s *loopTCP) gone(c *loopConn) {
	if s.leave(c) {
		s.end(s.failure)
	}
}

// end says, once, that nothing of the endpoint is left.
func (s *loopTCP) end(err error) {
	if s.ended.CompareAndSwap(false, true) {
		s.finish(err)
	}
}

func (s *loopTCP) update(spec Spec) {
	timeouts := s.connections.update(spec)
	s.home.await(func() {
		if !s.closed {
			if s.receive == 0 && spec.TCP.SocketBufferBytes == 0 {
				unlockReceiveBuffer(s.listener, s.given)
			}
			s.receive, _ = prepareBuffers(s.listener, spec.TCP, s.given) // it went well before
		}
	})
	if !timeouts {
		return
	}
	for _, c := range s.all() {
		c.loop.do(c.rearm)
	}
}

// stop closes the listener and returns when its port is free.
func (s *loopTCP) stop() {
	s.home.await(func() {
		if s.closed {
			return
		}
		s.home.timers.cancel(&s.retry)
		s.home.remove(s.at, s.listener)
		s.closeListener()
	})
	// Only now: with the last connection that leaves from here on, the endpoint is over.
	if s.connections.stop() {
		s.end(nil)
	}
}

// observe has nothing to ask: TCP loses nothing.
func (s *loopTCP) observe() {}

// closeListener gives back the listener.
func (s *loopTCP) closeListener() {
	s.closed = true
	_ = unix.Close(s.listener)
	s.home.leave()
}

func (s *loopTCP) abandon() {
	if !s.closed {
		s.closeListener()
	}
	for _, c := range s.all() {
		c.abandon()
	}
}

func (s *loopTCP) cut() {
	for _, c := range s.all() {
		c.loop.do(c.cut)
	}
}
