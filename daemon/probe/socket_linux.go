package probe

import (
	"errors"
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

// mark binds a socket that is being made to the plan's interface, and sets its IP options.
func (p Plan) mark(network, _ string, c syscall.RawConn) error {
	return onSocket(c, func(fd int) error {
		if err := p.bindToInterface(fd); err != nil {
			return err
		}
		return p.markSocket(fd, network == "tcp6" || network == "udp6")
	})
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

// openSocket opens a socket to the run's address where the plan wants it: in its network namespace, bound to its interface, with
// its IP options, and to no address.
func (r *run) openSocket(kind int) (fd int, err error) {
	family, six := unix.AF_INET, r.address.Addr().Is6()
	if six {
		family = unix.AF_INET6
	}
	err = r.from.Do(func() (err error) {
		fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return os.NewSyscallError("socket", err)
	})
	if err != nil {
		return -1, err
	}
	if err := r.plan.bindToInterface(fd); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	if err := r.plan.markSocket(fd, six); err != nil {
		_ = unix.Close(fd)
		return -1, os.NewSyscallError("setsockopt", err)
	}
	return fd, nil
}

// bindToInterface has a socket see what comes by the plan's interface alone, and send by it (SO_BINDTODEVICE, socket(7)).
func (p Plan) bindToInterface(fd int) error {
	if p.SourceInterface == "" {
		return nil
	}
	err := unix.BindToDevice(fd, p.SourceInterface)
	switch {
	case errors.Is(err, unix.ENODEV):
		return ErrSourceInterface
	case errors.Is(err, unix.EPERM):
		return interfaceError("permission denied; before Linux 5.7 to bind to an interface needs CAP_NET_RAW")
	default:
		return os.NewSyscallError("setsockopt", err)
	}
}

// trySocket says whether a socket can be made where the plan wants it.
func (r *run) trySocket() error {
	fd, err := r.openSocket(unix.SOCK_DGRAM)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

// sockaddr is an address as system calls take it, for that socket.
func sockaddr(fd int, a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: zoneIndex(fd, a.Addr().Zone())}
}

// zoneIndex answers the number of the interface that a zone names where a socket is, or which it is; 0 when there is none.
// Package net would answer, and remember for the whole process, what the thread's namespace has.
func zoneIndex(fd int, zone string) uint32 {
	if zone == "" {
		return 0
	}
	if request, err := unix.NewIfreq(zone); err == nil && unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request) == nil {
		return request.Uint32()
	}
	n, err := strconv.ParseUint(zone, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
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
func (r *run) bindOnce(source netip.AddrPort) error {
	kind := unix.SOCK_DGRAM
	if r.plan.Protocol == TCP {
		kind = unix.SOCK_STREAM
	}
	fd, err := r.openSocket(kind)
	if err != nil {
		return err
	}
	err = unix.Bind(fd, sockaddr(fd, source))
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
