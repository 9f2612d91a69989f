package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/echod/echod/daemon/internal/wire"
)

// stamped is a socket that is not connected and sees all that comes to its port, with the kernel's times of what leaves and
// what comes (SO_TIMESTAMPING, see Documentation/networking/timestamping.rst of the kernel), and with the ICMP reports
// on what it sent, each with the datagram that it is about (IP_RECVERR, ip(7)).
type stamped struct {
	run    *run
	conn   *net.UDPConn
	raw    syscall.RawConn
	target netip.AddrPort
	source netip.AddrPort
}

func openStamped(ctx context.Context, r *run, number int) (udpSocket, error) {
	network, any, level, recvErr := "udp4", netip.IPv4Unspecified(), unix.IPPROTO_IP, unix.IP_RECVERR
	if r.address.Addr().Is6() {
		network, any, level, recvErr = "udp6", netip.IPv6Unspecified(), unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	source := r.source(number)
	if !source.IsValid() {
		source = netip.AddrPortFrom(any, 0)
	}
	config := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		err := onSocket(c, func(fd int) error {
			return errors.Join(unix.SetsockoptInt(fd, level, recvErr, 1),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stampFlags),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1))
		})
		return errors.Join(err, r.plan.mark(network, address, c))
	}}
	opened, err := config.ListenPacket(ctx, network, source.String())
	if err != nil {
		return nil, r.aboutSource(number, err)
	}
	conn := opened.(*net.UDPConn)
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	// A wish, beyond what the system lets everybody have where that is allowed.
	_ = onSocket(raw, func(fd int) error {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) == nil {
			return nil
		}
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	})
	return &stamped{run: r, conn: conn, raw: raw, target: r.address, source: comingFrom(conn, r.address)}, nil
}

// comingFrom is where packets of a socket to the target come from: where it is bound to no address, the one that the
// routes have now.
func comingFrom(conn *net.UDPConn, target netip.AddrPort) netip.AddrPort {
	bound := addrPort(conn.LocalAddr())
	if !bound.Addr().IsUnspecified() {
		return bound
	}
	route, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(target)) // Sends nothing.
	if err != nil {
		return bound
	}
	from := addrPort(route.LocalAddr()).Addr()
	_ = route.Close()
	return netip.AddrPortFrom(from, bound.Port())
}

func (s *stamped) local() netip.AddrPort { return s.source }
func (s *stamped) stamps() bool          { return true }
func (s *stamped) close()                { _ = s.conn.Close() } // Nothing was buffered that could fail.

func (s *stamped) write(b []byte, deadline time.Time) error {
	if err := s.conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	_, err := s.conn.WriteToUDPAddrPort(b, s.target)
	return err
}

func (s *stamped) countAnew() {
	_ = onSocket(s.raw, func(fd int) error { // Fails when it is closed.
		return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stampFlags&^unix.SOF_TIMESTAMPING_OPT_ID),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stampFlags))
	})
}

const (
	// readAtOnce is how many datagrams, or entries of the error queue, are read before they are told of.
	readAtOnce = 32
	// quotedBytes is what is read of a datagram that an ICMP report brings back: our header, and a little.
	quotedBytes = 64
)

// read tells of what has left before it tells of what came after: the kernel notes that a datagram has left before its
// reply can have come.
func (s *stamped) read(tell func([]arrival) bool) {
	r := &stampedReader{stamped: s, buffer: make([]byte, longestDatagram)}
	for {
		more := false
		err := s.raw.Read(func(fd uintptr) bool {
			more = r.readOnce(int(fd))
			return more
		})
		// The poller takes a socket of which it hears of errors alone for one that cannot be polled. It can: there is
		// something in the error queue, and no room to send.
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil && !more {
			time.Sleep(time.Millisecond)
			err = s.raw.Control(func(fd uintptr) { more = r.readOnce(int(fd)) })
			if err != nil {
				return
			}
		}
		if more && !tell(r.arrivals) {
			return
		}
		r.arrivals = nil
	}
}

// stampedReader is what one goroutine needs to read.
type stampedReader struct {
	*stamped
	buffer   []byte
	control  [controlBytes]byte
	quoted   [quotedBytes]byte
	arrivals []arrival
	dropped  uint32 // datagrams that found no room, as far as they were told of
}

// readOnce reads what is there, up to a bound; false when there was nothing. It reads by package syscall:
// Recvmsg of x/sys asks the kernel for the socket's protocol each time.
func (r *stampedReader) readOnce(fd int) bool {
	var datagrams []arrival
	for range readAtOnce {
		n, oobn, _, from, err := syscall.Recvmsg(fd, r.buffer, r.control[:], unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			r.readErrors(fd)
			r.arrivals = append(r.arrivals, datagrams...)
			return len(r.arrivals) > 0
		case err != nil: // a report that waits in the error queue with more to say, and EINTR
			r.readErrors(fd)
			continue
		}
		c := parseControl(r.control[:oobn])
		if c.dropped != r.dropped {
			datagrams = append(datagrams, arrival{dropped: c.dropped - r.dropped})
			r.dropped = c.dropped
		}
		a := arrival{at: r.run.now(), when: c.stamp, elsewhere: !r.isTarget(from)}
		a.size = n
		a.seq, a.data = r.run.judge(r.buffer[:n])
		datagrams = append(datagrams, a)
	}
	r.readErrors(fd)
	r.arrivals = append(r.arrivals, datagrams...)
	return true
}

// isTarget says whether a packet comes from where the rounds go. A zone need not be compared: the port is ours.
func (s *stamped) isTarget(from syscall.Sockaddr) bool {
	switch from := from.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(from.Addr), uint16(from.Port)) == s.target
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(from.Addr), uint16(from.Port)) ==
			netip.AddrPortFrom(s.target.Addr().WithZone(""), s.target.Port())
	default:
		return false
	}
}

// readErrors reads what the error queue has.
func (r *stampedReader) readErrors(fd int) {
	for range 2 * readAtOnce {
		n, oobn, _, _, err := syscall.Recvmsg(fd, r.quoted[:], r.control[:], unix.MSG_DONTWAIT|unix.MSG_ERRQUEUE)
		if err != nil {
			return
		}
		c := parseControl(r.control[:oobn])
		switch {
		case c.left:
			r.arrivals = append(r.arrivals, arrival{left: true, number: c.number, when: c.stamp})
		case c.errno != 0 && c.origin != unix.SO_EE_ORIGIN_LOCAL: // what is local the write has told
			a := arrival{at: r.run.now(), err: c.err()}
			if id, seq, ok := wire.Parse(r.quoted[:n]); ok && id == r.run.id {
				a.seq = seq
			}
			r.arrivals = append(r.arrivals, a)
		}
	}
}
