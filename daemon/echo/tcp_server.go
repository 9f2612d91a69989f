package echo

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// tcpServer accepts the connections of a TCP endpoint and serves each in a goroutine.
type tcpServer struct {
	connections[*tcpConn]
	listener net.Listener
	stopping chan struct{}  // closed by stop
	running  sync.WaitGroup // connections
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
	s := &tcpServer{listener: listener, stopping: make(chan struct{})}
	s.init(spec, b, o, c)
	return s
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

func (s *tcpServer) start(finish func(error)) {
	go func() { finish(s.serve()) }()
}

// observe has nothing to ask: TCP loses nothing.
func (s *tcpServer) observe() {}

func (s *tcpServer) abandon() { s.stop() }

func (s *tcpServer) serve() error {
	err := s.accept()
	s.running.Wait()
	return err
}

// accept takes connections until the listener is closed. Other errors pass, such as too many open files: the
// connections wait in the kernel's queue meanwhile.
func (s *tcpServer) accept() error {
	var retry backoff
	for {
		conn, err := s.listener.Accept()
		if err == nil {
			retry.reset()
			s.take(conn.(*net.TCPConn))
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		s.counters.count(errorAccept, 1)
		if !retry.pause(s.stopping) {
			return net.ErrClosed
		}
	}
}

// take lets conn be served, or turns it away.
func (s *tcpServer) take(conn *net.TCPConn) {
	c := &tcpConn{conn: conn, counters: s.counters, timeouts: &s.timeouts}
	peer := peerAddr(conn.RemoteAddr())
	options, tag, ok := s.admit(c, peer.Addr())
	if !ok {
		_ = conn.Close()
		return
	}
	c.oneShot, c.maxBytes = options.OneShot, options.MaxBytes
	c.told = s.observer.tell(tag, peer)
	s.counters.active(time.Now())
	if err := c.prepare(conn, options.buffers()); err != nil { // it is dead already
		_ = c.failed(errorAccept, err)
		_ = conn.Close()
		c.told.end(c.why, false, false)
		s.leave(c)
		return
	}
	s.running.Go(func() {
		c.run()
		s.leave(c)
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
	// The listener is gone whatever Close says; there is nobody to tell and nothing to do about it.
	_ = s.listener.Close()
	close(s.stopping)
}

func (s *tcpServer) cut() {
	for _, c := range s.all() {
		c.cut()
	}
}
