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

// streams carries all rounds over one TCP connection, and makes a new one when it breaks. TCP keeps the order, so the
// i-th block of payload size that comes back belongs to the i-th round written on that connection: replies to rounds
// that were given up for lost make these late, and bytes that nobody asked for make those rounds corrupted whose place
// they take.
type streams struct {
	run *run
	ctx context.Context
	in  chan streamEvent

	current *stream  // nil: none yet, or the last one broke
	onWay   []*block // in order; those that have ended go when they are first
	count   int      // of those on their way
}

func newStreams(ctx context.Context, r *run) *streams {
	return &streams{run: r, ctx: ctx, in: make(chan streamEvent, 64)}
}

func (s *streams) events() <-chan streamEvent { return s.in }
func (s *streams) outstanding() int           { return s.count }

func (s *streams) room() bool {
	return s.count < s.run.plan.maxOutstanding() && (s.current == nil || len(s.current.work) < cap(s.current.work))
}

func (s *streams) close() {
	if s.current != nil {
		s.current.close()
		s.current = nil
	}
}

func (s *streams) begin(seq uint32) {
	if s.current != nil && len(s.current.unanswered) >= maxUnanswered {
		err := fmt.Errorf("the connection was given up: %d rounds on it were not answered", maxUnanswered)
		s.hangUp(ReasonTimeout, err)
	}
	if s.current == nil {
		s.current = openStream(s.ctx, s.run, s.in)
	}
	b := &block{seq: seq, begun: s.run.now()}
	s.onWay = append(s.onWay, b)
	s.count++
	s.current.unanswered = append(s.current.unanswered, b)
	s.current.work <- b // room saw to it that there is some.
	if s.current.surplus {
		s.current.surplus = false
		s.reply(streamEvent{from: s.current})
	}
}

func (s *streams) handle(e streamEvent) {
	if e.from != s.current {
		return // Of a connection that was given up; its rounds have been told of.
	}
	switch {
	case e.connect != 0:
		e.from.connect = &e.connect
	case e.err == nil:
		s.reply(e)
	default:
		s.hangUp(reasonOf(e.err), e.err)
	}
}

// hangUp ends the connection. What is on its way over it is lost; the next round connects again.
func (s *streams) hangUp(reason Reason, err error) {
	for _, b := range s.onWay {
		if b.state == waiting {
			s.lose(b, reason, err)
		}
	}
	s.onWay = nil
	s.current.close()
	s.current = nil
}

// reply takes in a block of payload size, and lets the reader go on. A block that nobody has asked for waits, and the
// reader with it, for the round whose place it takes.
func (s *streams) reply(e streamEvent) {
	b := e.from.nextUnanswered()
	if b == nil {
		e.from.surplus = true
		return
	}
	wrote, written := b.written()
	right := e.block != nil && wire.Matches(e.block, s.run.id, b.seq)
	e.from.next <- struct{}{} // From here on e.block is the reader's.
	rtt := e.at - wrote
	if b.state == waiting && written && rtt > s.run.plan.Timeout {
		s.overdue(b)
	}
	switch {
	case b.state == waiting && right:
		b.state = answered
		s.count--
		s.run.received(b.seq, rtt, e.from.takeConnect())
	case b.state == waiting:
		b.state = damaged
		s.count--
		s.run.corrupted(b.seq, e.from.takeConnect(), errors.New("the bytes in the reply's place are not what was sent"))
	case b.state == given && right:
		b.state = answered
		s.run.late(b.seq, rtt, ReasonTimeout)
	}
}

func (s *streams) lose(b *block, reason Reason, err error) {
	b.state = given
	s.count--
	var connect *time.Duration
	if s.current != nil {
		connect = s.current.takeConnect()
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
	for _, b := range s.onWay {
		if b.state == waiting && now-b.since() >= s.run.plan.Timeout {
			s.overdue(b)
		}
	}
	for len(s.onWay) > 0 && s.onWay[0].state != waiting {
		s.onWay[0] = nil
		s.onWay = s.onWay[1:]
	}
}

// nextExpiry looks at every round on its way: those not written yet may be due before older ones that are.
func (s *streams) nextExpiry() time.Duration {
	next := never
	for _, b := range s.onWay {
		if b.state == waiting {
			next = min(next, b.since()+s.run.plan.Timeout)
		}
	}
	return next
}
