//go:build unix

package echo

import (
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// canHandOver says whether this system can hand sockets over.
func canHandOver() error { return nil }

// onFile calls f with the descriptor of a file, which it leaves as it is.
func onFile(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(fd uintptr) { err = f(int(fd)) })
	return errors.Join(controlErr, err)
}

// checkListener answers the address that a listening socket is bound to, or how it differs from what an endpoint needs.
func checkListener(f *os.File, a Address, s Spec) (bound netip.AddrPort, err error) {
	err = onFile(f, func(fd int) error {
		if err := checkKind(fd, unix.SOCK_STREAM); err != nil {
			return err
		}
		if listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listening == 0 {
			return wrongSocket("the socket does not listen")
		}
		bound, err = checkBound(fd, a, s)
		return err
	})
	return bound, err
}

// checkUDP answers the address that a UDP socket is bound to, or how it differs from what an endpoint needs.
func checkUDP(f *os.File, a Address, s Spec) (bound netip.AddrPort, err error) {
	err = onFile(f, func(fd int) error {
		if err := checkKind(fd, unix.SOCK_DGRAM); err != nil {
			return err
		}
		if _, err := unix.Getpeername(fd); err == nil {
			return wrongSocket("the socket is connected, and hears one peer alone")
		}
		if bound, err = checkBound(fd, a, s); err != nil {
			return err
		}
		if isBroadcast(bound.Addr()) {
			return errBroadcast
		}
		return nil
	})
	return bound, err
}

// checkServed answers the address of a connection that an engine has served. It may have been reset meanwhile: that is for
// whoever serves it to find out.
func checkServed(f *os.File) (local netip.AddrPort, err error) {
	err = onFile(f, func(fd int) error {
		if err := checkStream(fd); err != nil {
			return err
		}
		local, _, _ = localAddress(fd)
		return nil
	})
	return local, err
}

// checkConnection answers the addresses of a connection that none has served, or how its own one differs from what an endpoint
// needs. They are zero for a Unix socket.
func checkConnection(f *os.File, a Address) (local, peer netip.AddrPort, err error) {
	err = onFile(f, func(fd int) error {
		if err := checkStream(fd); err != nil {
			return err
		}
		name, err := unix.Getpeername(fd)
		if err != nil {
			return wrongSocket("the socket is not connected, or no more")
		}
		peer, _ = addressOf(name)
		peer = netip.AddrPortFrom(peer.Addr().Unmap().WithZone(""), peer.Port())
		if !isInternet(fd) {
			return nil
		}
		if local, _, err = localAddress(fd); err != nil {
			return err
		}
		local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
		if a.Port != 0 && a.Port != local.Port() {
			return wrongSocket("the connection is to port %d, not %d", local.Port(), a.Port)
		}
		if one := a.IP.WithZone(""); !a.wildcard() && one != local.Addr() || a.wildcard() && a.IP.IsValid() && one.Is4() != local.Addr().Is4() {
			return wrongSocket("the connection is to %v, not to %v", local.Addr(), one)
		}
		return nil
	})
	return local, peer, err
}

