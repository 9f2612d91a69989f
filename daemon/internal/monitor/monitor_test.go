package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/echod/echod/daemon/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer is a Prober whose runs take as long as their plan's Duration, and go as it is told.
type peer struct {
	mu      sync.Mutex
	began   map[string][]time.Time // by the plan's address
	atOnce  int
	most    int
	silent  bool // no reply comes
	refuses error
	room    int            // how many run at once before others are refused; 0: any number
	refused map[string]int // by the plan's address
}

func (p *peer) Run(ctx context.Context, plan probe.Plan, _ func(probe.Sample) error) (probe.Report, error) {
	p.mu.Lock()
	if p.began == nil {
		p.began, p.refused = map[string][]time.Time{}, map[string]int{}
	}
	if p.room > 0 && p.atOnce >= p.room || plan.Address == "huge" {
		p.refused[plan.Address]++
		p.mu.Unlock()
		return probe.Report{}, fmt.Errorf("%w: all sockets are taken", ErrBusy)
	}
	p.began[plan.Address] = append(p.began[plan.Address], time.Now())
	p.atOnce++
	p.most = max(p.most, p.atOnce)
	silent, refuses := p.silent, p.refuses
	p.mu.Unlock()
	if plan.Duration > 0 {
		select {
		case <-time.After(plan.Duration):
		case <-ctx.Done():
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.atOnce--
	r := probe.Report{Sent: 1, Received: 1, RTT: &probe.Distribution{Count: 1, Buckets: []probe.Bucket{{Count: 1}}}, Flows: make([]probe.FlowReport, 2)}
	if silent {
		r = probe.Report{Sent: 1, Lost: 1}
	}
	return r, refuses
}

func (p *peer) set(change func(*peer)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

func (p *peer) runs(address string) []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.began[address])
}

// memory is a Store that may be full.
type memory struct {
	mu      sync.Mutex
	records map[string][]byte
	full    bool
}

var errFull = errors.New("disk full")

func (s *memory) Put(kind, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return errFull
	}
	if s.records == nil {
		s.records = map[string][]byte{}
	}
	s.records[kind+"/"+key] = value
	return nil
}

func (s *memory) Delete(kind, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return errFull
	}
	delete(s.records, kind+"/"+key)
	return nil
}

func (s *memory) Each(kind string, fn func(key string, value []byte) error) error {
	s.mu.Lock()
	records := maps.Clone(s.records)
	s.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(records)) {
		name, ok := strings.CutPrefix(key, kind+"/")
		if !ok {
			continue
		}
		if err := fn(name, records[key]); err != nil {
			return err
		}
	}
	return nil
}

// work is what the tests have for a probe: how long it takes. Its target is called like the text; "gone" is not there.
type work struct {
	To   string
	Runs time.Duration
}

var errGone = errors.New("no such endpoint")

func prepare(text json.RawMessage) (Target, probe.Plan, error) {
	var w work
	if err := json.Unmarshal(text, &w); err != nil {
		return Target{}, probe.Plan{}, err
	}
	target := Target{Endpoint: w.To, Protocol: probe.UDP}
	if w.To == "gone" {
		return target, probe.Plan{}, errGone
	}
	return target, probe.Plan{Address: w.To, Duration: w.Runs}, nil
}

func newManager(t *testing.T, p *peer, s *memory) *Manager {
	t.Helper()
	c := Config{Prober: p, Prepare: prepare}
	if s != nil {
		c.Store = s
	}
	m := New(c)
	t.Cleanup(m.Close)
	return m
}

func definition(name string, w work, interval time.Duration) Definition {
	text, err := json.Marshal(w)
	if err != nil {
		panic(err)
	}
	return Definition{Name: name, Probe: text, Interval: interval}
}

