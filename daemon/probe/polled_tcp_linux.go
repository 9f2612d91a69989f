package probe

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/echod/echod/daemon/internal/wire"
)

// bytesAtOnce is how many bytes of a connection may be written in a turn, and how many read, before no further block is begun: a
// mebibyte takes as long as many small rounds, and other flows and the schedule wait for it.
const bytesAtOnce = 1 << 20

// keepAliveSeconds is after how long a silence a peer is asked whether it is there, and how often then.
const keepAliveSeconds = 15

// polledConns are the TCP connections of a run that its own goroutine makes, writes and reads, when its poller says so: what is
// between the kernel and the run is as little as with datagrams.
type polledConns struct {
	*poller
	ctx     context.Context
	handle  func(streamEvent)
	conns   []*polledConn // by flow; nil: there is none yet
	control [controlBytes]byte
}

// newPolledConns answers nil when there are no descriptors for a poller.
func newPolledConns(ctx context.Context, r *run, handle func(streamEvent)) streamConns {
	p, err := newPoller(ctx, r)
	if err != nil {
		return nil
	}
	return &polledConns{poller: p, ctx: ctx, handle: handle, conns: make([]*polledConn, r.plan.flows())}
}

func (p *polledConns) open(s *stream) streamConn {
	c := &polledConn{all: p, stream: s, begun: p.run.now(), due: never, last: ^uint32(0)}
	p.conns[s.flow] = c
	if c.fd, c.failed = c.connect(); c.failed != nil {
		// It is told in the next turn: the run does not know the connection before this returns.
		p.sockets[s.flow].polled = c
		p.lookAgainAt(s.flow)
	}
	return c
}

func (p *polledConns) expire(now time.Duration) {
	for _, c := range p.conns {
		if c == nil || c.ended {
			continue
		}
		switch timeout := p.run.plan.Timeout; {
		case !c.connected && now-c.begun >= timeout:
			c.end(noConnection(p.run))
		case now >= c.due:
			c.end(c.incomplete(os.ErrDeadlineExceeded))
		}
	}
}

func (p *polledConns) nextExpiry() time.Duration {
	next := never
	for _, c := range p.conns {
		switch {
		case c == nil || c.ended:
		case !c.connected:
			next = min(next, c.begun+p.run.plan.Timeout)
		default:
			next = min(next, c.due)
		}
	}
	return next
}

// polledConn is one of them.
type polledConn struct {
	all       *polledConns
	stream    *stream
	fd        int           // -1: there is none
	begun     time.Duration // to connect
	connected bool
	failed    error // why it cannot be made; told in the next turn
	ended     bool  // its end has been told, or it is closed

	work   []*block      // what to write, in order
	out    []byte        // the last block that is being written
	rest   []byte        // of out, what is not written yet
	asked  []int         // the sizes of blocks that are written, in order, and not answered
	due    time.Duration // when it is given up: what is being written has no room for too long, or a write has failed
	broken error         // why a write has failed

	in    []byte
	there int        // bytes in it
	last  uint32     // the number of the last byte that was answered
	left  departures // of what is not answered
}

// connect begins to connect. The descriptor is good with an error, too, unless it is -1.
func (c *polledConn) connect() (fd int, err error) {
	r, flow := c.all.run, c.stream.flow
	if fd, err = r.openSocket(unix.SOCK_STREAM); err != nil {
		return -1, err
	}
	c.begun = r.now() // To make a socket in another network namespace may have taken longer than to connect.
	if source := r.source(flow); source.IsValid() {
		if err := unix.Bind(fd, sockaddr(fd, source)); err != nil {
			return fd, r.aboutSource(flow, os.NewSyscallError("bind", err))
		}
		if source.Port() != 0 {
			// Closed with a RST, as in dial: its port is to be free at once.
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
	}
	// Wishes, which package net has, too: what is written leaves at once, and a peer that is gone is noticed some time.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepAliveSeconds)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepAliveSeconds)
	if err := unix.Connect(fd, sockaddr(fd, r.address)); err != nil && !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EINTR) {
		return fd, r.aboutSource(flow, os.NewSyscallError("connect", err))
	}
	return fd, c.all.add(flow, fd, c, unix.EPOLLOUT)
}

// finish tells of a connection that is made, or why it is not; false while it is neither, and when it is not.
func (c *polledConn) finish() bool {
	done, err := isConnected(c.fd)
	took := max(c.all.run.now()-c.begun, 1)
	switch {
	case err != nil:
		c.end(c.all.run.aboutSource(c.stream.flow, err))
		return false
	case !done:
		return false
	}
	c.connected = true
	// Not before: to make them takes time, up to milliseconds, that is not the connection's; and one that is refused needs none.
	largest := c.all.run.plan.largest()
	c.out, c.in = make([]byte, largest), make([]byte, largest)
	c.wantRoom(false)
	// A wish. Bytes are counted from the first that is not acknowledged now, which is the first.
	_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stampFlags)
	c.tell(streamEvent{connect: took, source: localOf(c.fd)})
	return !c.ended
}

// wantRoom has the poller tell when there is room to write.
func (c *polledConn) wantRoom(want bool) {
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(c.stream.flow)}
	if want {
		event.Events |= unix.EPOLLOUT
	}
	// It cannot fail: what is changed is there, and takes no memory.
	_ = unix.EpollCtl(c.all.epoll, unix.EPOLL_CTL_MOD, c.fd, &event)
}

