package probe

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stampedConn reads from a TCP connection with the kernel's times: of the last packet that a read takes of, and of the
// last byte of each write, when it left first.
type stampedConn struct {
	raw     syscall.RawConn
	control [controlBytes]byte
	left    departures
}

// departures are when bytes of a connection have left: the last of each write, and of each part of it that left by itself. In
// order.
type departures []byteLeft

// byteLeft is when a byte left, by its number modulo 2^32.
type byteLeft struct {
	number uint32
	when   stamp
}

// maxLeft bounds what is remembered of bytes that have left and not come back: more than there are writes that wait for
// an answer, each of which may leave in parts.
const maxLeft = 4 * maxUnanswered

// stampConn answers nil when the kernel will not tell the times of this connection.
func stampConn(conn net.Conn) timedReader {
	c, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	err = onSocket(raw, func(fd int) error {
		// Bytes are counted from the first that is not acknowledged now, which is the first.
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stampFlags)
	})
	if err != nil {
		return nil
	}
	return &stampedConn{raw: raw}
}

func (c *stampedConn) read(b []byte) (n int, when stamp, err error) {
	once := func(fd uintptr) (done bool) {
		n, when, err = c.readOnce(int(fd), b)
		return !errors.Is(err, unix.EAGAIN)
	}
	for {
		switch polled := c.raw.Read(once); {
		case polled == nil:
			return n, when, err
		case errors.Is(polled, net.ErrClosed), errors.Is(polled, os.ErrDeadlineExceeded):
			return 0, stamp{}, polled
		}
		// The poller takes a socket of which it hears of errors alone for one that cannot be polled. It can: there is
		// something in the error queue, and no room to send.
		time.Sleep(time.Millisecond)
		done := false
		if gone := c.raw.Control(func(fd uintptr) { done = once(fd) }); gone != nil {
			return 0, stamp{}, gone
		}
		if done {
			return n, when, err
		}
	}
}

// readOnce is one read; the error is EAGAIN when there is nothing.
func (c *stampedConn) readOnce(fd int, b []byte) (int, stamp, error) {
	for {
		n, oobn, _, _, err := unix.Recvmsg(fd, b, c.control[:], unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		when := stamp{}
		if err == nil {
			when = parseControl(c.control[:oobn]).stamp
		}
		c.left.read(fd, c.control[:])
		switch {
		case err != nil:
			return 0, stamp{}, err
		case n == 0:
			return 0, stamp{}, io.EOF
		default:
			return n, when, nil
		}
	}
}

func (c *stampedConn) leftAt(number uint32) stamp { return c.left.take(number) }

// read reads from a socket's error queue what has left. It is there before the answer can have come. Control is room for control
// messages.
func (d *departures) read(fd int, control []byte) {
	var none [1]byte // Its entries have no data; without room for some, x/sys asks what socket this is.
	for {
		_, oobn, _, _, err := syscall.Recvmsg(fd, none[:], control, unix.MSG_DONTWAIT|unix.MSG_ERRQUEUE)
		if err != nil {
			return
		}
		x := parseControl(control[:oobn])
		if !x.left || x.stamp == (stamp{}) {
			continue
		}
		if len(*d) == maxLeft {
			*d = append((*d)[:0], (*d)[maxLeft/2:]...)
		}
		*d = append(*d, byteLeft{x.number, x.stamp})
	}
}

// take answers when the byte with this number left, the first time if it did more than once, by each clock, and forgets those up
// to it.
func (d *departures) take(number uint32) (when stamp) {
	passed := 0
	for _, b := range *d {
		if int32(b.number-number) > 0 {
			break
		}
		if b.number == number {
			when = when.or(b.when)
		}
		passed++
	}
	*d = append((*d)[:0], (*d)[passed:]...)
	return when
}
