package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/event/eventtest"
	"github.com/echod/echod/daemon/internal/netwatch"
)

// keepServing puts the record of an endpoint into a store that is to serve after a start.
func keepServing(t *testing.T, store *memory, def Definition, address string) {
	t.Helper()
	def.Protocol = echo.TCP
	rec := record{Definition: def, UID: "uid-" + def.Name, Running: true, CreateTime: time.Now()}
	if address != "" {
		rec.Address = netip.MustParseAddrPort(address)
	}
	value, err := json.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	store.records[def.Name] = value
}

// nowhere is a definition of an endpoint whose network namespace is not there.
func nowhere(name string) Definition {
	return Definition{Name: name, Listen: "127.0.0.1:0", NetworkNamespace: "nowhere-" + name}
}

// lookingBy has a test stand in for looks at network namespaces: those of a test are not there, or do not answer.
func lookingBy(r *Registry, look func(footing) (netwatch.Sight, error)) { r.looks.look = look }

// withoutRetries has a registry retry nothing by itself.
func withoutRetries(r *Registry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heals.patience = func(int, error) time.Duration { return time.Hour }
	for _, e := range r.entries {
		if e.state == Failed {
			r.retryLocked(e, time.Now().Add(time.Hour))
		}
	}
}

// The engine of synctest's tests is the portable one, which has no goroutines as long as nothing is bound.

// TestRetries has an endpoint fail on and on, and sees when it is tried again, and that this is told.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{records: map[string][]byte{}}
		keepServing(t, store, nowhere("a"), "127.0.0.1:7")
		keepStopped(t, store, Definition{Name: "off"}, time.Time{})
		log := event.New(event.Limits{Events: 64})
		r := New(Config{Engine: echo.New(echo.Options{Portable: true}), Store: store, Events: log})
		defer r.Close(ended())
		var mu sync.Mutex
		var all []time.Time
		lookingBy(r, func(footing) (netwatch.Sight, error) {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, time.Now())
			return netwatch.Sight{}, errDisk
		})
		tried := func() []time.Time {
			mu.Lock()
			defer mu.Unlock()
			return all[1:] // at first all are looked at before they are bound
		}
		if err := r.Restore(context.Background()); err != nil {
			t.Fatal(err)
		}
		w, err := log.Watch(event.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		wantTold(t, w, "existing a failed", "existing off stopped")
		longest := time.Second
		for n := 1; n <= 10; n++ {
			now := mustGet(t, r, "a")
			if wait := now.RetryTime.Sub(tried()[len(tried())-1]); len(tried()) != n || now.State != Failed || wait > longest || wait < longest*4/5 {
				t.Fatalf("after %d tries it is %v, and tried again in %v, want up to %v", len(tried()), now.State, wait, longest)
			}
			pass(time.Until(now.RetryTime) - 1)
			if len(tried()) != n {
				t.Fatalf("it was tried early, for the %d. time", len(tried()))
			}
			if pass(1); len(tried()) != n+1 {
				t.Fatalf("it was not tried, but %d times", len(tried()))
			}
			longest = min(2*longest, time.Minute)
		}
		// The reason has not changed, which is no event; who looks now knows when it is tried again.
		wantTold(t, w)
		later, err := log.Watch(event.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer later.Close()
		if s, _ := eventtest.Told(t, later)[0].Subject.(Endpoint); !s.RetryTime.Equal(mustGet(t, r, "a").RetryTime) {
			t.Errorf("told that it is tried again at %v", s.RetryTime)
		}
		if !mustGet(t, r, "off").RetryTime.IsZero() {
			t.Error("what is stopped is to be tried")
		}
		// Stopped, it is not tried any more.
		if _, err := r.Stop(context.Background(), "a", 0); err != nil {
			t.Fatal(err)
		}
		before := len(tried())
		pass(time.Hour)
		if now := mustGet(t, r, "a"); len(tried()) != before || now.State != Stopped || !now.RetryTime.IsZero() || len(r.heals.queue) != 0 {
			t.Errorf("it was tried %d times when it was stopped; %+v", len(tried())-before, now)
		}
	})
}

