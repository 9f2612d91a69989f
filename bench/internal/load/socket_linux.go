package load

import (
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socketBytes is asked of the kernel as buffer of UDP sockets, as the servers do.
const socketBytes = 1 << 20

// connectTries bounds how long a server with a full backlog is waited for: the first SYN and two more take 7 s.
const connectTries = 2

// dial opens a socket that is connected to target. Connecting may block, while the server's backlog is full; reads and
// writes of the functions below never do.
func dial(target netip.AddrPort, kind, tos int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot open a socket: %w", err)
	}
	if err := prepare(fd, target, kind, tos); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("cannot connect to %v: %w", target, err)
	}
	return fd, nil
}

func prepare(fd int, target netip.AddrPort, kind, tos int) error {
	if tos != 0 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, tos); err != nil {
			return err
		}
	}
	if kind == unix.SOCK_DGRAM {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, socketBytes) // a wish: less loses sooner
	} else {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return err
		}
		// Not SO_SNDTIMEO: with it, a signal of Go's runtime would end the connecting (signal(7)).
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_SYNCNT, connectTries); err != nil {
			return err
		}
	}
	return unix.Connect(fd, &unix.SockaddrInet4{Port: int(target.Port()), Addr: target.Addr().As4()})
}

// receive reads what is there. It returns 0 and nil when nothing is.
func receive(fd int, buf []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), unix.MSG_DONTWAIT, 0, 0)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return 0, nil
	case errno != 0:
		return 0, fmt.Errorf("cannot read: %w", errno)
	case n == 0:
		return 0, errors.New("the server ended a connection")
	}
	return int(n), nil
}

// send writes what is taken at once, which may be nothing.
func send(fd int, buf []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return 0, nil
	case errno != 0:
		return 0, fmt.Errorf("cannot write: %w", errno)
	}
	return int(n), nil
}

// message is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type message struct {
	header unix.Msghdr
	n      uint32
	_      [unsafe.Sizeof(uintptr(0)) - 4]byte // to the alignment of the header
}

// messagesOver returns count messages of size bytes each: over the same payload if it is given, else with room of their
// own. The sockets are connected, so there are no addresses.
func messagesOver(payload []byte, count, size int) ([]message, [][]byte) {
	messages := make([]message, count)
	rooms := make([][]byte, count)
	parts := make([]unix.Iovec, count)
	for i := range messages {
		rooms[i] = payload
		if payload == nil {
			rooms[i] = make([]byte, size)
		}
		parts[i].Base = &rooms[i][0]
		parts[i].SetLen(size)
		messages[i].header.Iov = &parts[i]
		messages[i].header.SetIovlen(1)
	}
	return messages, rooms
}

// receiveBatch reads the datagrams that are there, 0 if none is.
func receiveBatch(fd int, into []message) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd),
		uintptr(unsafe.Pointer(&into[0])), uintptr(len(into)), unix.MSG_DONTWAIT, 0, 0)
	if errno == unix.EAGAIN || errno == unix.EINTR {
		return 0, nil
	}
	if errno != 0 {
		return 0, fmt.Errorf("cannot read: %w", errno)
	}
	return int(n), nil
}

// sendBatch sends the datagrams that are taken at once, 0 if none is.
func sendBatch(fd int, from []message) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd),
		uintptr(unsafe.Pointer(&from[0])), uintptr(len(from)), unix.MSG_DONTWAIT, 0, 0)
	if errno == unix.EAGAIN || errno == unix.EINTR {
		return 0, nil
	}
	if errno != 0 {
		return 0, fmt.Errorf("cannot write: %w", errno)
	}
	return int(n), nil
}
