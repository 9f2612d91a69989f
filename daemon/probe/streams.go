package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/echod/echod/daemon/internal/wire"
)

// maxUnanswered is how many rounds may have gone down one connection without any byte of an answer before the
// connection is given up. It bounds what is remembered of a server that reads and never answers.
const maxUnanswered = 16384

// streamConns opens the connections of a run, and waits for what comes by them.
type streamConns interface {
	waiter
	// open begins to connect a stream. What becomes of it is told later, with the stream: how long it took, or why there is none.
	open(s *stream) streamConn
	// expire gives up connections that have waited too long, to be made or to be written to. nextExpiry is when it will have
	// something to do at the earliest; never when nothing waits.
	expire(now time.Duration)
	nextExpiry() time.Duration
}

// streamConn is the connection of a stream, which may not be made yet. The run's goroutine alone uses it.
type streamConn interface {
	// write writes a block after those before it, as soon as there is room.
	write(b *block)
	// room says whether another block may wait.
	room() bool
	// goOn lets it go on after a block that it has told of, whose bytes are not looked at any more.
	goOn()
	// close ends it, and what belongs to it.
	close()
}

// maxWork is how many blocks may wait to be written: beside the rounds that are on their way there may be as many that were
// withdrawn.
const maxWork = 2 * MaxOutstanding

// lastReads is how long a connection is still read from after a write on it has failed: what had come back by then
// counts.
const lastReads = 100 * time.Millisecond

// stream is one connection of a flow, as the run sees it.
type stream struct {
	flow       int
	conn       streamConn
	unanswered []*block       // handed on to be written, and not answered yet
	connect    *time.Duration // until a sample has told of it
}

