package echo

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// What SO_MEMINFO answers (include/uapi/linux/sock_diag.h): nine numbers, the last of which is what was dropped for want
// of room, or for a bad checksum.
const (
	meminfoNumbers = 9
	meminfoDrops   = 8
)

// observeDrops notes what the kernel has dropped of a socket's datagrams since it was made.
func observeDrops(fd int, c *counters) {
	var info [meminfoNumbers]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno == 0 {
		c.receiveBufferFull.Store(uint64(info[meminfoDrops]))
	}
}
