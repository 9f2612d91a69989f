//go:build linux

package main

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/echod/echod/bench/internal/load"
)

var bulkCase = Case{Name: "x", Title: "a case", Load: load.Plan{Kind: load.Bulk}}

// flow is a sample of bulk: MiB in one second.
func flow(mib uint64, cpu time.Duration) sample {
	return sample{Result: load.Result{Bytes: mib << 20, Elapsed: time.Second, CPU: &cpu}}
}

func flows(mib ...uint64) []sample {
	var samples []sample
	for _, n := range mib {
		samples = append(samples, flow(n, time.Second))
	}
	return samples
}

func seen(name string, samples []sample) *measured {
	return &measured{server: Server{Name: name}, samples: samples}
}

// A ratio is of one round, also where one server had fewer rounds or failed in one.
func TestRatiosArePairedByRound(t *testing.T) {
	rate := bulkCase.rate()
	own := flows(10, 20, 30, 40, 50)
	if diff := cmp.Diff([]float64{2, 5}, ratios(own, flows(5, 4), rate)); diff != "" {
		t.Errorf("with fewer rounds: %s", diff)
	}
	theirs := flows(5, 4, 3)
	theirs[1] = sample{err: errors.New("nothing came back")}
	if diff := cmp.Diff([]float64{2, 10}, ratios(own, theirs, rate)); diff != "" {
		t.Errorf("with a failure: %s", diff)
	}
}

// What had no turn did not fail.
func TestFewerRoundsAreNoTrouble(t *testing.T) {
	all := []*measured{seen(ours, flows(10, 20, 30)), seen("go-net", flows(5))}
	if got := tableOf(bulkCase, all, settings{}); len(got.Notes) != 0 {
		t.Errorf("got the notes %q", got.Notes)
	}
}

func TestWidest(t *testing.T) {
	own := flows(100, 100, 100)
	failed := sample{err: errors.New("nothing came back")}
	for _, test := range []struct {
		name string
		all  []*measured
		want width
	}{
		{"exact", []*measured{seen(ours, own), seen("c-a", own)}, width{0, "c-a"}},
		// The ratios are 1, 2 and 4, and the interval of so few is all of them.
		{"the wider one", []*measured{seen(ours, own), seen("c-a", own), seen("c-b", flows(100, 50, 25))}, width{75, "c-b"}},
		{"not of C", []*measured{seen(ours, own), seen("go-net", flows(100, 50, 25))}, width{}},
		{"too few", []*measured{seen(ours, own), seen("c-a", flows(100, 100))}, width{math.Inf(1), "c-a"}},
		{"it never works", []*measured{seen(ours, own), seen("c-a", []sample{failed, failed, failed})}, width{}},
		{"ours never works", []*measured{seen(ours, []sample{failed, failed, failed}), seen("c-a", own)}, width{}},
	} {
		if got := widestOf(bulkCase, test.all); got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestRoundsNote(t *testing.T) {
	own := flows(100, 100, 100)
	for _, test := range []struct {
		theirs *measured
		within float64
		want   string
	}{
		{seen("c-a", flows(100, 50, 25)), 80, "3 rounds; intervals of the C servers' rate ratios within 75.0 %"},
		{seen("c-a", flows(100, 50, 25)), 3, "3 rounds; widest interval 75.0 %: c-a"},
		{seen("c-a", flows(100)), 3, "3 rounds; too few ratios for an interval: c-a"},
		{seen("go-net", own), 3, "3 rounds; no ratio to a C server to go on for"},
	} {
		table := tableOf(bulkCase, []*measured{seen(ours, own), test.theirs}, settings{within: test.within})
		if got := table.Notes[len(table.Notes)-1]; got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

func TestBestOfC(t *testing.T) {
	own := []sample{flow(100, 2*time.Second), flow(80, 2*time.Second), flow(90, 2*time.Second)}
	all := []*measured{
		seen(ours, own), seen("c-a", flows(50, 50, 500)), seen("c-b", flows(100, 80, 90)), seen("go-net", flows(900, 900, 900)),
	}
	got := tableOf(bulkCase, all, settings{}).Notes
	want := []string{"best of C: c-b, echod/it 1.00 [1.00-1.00], CPU 2.00 [2.00-2.00]"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := tableOf(bulkCase, all[:1], settings{}).Notes; len(got) != 0 {
		t.Errorf("without a C server: %q", got)
	}
}

// The rate of a reference is noise in the first rounds and steady then, so that each round narrows the interval.
func TestGoesOnUntilWithin(t *testing.T) {
	c := Case{Load: load.Plan{Kind: load.Bulk}, Servers: []string{ours, "c-a", "go-net"}}
	rounds := func(s settings) (counts [3]int, all []*measured) {
		var contenders []contender
		for _, name := range c.Servers {
			m := seen(name, nil)
			all = append(all, m)
			contenders = append(contenders, contender{measured: m})
		}
		err := takeTurns(t.Context(), c, s, contenders, func(k contender) sample {
			round := uint64(len(k.samples))
			if k.server.Name == "c-a" && round < 4 {
				return flow(100+20*round, time.Second)
			}
			return flow(100, time.Second)
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range all {
			counts[i] = len(m.samples)
		}
		return counts, all
	}

	if got, _ := rounds(settings{rounds: 4, maxRounds: 60}); got != [3]int{4, 4, 4} {
		t.Errorf("nobody asked to go on, but there were %v rounds", got)
	}
	got, all := rounds(settings{rounds: 4, maxRounds: 60, within: 3})
	if got[0] != got[1] || got[2] != 4 || got[0] <= 4 || got[0] >= 60 {
		t.Errorf("there were %v rounds of %v", got, c.Servers)
	}
	if widest := widestOf(c, all); widest.percent > 3 {
		t.Errorf("it ended at %+v", widest)
	}
	for _, m := range all[:2] {
		m.samples = m.samples[:len(m.samples)-1]
	}
	if widest := widestOf(c, all); widest.percent <= 3 {
		t.Errorf("it went on from %+v", widest)
	}
	if got, _ := rounds(settings{rounds: 4, maxRounds: 5, within: 0.001}); got != [3]int{5, 5, 4} {
		t.Errorf("up to 5 were asked for, but there were %v rounds", got)
	}
}

// A reference that does not work gives no reason to go on, and interrupting ends the rounds.
func TestEndsAtOnce(t *testing.T) {
	failing := func(contender) sample { return sample{err: errors.New("nothing came back")} }
	pair := func() []contender { return []contender{{measured: seen(ours, nil)}, {measured: seen("c-a", nil)}} }
	contenders := pair()
	err := takeTurns(t.Context(), bulkCase, settings{rounds: 2, maxRounds: 60, within: 3}, contenders, failing)
	if err != nil || len(contenders[0].samples) != 2 {
		t.Errorf("%v, after %d rounds", err, len(contenders[0].samples))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	contenders = pair()
	err = takeTurns(ctx, bulkCase, settings{rounds: 2}, contenders, failing)
	if !errors.Is(err, context.Canceled) || len(contenders[0].samples) != 0 {
		t.Errorf("%v, after %d rounds", err, len(contenders[0].samples))
	}
}

func TestMethodSaysHowLong(t *testing.T) {
	if got := (settings{rounds: 6, maxRounds: 60}).describeRounds(); got != "6 rounds" {
		t.Errorf("got %q", got)
	}
	got := settings{rounds: 6, maxRounds: 60, within: 2.5}.describeRounds()
	for _, part := range []string{"6 rounds", "up to 60", "2.5 %"} {
		if !strings.Contains(got, part) {
			t.Errorf("%q does not say %q", got, part)
		}
	}
}
