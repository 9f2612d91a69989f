package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
)

// keepStopped puts the record of a stopped endpoint into a store: it has no socket, whose poller synctest could not wait for.
func keepStopped(t *testing.T, store *memory, def Definition, expires time.Time) {
	t.Helper()
	def.Protocol, def.Listen = echo.TCP, "127.0.0.1:0"
	value, err := json.Marshal(record{Definition: def, UID: "uid-" + def.Name, CreateTime: time.Now(), ExpireTime: expires})
	if err != nil {
		t.Fatal(err)
	}
	store.records[def.Name] = value
}

// restored is a registry with what the store holds.
func restored(t *testing.T, c Config) *Registry {
	t.Helper()
	c.Engine = echo.New(echo.Options{})
	r := New(c)
	if err := r.Restore(context.Background()); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *Registry) has(name string) bool {
	_, err := r.Get(name)
	return err == nil
}

// pass lets time pass, and all that is due then be done.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func withTTL(name string, ttl time.Duration) Definition { return Definition{Name: name, TTL: ttl} }

func TestAnEndpointExpiresExactlyAtItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{records: map[string][]byte{}}
		start := time.Now()
		for _, name := range []string{"a", "b", "c", "renewed", "changed", "freed", "described"} {
			keepStopped(t, store, withTTL(name, 10*time.Second), start.Add(10*time.Second))
		}
		keepStopped(t, store, withTTL("ever", 0), time.Time{})
		r := restored(t, Config{Store: store})
		defer r.Close(ended())
		ctx := context.Background()

		pass(4 * time.Second)
		before, _ := r.Get("renewed")
		renewed, err := r.Renew(ctx, "renewed", 0)
		if err != nil || !renewed.ExpireTime.Equal(start.Add(14*time.Second)) || renewed.ETag != before.ETag || !renewed.UpdateTime.Equal(before.UpdateTime) {
			t.Errorf("renewed: %+v, %v; was %+v", renewed, err, before)
		}
		set := func(name string, change func(*Definition)) Endpoint {
			e, err := r.Update(ctx, name, UpdateOptions{}, func(d Definition) (Definition, error) { change(&d); return d, nil })
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
		if e := set("changed", func(d *Definition) { d.TTL = 2 * time.Second }); !e.ExpireTime.Equal(start.Add(6 * time.Second)) {
			t.Errorf("with another ttl it expires at %v", e.ExpireTime)
		}
		if e := set("freed", func(d *Definition) { d.TTL = 0 }); !e.ExpireTime.IsZero() {
			t.Errorf("without a ttl it expires at %v", e.ExpireTime)
		}
		if e := set("described", func(d *Definition) { d.Description = "x" }); !e.ExpireTime.Equal(start.Add(10 * time.Second)) {
			t.Errorf("with another description it expires at %v", e.ExpireTime)
		}

		there := func(at time.Duration, want ...string) {
			t.Helper()
			pass(time.Until(start.Add(at)))
			list, _ := r.List("", 100, nil)
			var names []string
			for _, e := range list {
				names = append(names, e.Name)
			}
			if !slices.Equal(names, want) {
				t.Errorf("after %v there are %q, want %q", at, names, want)
			}
			if kept := store.keys(); !slices.Equal(kept, want) {
				t.Errorf("after %v the store has %q, want %q", at, kept, want)
			}
		}
		there(6*time.Second-1, "a", "b", "c", "changed", "described", "ever", "freed", "renewed")
		there(6*time.Second, "a", "b", "c", "described", "ever", "freed", "renewed")
		there(9*time.Second+999_999_999, "a", "b", "c", "described", "ever", "freed", "renewed")
		there(10*time.Second, "ever", "freed", "renewed")
		there(14*time.Second-1, "ever", "freed", "renewed")
		there(14*time.Second, "ever", "freed")
		if _, err := r.Renew(ctx, "renewed", 0); !errors.Is(err, ErrNotFound) {
			t.Errorf("renewed when it was over: %v", err)
		}
		if _, err := r.Renew(ctx, "ever", 0); !errors.Is(err, ErrNoTTL) {
			t.Errorf("renewed without a ttl: %v", err)
		}
		// A ttl that is given is its ttl from then on.
		if e, err := r.Renew(ctx, "ever", time.Second); err != nil || e.TTL != time.Second {
			t.Errorf("%+v, %v", e, err)
		}
		there(15*time.Second-1, "ever", "freed")
		there(15*time.Second, "freed")
	})
}

func TestTimeWhileTheDaemonWasDownCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{records: map[string][]byte{}}
		start := time.Now()
		for name, left := range map[string]time.Duration{"over": -time.Hour, "soon": 2 * time.Second, "later": 20 * time.Second, "set-back": time.Hour} {
			keepStopped(t, store, withTTL(name, time.Minute), start.Add(left))
		}
		r := restored(t, Config{Store: store})
		defer r.Close(ended())
		for name, lives := range map[string]time.Duration{
			"over": 5 * time.Second, "soon": 5 * time.Second, "later": 20 * time.Second, "set-back": time.Minute,
		} {
			if e, err := r.Get(name); err != nil || !e.ExpireTime.Equal(start.Add(lives)) {
				t.Errorf("%s expires after %v, want %v: %v", name, e.ExpireTime.Sub(start), lives, err)
			}
		}
		pass(5*time.Second - 1)
		if _, err := r.Renew(context.Background(), "over", 0); err != nil {
			t.Error(err)
		}
		if pass(1); !r.has("over") || r.has("soon") || !r.has("later") {
			t.Errorf("after 5 s: over %v, soon %v, later %v", r.has("over"), r.has("soon"), r.has("later"))
		}
		if pass(15 * time.Second); r.has("later") {
			t.Error("what had 20 s left is there after 20 s")
		}
	})
}

// TestARenewalAfterAStartShortensNothing renews what a start has given more time than its ttl, in each way: it lives as long as its
// owner was promised.
func TestARenewalAfterAStartShortensNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{records: map[string][]byte{}}
		start := time.Now()
		names := []string{"applied", "described", "one", "several", "shorter", "updated"}
		for _, name := range names {
			keepStopped(t, store, withTTL(name, 3*time.Second), start)
		}
		r := restored(t, Config{Store: store})
		defer r.Close(ended())
		ctx := context.Background()
		pass(1200 * time.Millisecond)

		_, one := r.Renew(ctx, "one", 0)
		_, shorter := r.Renew(ctx, "shorter", time.Second)
		_, several := r.RenewAll(ctx, func(e *Endpoint) bool { return e.Name == "several" }, 0)
		_, updated := r.Update(ctx, "updated", UpdateOptions{}, func(d Definition) (Definition, error) { d.TTL = 2 * time.Second; return d, nil })
		_, applied := r.Apply(ctx, []Wanted{
			wantedWith("applied", func(d *Definition) { d.TTL = 3 * time.Second }),
			wantedWith("described", func(d *Definition) { d.TTL, d.Description = 3*time.Second, "x" }),
		}, ApplyOptions{})
		if err := errors.Join(one, shorter, several, updated, applied); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			var rec record
			if err := json.Unmarshal(store.get(name), &rec); err != nil || !rec.ExpireTime.Equal(start.Add(afterStart)) {
				t.Errorf("%s: the record has %v, %v", name, rec.ExpireTime.Sub(start), err)
			}
			if e, err := r.Get(name); err != nil || !e.ExpireTime.Equal(start.Add(afterStart)) {
				t.Errorf("%s expires %v after the start: %v", name, e.ExpireTime.Sub(start), err)
			}
		}
		pass(time.Until(start.Add(afterStart - 1)))
		if e, err := r.Renew(ctx, "one", 0); err != nil || !e.ExpireTime.Equal(start.Add(afterStart-1+3*time.Second)) {
			t.Errorf("renewed for longer than that it expires %v after the start: %v", e.ExpireTime.Sub(start), err)
		}
		if there := r.Len(); there != len(names) {
			t.Errorf("%d are there", there)
		}
		if pass(1); r.Len() != 1 {
			t.Errorf("%d are there after that", r.Len())
		}
	})
}