// TestWhatEndsRetries: a delete, an expiry, the end of a session and a Close do; an update has it tried at once.
func TestWhatEndsRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{records: map[string][]byte{}}
		for _, name := range []string{"deleted", "purged", "closed", "updated"} {
			keepServing(t, store, nowhere(name), "127.0.0.1:7")
		}
		expires := nowhere("expires")
		expires.TTL = 10 * time.Second
		keepServing(t, store, expires, "127.0.0.1:7")
		r := New(Config{Engine: echo.New(echo.Options{Portable: true}), Store: store})
		var mu sync.Mutex
		tried := map[string]int{}
		lookingBy(r, func(f footing) (netwatch.Sight, error) {
			mu.Lock()
			defer mu.Unlock()
			tried[strings.TrimPrefix(string(f.namespace), "nowhere-")]++
			return netwatch.Sight{}, errDisk
		})
		ctx := context.Background()
		if err := r.Restore(ctx); err != nil {
			t.Fatal(err)
		}
		if err := r.Delete(ctx, "deleted", "", 0); err != nil {
			t.Error(err)
		}
		if _, err := r.Purge(ctx, func(e *Endpoint) bool { return e.Name == "purged" }, 0); err != nil {
			t.Error(err)
		}
		pass(time.Minute)
		if tried["deleted"] != 2 || tried["purged"] != 2 { // at the start
			t.Errorf("tried %v", tried)
		}
		if r.has("expires") || tried["expires"] > 7 {
			t.Errorf("what has expired was tried %d times", tried["expires"])
		}
		before := tried["updated"]
		if _, err := r.Update(ctx, "updated", UpdateOptions{}, func(d Definition) (Definition, error) { d.Listen = ":0"; return d, nil }); err != nil {
			t.Fatal(err)
		}
		if pass(healPause); tried["updated"] != before+1 {
			t.Errorf("tried %d times more after an update", tried["updated"]-before)
		}
		if err := r.Close(ended()); err != nil {
			t.Error(err)
		}
		before = tried["closed"]
		if pass(time.Hour); tried["closed"] != before {
			t.Error("it is tried when the daemon stops")
		}
	})
}

// TestFewRetriesAtATime has many fail that are slow to, one that is being changed, and a Close in the middle.
func TestFewRetriesAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{records: map[string][]byte{}}
		for i := range 100 {
			keepServing(t, store, nowhere(fmt.Sprint("e", i)), "127.0.0.1:7")
		}
		r := New(Config{Engine: echo.New(echo.Options{Portable: true}), Store: store})
		var under, most, all atomic.Int64
		slow := func(footing) (netwatch.Sight, error) {
			n := under.Add(1)
			defer under.Add(-1)
			all.Add(1)
			for was := most.Load(); n > was && !most.CompareAndSwap(was, n); was = most.Load() {
			}
			time.Sleep(300 * time.Millisecond)
			return netwatch.Sight{}, errDisk
		}
		lookingBy(r, func(footing) (netwatch.Sight, error) { return netwatch.Sight{}, errDisk })
		if err := r.Restore(context.Background()); err != nil {
			t.Fatal(err)
		}
		lookingBy(r, slow)
		busy, err := r.take(context.Background(), "e7")
		if err != nil {
			t.Fatal(err)
		}
		pass(4 * time.Second)
		if most.Load() != healWorkers || all.Load() < 99 {
			t.Errorf("%d were tried, %d at the same time", all.Load(), most.Load())
		}
		if now := mustGet(t, r, "e7"); time.Until(now.RetryTime) > healPause {
			t.Errorf("what somebody changes is tried at %v", now.RetryTime)
		}
		busy.release()
		pass(time.Second)
		if now := mustGet(t, r, "e7"); time.Until(now.RetryTime) < healPause {
			t.Errorf("what nobody changes any more is tried at %v", now.RetryTime)
		}
		for under.Load() == 0 {
			pass(10 * time.Millisecond)
		}
		if err := r.Close(ended()); err != nil || under.Load() > 0 {
			t.Errorf("closed while %d are under way, %v", under.Load(), err)
		}
	})
}

