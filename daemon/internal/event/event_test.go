package event

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func watch(t *testing.T, l *Log, o Options) *Watch {
	t.Helper()
	w, err := l.Watch(o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// told reads what a watch has to say now: a word each.
func told(t *testing.T, w *Watch) string {
	t.Helper()
	var words []string
	for {
		e, ok, err := w.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return strings.Join(words, " ")
		}
		words = append(words, fmt.Sprintf("%d:%s:%s:%v", e.Revision, [...]string{"", "created", "updated", "state", "deleted", "expired", "run", "existing", "synced"}[e.Type], e.Name, e.Subject))
	}
}

func TestAWatchBeginsWithWhatIsThere(t *testing.T) {
	l := New(Limits{Events: 16})
	l.Found(Event{Kind: Endpoint, Name: "old", Subject: 0})
	l.Append(Event{Type: Created, Kind: Endpoint, Name: "b", Subject: 1})
	l.Append(Event{Type: Created, Kind: Monitor, Name: "a", Subject: 2})
	l.Append(Event{Type: Created, Kind: Endpoint, Name: "gone", Subject: 3})
	l.Append(Event{Type: Expired, Kind: Endpoint, Name: "gone", Subject: 4})
	l.Append(Event{Type: Updated, Kind: Endpoint, Name: "b", Subject: 5})
	w, changes := watch(t, l, Options{}), watch(t, l, Options{ChangesOnly: true})
	defer w.Close()
	defer changes.Close()
	if w.Token() != "" || changes.Token() != "" {
		t.Error("there is a token before all was told")
	}
	l.Append(Event{Type: Deleted, Kind: Endpoint, Name: "b", Subject: 6}) // after the moment that is told
	if got, want := told(t, w), "5:existing:b:5 5:existing:old:0 5:existing:a:2 5:synced::<nil> 6:deleted:b:6"; got != want {
		t.Errorf("told %s, want %s", got, want)
	}
	if got, want := told(t, changes), "5:synced::<nil> 6:deleted:b:6"; got != want {
		t.Errorf("told %s, want %s", got, want)
	}
}

func TestAnEventKnowsWhatWasBefore(t *testing.T) {
	l := New(Limits{Events: 16})
	l.Found(Event{Kind: Endpoint, Name: "a", Subject: 1})
	w := watch(t, l, Options{ChangesOnly: true})
	defer w.Close()
	l.Append(Event{Type: Updated, Kind: Endpoint, Name: "a", Subject: 2})
	l.Append(Event{Type: Deleted, Kind: Endpoint, Name: "a", Subject: 3})
	l.Append(Event{Type: Created, Kind: Endpoint, Name: "a", Subject: 4})
	var before []any
	for {
		e, ok, err := w.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		before = append(before, e.Before)
	}
	if want := []any{nil, 1, 2, nil}; !slices.Equal(before, want) {
		t.Errorf("before: %v, want %v", before, want)
	}
}

func TestMoreTellsOfTheNextEvent(t *testing.T) {
	l := New(Limits{Events: 16})
	w := watch(t, l, Options{ChangesOnly: true})
	defer w.Close()
	<-w.More() // Synced
	told(t, w)
	more := w.More()
	select {
	case <-more:
		t.Error("there is more, but nothing happened")
	default:
	}
	l.Append(Event{Type: Created, Kind: Endpoint, Name: "a"})
	<-more
	<-w.More() // as long as it is not read
	if got := told(t, w); got != "1:created:a:<nil>" {
		t.Errorf("told %s", got)
	}
}

func TestTokens(t *testing.T) {
	l := New(Limits{Events: 4})
	w := watch(t, l, Options{Scope: "f", ChangesOnly: true})
	defer w.Close()
	told(t, w)
	token := w.Token()
	refused := func(what string, l *Log, o Options, want error) {
		t.Helper()
		if w, err := l.Watch(o); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
			if err == nil {
				w.Close()
			}
		}
	}
	for i := range token {
		other := byte('A')
		if token[i] == other {
			other = 'B'
		}
		refused("tampered with", l, Options{Scope: "f", Token: token[:i] + string(other) + token[i+1:]}, ErrBadToken)
		refused("cut", l, Options{Scope: "f", Token: token[:max(i, 1)]}, ErrBadToken)
	}
	refused("nonsense", l, Options{Scope: "f", Token: "!"}, ErrBadToken)
	refused("of another filter", l, Options{Scope: "g", Token: token}, ErrBadToken)
	refused("of another life", New(Limits{Events: 4}), Options{Scope: "f", Token: token}, ErrExpired)
	ahead := &Log{limits: l.limits, life: l.life, last: 7}
	refused("of the future", l, Options{Scope: "f", Token: (&Watch{log: ahead, scope: "f", at: 7, synced: true}).Token()}, ErrBadToken)

	for i := range 4 {
		l.Append(Event{Type: Created, Kind: Endpoint, Name: fmt.Sprint(i)})
	}
	resumed := watch(t, l, Options{Scope: "f", Token: token})
	defer resumed.Close()
	if got, want := told(t, resumed), "1:created:0:<nil> 2:created:1:<nil> 3:created:2:<nil> 4:created:3:<nil>"; got != want {
		t.Errorf("told %s, want %s", got, want)
	}
	l.Append(Event{Type: Created, Kind: Endpoint, Name: "4"})
	refused("too old", l, Options{Scope: "f", Token: token}, ErrExpired)
}

