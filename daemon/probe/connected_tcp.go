package probe

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/echod/echod/daemon/internal/wire"
)

// dialedConns are the TCP connections of a run that package net makes, each with a goroutine that connects and then writes, and
// one that reads.
type dialedConns struct {
	*mailbox[streamEvent]
	ctx context.Context
}

func newDialedConns(ctx context.Context, r *run, handle func(streamEvent)) *dialedConns {
	return &dialedConns{mailbox: newMailbox(r, 64, handle), ctx: ctx}
}

func (d *dialedConns) open(s *stream) streamConn {
	ctx, cancel := context.WithCancel(d.ctx)
	c := &dialedConn{
		run:    d.run,
		stream: s,
		ctx:    ctx,
		cancel: cancel,
		out:    d.in,
		work:   make(chan *block, maxWork),
		next:   make(chan struct{}, 1),
		asked:  sizes{more: make(chan struct{}, 1)},
	}
	c.tasks.Go(c.serve)
	return c
}

// The goroutines mind their own deadlines.
func (d *dialedConns) expire(time.Duration)      {}
func (d *dialedConns) nextExpiry() time.Duration { return never }

// dialedConn is one of them.
type dialedConn struct {
	run    *run
	stream *stream
	cancel context.CancelFunc
	ctx    context.Context
	tasks  sync.WaitGroup
	out    chan<- streamEvent
	work   chan *block   // what to write, in order
	next   chan struct{} // lets the reader go on after a block
	asked  sizes         // of the blocks that are written, in order
}

func (c *dialedConn) room() bool     { return len(c.work) < cap(c.work) }
func (c *dialedConn) write(b *block) { c.work <- b } // room saw to it that there is some.
func (c *dialedConn) goOn()          { c.next <- struct{}{} }

// close ends the connection and waits for its goroutines.
func (c *dialedConn) close() {
	c.cancel()
	c.tasks.Wait()
}

// sizes is a queue of the sizes of blocks, from the writer to the reader.
type sizes struct {
	mu    sync.Mutex
	queue []int
	more  chan struct{} // has room for one: something was added
}

func (s *sizes) add(size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, size)
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// take answers the first size, and takes it out, if so many bytes are there for it.
func (s *sizes) take(there int) (int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 || s.queue[0] > there {
		return 0, false
	}
	size := s.queue[0]
	s.queue = append(s.queue[:0], s.queue[1:]...)
	return size, true
}

// first answers the size of the block that is waited for; 0 when there is none.
func (s *sizes) first() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return 0
	}
	return s.queue[0]
}

// tell hands an event to the run; false when the stream is being closed.
func (c *dialedConn) tell(e streamEvent) bool {
	e.from = c.stream
	select {
	case c.out <- e:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// serve connects, starts the reader and writes until the connection breaks or is closed.
func (c *dialedConn) serve() {
	conn, connect, err := c.run.dial(c.ctx, c.stream.flow)
	if err != nil {
		c.tell(streamEvent{err: err})
		return
	}
	c.tasks.Go(func() {
		<-c.ctx.Done()
		_ = conn.Close() // Ends reads and writes; there is nothing to flush.
	})
	if !c.tell(streamEvent{connect: connect, source: addrPort(conn.LocalAddr())}) {
		return
	}
	in := c.run.timed(conn)
	c.tasks.Go(func() { c.read(in) })
	c.writeTo(conn)
}

// writeTo writes blocks as they come. One that cannot be written within the timeout breaks the connection, for half of it
// is on its way.
func (c *dialedConn) writeTo(conn net.Conn) {
	payload := make([]byte, c.run.plan.largest())
	for {
		var b *block
		select {
		case b = <-c.work:
		case <-c.ctx.Done():
			return
		}
		if !b.claimed.CompareAndSwap(false, true) {
			continue
		}
		err := conn.SetWriteDeadline(time.Now().Add(c.run.plan.Timeout))
		now := c.run.now()
		b.wrote.Store(int64(now) + 1)
		c.asked.add(b.size) // Last: what waits in its place already is told at once.
		wire.Fill(payload[:b.size], c.run.id, b.seq, c.run.nanos(now))
		if err == nil {
			_, err = conn.Write(payload[:b.size])
		}
		if err != nil {
			c.endReads(conn, err)
			return
		}
	}
}

// endReads lets the reader find the end of a connection that cannot be written to. The reader alone tells of an end, so
// that what came back before it is told first.
func (c *dialedConn) endReads(conn net.Conn, err error) {
	wait := lastReads
	if errors.Is(err, os.ErrDeadlineExceeded) {
		wait = 0
	}
	_ = conn.SetReadDeadline(time.Now().Add(wait)) // Fails when the connection is closed, which ends reads, too.
}

// read hands on blocks, of the sizes that were written, until the connection ends. What nobody has asked for waits for the
// block whose place it takes.
func (c *dialedConn) read(in timedReader) {
	buffer := make([]byte, c.run.plan.largest())
	there, last := 0, ^uint32(0) // bytes in the buffer, and the number of the last byte that was answered
	for {
		if there == len(buffer) && !c.waitAsked() {
			return
		}
		n, came, err := 0, stamp{}, error(nil)
		if there < len(buffer) {
			// No further than to the end of the block that is waited for, so that it has a time of its own.
			end := c.asked.first()
			if end <= there {
				end = len(buffer)
			}
			n, came, err = in.read(buffer[there:end])
		}
		at := c.run.now()
		there += n
		for {
			size, whole := c.asked.take(there)
			if !whole {
				break
			}
			last += uint32(size)
			if !c.tell(streamEvent{at: at, block: buffer[:size], left: in.leftAt(last), came: came}) || !c.waitNext() {
				return
			}
			there = copy(buffer, buffer[size:there])
		}
		if err != nil {
			want := c.asked.first()
			if want == 0 {
				want = c.run.plan.largest()
			}
			c.tell(streamEvent{at: at, err: incomplete(there, want, c.run.plan.Timeout, err)})
			return
		}
	}
}

// waitAsked waits until a block is asked for; false when the stream is being closed.
func (c *dialedConn) waitAsked() bool {
	for c.asked.first() == 0 {
		select {
		case <-c.asked.more:
		case <-c.ctx.Done():
			return false
		}
	}
	return true
}

// waitNext waits until the run has done with a block; false when the stream is being closed.
func (c *dialedConn) waitNext() bool {
	select {
	case <-c.next:
		return true
	case <-c.ctx.Done():
		return false
	}
}