// TestAStartWaitsForNoNamespace has more namespaces not answer than are waited for: that takes lookPatience, once.
func TestAStartWaitsForNoNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{records: map[string][]byte{}}
		const n = maxLooks + 100
		for i := range n {
			keepServing(t, store, nowhere(fmt.Sprint("e", i)), "127.0.0.1:7")
			same := nowhere(fmt.Sprint("e", i))
			same.Name = fmt.Sprint("same", i)
			keepServing(t, store, same, "127.0.0.1:8")
		}
		r := New(Config{Engine: echo.New(echo.Options{Portable: true}), Store: store})
		answer := make(chan struct{})
		lookingBy(r, func(footing) (netwatch.Sight, error) { <-answer; return netwatch.Sight{}, errDisk })
		begun := time.Now()
		if err := r.Restore(context.Background()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != lookPatience {
			t.Errorf("the start took %v", took)
		}
		found, _ := r.List("", 1000, nil)
		for _, e := range found {
			if e.State != Failed || !strings.HasSuffix(e.Reason, "still trying") || !strings.Contains(e.Reason, e.NetworkNamespace) || len(found) != 2*n {
				t.Fatalf("%d endpoints, %s: %+v", len(found), e.Name, e)
			}
		}
		// Nor does a call wait for long, or a caller that has no time.
		if _, err := r.Start(context.Background(), "e0"); !errors.Is(err, ErrNamespaceNotAvailable) {
			t.Errorf("a start by hand: %v", err)
		}
		hurried, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := r.Create(hurried, Definition{Name: "new", Protocol: echo.TCP, NetworkNamespace: "nowhere-new"}, false); err == nil {
			t.Error("created")
		}
		pass(time.Minute)
		close(answer)
		pass(2 * time.Minute)
		if now := mustGet(t, r, "e0"); now.State != Failed || !strings.Contains(now.Reason, "there is no network namespace") {
			t.Errorf("when they answer: %+v", now)
		}
		if err := r.Close(ended()); err != nil {
			t.Error(err)
		}
	})
}

// TestAPortThatIsFreeAgain heals with real sockets: at the same port, also where that was any.
func TestAPortThatIsFreeAgain(t *testing.T) {
	store := &memory{records: map[string][]byte{}}
	thief, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	given := tcp("given")
	given.Listen = "127.0.0.1:0"
	keepServing(t, store, given, thief.Addr().String())
	other := tcp("other")
	other.Listen = "127.0.0.1:0"
	keepServing(t, store, other, "")
	kept := store.get("given")
	r, w := watched(t, store, echo.New(echo.Options{}))
	wantTold(t, w, "existing given failed", "existing other serving")
	want := "cannot bind " + thief.Addr().String() + ": address already in use"
	now := mustGet(t, r, "given")
	if now.Reason != want || now.RetryTime.IsZero() || time.Until(now.RetryTime) > time.Second {
		t.Errorf("%+v, want %s", now, want)
	}
	if _, err := r.Start(context.Background(), "given"); !errors.Is(err, echo.ErrAddressInUse) || mustGet(t, r, "given").State != Failed {
		t.Errorf("a start by hand while the port is taken: %v", err)
	}
	thief.Close()
	soon(t, "it serves again", func() bool { return mustGet(t, r, "given").State == Serving })
	wantTold(t, w, "state given serving")
	now = mustGet(t, r, "given")
	if now.Address.String() != thief.Addr().String() || now.Reason != "" || !now.RetryTime.IsZero() {
		t.Errorf("%+v", now)
	}
	if string(store.get("given")) != string(kept) {
		t.Errorf("kept as %s, was %s", store.get("given"), kept)
	}
	if err := connect(t, now).echo(); err != nil {
		t.Error(err)
	}
}

// TestABusyPortIsTriedOften: nobody tells when it is free.
func TestABusyPortIsTriedOften(t *testing.T) {
	inUse := fmt.Errorf("cannot bind it: %w", echo.ErrAddressInUse)
	for failed, longest := range []time.Duration{1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 4: 5 * time.Second, 100: 5 * time.Second} {
		if longest == 0 {
			continue
		}
		for range 100 {
			if got := healPatience(failed, inUse); got > longest || got < longest*4/5 {
				t.Errorf("after %d failures it waits %v, want up to %v", failed, got, longest)
			}
		}
	}
	if got := healPatience(100, errDisk); got < 48*time.Second || got > time.Minute {
		t.Errorf("after many failures it waits %v", got)
	}
}