func create(t *testing.T, m *Manager, def Definition) Monitor {
	t.Helper()
	made, err := m.Create(t.Context(), def, false)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func get(t *testing.T, m *Manager, name string) Monitor {
	t.Helper()
	got, err := m.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func update(t *testing.T, m *Manager, name string, change func(*Definition)) Monitor {
	t.Helper()
	got, err := m.Update(t.Context(), name, UpdateOptions{}, func(d Definition) (Definition, error) { change(&d); return d, nil })
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRunsAreAnIntervalApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		m := newManager(t, p, nil)
		made := create(t, m, definition("a", work{"x", time.Second}, 10*time.Second))
		if made.State != Waiting || made.Verdict != Unknown || !made.Since.IsZero() || made.Last != nil || made.HistoryLimit != DefaultHistoryLimit {
			t.Errorf("created: %+v", made)
		}
		if wait := time.Until(made.NextRun); wait < 0 || wait > 10*time.Second {
			t.Errorf("the first run comes in %v", wait)
		}
		time.Sleep(100*time.Second + time.Nanosecond)
		synctest.Wait()
		began := p.runs("x")
		if len(began) != 10 || !began[0].Equal(made.NextRun) {
			t.Fatalf("%d runs, the first at %v, want 10 from %v", len(began), began[0], made.NextRun)
		}
		for i := 1; i < len(began); i++ {
			if d := began[i].Sub(began[i-1]); d != 10*time.Second {
				t.Errorf("run %d came %v after the one before", i, d)
			}
		}
		time.Sleep(2 * time.Second)
		got := get(t, m, "a")
		if got.Counters.Runs < 10 || got.Counters.Failures+got.Counters.Skipped+got.Counters.Late != 0 || got.Verdict != Met ||
			!got.Since.Equal(began[0].Add(time.Second)) || len(got.History) != DefaultHistoryLimit {
			t.Errorf("after 100 s: %+v", got)
		}
	})
}

// TestManyAreSpread wants as many runs in each part of an interval, before and after a restart.
func TestManyAreSpread(t *testing.T) {
	for _, interval := range []time.Duration{30 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			// The race detector of Go 1.26 does not survive many more timers in one bubble (golang.org/issue/78156).
			const many, parts = 500, 5
			s := &memory{}
			m := newManager(t, &peer{}, s)
			for i := range many {
				create(t, m, definition(fmt.Sprintf("m-%d", i), work{fmt.Sprint(i), 0}, interval))
			}
			spread := func(what string, m *Manager) {
				all, _ := m.List("", many, nil)
				var counts [parts]int
				for _, one := range all {
					counts[min(parts-1, int(time.Until(one.NextRun)*parts/min(interval, firstWithin)))]++
				}
				for i, n := range counts {
					if n < many/parts/2 || n > many/parts*2 {
						t.Errorf("%s, interval %v: %d of %d first runs in part %d of %d", what, interval, n, many, i+1, parts)
					}
				}
			}
			spread("created", m)
			m.Close()
			p := &peer{}
			m = newManager(t, p, s)
			if err := m.Restore(); err != nil {
				t.Fatal(err)
			}
			spread("restored", m)
			// From then on each at its place of the same part of the interval.
			time.Sleep(interval)
			start := time.Now()
			time.Sleep(interval)
			synctest.Wait()
			var counts [parts]int
			total := 0
			for i := range many {
				for _, at := range p.runs(fmt.Sprint(i)) {
					if at.After(start) && !at.After(start.Add(interval)) {
						counts[min(parts-1, int(at.Sub(start)*parts/min(interval, firstWithin)))]++
						total++
					}
				}
			}
			if total != many {
				t.Errorf("interval %v: %d runs of %d in an interval", interval, total, many)
			}
			for i, n := range counts {
				if n < many/parts/2 || n > many/parts*2 {
					t.Errorf("interval %v: %d of %d runs in part %d of %d", interval, n, many, i+1, parts)
				}
			}
		})
	}
}

func TestARunThatTakesTooLongSkipsTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		m := newManager(t, p, nil)
		first := create(t, m, definition("a", work{"x", 25 * time.Second}, 10*time.Second)).NextRun
		time.Sleep(time.Until(first) + 61*time.Second)
		synctest.Wait()
		var after []time.Duration
		for _, at := range p.runs("x") {
			after = append(after, at.Sub(first))
		}
		if want := []time.Duration{0, 30 * time.Second, 60 * time.Second}; !slices.Equal(after, want) {
			t.Errorf("runs began %v after the first, want %v", after, want)
		}
		if c := get(t, m, "a").Counters; c.Runs != 2 || c.Skipped != 4 || c.Late != 0 {
			t.Errorf("counters %+v, want 2 runs and 4 skipped", c)
		}
		if s := get(t, m, "a").State; s != Running {
			t.Errorf("state %v, want Running", s)
		}
	})
}

// TestRunsAtOnceAreBounded has more to do than there is room for: runs begin late, are skipped, and none is lost sight of.
func TestRunsAtOnceAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		m := newManager(t, p, nil)
		const many = 2 * maxRunning
		for i := range many {
			create(t, m, definition(fmt.Sprintf("m-%d", i), work{fmt.Sprint(i), 1500 * time.Millisecond}, time.Second))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		var c Counters
		began := 0
		for i := range many {
			one := get(t, m, fmt.Sprintf("m-%d", i)).Counters
			c.Runs, c.Skipped, c.Late = c.Runs+one.Runs, c.Skipped+one.Skipped, c.Late+one.Late
			n := len(p.runs(fmt.Sprint(i)))
			if n == 0 {
				t.Errorf("monitor %d did not run at all", i)
			}
			began += n
			// Each second either a run began, or it was skipped, or waits for a place.
			if due := uint64(n) + one.Skipped; due < 7 || due > 11 {
				t.Errorf("monitor %d: %d runs began and %d were skipped in 10 s", i, n, one.Skipped)
			}
		}
		if p.most != maxRunning {
			t.Errorf("%d runs at once, want %d", p.most, maxRunning)
		}
		if c.Late == 0 || c.Skipped == 0 || began == 0 {
			t.Errorf("counters %+v", c)
		}
	})
}

func TestVerdictsAndSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		m := newManager(t, p, nil)
		def := definition("a", work{"x", time.Second}, 10*time.Second)
		def.Expect = []string{"received > 0"}
		create(t, m, def)
		run := func() Monitor {
			t.Helper()
			if _, err := m.Run(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			return get(t, m, "a")
		}
		met := run()
		if met.Verdict != Met || !met.Since.Equal(met.Last.End) || !met.Last.Met || !met.Last.Expected || len(met.Last.Verdicts) != 1 {
			t.Errorf("met: %+v", met)
		}
		if still := run(); !still.Since.Equal(met.Since) {
			t.Errorf("since moved from %v to %v without a change", met.Since, still.Since)
		}
		p.set(func(p *peer) { p.silent = true })
		silent := run()
		if silent.Verdict != NotMet || !silent.Since.Equal(silent.Last.End) || silent.Counters.Failures != 1 || silent.Last.Failure != "" {
			t.Errorf("silent: %+v", silent)
		}
		p.set(func(p *peer) { p.silent, p.refuses = false, errors.New("the target is not allowed") })
		if refused := run(); refused.Verdict != NotMet || refused.Last.Failure != "the target is not allowed" || !refused.Since.Equal(silent.Since) {
			t.Errorf("refused: %+v", refused)
		}
		// What is not probed any more has no verdict.
		changed := update(t, m, "a", func(d *Definition) { d.Expect = []string{"received > 1000"} })
		if changed.Verdict != Unknown || !changed.Since.IsZero() || changed.Last != nil || len(changed.History) != 4 {
			t.Errorf("changed: %+v", changed)
		}
		p.set(func(p *peer) { p.refuses = nil })
		if never := run(); never.Verdict != NotMet || never.Last.Verdicts[0].Met {
			t.Errorf("never: %+v", never)
		}
		// The oldest runs are kept without what has many parts, and with the verdicts that were not met.
		h := get(t, m, "a").History
		if len(h) != 5 || h[0].Report.RTT.Buckets == nil || len(h[0].Report.Flows) != 2 || len(h[0].Verdicts) != 1 {
			t.Errorf("the newest run is not whole: %+v", h[0])
		}
		if old := h[4]; old.Report.RTT.Buckets != nil || old.Report.RTT.Count != 1 || old.Report.Flows != nil || len(old.Verdicts) != 0 || !old.Met {
			t.Errorf("the oldest run: %+v", old)
		}
	})
}

