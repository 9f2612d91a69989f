package handover

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/echod/echod/daemon/echo"
)

// passed takes the sockets that were passed to this process. What cannot be used is closed, and a warning tells of it.
func passed() (sockets []Socket, warnings []string, err error) {
	names, warning, err := namesOf(os.Getenv, os.Getpid())
	if err != nil {
		return nil, nil, err
	}
	if warning != "" {
		warnings = append(warnings, warning)
	}
	for i := range names {
		// One that closes with exec was not passed: the runtime has opened it since.
		flags, err := unix.FcntlInt(uintptr(firstFD+i), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			return nil, nil, fmt.Errorf("%s=%d, and descriptor %d (%q) is not open", listenFDs, len(names), firstFD+i, names[i])
		}
	}
	if len(names) == 0 {
		return nil, warnings, nil
	}
	for i, file := range activation.Files(true) {
		s, err := examine(names[i], file)
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("the passed descriptor %d, %q, is not taken: %v", firstFD+i, names[i], err))
			_ = file.Close() // nobody wants it
			continue
		}
		sockets = append(sockets, s)
	}
	return sockets, warnings, nil
}

// examine tells what a passed descriptor is, or why it is nothing that can be served.
func examine(name string, file *os.File) (s Socket, err error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return Socket{}, err
	}
	s = Socket{Name: name, File: file}
	controlErr := raw.Control(func(fd uintptr) { err = s.examine(int(fd)) })
	return s, errors.Join(controlErr, err)
}

func (s *Socket) examine(fd int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if errors.Is(err, unix.ENOTSOCK) {
		return errors.New("it is not a socket")
	}
	if err != nil {
		return err
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return err
	}
	if domain != unix.AF_UNIX && domain != unix.AF_INET && domain != unix.AF_INET6 {
		return fmt.Errorf("it is a socket of address family %d; TCP, UDP and unix sockets are taken", domain)
	}
	if err := s.classify(fd, kind); err != nil {
		return err
	}
	if domain == unix.AF_UNIX {
		return s.examineUnix(fd)
	}
	return s.examineInternet(fd)
}

// classify tells what a socket is there for.
func (s *Socket) classify(fd, kind int) error {
	_, err := unix.Getpeername(fd)
	connected := err == nil
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return err
	}
	switch {
	case kind == unix.SOCK_STREAM && listening != 0:
		s.Kind = Listening
	case kind == unix.SOCK_STREAM && connected:
		s.Kind = Connected
	case kind == unix.SOCK_STREAM:
		return errors.New("it neither listens nor is connected, or is not any more")
	case kind == unix.SOCK_DGRAM && connected:
		return errors.New("it is a datagram socket with one peer; UDP sockets for all are taken")
	case kind == unix.SOCK_DGRAM:
		s.Kind = Datagrams
	default:
		return fmt.Errorf("it is a socket of type %d; stream and datagram sockets are taken", kind)
	}
	return nil
}

func (s *Socket) examineUnix(fd int) error {
	if s.Kind != Listening {
		return errors.New("it is a unix socket that does not listen; unix sockets are taken for control alone")
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	address, ok := name.(*unix.SockaddrUnix)
	if !ok || address.Name == "" {
		return errors.New("it is a unix socket without a path")
	}
	s.Path = address.Name
	return nil
}

func (s *Socket) examineInternet(fd int) error {
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return err
	}
	switch protocol {
	case unix.IPPROTO_TCP:
		s.Protocol = echo.TCP
	case unix.IPPROTO_UDP:
		s.Protocol = echo.UDP
	case unix.IPPROTO_MPTCP:
		return errors.New("it speaks Multipath TCP; TCP and UDP are taken")
	default:
		return fmt.Errorf("it speaks protocol %d; TCP (6) and UDP (17) are taken", protocol)
	}
	here, err := isHere(fd)
	if err != nil {
		return err
	}
	if _, kept := KeptFor(s.Name); !here && !kept {
		return errors.New("it is in another network namespace than this process; an endpoint with network_namespace can be made there")
	}
	if s.Interface, err = unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE); err != nil {
		return err
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	address, err := listenOf(fd, own)
	if err != nil {
		return err
	}
	s.Listen = address.String()
	if s.Kind == Connected {
		peer, err := unix.Getpeername(fd)
		if err != nil {
			return err
		}
		s.Peer = addrPort(fd, peer)
		s.Peer = netip.AddrPortFrom(s.Peer.Addr().Unmap(), s.Peer.Port())
		return nil
	}
	if _, err := echo.ParseListen(s.Listen); err != nil {
		return err
	}
	return nil
}

// listenOf is what a socket listens on.
func listenOf(fd int, own unix.Sockaddr) (echo.Address, error) {
	bound := addrPort(fd, own)
	if bound.Port() == 0 {
		return echo.Address{}, errors.New("it is not bound to a port")
	}
	ip := bound.Addr()
	if ip == netip.IPv6Unspecified() {
		only6, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		if err != nil {
			return echo.Address{}, err
		}
		if only6 == 0 {
			ip = netip.Addr{} // all addresses of both families
		}
	}
	return echo.Address{IP: ip.Unmap(), Port: bound.Port()}, nil
}

// addrPort is an address of a socket of TCP or UDP.
func addrPort(fd int, a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(a.Addr)
		if a.ZoneId != 0 {
			ip = ip.WithZone(zoneName(fd, a.ZoneId))
		}
		return netip.AddrPortFrom(ip, uint16(a.Port))
	}
	return netip.AddrPort{}
}

// zoneName is the name of an interface where a socket is, as people write it, or its number if it has none.
func zoneName(fd int, index uint32) string {
	request, err := unix.NewIfreq("any")
	if err == nil {
		request.SetUint32(index)
		err = unix.IoctlIfreq(fd, unix.SIOCGIFNAME, request)
	}
	if err != nil {
		return strconv.FormatUint(uint64(index), 10)
	}
	return request.Name()
}

// isHere says whether a socket is in the network namespace of this thread; where the kernel does not tell (before 5.14), it is.
func isHere(fd int) (bool, error) {
	there, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return true, nil // it cannot be told apart
	}
	own, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(own) }()
	here, err := unix.GetsockoptUint64(own, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return here == there, err
}
