package echo

import (
	"time"

	"golang.org/x/sys/unix"
)

// Deep socket buffers make one or a few bulk connections faster by half, since less often one side waits for the other;
// many at once have depth in their number. But what a buffer can hold, a peer that does not read can have it hold. So all
// connections begin with shallow buffers, and a few of a loop have deep ones at a time: those whose peers take what they
// are sent.

// buffers are asked of the kernel, in bytes; it takes about twice as much.
type buffers struct{ receive, send int }

var (
	shallow = buffers{tcpSocketBytes, tcpSocketBytes}
	deepest = buffers{512 << 10, 512 << 10}
)

const (
	// deepAtOnce connections of a loop have deep buffers: 32 MiB of the kernel's memory at the most.
	deepAtOnce = 16
	// earnBytes must a peer take before its connection may have them, more than most hold unread.
	earnBytes = 1 << 20
	// deepRest is how long one that has them must not have moved to lose them to another.
	deepRest = time.Second
)

// listenerBuffers are those of a listener. From a deep receive buffer its connections have a window scale (RFC 7323) that
// lets theirs become deep, which a socket that was shallow at its SYN can't.
func listenerBuffers(o TCPOptions) buffers {
	if o.SocketBufferBytes != 0 {
		return buffers{o.SocketBufferBytes, o.SocketBufferBytes}
	}
	return buffers{deepest.receive, shallow.send}
}

// setBuffers switches the kernel's autotuning off.
func setBuffers(fd int, b buffers) error {
	return setOptions(fd, option{unix.SOL_SOCKET, unix.SO_RCVBUF, b.receive}, option{unix.SOL_SOCKET, unix.SO_SNDBUF, b.send})
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
	for i, other := range d {
		if other != nil {
			if c.loop.now-other.moved < deepRest {
				continue
			}
			other.mayDeepen = true
			_ = setBuffers(other.fd, shallow) // what it holds more is used up
		}
		d[i], c.mayDeepen = c, false
		_ = setBuffers(c.fd, deepest) // it goes on with what it has
		return
	}
}

// leave takes a connection out, if it is in.
func (d *deep) leave(c *loopConn) {
	for i := range d {
		if d[i] == c {
			d[i] = nil
		}
	}
}
