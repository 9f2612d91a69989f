package echo

import (
	"time"

	"golang.org/x/sys/unix"
)

// Deep socket buffers make one or a few bulk connections faster by half, since less often one side waits for the other;
// many at once have depth in their number. But what a buffer can hold, a peer that does not read can have it hold. So all
// connections begin with shallow buffers, and a few of a loop have deep ones at a time: those whose peers take what they
// are sent.

var deepest = buffers{2 << 20, 2 << 20}

const (
	// deepAtOnce connections of a loop have deep buffers: 64 MiB of the kernel's memory at the most.
	deepAtOnce = 8
	// earnBytes must a peer take before its connection may have them, more than most hold unread.
	earnBytes = 1 << 20
	// deepRest is how long one that has them must not have moved to lose them to another.
	deepRest = time.Second
)

// prepareBuffers sets what a listener hands on to its connections, and answers the receive buffer that they are to be given
// later (loopConn.bound); 0: none. To give it before would fix the window scale (RFC 7323) at what is shallow. To give less
// than they have then would have the kernel drop what their peers may send. Given is the receive buffer that the listener
// had from the system, as the kernel tells it.
func prepareBuffers(listener int, o TCPOptions, given int) (receive int, err error) {
	if o.SocketBufferBytes != 0 {
		return 0, setBuffers(listener, o.buffers())
	}
	return max(shallow.receive, given/2), setOptions(listener, option{unix.SOL_SOCKET, unix.SO_SNDBUF, shallow.send})
}

// unlockReceiveBuffer gives a listener that had one of its own the system's again. Kernels before 5.14 keep the window scale
// that goes with its own.
func unlockReceiveBuffer(listener, given int) {
	_ = setOptions(listener, option{unix.SOL_SOCKET, unix.SO_RCVBUF, given / 2})
	_ = setOptions(listener, option{unix.SOL_SOCKET, unix.SO_BUF_LOCK, sendBufferLock})
}

// sendBufferLock keeps the send buffer alone as it is (SOCK_SNDBUF_LOCK of include/uapi/linux/socket.h).
const sendBufferLock = 1

// setBuffers switches the kernel's autotuning off.
func setBuffers(fd int, b buffers) error {
	return setOptions(fd, option{unix.SOL_SOCKET, unix.SO_RCVBUF, b.receive}, option{unix.SOL_SOCKET, unix.SO_SNDBUF, b.send})
}

// setWindow lets a peer send so much ahead, as far as the receive buffer allows.
func setWindow(fd, bytes int) {
	_ = setOptions(fd, option{unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, bytes})
}

// deep are the connections of a loop that have deep buffers.
type deep [deepAtOnce]*loopConn

// earn notes that the peer of a bulk connection has taken more.
func (d *deep) earn(c *loopConn, taken int) {
	if !c.mayDeepen {
		return
	}
	if c.taken += uint64(taken); c.taken < earnBytes {
		return
	}
	c.taken = 0
	if at := d.place(c.loop.now); at >= 0 {
		d[at], c.mayDeepen = c, false
		_ = setBuffers(c.fd, deepest) // it goes on with what it has
		setWindow(c.fd, deepest.receive)
	}
}

// place answers a free place, if need be that of a connection which rests; -1 if there is none.
func (d *deep) place(now time.Duration) int {
	for i, c := range d {
		if c == nil {
			return i
		}
	}
	for i, c := range d {
		if now-c.moved >= deepRest && c.holdsNothing() {
			makeShallow(c)
			return i
		}
	}
	return -1
}

// holdsNothing reports whether the kernel holds no byte of a connection, neither from its peer nor for it. All that had
// come has been read, unless it is full.
func (c *loopConn) holdsNothing() bool { return !c.full && unsentBytes(c.fd) == 0 }

// leave takes a connection out, and answers whether it was in.
func (d *deep) leave(c *loopConn) bool {
	for i := range d {
		if d[i] == c {
			d[i] = nil
			return true
		}
	}
	return false
}

// join takes in a connection that has deep buffers already; where there is no place for it, it has them no longer.
func (d *deep) join(c *loopConn) {
	if at := d.place(c.loop.now); at >= 0 {
		d[at], c.mayDeepen = c, false
		return
	}
	makeShallow(c)
}

// makeShallow takes deep buffers back. What its peer may still send at once and the shallow buffer does not hold has to be sent
// again.
func makeShallow(c *loopConn) {
	_ = setBuffers(c.fd, shallow)
	setWindow(c.fd, shallow.receive)
	c.mayDeepen = true
}