// block is one round on a stream. Its first group belongs to the run's goroutine, the second is shared with who writes it.
type block struct {
	seq   uint32
	size  int // never changes
	begun time.Duration

	claimed atomic.Bool  // to write it, or by the run, so that it never is
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

// streamEvent is what is told of a connection. Exactly one of connect, block and err is set.
type streamEvent struct {
	from    *stream
	at      time.Duration
	connect time.Duration // how long it took to connect
	source  netip.AddrPort
	block   []byte // what came back; not to be looked at after goOn
	left    stamp  // when the last byte of the block left, and came back, if the kernel tells
	came    stamp
	err     error // why there is no connection, or no more
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

// streams carries rounds over TCP connections, one a flow, and makes a new one when one breaks. TCP keeps the order, so the
// i-th block that comes back, of the size of the i-th round written on that connection, belongs to that round: replies
// to rounds that were given up for lost make these late, and bytes that nobody asked for make those rounds corrupted
// whose place they take.
type streams struct {
	run   *run
	conns streamConns
	flows []streamFlow
}

// streamFlow is one flow of rounds.
type streamFlow struct {
	current *stream  // nil: none yet, or the last one broke
	onWay   []*block // in order; those that have ended go when they are first
}

func newStreams(ctx context.Context, r *run) *streams {
	s := &streams{run: r, flows: make([]streamFlow, r.plan.flows())}
	if r.stamped() {
		s.conns = newPolledConns(ctx, r, s.handle)
	}
	if s.conns == nil {
		s.conns = newDialedConns(ctx, r, s.handle)
	}
	return s
}

func (s *streams) waiter() waiter { return s.conns }

func (s *streams) room(flow int) bool {
	current := s.flows[flow].current
	return current == nil || current.conn.room()
}

func (s *streams) close() {
	for i := range s.flows {
		if current := s.flows[i].current; current != nil {
			current.conn.close()
		}
	}
}

func (s *streams) begin(seq uint32, flow int, t *trip) {
	f := &s.flows[flow]
	if f.current != nil && len(f.current.unanswered) >= maxUnanswered {
		err := fmt.Errorf("the connection was given up: %d rounds on it were not answered", maxUnanswered)
		s.hangUp(flow, ReasonTimeout, err, seq)
	}
	if f.current == nil {
		f.current = &stream{flow: flow}
		f.current.conn = s.conns.open(f.current)
	}
	b := &block{seq: seq, size: int(t.size), begun: s.run.now()}
	f.onWay = append(f.onWay, b)
	f.current.unanswered = append(f.current.unanswered, b)
	f.current.conn.write(b)
}

func (s *streams) handle(e streamEvent) {
	f := &s.flows[e.from.flow]
	if e.from != f.current {
		return // Of a connection that was given up; its rounds have been told of.
	}
	switch {
	case e.connect != 0:
		e.from.connect = &e.connect
		s.run.tally.comeFrom(e.from.flow, e.source)
	case e.err == nil:
		s.reply(e)
	default:
		s.hangUp(e.from.flow, reasonOf(e.err), e.err, s.run.rounds.last+1)
	}
}

// hangUp ends a flow's connection. What is on its way over it, before the round seq, is lost; the next round connects
// again.
func (s *streams) hangUp(flow int, reason Reason, err error, seq uint32) {
	f := &s.flows[flow]
	for _, b := range f.onWay {
		if b.seq < seq && s.waiting(b) {
			s.lose(b, reason, err)
		}
	}
	f.onWay = nil
	f.current.conn.close()
	f.current = nil
}

// trip is what the run remembers of a block; nil when it is forgotten.
func (s *streams) trip(b *block) *trip { return s.run.rounds.get(b.seq) }

func (s *streams) waiting(b *block) bool {
	t := s.trip(b)
	return t != nil && t.state == waiting
}

// reply takes in a block.
func (s *streams) reply(e streamEvent) {
	b := e.from.nextUnanswered()
	wrote, _ := b.written()
	right := len(e.block) == b.size && wire.Matches(e.block, s.run.id, b.seq, s.run.nanos(wrote))
	e.from.conn.goOn()
	t := s.trip(b)
	if t == nil {
		return // It was given up long ago.
	}
	x := s.run.times(e.at, e.at-wrote, e.left, e.came)
	if t.state == waiting {
		t.left = wrote
		if x.network > s.run.plan.Timeout {
			s.overdue(b)
		}
	}
	switch {
	case t.state == waiting && right:
		s.run.received(b.seq, x, e.from.takeConnect())
	case t.state == waiting:
		s.run.corrupted(b.seq, e.from.takeConnect(), errors.New("the bytes in the reply's place are not what was sent"))
	case t.state == given && right:
		s.run.late(b.seq, x)
	}
}

func (s *streams) lose(b *block, reason Reason, err error) {
	var connect *time.Duration
	t := s.trip(b)
	if current := s.flows[t.flow].current; current != nil {
		connect = current.takeConnect()
	}
	if wrote, ok := b.written(); ok {
		t.left = wrote
	}
	s.run.lost(b.seq, connect, reason, err)
}

// overdue gives a round up. One that has not been written yet never will be.
func (s *streams) overdue(b *block) {
	if b.withdraw() {
		s.lose(b, ReasonTimeout, fmt.Errorf("could not be written within %v", s.run.plan.Timeout))
		return
	}
	s.lose(b, ReasonTimeout, noReply(s.run.plan.Timeout))
}

func (s *streams) expire(now time.Duration) {
	s.conns.expire(now) // First: it says more than that a round could not be written.
	for i := range s.flows {
		f := &s.flows[i]
		for _, b := range f.onWay {
			if s.waiting(b) && now-b.since() >= s.run.plan.Timeout {
				s.overdue(b)
			}
		}
		for len(f.onWay) > 0 && !s.waiting(f.onWay[0]) {
			f.onWay[0] = nil
			f.onWay = f.onWay[1:]
		}
	}
}

// nextExpiry looks at every round on its way: those not written yet may be due before older ones that are.
func (s *streams) nextExpiry() time.Duration {
	next := s.conns.nextExpiry()
	for i := range s.flows {
		for _, b := range s.flows[i].onWay {
			if s.waiting(b) {
				next = min(next, b.since()+s.run.plan.Timeout)
			}
		}
	}
	return next
}
