package echo

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func (g *loops) adoptTCP(a Address, spec Spec, h Handed, b *budget, o Observe, c *counters) (server, netip.AddrPort, error) {
	if err := g.ensure(); err != nil {
		return nil, netip.AddrPort{}, err
	}
	s := &loopTCP{loops: g, home: g.all[0], listener: -1, closed: true}
	s.retry.owner = s
	s.init(spec, b, o, c)
	bound, err := s.adoptSockets(a, spec, h)
	if err != nil {
		s.abandon()
		return nil, netip.AddrPort{}, err
	}
	return s, bound, nil
}

// adoptSockets takes the sockets in. With an error, those that it has are to be abandoned.
func (s *loopTCP) adoptSockets(a Address, spec Spec, h Handed) (bound netip.AddrPort, err error) {
	if h.Socket == nil {
		s.connections.stop() // none is to come
	} else {
		if bound, err = checkListener(h.Socket, a, spec); err != nil {
			return bound, err
		}
		if s.listener, err = duplicate(h.Socket); err != nil {
			return bound, err
		}
		s.home, s.closed = s.loops.assign(nil), false
		if err := s.prepareAdopted(spec); err != nil {
			return bound, err
		}
	}
	for _, one := range h.Connections {
		local, err := s.adoptConnection(a, one)
		if err != nil {
			return bound, err
		}
		if h.Socket == nil {
			bound = local
		}
	}
	return bound, nil
}

// prepareAdopted sets what bindTCP sets, and what others may have set otherwise.
func (s *loopTCP) prepareAdopted(spec Spec) (err error) {
	s.given = receiveBuffer(s.listener)
	if hasOwnReceiveBuffer(s.listener) {
		if s.given, err = usualReceiveBuffer(spec); err != nil {
			return err
		}
		if spec.TCP.SocketBufferBytes == 0 {
			unlockReceiveBuffer(s.listener, s.given)
		}
	}
	if s.receive, err = prepareBuffers(s.listener, spec.TCP, s.given); err != nil {
		return err
	}
	_ = setOptions(s.listener, option{unix.IPPROTO_TCP, unix.TCP_SAVE_SYN, 1})
	if err := plainListener(s.listener); err != nil {
		return err
	}
	if err := setOptions(s.listener, listenerOptions...); err != nil {
		return err
	}
	return unix.Listen(s.listener, listenBacklog)
}

// adoptConnection takes a connection in and answers its own address.
func (s *loopTCP) adoptConnection(a Address, h HandedConnection) (local netip.AddrPort, err error) {
	var peer netip.AddrPort
	if h.Served {
		local, err = checkServed(h.Socket)
	} else {
		local, peer, err = checkConnection(h.Socket, a)
	}
	if err != nil {
		return local, err
	}
	c := &loopConn{server: s, loop: s.loops.assign(s.home)}
	options, tag, err := s.adopt(c, h.Served, peer.Addr())
	if err != nil {
		c.loop.leave()
		return local, err
	}
	if c.fd, err = duplicate(h.Socket); err != nil {
		c.fd = -1
		c.abandon()
		return local, err
	}
	if h.Served {
		c.takeOver(h)
		return local, nil
	}
	c.init(options, max(shallow.receive, receiveBuffer(c.fd)/2))
	if isInternet(c.fd) {
		_ = setOptions(c.fd, listenerOptions[1:]...)
	}
	_ = setOptions(c.fd, option{unix.SOL_SOCKET, unix.SO_SNDBUF, options.buffers().send})
	if options.SocketBufferBytes != 0 {
		_ = setOptions(c.fd, option{unix.SOL_SOCKET, unix.SO_RCVBUF, options.buffers().receive})
	}
	c.told = s.observer.tell(tag, peer)
	s.counters.active(time.Now())
	return local, nil
}

// takeOver has a connection go on from where it came.
func (c *loopConn) takeOver(h HandedConnection) {
	c.oneShot, c.left, c.answered = h.OneShot, h.Left, h.Answered
	c.pending, c.full = h.Pending, len(h.Pending) > 0
	c.receive, c.asked = h.Receive, true
	c.isDeep, c.mayDeepen = h.Deep, h.MayDeepen
	c.still, c.grace = h.Still, h.Grace
}

