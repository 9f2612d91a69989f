package echo

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// tcpReadBytes is the most that one read takes and, with it, all that a connection ever holds here.
	tcpReadBytes = 32 << 10
	// tcpSocketBytes is asked of the kernel as send and as receive buffer. A fixed size switches its autotuning off, by
	// which a peer that writes without reading could fill tens of megabytes.
	tcpSocketBytes = 96 << 10
	// oneShotGrace is how long a one-shot connection still takes bytes after its answer.
	oneShotGrace = time.Second
)

var tcpBuffers = sync.Pool{New: func() any { return new([tcpReadBytes]byte) }}

// errExpired says that the deadline of a connection has truly passed.
var errExpired = errors.New("deadline passed")

// stream is what a TCP connection is to this file.
type stream interface {
	net.Conn
	CloseWrite() error
	SetLinger(seconds int) error
}

// tcpConn is one connection. Its life is run, in one goroutine; rearm and cut come from others.
//
// The idle timeout is lazy: bytes that move do not move the deadline of the connection. When the deadline passes,
// extend finds out when the last byte moved.
type tcpConn struct {
	conn     stream
	await    func() error // returns when a read would not block
	counters *counters
	idle     *atomic.Pointer[idleLimit] // of the endpoint; it may change at any time
	oneShot  bool
	moved    time.Time // when the last byte moved, or the connection came; owned by run

	mu           sync.Mutex // guards the deadline of conn and what follows
	discardUntil time.Time  // set once a one-shot connection has answered
}

// run echoes until the peer ends its side, something fails or the connection is cut, and closes it.
func (c *tcpConn) run() {
	defer func() { _ = c.conn.Close() }() // after the peer's end, this is ours: a FIN behind the last byte
	c.moved = time.Now()
	c.arm(c.moved)
	for {
		if err := c.echoOnce(); err != nil {
			return
		}
		if c.oneShot {
			c.discardRest()
			return
		}
	}
}

// echoOnce sends back what one read returns. An error ends the connection and is counted already.
func (c *tcpConn) echoOnce() error {
	buf, n, err := c.read()
	if err != nil {
		return c.failed(&c.counters.readErrors, err)
	}
	defer tcpBuffers.Put(buf)
	if err := c.write(buf[:n]); err != nil {
		// What is still in the kernel's buffer has no taker: let it go with the connection.
		_ = c.conn.SetLinger(0)
		return c.failed(&c.counters.writeErrors, err)
	}
	return nil
}

// discardRest ends our side and reads what the peer still sends, for a second at most: closing with unread bytes would
// send a reset, which can overtake the answer.
func (c *tcpConn) discardRest() {
	if err := c.conn.CloseWrite(); err != nil {
		_ = c.failed(&c.counters.writeErrors, err)
		return
	}
	c.mu.Lock()
	c.discardUntil = time.Now().Add(oneShotGrace)
	c.mu.Unlock()
	c.arm(c.moved)
	for {
		buf, n, err := c.read()
		if errors.Is(err, errExpired) {
			return
		}
		if err != nil {
			_ = c.failed(&c.counters.readErrors, err)
			return
		}
		tcpBuffers.Put(buf)
		c.counters.oneShotRest.Add(uint64(n))
	}
}

// read waits for bytes and returns n of them, one at least, in a buffer that the caller puts back.
func (c *tcpConn) read() (buf *[tcpReadBytes]byte, n int, err error) {
	for {
		if err = c.await(); err == nil {
			buf = tcpBuffers.Get().(*[tcpReadBytes]byte)
			if n, err = c.conn.Read(buf[:]); n > 0 {
				c.progress(&c.counters.bytesIn, n)
				return buf, n, nil
			}
			tcpBuffers.Put(buf)
		}
		if err = c.extend(err); err != nil {
			return nil, 0, err
		}
	}
}

// write returns when the kernel has taken all of b. As long as it waits nothing is read: that is the back-pressure.
func (c *tcpConn) write(b []byte) error {
	for len(b) > 0 {
		n, err := c.conn.Write(b)
		if n > 0 {
			c.progress(&c.counters.bytesOut, n)
			b = b[n:]
		}
		if err = c.extend(err); err != nil {
			return err
		}
	}
	return nil
}

func (c *tcpConn) progress(counter *atomic.Uint64, n int) {
	counter.Add(uint64(n))
	c.moved = time.Now()
	c.counters.active(c.moved)
}

// extend turns the error of a deadline that passed too early into nil and moves the deadline, and that of one which
// passed rightly into errExpired. Other errors stay.
func (c *tcpConn) extend(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if due := c.arm(c.moved); due.IsZero() || time.Now().Before(due) {
		return nil
	}
	return errExpired
}

// arm sets the deadline of the connection, counted from when a byte moved last, and returns it.
func (c *tcpConn) arm(moved time.Time) (due time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := c.idle.Load()
	switch {
	case !c.discardUntil.IsZero():
		due = c.discardUntil
	case limit.timeout > 0 && limit.since.After(moved):
		due = limit.since.Add(limit.timeout)
	case limit.timeout > 0:
		due = moved.Add(limit.timeout)
	}
	// This fails on a closed connection only, where read or write says so, too.
	_ = c.conn.SetDeadline(due)
	return due
}

// rearm brings a new idle timeout, which counts from its change, to the connection.
func (c *tcpConn) rearm() { c.arm(time.Time{}) }

// cut ends the connection at once, with a reset.
func (c *tcpConn) cut() {
	_ = c.conn.SetLinger(0)
	_ = c.conn.Close()
}

// failed counts what ended the connection, as kind if it is nothing more special, and returns it.
func (c *tcpConn) failed(kind *atomic.Uint64, err error) error {
	switch {
	case errors.Is(err, io.EOF):
		// The peer is done: the regular end.
	case errors.Is(err, net.ErrClosed):
		c.counters.closing.Add(1)
	case errors.Is(err, errExpired):
		c.counters.idleTimeout.Add(1)
	case isReset(err):
		c.counters.resets.Add(1)
	default:
		kind.Add(1)
	}
	return err
}
