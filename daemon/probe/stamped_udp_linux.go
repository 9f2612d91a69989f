package probe

import (
	"errors"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stamped is a socket that is not connected and sees all that comes to its port, with the kernel's times of what leaves and
// what comes (SO_TIMESTAMPING, see Documentation/networking/timestamping.rst of the kernel), and with the ICMP reports
// on what it sent, each with the datagram that it is about (IP_RECVERR, ip(7)).
//
// It is not the runtime's poller that watches it but the run itself, see poller.
type stamped struct {
	run     *run
	all     *stampedSockets
	flow    *udpFlow
	which   int // of the flow's sockets
	fd      int // -1: closed
	target  netip.AddrPort
	to      unix.Sockaddr // target
	source  netip.AddrPort
	dropped uint32 // datagrams that found no room, as far as they were told of
}

func openStamped(r *run, number int) (_ *stamped, err error) {
	s := &stamped{run: r, target: r.address}
	s.fd, err = r.openSocket(unix.SOCK_DGRAM)
	if err != nil {
		return nil, err
	}
	s.to = sockaddr(s.fd, r.address)
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	level, recvErr := unix.IPPROTO_IP, unix.IP_RECVERR
	six := r.address.Addr().Is6()
	if six {
		level, recvErr = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	if err := unix.SetsockoptInt(s.fd, level, recvErr, 1); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	// Wishes: without them times are this process's, and drops are not seen.
	_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stampFlags)
	_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
	// A wish, beyond what the system lets everybody have where that is allowed.
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	from := r.source(number)
	if !from.IsValid() {
		from = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
		if six {
			from = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
		}
	}
	if err := unix.Bind(s.fd, sockaddr(s.fd, from)); err != nil {
		return nil, r.aboutSource(number, os.NewSyscallError("bind", err))
	}
	s.source = s.comingFrom()
	return s, nil
}

// comingFrom is where packets to the target come from: where the socket is bound to no address, the one that the routes
// have now.
func (s *stamped) comingFrom() netip.AddrPort {
	bound := localOf(s.fd)
	if !bound.IsValid() || !bound.Addr().IsUnspecified() {
		return bound
	}
	route, err := s.run.openSocket(unix.SOCK_DGRAM)
	if err != nil {
		return bound
	}
	defer func() { _ = unix.Close(route) }()
	if unix.Connect(route, s.to) != nil { // Sends nothing.
		return bound
	}
	return netip.AddrPortFrom(localOf(route).Addr(), bound.Port())
}

func (s *stamped) local() netip.AddrPort { return s.source }

func (s *stamped) close() {
	if s.fd >= 0 {
		_ = unix.Close(s.fd) // Nothing was buffered that could fail.
		s.fd = -1
	}
}

// roomTries is how many milliseconds a write waits for room in the socket's buffer.
const roomTries = 5

func (s *stamped) write(b []byte, deadline time.Time) error {
	for waited := 0; ; {
		err := unix.Sendto(s.fd, b, unix.MSG_DONTWAIT, s.to)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			// To poll would come back at once while there is something in the error queue. The wait is short: it holds up
			// the rounds of the other flows, the replies, and the end of the run.
			if waited == roomTries || !time.Now().Before(deadline) {
				return errNoRoom
			}
			waited++
			time.Sleep(time.Millisecond)
		default:
			return err
		}
	}
}

func (s *stamped) countAnew() {
	_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stampFlags&^unix.SOF_TIMESTAMPING_OPT_ID)
	_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stampFlags)
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