// TestASlowWatchHoldsUpNobody writes past watches that are not read: in the middle of what is there, and behind it.
func TestASlowWatchHoldsUpNobody(t *testing.T) {
	l := New(Limits{Events: 100})
	l.Append(Event{Type: Created, Kind: Endpoint, Name: "a"})
	l.Append(Event{Type: Created, Kind: Endpoint, Name: "b"})
	early, late := watch(t, l, Options{}), watch(t, l, Options{})
	defer early.Close()
	defer late.Close()
	if _, ok, err := early.Next(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	told(t, late)
	for range 101 {
		l.Append(Event{Type: Updated, Kind: Endpoint, Name: "a"})
	}
	for name, w := range map[string]*Watch{"early": early, "late": late} {
		<-w.More()
		if _, ok, err := w.Next(); ok || !errors.Is(err, ErrTooSlow) {
			t.Errorf("%s: %v, %v, want %v", name, ok, err, ErrTooSlow)
		}
	}
}

func TestTheLogIsBounded(t *testing.T) {
	l := New(Limits{Events: 1000, Bytes: 100, Watches: 1})
	w := watch(t, l, Options{ChangesOnly: true})
	if _, err := l.Watch(Options{}); !errors.Is(err, ErrTooMany) {
		t.Errorf("a second watch: %v, want %v", err, ErrTooMany)
	}
	told(t, w)
	token := w.Token()
	for range 50 {
		l.Append(Event{Type: Updated, Kind: Endpoint, Name: "a", Bytes: 10}) // each holds the one before it, too
	}
	if kept := l.last - l.first + 1; kept != 5 || l.bytes != 100 {
		t.Errorf("%d events with %d bytes are kept, want 5 with 100", kept, l.bytes)
	}
	l.Append(Event{Type: Updated, Kind: Endpoint, Name: "b", Bytes: 1000})
	if kept := l.last - l.first + 1; kept != 1 || l.bytes != 1000 {
		t.Errorf("%d events with %d bytes are kept, want 1 with 1000", kept, l.bytes)
	}
	for range 50 {
		l.Append(Event{Type: Deleted, Kind: Endpoint, Name: "c"})
	}
	if kept := l.last - l.first + 1; kept != 50 || l.bytes != 0 {
		t.Errorf("%d events with %d bytes are kept, want 50 with 0", kept, l.bytes)
	}
	w.Close()
	w.Close()
	if _, err := l.Watch(Options{Token: token}); !errors.Is(err, ErrExpired) {
		t.Errorf("resumed: %v, want %v", err, ErrExpired)
	}
	watch(t, l, Options{}).Close()
	if l.watches != 0 {
		t.Errorf("%d watches are counted, and none is open", l.watches)
	}
}

func TestANilLogTakesAll(t *testing.T) {
	var l *Log
	l.Found(Event{})
	if r := l.Append(Event{Type: Created}); r != 0 {
		t.Errorf("revision %d", r)
	}
}

// apply brings what a reader knows up to date.
func apply(known map[key]any, e Event) {
	switch e.Type {
	case Synced:
	case Deleted, Expired:
		delete(known, key{e.Kind, e.Name})
	default:
		known[key{e.Kind, e.Name}] = e.Subject
	}
}

// TestAgainstAModel writes, watches, reads, breaks and resumes at random, and knows at each step what must come: the plain
// model keeps everything that ever happened.
func TestAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const kept = 5
		l := New(Limits{Events: kept})
		var history []Event         // all of them; the event of revision r is at r-1
		states := []map[key]any{{}} // after each revision
		type reader struct {
			w       *Watch
			from    int // the revision that it began behind
			at      int // that it was told last
			synced  bool
			changes bool
			known   map[key]any
			token   string
		}
		var readers []*reader
		begin := func(changes bool) *reader {
			w, err := l.Watch(Options{ChangesOnly: changes})
			if err != nil {
				t.Fatal(err)
			}
			return &reader{w: w, from: len(history), at: len(history), changes: changes, known: map[key]any{}}
		}
		pick := func(t *rapid.T) *reader {
			if len(readers) == 0 {
				t.Skip("no reader")
			}
			return rapid.SampledFrom(readers).Draw(t, "reader")
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				e := Event{
					Kind: rapid.SampledFrom([]Kind{Endpoint, Probe}).Draw(t, "kind"), Name: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"),
					Type: rapid.SampledFrom([]Type{Created, Updated, StateChanged, Deleted, Expired}).Draw(t, "type"), Subject: len(history),
				}
				next := maps.Clone(states[len(history)])
				apply(next, e)
				history, states = append(history, e), append(states, next)
				if r := l.Append(e); r != uint64(len(history)) {
					t.Fatalf("revision %d, want %d", r, len(history))
				}
			},
			"begin": func(t *rapid.T) { readers = append(readers, begin(rapid.Bool().Draw(t, "changes only"))) },
			"read": func(t *rapid.T) {
				r := pick(t)
				for range rapid.IntRange(1, 8).Draw(t, "events") {
					buffered := len(r.w.batch) > 0
					e, ok, err := r.w.Next()
					lost := len(history)-r.at > kept && !buffered
					switch {
					case lost != errors.Is(err, ErrTooSlow) || err != nil && !lost:
						t.Fatalf("%v at %d of %d", err, r.at, len(history))
					case lost:
						again := begin(r.changes) // as one has to who was too slow
						r.w.Close()
						*r = *again
					case e.Type == Existing:
						if r.synced || r.changes || e.Revision != uint64(r.from) || states[r.from][key{e.Kind, e.Name}] != e.Subject || r.known[key{e.Kind, e.Name}] != nil {
							t.Fatalf("told of %+v, which is not there, or a second time", e)
						}
						apply(r.known, e)
					case e.Type == Synced:
						if r.synced || !r.changes && !maps.Equal(r.known, states[r.from]) {
							t.Fatalf("synced with %v, want %v", r.known, states[r.from])
						}
						r.synced = true
						r.known = maps.Clone(states[r.from])
					case ok:
						r.at++
						want := history[r.at-1]
						if e.Revision != uint64(r.at) || e.Kind != want.Kind || e.Name != want.Name || e.Type != want.Type || e.Subject != want.Subject ||
							e.Before != states[r.at-1][key{e.Kind, e.Name}] {
							t.Fatalf("told %+v, want event %d, %+v", e, r.at, want)
						}
						apply(r.known, e)
						if !maps.Equal(r.known, states[r.at]) {
							t.Fatalf("after %d the reader knows %v, want %v", r.at, r.known, states[r.at])
						}
					case r.at != len(history) || !r.synced:
						t.Fatalf("nothing more at %d of %d", r.at, len(history))
					}
					r.token = r.w.Token()
					if (r.token != "") != r.synced {
						t.Fatalf("token %q, synced: %v", r.token, r.synced)
					}
				}
			},
			"break and resume": func(t *rapid.T) {
				r := pick(t)
				if r.token == "" {
					t.Skip("no token yet")
				}
				r.w.Close()
				w, err := l.Watch(Options{Token: r.token})
				if lost := len(history)-r.at > kept; lost != errors.Is(err, ErrExpired) || err != nil && !lost {
					t.Fatalf("%v at %d of %d", err, r.at, len(history))
				}
				if err != nil {
					*r = *begin(r.changes)
					return
				}
				r.w = w
			},
			"leave": func(t *rapid.T) {
				r := pick(t)
				r.w.Close()
				readers = slices.DeleteFunc(readers, func(other *reader) bool { return other == r })
			},
			"": func(t *rapid.T) {
				if l.watches != len(readers) || l.last-l.first+1 != uint64(min(kept, len(history))) {
					t.Fatalf("%d watches of %d are counted, events %d to %d of %d kept", l.watches, len(readers), l.first, l.last, len(history))
				}
			},
		})
	})
}

