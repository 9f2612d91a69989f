package echo

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// tcpServer accepts the connections of a TCP endpoint and serves each in a goroutine.
type tcpServer struct {
	connections[*tcpConn]
	listener net.Listener // nil: none comes
	adopted  bool
	finish   func(error)
	running  sync.WaitGroup // connections

	// What follows is written while nobody accepts.
	halt     chan struct{} // closed by what ends accept, so that it does not sleep on
	pausing  atomic.Bool
	accepted chan struct{} // closed when accept has returned
	left     chan struct{} // closed when all have
}

// A vanished peer is noticed after about two minutes of silence, whatever the idle timeout.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 10 * time.Second, Count: 6}

func bindTCP(ctx context.Context, a Address, spec Spec, b *budget, o Observe, c *counters) (server, netip.AddrPort, error) {
	if err := ctx.Err(); err != nil {
		return nil, netip.AddrPort{}, err
	}
	config := net.ListenConfig{KeepAliveConfig: keepAlive, Control: func(_, _ string, raw syscall.RawConn) error {
		return errors.Join(bindToInterfaceRaw(raw, spec.Interface), takeUrgentInline(raw), setListenerBuffers(raw, spec.TCP.buffers()))
	}}
	// Several paths would change what is measured over the connection, and how its buffers are bounded.
	config.SetMultipathTCP(false)
	var listener net.Listener
	err := spec.there(func() (err error) {
		listener, err = config.Listen(ctx, "tcp"+a.family(), spec.addressThere(a))
		return err
	})
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	return newTCPServer(listener, spec, b, o, c), boundAs(a, listener.Addr()), nil
}

func newTCPServer(listener net.Listener, spec Spec, b *budget, o Observe, c *counters) *tcpServer {
	s := &tcpServer{listener: listener}
	s.init(spec, b, o, c)
	s.fresh()
	return s
}

// fresh makes ready to serve.
func (s *tcpServer) fresh() {
	s.halt, s.accepted, s.left = make(chan struct{}), make(chan struct{}), make(chan struct{})
}

// addressThere is an address as package net takes it where the endpoint is to be.
func (s Spec) addressThere(a Address) string {
	if s.Place != nil {
		a = numberZone(a)
	}
	return a.String()
}

// boundAs returns the address of a socket that was bound to a, with the zone as it was written.
func boundAs(a Address, got net.Addr) netip.AddrPort {
	bound := boundAddr(got)
	if zone := a.IP.Zone(); zone != "" {
		bound = netip.AddrPortFrom(bound.Addr().WithZone(zone), bound.Port())
	}
	return bound
}

// peerAddr returns the address of a peer without the zone, which package net reads where the process is and not where the
// endpoint is; no prefix of sources has one either.
func peerAddr(a net.Addr) netip.AddrPort {
	peer := boundAddr(a)
	return netip.AddrPortFrom(peer.Addr().WithZone(""), peer.Port())
}

// boundAddr returns the address of a socket without IPv4-mapped forms.
func boundAddr(a net.Addr) netip.AddrPort {
	var bound netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		bound = a.AddrPort()
	case *net.UDPAddr:
		bound = a.AddrPort()
	}
	return netip.AddrPortFrom(bound.Addr().Unmap(), bound.Port())
}

func (s *tcpServer) start(finish func(error), paused bool) {
	s.finish = finish
	if !paused {
		s.begin()
	}
}

// begin serves in a goroutine.
func (s *tcpServer) begin() {
	go func() {
		defer close(s.left)
		if err := s.serve(); !errors.Is(err, errPausing) {
			s.finish(err)
		}
	}()
}

// observe has nothing to ask: TCP loses nothing.
func (s *tcpServer) observe() {}

// serve returns when nothing is left to be served, or with errPausing when what is left is paused.
func (s *tcpServer) serve() error {
	err := s.accept()
	close(s.accepted)
	s.running.Wait()
	if s.listener == nil && s.pausing.Load() && len(s.all()) > 0 {
		return errPausing
	}
	return err
}

// accept takes connections until the listener is closed. Other errors pass, such as too many open files: the
// connections wait in the kernel's queue meanwhile.
func (s *tcpServer) accept() error {
	if s.listener == nil {
		return nil
	}
	var retry backoff
	for {
		conn, err := s.listener.Accept()
		switch {
		case err == nil:
			retry.reset()
			s.take(conn.(*net.TCPConn))
			continue
		case errors.Is(err, net.ErrClosed):
			return err
		case s.pausing.Load() && errors.Is(err, os.ErrDeadlineExceeded):
			return errPausing
		}
		s.counters.count(errorAccept, 1)
		if !retry.pause(s.halt) && !s.pausing.Load() {
			return net.ErrClosed
		}
	}
}

// take lets conn be served, or turns it away.
func (s *tcpServer) take(conn *net.TCPConn) {
	c := &tcpConn{conn: conn, counters: s.counters, timeouts: &s.timeouts, moved: time.Now()}
	peer := peerAddr(conn.RemoteAddr())
	options, tag, ok := s.admit(c, peer.Addr())
	if !ok {
		_ = conn.Close()
		return
	}
	h := begun(options)
	c.oneShot, c.left = h.OneShot, h.Left
	c.told = s.observer.tell(tag, peer)
	s.counters.active(c.moved)
	if s.adopted {
		_ = conn.SetKeepAliveConfig(keepAlive) // package net sets its own otherwise
	}
	if err := c.prepare(conn, options.buffers()); err != nil { // it is dead already
		_ = c.failed(errorAccept, err)
		_ = conn.Close()
		c.told.end(c.why, false, false)
		s.leave(c)
		return
	}
	s.run(c)
}

// run serves a connection in a goroutine.
func (s *tcpServer) run(c *tcpConn) {
	s.running.Go(func() {
		if paused := c.run(); !paused {
			s.leave(c)
		}
	})
}

func (s *tcpServer) update(spec Spec) {
	timeouts := s.connections.update(spec)
	if listener, ok := s.listener.(syscall.Conn); ok {
		if raw, err := listener.SyscallConn(); err == nil {
			_ = setListenerBuffers(raw, spec.TCP.buffers()) // it went well before
		}
	}
	if !timeouts {
		return
	}
	for _, c := range s.all() {
		c.rearm()
	}
}

func (s *tcpServer) stop() {
	s.connections.stop()
	s.closeListener()
	close(s.halt)
}

// closeListener has no more come. The listener is gone whatever Close says; there is nobody to tell and nothing to do about it.
func (s *tcpServer) closeListener() {
	if s.listener != nil {
		_ = s.listener.Close()
	}
}

func (s *tcpServer) cut() {
	for _, c := range s.all() {
		c.cut()
	}
}