// abandon gives back the descriptor of a connection that no loop serves, without counting an end.
func (c *loopConn) abandon() {
	if c.fd >= 0 {
		closeFD(c.fd)
	}
	c.gone = true
	c.loop.leave()
	c.server.leave(c)
}

// pause has the loop serve the connection no more, until it begins again.
func (c *loopConn) pause() {
	if c.gone {
		return
	}
	l := c.loop
	l.remove(c.at, c.fd)
	c.began = false
	if c.queued {
		l.forget(c)
		c.queued = false
	}
	c.still = l.now - c.moved
	if since := c.server.timeouts.Load().since; !since.IsZero() {
		c.still = min(c.still, l.now-since.Sub(l.start))
	}
	c.still = max(c.still, 0)
	c.grace = max(c.timer.due-l.now, 0)
	l.timers.cancel(&c.timer)
	c.isDeep = l.deep.leave(c)
}

func (s *loopTCP) pause() {
	s.home.await(func() {
		if s.closed {
			return
		}
		s.home.remove(s.at, s.listener)
		s.home.timers.cancel(&s.retry)
		if s.queued {
			s.home.forget(s)
			s.queued = false
		}
	})
	// Whoever was accepted has its beginning in the mail of its loop by now, before what follows.
	s.eachLoop((*loopConn).pause)
}

// eachLoop has each connection's loop do something with it.
func (s *loopTCP) eachLoop(do func(*loopConn)) {
	of := make(map[*loop][]*loopConn)
	for _, c := range s.all() {
		of[c.loop] = append(of[c.loop], c)
	}
	for l, some := range of {
		l.await(func() {
			for _, c := range some {
				do(c)
			}
		})
	}
}

func (s *loopTCP) resume() error {
	// In this order: who is accepted begins by itself.
	s.eachLoop((*loopConn).begin)
	var err error
	s.home.await(func() { err = s.listen() })
	if err == nil {
		return nil
	}
	s.failure = err // before: the last connection ends with it
	if s.connections.stop() {
		s.end(err)
	}
	s.cut()
	return err
}

func (s *loopTCP) hand(ctx context.Context) (h Handed, err error) {
	if !s.closed {
		if h.Socket, err = duplicateFile(uintptr(s.listener), "listener"); err != nil {
			return h, err
		}
	}
	for _, c := range s.all() {
		if err := ctx.Err(); err != nil {
			return h, err
		}
		one := HandedConnection{
			Served: true, Pending: c.pending, OneShot: c.oneShot, Left: c.left, Answered: c.answered, Still: c.still,
			Receive: c.receive, Deep: c.isDeep, MayDeepen: c.mayDeepen,
		}
		if c.answered {
			one.Grace = c.grace
		}
		if one.Socket, err = duplicateFile(uintptr(c.fd), "connection"); err != nil {
			return h, err
		}
		h.Connections = append(h.Connections, one)
	}
	return h, nil
}

func (g *loops) adoptUDP(a Address, spec Spec, h Handed, guard *guard, l *ledgers, c *counters) (server, netip.AddrPort, error) {
	if err := g.ensure(); err != nil {
		return nil, netip.AddrPort{}, err
	}
	bound, err := checkUDP(h.Socket, a, spec)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	fd, err := duplicate(h.Socket)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	if err := errors.Join(plainUDP(fd, a.wildcard()), prepareLoopUDP(fd, a)); err != nil {
		_ = unix.Close(fd)
		return nil, netip.AddrPort{}, err
	}
	return g.newUDP(fd, guard, l, c), bound, nil
}

func (s *loopUDP) pause() {
	s.home.await(func() {
		if s.closed {
			return
		}
		s.home.remove(s.at, s.fd)
		s.home.timers.cancel(&s.retry)
		if s.queued {
			s.home.forget(s)
			s.queued = false
		}
	})
}

func (s *loopUDP) resume() error {
	var err error
	s.home.await(func() { err = s.serve() })
	if err != nil {
		s.end(err)
	}
	return err
}

func (s *loopUDP) hand(context.Context) (h Handed, err error) {
	h.Socket, err = duplicateFile(uintptr(s.fd), "udp")
	return h, err
}

// duplicate answers a descriptor of the same socket, which does not block.
func duplicate(f *os.File) (fd int, err error) {
	err = onFile(f, func(of int) (err error) {
		if err := unix.SetNonblock(of, true); err != nil {
			return err
		}
		fd, err = unix.FcntlInt(uintptr(of), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	return fd, err
}
