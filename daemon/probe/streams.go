package probe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/echod/echod/daemon/internal/wire"
)

// maxUnanswered is how many rounds may have gone down one connection without any byte of an answer before the
// connection is given up. It bounds what is remembered of a server that reads and never answers.
const maxUnanswered = 16384

// streams carries rounds over TCP connections, one a flow, and makes a new one when one breaks. TCP keeps the order, so the
// i-th block that comes back, of the size of the i-th round written on that connection, belongs to that round: replies
// to rounds that were given up for lost make these late, and bytes that nobody asked for make those rounds corrupted
// whose place they take.
type streams struct {
	run   *run
	ctx   context.Context
	in    *mailbox[streamEvent]
	flows []streamFlow
}

// streamFlow is one flow of rounds.
type streamFlow struct {
	current *stream  // nil: none yet, or the last one broke
	onWay   []*block // in order; those that have ended go when they are first
}

func newStreams(ctx context.Context, r *run) *streams {
	s := &streams{run: r, ctx: ctx, flows: make([]streamFlow, r.plan.flows())}
	s.in = newMailbox(r, 64, s.handle)
	return s
}

func (s *streams) waiter() waiter { return s.in }

func (s *streams) room(flow int) bool {
	current := s.flows[flow].current
	return current == nil || len(current.work) < cap(current.work)
}

func (s *streams) close() {
	for i := range s.flows {
		if current := s.flows[i].current; current != nil {
			current.cancel()
		}
	}
	for i := range s.flows {
		if current := s.flows[i].current; current != nil {
			current.close()
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
		f.current = openStream(s.ctx, s.run, flow, s.in.in)
	}
	b := &block{seq: seq, size: int(t.size), begun: s.run.now()}
	f.onWay = append(f.onWay, b)
	f.current.unanswered = append(f.current.unanswered, b)
	f.current.work <- b // room saw to it that there is some.
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
	f.current.close()
	f.current = nil
}

// trip is what the run remembers of a block; nil when it is forgotten.
func (s *streams) trip(b *block) *trip { return s.run.rounds.get(b.seq) }

func (s *streams) waiting(b *block) bool {
	t := s.trip(b)
	return t != nil && t.state == waiting
}

// reply takes in a block, and lets the reader go on.
func (s *streams) reply(e streamEvent) {
	b := e.from.nextUnanswered()
	wrote, _ := b.written()
	right := len(e.block) == b.size && wire.Matches(e.block, s.run.id, b.seq, s.run.nanos(wrote))
	e.from.next <- struct{}{} // From here on e.block is the reader's.
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
	next := never
	for i := range s.flows {
		for _, b := range s.flows[i].onWay {
			if s.waiting(b) {
				next = min(next, b.since()+s.run.plan.Timeout)
			}
		}
	}
	return next
}
