package echo

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

func (portable) adoptTCP(a Address, spec Spec, h Handed, b *budget, o Observe, c *counters) (server, netip.AddrPort, error) {
	s := newTCPServer(nil, spec, b, o, c)
	s.adopted = true
	bound, err := s.adoptSockets(a, spec, h)
	if err != nil {
		s.abandon()
		return nil, netip.AddrPort{}, err
	}
	return s, bound, nil
}

// adoptSockets takes the sockets in. With an error, those that it has are to be abandoned.
func (s *tcpServer) adoptSockets(a Address, spec Spec, h Handed) (bound netip.AddrPort, err error) {
	if h.Socket == nil {
		s.connections.stop() // none is to come
	} else {
		if bound, err = checkListener(h.Socket, a, spec); err != nil {
			return bound, err
		}
		if err := prepareListener(h.Socket, spec); err != nil {
			return bound, err
		}
		if s.listener, err = net.FileListener(h.Socket); err != nil {
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

// adoptConnection takes a connection in and answers its own address.
func (s *tcpServer) adoptConnection(a Address, h HandedConnection) (local netip.AddrPort, err error) {
	var peer netip.AddrPort
	if h.Served {
		local, err = checkServed(h.Socket)
	} else {
		local, peer, err = checkConnection(h.Socket, a)
	}
	if err != nil {
		return local, err
	}
	c := &tcpConn{counters: s.counters, timeouts: &s.timeouts, pausing: true, paused: time.Now()}
	options, tag, err := s.adopt(c, h.Served, peer.Addr())
	if err != nil {
		return local, err
	}
	fresh := begun(options)
	fresh.Socket = h.Socket
	if h.Served {
		fresh = h
	}
	if err := c.takeOver(fresh); err != nil {
		return local, err
	}
	if h.Served {
		return local, nil
	}
	if isTCP := local.IsValid(); isTCP {
		prepareConnection(h.Socket)
	}
	if conn, ok := c.conn.(buffered); ok {
		_ = errors.Join(conn.SetReadBuffer(options.buffers().receive), conn.SetWriteBuffer(options.buffers().send)) // wishes
	}
	c.told = s.observer.tell(tag, peer)
	s.counters.active(c.paused)
	return local, nil
}

// takeOver has a connection go on from where it came.
func (c *tcpConn) takeOver(h HandedConnection) error {
	conn, err := net.FileConn(h.Socket)
	if err != nil {
		return err
	}
	switch conn := conn.(type) {
	case *net.TCPConn:
		_ = conn.SetKeepAliveConfig(keepAlive) // package net sets its own otherwise
		c.conn = conn
		if h.Receive != 0 {
			_ = conn.SetReadBuffer(h.Receive)
		}
		if h.Deep {
			_ = errors.Join(conn.SetReadBuffer(shallow.receive), conn.SetWriteBuffer(shallow.send))
		}
	case *net.UnixConn:
		c.conn = unixStream{conn}
	default:
		return errors.Join(wrongSocket("the connection is neither a TCP nor a Unix one"), conn.Close())
	}
	waiter, err := newWaiter(conn.(syscall.Conn))
	if err != nil {
		return err
	}
	c.await = waiter.wait
	c.oneShot, c.left, c.pending = h.OneShot, h.Left, h.Pending
	c.moved = c.paused.Add(-h.Still)
	if h.Answered {
		c.discardUntil = c.paused.Add(h.Grace)
	}
	return nil
}

// unixStream is a Unix stream socket. Closing it resets nothing.
type unixStream struct{ *net.UnixConn }

func (unixStream) SetLinger(int) error { return nil }

func (s *tcpServer) pause() {
	s.pausing.Store(true)
	close(s.halt)
	s.setListenerDeadline(past)
	<-s.accepted
	for _, c := range s.all() {
		c.pause()
	}
	<-s.left
	now := time.Now()
	for _, c := range s.all() {
		c.paused = now
	}
}

func (s *tcpServer) setListenerDeadline(t time.Time) {
	if l, ok := s.listener.(interface{ SetDeadline(time.Time) error }); ok {
		_ = l.SetDeadline(t) // fails only on a closed one
	}
}

// pause has run return.
func (c *tcpConn) pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pausing = true
	c.setDeadlineLocked(c.deadline)
}

func (c *tcpConn) isPausing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pausing
}

func (s *tcpServer) resume() error {
	s.pausing.Store(false)
	s.setListenerDeadline(time.Time{})
	s.fresh()
	for _, c := range s.all() {
		c.resume()
		s.run(c)
	}
	s.begin()
	return nil
}

// resume makes ready to run again: all times are later by what it was paused.
func (c *tcpConn) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	since := time.Since(c.paused)
	c.moved = time.Now().Add(-c.stillLocked())
	if !c.discardUntil.IsZero() {
		c.discardUntil = c.discardUntil.Add(since)
	}
	c.pausing = false
}

