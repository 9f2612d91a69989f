package echo

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// tcpServer accepts the connections of a TCP endpoint and keeps account of them.
type tcpServer struct {
	listener net.Listener
	budget   *budget
	counters *counters
	stopping chan struct{} // closed by stop
	idle     atomic.Pointer[idleLimit]
	running  sync.WaitGroup // connections

	mu      sync.Mutex // guards what follows
	options TCPOptions
	stopped bool
	open    map[*tcpConn]struct{}
}

// idleLimit is an idle timeout (0 for never) and when it was set: it counts from there, at the earliest.
type idleLimit struct {
	timeout time.Duration
	since   time.Time
}

// A vanished peer is noticed after about two minutes of silence, whatever the idle timeout.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 10 * time.Second, Count: 6}

func bindTCP(ctx context.Context, a Address, o TCPOptions, b *budget, c *counters) (server, netip.AddrPort, error) {
	if err := ctx.Err(); err != nil {
		return nil, netip.AddrPort{}, err
	}
	config := net.ListenConfig{KeepAliveConfig: keepAlive}
	// Several paths would change what is measured over the connection, and how its buffers are bounded.
	config.SetMultipathTCP(false)
	listener, err := config.Listen(ctx, "tcp"+a.family(), a.String())
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	return newTCPServer(listener, o, b, c), boundAddr(listener.Addr()), nil
}

func newTCPServer(listener net.Listener, o TCPOptions, b *budget, c *counters) *tcpServer {
	s := &tcpServer{
		listener: listener,
		budget:   b,
		counters: c,
		stopping: make(chan struct{}),
		options:  o,
		open:     make(map[*tcpConn]struct{}),
	}
	s.idle.Store(&idleLimit{timeout: o.IdleTimeout, since: time.Now()})
	return s
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

// accept admits connections until the listener is closed. Other errors pass, such as too many open files: the
// connections wait in the kernel's queue meanwhile.
func (s *tcpServer) accept() error {
	var retry backoff
	for {
		conn, err := s.listener.Accept()
		if err == nil {
			retry.reset()
			s.admit(conn.(*net.TCPConn))
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		s.counters.acceptErrors.Add(1)
		if !retry.pause(s.stopping) {
			return net.ErrClosed
		}
	}
}

// admit lets conn be served, or turns it away.
func (s *tcpServer) admit(conn *net.TCPConn) {
	c, err := s.newConn(conn)
	if err != nil {
		s.counters.acceptErrors.Add(1)
		_ = conn.Close()
		return
	}
	if reason := s.register(c); reason != nil {
		reason.Add(1)
		_ = conn.Close()
		return
	}
	s.counters.connectionsTotal.Add(1)
	s.counters.active(time.Now())
	s.running.Go(func() {
		c.run()
		s.unregister(c)
	})
}

// newConn sets conn up. It fails for one that is dead already.
func (s *tcpServer) newConn(conn *net.TCPConn) (*tcpConn, error) {
	waiter, err := newWaiter(conn)
	if err != nil {
		return nil, err
	}
	if err := conn.SetReadBuffer(tcpSocketBytes); err != nil {
		return nil, err
	}
	if err := conn.SetWriteBuffer(tcpSocketBytes); err != nil {
		return nil, err
	}
	return &tcpConn{conn: conn, await: waiter.wait, counters: s.counters, idle: &s.idle}, nil
}

// register makes c one of the open connections, or returns the counter of the reason why not.
func (s *tcpServer) register(c *tcpConn) *atomic.Uint64 {
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

func (s *tcpServer) unregister(c *tcpConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	s.budget.give()
	s.counters.connectionsOpen.Add(-1)
}

// connections returns those that are open now.
func (s *tcpServer) connections() []*tcpConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := make([]*tcpConn, 0, len(s.open))
	for c := range s.open {
		open = append(open, c)
	}
	return open
}

func (s *tcpServer) update(o TCPOptions, _ UDPOptions) {
	s.mu.Lock()
	changed := o.IdleTimeout != s.options.IdleTimeout
	s.options = o
	if changed {
		s.idle.Store(&idleLimit{timeout: o.IdleTimeout, since: time.Now()})
	}
	s.mu.Unlock()
	if !changed {
		return
	}
	for _, c := range s.connections() {
		c.rearm()
	}
}

func (s *tcpServer) stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	close(s.stopping)
	// The listener is gone whatever Close says; there is nobody to tell and nothing to do about it.
	_ = s.listener.Close()
}

func (s *tcpServer) cut() {
	for _, c := range s.connections() {
		c.cut()
	}
}
