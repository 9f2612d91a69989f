package echo

import (
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// listenBacklog is how many connections may wait to be accepted; the kernel makes it net.core.somaxconn if that is less.
const listenBacklog = 65535

type option struct{ level, name, value int }

func setOptions(fd int, options ...option) error {
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return err
		}
	}
	return nil
}

// bindSocket makes a socket for an address where the endpoint is to be, lets prepare set what must be set before, and binds
// it. It answers the address as bound.
func bindSocket(a Address, kind int, s Spec, prepare func(fd int) error) (fd int, bound netip.AddrPort, err error) {
	fd = -1
	err = s.there(func() (err error) {
		fd, bound, err = bindHere(a, kind, func(fd int) error {
			if err := bindToInterface(fd, s.Interface); err != nil {
				return err
			}
			return prepare(fd)
		})
		return err
	})
	return fd, bound, err
}

func bindHere(a Address, kind int, prepare func(fd int) error) (fd int, bound netip.AddrPort, err error) {
	if !a.IP.IsValid() {
		fd, bound, err = bindFamily(netip.AddrPortFrom(netip.IPv6Unspecified(), a.Port), kind, false, prepare)
		if err == unix.EAFNOSUPPORT || err == unix.EADDRNOTAVAIL { //nolint:errorlint // x/sys/unix answers bare numbers
			// A host without IPv6.
			return bindFamily(netip.AddrPortFrom(netip.IPv4Unspecified(), a.Port), kind, false, prepare)
		}
		return fd, bound, err
	}
	return bindFamily(netip.AddrPortFrom(a.IP, a.Port), kind, true, prepare)
}

func bindFamily(to netip.AddrPort, kind int, only6 bool, prepare func(fd int) error) (fd int, bound netip.AddrPort, err error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, bound, err
	}
	if bound, err = bindFD(fd, family, to, only6, prepare); err != nil {
		_ = unix.Close(fd)
		return -1, netip.AddrPort{}, err
	}
	return fd, bound, nil
}

func bindFD(fd, family int, to netip.AddrPort, only6 bool, prepare func(fd int) error) (bound netip.AddrPort, err error) {
	if family == unix.AF_INET6 {
		v6only := 0
		if only6 {
			v6only = 1
		}
		if err := setOptions(fd, option{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, v6only}); err != nil {
			return bound, err
		}
	}
	if err := prepare(fd); err != nil {
		return bound, err
	}
	address, err := sockaddr(fd, to)
	if err != nil {
		return bound, err
	}
	if err := unix.Bind(fd, address); err != nil {
		return bound, err
	}
	got, err := unix.Getsockname(fd)
	if err != nil {
		return bound, err
	}
	switch got := got.(type) {
	case *unix.SockaddrInet4:
		bound = netip.AddrPortFrom(netip.AddrFrom4(got.Addr), uint16(got.Port))
	case *unix.SockaddrInet6:
		bound = netip.AddrPortFrom(netip.AddrFrom16(got.Addr).WithZone(to.Addr().Zone()), uint16(got.Port))
	}
	return bound, nil
}

// sockaddr is an address as system calls take it, for that socket.
func sockaddr(fd int, to netip.AddrPort) (unix.Sockaddr, error) {
	if to.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}, nil
	}
	zone, err := zoneIndex(fd, to.Addr().Zone())
	if err != nil {
		return nil, err
	}
	return &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16(), ZoneId: zone}, nil
}

// zoneIndex answers the interface that a zone names to a socket, by name or number.
func zoneIndex(fd int, zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	return interfaceIndex(fd, zone)
}

// isIPv6 reports whether a socket is of IPv6, or of both families.
func isIPv6(fd int) bool {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return err == nil && family == unix.AF_INET6
}
