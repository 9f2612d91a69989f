package echo

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/echod/echod/daemon/internal/wire"
)

// seeAll has the rounds of a run come now.
func seeAll(l *ledgers, run uint64, seqs ...uint32) (displaced int) {
	for _, seq := range seqs {
		if l.see(run, seq, true, noMarks, time.Now()) {
			displaced++
		}
	}
	return displaced
}

func (l *ledgers) count() (n int) {
	for i := range l.shards {
		n += len(l.shards[i].entries)
	}
	return n
}

func TestLedgersExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedgers()
		seeAll(l, 1, 1, 2, 3)
		time.Sleep(time.Minute)
		seeAll(l, 1+ledgerShards, 1)
		time.Sleep(LedgerAge - time.Minute)
		if _, ok := l.get(1, time.Now()); !ok {
			t.Error("gone before its time")
		}
		time.Sleep(time.Nanosecond)
		if _, ok := l.get(1, time.Now()); ok {
			t.Error("kept for longer than it is to be")
		}
		// What comes afterwards begins anew, and takes the memory of what has expired from others.
		seeAll(l, 1, 9)
		if got, _ := l.get(1, time.Now()); got.Received != 1 || got.FirstSeen != time.Now() {
			t.Errorf("begun anew: %+v", got)
		}
		time.Sleep(LedgerAge - time.Nanosecond)
		seeAll(l, 1+2*ledgerShards, 1)
		if _, ok := l.get(1+ledgerShards, time.Now()); ok || l.count() != 2 {
			t.Errorf("%d are left", l.count())
		}
		// The newest may have expired, too.
		time.Sleep(2 * LedgerAge)
		seeAll(l, 1+2*ledgerShards, 5)
		if got, _ := l.get(1+2*ledgerShards, time.Now()); got.Received != 1 || l.count() != 1 {
			t.Errorf("%d are left: %+v", l.count(), got)
		}
	})
}

// What a ledger may lack is said: what came before the engine, before a long silence, or before it had to make room.
func TestLedgersSayForHowLongTheyAreComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedgers()
		check := func(what string, run uint64, known bool, want time.Duration) {
			t.Helper()
			if got, ok := l.get(run, time.Now()); ok != known || got.CompleteFor != want {
				t.Errorf("%s: %v, complete for %v, want %v, %v", what, ok, got.CompleteFor, known, want)
			}
		}
		check("at the start", 1, false, 0)
		time.Sleep(time.Minute)
		check("since the start", 1, false, time.Minute)
		seeAll(l, 1, 1)
		check("seen", 1, true, time.Minute)
		time.Sleep(time.Hour)
		check("others may have expired", 2, false, LedgerAge)
		check("so may this", 1, false, LedgerAge)
		seeAll(l, 1, 2)
		time.Sleep(time.Minute)
		check("begun anew", 1, true, LedgerAge+time.Minute)

		// As many others of its shard as may be, and one of another.
		for n := range uint64(perShard) {
			time.Sleep(time.Second)
			seeAll(l, 1+(n+1)*ledgerShards, 1)
		}
		check("displaced", 1, false, perShard*time.Second+time.Minute)
		check("not displaced", 1+ledgerShards, true, perShard*time.Second+time.Minute)
		seeAll(l, 1, 3)
		check("displaced, and back", 1, true, (perShard-1)*time.Second)
		check("the other shard", 2, false, LedgerAge)
	})
}

// A loop whose clock stands does not have a run seen before it began.
func TestLedgersOfALoopThatIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedgers()
		stands := time.Now()
		time.Sleep(time.Second)
		l.see(8, 1, true, noMarks, stands)
		for n := range uint64(perShard) {
			l.see((n+2)*ledgerShards, 1, true, noMarks, stands)
		}
		time.Sleep(time.Second)
		if got, ok := l.get(8, time.Now()); ok || got.CompleteFor != time.Second {
			t.Errorf("%v, complete for %v", ok, got.CompleteFor)
		}
	})
}

