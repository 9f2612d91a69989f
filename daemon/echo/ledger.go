package echo

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"time"

	"github.com/echod/echod/daemon/internal/wire"
)

const (
	// MaxLedgers is how many runs an engine keeps a [Ledger] of.
	MaxLedgers = 1024
	// LedgerAge is how long after its last datagram a run's [Ledger] is kept.
	LedgerAge = 10 * time.Minute

	// ledgerShards are locks of their own, so that loops do not wait for each other. A run is in the shard that its lowest
	// bits say: it is a random number.
	ledgerShards = 8
	perShard     = MaxLedgers / ledgerShards
	// Rounds are noted in words of wordRounds bits: few for a short run, at most maxWords (8 KiB).
	wordRounds = 64
	minWords   = 8
	maxWords   = 1024
)

// Ledger is what the UDP endpoints of an engine saw of one run of probes, whose payloads carry its number and that of
// their round. It is a value: nothing changes it later.
type Ledger struct {
	// Received counts the rounds of which a datagram came, Duplicated the datagrams that came again. A round from before
	// FirstRound is in neither: it is not known any more which it is.
	Received, Duplicated uint64
	// Reordered counts the datagrams, first of their round, that came after one of a later round (RFC 4737).
	Reordered uint64
	// Unanswered counts the datagrams that came and were not answered: refused, which the endpoint's Stats count in Drops,
	// or not to be sent.
	Unanswered uint64
	// Highest is the highest round of which a datagram came.
	Highest uint32
	// FirstSeen and LastSeen are when the first and the last datagram came.
	FirstSeen, LastSeen time.Time
	// Hops are the TTLs or hop limits that datagrams came with; nil where the system does not tell.
	Hops *Hops
	// DSCP are the DiffServ code points that datagrams came with, each once, in order; nil where the system does not tell.
	DSCP []uint8
	// Rounds has a bit for each round that came, that of FirstRound at the least bit of the first byte. Of a run of more
	// than 65,536 rounds it has the last 65,473 to 65,536, up to Highest.
	Rounds     []byte
	FirstRound uint32
	// CompleteFor is for how long nothing is missing: of a run that began no longer ago all that came is here, or nothing
	// came when there is no ledger. It goes back to when the engine was made, or to when a ledger that had to make room was
	// seen last, and to at most LedgerAge before the first datagram: what came before that may have expired.
	CompleteFor time.Duration
}

// Hops are the least and the most hops that datagrams had left.
type Hops struct{ Min, Max uint8 }

// Ledger answers what the engine's UDP endpoints, those that are closed included, saw of a run. It is false when they saw
// none of it in the last LedgerAge, or when so many others were seen since that it had to make room (DropLedger); then only
// CompleteFor is set, and a run that began no longer ago has not been seen.
func (g *Engine) Ledger(run uint64) (Ledger, bool) { return g.ledgers.get(run, time.Now()) }

// ledgers keeps the ledgers of an engine. Anybody may send what makes one, so all is bounded: how many there are, what each
// takes, and how long it stays. A datagram of a run that is known makes no garbage.
type ledgers struct {
	start  time.Time // that the times of entries count from
	shards [ledgerShards]ledgerShard
}

// ledgerShard is a part of the runs, in the order in which they were seen last.
type ledgerShard struct {
	mu             sync.Mutex // guards what follows, and the entries
	entries        map[uint64]*ledgerEntry
	newest, oldest *ledgerEntry
	// displaced is up to when one was seen that had to make room. Whatever was seen first after it has not been displaced.
	displaced time.Duration
}

// ledgerEntry is the live side of a Ledger.
type ledgerEntry struct {
	run                                         uint64
	first, last                                 time.Duration
	received, duplicated, reordered, unanswered uint64
	highest                                     uint32
	hopsKnown                                   bool
	hops                                        Hops
	dscp                                        uint64   // a bit for each code point
	rounds                                      []uint64 // the word of round n is (n-1)/wordRounds, modulo its length once that is maxWords
	newer, older                                *ledgerEntry
}

// marks are what a datagram came with, besides its payload; -1 where it is not known.
type marks struct{ hops, dscp int16 }

var noMarks = marks{-1, -1}

func newLedgers() *ledgers {
	return &ledgers{start: time.Now()}
}

// isProbe says whether a message is a probe's. Of others it looks at four bytes. A train is told by its first datagram: it
// comes of one flow, and a probe's flow has nothing but its rounds; to look at each would cost a miss of the cache for each.
func isProbe(message []byte) bool {
	_, _, ok := wire.Parse(message)
	return ok
}

// note takes in the datagrams of a message: of size bytes each, but for the last. The first so many of them are answered.
// Ledgers of other runs that had to make room are counted in c.
func (l *ledgers) note(message []byte, size, answered int, m marks, now time.Time, c *counters) {
	for n := 0; len(message) > 0; n++ {
		datagram := message[:min(size, len(message))]
		message = message[len(datagram):]
		// Rounds count from 1: it is no probe of ours that has a round 0.
		if run, seq, ok := wire.Parse(datagram); ok && seq > 0 && l.see(run, seq, n < answered, m, now) {
			c.count(dropLedger, 1)
		}
	}
}

