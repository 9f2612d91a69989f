package echo

import (
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// askReceiveBuffer asks for the receive buffer of a UDP socket, over the system's limit where this process may. It is a
// wish: a smaller buffer loses datagrams sooner under load and is no reason not to serve.
func askReceiveBuffer(fd int) {
	if setOptions(fd, option{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpSocketBytes}) != nil {
		_ = setOptions(fd, option{unix.SOL_SOCKET, unix.SO_RCVBUF, udpSocketBytes})
	}
}

// UDPReceiveBuffer tries how large a receive buffer UDP endpoints get, and says how large a one they ask for, in bytes. A
// smaller one loses datagrams sooner when they come faster than they are read. The error satisfies errors.Is with
// errors.ErrUnsupported on systems that do not tell.
func UDPReceiveBuffer() (got, asked int, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, udpSocketBytes, err
	}
	askReceiveBuffer(fd)
	got, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	return got / 2, udpSocketBytes, errors.Join(err, unix.Close(fd)) // the kernel takes, and tells, twice what it was asked for
}

// What SO_MEMINFO answers (include/uapi/linux/sock_diag.h): nine numbers, the last of which is what was dropped for want
// of room, or for a bad checksum.
const (
	meminfoNumbers = 9
	meminfoDrops   = 8
)

func meminfo(fd int) (info [meminfoNumbers]uint32, errno syscall.Errno) {
	size := uint32(unsafe.Sizeof(info))
	_, _, errno = syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return info, errno
}

// observeDrops notes what the kernel has dropped of a socket's datagrams since it was made.
func observeDrops(fd int, c *counters) {
	info, errno := meminfo(fd)
	if errno == 0 && info[meminfoDrops] > 0 { // most endpoints never lose any
		c.of(dropReceiveBufferFull).Store(uint64(info[meminfoDrops]))
	}
}