// TestATargetThatIsNotThereFailsTheRun and nothing else.
func TestATargetThatIsNotThereFailsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &peer{}, nil)
		create(t, m, definition("a", work{"gone", 0}, 10*time.Second))
		r, err := m.Run(t.Context(), "a")
		if err != nil || r.Met || r.Failure != errGone.Error() || r.Target.Endpoint != "gone" || r.End.IsZero() {
			t.Errorf("%+v, %v", r, err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := get(t, m, "a"); got.Counters.Failures < 6 || got.Verdict != NotMet {
			t.Errorf("after a minute: %+v", got)
		}
	})
}

func TestABusyDaemonSkipsRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &peer{refuses: fmt.Errorf("%w: all sockets are taken", ErrBusy)}, nil)
		create(t, m, definition("a", work{"x", 0}, 10*time.Second))
		if _, err := m.Run(t.Context(), "a"); !errors.Is(err, ErrBusy) {
			t.Errorf("error %v, want ErrBusy", err)
		}
		if got := get(t, m, "a"); got.Counters != (Counters{Skipped: 1}) || got.Verdict != Unknown || got.Last != nil {
			t.Errorf("%+v", got)
		}
	})
}

func TestPauseAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		m := newManager(t, p, nil)
		made := create(t, m, definition("a", work{"x", 5 * time.Second}, 10*time.Second))
		time.Sleep(time.Until(made.NextRun) + time.Second)
		synctest.Wait()
		paused := update(t, m, "a", func(d *Definition) { d.Paused = true })
		if p.atOnce != 0 || paused.State != Paused || !paused.NextRun.IsZero() || paused.Counters != (Counters{Skipped: 1}) || paused.ETag == made.ETag {
			t.Errorf("paused: %+v, %d runs under way", paused, p.atOnce)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(p.runs("x")); n != 1 {
			t.Errorf("%d runs while paused", n-1)
		}
		// It runs when it is asked to, once.
		if _, err := m.Run(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n, s := len(p.runs("x")), get(t, m, "a").State; n != 2 || s != Paused {
			t.Errorf("%d runs, state %v", n, s)
		}
		resumed := update(t, m, "a", func(d *Definition) { d.Paused = false })
		if resumed.State != Waiting || time.Until(resumed.NextRun) > 10*time.Second {
			t.Errorf("resumed: %+v", resumed)
		}
		time.Sleep(time.Until(resumed.NextRun))
		synctest.Wait()
		if n := len(p.runs("x")); n != 3 {
			t.Errorf("%d runs after it was resumed, want 3", n)
		}
	})
}

func TestRunWaitsForTheOneUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		m := newManager(t, p, nil)
		def := definition("a", work{"x", 5 * time.Second}, time.Hour)
		def.Paused = true // no run comes by itself
		create(t, m, def)
		both := make(chan Run, 2)
		for range 2 {
			go func() {
				r, err := m.Run(t.Context(), "a")
				if err != nil {
					t.Error(err)
				}
				both <- r
			}()
		}
		if a, b := <-both, <-both; !a.Start.Equal(b.Start) || len(p.runs("x")) != 1 {
			t.Errorf("two runs, at %v and %v", a.Start, b.Start)
		}
		// One who does not wait ends nothing.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := m.Run(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the context's", err)
		}
		time.Sleep(5 * time.Second)
		if c := get(t, m, "a").Counters; c.Runs < 2 || c.Skipped != 0 {
			t.Errorf("counters %+v", c)
		}
		if _, err := m.Run(t.Context(), "none"); !errors.Is(err, ErrNotFound) {
			t.Errorf("error %v, want ErrNotFound", err)
		}
	})
}