// TestNothingExpiresWhileTheDaemonStops has the time of an endpoint end after the registry was closed: the next start decides.
func TestNothingExpiresWhileTheDaemonStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{records: map[string][]byte{}}
		keepStopped(t, store, withTTL("a", time.Minute), time.Now().Add(time.Minute))
		r := restored(t, Config{Store: store})
		if err := r.Close(ended()); err != nil {
			t.Error(err)
		}
		if pass(time.Hour); !r.has("a") || len(store.keys()) != 1 {
			t.Error("it is gone")
		}
	})
}

func TestWhatTheStoreDoesNotLetGoIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{records: map[string][]byte{}}
		keepStopped(t, store, withTTL("a", 10*time.Second), time.Now().Add(10*time.Second))
		keepStopped(t, store, withTTL("b", 10*time.Second), time.Now().Add(10*time.Second))
		var log bytes.Buffer
		r := restored(t, Config{Store: store, Log: slog.New(slog.NewTextHandler(&log, nil))})
		defer r.Close(ended())
		store.setFail(true)
		pass((10 + 1 + 2) * time.Second) // tried three times, and again in 4 s
		if !r.has("a") || !r.has("b") || strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), "endpoints=2") {
			t.Errorf("a %v, b %v; the log is\n%s", r.has("a"), r.has("b"), &log)
		}
		// Until then it can be renewed as any other.
		store.setFail(false)
		if _, err := r.Renew(context.Background(), "a", 0); err != nil {
			t.Error(err)
		}
		if pass(4*time.Second - 1); !r.has("a") || !r.has("b") {
			t.Errorf("before it is tried again: a %v, b %v", r.has("a"), r.has("b"))
		}
		if pass(1); !r.has("a") || r.has("b") {
			t.Errorf("when the store lets go: a %v, b %v", r.has("a"), r.has("b"))
		}
		if pass(6 * time.Second); r.has("a") {
			t.Error("a is there after its ttl")
		}
	})
}

// TestARenewalAndAnExpiryHaveOneWinner renews endpoints at the very moment of their expiry: one that says it was renewed is
// there for a whole ttl more, and of one that is gone it says so.
func TestARenewalAndAnExpiryHaveOneWinner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{records: map[string][]byte{}}
		var names []string
		for i := range 200 {
			names = append(names, fmt.Sprintf("e-%03d", i))
			keepStopped(t, store, withTTL(names[i], 10*time.Second), time.Now().Add(10*time.Second))
		}
		r := restored(t, Config{Store: store})
		defer r.Close(ended())
		var renewing sync.WaitGroup
		errs := make([]error, len(names))
		for i, name := range names {
			renewing.Go(func() {
				time.Sleep(10 * time.Second)
				_, errs[i] = r.Renew(context.Background(), name, 0)
			})
		}
		renewing.Wait()
		pass(10*time.Second - 1)
		for i, name := range names {
			if errs[i] != nil && !errors.Is(errs[i], ErrNotFound) {
				t.Error(errs[i])
			}
			if r.has(name) != (errs[i] == nil) {
				t.Errorf("%s is there: %v, and its renewal answered %v", name, r.has(name), errs[i])
			}
		}
		if pass(1); r.Len() != 0 {
			t.Errorf("%d are there after their last ttl", r.Len())
		}
	})
}

func TestRenewAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{records: map[string][]byte{}}
		start := time.Now()
		for _, name := range []string{"a", "b", "c", "other"} {
			keepStopped(t, store, withTTL(name, 10*time.Second), start.Add(10*time.Second))
		}
		keepStopped(t, store, withTTL("ever", 0), time.Time{})
		events := event.New(event.Limits{Events: 16})
		r := restored(t, Config{Store: store, Events: events})
		defer r.Close(ended())
		ctx := context.Background()
		pass(time.Second)

		// Somebody changes b meanwhile: it is renewed when that is done, and the others are not held up.
		inside, leave := make(chan struct{}), make(chan struct{})
		updated := make(chan error, 1)
		go func() {
			_, err := r.Update(ctx, "b", UpdateOptions{}, func(d Definition) (Definition, error) { close(inside); <-leave; return d, nil })
			updated <- err
		}()
		<-inside
		c, err := r.take(ctx, "c") // and somebody else changes c, which does not take so long
		if err != nil {
			t.Fatal(err)
		}
		type answer struct {
			names []string
			err   error
		}
		answered := make(chan answer, 1)
		go func() {
			names, err := r.RenewAll(ctx, func(e *Endpoint) bool { return e.Name != "other" }, 0)
			answered <- answer{names, err}
		}()
		synctest.Wait()
		if e, _ := r.Get("a"); !e.ExpireTime.Equal(start.Add(11 * time.Second)) {
			t.Errorf("a waits for b")
		}
		c.release()
		synctest.Wait()
		if e, _ := r.Get("c"); !e.ExpireTime.Equal(start.Add(11 * time.Second)) {
			t.Errorf("c waits for b")
		}
		close(leave)
		if err := <-updated; err != nil {
			t.Error(err)
		}
		if got := <-answered; got.err != nil || !slices.Equal(got.names, []string{"a", "b", "c"}) {
			t.Errorf("renewed %q, %v", got.names, got.err)
		}
		if n := events.Append(event.Event{}); n != 1 {
			t.Errorf("%d events tell of plain renewals", n-1)
		}
		store.setFail(true)
		if names, err := r.RenewAll(ctx, nil, 0); !errors.Is(err, ErrNotStored) || len(names) > 0 {
			t.Errorf("with a store that refuses: %q, %v", names, err)
		}
		store.setFail(false)
		if names, err := r.RenewAll(ctx, nil, 20*time.Second); err != nil || len(names) != 4 {
			t.Errorf("all: %q, %v", names, err)
		}
		if n := events.Append(event.Event{}); n != 6 {
			t.Errorf("%d events tell of 4 ttls that changed", n-2)
		}
		if pass(20*time.Second - 1); r.Len() != 5 {
			t.Errorf("%d there before their time is over", r.Len())
		}
		if pass(1); r.Len() != 1 {
			t.Errorf("%d there when it is over, want ever alone", r.Len())
		}
	})
}

// TestExpiryCutsWhatServes has endpoints expire whose sockets are real, one of them while it drains for an hour.
func TestExpiryCutsWhatServes(t *testing.T) {
	r := newRegistry(t, nil)
	const ttl = 300 * time.Millisecond
	for _, name := range []string{"serves", "drains"} {
		def := tcp(name)
		def.TTL = ttl
		e := mustCreate(t, r, def)
		peer, err := net.Dial("tcp", e.Address.String())
		if err == nil { // on a slow machine it may be gone already
			defer peer.Close()
		}
		if name == "drains" {
			if _, err := r.Stop(context.Background(), name, time.Hour); err != nil && !errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
		}
		for r.has(name) {
			time.Sleep(time.Millisecond)
		}
		if lived := time.Since(e.CreateTime); lived < ttl {
			t.Errorf("%s lived %v, less than its ttl", name, lived)
		}
		if l, err := net.Listen("tcp", e.Address.String()); err != nil {
			t.Errorf("the port of %s is not free: %v", name, err)
		} else {
			l.Close()
		}
	}
}