// checkStream says why a socket cannot be a connection.
func checkStream(fd int) error {
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_STREAM {
		return wrongSocket("the connection is no stream socket")
	}
	if listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listening != 0 {
		return wrongSocket("the connection is a listening socket")
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	switch name.(type) {
	case *unix.SockaddrUnix:
		return nil
	case *unix.SockaddrInet4, *unix.SockaddrInet6:
		return checkTransport(fd, unix.SOCK_STREAM)
	default:
		return wrongSocket("the connection is neither a TCP nor a Unix one")
	}
}

// checkKind says why a socket cannot be one of TCP (SOCK_STREAM) or UDP (SOCK_DGRAM).
func checkKind(fd, kind int) error {
	got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	switch {
	case err != nil:
		return wrongSocket("the file is no socket")
	case got != kind && kind == unix.SOCK_STREAM:
		return wrongSocket("the socket is no TCP socket")
	case got != kind:
		return wrongSocket("the socket is no UDP socket")
	case !isInternet(fd):
		return wrongSocket("the socket is not of IPv4 or IPv6")
	}
	return checkTransport(fd, kind)
}

// checkBound answers the address that a socket is bound to, or how it differs from what bind would have made of a.
func checkBound(fd int, a Address, s Spec) (netip.AddrPort, error) {
	bound, zone, err := localAddress(fd)
	if err != nil {
		return bound, err
	}
	six := bound.Addr().Is6()
	switch ip := bound.Addr().Unmap(); {
	case bound.Port() == 0:
		return bound, wrongSocket("the socket is not bound")
	case a.Port != 0 && a.Port != bound.Port():
		return bound, wrongSocket("the socket has port %d, not %d", bound.Port(), a.Port)
	case !a.IP.IsValid() && !ip.IsUnspecified():
		return bound, wrongSocket("the socket is bound to %v, not to all addresses", ip)
	case a.IP.IsValid() && a.IP.WithZone("") != ip:
		return bound, wrongSocket("the socket is bound to %v, not to %v", ip, a.IP.WithZone(""))
	}
	if six && a.wildcard() {
		only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		switch {
		case err != nil:
			return bound, err
		case only != 0 && !a.IP.IsValid():
			return bound, wrongSocket("the socket is of IPv6 alone, not of IPv4, too (IPV6_V6ONLY)")
		case only == 0 && a.IP.IsValid():
			return bound, wrongSocket("the socket is of IPv4, too, not of IPv6 alone (IPV6_V6ONLY)")
		}
	}
	if text := a.IP.Zone(); text != "" {
		if wanted, err := zoneOf(fd, text); err == nil && wanted != zone {
			return bound, wrongSocket("the socket is bound in zone %d, not in %s, which is %d", zone, text, wanted)
		}
	}
	// As Listen says it: of IPv4 without the mapped form, and the zone as it was written.
	bound = netip.AddrPortFrom(bound.Addr().Unmap().WithZone(a.IP.Zone()), bound.Port())
	return bound, checkPlace(fd, s)
}

// localAddress answers the address of a socket of IPv4 or IPv6, without zone, and the number of its zone.
func localAddress(fd int) (local netip.AddrPort, zone uint32, err error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return local, 0, err
	}
	local, zone = addressOf(name)
	return local, zone, nil
}

// addressOf reads an address of IPv4 or IPv6; of others it is zero.
func addressOf(name unix.Sockaddr) (address netip.AddrPort, zone uint32) {
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port)), 0
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(name.Addr), uint16(name.Port)), name.ZoneId
	}
	return netip.AddrPort{}, 0
}

// isInternet reports whether a socket is of IPv4 or IPv6.
func isInternet(fd int) bool {
	address, _, err := localAddress(fd)
	return err == nil && address.IsValid()
}

// receiveBuffer is what the kernel says of the receive buffer of a socket, in bytes; 0 if it does not.
func receiveBuffer(fd int) int {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		return 0
	}
	return n
}

// prepareListener sets what package net's listener would have, and what others may have set otherwise.
func prepareListener(f *os.File, s Spec) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(onFile(f, plainListener), takeUrgentInline(raw), setListenerBuffers(raw, s.TCP.buffers()))
}

// prepareConnection sets what a connection has from its listener. They are wishes.
func prepareConnection(f *os.File) {
	if raw, err := f.SyscallConn(); err == nil {
		_ = takeUrgentInline(raw)
	}
}

// prepareUDP sets what a UDP socket of package net would have.
func prepareUDP(f *os.File, a Address, g *guard) error {
	return onFile(f, func(fd int) error {
		g.namespace = namespaceOf(fd)
		return errors.Join(plainUDP(fd, a.wildcard()), askAdopted(fd, a.wildcard()))
	})
}

// duplicateFile answers a descriptor of the same socket, which the caller closes.
func duplicateFile(fd uintptr, name string) (*os.File, error) {
	other, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(other), name), nil
}