// stillLocked is how long no byte had moved when it was paused, nor a timeout changed.
func (c *tcpConn) stillLocked() time.Duration {
	last := c.moved
	if since := c.timeouts.Load().since; since.After(last) {
		last = since
	}
	return max(c.paused.Sub(last), 0)
}

func (s *tcpServer) hand(ctx context.Context) (h Handed, err error) {
	if s.listener != nil {
		if h.Socket, err = duplicateConn(s.listener, "listener"); err != nil {
			return h, err
		}
	}
	for _, c := range s.all() {
		if err := ctx.Err(); err != nil {
			return h, err
		}
		one := c.hand()
		if one.Socket, err = duplicateConn(c.conn, "connection"); err != nil {
			return h, err
		}
		h.Connections = append(h.Connections, one)
	}
	return h, nil
}

// hand tells how far a paused connection came.
func (c *tcpConn) hand() HandedConnection {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := HandedConnection{
		Served: true, Pending: c.pending, OneShot: c.oneShot, Left: c.left, Answered: !c.discardUntil.IsZero(), Still: c.stillLocked(),
	}
	if h.Answered {
		h.Grace = max(c.discardUntil.Sub(c.paused), 0)
	}
	return h
}

func (s *tcpServer) abandon() {
	s.closeListener()
	for _, c := range s.all() {
		if c.conn != nil {
			_ = c.conn.Close()
		}
		s.leave(c)
	}
}

func (portable) adoptUDP(a Address, spec Spec, h Handed, g *guard, l *ledgers, c *counters) (server, netip.AddrPort, error) {
	bound, err := checkUDP(h.Socket, a, spec)
	if err != nil {
		return nil, bound, err
	}
	if err := prepareUDP(h.Socket, a, g); err != nil {
		return nil, bound, err
	}
	packetConn, err := net.FilePacketConn(h.Socket)
	if err != nil {
		return nil, bound, err
	}
	conn, ok := packetConn.(*net.UDPConn)
	if !ok {
		return nil, bound, errors.Join(wrongSocket("the socket is no UDP socket"), packetConn.Close())
	}
	s, err := newUDPServer(conn, g, l, c)
	if err != nil {
		return nil, bound, errors.Join(err, conn.Close())
	}
	return s, bound, nil
}

func (s *udpServer) pause() {
	s.pausing.Store(true)
	close(s.halt)
	_ = s.conn.SetReadDeadline(past) // fails only on a closed one
	<-s.left
}

func (s *udpServer) resume() error {
	s.pausing.Store(false)
	_ = s.conn.SetReadDeadline(time.Time{})
	s.fresh()
	s.begin()
	return nil
}

func (s *udpServer) hand(context.Context) (h Handed, err error) {
	h.Socket, err = duplicateConn(s.conn, "udp")
	return h, err
}

// duplicateConn answers a descriptor of the same socket, which the caller closes.
func duplicateConn(socket any, name string) (file *os.File, err error) {
	conn, ok := socket.(syscall.Conn)
	if !ok {
		return nil, ErrCannotHandOver
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	controlErr := raw.Control(func(fd uintptr) { file, err = duplicateFile(fd, name) })
	return file, errors.Join(controlErr, err)
}
