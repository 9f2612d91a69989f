package echo

import (
	"math"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// roundsATurn bounds what one socket may do before others have their turn.
	roundsATurn = 16
	// smallRead is the most that is read at once of a connection that moves little at a time, and so the most that ever
	// waits here for a peer that does not take it (tcpReadBytes, if it is one-shot).
	smallRead = 16 << 10
	// aloneRead is the most of a bulk connection when no other has something to do: in small bites, the peer works at the
	// same time. Among others, large ones cost less.
	aloneRead = 32 << 10
	// canGoOn are those by which a full connection can go on.
	canGoOn = unix.EPOLLOUT | unix.EPOLLERR | unix.EPOLLHUP
)

// loopConn is one connection, touched by its loop alone.
//
// What it moves little at a time is read and written, two calls an echo. What it moves much at a time (bulk) is looked at
// in the kernel's receive buffer, written, and what was taken of it then thrown out of there: one call more, but what the
// peer does not take stays with the kernel, whose buffers bound it.
type loopConn struct {
	server *loopTCP
	loop   *loop
	fd     int
	at     int32

	began     bool
	gone      bool
	queued    bool // it has asked for another turn
	oneShot   bool
	asked     bool // something has come
	mayDeepen bool
	bulk      bool
	full      bool // the send buffer is: nothing is read until the peer has taken something
	finBehind bool // the peer's FIN has come; there may be bytes before it
	urgent    bool // there is an urgent mark, at which a read comes back short
	answered  bool // our side has ended: what comes now is thrown away

	receive int    // the receive buffer that it is to have; 0: as it is
	left    uint64 // how many bytes are still to be echoed
	taken   uint64 // bulk bytes that the peer took, since deepen was asked for last
	pending []byte // a small read that the peer has not taken yet
	moved   time.Duration
	still   time.Duration // until it begins: how long no byte has moved, and
	grace   time.Duration // how much is left of the grace after our end
	isDeep  bool          // and whether its buffers are deep
	unsent  int           // what the peer had not taken at the last look for a stall
	timer   timer         // idle and stall timeout, or the grace after our end
	told    *told
}

// init takes the options that the connection came under, and the receive buffer that it is to have; 0: as it is.
func (c *loopConn) init(o TCPOptions, receive int) {
	h := begun(o)
	c.oneShot, c.left = h.OneShot, h.Left
	if o.SocketBufferBytes == 0 {
		c.receive = receive
	}
	copyDSCP(c.fd)
}

// begin has the loop serve a connection that is new, or that goes on after a pause.
func (c *loopConn) begin() {
	if c.gone {
		return
	}
	at, err := c.loop.add(c.fd, c)
	if err != nil {
		c.close(errorAccept)
		return
	}
	c.at, c.began = at, true
	c.moved = c.loop.now - c.still
	c.timer.owner = c
	if c.isDeep {
		c.isDeep = false
		c.loop.deep.join(c)
	}
	if c.answered {
		c.loop.timers.set(&c.timer, c.loop.now+c.grace)
	} else {
		c.rearm()
	}
	// What came before the descriptor was in epoll is told as an event, too.
}

func (c *loopConn) handle(events uint32) {
	if events == 0 {
		c.queued = false
	}
	if c.gone {
		return
	}
	c.finBehind = c.finBehind || events&unix.EPOLLRDHUP != 0
	c.urgent = c.urgent || events&unix.EPOLLPRI != 0
	if c.full && (events&canGoOn == 0 || !c.resume()) {
		return
	}
	for range roundsATurn {
		if !c.step() {
			return
		}
	}
	if !c.queued {
		c.queued = true
		c.loop.later(c)
	}
}

// resume goes on when the peer may have taken something.
func (c *loopConn) resume() bool {
	c.full = false
	if len(c.pending) == 0 {
		return true
	}
	rest := c.pending
	c.pending = nil
	return c.write(rest, true) && c.goesOn()
}

// bound gives the connection its receive buffer, when it moves something for the second time. Up to there it has the
// system's, which has not grown yet. As soon as it is accepted, the call would compete with what the peer sends: measured,
// a connection with one echo cost a third more.
func (c *loopConn) bound() {
	if !c.asked {
		c.asked = true
		return
	}
	_ = setOptions(c.fd, option{unix.SOL_SOCKET, unix.SO_RCVBUF, c.receive})
	c.receive, c.mayDeepen = 0, true
}

