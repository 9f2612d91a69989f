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

const (
	// udpReadBytes is more than any datagram has: at most 65,527 bytes of payload over IPv6 (RFC 8200 and RFC 768), and
	// 65,507 over IPv4.
	udpReadBytes = 64 << 10
	// udpSocketBytes is asked of the kernel as receive buffer; its usual default holds less than a hundred datagrams.
	udpSocketBytes = 1 << 20
)

var udpBuffers = sync.Pool{New: func() any { return new([udpReadBytes]byte) }}

// udpServer is the socket of a UDP endpoint, served by one goroutine.
type udpServer struct {
	conn     *net.UDPConn
	opened   time.Time
	guard    *guard
	ledgers  *ledgers
	counters *counters
	waiter   *waiter
	control  []byte // receives the control messages of a datagram
	finish   func(error)

	// What follows is written while nobody serves.
	halt    chan struct{} // closed by what ends serve, so that it does not sleep on
	pausing atomic.Bool
	left    chan struct{} // closed when serve has returned
}

func bindUDP(ctx context.Context, a Address, spec Spec, g *guard, l *ledgers, c *counters) (server, netip.AddrPort, error) {
	if err := ctx.Err(); err != nil {
		return nil, netip.AddrPort{}, err
	}
	config := net.ListenConfig{
		// Before the bind: there must be no datagram that came without its control messages.
		Control: func(network, _ string, raw syscall.RawConn) error {
			return errors.Join(bindToInterfaceRaw(raw, spec.Interface), switchBroadcastOff(raw), askControlRaw(network, a.wildcard(), raw),
				raw.Control(func(fd uintptr) { g.namespace = namespaceOf(int(fd)) }))
		},
	}
	var packetConn net.PacketConn
	err := spec.there(func() (err error) {
		if isBroadcast(a.IP) {
			return errBroadcast
		}
		packetConn, err = config.ListenPacket(ctx, "udp"+a.family(), spec.addressThere(a))
		return err
	})
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	conn := packetConn.(*net.UDPConn)
	served, err := newUDPServer(conn, g, l, c)
	if err != nil {
		_ = conn.Close()
		return nil, netip.AddrPort{}, err
	}
	return served, boundAs(a, conn.LocalAddr()), nil
}

func newUDPServer(conn *net.UDPConn, g *guard, l *ledgers, c *counters) (*udpServer, error) {
	waiter, err := newWaiter(conn)
	if err != nil {
		return nil, err
	}
	// It is a wish: a smaller buffer loses datagrams sooner under load and is no reason not to serve.
	_ = conn.SetReadBuffer(udpSocketBytes)
	s := &udpServer{
		conn: conn, opened: time.Now(), guard: g, ledgers: l, counters: c, waiter: waiter, control: make([]byte, controlBytes),
	}
	s.fresh()
	return s, nil
}

// fresh makes ready to serve.
func (s *udpServer) fresh() { s.halt, s.left = make(chan struct{}), make(chan struct{}) }

func (s *udpServer) start(finish func(error), paused bool) {
	s.finish = finish
	if !paused {
		s.begin()
	}
}

// begin serves in a goroutine.
func (s *udpServer) begin() {
	go func() {
		defer close(s.left)
		if err := s.serve(); !errors.Is(err, errPausing) {
			s.finish(err)
		}
	}()
}

func (s *udpServer) observe() {
	// A closed socket has been observed before.
	_ = s.waiter.control(func(fd uintptr) { observeDrops(int(fd), s.counters) })
}

// serve echoes until the socket is closed. No other error ends it: one of reading is an earlier datagram's or passes.
func (s *udpServer) serve() error {
	var retry backoff
	for {
		err := s.echoOnce()
		switch {
		case err == nil:
			retry.reset()
		case errors.Is(err, net.ErrClosed):
			return err
		case s.pausing.Load() && errors.Is(err, os.ErrDeadlineExceeded):
			return errPausing
		case isReset(err):
			// Windows tells so that an answer found no receiver. There may be as many as answers: no pause.
			s.counters.count(errorReset, 1)
		default:
			s.counters.count(errorRead, 1)
			if !retry.pause(s.halt) && !s.pausing.Load() {
				return net.ErrClosed
			}
		}
	}
}

// echoOnce answers one datagram. Its errors are those of reading.
func (s *udpServer) echoOnce() error {
	if err := s.waiter.wait(); err != nil {
		return err
	}
	buf := udpBuffers.Get().(*[udpReadBytes]byte)
	defer udpBuffers.Put(buf)
	n, controlLen, _, from, err := s.conn.ReadMsgUDPAddrPort(buf[:], s.control)
	if err != nil {
		return err
	}
	s.counters.datagramsIn.Add(1)
	s.counters.bytesIn.Add(uint64(n))
	now := time.Now()
	s.counters.active(now)
	s.reply(buf[:n], s.control[:controlLen], from, now)
	return nil
}

// reply sends payload back to where it came from, or counts why not. It came at now.
func (s *udpServer) reply(payload, control []byte, from netip.AddrPort, now time.Time) {
	source := netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	_, seen, reason := answerControl(control, !s.guard.off.Load())
	answered := 0
	if reason == noEvent {
		answered, reason = s.guard.admit(source, 1, len(payload), len(payload), now.Sub(s.opened))
	}
	if isProbe(payload) {
		s.ledgers.note(payload, len(payload), answered, seen, now, s.counters)
	}
	if answered == 0 {
		s.counters.count(reason, 1)
		return
	}
	n, _, err := s.conn.WriteMsgUDPAddrPort(payload, control, from)
	if err != nil {
		s.ledgers.unsent(payload)
		s.counters.count(notSent(err), 1)
		return
	}
	s.counters.datagramsOut.Add(1)
	s.counters.bytesOut.Add(uint64(n))
}

// notSent is what it counts as that an answer could not be sent.
func notSent(err error) event {
	if errors.Is(err, syscall.EACCES) {
		return dropSourceNotUnicast // to a broadcast address, from which the request had come
	}
	return errorWrite
}

func (s *udpServer) update(spec Spec) { s.guard.set(spec) }

func (s *udpServer) stop() {
	close(s.halt)
	s.abandon()
}

func (s *udpServer) abandon() {
	s.observe()
	// The socket is gone whatever Close says; there is nobody to tell and nothing to do about it.
	_ = s.conn.Close()
}

// cut has nothing left to end after stop.
func (s *udpServer) cut() {}

var errBroadcast = badSpec("it is a broadcast address, which no answer can come from")

// isBroadcast reports whether ip is the broadcast address of one of the host's networks. The kernel would bind it, and
// send the answers from another address.
func isBroadcast(ip netip.Addr) bool {
	if !ip.Is4() || ip.IsUnspecified() {
		return false
	}
	if ip.IsLoopback() {
		return ip == netip.AddrFrom4([4]byte{127, 255, 255, 255}) // without asking: endpoints are made here by the thousand
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false // then the bind decides alone
	}
	for _, a := range addrs {
		network, ok := a.(*net.IPNet)
		if !ok || network.IP.To4() == nil || len(network.Mask) != net.IPv4len {
			continue
		}
		if ones, bits := network.Mask.Size(); bits-ones < 2 {
			continue // RFC 3021: two addresses have no broadcast
		}
		last := network.IP.To4().Mask(network.Mask)
		for i := range last {
			last[i] |= ^network.Mask[i]
		}
		if ip == netip.AddrFrom4([4]byte(last)) {
			return true
		}
	}
	return false
}
