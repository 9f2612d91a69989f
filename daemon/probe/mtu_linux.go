package probe

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// localMTU is the MTU of the interface that leads to the target; 0 when it is not known or larger than any packet.
//
// It is what the kernel refuses a datagram for that is the first of a packet which it is told to wait with (UDP_CORK, udp(7)).
// Nothing is sent, and what routers reported before does not matter, as it would to IP_MTU.
func localMTU(r *run) int {
	fd, err := r.openSocket(unix.SOCK_DGRAM)
	if err != nil {
		return 0
	}
	defer func() { _ = unix.Close(fd) }() // Takes with it what waits to be sent.
	if source := r.source(0); source.IsValid() {
		// The port is for the rounds.
		if unix.Bind(fd, sockaddr(fd, netip.AddrPortFrom(source.Addr(), 0))) != nil {
			return 0
		}
	}
	if unix.Connect(fd, sockaddr(fd, r.address)) != nil {
		return 0
	}
	level, recvErr := unix.IPPROTO_IP, unix.IP_RECVERR
	if r.address.Addr().Is6() {
		level, recvErr = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	err = errors.Join(unix.SetsockoptInt(fd, level, recvErr, 1), unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_CORK, 1))
	if err != nil {
		return 0
	}
	_, err = unix.SendmsgN(fd, make([]byte, maxPayloadUDP(r.address.Addr())), nil, nil, unix.MSG_DONTWAIT)
	if !errors.Is(err, unix.EMSGSIZE) {
		return 0
	}
	control := make([]byte, controlBytes)
	_, n, _, _, err := unix.Recvmsg(fd, nil, control, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	if c := parseControl(control[:n]); err == nil && c.origin == unix.SO_EE_ORIGIN_LOCAL {
		return c.mtu
	}
	return 0
}