func TestATTLIsKeptAndInTheETag(t *testing.T) {
	store := &memory{records: map[string][]byte{}}
	r := newRegistry(t, store)
	def := tcp("a")
	def.TTL = time.Hour
	e := mustCreate(t, r, def)
	var rec record
	if err := json.Unmarshal(store.records["a"], &rec); err != nil || rec.TTL != time.Hour || !rec.ExpireTime.Equal(e.ExpireTime) ||
		!strings.Contains(string(store.records["a"]), `"ttlNanos":3600000000000`) {
		t.Errorf("the record is %s, %v", store.records["a"], err)
	}
	longer := def
	longer.TTL++
	if def.etag() == longer.etag() {
		t.Error("the ttl is not in the etag")
	}
	if dry, err := r.Create(context.Background(), Definition{Name: "b", Protocol: echo.TCP, TTL: time.Hour}, true); err != nil || dry.ExpireTime.IsZero() {
		t.Errorf("a create that is only checked: %+v, %v", dry, err)
	}
}

func wantedWith(name string, change func(*Definition)) Wanted {
	def := tcp(name)
	def.Listen = "127.0.0.1:0"
	change(&def)
	return Wanted{Definition: def}
}

// TestApplyRenews has a description with a ttl applied again and again: nothing differs, and nothing expires.
func TestApplyRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{records: map[string][]byte{}}
		for _, name := range []string{"same", "changed", "left"} {
			keepStopped(t, store, withTTL(name, 10*time.Second), time.Now().Add(10*time.Second))
		}
		r := restored(t, Config{Store: store})
		defer r.Close(ended())
		pass(9 * time.Second)
		wanted := []Wanted{
			wantedWith("same", func(d *Definition) { d.TTL = 10 * time.Second }),
			wantedWith("changed", func(d *Definition) { d.TTL = 20 * time.Second }),
		}
		if _, err := r.Apply(context.Background(), wanted, ApplyOptions{ValidateOnly: true}); err != nil {
			t.Fatal(err)
		}
		if e, _ := r.Get("same"); time.Until(e.ExpireTime) != time.Second {
			t.Errorf("a plan has renewed it: it expires in %v", time.Until(e.ExpireTime))
		}
		changes, err := r.Apply(context.Background(), wanted, ApplyOptions{})
		if err != nil || changes[0].Action != ActionNone || changes[1].Action != ActionUpdate {
			t.Errorf("%+v, %v", changes, err)
		}
		var rec record
		if err := json.Unmarshal(store.get("same"), &rec); err != nil || time.Until(rec.ExpireTime) != 10*time.Second {
			t.Errorf("the record is %s, %v", store.get("same"), err)
		}
		if pass(10*time.Second - 1); !r.has("same") || !r.has("changed") || r.has("left") {
			t.Errorf("same %v, changed %v, left %v", r.has("same"), r.has("changed"), r.has("left"))
		}
		if pass(1); r.has("same") || !r.has("changed") {
			t.Errorf("after their ttl: same %v, changed %v", r.has("same"), r.has("changed"))
		}
		if pass(10 * time.Second); r.has("changed") {
			t.Error("changed is there after its ttl")
		}
	})
}

