//go:build race

package echo

import (
	"encoding/binary"
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// The same as sys_raw_linux.go, by calls that the race detector knows.

func epollWait(fd int, events []unix.EpollEvent) int {
	n, err := unix.EpollWait(fd, events, 0)
	if err != nil {
		return 0
	}
	return n
}

func receiveFD(fd int, b []byte, flags uintptr) (int, syscall.Errno) {
	n, _, err := unix.Recvfrom(fd, b, int(flags))
	return n, errnoOf(err)
}

func writeFD(fd int, b []byte) (int, syscall.Errno) {
	n, err := unix.SendmsgN(fd, b, nil, nil, unix.MSG_NOSIGNAL)
	return n, errnoOf(err)
}

func acceptFD(fd int, name *[nameBytes]byte) (int, syscall.Errno) {
	n, from, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		binary.NativeEndian.PutUint16(name[:2], unix.AF_INET)
		binary.BigEndian.PutUint16(name[2:4], uint16(from.Port))
		copy(name[4:8], from.Addr[:])
	case *unix.SockaddrInet6:
		binary.NativeEndian.PutUint16(name[:2], unix.AF_INET6)
		binary.BigEndian.PutUint16(name[2:4], uint16(from.Port))
		copy(name[8:24], from.Addr[:])
	}
	return n, errnoOf(err)
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	errors.As(err, &errno)
	return errno
}
