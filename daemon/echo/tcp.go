package echo

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
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

// errPausing says that the connection, or whatever it is, is to be left as it is, open.
var errPausing = errors.New("pausing")

// past is a deadline that ends whatever waits.
var past = time.Unix(1, 0)

// stream is what a TCP connection is to this file.
type stream interface {
	net.Conn
	CloseWrite() error
	SetLinger(seconds int) error
}

// buffered is a stream whose kernel buffers can be set.
type buffered interface {
	syscall.Conn
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
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
	told     *told

	// What follows is touched by run alone.
	moved   time.Time // when the last byte moved, or the connection came
	left    uint64    // how many bytes are still to be echoed
	pending []byte    // what the peer had not taken when it was paused
	still   event     // what it is ended for, once its deadline has passed
	why     event     // what ended it, as it was counted; noEvent for the regular end

	mu           sync.Mutex // guards the deadline of conn and what follows
	pausing      bool       // run is to return, or has
	paused       time.Time  // when; good while no run is under way
	deadline     time.Time
	discardUntil time.Time // set once our side has ended
}

// prepare has the connection wait for bytes without a buffer. It fails for one that is dead already.
func (c *tcpConn) prepare(conn buffered, b buffers) error {
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

// run echoes until the peer ends its side, something fails or the connection is cut, and closes it. When it is paused it leaves
// it open, and answers so; it is called again to go on.
func (c *tcpConn) run() (paused bool) {
	err := c.echo()
	if errors.Is(err, errPausing) {
		return true
	}
	_ = c.conn.Close() // after the peer's end, this is ours: a FIN behind the last byte
	c.told.end(c.why, c.answered(), c.spent())
	return false
}

// echo returns when the connection is to be closed or left, and why.
func (c *tcpConn) echo() error {
	c.arm(c.moved)
	if c.answered() {
		return c.discardRest()
	}
	if rest := c.pending; rest != nil {
		c.pending = nil
		if err := c.send(rest); err != nil {
			return err
		}
		if c.ends() {
			return c.answer()
		}
	}
	for {
		if err := c.echoOnce(); err != nil {
			return err
		}
		if c.ends() {
			return c.answer()
		}
	}
}

// ends is asked when all that was read has been echoed. It answers whether our side is to end.
func (c *tcpConn) ends() bool {
	if c.spent() {
		c.counters.count(dropMaxBytes, 1)
	}
	return c.oneShot || c.spent()
}

// spent reports whether as much as may be was echoed.
func (c *tcpConn) spent() bool { return c.left == 0 }

// answered reports whether our side has ended.
func (c *tcpConn) answered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.discardUntil.IsZero()
}

// echoOnce sends back what one read returns. An error ends the connection and is counted already.
func (c *tcpConn) echoOnce() error {
	buf, n, err := c.read(c.most())
	if err != nil {
		return c.failed(errorRead, err)
	}
	defer tcpBuffers.Put(buf)
	c.left -= uint64(n)
	return c.send(buf[:n])
}

// send sends b back. An error ends the connection and is counted already, or says that it is paused.
func (c *tcpConn) send(b []byte) error {
	err := c.write(b)
	if err == nil || errors.Is(err, errPausing) {
		return err
	}
	// What is still in the kernel's buffer has no taker: let it go with the connection.
	_ = c.conn.SetLinger(0)
	return c.failed(errorWrite, err)
}

// most is how many bytes the next read may take.
func (c *tcpConn) most() int { return int(min(tcpReadBytes, c.left)) }

// answer ends our side and discards the rest.
func (c *tcpConn) answer() error {
	if err := c.conn.CloseWrite(); err != nil {
		return c.failed(errorWrite, err)
	}
	c.mu.Lock()
	c.discardUntil = time.Now().Add(oneShotGrace)
	c.mu.Unlock()
	c.arm(c.moved)
	return c.discardRest()
}

// discardRest reads what the peer still sends after our end, for a second at most: closing with unread bytes would send a
// reset, which can overtake the answer.
func (c *tcpConn) discardRest() error {
	for {
		buf, n, err := c.read(tcpReadBytes)
		switch {
		case errors.Is(err, errExpired):
			return err
		case err != nil:
			return c.failed(errorRead, err)
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

// write returns when the kernel has taken all of b, or when the connection is paused, which keeps the rest. As long as it waits
// nothing is read: that is the back-pressure.
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
			switch {
			case errors.Is(err, errPausing) && len(b) == 0:
				return nil // the next read says so
			case errors.Is(err, errPausing):
				c.pending = append([]byte(nil), b...)
			case len(b) > 0:
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

// extend turns the error of a deadline that passed too early into nil and moves the deadline, that of one which
// passed rightly into errExpired, and that of a pause into errPausing. Other errors stay.
func (c *tcpConn) extend(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if c.isPausing() {
		return errPausing
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
	if c.pausing {
		due = past
	}
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
	case errors.Is(err, io.EOF), errors.Is(err, errPausing):
		return err // the peer is done: the regular end; or nothing has ended
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
