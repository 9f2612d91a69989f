package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
)

func mustOpen(t *testing.T, r *Registry, name string, grace time.Duration) *Hold {
	t.Helper()
	h, err := r.OpenSession(name, grace)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func inSession(name, session string) Definition {
	return Definition{Name: name, Protocol: echo.TCP, Session: session}
}

// soon waits for what real sockets do.
func soon(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func TestASessionTakesItsEndpointsWithIt(t *testing.T) {
	store := &memory{records: map[string][]byte{}}
	events := event.New(event.Limits{Events: 64})
	r := New(Config{Engine: echo.New(echo.Options{}), Store: store, Events: events})
	t.Cleanup(func() {
		if err := r.Close(ended()); err != nil {
			t.Error(err)
		}
	})
	h := mustOpen(t, r, "s", 0)
	mustCreate(t, r, inSession("a", "s"))
	mustCreate(t, r, inSession("b", "s"))
	mustCreate(t, r, inSession("removed", "s"))
	mustCreate(t, r, tcp("other"))
	if err := r.Delete(context.Background(), "removed", "", 0); err != nil {
		t.Fatal(err)
	}
	if s := h.Session(); s.Name != "s" || s.Endpoints != 2 || s.CreateTime.IsZero() || h.Secret == "" {
		t.Errorf("the session is %+v", s)
	}
	if _, err := r.Create(context.Background(), inSession("x", "none"), false); !errors.Is(err, ErrNoSession) || !strings.Contains(err.Error(), `"none"`) {
		t.Errorf("in a session that is not there: %v", err)
	}
	if dry, err := r.Create(context.Background(), inSession("x", "s"), true); err != nil || h.Session().Endpoints != 2 {
		t.Errorf("a create that is only checked: %+v, %v; the session has %d", dry, err, h.Session().Endpoints)
	}
	if got := store.keys(); !slices.Equal(got, []string{"a", "b", "other", "session/s"}) || bytes.Contains(store.records["session/s"], []byte(h.Secret)) {
		t.Errorf("the store has %q: %s", got, store.records["session/s"])
	}
	h.Release()
	h.Release()
	soon(t, "the session and its endpoints are gone", func() bool { return slices.Equal(store.keys(), []string{"other"}) })
	soon(t, "nobody can find them", func() bool { return r.Len() == 1 })
	mustOpen(t, r, "s", 0)
}

// noSockets is a registry for sessions without sockets: its endpoints are stopped ones of before.
func noSockets(t *testing.T, store *memory, log *bytes.Buffer) *Registry {
	t.Helper()
	c := Config{Store: store}
	if log != nil {
		c.Log = slog.New(slog.NewTextHandler(log, nil))
	}
	return restored(t, c)
}

func keepSessionOf(t *testing.T, store *memory, name string, grace time.Duration, hash []byte) {
	t.Helper()
	value, err := json.Marshal(sessionRecord{Name: name, SecretHash: hash, Grace: grace, CreateTime: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	store.records["session/"+name] = value
}

// TestASessionOfBeforeWaitsForItsClient has a daemon restart: sessions live five seconds or their grace, and can be held again.
func TestASessionOfBeforeWaitsForItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{records: map[string][]byte{}}
		first := noSockets(t, store, nil)
		held, left, long := mustOpen(t, first, "held", 0), mustOpen(t, first, "left", 0), mustOpen(t, first, "long", time.Minute)
		if err := first.Close(ended()); err != nil {
			t.Fatal(err)
		}
		for _, h := range []*Hold{held, left, long} {
			h.Release() // the daemon stops, and they with it: nothing ends
		}
		for _, name := range []string{"held", "left", "long", "lost"} {
			keepStopped(t, store, Definition{Name: "in-" + name, Session: name}, time.Time{})
		}
		pass(time.Hour)

		r := noSockets(t, store, nil)
		defer r.Close(ended())
		pass(5*time.Second - 1)
		if r.Len() != 4 {
			t.Errorf("%d endpoints before 5 s are over, want 4", r.Len())
		}
		if _, err := r.HoldSession("lost", ""); !errors.Is(err, ErrWrongSecret) {
			t.Errorf("a session whose record is lost: %v", err)
		}
		again, err := r.HoldSession("held", held.Secret)
		if err != nil || again.Session().Endpoints != 1 || again.Secret != held.Secret {
			t.Errorf("held again: %+v, %v", again, err)
		}
		if pass(1); !r.has("in-held") || r.has("in-left") || !r.has("in-long") || r.has("in-lost") {
			t.Errorf("after 5 s: held %v, left %v, long %v, lost %v", r.has("in-held"), r.has("in-left"), r.has("in-long"), r.has("in-lost"))
		}
		if _, err := r.HoldSession("left", left.Secret); !errors.Is(err, ErrSessionOver) {
			t.Errorf("held when it is over: %v", err)
		}
		if pass(time.Hour); !r.has("in-held") || r.has("in-long") {
			t.Errorf("after an hour: held %v, long %v", r.has("in-held"), r.has("in-long"))
		}
		again.Release()
		synctest.Wait()
		if got := store.keys(); len(got) != 0 {
			t.Errorf("left in the store: %q", got)
		}
	})
}

func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{records: map[string][]byte{}}
		r := noSockets(t, store, nil)
		defer r.Close(ended())
		h := mustOpen(t, r, "s", 10*time.Second)
		pass(time.Hour)
		h.Release()
		r.endSession(h.session) // as of a time that had come just before it was held and left again
		pass(10*time.Second - 1)
		if _, err := r.OpenSession("s", 0); !errors.Is(err, ErrSessionHeld) || !strings.Contains(err.Error(), "waits") {
			t.Errorf("its name while it waits: %v", err)
		}
		for _, secret := range []string{"", "x", h.Secret + "x"} {
			if _, err := r.HoldSession("s", secret); !errors.Is(err, ErrWrongSecret) {
				t.Errorf("with the secret %q: %v", secret, err)
			}
		}
		again, err := r.HoldSession("s", h.Secret)
		if err != nil {
			t.Fatal(err)
		}
		h.Release() // of a hold that is over
		pass(time.Hour)
		if _, err := r.OpenSession("s", 0); !errors.Is(err, ErrSessionHeld) {
			t.Errorf("its name while it is held: %v", err)
		}
		// The same client, whose connection broke without our noticing.
		third, err := r.HoldSession("s", h.Secret)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-again.Lost():
		default:
			t.Error("who held it is not told")
		}
		if !errors.Is(again.Err(), ErrTakenOver) {
			t.Errorf("who held it is told %v", again.Err())
		}
		again.Release()
		pass(time.Hour)
		third.Release()
		if pass(10 * time.Second); len(r.sessions) != 0 || len(store.keys()) != 0 {
			t.Errorf("after the grace: %d sessions, %q", len(r.sessions), store.keys())
		}
	})
}

func TestASessionThatTheStoreDoesNotLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{records: map[string][]byte{}}
		keepSessionOf(t, store, "s", 0, nil)
		keepStopped(t, store, Definition{Name: "a", Session: "s"}, time.Time{})
		var log bytes.Buffer
		r := noSockets(t, store, &log)
		defer r.Close(ended())
		store.setFail(true)
		if _, err := r.OpenSession("new", 0); !errors.Is(err, ErrNotStored) {
			t.Errorf("opened without a store: %v", err)
		}
		pass(time.Minute)
		if !r.has("a") || strings.Count(log.String(), "\n") != 1 {
			t.Errorf("there: %v; the log is\n%s", r.has("a"), &log)
		}
		if _, err := r.OpenSession("s", 0); !errors.Is(err, ErrSessionHeld) || !strings.Contains(err.Error(), "ending") {
			t.Errorf("its name while it ends: %v", err)
		}
		if _, err := r.Create(context.Background(), inSession("b", "s"), true); !errors.Is(err, ErrNoSession) {
			t.Errorf("in a session that ends: %v", err)
		}
		store.setFail(false)
		if pass(2 * time.Minute); r.has("a") || len(store.keys()) != 0 {
			t.Errorf("when the store lets go: %v, %q", r.has("a"), store.keys())
		}
		if _, err := r.OpenSession("new", 0); err != nil {
			t.Error(err)
		}
	})
}

func TestSessionsAreBounded(t *testing.T) {
	r := newRegistry(t, nil)
	var holds []*Hold
	for range MaxSessions {
		holds = append(holds, mustOpen(t, r, "", 0))
	}
	if _, err := r.OpenSession("", 0); !errors.Is(err, ErrTooManySessions) {
		t.Errorf("one more: %v", err)
	}
	holds[0].Release()
	soon(t, "there is room again", func() bool { _, err := r.OpenSession("", 0); return err == nil })
}

// TestACreateThatRacesWithTheEndOfItsSession leaves nothing behind, whoever is first.
func TestACreateThatRacesWithTheEndOfItsSession(t *testing.T) {
	store := &memory{records: map[string][]byte{}}
	r := newRegistry(t, store)
	for i := range 50 {
		name := fmt.Sprintf("s-%d", i)
		h := mustOpen(t, r, name, 0)
		var creating sync.WaitGroup
		for range 4 {
			creating.Go(func() {
				def := inSession("", name)
				if _, err := r.Create(context.Background(), def, false); err != nil && !errors.Is(err, ErrNoSession) {
					t.Error(err)
				}
			})
		}
		h.Release()
		creating.Wait()
	}
	soon(t, "all is gone", func() bool { return r.Len() == 0 && len(store.keys()) == 0 })
}

