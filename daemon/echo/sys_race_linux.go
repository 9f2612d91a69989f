//go:build race

package echo

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// The same as sys_linux.go, by calls that the race detector knows.

func epollWait(fd int, events []unix.EpollEvent) int {
	n, err := unix.EpollWait(fd, events, 0)
	if err != nil {
		return 0
	}
	return n
}

func readFD(fd int, b []byte) (int, syscall.Errno) {
	n, err := unix.Read(fd, b)
	return n, errnoOf(err)
}

func writeFD(fd int, b []byte) (int, syscall.Errno) {
	n, err := unix.SendmsgN(fd, b, nil, nil, unix.MSG_NOSIGNAL)
	return n, errnoOf(err)
}

func acceptFD(fd int) (int, syscall.Errno) {
	n, _, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	return n, errnoOf(err)
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	errors.As(err, &errno)
	return errno
}