// TestWhatTheEngineGaveUp comes back with what it had counted.
func TestWhatTheEngineGaveUp(t *testing.T) {
	r, w := watched(t, &memory{records: map[string][]byte{}}, echo.New(echo.Options{}))
	made := mustCreate(t, r, tcp("a"))
	if err := connect(t, made).echo(); err != nil {
		t.Fatal(err)
	}
	counted := mustGet(t, r, "a").Stats.BytesIn
	e := r.entries["a"]
	live := e.live
	_ = live.Close(ended())
	r.failed(e, live, net.ErrClosed)
	if now := mustGet(t, r, "a"); now.State != Failed || now.RetryTime.IsZero() {
		t.Errorf("%+v", now)
	}
	soon(t, "it serves again", func() bool { return mustGet(t, r, "a").State == Serving })
	wantTold(t, w, "created a serving", "state a failed", "state a serving")
	now := mustGet(t, r, "a")
	if now.Address != made.Address || now.Stats.BytesIn != counted || counted == 0 {
		t.Errorf("%+v; it had counted %d bytes", now, counted)
	}
	if err := connect(t, now).echo(); err != nil {
		t.Error(err)
	}
}

// slowLog is who reads the log and does not go on until the registry was asked something, whatever is told.
type slowLog struct {
	slog.Handler
	registry atomic.Pointer[Registry]
	told     atomic.Int32
}

func (s *slowLog) Enabled(context.Context, slog.Level) bool { return true }

func (s *slowLog) Handle(_ context.Context, r slog.Record) error {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		s.registry.Load().Len()
	}()
	select {
	case <-answered:
		s.told.Add(1)
		return nil
	case <-time.After(30 * time.Second):
		return fmt.Errorf("the registry does not answer while %q is written", r.Message)
	}
}

// TestNobodyWaitsForTheLog: it may be a pipe whose reader hangs, or a disk. So the registry answers while it is written to.
func TestNobodyWaitsForTheLog(t *testing.T) {
	store := &memory{records: map[string][]byte{}}
	taken := occupy(t)
	stuck := tcp("stuck")
	stuck.Listen = taken
	keepServing(t, store, stuck, taken)
	keepServing(t, store, nowhere("lost"), "127.0.0.1:7")
	handler := &slowLog{}
	r := New(Config{Engine: echo.New(echo.Options{}), Store: store, Log: slog.New(handler)})
	defer r.Close(ended())
	handler.registry.Store(r)
	told := func(want int32, what string) {
		t.Helper()
		soon(t, what, func() bool { return handler.told.Load() >= want })
	}
	if err := r.Restore(context.Background()); err != nil {
		t.Fatal(err)
	}
	told(2, "what cannot be brought back")
	withoutRetries(r)
	lookingBy(r, func(footing) (netwatch.Sight, error) { return netwatch.Sight{}, errNoAnswer("it does not answer") })
	r.heal(r.look("lost"))
	told(3, "another reason")

	mustCreate(t, r, tcp("given-up"))
	e := r.look("given-up")
	_ = e.live.Close(ended())
	r.failed(e, e.live, net.ErrClosed)
	told(4, "what the engine gave up")
	r.heal(e)
	told(5, "that it serves again")
	was := netwatch.Sight{Indexes: [2]uint32{7, 0}}
	r.mu.Lock()
	e.seen = was
	r.mu.Unlock()
	r.compare(context.Background(), footing{interfaces: [2]string{"d0", ""}}, standing{e, was}, netwatch.Sight{})
	told(6, "what has lost its interface")
	r.postpone(errDisk, []*entry{e})
	told(7, "what the store does not let go")
}

// TestAnUpdateOfWhatFailed may change all of it, and has it tried at once where it is to be.
func TestAnUpdateOfWhatFailed(t *testing.T) {
	store := &memory{records: map[string][]byte{}}
	taken := occupy(t)
	def := tcp("a")
	def.Listen = taken
	keepServing(t, store, def, taken)
	r, w := watched(t, store, echo.New(echo.Options{}))
	changed, err := r.Update(context.Background(), "a", UpdateOptions{}, func(d Definition) (Definition, error) { d.Listen = "127.0.0.1:0"; return d, nil })
	if err != nil || changed.State != Failed || changed.Address.IsValid() {
		t.Fatalf("%+v, %v", changed, err)
	}
	soon(t, "it serves where it may", func() bool { return mustGet(t, r, "a").State == Serving })
	wantTold(t, w, "existing a failed", "updated a failed", "state a serving")
	var kept record
	if now := mustGet(t, r, "a"); json.Unmarshal(store.get("a"), &kept) != nil || !kept.Running || kept.Address != now.Address {
		t.Errorf("kept as %+v, is %+v", kept, now)
	}
}

