package probe

import (
	"slices"
	"time"
)

// windowRounds is how many of the last rounds are remembered, to know a late or a second reply. It bounds the memory of
// a run: three mebibytes, however many rounds it makes.
const windowRounds = 65536

// state is how far a round is.
type state uint8

const (
	waiting state = iota // on its way
	answered
	damaged // answered, but wrong
	given   // given up for lost
	belated // answered after it was given up
)

// trip is what is remembered of a round.
type trip struct {
	left   time.Duration // when its first byte left, since the run's start
	ended  time.Duration // when it was known what became of it
	rtt    time.Duration // once it is received; negative when it is not the network's, but has a pause of ours in it
	sent   stamp         // when the kernel sent it
	size   int32         // of its payload
	flow   uint16
	state  state
	reason uint8 // why it was given up, in givenReasons
}

// givenReasons are the reasons that reasonOf gives, so that a trip can keep one in a byte.
var givenReasons = []Reason{
	ReasonOther, ReasonTimeout, ReasonRefused, ReasonUnreachable, ReasonReset, ReasonClosedEarly, ReasonTooBig, ReasonNotSent,
}

func (t *trip) givenFor() Reason { return givenReasons[t.reason] }

// rounds remembers the last rounds of a run, and in which order its flows made them.
type rounds struct {
	trips  []trip // seq is at (seq-1) % windowRounds; grows with the rounds up to windowRounds
	last   uint32 // the highest seq; 0: none
	oldest uint32 // no round before this one is on its way
	onWay  int
	flows  []flow
	next   int // the flow whose turn it is
}

// flow is what a run knows of one of its flows.
type flow struct {
	onWay   int
	pending []uint32 // its rounds, in order
	first   int      // where in pending the first is that has not ended or not been looked at
}

func newRounds(flows int) rounds { return rounds{oldest: 1, flows: make([]flow, flows)} }

// begin takes in the next round, which is number last+1, and forgets the one that is too old now. The answer is good until
// the next begin.
func (w *rounds) begin(now time.Duration, number, size int) *trip {
	i := int(w.last % windowRounds)
	w.last++
	if i == len(w.trips) {
		w.trips = append(w.trips, trip{})
	}
	w.trips[i] = trip{left: now, flow: uint16(number), size: int32(size)}
	w.onWay++
	f := &w.flows[number]
	f.onWay++
	f.pending = append(f.pending, w.last)
	w.next = (number + 1) % len(w.flows)
	return &w.trips[i]
}

// get answers a round, or nil when there was none of that number or it is forgotten. The answer is good until begin.
func (w *rounds) get(seq uint32) *trip {
	if seq == 0 || seq > w.last || w.last-seq >= windowRounds {
		return nil
	}
	return &w.trips[(seq-1)%windowRounds]
}

// room says whether a round may begin: not more than most at once, and none that is on its way may be forgotten.
func (w *rounds) room(most int) bool {
	w.first()
	return w.onWay < most && (w.onWay == 0 || w.last-w.oldest < windowRounds-1)
}

// idle answers the flow whose turn it is among those with no round on its way; false when there is none.
func (w *rounds) idle() (int, bool) {
	for i := range w.flows {
		if number := (w.next + i) % len(w.flows); w.flows[number].onWay == 0 {
			return number, true
		}
	}
	return 0, false
}

// first is the oldest round that is on its way, nil when there is none; oldest is its number then.
func (w *rounds) first() *trip {
	for ; w.oldest <= w.last; w.oldest++ {
		if t := w.get(w.oldest); t.state == waiting {
			return t
		}
	}
	return nil
}

// end notes what became of a round that was on its way, and who took its times.
func (w *rounds) end(s Sample, clock Clock, now time.Duration, t *trip) {
	switch s.Outcome {
	case Received:
		t.state, t.rtt = answered, *s.RTT
		if s.Paused && clock == UserClock {
			t.rtt = -1
		}
	case Corrupted:
		t.state = damaged
	case Lost:
		t.state = given
		t.reason = uint8(max(slices.Index(givenReasons, s.Reason), 0))
	default: // it goes on
		return
	}
	t.ended = now
	w.onWay--
	w.flows[t.flow].onWay--
}

// inOrder tells the tally of the rounds of a flow that have ended and before which none is on its way.
func (w *rounds) inOrder(number int, tally *Tally) {
	f := &w.flows[number]
	for ; f.first < len(f.pending); f.first++ {
		t := w.get(f.pending[f.first])
		if t.state == waiting {
			break
		}
		tally.follow(number, *t)
	}
	if 2*f.first >= len(f.pending) { // Not each time: there may be many that wait.
		f.pending = append(f.pending[:0], f.pending[f.first:]...)
		f.first = 0
	}
}
