//go:build linux

package main

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/echod/echod/bench/internal/load"
)

// turn is a sample of one second.
func turn(echoes uint64, cpu, p99 time.Duration) sample {
	seen := load.Result{Echoes: echoes, Bytes: echoes * 64, Elapsed: time.Second, CPU: &cpu, P50: &p99, P99: &p99}
	return sample{Result: seen}
}

func TestTableOfCase(t *testing.T) {
	failed := sample{err: errors.New("nothing came back")}
	silent := turn(50_000, time.Second, time.Millisecond)
	silent.CPU, silent.P50, silent.P99, silent.Lost = nil, nil, nil, 7
	all := []*measured{
		{server: Server{Name: ours}, samples: []sample{
			turn(100_000, time.Second, time.Millisecond), failed, turn(90_000, time.Second, time.Millisecond)}},
		{server: Server{Name: "half"}, samples: []sample{
			turn(50_000, time.Second, 4*time.Millisecond),
			turn(50_000, time.Second, 4*time.Millisecond),
			turn(45_000, time.Second, 4*time.Millisecond)}},
		{server: Server{Name: "unmeasured"}, samples: []sample{silent, silent, failed}},
		{server: Server{Name: "absent"}, missing: errors.New("not installed")},
	}
	got := tableOf(Case{Name: "x", Title: "a case", Load: load.Plan{Kind: load.PingPong, Depth: 1}}, all, settings{})
	want := Table{
		Title:  "x: a case",
		Header: []string{"server", "rate", "echod/it", "CPU/echo", "echod/it", "p50", "p99", "echod/it"},
		Rows: [][]string{
			{"echod", "95.0k/s", "-", "10.6 µs", "-", "1 ms", "1 ms", "-"},
			{"half", "50.0k/s", "2.00 [2.00-2.00]", "20 µs", "0.50 [0.50-0.50]", "4 ms", "4 ms", "0.25 [0.25-0.25]"},
			{"unmeasured", "50.0k/s", "2.00 [2.00-2.00]", "-", "-", "-", "-", "-"},
		},
		Notes: []string{
			"echod failed in 1 of 3 rounds: nothing came back",
			"unmeasured failed in 1 of 3 rounds: nothing came back",
			"unmeasured: 14 datagrams lost, 100000 echoed",
			"absent was not measured: not installed",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Only what our own server fails at is an error of the run.
func TestFailures(t *testing.T) {
	failed := sample{err: errors.New("nothing came back")}
	c := Case{Name: "x"}
	all := []*measured{{server: Server{Name: "peer"}, samples: []sample{failed}, missing: errors.New("not installed")}}
	if got := failures(c, all); len(got) != 0 {
		t.Errorf("a peer's failures are ours: %v", got)
	}
	all = append(all, &measured{server: Server{Name: ours}, samples: []sample{turn(1, 1, 1), failed}})
	if got := errors.Join(failures(c, all)...); got == nil || got.Error() != "x, round 2: nothing came back" {
		t.Errorf("got %v", got)
	}
}