func TestAnUpdateDoesNotChangeTheSession(t *testing.T) {
	r := newRegistry(t, nil)
	mustOpen(t, r, "s", 0)
	mustCreate(t, r, inSession("a", "s"))
	e, err := r.Update(context.Background(), "a", UpdateOptions{}, func(d Definition) (Definition, error) {
		d.Session, d.Description = "", "x"
		return d, nil
	})
	if err != nil || e.Session != "s" || e.Description != "x" {
		t.Errorf("%+v, %v", e, err)
	}
}

// TestTheSessionRecordsForm holds the names that a later daemon must still understand.
func TestTheSessionRecordsForm(t *testing.T) {
	got, err := json.Marshal(sessionRecord{Name: "s", SecretHash: []byte{1, 2}, Grace: time.Second, CreateTime: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)})
	if want := `{"name":"s","secretHash":"AQI=","graceNanos":1000000000,"createTime":"2026-01-02T03:04:05.000000006Z"}`; err != nil || string(got) != want {
		t.Errorf("a record is\n%s, %v; want\n%s", got, err, want)
	}
}

// TestASessionIsEndedByItsClient ends it in spite of its grace, held or not, and finds it gone when that returns.
func TestASessionIsEndedByItsClient(t *testing.T) {
	store := &memory{records: map[string][]byte{}}
	r := newRegistry(t, store)
	ctx := context.Background()
	for _, left := range []bool{false, true} {
		h := mustOpen(t, r, "s", time.Hour)
		mustCreate(t, r, inSession("a", "s"))
		if left {
			h.Release()
		}
		if err := r.EndSession(ctx, "s", ""); !errors.Is(err, ErrWrongSecret) {
			t.Errorf("without its secret: %v", err)
		}
		if err := r.EndSession(ctx, "s", h.Secret); err != nil || r.Len() != 0 || len(store.keys()) != 0 {
			t.Errorf("ended: %v; %d endpoints, %q", err, r.Len(), store.keys())
		}
		if !left {
			<-h.Lost()
			if err := h.Err(); err != nil {
				t.Errorf("who holds it is told %v", err)
			}
		}
		if err := r.EndSession(ctx, "s", h.Secret); !errors.Is(err, ErrSessionOver) {
			t.Errorf("ended again: %v", err)
		}
		h.Release()
	}
	h := mustOpen(t, r, "s", 0)
	mustCreate(t, r, inSession("a", "s"))
	store.setFail(true)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := r.EndSession(gone, "s", h.Secret); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that does not wait: %v", err)
	}
	waiting := make(chan error, 1)
	other := mustOpenIn(t, r, store, "other")
	go func() { waiting <- r.EndSession(ctx, "other", other.Secret) }()
	soon(t, "it is ending", func() bool {
		_, err := r.HoldSession("other", other.Secret)
		return errors.Is(err, ErrSessionOver)
	})
	if err := r.Close(ended()); err != nil {
		t.Error(err)
	}
	if err := <-waiting; !errors.Is(err, ErrClosing) {
		t.Errorf("when the daemon stops: %v", err)
	}
	if err := r.EndSession(ctx, "other", other.Secret); !errors.Is(err, ErrClosing) {
		t.Errorf("when the daemon has stopped: %v", err)
	}
}

// mustOpenIn opens a session with a store that refuses before and afterwards.
func mustOpenIn(t *testing.T, r *Registry, store *memory, name string) *Hold {
	t.Helper()
	store.setFail(false)
	defer store.setFail(true)
	return mustOpen(t, r, name, time.Hour)
}

// TestAnEndCannotBeTakenBack: a session that is ended is not held again, not even in the moment before its endpoints go.
func TestAnEndCannotBeTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := noSockets(t, &memory{records: map[string][]byte{}}, nil)
		defer r.Close(ended())
		for range 500 { // which of two is the first differs
			h := mustOpen(t, r, "s", time.Hour)
			again := make(chan error, 1)
			go func() {
				<-h.Lost() // as a client does whose stream has ended
				_, err := r.HoldSession("s", h.Secret)
				again <- err
			}()
			synctest.Wait()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			if err := r.EndSession(ctx, "s", h.Secret); err != nil {
				t.Fatalf("the end: %v", err)
			}
			cancel()
			if err := <-again; !errors.Is(err, ErrSessionOver) {
				t.Fatalf("held again: %v", err)
			}
		}
	})
}