// TestSeveralWithLeases creates and applies with real sockets what ends by itself.
// TestWhoWaitsForADrainHoldsUpNoOther has an apply, and a purge, wait for an endpoint that somebody else is changing for long:
// the others that they are about expire at their time, and can be renewed.
func TestWhoWaitsForADrainHoldsUpNoOther(t *testing.T) {
	waits := map[string]func(context.Context, *Registry) error{
		"apply": func(ctx context.Context, r *Registry) error {
			_, err := r.Apply(ctx, nil, ApplyOptions{Prune: everything})
			return err
		},
		"purge": func(ctx context.Context, r *Registry) error {
			_, err := r.Purge(ctx, everything, 0)
			return err
		},
	}
	for what, wait := range waits {
		synctest.Test(t, func(t *testing.T) {
			store := &memory{records: map[string][]byte{}}
			for _, name := range []string{"a", "b", "drains"} {
				keepStopped(t, store, withTTL(name, 10*time.Second), time.Now().Add(10*time.Second))
			}
			r := restored(t, Config{Store: store})
			defer r.Close(ended())
			ctx := context.Background()
			draining, err := r.take(ctx, "drains")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- wait(ctx, r) }()
			pass(9 * time.Second)
			patient, cancel := context.WithTimeout(ctx, time.Second/2)
			if _, err := r.Renew(patient, "b", 0); err != nil {
				t.Errorf("%s: a renewal: %v", what, err)
			}
			cancel()
			pass(time.Second)
			if r.has("a") || !r.has("b") {
				t.Errorf("%s: when the time of a is over it is there: %v, and b, which was renewed: %v", what, r.has("a"), r.has("b"))
			}
			draining.release()
			if err := <-done; err != nil || r.Len() != 0 {
				t.Errorf("%s: %v, %d endpoints are left", what, err, r.Len())
			}
		})
	}
}

func TestSeveralWithLeases(t *testing.T) {
	r := newRegistry(t, &memory{records: map[string][]byte{}})
	ctx := context.Background()
	h := mustOpen(t, r, "s", 0)
	in := func(name, session string) Definition { d := inSession(name, session); d.TTL = time.Hour; return d }
	var problems *Problems
	if _, err := r.CreateAll(ctx, []Definition{in("a", "s"), in("b", "none")}, false); !errors.As(err, &problems) ||
		len(problems.List) != 1 || problems.List[0].Index != 1 || problems.List[0].Field != "session" || !errors.Is(problems.List[0].Err, ErrNoSession) {
		t.Errorf("a batch in a session that is not there: %v", err)
	}
	if n := h.Session().Endpoints; n != 0 || r.Len() != 0 {
		t.Errorf("a batch that failed left %d in the session, %d in all", n, r.Len())
	}
	made, err := r.CreateAll(ctx, []Definition{in("a", "s"), in("b", "s")}, false)
	if err != nil || made[0].ExpireTime.IsZero() || h.Session().Endpoints != 2 {
		t.Fatalf("%+v, %v; the session has %d", made, err, h.Session().Endpoints)
	}
	if _, err := r.Apply(ctx, []Wanted{wantedWith("c", func(d *Definition) { d.Session = "none" })}, ApplyOptions{}); !errors.As(err, &problems) ||
		problems.List[0].Field != "session" || !errors.Is(problems.List[0].Err, ErrNoSession) || r.Len() != 2 {
		t.Errorf("an apply in a session that is not there: %v; %d endpoints", err, r.Len())
	}
	if _, err := r.Apply(ctx, []Wanted{wantedWith("a", func(d *Definition) { d.Session = "other" })}, ApplyOptions{}); !errors.As(err, &problems) ||
		problems.List[0].Field != "session" || !errors.Is(problems.List[0].Err, ErrOtherSession) {
		t.Errorf("an apply to another session: %v", err)
	}
	changes, err := r.Apply(ctx, []Wanted{
		wantedWith("a", func(d *Definition) { d.TTL = time.Hour }), // which says nothing of the session
		wantedWith("c", func(d *Definition) { d.Session = "s"; d.TTL = time.Hour }),
	}, ApplyOptions{})
	if err != nil || changes[0].Action != ActionNone || changes[1].Action != ActionCreate || h.Session().Endpoints != 3 {
		t.Errorf("%+v, %v; the session has %d", changes, err, h.Session().Endpoints)
	}
	if e, err := r.Get("c"); err != nil || e.ExpireTime.IsZero() {
		t.Errorf("%+v, %v", e, err)
	}
	h.Release()
	soon(t, "all of the session is gone", func() bool { return r.Len() == 0 })
}
