package monitor

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/event/eventtest"
)

// watchedManager is a manager and a watch of what it tells.
func watchedManager(t *testing.T, p *peer, s *memory) (*Manager, *event.Watch) {
	t.Helper()
	log := event.New(event.Limits{Events: 1000})
	m := newManager(t, p, s)
	m.Events = log
	if err := m.Restore(); err != nil {
		t.Fatal(err)
	}
	w, err := log.Watch(event.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return m, w
}

// wantTold compares what was told since the last look, "TYPE NAME STATE VERDICT" each.
func wantTold(t *testing.T, w *event.Watch, want ...string) {
	t.Helper()
	var got []string
	for _, e := range eventtest.Told(t, w) {
		s := e.Subject.(Monitor)
		if s.Name != e.Name || e.Kind != event.Monitor || e.Bytes < monitorBytes || s.History != nil {
			t.Errorf("an event lacks something, or has too much: %+v", e)
		}
		if s.Last != nil && (s.Last.Report.Flows != nil || s.Last.Report.RTT != nil && s.Last.Report.RTT.Buckets != nil) {
			t.Errorf("an event has a whole report: %+v", s.Last.Report)
		}
		got = append(got, fmt.Sprint(eventtest.Word(e.Type), " ", e.Name, " ", [...]string{"", "waiting", "running", "paused"}[s.State], " ", [...]string{"", "unknown", "met", "unmet"}[s.Verdict]))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestWhatHappensToAMonitorIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		store := &memory{}
		m, w := watchedManager(t, p, store)
		if _, err := m.Create(t.Context(), definition("dry", work{"x", 0}, time.Minute), true); err != nil {
			t.Fatal(err)
		}
		wantTold(t, w)
		run := func() {
			t.Helper()
			if _, err := m.Run(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
		}
		create(t, m, definition("a", work{"x", time.Second}, time.Hour))
		wantTold(t, w, "created a waiting unknown")
		run()
		wantTold(t, w, "run a waiting met", "state a waiting met")
		run()
		wantTold(t, w, "run a waiting met")
		p.set(func(p *peer) { p.silent = true })
		run()
		wantTold(t, w, "run a waiting unmet", "state a waiting unmet")
		if whole := get(t, m, "a"); len(whole.Last.Report.Flows) != 0 || whole.Last.Report.Lost != 1 {
			t.Errorf("the last run is %+v", whole.Last)
		}
		update(t, m, "a", func(*Definition) {})
		wantTold(t, w)
		update(t, m, "a", func(d *Definition) { d.Description = "x" })
		wantTold(t, w, "updated a waiting unmet")
		update(t, m, "a", func(d *Definition) { d.Probe = definition("", work{"y", time.Hour}, 0).Probe })
		wantTold(t, w, "updated a waiting unknown", "state a waiting unknown")
		m.mu.Lock()
		m.enqueueLocked(m.entries["a"], m.now())
		m.mu.Unlock()
		m.wakeUp()
		synctest.Wait()
		if get(t, m, "a").State != Running {
			t.Fatal("no run is under way")
		}
		update(t, m, "a", func(d *Definition) { d.Paused = true }) // and ends the run, which counts for nothing
		wantTold(t, w, "state a paused unknown")
		update(t, m, "a", func(d *Definition) { d.Paused = false; d.Description = "y" })
		wantTold(t, w, "updated a waiting unknown", "state a waiting unknown")
		m.Close()
		again, w2 := watchedManager(t, p, store)
		wantTold(t, w2, "existing a waiting unknown")
		if err := again.Delete(t.Context(), "a", ""); err != nil {
			t.Fatal(err)
		}
		wantTold(t, w2, "deleted a waiting unknown")
		wantTold(t, w)
	})
}

// TestAnEventLeavesTheLastRunWhole sees that what is cut for an event is not cut for others.
func TestAnEventLeavesTheLastRunWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, w := watchedManager(t, &peer{}, nil)
		create(t, m, definition("a", work{"x", 0}, time.Hour))
		if _, err := m.Run(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		wantTold(t, w, "created a waiting unknown", "run a waiting met", "state a waiting met")
		if last := get(t, m, "a").Last.Report; len(last.Flows) != 2 || len(last.RTT.Buckets) != 1 {
			t.Errorf("the last run has lost something: %+v", last)
		}
	})
}
