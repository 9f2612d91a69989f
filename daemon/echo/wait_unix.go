//go:build unix

package echo

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// waiter waits until a socket has something to read, so that the buffer to read into is taken only then: an idle
// connection or endpoint holds none. It is used by one goroutine at a time.
type waiter struct {
	raw   syscall.RawConn
	poll  [1]unix.PollFd
	ready func(fd uintptr) bool
}

func newWaiter(c syscall.Conn) (*waiter, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	w := &waiter{raw: raw}
	w.ready = w.isReadable // bound once: a method value made per wait would be garbage each time
	return w, nil
}

// wait returns nil when a read would not block, be it for data, the end or an error. The read deadline of the
// connection ends it with os.ErrDeadlineExceeded, closing with net.ErrClosed.
func (w *waiter) wait() error { return w.raw.Read(w.ready) }

func (w *waiter) isReadable(fd uintptr) bool {
	for {
		w.poll[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
		n, err := unix.Poll(w.poll[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		// If poll itself fails, the read finds out why.
		return n != 0 || err != nil
	}
}

// control calls f with the descriptor, unless it is closed.
func (w *waiter) control(f func(fd uintptr)) error { return w.raw.Control(f) }

// takeUrgentInline has urgent data (RFC 6093) come where it stands in the stream, as all other data. It is for a listener,
// whose connections are alike.
func takeUrgentInline(raw syscall.RawConn) error { return setSocket(raw, unix.SO_OOBINLINE, 1) }

// buffersAreInherited: connections have the socket buffers of their listener. To give them less once they are there would
// have the kernel drop what their peers may send.
const buffersAreInherited = true

func setListenerBuffers(raw syscall.RawConn, b buffers) error {
	return errors.Join(setSocket(raw, unix.SO_RCVBUF, b.receive), setSocket(raw, unix.SO_SNDBUF, b.send))
}

// switchBroadcastOff has the system refuse to answer a broadcast address, which a forged source may be (RFC 1122 section
// 4.1.3.6). Which addresses are, it knows best. Package net allows it for every socket.
func switchBroadcastOff(raw syscall.RawConn) error { return setSocket(raw, unix.SO_BROADCAST, 0) }

func setSocket(raw syscall.RawConn, name, value int) error {
	var err error
	controlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, name, value) })
	return errors.Join(controlErr, err)
}