// Whoever makes up runs pushes others out, the one seen longest ago first, and makes nothing grow.
func TestLedgersAreBounded(t *testing.T) {
	l := newLedgers()
	for run := range uint64(MaxLedgers) {
		if seeAll(l, run, 1) > 0 {
			t.Fatalf("run %d displaces one of less than %d", run, MaxLedgers)
		}
	}
	seeAll(l, 0, 2) // seen again: not the oldest any more
	for run := range uint64(ledgerShards) {
		if seeAll(l, MaxLedgers+run, 1<<32-1) != 1 {
			t.Errorf("run %d does not displace one", MaxLedgers+run)
		}
	}
	if l.count() != MaxLedgers {
		t.Errorf("there are %d", l.count())
	}
	for run, want := range map[uint64]bool{0: true, ledgerShards: false, 1: false, 1 + ledgerShards: true, MaxLedgers: true} {
		if _, ok := l.get(run, time.Now()); ok != want {
			t.Errorf("run %d is kept: %v, want %v", run, ok, want)
		}
	}
	// An entry that was another's before has nothing of it.
	if got, _ := l.get(MaxLedgers, time.Now()); got.Received != 1 || got.Highest != 1<<32-1 || got.FirstRound != 1<<32-1<<16+1 {
		t.Errorf("%+v", got)
	}

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for run := range uint64(100_000) {
		seeAll(l, run<<20, uint32(run)<<12|1)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > MaxLedgers*(maxWords*8+1024) {
		t.Errorf("%d bytes more", grown)
	}
}

// A short run takes little.
func TestLedgerGrowsInSteps(t *testing.T) {
	l := newLedgers()
	for seq, words := range map[uint32]int{1: 8, 512: 8, 513: 16, 1025: 32, 65535: 1024, 65537: 1024, 1<<32 - 1: 1024} {
		seeAll(l, uint64(seq), seq)
		if got := len(l.shards[seq%ledgerShards].entries[uint64(seq)].rounds); got != words {
			t.Errorf("round %d: %d words, want %d", seq, got, words)
		}
	}
}

// A ledger is what a list of all that came would say, within the rounds that it remembers.
func FuzzLedger(f *testing.F) {
	f.Add([]byte{1, 1, 1, 2, 0, 2, 255, 255})
	f.Add([]byte{200, 0, 200, 0, 200, 0, 0, 5, 100, 7, 0, 1})
	f.Fuzz(func(t *testing.T, steps []byte) {
		l := newLedgers()
		came := map[uint32]bool{}
		var want Ledger
		seq := uint32(1)
		for ; len(steps) >= 2; steps = steps[2:] {
			// Small and large steps, forth and back.
			switch step := uint32(steps[1]); steps[0] % 5 {
			case 0:
				seq += step
			case 1:
				seq += step << 8
			case 2:
				seq -= step
			case 3:
				seq += step << 14
			default:
				seq -= step << 9
			}
			seq = max(seq, 1)
			seeAll(l, 1, seq)
			switch {
			case wordOf(want.Highest)-wordOf(seq) >= maxWords:
				want.Reordered++
			case came[seq]:
				want.Duplicated++
			default:
				came[seq] = true
				want.Received++
				if seq < want.Highest {
					want.Reordered++
				}
			}
			want.Highest = max(want.Highest, seq)
		}
		got, ok := l.get(1, time.Now())
		if ok != (want.Highest > 0) {
			t.Fatalf("there is one: %v", ok)
		}
		if got.Received != want.Received || got.Duplicated != want.Duplicated || got.Reordered != want.Reordered || got.Highest != want.Highest {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		if !ok {
			return
		}
		wantRounds := make([]byte, (got.Highest-got.FirstRound)/8+1)
		for seq := range came {
			if seq >= got.FirstRound {
				wantRounds[(seq-got.FirstRound)/8] |= 1 << ((seq - got.FirstRound) % 8)
			}
		}
		if got.FirstRound > 1 && got.Highest-got.FirstRound+1 <= maxWords*wordRounds-wordRounds || !slices.Equal(got.Rounds, wantRounds) {
			t.Errorf("rounds from %d to %d are not those that came", got.FirstRound, got.Highest)
		}
	})
}

// Whatever a message holds, each datagram that is a probe's is noted, and no other.
func FuzzNote(f *testing.F) {
	b := make([]byte, 40)
	wire.Fill(b, 1, 1, 0)
	f.Add(b, uint16(40), uint8(1))
	f.Add(append([]byte("something else, "), b...), uint16(16), uint8(0))
	f.Add([]byte("ECH1"), uint16(1), uint8(0))
	f.Fuzz(func(t *testing.T, message []byte, size uint16, answered uint8) {
		size = max(size, 1)
		l, c := newLedgers(), new(counters)
		l.note(message, int(size), int(answered), noMarks, time.Now(), c)
		noted := uint64(0)
		for i := range l.shards {
			for _, e := range l.shards[i].entries {
				noted += e.received + e.duplicated
			}
		}
		want := uint64(0)
		for datagram := range slices.Chunk(message, int(size)) {
			if _, seq, ok := wire.Parse(datagram); ok && seq > 0 {
				want++
			}
		}
		if noted > want || want > 0 && noted == 0 { // one of a round that is forgotten is neither
			t.Errorf("%d noted, %d are a probe's", noted, want)
		}
		l.unsent(message)
	})
}

// Several loops may see one run.
func TestLedgersAtOnce(t *testing.T) {
	l := newLedgers()
	var all sync.WaitGroup
	for from := range uint32(4) {
		all.Go(func() {
			for seq := from + 1; seq <= 4000; seq += 4 {
				seeAll(l, 1, seq)
				seeAll(l, uint64(seq), 1)
				l.get(1, time.Now())
			}
		})
	}
	all.Wait()
	if got, _ := l.get(1, time.Now()); got.Received+got.Duplicated != 4001 {
		t.Errorf("%+v", got)
	}
}

func TestNoteMakesNoGarbage(t *testing.T) {
	l, c := newLedgers(), new(counters)
	message := make([]byte, 64)
	seq := uint32(0)
	if n := testing.AllocsPerRun(70_000, func() {
		seq++
		wire.Fill(message, uint64(seq%300), 65_000+seq/300, 0)
		l.note(message, len(message), 1, noMarks, time.Now(), c)
	}); n > 0 {
		t.Errorf("%v allocations a datagram", n)
	}
}

func BenchmarkLedger(b *testing.B) {
	other, now := randomMessage(64), time.Now()
	for name, runs := range map[string]uint64{"others": 0, "one run": 1, "100 runs": 100, "made up": 1 << 40} {
		b.Run(name, func(b *testing.B) {
			l, c := newLedgers(), new(counters)
			message := slices.Clone(other)
			n := uint64(0)
			b.ReportAllocs()
			for b.Loop() {
				n++
				if runs > 0 {
					wire.Fill(message[:wire.HeaderBytes], n%runs, uint32(n/runs)+1, 0)
				}
				if isProbe(message) {
					l.note(message, len(message), 1, marks{64, 0}, now, c)
				}
			}
		})
	}
}

func randomMessage(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i * 151)
	}
	return b
}
