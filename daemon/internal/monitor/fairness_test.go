package monitor

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/echod/echod/daemon/verdict"
)

// log is a writer that counts lines.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(line))
	return len(line), nil
}

func (l *log) count(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func (p *peer) refusals(address string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused[address]
}

// TestATightBudgetStarvesNobody has room for one run at once and asks for more than that: all get their share, one that
// never fits holds up no other, and the log says it once of each.
func TestATightBudgetStarvesNobody(t *testing.T) {
	for _, many := range []int{3, 6, 40} { // 40: more than are tried at each end
		synctest.Test(t, func(t *testing.T) {
			p, l := &peer{room: 1}, &log{}
			m := New(Config{Prober: p, Prepare: prepare, Log: slog.New(slog.NewTextHandler(l, nil))})
			defer m.Close()
			const takes, interval, lasts = 800 * time.Millisecond, 2 * time.Second, 200 * time.Second
			create(t, m, definition("huge", work{"huge", 0}, interval))
			for i := range many {
				create(t, m, definition(fmt.Sprintf("m-%d", i), work{fmt.Sprint(i), takes}, interval))
			}
			time.Sleep(lasts)
			synctest.Wait()
			share := min(int(lasts/takes)/many, int(lasts/interval))
			for i := range many {
				n, c := len(p.runs(fmt.Sprint(i))), get(t, m, fmt.Sprintf("m-%d", i)).Counters
				if n < share/2 {
					t.Errorf("%d of %d: %d runs began, its share is %d", i, many, n, share)
				}
				// Each turn is a run, was skipped, or is still owed.
				if turns := c.Runs + c.Skipped; turns < uint64(lasts/interval)-2 || turns > uint64(lasts/interval) {
					t.Errorf("%d of %d: %+v in %d turns", i, many, c, lasts/interval)
				}
			}
			huge := get(t, m, "huge")
			if huge.Counters.Runs != 0 || huge.Counters.Skipped < uint64(lasts/interval)-2 || huge.Verdict != Unknown {
				t.Errorf("the one that never fits: %+v", huge)
			}
			if n := p.refusals("huge"); n > int(lasts/interval)*16+int(lasts/takes) {
				t.Errorf("the one that never fits was tried %d times", n)
			}
			// A monitor that is skipped now and then is told of after againAfter good runs, no sooner.
			most := (many + 1) * (1 + int(lasts/interval)/(againAfter+1))
			if many > 3 {
				most = many + 1
			}
			if n := l.count("runs are skipped"); n == 0 || n > most {
				t.Errorf("%d lines about %d monitors whose runs are skipped", n, many+1)
			}
			// When there is room again each runs at its turns, and the log says so.
			p.set(func(p *peer) { p.room = 0 })
			time.Sleep((againAfter + 3) * interval)
			synctest.Wait()
			if skips, again := l.count("runs are skipped"), l.count("again"); again != skips-1 {
				t.Errorf("%d lines about monitors that run again, %d about skips", again, skips)
			}
		})
	}
}

// TestARefusedRunIsPutOff and comes within its interval, late; what is paused, changed or deleted meanwhile owes nothing.
func TestARefusedRunIsPutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{room: 1, atOnce: 1} // somebody else's probe has the room
		m := newManager(t, p, nil)
		for _, name := range []string{"a", "b", "c"} {
			create(t, m, definition(name, work{name, 0}, 10*time.Second))
		}
		planned := get(t, m, "a").NextRun
		time.Sleep(10 * time.Second)
		synctest.Wait()
		wait := func(want int) {
			t.Helper()
			m.mu.Lock()
			defer m.mu.Unlock()
			if len(m.waiting) != want {
				t.Errorf("%d wait, want %d", len(m.waiting), want)
			}
		}
		wait(3)
		paused := update(t, m, "b", func(d *Definition) { d.Paused = true })
		if paused.Counters.Skipped == 0 || !paused.NextRun.IsZero() {
			t.Errorf("paused: %+v", paused)
		}
		if err := m.Delete(t.Context(), "c", ""); err != nil {
			t.Error(err)
		}
		wait(1)
		time.Sleep(time.Until(planned) + 15*time.Second) // the second turn has come, the third has not
		synctest.Wait()
		if c := get(t, m, "a").Counters; c != (Counters{Skipped: 1}) {
			t.Errorf("refused: %+v", c)
		}
		p.set(func(p *peer) { p.room = 0 })
		time.Sleep(10*time.Second/8 + time.Nanosecond)
		synctest.Wait()
		got := get(t, m, "a")
		if len(p.runs("a")) != 1 || got.Counters != (Counters{Runs: 1, Skipped: 1, Late: 1}) {
			t.Errorf("after there is room: %+v", got)
		}
		// Its turns stay where they were.
		if d := got.NextRun.Sub(planned); d%(10*time.Second) != 0 {
			t.Errorf("the next run comes %v after the first was due", d)
		}
		if len(p.runs("b"))+len(p.runs("c")) != 0 {
			t.Error("what is paused or deleted ran")
		}
	})
}

