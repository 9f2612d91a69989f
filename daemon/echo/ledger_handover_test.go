package echo

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// passOn has another engine go on with the ledgers of one.
func passOn(t *testing.T, from *Engine) *Engine {
	t.Helper()
	b, err := from.SaveLedgers()
	if err != nil {
		t.Fatal(err)
	}
	to := New(Options{})
	if err := to.RestoreLedgers(b); err != nil {
		t.Fatal(err)
	}
	return to
}

// A run goes on over a hand-over as if nothing had been.
func TestLedgersAreHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, alike := New(Options{}), New(Options{})
		for _, g := range []*Engine{from, alike} {
			seeAll(g.ledgers, 1, 1, 2, 5, 4, 4)
			seeAll(g.ledgers, 2, 70_000, 1)
			g.ledgers.see(3, 1, false, marks{hops: 64, dscp: 46}, time.Now())
		}
		time.Sleep(time.Minute)
		to := passOn(t, from)
		time.Sleep(time.Minute)
		for _, g := range []*Engine{to, alike} {
			seeAll(g.ledgers, 1, 3, 5, 200)
			seeAll(g.ledgers, 2, 70_001)
			g.ledgers.see(3, 2, true, marks{hops: 60, dscp: 0}, time.Now())
			seeAll(g.ledgers, 4, 1)
		}
		for run := range uint64(6) {
			got, ok := to.Ledger(run)
			want, there := alike.Ledger(run)
			got.FirstSeen, got.LastSeen = got.FirstSeen.Local(), got.LastSeen.Local()
			if !got.FirstSeen.Equal(want.FirstSeen) || !got.LastSeen.Equal(want.LastSeen) {
				t.Errorf("run %d was seen from %v to %v, want %v to %v", run, got.FirstSeen, got.LastSeen, want.FirstSeen, want.LastSeen)
			}
			got.FirstSeen, got.LastSeen = want.FirstSeen, want.LastSeen
			if ok != there || !reflect.DeepEqual(got, want) {
				t.Errorf("run %d: %+v, %v; want %+v, %v", run, got, ok, want, there)
			}
		}
		// And expires when it would have.
		time.Sleep(LedgerAge)
		if got, ok := to.Ledger(1); !ok {
			t.Errorf("gone before its time: %+v", got)
		}
		time.Sleep(time.Nanosecond)
		if _, ok := to.Ledger(1); ok {
			t.Error("kept for longer than it is to be")
		}
	})
}

// What had to make room before is still known not to be complete, and as many as there may be are handed over.
func TestFullLedgersAreHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := New(Options{})
		time.Sleep(time.Minute)
		for run := range uint64(MaxLedgers + ledgerShards) {
			seeAll(from.ledgers, run, 1)
		}
		time.Sleep(time.Second)
		to := passOn(t, passOn(t, from))
		if n := to.ledgers.count(); n != MaxLedgers {
			t.Errorf("%d have come", n)
		}
		got, ok := to.Ledger(0)
		want, _ := from.Ledger(0)
		if ok || got.CompleteFor != want.CompleteFor || got.CompleteFor != time.Second {
			t.Errorf("one that had made room: complete for %v, want %v", got.CompleteFor, want.CompleteFor)
		}
	})
}

// The largest that there can be are not too large.
func TestLargestLedgersAreHandedOver(t *testing.T) {
	from := New(Options{})
	for run := range uint64(MaxLedgers) {
		seeAll(from.ledgers, 1<<63+run, 4_000_000_000)
	}
	to := passOn(t, from)
	if got, ok := to.Ledger(1 << 63); !ok || got.Highest != 4_000_000_000 {
		t.Errorf("%v, %d", ok, got.Highest)
	}
}

func TestBadLedgersAreRefused(t *testing.T) {
	long := strings.Repeat("A", (maxWords*2*8)*4/3)
	short := "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==" // 64 bytes
	for _, text := range []string{
		"", "{", "[]", `{"Ledgers":[{"Run":1}]}`, `{"Ledgers":[{"Run":1,"Highest":1,"Rounds":"AA=="}]}`,
		`{"Ledgers":[{"Run":1,"Highest":0,"Rounds":"` + short + `"}]}`,
		`{"Ledgers":[{"Run":1,"Highest":513,"Rounds":"` + short + `"}]}`,
		`{"Ledgers":[{"Run":1,"Highest":1,"Rounds":"` + long + `"}]}`,
		`{"Ledgers":[` + strings.Repeat(`{"Run":1},`, MaxLedgers) + `{"Run":1}]}`,
		strings.Repeat(" ", maxLedgerBytes+1),
	} {
		g := New(Options{})
		if err := g.RestoreLedgers([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), "cannot restore the ledgers: ") {
			t.Errorf("%.100s: %v", text, err)
		}
		if n := g.ledgers.count(); n != 0 {
			t.Errorf("%.100s: %d were taken in", text, n)
		}
	}
	g := New(Options{})
	if err := g.RestoreLedgers(fmt.Appendf(nil, `{"Later":"news","Ledgers":[{"Run":1,"Highest":512,"Rounds":%q}]}`, short)); err != nil {
		t.Error(err)
	}
}

// Whatever is taken in, nothing that is done with it afterwards goes wrong.
func FuzzRestoreLedgers(f *testing.F) {
	g := New(Options{})
	seeAll(g.ledgers, 1, 1, 2, 70_000)
	b, err := json.Marshal(g.ledgers.save(time.Now()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		g := New(Options{})
		if g.RestoreLedgers(b) != nil {
			return
		}
		for run := range uint64(3) {
			g.Ledger(run)
			seeAll(g.ledgers, run, 1, 3, 70_000, 1<<31)
			g.Ledger(run)
		}
		if _, err := g.SaveLedgers(); err != nil {
			t.Error(err)
		}
	})
}
