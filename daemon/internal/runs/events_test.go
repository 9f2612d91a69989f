package runs

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/echod/echod/daemon/internal/budget"
	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/event/eventtest"
	"github.com/echod/echod/daemon/probe"
)

// wantTold compares what was told since the last look, "TYPE NAME STATE" each, and answers the last run told of.
func wantTold(t *testing.T, w *event.Watch, want ...string) (last Run) {
	t.Helper()
	var got []string
	for _, e := range eventtest.Told(t, w) {
		last = e.Subject.(Run)
		if last.Name != e.Name || e.Kind != event.Probe || e.Bytes <= 0 || last.Plan.Tally != nil || last.Plan.Admit != nil || last.Plan.Ledger != nil {
			t.Errorf("an event lacks something, or holds what is alive: %+v", e)
		}
		got = append(got, fmt.Sprint(eventtest.Word(e.Type), " ", e.Name, " ", [...]string{"", "running", "done", "stopped"}[last.State]))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("told %q, want %q", got, want)
	}
	return last
}

func watchOf(t *testing.T, log *event.Log) *event.Watch {
	t.Helper()
	w, err := log.Watch(event.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestEachRunIsTold(t *testing.T) {
	m, plan := newManager(t)
	m.events = event.New(event.Limits{Events: 100})
	w := watchOf(t, m.events)
	defer w.Close()
	if _, err := m.Start("bad", Target{}, probe.Plan{}); err == nil {
		t.Fatal("a plan of nothing runs")
	}
	wantTold(t, w)
	h, err := m.Start("a", Target{}, plan)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Wait(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if r := wantTold(t, w, "created a running", "state a done"); r.Report.Sent != 3 || r.EndTime.IsZero() {
		t.Errorf("told of %+v", r)
	}
	if _, err := m.Start("a", Target{}, endless(plan)); err != nil { // takes the place of the one that has ended
		t.Fatal(err)
	}
	wantTold(t, w, "deleted a done", "created a running")
	if err := m.Delete("a"); err != nil {
		t.Fatal(err)
	}
	wantTold(t, w, "state a stopped", "deleted a stopped")
}

func TestARunIsForgottenInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := event.New(event.Limits{Events: 1000})
		m := New(probe.New(probe.Options{}), budget.New(budget.Limits{}), log)
		w := watchOf(t, log)
		defer w.Close()
		end := func(name string) {
			r := &run{name: name, done: make(chan struct{})}
			m.runs[name] = r
			m.finish(r, probe.Report{}, nil)
		}
		end("a")
		time.Sleep(time.Minute)
		end("b")
		wantTold(t, w, "state a done", "state b done")
		time.Sleep(keepTime - time.Minute - time.Nanosecond)
		synctest.Wait()
		wantTold(t, w)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		wantTold(t, w, "expired a done")
		time.Sleep(time.Minute)
		synctest.Wait()
		wantTold(t, w, "expired b done")
		for i := range keepCount + 1 {
			end(fmt.Sprintf("p%03d", i))
			time.Sleep(time.Millisecond)
		}
		if last := wantTold(t, w, wantMany()...); last.Name != "p000" {
			t.Errorf("%s is told last", last.Name)
		}
		m.Close() // with what is kept: nobody waits for its time
	})
}

func wantMany() (want []string) {
	for i := range keepCount + 1 {
		want = append(want, fmt.Sprintf("state p%03d done", i))
	}
	return append(want, "expired p000 done")
}

func TestTheSizeOfARunIsThatOfItsReport(t *testing.T) {
	d := &probe.Distribution{Buckets: make([]probe.Bucket, 1000)}
	small := Run{}.bytes()
	for name, r := range map[string]probe.Report{
		"rtt": {RTT: d}, "connect": {Connect: d}, "schedule": {Schedule: &probe.Schedule{Error: d}}, "flows": {Flows: []probe.FlowReport{{RTT: d}}},
		"sizes": {Sizes: []probe.SizeReport{{RTT: d}}}, "outages": {Outages: make([]probe.Outage, 400)},
	} {
		if got := (Run{Report: r}).bytes(); got < small+10_000 || got > small+50_000 {
			t.Errorf("%s: %d bytes, without it %d", name, got, small)
		}
	}
}