// see takes in one datagram, and answers whether the ledger of another run had to make room.
func (l *ledgers) see(run uint64, seq uint32, answered bool, m marks, now time.Time) (displaced bool) {
	at := now.Sub(l.start)
	s := &l.shards[run%ledgerShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.newest
	if e == nil || e.run != run || e.expired(at) {
		e, displaced = s.take(run, at, l.start)
	}
	e.last = max(e.last, at)
	if !answered {
		e.unanswered++
	}
	e.mark(m)
	e.enter(seq)
	return displaced
}

// unsent notes that a datagram that was to be answered could not be.
func (l *ledgers) unsent(datagram []byte) {
	run, seq, ok := wire.Parse(datagram)
	if !ok || seq == 0 {
		return
	}
	s := &l.shards[run%ledgerShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[run]; e != nil {
		e.unanswered++
	}
}

func (l *ledgers) get(run uint64, now time.Time) (Ledger, bool) {
	s := &l.shards[run%ledgerShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	at := now.Sub(l.start)
	e := s.entries[run]
	if e == nil || e.expired(at) {
		return Ledger{CompleteFor: s.completeFor(at, at)}, false
	}
	out := e.ledger(l.start)
	out.CompleteFor = s.completeFor(e.first, at)
	return out, true
}

// completeFor is how long before now nothing is missing of a run that was seen first at a time. An entry that it had before
// has expired: then it was not seen for LedgerAge.
func (s *ledgerShard) completeFor(first, now time.Duration) time.Duration {
	return max(0, now-max(s.displaced, first-LedgerAge))
}

// take answers the entry of a run, which is the newest from now on; a new one when there is none, or none any more.
func (s *ledgerShard) take(run uint64, at time.Duration, start time.Time) (e *ledgerEntry, displaced bool) {
	for s.oldest != nil && s.oldest.expired(at) {
		s.remove(s.oldest)
	}
	if e = s.entries[run]; e != nil {
		s.unlink(e)
	} else {
		e, displaced = s.fresh()
		// The clock of a loop stands while it works through what came, and no run is to be seen before it began: it would be
		// taken for one that has not been displaced.
		at = max(at, time.Since(start))
		e.run, e.first, e.last = run, at, at
		s.entries[run] = e
	}
	e.older = s.newest
	if s.newest != nil {
		s.newest.newer = e
	} else {
		s.oldest = e
	}
	s.newest = e
	return e, displaced
}

// fresh answers an entry for another run, with the memory of the one seen longest ago when there are as many as may be.
func (s *ledgerShard) fresh() (e *ledgerEntry, displaced bool) {
	if len(s.entries) < perShard {
		if s.entries == nil {
			s.entries = make(map[uint64]*ledgerEntry)
		}
		return new(ledgerEntry), false
	}
	e = s.oldest
	s.displaced = max(s.displaced, e.last)
	s.remove(e)
	clear(e.rounds)
	*e = ledgerEntry{rounds: e.rounds}
	return e, true
}

func (s *ledgerShard) remove(e *ledgerEntry) {
	s.unlink(e)
	delete(s.entries, e.run)
}

func (s *ledgerShard) unlink(e *ledgerEntry) {
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		s.newest = e.older
	}
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		s.oldest = e.newer
	}
	e.newer, e.older = nil, nil
}

func (e *ledgerEntry) expired(at time.Duration) bool { return at-e.last > LedgerAge }

func (e *ledgerEntry) mark(m marks) {
	if m.hops >= 0 {
		hops := uint8(m.hops)
		if !e.hopsKnown {
			e.hopsKnown, e.hops = true, Hops{hops, hops}
		}
		e.hops.Min, e.hops.Max = min(e.hops.Min, hops), max(e.hops.Max, hops)
	}
	if m.dscp >= 0 {
		e.dscp |= 1 << m.dscp
	}
}

// wordOf is where a round is noted; -1 for round 0.
func wordOf(seq uint32) int64 { return (int64(seq)+wordRounds-1)/wordRounds - 1 }

// enter notes that a datagram of a round came.
func (e *ledgerEntry) enter(seq uint32) {
	word, last := wordOf(seq), wordOf(e.highest)
	if last-word >= maxWords {
		e.reordered++ // of a round that is forgotten
		return
	}
	if words := int(min(word+1, maxWords)); words > len(e.rounds) {
		e.grow(words)
	}
	for w := max(last+1, word-maxWords+1); w <= word; w++ {
		e.rounds[w%int64(len(e.rounds))] = 0
	}
	bit := uint64(1) << ((seq - 1) % wordRounds)
	noted := &e.rounds[word%int64(len(e.rounds))]
	if *noted&bit != 0 {
		e.duplicated++
		return
	}
	*noted |= bit
	e.received++
	if seq < e.highest {
		e.reordered++
	}
	e.highest = max(e.highest, seq)
}

// grow makes room for so many words, which are at most maxWords.
func (e *ledgerEntry) grow(words int) {
	grown := make([]uint64, max(minWords, 1<<bits.Len(uint(words-1))))
	copy(grown, e.rounds)
	e.rounds = grown
}

// ledger answers the entry as it is now.
func (e *ledgerEntry) ledger(start time.Time) Ledger {
	l := Ledger{
		Received: e.received, Duplicated: e.duplicated, Reordered: e.reordered, Unanswered: e.unanswered, Highest: e.highest,
		FirstSeen: start.Add(e.first), LastSeen: start.Add(e.last),
	}
	if e.hopsKnown {
		hops := e.hops
		l.Hops = &hops
	}
	for rest := e.dscp; rest != 0; rest &= rest - 1 {
		l.DSCP = append(l.DSCP, uint8(bits.TrailingZeros64(rest)))
	}
	last := wordOf(e.highest)
	first := max(0, last-maxWords+1)
	l.FirstRound = uint32(first*wordRounds) + 1
	l.Rounds = make([]byte, 0, (last-first+1)*8)
	for w := first; w <= last; w++ {
		l.Rounds = binary.LittleEndian.AppendUint64(l.Rounds, e.rounds[w%int64(len(e.rounds))])
	}
	l.Rounds = l.Rounds[:(e.highest-l.FirstRound)/8+1]
	return l
}
