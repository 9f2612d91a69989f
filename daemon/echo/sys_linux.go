package echo

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of the loops, raw where they take a microsecond or some: the scheduler need not be told. Those whose
// memory others than the loop read, too, are in sys_raw_linux.go, with twins in sys_race_linux.go: the race detector does
// not see the memory that a raw call reads and writes.

func epollAdd(epfd, fd int, event *unix.EpollEvent) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epfd), unix.EPOLL_CTL_ADD, uintptr(fd), uintptr(unsafe.Pointer(event)), 0, 0)
	return errno
}

func epollDelete(epfd, fd int) {
	_, _, _ = syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epfd), unix.EPOLL_CTL_DEL, uintptr(fd), 0, 0, 0)
}

func readFD(fd int, b []byte) (int, syscall.Errno) { return receiveFD(fd, b, 0) }

// peekFD reads and leaves what it read where it was.
func peekFD(fd int, b []byte) (int, syscall.Errno) { return receiveFD(fd, b, unix.MSG_PEEK) }

// discardFD throws away as many bytes as b has, which must be there to be read. TCP does not write to b (tcp(7)).
func discardFD(fd int, b []byte) syscall.Errno {
	for len(b) > 0 {
		n, errno := receiveFD(fd, b, unix.MSG_TRUNC)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return errno
		case n == 0:
			return unix.EIO // it was there
		default:
			b = b[n:]
		}
	}
	return 0
}

// closeFD closes a connection. There is nothing to do about an error: the descriptor is gone.
func closeFD(fd int) { _, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

func receiveBatch(fd int, into []mmsghdr) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&into[0])), uintptr(len(into)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

func sendBatch(fd int, from []mmsghdr) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&from[0])), uintptr(len(from)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

// unsentBytes is what the peer of a connection has not taken yet, as far as the kernel knows.
func unsentBytes(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return 0 // then whatever it was has been taken, or reading says why not
	}
	return n
}
