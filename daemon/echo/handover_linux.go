package echo

import (
	"golang.org/x/sys/unix"
)

// checkTransport says why a stream or datagram socket of IPv4 or IPv6 is not of TCP or UDP.
func checkTransport(fd, kind int) error {
	wanted, name := unix.IPPROTO_TCP, "TCP"
	if kind == unix.SOCK_DGRAM {
		wanted, name = unix.IPPROTO_UDP, "UDP"
	}
	switch got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); {
	case err == nil && got == unix.IPPROTO_MPTCP: // several paths would change what is measured over a connection
		return wrongSocket("the socket is of multipath TCP, not of TCP alone")
	case err == nil && got != wanted:
		return wrongSocket("the socket is of IP protocol %d, not of %s", got, name)
	}
	return nil
}

// checkPlace says how the interface and the place of a socket differ from those of an endpoint. An endpoint without place takes
// what it is given: a service may be handed sockets of a network that it has no way into itself.
func checkPlace(fd int, s Spec) error {
	device, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	if err == nil && device != s.Interface {
		return wrongSocket("the socket is bound to interface %q, not to %q", device, s.Interface)
	}
	if s.Place == nil || s.settled {
		return nil
	}
	there, err := socketThere(s, namespaceOf)
	if err == nil && there != namespaceOf(fd) {
		return wrongSocket("the socket is in another network namespace")
	}
	return err
}

// socketThere makes a socket where an endpoint is to be, and answers what ask says of it.
func socketThere[T any](s Spec, ask func(fd int) T) (answer T, err error) {
	err = s.there(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		answer = ask(fd)
		return unix.Close(fd)
	})
	return answer, err
}

// usualReceiveBuffer is what the system gives a TCP socket, as the kernel tells it; where there is no way to an endpoint's place
// any more, what it gives here.
func usualReceiveBuffer(s Spec) (int, error) {
	given, err := socketThere(s, receiveBuffer)
	if err != nil && s.settled {
		s.Place = nil
		return socketThere(s, receiveBuffer)
	}
	return given, err
}

// zoneOf answers the interface that a zone names to a socket.
func zoneOf(fd int, zone string) (uint32, error) { return zoneIndex(fd, zone) }

// hasOwnReceiveBuffer reports whether a socket has a receive buffer that was set, which the kernel leaves as it is; that is not
// known before Linux 5.14.
func hasOwnReceiveBuffer(fd int) bool {
	locks, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	return err == nil && locks&receiveBufferLock != 0
}

// receiveBufferLock is SOCK_RCVBUF_LOCK of include/uapi/linux/socket.h.
const receiveBufferLock = 2

// plainListener undoes what others may have set of a listener, and would change when its connections are told of or closed.
func plainListener(fd int) error {
	_ = setOptions(fd, option{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 0})
	if err := setOptions(fd, option{unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1}); err != nil {
		return err
	}
	return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
}

// plainUDP undoes what others may have set of a UDP socket: messages with datagrams that are not of the endpoint's asking would
// be sent back with the answer, or leave no room for those that are, and an answer may not go to a broadcast address.
func plainUDP(fd int, wildcard bool) error {
	off := []option{
		{unix.SOL_SOCKET, unix.SO_BROADCAST, 0}, {unix.SOL_SOCKET, unix.SO_TIMESTAMP, 0}, {unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 0},
		{unix.SOL_SOCKET, unix.SO_TIMESTAMPING, 0}, {unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 0}, {unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1},
		{unix.IPPROTO_IP, unix.IP_RECVOPTS, 0}, {unix.IPPROTO_IP, unix.IP_RETOPTS, 0}, {unix.IPPROTO_IP, unix.IP_RECVERR, 0},
		{unix.IPPROTO_IP, unix.IP_RECVORIGDSTADDR, 0}, {unix.IPPROTO_UDP, unix.UDP_GRO, 0},
	}
	six := isIPv6(fd)
	if six {
		off = append(off, option{unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 0}, option{unix.IPPROTO_IPV6, unix.IPV6_RECVORIGDSTADDR, 0})
	}
	if !wildcard {
		off = append(off, option{unix.IPPROTO_IP, unix.IP_PKTINFO, 0})
		if six {
			off = append(off, option{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 0})
		}
	}
	return setOptions(fd, off...)
}

// askAdopted switches the control messages on.
func askAdopted(fd int, wildcard bool) error { return askControl(fd, isIPv6(fd), wildcard) }
