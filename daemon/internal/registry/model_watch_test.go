package registry

import (
	"errors"
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/event/eventtest"
)

// modelKept is how many events the log of the model test keeps: as many as one call tells at most, a purge that drains, so that
// the witness misses none, and so few that a reader which does not read for some calls is too late.
var modelKept = 2 * len(modelNames)

// witness reads the log of events after each call, and keeps everything that was ever told.
type witness struct {
	log      *event.Log
	watch    *event.Watch
	history  []event.Event         // the event of revision r is at r-1
	states   []map[string]Endpoint // what a reader knows after each revision, by name
	expected map[string][]string   // what the last call has to tell of each endpoint, in order, "TYPE STATE"
	heard    map[string][]string   // what it told
}

func newWitness(t *rapid.T, log *event.Log) witness {
	w, err := log.Watch(event.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return witness{log: log, watch: w, states: []map[string]Endpoint{{}}, expected: map[string][]string{}, heard: map[string][]string{}}
}

// expect notes what a call has to tell that makes the model into next.
func (s *machine) expect(next model, drains, expires bool) {
	for _, name := range modelNames {
		before, was := s.m[name]
		after, is := next[name]
		state := map[bool]string{true: " serving", false: " stopped"}[is && after.serving]
		var told []string
		if is && !was {
			told = append(told, "created"+state)
		}
		if is && was && after.def.etag() != before.def.etag() {
			told = append(told, "updated"+state)
		}
		if before.serving && drains && (!is || !after.serving) {
			told = append(told, "state draining")
		}
		switch {
		case is && was && after.serving != before.serving:
			told = append(told, "state"+state)
		case was && !is && expires:
			told = append(told, "expired"+state)
		case was && !is:
			told = append(told, "deleted"+state)
		}
		if len(told) > 0 {
			s.expected[name] = told
		}
	}
}

// listen reads what was told, and holds each event against all that were told before.
func (s *machine) listen() {
	for {
		e, ok, err := s.watch.Next()
		switch {
		case err != nil:
			s.t.Fatal(err)
		case !ok:
			return
		case e.Type == event.Synced:
			continue
		}
		known := s.states[len(s.history)]
		before, was := known[e.Name]
		told, knows := e.Before.(Endpoint)
		if e.Revision != uint64(len(s.history)+1) || knows != was || was && !sameEndpoint(told, before) {
			s.t.Fatalf("told %+v as event %d, when it was %+v", e, len(s.history)+1, before)
		}
		next := maps.Clone(known)
		learn(next, e)
		s.history, s.states = append(s.history, e), append(s.states, next)
		now, _ := e.Subject.(Endpoint)
		s.heard[e.Name] = append(s.heard[e.Name], eventtest.Word(e.Type)+" "+stateWords[now.State])
	}
}

// await waits until an endpoint is gone, which is told.
func (s *machine) await(name string) {
	for {
		s.listen()
		if _, there := s.states[len(s.history)][name]; !there {
			return
		}
		select {
		case <-s.watch.More():
		case <-time.After(patience):
			s.t.Fatalf("%s is still there", name)
		}
	}
}

// checkTold holds what the last call told against what it had to, and what there is against what a reader knows who has read
// everything, and what one is told who begins now.
func (s *machine) checkTold(found []Endpoint) {
	s.listen()
	if !maps.EqualFunc(s.heard, s.expected, slices.Equal) {
		s.t.Fatalf("told %v, want %v", s.heard, s.expected)
	}
	clear(s.heard)
	clear(s.expected)
	s.isThere(found, s.states[len(s.history)])
	fresh := s.begin(false)
	defer fresh.watch.Close()
	s.readAll(fresh)
	s.isThere(found, fresh.known)
	for _, e := range found {
		if !fresh.known[e.Name].ExpireTime.Equal(e.ExpireTime) {
			s.t.Fatalf("%s expires at %v; who begins to watch is told %v", e.Name, e.ExpireTime, fresh.known[e.Name].ExpireTime)
		}
	}
}

// isThere compares what a reader knows with what the registry has.
func (s *machine) isThere(found []Endpoint, known map[string]Endpoint) {
	same := len(found) == len(known)
	for _, e := range found {
		k, ok := known[e.Name]
		same = same && ok && sameEndpoint(k, e)
	}
	if !same {
		s.t.Fatalf("a reader knows %+v, and there is %+v", known, found)
	}
}

// sameEndpoint compares all that events tell. That the time of one was renewed is none.
func sameEndpoint(a, b Endpoint) bool {
	return a.Name == b.Name && a.UID == b.UID && a.ETag == b.ETag && a.etag() == b.etag() && a.Address == b.Address && a.State == b.State &&
		a.Reason == b.Reason && a.CreateTime.Equal(b.CreateTime) && a.UpdateTime.Equal(b.UpdateTime)
}

// learn brings what a reader knows up to date.
func learn(known map[string]Endpoint, e event.Event) {
	switch now, ok := e.Subject.(Endpoint); {
	case e.Type == event.Deleted || e.Type == event.Expired:
		delete(known, e.Name)
	case ok:
		known[e.Name] = now
	}
}

// reader is a watch that may break, and go on or begin anew, as its client does: it knows what it was told, and no more.
type reader struct {
	watch   *event.Watch
	changes bool // it asked for changes only
	known   map[string]Endpoint
	token   string

	from   int // how many events there had been when it began; what follows is for the test alone
	at     int // how many of them it was told
	synced bool
}

func (s *machine) begin(changes bool) *reader {
	w, err := s.log.Watch(event.Options{ChangesOnly: changes})
	if err != nil {
		s.t.Fatal(err)
	}
	return &reader{watch: w, changes: changes, known: map[string]Endpoint{}, from: len(s.history), at: len(s.history)}
}

// readOne has a reader read what comes next; more is false when nothing does. One that is too slow begins anew.
func (s *machine) readOne(r *reader) (more bool) {
	e, ok, err := r.watch.Next()
	now, _ := e.Subject.(Endpoint)
	switch {
	case err != nil:
		// What it has taken out of the log by then it still reads, so that being late need not be too late.
		if !errors.Is(err, event.ErrTooSlow) || len(s.history)-r.at <= modelKept {
			s.t.Fatalf("%v at %d of %d", err, r.at, len(s.history))
		}
		r.watch.Close()
		*r = *s.begin(r.changes)
		return true
	case !ok:
		if !r.synced || r.at != len(s.history) {
			s.t.Fatalf("nothing more at %d of %d", r.at, len(s.history))
		}
		return false
	case e.Type == event.Existing:
		_, again := r.known[e.Name]
		if r.synced || r.changes || again || e.Revision != uint64(r.from) || !sameEndpoint(now, s.states[r.from][e.Name]) {
			s.t.Fatalf("told of %+v, which was not there, or a second time", e)
		}
		learn(r.known, e)
	case e.Type == event.Synced:
		if r.synced || e.Revision != uint64(r.from) {
			s.t.Fatalf("synced a second time, or at %d, not %d", e.Revision, r.from)
		}
		if r.changes {
			r.known = maps.Clone(s.states[r.from]) // it knows that from elsewhere
		}
		r.synced = true
	default:
		r.at++
		want := s.history[r.at-1]
		told, _ := want.Subject.(Endpoint)
		if !r.synced || e.Revision != uint64(r.at) || e.Type != want.Type || e.Name != want.Name || !sameEndpoint(now, told) {
			s.t.Fatalf("told %+v, want event %d, %+v", e, r.at, want)
		}
		learn(r.known, e)
	}
	r.token = r.watch.Token()
	if r.synced && !maps.EqualFunc(r.known, s.states[r.at], sameEndpoint) {
		s.t.Fatalf("after event %d a reader knows %+v, want %+v", r.at, r.known, s.states[r.at])
	}
	return true
}

func (s *machine) readAll(r *reader) {
	for s.readOne(r) {
	}
}

func (s *machine) anyReader() *reader {
	if len(s.readers) == 0 {
		s.t.Skip("nobody reads")
	}
	return rapid.SampledFrom(s.readers).Draw(s.t, "reader")
}

func (s *machine) Watch(*rapid.T) {
	s.readers = append(s.readers, s.begin(rapid.IntRange(0, 3).Draw(s.t, "changes only at 0") == 0))
}

func (s *machine) Read(*rapid.T) {
	r := s.anyReader()
	for range rapid.IntRange(1, 3).Draw(s.t, "events") {
		if !s.readOne(r) {
			return
		}
	}
}

func (s *machine) CatchUp(*rapid.T) {
	r := s.anyReader()
	s.readAll(r)
	found, _ := s.r.List("", 100, nil)
	s.isThere(found, r.known)
}

// BreakAndResume has a reader go on by its token, or anew when that is too old or there is none.
func (s *machine) BreakAndResume(*rapid.T) {
	r := s.anyReader()
	r.watch.Close()
	if r.token == "" {
		*r = *s.begin(r.changes)
		return
	}
	w, err := s.log.Watch(event.Options{Token: r.token})
	if late := len(s.history)-r.at > modelKept; late != errors.Is(err, event.ErrExpired) || err != nil && !late {
		s.t.Fatalf("%v at %d of %d", err, r.at, len(s.history))
	}
	if err != nil {
		*r = *s.begin(r.changes)
		return
	}
	r.watch = w
}

func (s *machine) Leave(*rapid.T) {
	r := s.anyReader()
	r.watch.Close()
	s.readers = slices.DeleteFunc(s.readers, func(other *reader) bool { return other == r })
}