func (c *polledConn) tell(e streamEvent) {
	if c.all.ctx.Err() == nil && c.all.run.emitErr == nil {
		e.from = c.stream
		c.all.handle(e)
	}
}

// end tells why there is no connection any more, once.
func (c *polledConn) end(err error) {
	c.ended = true
	c.tell(streamEvent{at: c.all.run.now(), err: err})
}

func (c *polledConn) goOn() {} // When a block has been told of, it has been looked at.

func (c *polledConn) room() bool { return len(c.work) < maxWork }

func (c *polledConn) close() {
	c.ended = true
	if c.fd >= 0 {
		_ = unix.Close(c.fd) // There is nothing to flush.
		c.fd = -1
	}
}

func (c *polledConn) write(b *block) {
	c.work = append(c.work, b)
	if c.failed != nil || !c.connected && !c.finish() { // To a peer on this host it may be made already.
		return
	}
	c.flush()
	if c.there > 0 {
		c.all.lookAgainAt(c.stream.flow) // There may be something in the block's place.
	}
}

// flush writes blocks while there is room, up to a bound.
func (c *polledConn) flush() {
	waited := len(c.rest) > 0
	for written := 0; c.broken == nil && (len(c.rest) > 0 || written < bytesAtOnce && c.nextBlock()); {
		n, err := unix.Write(c.fd, c.rest)
		switch {
		case err == nil:
			c.rest = c.rest[n:]
			written += n
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if !waited {
				c.wantRoom(true)
			}
			return
		default:
			// The reader alone tells of an end, so that what came back before it is told first.
			c.broken, c.rest, c.due = err, nil, c.all.run.now()+lastReads
		}
	}
	if c.broken == nil {
		c.due = never
		if len(c.work) > 0 {
			c.all.lookAgainAt(c.stream.flow)
		}
	}
	if waited {
		c.wantRoom(false)
	}
}

// nextBlock begins to write the next block; false when there is none.
func (c *polledConn) nextBlock() bool {
	for len(c.work) > 0 {
		b := c.work[0]
		c.work = append(c.work[:0], c.work[1:]...)
		if !b.claimed.CompareAndSwap(false, true) {
			continue
		}
		r := c.all.run
		now := r.now()
		b.wrote.Store(int64(now) + 1)
		c.asked = append(c.asked, b.size)
		c.rest = c.out[:b.size]
		wire.Fill(c.rest, r.id, b.seq, r.nanos(now))
		// One that cannot be written within the timeout breaks the connection, for half of it is on its way.
		c.due = now + r.plan.Timeout
		return true
	}
	return false
}

// ready goes on with whatever can go on.
func (c *polledConn) ready() (more bool) {
	switch {
	case c.ended:
		return false
	case c.failed != nil:
		c.end(c.failed)
		return false
	case !c.connected && !c.finish():
		return false
	}
	c.flush()
	return c.read()
}

// read tells of blocks, of the sizes that were written, up to a bound; true: there may be more. What nobody has asked for waits for
// the block whose place it takes.
func (c *polledConn) read() (more bool) {
	for turns, taken := 0, 0; turns < readAtOnce && taken < bytesAtOnce; turns++ {
		if !c.answer(c.all.run.now(), stamp{}) { // what has waited
			return false
		}
		// No further than to the end of the block that is waited for, so that it has a time of its own.
		end := len(c.in)
		if len(c.asked) > 0 {
			end = c.asked[0]
		}
		if c.there == end {
			return false // Full, and the next block that is asked for has it looked at again.
		}
		n, oobn, _, _, err := syscall.Recvmsg(c.fd, c.in[c.there:end], c.all.control[:], unix.MSG_DONTWAIT)
		at := c.all.run.now()
		came := stamp{}
		if err == nil {
			came = parseControl(c.all.control[:oobn]).stamp
		}
		c.left.read(c.fd, c.all.control[:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return false
		case err == nil && n == 0 && errors.Is(c.broken, unix.ECONNRESET):
			err = c.broken // The kernel tells of a reset once, and the write was first.
		case err == nil && n == 0:
			err = io.EOF
		}
		if err != nil {
			c.end(c.incomplete(err))
			return false
		}
		taken += n
		if c.there += n; !c.answer(at, came) {
			return false
		}
	}
	return true
}

// answer tells of the blocks that are there whole; false when the connection has ended by that.
func (c *polledConn) answer(at time.Duration, came stamp) bool {
	for len(c.asked) > 0 && c.asked[0] <= c.there {
		size := c.asked[0]
		c.asked = append(c.asked[:0], c.asked[1:]...)
		c.last += uint32(size)
		c.tell(streamEvent{at: at, block: c.in[:size], left: c.left.take(c.last), came: came})
		if c.ended {
			return false
		}
		c.there = copy(c.in, c.in[size:c.there])
	}
	return true
}

// incomplete says what was missing when the connection ended.
func (c *polledConn) incomplete(err error) error {
	want := c.all.run.plan.largest()
	if len(c.asked) > 0 {
		want = c.asked[0]
	}
	return incomplete(c.there, want, c.all.run.plan.Timeout, err)
}
