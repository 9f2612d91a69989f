package echo

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// maxLedgerBytes bounds what RestoreLedgers reads: as many ledgers as there may be, each of the longest run, as text.
const maxLedgerBytes = MaxLedgers * (maxWords*8*4/3 + 1<<10)

// keptLedgers is what SaveLedgers writes. Times are of the wall clock, as those of two processes have no other in common.
type keptLedgers struct {
	// CompleteSince is since when nothing is missing: since then, a run that is not here has not been seen.
	CompleteSince time.Time
	Ledgers       []keptLedger
}

type keptLedger struct {
	Run                                         uint64
	First, Last                                 time.Time
	Received, Duplicated, Reordered, Unanswered uint64
	Highest                                     uint32
	Hops                                        *Hops
	DSCP                                        uint64 // a bit for each code point
	Rounds                                      []byte // words of 64 bits, the least byte first, where ledgerEntry has them
}

// SaveLedgers answers the ledgers of the engine's runs for another engine, which goes on with its UDP endpoints: so a probe that
// runs meanwhile still learns which way its datagrams were lost. It is called when those are paused, or it misses what they still
// see. What it answers is at most some 12 MiB, and most often some hundred bytes.
func (g *Engine) SaveLedgers() ([]byte, error) {
	kept := g.ledgers.save(time.Now())
	b, err := json.Marshal(kept)
	if err != nil {
		return nil, fmt.Errorf("cannot save the ledgers: %w", err)
	}
	return b, nil
}

// RestoreLedgers takes in what SaveLedgers of another engine has answered. It is called before any UDP endpoint serves: a run
// that has been seen here keeps the ledger that it has. With an error nothing is taken in, and the engine is as good without.
func (g *Engine) RestoreLedgers(b []byte) error {
	if len(b) > maxLedgerBytes {
		return fmt.Errorf("cannot restore the ledgers: %d bytes are more than %d", len(b), maxLedgerBytes)
	}
	var kept keptLedgers
	err := json.Unmarshal(b, &kept)
	if err == nil {
		err = kept.check()
	}
	if err != nil {
		return fmt.Errorf("cannot restore the ledgers: %w", err)
	}
	g.ledgers.restore(kept, time.Now())
	return nil
}

// check says what no engine would have written.
func (k keptLedgers) check() error {
	if len(k.Ledgers) > MaxLedgers {
		return fmt.Errorf("%d are more than %d", len(k.Ledgers), MaxLedgers)
	}
	for _, l := range k.Ledgers {
		if err := l.check(); err != nil {
			return fmt.Errorf("that of run %d: %w", l.Run, err)
		}
	}
	return nil
}

func (l keptLedger) check() error {
	words := len(l.Rounds) / 8
	switch {
	case len(l.Rounds)%8 != 0 || words > maxWords || words < minWords || words&(words-1) != 0:
		return fmt.Errorf("%d bytes of rounds", len(l.Rounds))
	case l.Highest == 0:
		return errors.New("no round")
	case words < maxWords && wordOf(l.Highest) >= int64(words):
		return fmt.Errorf("no place for round %d in %d bytes", l.Highest, len(l.Rounds))
	}
	return nil
}

func (l *ledgers) save(now time.Time) keptLedgers {
	var kept keptLedgers
	at := now.Sub(l.start)
	for i := range l.shards {
		displaced := l.shards[i].save(&kept, l.start, at)
		if since := l.start.Add(displaced); since.After(kept.CompleteSince) {
			kept.CompleteSince = since
		}
	}
	if oldest := now.Add(-LedgerAge); oldest.After(kept.CompleteSince) {
		kept.CompleteSince = oldest
	}
	return kept
}

// save adds the entries of a shard, the newest last, and answers up to when one was displaced.
func (s *ledgerShard) save(kept *keptLedgers, start time.Time, at time.Duration) (displaced time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.oldest; e != nil; e = e.newer {
		if !e.expired(at) && e.highest > 0 {
			kept.Ledgers = append(kept.Ledgers, e.save(start))
		}
	}
	return s.displaced
}

func (e *ledgerEntry) save(start time.Time) keptLedger {
	k := keptLedger{
		Run: e.run, First: start.Add(e.first).Round(0), Last: start.Add(e.last).Round(0),
		Received: e.received, Duplicated: e.duplicated, Reordered: e.reordered, Unanswered: e.unanswered,
		Highest: e.highest, DSCP: e.dscp, Rounds: make([]byte, 0, len(e.rounds)*8),
	}
	if e.hopsKnown {
		hops := e.hops
		k.Hops = &hops
	}
	for _, word := range e.rounds {
		k.Rounds = binary.LittleEndian.AppendUint64(k.Rounds, word)
	}
	return k
}

func (l *ledgers) restore(kept keptLedgers, now time.Time) {
	for i := range l.shards {
		l.shards[i].completeFrom(min(kept.CompleteSince.Sub(l.start), 0))
	}
	for _, k := range kept.Ledgers {
		l.shards[k.Run%ledgerShards].restore(k, l.start, now)
	}
}

// completeFrom says that all before an engine began is known from a time on; that is before 0.
func (s *ledgerShard) completeFrom(since time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.displaced == 0 {
		s.displaced = since
	}
}

func (s *ledgerShard) restore(k keptLedger, start, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[k.Run] != nil {
		return
	}
	at := now.Sub(start)
	e, _ := s.take(k.Run, at, start)
	// A clock that was set back between must not make it last for longer.
	e.last = min(k.Last.Sub(start), at)
	e.first = min(k.First.Sub(start), e.last)
	e.received, e.duplicated, e.reordered, e.unanswered = k.Received, k.Duplicated, k.Reordered, k.Unanswered
	e.highest, e.dscp = k.Highest, k.DSCP
	if k.Hops != nil {
		e.hopsKnown, e.hops = true, *k.Hops
	}
	e.rounds = make([]uint64, len(k.Rounds)/8)
	for i := range e.rounds {
		e.rounds[i] = binary.LittleEndian.Uint64(k.Rounds[8*i:])
	}
}