// TestAnotherReasonIsNews: whoever watches knows why.
func TestAnotherReasonIsNews(t *testing.T) {
	store := &memory{records: map[string][]byte{}}
	keepServing(t, store, nowhere("a"), "127.0.0.1:7")
	r, w := watched(t, store, echo.New(echo.Options{}))
	withoutRetries(r)
	wantTold(t, w, "existing a failed")
	lookingBy(r, func(footing) (netwatch.Sight, error) { return netwatch.Sight{}, errNoAnswer("it does not answer") })
	r.heal(r.entries["a"])
	wantTold(t, w, "state a failed")
	r.heal(r.entries["a"])
	wantTold(t, w)
	if reason := mustGet(t, r, "a").Reason; !strings.HasSuffix(reason, "it does not answer") {
		t.Error(reason)
	}
}

// TestAnApplyLeavesWhatFailed: what is as described and cannot be bound keeps nothing else from being done; what is to be
// another does.
func TestAnApplyLeavesWhatFailed(t *testing.T) {
	store := &memory{records: map[string][]byte{}}
	taken := occupy(t)
	stuck := tcp("stuck")
	stuck.Listen = taken
	keepServing(t, store, stuck, taken)
	r, w := watched(t, store, echo.New(echo.Options{}))
	withoutRetries(r)
	ctx := context.Background()
	wantTold(t, w, "existing stuck failed")
	mustApply(t, r, want(stuck, tcp("new")), ApplyOptions{}, "=stuck +new")
	wantTold(t, w, "created new serving")
	changes, err := r.Apply(ctx, want(stuck, tcp("new")), ApplyOptions{})
	if err != nil || done(changes) != "=stuck =new" || !errors.Is(changes[0].Failure, echo.ErrAddressInUse) || changes[1].Failure != nil {
		t.Errorf("%+v, %v", changes, err)
	}
	wantTold(t, w)
	if now := mustGet(t, r, "stuck"); now.State != Failed || now.RetryTime.IsZero() || !strings.Contains(now.Reason, "in use") {
		t.Errorf("%+v", now)
	}
	leased := stuck
	leased.TTL = time.Hour
	if _, err := r.Apply(ctx, want(leased, tcp("other")), ApplyOptions{}); err == nil || !strings.Contains(err.Error(), "already in use") || r.has("other") {
		t.Errorf("a changed one that cannot be bound: %v", err)
	}
	// A change that fails for another reason leaves it as it was.
	store.setFail(true)
	if _, err := r.Apply(ctx, want(stuck, tcp("other")), ApplyOptions{}); !errors.Is(err, ErrNotStored) || r.has("other") {
		t.Errorf("a store that refuses: %v", err)
	}
	store.setFail(false)
	if now := mustGet(t, r, "stuck"); now.State != Failed {
		t.Errorf("%+v", now)
	}
	mustApply(t, r, want(tcp("new")), ApplyOptions{Prune: everything}, "=new -stuck")
	wantTold(t, w, "deleted stuck stopped")
}

// TestWhatDrainsIsNotRenewed: it would have to wait for up to an hour.
func TestWhatDrainsIsNotRenewed(t *testing.T) {
	r := newRegistry(t, nil)
	ctx := context.Background()
	for _, name := range []string{"a", "b"} {
		def := tcp(name)
		def.TTL = time.Hour
		mustCreate(t, r, def)
	}
	c := connect(t, mustGet(t, r, "a"))
	stopped := make(chan error, 1)
	go func() { _, err := r.Stop(ctx, "a", time.Hour); stopped <- err }()
	soon(t, "a drains", func() bool { return mustGet(t, r, "a").State == Draining })
	if _, err := r.Renew(ctx, "a", 0); !errors.Is(err, ErrDraining) || !strings.Contains(err.Error(), `"a" drains`) {
		t.Errorf("renewed while it drains: %v", err)
	}
	if names, err := r.RenewAll(ctx, nil, 0); err != nil || !slices.Equal(names, []string{"b"}) {
		t.Errorf("renewed %q, %v", names, err)
	}
	c.Close()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if e, err := r.Renew(ctx, "a", 0); err != nil || e.State != Stopped {
		t.Errorf("renewed when it is stopped: %+v, %v", e, err)
	}
}