// TestTheSecondRunIsAnIntervalAfterTheFirst when it is new, resumed, restored or has another interval.
func TestTheSecondRunIsAnIntervalAfterTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := &memory{}, &peer{}
		m := newManager(t, p, s)
		check := func(what string, interval time.Duration) {
			t.Helper()
			first := get(t, m, "a").NextRun
			if wait := time.Until(first); wait < 0 || wait > firstWithin {
				t.Errorf("%s: the first run comes in %v", what, wait)
			}
			before := len(p.runs("x"))
			time.Sleep(time.Until(first) + 3*interval)
			synctest.Wait()
			began := p.runs("x")[before:]
			if len(began) != 4 {
				t.Fatalf("%s: %d runs, want 4", what, len(began))
			}
			for i, at := range began {
				if want := first.Add(time.Duration(i) * interval); !at.Equal(want) {
					t.Errorf("%s: run %d began %v after its turn", what, i, at.Sub(want))
				}
			}
		}
		time.Sleep(1234567 * time.Millisecond)
		create(t, m, definition("a", work{"x", 0}, time.Hour))
		check("new", time.Hour)
		update(t, m, "a", func(d *Definition) { d.Paused = true })
		time.Sleep(1234567 * time.Millisecond)
		update(t, m, "a", func(d *Definition) { d.Paused = false })
		check("resumed", time.Hour)
		update(t, m, "a", func(d *Definition) { d.Interval = 2 * time.Hour })
		check("changed", 2*time.Hour)
		m.Close()
		m = newManager(t, p, s)
		if err := m.Restore(); err != nil {
			t.Fatal(err)
		}
		check("restored", 2*time.Hour)
		// A run that is asked for moves no turn.
		next := get(t, m, "a").NextRun
		if _, err := m.Run(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		if got := get(t, m, "a").NextRun; !got.Equal(next) {
			t.Errorf("a run that was asked for moved the next from %v to %v", next, got)
		}
	})
}

// TestAfterAStallRunsAreSpread lets the clock jump, which is what a process sees that was stopped.
func TestAfterAStallRunsAreSpread(t *testing.T) {
	for _, interval := range []time.Duration{10 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			const many, parts = 300, 10
			p := &peer{}
			m := newManager(t, p, nil)
			for i := range many {
				create(t, m, definition(fmt.Sprintf("m-%d", i), work{fmt.Sprint(i), 0}, interval))
			}
			within := min(interval, firstWithin)
			time.Sleep(within)
			synctest.Wait()
			m.mu.Lock()
			m.epoch = m.epoch.Add(-interval - interval/5)
			m.mu.Unlock()
			m.wakeUp() // a timer of the bubble does not see the clock jump
			start := time.Now()
			time.Sleep(within + time.Nanosecond)
			synctest.Wait()
			var counts [parts + 1]int
			for i := range many {
				for _, at := range p.runs(fmt.Sprint(i)) {
					if at.After(start) {
						counts[min(parts, int(at.Sub(start)*parts/within))]++
					}
				}
			}
			for i, n := range counts {
				if n > many/parts*2 {
					t.Errorf("interval %v: %d of %d runs in part %d of %d", interval, n, many, i+1, parts)
				}
			}
			var c Counters
			for i := range many {
				one := get(t, m, fmt.Sprintf("m-%d", i)).Counters
				c.Runs, c.Skipped, c.Late = c.Runs+one.Runs, c.Skipped+one.Skipped, c.Late+one.Late
				if one.Runs < 2 {
					t.Errorf("interval %v: monitor %d did not run within %v", interval, i, within)
				}
			}
			if interval == time.Hour && c.Late < many/2 || interval != time.Hour && c.Skipped < many {
				t.Errorf("interval %v: %+v", interval, c)
			}
		})
	}
}

// TestOldRunsAreSmall even when much was expected and nothing met.
func TestOldRunsAreSmall(t *testing.T) {
	long := strings.Repeat("ä", 400)
	r := Run{Verdicts: []verdict.Verdict{
		{Expect: long, Seen: []verdict.Seen{{Name: "p99", Value: "1ms"}}, Message: long},
		{Expect: "met", Met: true},
		{Expect: strings.Repeat("x", expectKept), Message: "not known"},
	}}
	got := slim(r).Verdicts
	if len(got) != 2 || got[0].Seen != nil || got[0].Message != "" || got[1].Message != "" || got[1].Expect != r.Verdicts[2].Expect {
		t.Errorf("slim: %+v", got)
	}
	if n := utf8.RuneCountInString(got[0].Expect); n != expectKept || !strings.HasSuffix(got[0].Expect, "…") || !utf8.ValidString(got[0].Expect) {
		t.Errorf("%d characters: %q", n, got[0].Expect)
	}
	if r.Verdicts[0].Seen == nil || r.Verdicts[0].Expect != long {
		t.Error("the run itself was changed")
	}
}

// TestTheNextRunIsTheSameAtEachReading since it is decided once.
func TestTheNextRunIsTheSameAtEachReading(t *testing.T) {
	m := newManager(t, &peer{}, nil)
	made := create(t, m, definition("a", work{"x", 0}, 24*time.Hour))
	if got := get(t, m, "a"); !got.NextRun.Equal(made.NextRun) {
		t.Errorf("next run at %v, and at %v when asked again", made.NextRun, got.NextRun)
	}
}