// TestChangesEndTheRun that is under way, if what is probed changes.
func TestChangesEndTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for what, change := range map[string]func(*Manager) error{
			"update": func(m *Manager) error {
				_, err := m.Update(context.Background(), "a", UpdateOptions{}, func(d Definition) (Definition, error) {
					d.Probe = definition("", work{"y", 0}, 0).Probe
					return d, nil
				})
				return err
			},
			"delete": func(m *Manager) error { return m.Delete(context.Background(), "a", "") },
			"close":  func(m *Manager) error { m.Close(); return nil },
		} {
			p := &peer{}
			m := newManager(t, p, nil)
			create(t, m, definition("a", work{"x", time.Hour}, 2*time.Hour))
			ended := make(chan error, 1)
			go func() { _, err := m.Run(context.Background(), "a"); ended <- err }()
			synctest.Wait()
			// A label is no reason to end it.
			if s := update(t, m, "a", func(d *Definition) { d.Labels = map[string]string{"a": "b"} }).State; s != Running {
				t.Errorf("%s: state %v after a label, want Running", what, s)
			}
			if err := change(m); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if p.atOnce != 0 {
				t.Errorf("%s: a run is under way", what)
			}
			want := ErrChanged
			if what == "close" {
				want = ErrClosed
			}
			if err := <-ended; !errors.Is(err, want) {
				t.Errorf("%s: error %v, want %v", what, err, want)
			}
			m.Close()
		}
	})
}

func TestCloseEndsWhatWasAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		m := newManager(t, p, nil)
		for i := range maxRunning + 1 { // the last has no place
			create(t, m, definition(fmt.Sprintf("m-%d", i), work{fmt.Sprint(i), time.Hour}, 2*time.Hour))
			go func() {
				if _, err := m.Run(context.Background(), fmt.Sprintf("m-%d", i)); !errors.Is(err, ErrClosed) {
					t.Errorf("error %v, want ErrClosed", err)
				}
			}()
			synctest.Wait()
		}
		m.Close()
		synctest.Wait()
		if _, err := m.Run(t.Context(), "m-0"); !errors.Is(err, ErrClosed) {
			t.Errorf("error %v, want ErrClosed", err)
		}
		if _, err := m.Create(t.Context(), definition("late", work{"x", 0}, 0), false); !errors.Is(err, ErrClosed) {
			t.Errorf("error %v, want ErrClosed", err)
		}
	})
}

func TestHistoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &peer{}, nil)
		def := definition("a", work{"x", 0}, time.Second)
		def.HistoryLimit = 3
		create(t, m, def)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		got := get(t, m, "a")
		if len(got.History) != 3 || !got.History[0].Start.After(got.History[2].Start) || !got.Last.Start.Equal(got.History[0].Start) {
			t.Errorf("history of %d runs", len(got.History))
		}
		if list, _ := m.List("", 1, nil); len(list) != 1 || list[0].History != nil || list[0].Last == nil {
			t.Errorf("listed: %+v", list)
		}
		if n := len(update(t, m, "a", func(d *Definition) { d.HistoryLimit = 1 }).History); n != 1 {
			t.Errorf("history of %d runs after the limit was lowered", n)
		}
	})
}

func TestManagersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &peer{}, nil)
		paused := func(name string, history int) error {
			def := definition(name, work{"x", 0}, time.Second)
			def.Paused, def.HistoryLimit = true, history
			_, err := m.Create(t.Context(), def, false)
			return err
		}
		for i := range maxHistory / 100 {
			if err := paused(fmt.Sprintf("m-%d", i), 100); err != nil {
				t.Fatal(err)
			}
		}
		if err := paused("more", 1); !errors.Is(err, ErrTooMany) || !strings.Contains(err.Error(), "history") {
			t.Errorf("error %v, want ErrTooMany", err)
		}
		update(t, m, "m-0", func(d *Definition) { d.HistoryLimit = 99 })
		if err := paused("more", 1); err != nil {
			t.Error(err)
		}
		if _, err := m.Update(t.Context(), "m-0", UpdateOptions{}, func(d Definition) (Definition, error) { d.HistoryLimit = 100; return d, nil }); !errors.Is(err, ErrTooMany) {
			t.Errorf("error %v, want ErrTooMany", err)
		}
		for i := range maxHistory / 100 {
			if err := m.Delete(t.Context(), fmt.Sprintf("m-%d", i), ""); err != nil {
				t.Fatal(err)
			}
		}
		for i := range maxMonitors - 1 {
			if err := paused(fmt.Sprintf("n-%d", i), 1); err != nil {
				t.Fatal(err)
			}
		}
		if err := paused("one-more", 1); !errors.Is(err, ErrTooMany) || !strings.Contains(err.Error(), "10000") {
			t.Errorf("error %v, want ErrTooMany", err)
		}
	})
}

func TestMonitorsSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &memory{}
		m := newManager(t, &peer{}, s)
		def := definition("a", work{"x<y", time.Second}, 10*time.Second)
		def.Labels, def.Description, def.Expect, def.HistoryLimit, def.Paused = map[string]string{"k": "v"}, "d", []string{"received > 0"}, 7, true
		made := create(t, m, def)
		create(t, m, definition("b", work{"x", 0}, 0))
		create(t, m, definition("c", work{"x", 0}, 0))
		if err := m.Delete(t.Context(), "c", ""); err != nil {
			t.Fatal(err)
		}
		m.Close()
		p := &peer{}
		m = newManager(t, p, s)
		if err := m.Restore(); err != nil {
			t.Fatal(err)
		}
		if list, _ := m.List("", 10, nil); len(list) != 2 {
			t.Errorf("%d monitors, want 2", len(list))
		}
		back := get(t, m, "a")
		if back.ETag != made.ETag || back.UID != made.UID || !back.CreateTime.Equal(made.CreateTime) || back.State != Paused || back.HistoryLimit != 7 ||
			back.Verdict != Unknown || !slices.Equal(back.Expect, def.Expect) {
			t.Errorf("restored: %+v, was %+v", back, made)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(p.runs("x")); n != 1 {
			t.Errorf("%d runs in a minute, want 1", n)
		}
		if err := s.Put(recordKind, "bad", []byte("{")); err != nil {
			t.Fatal(err)
		}
		if err := newManager(t, p, s).Restore(); err == nil || !strings.Contains(err.Error(), `"bad"`) {
			t.Errorf("error %v, want one about a bad record", err)
		}
	})
}

// TestAnExpectationOfAnotherDaemon fails runs, and keeps nobody from starting.
func TestAnExpectationOfAnotherDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &memory{}
		value, err := json.Marshal(record{Definition: Definition{Name: "a", Probe: definition("", work{"x", 0}, 0).Probe, Expect: []string{"nonsense > 0"}}, UID: "u"})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Put(recordKind, "a", value); err != nil {
			t.Fatal(err)
		}
		m := newManager(t, &peer{}, s)
		if err := m.Restore(); err != nil {
			t.Fatal(err)
		}
		if r, err := m.Run(t.Context(), "a"); err != nil || !strings.Contains(r.Failure, "nonsense") {
			t.Errorf("%+v, %v", r, err)
		}
		update(t, m, "a", func(d *Definition) { d.Expect = nil })
		if r, err := m.Run(t.Context(), "a"); err != nil || !r.Met {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// TestAFullDiskChangesNothing: memory and disk never differ.
func TestAFullDiskChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &memory{}
		m := newManager(t, &peer{}, s)
		made := create(t, m, definition("a", work{"x", 0}, time.Minute))
		s.full = true
		if _, err := m.Create(t.Context(), definition("b", work{"x", 0}, 0), false); !errors.Is(err, ErrNotStored) {
			t.Errorf("create: %v", err)
		}
		if _, err := m.Get("b"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a create that failed left something: %v", err)
		}
		pause := func(d Definition) (Definition, error) { d.Paused = true; return d, nil }
		if _, err := m.Update(t.Context(), "a", UpdateOptions{}, pause); !errors.Is(err, ErrNotStored) {
			t.Errorf("update: %v", err)
		}
		if err := m.Delete(t.Context(), "a", ""); !errors.Is(err, ErrNotStored) {
			t.Errorf("delete: %v", err)
		}
		if got := get(t, m, "a"); got.ETag != made.ETag || got.Paused || !got.NextRun.Equal(made.NextRun) {
			t.Errorf("changed: %+v", got)
		}
	})
}

func TestChangesAreChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, &peer{}, nil)
		made := create(t, m, definition("a", work{"x", 0}, time.Minute))
		if _, err := m.Create(t.Context(), definition("a", work{"x", 0}, 0), false); !errors.Is(err, ErrExists) {
			t.Errorf("the name twice: %v", err)
		}
		bad := definition("bad", work{"x", 0}, 0)
		bad.Expect = []string{"nonsense > 0"}
		if _, err := m.Create(t.Context(), bad, false); !errors.Is(err, ErrBadExpect) {
			t.Errorf("a bad expectation: %v", err)
		}
		expect := func(d Definition) (Definition, error) { d.Expect = bad.Expect; return d, nil }
		if _, err := m.Update(t.Context(), "a", UpdateOptions{}, expect); !errors.Is(err, ErrBadExpect) {
			t.Errorf("a bad expectation: %v", err)
		}
		if dry, err := m.Create(t.Context(), definition("", work{"x", 0}, 0), true); err != nil || dry.Name == "" || dry.ETag == "" || !dry.NextRun.IsZero() {
			t.Errorf("validate only: %+v, %v", dry, err)
		}
		describe := func(d Definition) (Definition, error) { d.Description, d.Name = "new", "b"; return d, nil }
		if _, err := m.Update(t.Context(), "a", UpdateOptions{ETag: "old"}, describe); !errors.Is(err, ErrStale) {
			t.Errorf("a stale etag: %v", err)
		}
		if dry, err := m.Update(t.Context(), "a", UpdateOptions{ValidateOnly: true}, describe); err != nil || dry.Description != "new" || dry.ETag == made.ETag {
			t.Errorf("validate only: %+v, %v", dry, err)
		}
		if got := get(t, m, "a"); got.ETag != made.ETag || got.Description != "" {
			t.Errorf("validate only changed it: %+v", got)
		}
		if got, err := m.Update(t.Context(), "a", UpdateOptions{ETag: made.ETag}, describe); err != nil || got.Description != "new" || got.Name != "a" {
			t.Errorf("update: %+v, %v", got, err)
		}
		if err := m.Delete(t.Context(), "a", made.ETag); !errors.Is(err, ErrStale) {
			t.Errorf("delete: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		m.turn <- struct{}{}
		if err := m.Delete(ctx, "a", ""); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that left: %v", err)
		}
		m.release()
		if list, more := m.List("", 0, nil); len(list) != 0 || !more {
			t.Errorf("a list of none: %d, more %v", len(list), more)
		}
		if list, _ := m.List("a", 10, nil); len(list) != 0 {
			t.Errorf("%d behind the last", len(list))
		}
		if list, _ := m.List("", 10, func(m *Monitor) bool { return m.Name == "b" }); len(list) != 0 {
			t.Errorf("%d match", len(list))
		}
	})
}

// TestAnIntervalThatChanges moves the next run.
func TestAnIntervalThatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		m := newManager(t, p, nil)
		create(t, m, definition("a", work{"x", 0}, 24*time.Hour))
		time.Sleep(firstWithin)
		synctest.Wait()
		if n := len(p.runs("x")); n < 1 {
			t.Fatalf("%d runs within a minute", n)
		}
		update(t, m, "a", func(d *Definition) { d.Interval = 2 * time.Second })
		before := len(p.runs("x"))
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := len(p.runs("x")) - before; n != 10 {
			t.Errorf("%d runs in 20 s, want 10", n)
		}
	})
}
