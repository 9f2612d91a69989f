package probe

import (
	"errors"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// canMark: whether the IP options of a plan can be set.
	canMark = true
	// hasStamps: whether the kernel tells the times of packets.
	hasStamps = true
)

// mark sets the IP options of a plan on a socket that is being made.
func (p Plan) mark(network, _ string, c syscall.RawConn) error {
	return onSocket(c, func(fd int) error { return p.markSocket(fd, network == "tcp6" || network == "udp6") })
}

// markSocket sets the IP options of a plan on a socket, which is of IPv6 or of IPv4.
func (p Plan) markSocket(fd int, six bool) error {
	set := func(four, sixth, value int) error {
		if six {
			return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, sixth, value)
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, four, value)
	}
	var errs [3]error
	if p.DSCP != 0 {
		errs[0] = set(unix.IP_TOS, unix.IPV6_TCLASS, int(p.DSCP)<<2) // the lower two bits are ECN's (RFC 3168)
	}
	if p.TTL != 0 {
		errs[1] = set(unix.IP_TTL, unix.IPV6_UNICAST_HOPS, int(p.TTL))
	}
	if p.DontFragment || p.PathMTU != nil {
		// Each datagram goes out as it is, with the DF bit, whatever was heard of the path before.
		errs[2] = set(unix.IP_MTU_DISCOVER, unix.IPV6_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	}
	return errors.Join(errs[:]...)
}

// bindOnce binds a socket to an address, and closes it. The error says which system call failed.
func bindOnce(protocol Protocol, source netip.AddrPort) error {
	family, kind := unix.AF_INET6, unix.SOCK_DGRAM
	if source.Addr().Is4() {
		family = unix.AF_INET
	}
	if protocol == TCP {
		kind = unix.SOCK_STREAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	err = unix.Bind(fd, sockaddr(source))
	_ = unix.Close(fd)
	if errors.Is(err, unix.EINVAL) && source.Addr().Zone() != "" {
		err = unix.EADDRNOTAVAIL // There is no such interface.
	}
	return os.NewSyscallError("bind", err)
}

// onSocket calls f with the descriptor of a socket.
func onSocket(c syscall.RawConn, f func(fd int) error) error {
	var inner error
	if err := c.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}