// step does with the next bytes what is to be done with them. It answers whether there may be more to do now.
func (c *loopConn) step() bool {
	switch {
	case c.answered:
		return c.discard()
	case c.bulk:
		return c.echoBulk()
	default:
		return c.echoSmall()
	}
}

// echoSmall sends back what one read returns.
func (c *loopConn) echoSmall() bool {
	most := smallRead
	if c.oneShot {
		most = tcpReadBytes
	}
	b := c.loop.buffer[:min(uint64(most), c.left)]
	n, errno := readFD(c.fd, b)
	if n <= 0 || errno != 0 {
		return c.noBytes(errno)
	}
	if c.receive != 0 {
		c.bound()
	}
	c.received(n)
	c.left -= uint64(n)
	c.bulk = n == smallRead && !c.oneShot
	return c.write(b[:n], false) && c.goesOn() && c.mayHaveMore(n, b)
}

// echoBulk sends back what the receive buffer holds, and takes out of it what the peer took.
func (c *loopConn) echoBulk() bool {
	if c.receive != 0 {
		c.bound()
	}
	most := bufferBytes
	if c.loop.events == 1 {
		most = aloneRead
	}
	b := c.loop.buffer[:min(uint64(most), c.left)]
	n, errno := peekFD(c.fd, b)
	if n <= 0 || errno != 0 {
		return c.noBytes(errno)
	}
	c.bulk = n >= smallRead
	taken, errno := writeFD(c.fd, b[:n])
	if errno != 0 {
		return c.notTaken(errno)
	}
	if errno := discardFD(c.fd, c.loop.buffer[:taken]); errno != 0 {
		c.fail(errorRead, errno)
		return false
	}
	c.received(taken)
	c.sent(taken)
	c.left -= uint64(taken)
	c.loop.deep.earn(c, taken)
	if taken < n {
		c.fill()
		return false
	}
	return c.goesOn() && c.mayHaveMore(n, b)
}

// discard throws away what comes after our end.
func (c *loopConn) discard() bool {
	b := c.loop.buffer
	n, errno := readFD(c.fd, b)
	if n <= 0 || errno != 0 {
		return c.noBytes(errno)
	}
	c.received(n)
	c.server.counters.count(dropRest, uint64(n))
	return c.mayHaveMore(n, b)
}

// noBytes ends a round that brought none, for the errno or, if there is none, for the peer's end. It answers whether to
// try again.
func (c *loopConn) noBytes(errno syscall.Errno) (again bool) {
	switch errno {
	case unix.EINTR:
		return true
	case unix.EAGAIN:
		c.urgent = false
	case 0:
		c.close(noEvent) // the peer is done, and so are we: a FIN behind the last byte
	default:
		c.fail(errorRead, errno)
	}
	return false
}

// mayHaveMore reports whether there may be more behind n bytes that were read into b. If not, more is told as an event.
func (c *loopConn) mayHaveMore(n int, b []byte) bool { return n == len(b) || c.finBehind || c.urgent }

// write echoes b. What the kernel does not take is kept, and then it answers false. kept says that b is such a rest
// already, and not the loop's buffer.
func (c *loopConn) write(b []byte, kept bool) bool {
	for len(b) > 0 {
		n, errno := writeFD(c.fd, b)
		if errno == 0 {
			c.sent(n)
			c.progress()
			b = b[n:]
			continue
		}
		if errno == unix.EAGAIN {
			if !kept {
				b = append([]byte(nil), b...)
			}
			c.pending = b
		} else if errno != unix.EINTR {
			c.server.counters.count(dropNotTaken, uint64(len(b)))
		}
		if !c.notTaken(errno) {
			return false
		}
	}
	return true
}

// notTaken does what follows from an errno of writing. It answers whether to try again.
func (c *loopConn) notTaken(errno syscall.Errno) (again bool) {
	switch errno {
	case unix.EINTR:
		return true
	case unix.EAGAIN:
		c.fill()
	default:
		c.resetOnClose()
		c.fail(errorWrite, errno)
	}
	return false
}

// fill notes that the peer has to take something first. From here on it may stall.
func (c *loopConn) fill() {
	c.full = true
	c.unsent = math.MaxInt
	if due, _ := c.due(); due < c.timer.due || c.timer.index == 0 {
		c.rearm()
	}
}

