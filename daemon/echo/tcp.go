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
	// tcpReceiveBytes and tcpSendBytes are asked of the kernel as buffers. A fixed size switches its autotuning off, by
	// which a peer that writes without reading could fill tens of megabytes.
	tcpReceiveBytes = 64 << 10
	tcpSendBytes    = 96 << 10
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
// The timeouts are lazy: bytes that move do not move the deadline of the connection. When the deadline passes,
// extend finds out when the last byte moved.
type tcpConn struct {
	conn     stream
	await    func() error // returns when a read would not block
	counters *counters
	timeouts *atomic.Pointer[timeouts] // of the endpoint; they may change at any time
	writing  atomic.Bool               // the peer has to take something first
	oneShot  bool
	maxBytes uint64 // that are echoed; 0 is no limit
	told     *told

	// What follows is touched by run alone.
	moved  time.Time // when the last byte moved, or the connection came
	echoed uint64
	still  event // what it is ended for, once its deadline has passed
	why    event // what ended it, as it was counted; noEvent for the regular end

	mu           sync.Mutex // guards the deadline of conn and what follows
	deadline     time.Time
	discardUntil time.Time // set once our side has ended
}

// prepare has the connection wait for bytes without a buffer. It fails for one that is dead already.
func (c *tcpConn) prepare(conn *net.TCPConn, b buffers) error {
	waiter, err := newWaiter(conn)
	if err != nil {
		return err
	}
	c.await = waiter.wait
	if buffersAreInherited {
		return nil
	}
	if err := conn.SetReadBuffer(b.receive); err != nil {
		return err
	}
	return conn.SetWriteBuffer(b.send)
}

// run echoes until the peer ends its side, something fails or the connection is cut, and closes it.
func (c *tcpConn) run() {
	answered := c.echo()
	_ = c.conn.Close() // after the peer's end, this is ours: a FIN behind the last byte
	c.told.end(c.why, answered, c.spent())
}

// echo returns when the connection is to be closed. It answers whether our side has ended before that.
func (c *tcpConn) echo() (answered bool) {
	c.moved = time.Now()
	c.arm(c.moved)
	for {
		if err := c.echoOnce(); err != nil {
			return false
		}
		if c.spent() {
			c.counters.count(dropMaxBytes, 1)
		}
		if c.oneShot || c.spent() {
			c.discardRest()
			return true
		}
	}
}

// spent reports whether as much as may be was echoed.
func (c *tcpConn) spent() bool { return c.maxBytes > 0 && c.echoed == c.maxBytes }

// echoOnce sends back what one read returns. An error ends the connection and is counted already.
func (c *tcpConn) echoOnce() error {
	buf, n, err := c.read(c.most())
	if err != nil {
		return c.failed(errorRead, err)
	}
	defer tcpBuffers.Put(buf)
	if err := c.write(buf[:n]); err != nil {
		// What is still in the kernel's buffer has no taker: let it go with the connection.
		_ = c.conn.SetLinger(0)
		return c.failed(errorWrite, err)
	}
	c.echoed += uint64(n)
	return nil
}

// most is how many bytes the next read may take.
func (c *tcpConn) most() int {
	if c.maxBytes == 0 {
		return tcpReadBytes
	}
	return int(min(tcpReadBytes, c.maxBytes-c.echoed))
}

// discardRest ends our side and reads what the peer still sends, for a second at most: closing with unread bytes would
// send a reset, which can overtake the answer.
func (c *tcpConn) discardRest() {
	if err := c.conn.CloseWrite(); err != nil {
		_ = c.failed(errorWrite, err)
		return
	}
	c.mu.Lock()
	c.discardUntil = time.Now().Add(oneShotGrace)
	c.mu.Unlock()
	c.arm(c.moved)
	for {
		buf, n, err := c.read(tcpReadBytes)
		if errors.Is(err, errExpired) {
			return
		}
		if err != nil {
			_ = c.failed(errorRead, err)
			return
		}
		tcpBuffers.Put(buf)
		c.counters.count(dropRest, uint64(n))
	}
}

// read waits for bytes and returns n of them, one at least and most at the most, in a buffer that the caller puts back.
func (c *tcpConn) read(most int) (buf *[tcpReadBytes]byte, n int, err error) {
	for {
		if err = c.await(); err == nil {
			buf = tcpBuffers.Get().(*[tcpReadBytes]byte)
			if n, err = c.conn.Read(buf[:most]); n > 0 {
				c.counters.bytesIn.Add(uint64(n))
				c.told.received(n)
				c.progress()
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
	c.writing.Store(true)
	defer c.writing.Store(false)
	c.hasten()
	for len(b) > 0 {
		n, err := c.conn.Write(b)
		if n > 0 {
			c.counters.bytesOut.Add(uint64(n))
			c.told.sent(n)
			c.progress()
			b = b[n:]
		}
		if err = c.extend(err); err != nil {
			if len(b) > 0 {
				c.counters.count(dropNotTaken, uint64(len(b)))
			}
			return err
		}
	}
	return nil
}

func (c *tcpConn) progress() {
	c.moved = time.Now()
	c.counters.active(c.moved)
}

// extend turns the error of a deadline that passed too early into nil and moves the deadline, and that of one which
// passed rightly into errExpired. Other errors stay.
func (c *tcpConn) extend(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	due, reason := c.arm(c.moved)
	if due.IsZero() || time.Now().Before(due) {
		return nil
	}
	c.still = reason
	return errExpired
}

// arm sets the deadline of the connection, counted from when a byte moved last, and returns it with what it is for.
func (c *tcpConn) arm(moved time.Time) (due time.Time, reason event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	due, reason = c.dueLocked(moved)
	c.setDeadlineLocked(due)
	return due, reason
}

// hasten arms a connection that is to stall sooner than it would be idle.
func (c *tcpConn) hasten() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if due, _ := c.dueLocked(c.moved); !due.IsZero() && (c.deadline.IsZero() || due.Before(c.deadline)) {
		c.setDeadlineLocked(due)
	}
}

func (c *tcpConn) setDeadlineLocked(due time.Time) {
	c.deadline = due
	// This fails on a closed connection only, where read or write says so, too.
	_ = c.conn.SetDeadline(due)
}

// dueLocked is when the connection will have been still for too long, and what it is ended for then.
func (c *tcpConn) dueLocked(moved time.Time) (time.Time, event) {
	if !c.discardUntil.IsZero() {
		return c.discardUntil, noEvent
	}
	limit := c.timeouts.Load()
	after, reason := limit.after(c.writing.Load())
	if after == 0 {
		return time.Time{}, reason
	}
	if limit.since.After(moved) {
		moved = limit.since
	}
	return moved.Add(after), reason
}

// rearm brings new timeouts, which count from their change, to the connection.
func (c *tcpConn) rearm() { c.arm(time.Time{}) }

// cut ends the connection at once, with a reset.
func (c *tcpConn) cut() {
	_ = c.conn.SetLinger(0)
	_ = c.conn.Close()
}

// failed counts what ended the connection, as kind if it is nothing more special, and returns it.
func (c *tcpConn) failed(kind event, err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return err // the peer is done: the regular end
	case errors.Is(err, net.ErrClosed):
		kind = dropClosing
	case errors.Is(err, errExpired):
		kind = c.still
	case isReset(err):
		kind = errorReset
	}
	c.counters.count(kind, 1)
	c.why = kind
	return err
}
