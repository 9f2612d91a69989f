package probe

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"time"
)

// ErrNoLedger is what a Plan's Ledger answers when it is sure that the target was asked, and the target has none of the run:
// no datagram of it came there for as long as the CompleteFor says that is answered with it.
var ErrNoLedger = errors.New("no ledger of this run")

const (
	// ledgerWait bounds how long a run that has ended waits for its ledger.
	ledgerWait = 2 * time.Second
	// maxLedgerBytes is the longest list of rounds that a ledger may have.
	maxLedgerBytes = 65536 / 8
)

// Ledger is what the target saw of a run: the datagrams with the run's number that came there.
type Ledger struct {
	// Received counts the rounds of which a datagram came, Duplicated the datagrams that came again.
	Received, Duplicated uint32
	// Reordered counts the datagrams that were overtaken by one of a later round (RFC 4737).
	Reordered uint32
	// Unanswered counts the datagrams that came and that the target did not answer.
	Unanswered uint32
	// Highest is the highest round that came.
	Highest uint32
	// FirstSeen and LastSeen are when the first and the last datagram came, by the target's clock.
	FirstSeen, LastSeen time.Time
	// MinTTL and MaxTTL are the lowest and the highest TTL or hop limit that datagrams came with; nil when not known.
	MinTTL, MaxTTL *uint8
	// DSCP are the DiffServ code points that datagrams came with, each once; nil when not known.
	DSCP []uint8
	// Rounds has a bit for each round from FirstRound to Highest that came, that of FirstRound at the least bit of the
	// first byte. FirstRound is 1 unless the target has forgotten rounds.
	Rounds     []byte
	FirstRound uint32
	// CompleteFor is for how long the target has kept all that it saw of such a run.
	CompleteFor time.Duration
}

// Directions tells which way the datagrams of a run were lost.
type Directions struct {
	// Unknown says why it is not known; then the rest is nil.
	Unknown string
	// LostThere counts the lost rounds of which no datagram reached the target, LostBack those that reached it. Together
	// they are the report's Lost.
	LostThere, LostBack *uint32
	// Ledger is the target's, nil when nothing reached it.
	Ledger *Ledger
}

// directions asks for the ledger of a run that has ended, and merges it with what the run measured. It is nil over TCP.
func (r *run) directions(ctx context.Context, sum Report) *Directions {
	switch {
	case r.plan.Protocol != UDP:
		return nil
	case !sum.Address.IsValid():
		return &Directions{Unknown: "nothing was sent"}
	case !r.plan.numbered():
		return &Directions{Unknown: "payloads of less than 16 bytes have no room for the number that a ledger goes by"}
	case r.plan.Ledger == nil:
		return &Directions{Unknown: "the target's ledger was not asked for: say where its API is (--ledger HOST:PORT)"}
	}
	// A run that was ended early has a ledger, too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ledgerWait)
	defer cancel()
	l, err := r.plan.Ledger(ctx, r.id)
	none := errors.Is(err, ErrNoLedger)
	if err != nil && !none {
		return &Directions{Unknown: err.Error()}
	}
	// The time that the answer took is on the safe side.
	if age := time.Since(sum.Start); l.CompleteFor < age {
		return &Directions{Unknown: fmt.Sprintf("the target has kept ledgers for %v only, and the probe began %v ago: "+
			"it was restarted, had to make room, or saw nothing of the probe for long", inMillis(l.CompleteFor), inMillis(age))}
	}
	if none {
		return withoutLedger(sum)
	}
	return merge(sum, &r.rounds, l)
}

func inMillis(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// withoutLedger says what it means that the target has seen nothing of a run.
func withoutLedger(sum Report) *Directions {
	if came := sum.Received + sum.Late + sum.Corrupted; came > 0 {
		return &Directions{Unknown: fmt.Sprintf("the target has seen nothing of this probe, and %d rounds were answered: "+
			"something else answers at its address", came)}
	}
	there, back := sum.Lost, uint32(0)
	return &Directions{LostThere: &there, LostBack: &back}
}

// merge tells the rounds that were lost on their way to the target from those that were lost on their way back. What the
// ledger says is not trusted beyond what it can make of the rounds that were lost.
func merge(sum Report, rounds *rounds, l Ledger) *Directions {
	if err := l.validate(); err != nil {
		return &Directions{Unknown: "the target's ledger makes no sense: " + err.Error()}
	}
	if l.Highest > sum.Sent {
		return &Directions{Unknown: fmt.Sprintf("the target's ledger makes no sense: it has round %d, and %d were sent", l.Highest, sum.Sent)}
	}
	// What came back right has been there. (A damaged reply may be one to a datagram that was not known again there.)
	if came := sum.Received + sum.Late; l.Received < came {
		return &Directions{Unknown: fmt.Sprintf("the target's ledger has %d rounds, and %d were answered: "+
			"something else answers, too", l.Received, came)}
	}
	// From the first round on of which both sides know what became of it, each lost one is looked up. Those before are
	// counted: the ones that did not come there are taken for lost ones as long as there are such.
	first := max(l.FirstRound, rounds.firstKnown())
	there, lost, came := uint32(0), uint32(0), uint32(0)
	for n := uint64(first); n <= uint64(sum.Sent); n++ {
		seq := uint32(n)
		has := l.has(seq)
		if has {
			came++
		}
		if rounds.isLost(seq) {
			lost++
			if !has {
				there++
			}
		}
	}
	there += min(sum.Lost-lost, first-1-(l.Received-came))
	back := sum.Lost - there
	return &Directions{LostThere: &there, LostBack: &back, Ledger: &l}
}

// validate says whether a ledger is one at all, whoever it came from.
func (l Ledger) validate() error {
	switch {
	case l.Received == 0 || l.FirstRound == 0 || l.Highest < l.FirstRound:
		return errors.New("it has no round")
	case len(l.Rounds) > maxLedgerBytes || len(l.Rounds) != int((l.Highest-l.FirstRound)/8)+1:
		return fmt.Errorf("its list of the rounds %d to %d has %d bytes", l.FirstRound, l.Highest, len(l.Rounds))
	case !l.has(l.Highest):
		return fmt.Errorf("its highest round %d is not in its list", l.Highest)
	}
	listed := uint32(0)
	for _, b := range l.Rounds {
		listed += uint32(bits.OnesCount8(b))
	}
	if l.Rounds[len(l.Rounds)-1]>>((l.Highest-l.FirstRound)%8+1) != 0 || listed > l.Received || l.Received-listed > l.FirstRound-1 {
		return fmt.Errorf("its list has %d rounds, and it counts %d", listed, l.Received)
	}
	return nil
}

// has says whether a round is in the list of those that came.
func (l Ledger) has(seq uint32) bool {
	at := seq - l.FirstRound
	return seq >= l.FirstRound && int64(at/8) < int64(len(l.Rounds)) && l.Rounds[at/8]>>(at%8)&1 != 0
}

// firstKnown is the first round that is remembered.
func (w *rounds) firstKnown() uint32 { return max(w.last, windowRounds) - windowRounds + 1 }

// isLost says whether a round that is remembered is lost.
func (w *rounds) isLost(seq uint32) bool {
	t := w.get(seq)
	return t != nil && t.state == given
}