// goesOn is asked when all that was read has been echoed. It answers whether there is to be more, and ends our side if not.
func (c *loopConn) goesOn() bool {
	if c.left == 0 {
		c.server.counters.count(dropMaxBytes, 1)
	}
	return c.left > 0 && !c.oneShot || c.answer()
}

// answer ends our side and lets the peer send what it still has, for a second at most: closing with unread bytes would
// send a reset, which can overtake the answer.
func (c *loopConn) answer() bool {
	if err := unix.Shutdown(c.fd, unix.SHUT_WR); err != nil {
		errno, _ := err.(syscall.Errno) //nolint:errorlint // x/sys/unix answers bare numbers
		c.fail(errorWrite, errno)
		return false
	}
	c.answered = true
	c.loop.timers.set(&c.timer, c.loop.now+oneShotGrace)
	return true
}

// received notes bytes that were read.
func (c *loopConn) received(n int) {
	c.server.counters.bytesIn.Add(uint64(n))
	c.told.received(n)
	c.progress()
}

// sent notes bytes that were written.
func (c *loopConn) sent(n int) {
	c.server.counters.bytesOut.Add(uint64(n))
	c.told.sent(n)
}

func (c *loopConn) progress() {
	c.moved = c.loop.now
	c.server.counters.lastActivity.Store(c.loop.clock())
}

// rearm sets the timer by the endpoint's timeouts as they are now. Bytes that move do not move the timer: when it fires,
// expire finds out when the last did.
func (c *loopConn) rearm() {
	if c.gone || !c.began || c.answered {
		return
	}
	if due, _ := c.due(); due != noDeadline {
		c.loop.timers.set(&c.timer, due)
		return
	}
	c.loop.timers.cancel(&c.timer)
}

// due is when the connection will have been still for too long, and what it is ended for then. Timeouts count from their
// last change, at the earliest.
func (c *loopConn) due() (time.Duration, event) {
	limit := c.server.timeouts.Load()
	after, reason := limit.after(c.full)
	if after == 0 {
		return noDeadline, reason
	}
	since := c.moved
	if !limit.since.IsZero() {
		since = max(since, limit.since.Sub(c.loop.start))
	}
	return since + after, reason
}

func (c *loopConn) expire() {
	due, reason := c.due()
	switch {
	case c.answered:
		c.close(noEvent)
	case due > c.loop.now:
		c.rearm()
	case c.full && c.hasTaken():
		c.moved = c.loop.now
		c.rearm()
	default:
		if c.full {
			c.resetOnClose() // what it does not take has no taker
		}
		c.close(reason)
	}
}

// hasTaken reports whether the peer of a full connection has taken anything since it was asked last. The kernel tells of
// room only when there is much.
func (c *loopConn) hasTaken() bool {
	before := c.unsent
	c.unsent = unsentBytes(c.fd)
	return c.unsent < before
}

// cut ends the connection at once, with a reset.
func (c *loopConn) cut() {
	if c.gone {
		return
	}
	c.resetOnClose()
	c.close(dropClosing)
}

func (c *loopConn) resetOnClose() {
	_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// boundLinger has the kernel give up what a closed connection's peer does not take after the time that an open one has.
func (c *loopConn) boundLinger() {
	if after, _ := c.server.timeouts.Load().after(true); after > 0 {
		_ = setOptions(c.fd, option{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(min(after.Milliseconds()+1, math.MaxInt32))})
	}
}

// fail counts what ended the connection, as kind if it is nothing more special.
func (c *loopConn) fail(kind event, errno syscall.Errno) {
	if isReset(errno) {
		kind = errorReset
	}
	c.close(kind)
}

// close ends the connection and counts why, unless it is the regular end.
func (c *loopConn) close(reason event) {
	c.gone = true
	if len(c.pending) > 0 {
		c.server.counters.count(dropNotTaken, uint64(len(c.pending)))
		c.pending = nil
	}
	if reason != noEvent {
		c.server.counters.count(reason, 1)
	}
	if c.began {
		c.loop.timers.cancel(&c.timer)
		c.loop.release(c.at)
	}
	c.loop.deep.leave(c)
	if reason == noEvent || reason == dropIdleTimeout {
		c.boundLinger()
	}
	closeFD(c.fd)
	c.told.end(reason, c.answered, c.left == 0)
	c.loop.leave()
	c.server.gone(c)
}