// room is something that writes into the log, as the rooms of the daemon do: under the lock of what it changes.
type room struct {
	kind Kind
	mu   sync.Mutex
	has  map[string]int
}

func (r *room) change(l *Log, name string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, there := r.has[name]
	switch {
	case !there:
		r.has[name] = n
		l.Append(Event{Type: Created, Kind: r.kind, Name: name, Subject: n})
	case n%3 == 0:
		delete(r.has, name)
		l.Append(Event{Type: Deleted, Kind: r.kind, Name: name, Subject: n})
	default:
		r.has[name] = n
		l.Append(Event{Type: Updated, Kind: r.kind, Name: name, Subject: n})
	}
}

// TestReadersEndWithWhatTheRoomsHave lets many write at once, and readers begin at any time, break and go on, with a token
// or, when that is too old, anew. Each must end with exactly what is in the rooms.
func TestReadersEndWithWhatTheRoomsHave(t *testing.T) {
	const writers, changes, readers = 4, 3000, 6
	l := New(Limits{Events: 300})
	rooms := []*room{{kind: Endpoint, has: map[string]int{}}, {kind: Probe, has: map[string]int{}}}
	written := make(chan struct{})
	var writing, reading sync.WaitGroup
	for i := range writers {
		writing.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for range changes {
				rooms[random.IntN(len(rooms))].change(l, fmt.Sprint(random.IntN(20)), random.IntN(1000))
			}
		})
	}
	results := make([]map[key]any, readers)
	var resumed, anew [readers]int
	for i := range readers {
		reading.Go(func() {
			random := rand.New(rand.NewPCG(2, uint64(i)))
			var token string
			var last uint64
			for {
				w, err := l.Watch(Options{Token: token})
				if errors.Is(err, ErrExpired) {
					token = ""
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if token == "" {
					results[i], last = map[key]any{}, 0
					anew[i]++
				} else {
					resumed[i]++
				}
				ended := follow(t, w, results[i], &last, random.IntN(200), written)
				token = w.Token()
				w.Close()
				if ended {
					return
				}
			}
		})
	}
	writing.Wait()
	close(written)
	reading.Wait()
	want := map[key]any{}
	for _, r := range rooms {
		for name, n := range r.has {
			want[key{r.kind, name}] = n
		}
	}
	for i, got := range results {
		if !maps.Equal(got, want) {
			t.Errorf("reader %d ends with %v, want %v", i, got, want)
		}
	}
	t.Logf("resumed %v times, began anew %v times", resumed, anew)
}

