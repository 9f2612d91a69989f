package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/echod/echod/daemon/internal/wire"
)

// lastReads is how long a connection is still read from after a write on it has failed: what had come back by then
// counts.
const lastReads = 100 * time.Millisecond

// block is one round on a stream. Its first group belongs to the run's goroutine, the second is shared with the writer.
type block struct {
	seq   uint32
	size  int // never changes
	begun time.Duration

	claimed atomic.Bool  // by the writer, to write it, or by the run, so that it never is
	wrote   atomic.Int64 // when its first byte was written, in ns since the run's start, plus 1; 0: not yet
	dropped bool         // claimed by the run; belongs to the run's goroutine
}

// withdraw keeps a block from being written; false when the writer has begun.
func (b *block) withdraw() bool {
	b.dropped = b.claimed.CompareAndSwap(false, true)
	return b.dropped
}

// written answers when the block's first byte was written; false when none was.
func (b *block) written() (time.Duration, bool) {
	wrote := b.wrote.Load()
	return time.Duration(wrote - 1), wrote != 0
}

// since is from when on the block waits: for its reply, or before that for being written.
func (b *block) since() time.Duration {
	if wrote, ok := b.written(); ok {
		return wrote
	}
	return b.begun
}

// streamEvent is what the goroutines of a stream tell. Exactly one of connect, block and err is set.
type streamEvent struct {
	from    *stream
	at      time.Duration
	connect time.Duration // how long it took to connect
	source  netip.AddrPort
	block   []byte // what came back; belongs to the reader again after a send on stream.next
	left    stamp  // when the last byte of the block left, and came back, if the kernel tells
	came    stamp
	err     error // why there is no connection, or no more
}

// stream is one TCP connection with a goroutine that connects and then writes, and one that reads.
type stream struct {
	run    *run
	flow   int
	cancel context.CancelFunc
	ctx    context.Context
	tasks  sync.WaitGroup
	out    chan<- streamEvent
	work   chan *block   // what to write, in order
	next   chan struct{} // lets the reader go on after a block
	asked  sizes         // of the blocks that are written, in order

	// The run's goroutine alone uses what follows.
	unanswered []*block       // handed to the writer, and not answered yet
	connect    *time.Duration // until a sample has told of it
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

func openStream(ctx context.Context, r *run, flow int, out chan<- streamEvent) *stream {
	ctx, cancel := context.WithCancel(ctx)
	s := &stream{
		run:    r,
		flow:   flow,
		ctx:    ctx,
		cancel: cancel,
		out:    out,
		// Beside the rounds that are on their way there may be as many that were withdrawn.
		work:  make(chan *block, 2*MaxOutstanding),
		next:  make(chan struct{}, 1),
		asked: sizes{more: make(chan struct{}, 1)},
	}
	s.tasks.Go(s.serve)
	return s
}

// close ends the connection and waits for its goroutines.
func (s *stream) close() {
	s.cancel()
	s.tasks.Wait()
}

// nextUnanswered takes the first block that was or will be written and has no answer; nil when there is none.
func (s *stream) nextUnanswered() *block {
	for len(s.unanswered) > 0 {
		b := s.unanswered[0]
		s.unanswered[0] = nil
		s.unanswered = s.unanswered[1:]
		if !b.dropped {
			return b
		}
	}
	return nil
}

// takeConnect answers the time to connect once, for the first sample that comes of this connection.
func (s *stream) takeConnect() *time.Duration {
	c := s.connect
	s.connect = nil
	return c
}

// tell hands an event to the run; false when the stream is being closed.
func (s *stream) tell(e streamEvent) bool {
	e.from = s
	select {
	case s.out <- e:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// serve connects, starts the reader and writes until the connection breaks or is closed.
func (s *stream) serve() {
	begun := time.Now()
	conn, err := s.run.dial(s.ctx, s.flow)
	if err != nil {
		s.tell(streamEvent{err: err})
		return
	}
	s.tasks.Go(func() {
		<-s.ctx.Done()
		_ = conn.Close() // Ends reads and writes; there is nothing to flush.
	})
	if !s.tell(streamEvent{connect: max(time.Since(begun), 1), source: addrPort(conn.LocalAddr())}) {
		return
	}
	in := s.run.timed(conn)
	s.tasks.Go(func() { s.read(in) })
	s.write(conn)
}

// write writes blocks as they come. One that cannot be written within the timeout breaks the connection, for half of it
// is on its way.
func (s *stream) write(conn net.Conn) {
	payload := make([]byte, s.run.plan.largest())
	for {
		var b *block
		select {
		case b = <-s.work:
		case <-s.ctx.Done():
			return
		}
		if !b.claimed.CompareAndSwap(false, true) {
			continue
		}
		err := conn.SetWriteDeadline(time.Now().Add(s.run.plan.Timeout))
		now := s.run.now()
		b.wrote.Store(int64(now) + 1)
		s.asked.add(b.size) // Last: what waits in its place already is told at once.
		wire.Fill(payload[:b.size], s.run.id, b.seq, s.run.nanos(now))
		if err == nil {
			_, err = conn.Write(payload[:b.size])
		}
		if err != nil {
			s.endReads(conn, err)
			return
		}
	}
}

// endReads lets the reader find the end of a connection that cannot be written to. The reader alone tells of an end, so
// that what came back before it is told first.
func (s *stream) endReads(conn net.Conn, err error) {
	wait := lastReads
	if errors.Is(err, os.ErrDeadlineExceeded) {
		wait = 0
	}
	_ = conn.SetReadDeadline(time.Now().Add(wait)) // Fails when the connection is closed, which ends reads, too.
}

// read hands on blocks, of the sizes that were written, until the connection ends. What nobody has asked for waits for the
// block whose place it takes.
func (s *stream) read(in timedReader) {
	buffer := make([]byte, s.run.plan.largest())
	there, last := 0, ^uint32(0) // bytes in the buffer, and the number of the last byte that was answered
	for {
		if there == len(buffer) && !s.waitAsked() {
			return
		}
		n, came, err := 0, stamp{}, error(nil)
		if there < len(buffer) {
			// No further than to the end of the block that is waited for, so that it has a time of its own.
			end := s.asked.first()
			if end <= there {
				end = len(buffer)
			}
			n, came, err = in.read(buffer[there:end])
		}
		at := s.run.now()
		there += n
		for {
			size, whole := s.asked.take(there)
			if !whole {
				break
			}
			last += uint32(size)
			if !s.tell(streamEvent{at: at, block: buffer[:size], left: in.leftAt(last), came: came}) || !s.goOn() {
				return
			}
			there = copy(buffer, buffer[size:there])
		}
		if err != nil {
			want := s.asked.first()
			if want == 0 {
				want = s.run.plan.largest()
			}
			s.tell(streamEvent{at: at, err: incomplete(there, want, s.run.plan.Timeout, err)})
			return
		}
	}
}

// waitAsked waits until a block is asked for; false when the stream is being closed.
func (s *stream) waitAsked() bool {
	for s.asked.first() == 0 {
		select {
		case <-s.asked.more:
		case <-s.ctx.Done():
			return false
		}
	}
	return true
}

// goOn waits until the run has done with a block; false when the stream is being closed.
func (s *stream) goOn() bool {
	select {
	case <-s.next:
		return true
	case <-s.ctx.Done():
		return false
	}
}
