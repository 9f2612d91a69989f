package probe

import (
	"slices"
	"time"
)

// windowRounds is how many of the last rounds are remembered, to know a late or a second reply. It bounds the memory of
// a run: a mebibyte, however many rounds it makes.
const windowRounds = 65536

// state is how far a round is.
type state uint8

const (
	waiting state = iota // on its way
	answered
	damaged // answered, but wrong
	given   // given up for lost
)

// trip is what is remembered of a round.
type trip struct {
	left   time.Duration // when its first byte left, since the run's start
	state  state
	reason uint8 // why it was given up, in givenReasons
}

// givenReasons are the reasons that reasonOf gives, so that a trip can keep one in a byte.
var givenReasons = []Reason{
	ReasonOther, ReasonTimeout, ReasonRefused, ReasonUnreachable, ReasonReset, ReasonClosedEarly,
}

func (t *trip) giveUp(why Reason) {
	t.state = given
	t.reason = uint8(max(slices.Index(givenReasons, why), 0))
}

func (t *trip) givenFor() Reason { return givenReasons[t.reason] }

// window remembers the last rounds by number. The zero value is empty.
type window struct {
	trips []trip // seq is at (seq-1) % windowRounds; grows with the rounds up to windowRounds
	last  uint32 // the highest seq; 0: none
}

// add takes in the next round, which is number last+1, and forgets the one that is too old now.
func (w *window) add() *trip {
	i := int(w.last % windowRounds)
	w.last++
	if i == len(w.trips) {
		w.trips = append(w.trips, trip{})
	}
	w.trips[i] = trip{}
	return &w.trips[i]
}

// get answers a round, or nil when there was none of that number or it is forgotten. The answer is good until add.
func (w *window) get(seq uint32) *trip {
	if seq == 0 || seq > w.last || w.last-seq >= windowRounds {
		return nil
	}
	return &w.trips[(seq-1)%windowRounds]
}