// follow reads some events, or all until nothing is written any more; then it is at the end.
func follow(t *testing.T, w *Watch, known map[key]any, last *uint64, most int, written <-chan struct{}) (atEnd bool) {
	for range most {
		e, ok, err := w.Next()
		if errors.Is(err, ErrTooSlow) {
			w.synced = false // so that there is no token, and the reader begins anew
			return false
		}
		if err != nil {
			t.Error(err)
			return true
		}
		if ok {
			if e.Type != Existing && e.Type != Synced && *last != 0 && e.Revision != *last+1 {
				t.Errorf("event %d is told behind %d", e.Revision, *last)
			}
			*last = e.Revision
			apply(known, e)
			continue
		}
		select {
		case <-w.More():
		case <-written:
			// What was written before is there by now.
			select {
			case <-w.More():
			default:
				return true
			}
		}
	}
	return false
}

func TestATimeIsGiven(t *testing.T) {
	l := New(Limits{Events: 4})
	w := watch(t, l, Options{})
	defer w.Close()
	before := time.Now()
	l.Append(Event{Type: Created, Kind: Endpoint, Name: "a"})
	l.Append(Event{Type: Created, Kind: Endpoint, Name: "b", Time: before.Add(-time.Hour)})
	for _, check := range []func(time.Time) bool{
		func(at time.Time) bool { return !at.Before(before) }, // synced
		func(at time.Time) bool { return !at.Before(before) },
		func(at time.Time) bool { return at.Equal(before.Add(-time.Hour)) },
	} {
		if e, ok, err := w.Next(); !ok || err != nil || !check(e.Time) {
			t.Errorf("%+v, %v, %v", e, ok, err)
		}
	}
}
