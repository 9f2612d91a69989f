package probe

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
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

// openSocket opens a socket to the run's address, with the plan's IP options, bound to nothing.
func (r *run) openSocket(kind int) (int, error) {
	family, six := unix.AF_INET, r.address.Addr().Is6()
	if six {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := r.plan.markSocket(fd, six); err != nil {
		_ = unix.Close(fd)
		return -1, os.NewSyscallError("setsockopt", err)
	}
	return fd, nil
}

// sockaddr is an address as system calls take it.
func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	zone := uint32(0)
	if name := a.Addr().Zone(); name != "" {
		if link, err := net.InterfaceByName(name); err == nil {
			zone = uint32(link.Index)
		} else if n, err := strconv.ParseUint(name, 10, 32); err == nil {
			zone = uint32(n)
		}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: zone}
}

// localOf is the address that a socket is bound to; invalid when it is not known.
func localOf(fd int) netip.AddrPort {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}
	}
	return addressOf(name)
}

// addressOf is an address as the kernel gives it, without a zone.
func addressOf(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	default:
		return netip.AddrPort{}
	}
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
