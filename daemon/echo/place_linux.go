package echo

import (
	"errors"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// bindToInterface has a socket see what comes by one interface, or VRF, alone, and send by it (SO_BINDTODEVICE, socket(7)).
func bindToInterface(fd int, name string) error {
	if name == "" {
		return nil
	}
	err := unix.BindToDevice(fd, name)
	switch {
	case errors.Is(err, unix.ENODEV):
		return ErrInterfaceNotAvailable
	case errors.Is(err, unix.EPERM):
		return interfaceError("permission denied; before Linux 5.7 to bind to an interface needs CAP_NET_RAW")
	default:
		return err
	}
}

// bindToInterfaceRaw is bindToInterface for a socket of package net.
func bindToInterfaceRaw(raw syscall.RawConn, name string) error {
	var err error
	controlErr := raw.Control(func(fd uintptr) { err = bindToInterface(int(fd), name) })
	return errors.Join(controlErr, err)
}

// interfaceIndex answers the number of an interface in the namespace of a socket. Package net would answer, and remember for
// the whole process, what the thread's namespace has.
func interfaceIndex(fd int, name string) (uint32, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, unix.EADDRNOTAVAIL
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err != nil {
		return 0, unix.EADDRNOTAVAIL
	}
	return request.Uint32(), nil
}

// numberZone names the zone of an address by its number where the thread is, 0 if there is none. Package net must not look it up:
// it remembers for a minute what a name meant to whichever thread asked, which may be another namespace's.
func numberZone(a Address) Address {
	zone := a.IP.Zone()
	if zone == "" {
		return a
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return a
	}
	defer func() { _ = unix.Close(fd) }()
	n, _ := zoneIndex(fd, zone) // binding says what is wrong with 0
	a.IP = a.IP.WithZone(strconv.FormatUint(uint64(n), 10))
	return a
}

// namespaceOf tells the network namespaces of sockets apart; it is the same number for all where the kernel does not tell
// (before 5.14).
func namespaceOf(fd int) uint64 {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0
	}
	return cookie
}
