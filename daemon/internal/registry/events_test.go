package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/event/eventtest"
)

const patience = 30 * time.Second

var stateWords = map[State]string{Serving: "serving", Stopped: "stopped", Draining: "draining", Failed: "failed"}

// watched is a registry and a watch of what it tells.
func watched(t *testing.T, store Store, engine *echo.Engine) (*Registry, *event.Watch) {
	t.Helper()
	log := event.New(event.Limits{Events: 1 << 16})
	r := New(Config{Engine: engine, Store: store, Events: log})
	t.Cleanup(func() {
		if err := r.Close(ended()); err != nil {
			t.Error(err)
		}
	})
	if err := r.Restore(context.Background()); err != nil {
		t.Fatal(err)
	}
	w, err := log.Watch(event.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return r, w
}

// wantTold compares what was told since the last look, "TYPE NAME STATE" each.
func wantTold(t *testing.T, w *event.Watch, want ...string) {
	t.Helper()
	var got []string
	for _, e := range eventtest.Told(t, w) {
		s := e.Subject.(Endpoint)
		if s.Name != e.Name || s.UID == "" || s.ETag == "" || e.Kind != event.Endpoint || e.Bytes < endpointBytes {
			t.Errorf("an event lacks something: %+v", e)
		}
		got = append(got, strings.Join([]string{eventtest.Word(e.Type), e.Name, stateWords[s.State]}, " "))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestEachChangeIsToldOnce(t *testing.T) {
	store := &memory{records: map[string][]byte{}}
	r, w := watched(t, store, echo.New(echo.Options{}))
	ctx := context.Background()
	must := func(_ Endpoint, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(r.Create(ctx, tcp("dry"), true))
	wantTold(t, w)
	a := mustCreate(t, r, tcp("a"))
	wantTold(t, w, "created a serving")
	if _, err := r.Create(ctx, Definition{Name: "b", Protocol: echo.TCP, Listen: a.Address.String()}, false); err == nil {
		t.Fatal("two have one address")
	}
	store.setFail(true)
	if _, err := r.Create(ctx, tcp("b"), false); err == nil {
		t.Fatal("not stored, and created all the same")
	}
	store.setFail(false)
	wantTold(t, w)
	must(r.Update(ctx, "a", UpdateOptions{}, noChange))
	wantTold(t, w)
	must(r.Update(ctx, "a", UpdateOptions{}, func(d Definition) (Definition, error) { d.Description = "x"; return d, nil }))
	wantTold(t, w, "updated a serving")
	must(r.Start(ctx, "a"))
	wantTold(t, w)
	must(r.Stop(ctx, "a", 0))
	wantTold(t, w, "state a stopped")
	must(r.Stop(ctx, "a", 0))
	wantTold(t, w)
	must(r.Start(ctx, "a"))
	wantTold(t, w, "state a serving")
	must(r.Stop(ctx, "a", patience))
	wantTold(t, w, "state a draining", "state a stopped")
	must(r.Start(ctx, "a"))
	if err := r.Delete(ctx, "a", "", patience); err != nil {
		t.Fatal(err)
	}
	wantTold(t, w, "state a serving", "state a draining", "deleted a stopped")
	mustCreate(t, r, tcp("a"))
	if err := r.Delete(ctx, "a", "", 0); err != nil {
		t.Fatal(err)
	}
	wantTold(t, w, "created a serving", "deleted a stopped")
}

// TestWhatIsRestoredIsThere brings back three, of which one cannot be.
func TestWhatIsRestoredIsThere(t *testing.T) {
	store := &memory{records: map[string][]byte{}}
	before := newRegistry(t, store)
	for _, name := range []string{"bad", "good", "off"} {
		mustCreate(t, before, tcp(name))
	}
	bad, _ := before.Get("bad")
	if _, err := before.Stop(context.Background(), "off", 0); err != nil {
		t.Fatal(err)
	}
	if err := before.Close(ended()); err != nil {
		t.Fatal(err)
	}
	thief, err := net.Listen("tcp", bad.Address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	r, w := watched(t, store, echo.New(echo.Options{}))
	wantTold(t, w, "existing bad failed", "existing good serving", "existing off stopped")
	thief.Close()
	if _, err := r.Start(context.Background(), "bad"); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(ended()); err != nil {
		t.Fatal(err)
	}
	wantTold(t, w, "state bad serving", "state bad draining", "state good draining")
	if now, _ := r.Get("good"); now.State != Draining {
		t.Errorf("good is %v", now.State)
	}
}

// TestAnEventCountsNothing sees that what is told has no counters, and is not changed with the endpoint.
func TestAnEventCountsNothing(t *testing.T) {
	r, w := watched(t, nil, echo.New(echo.Options{}))
	def := tcp("a")
	def.Labels = map[string]string{"k": "v"}
	e := mustCreate(t, r, def)
	conn, err := net.Dial("tcp", e.Address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Update(context.Background(), "a", UpdateOptions{}, func(d Definition) (Definition, error) { d.Labels["k"] = "w"; return d, nil }); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"", "v", "w"} { // synced first
		got, ok, err := w.Next()
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		if s, ok := got.Subject.(Endpoint); ok && (s.Stats.BytesIn != 0 || s.Labels["k"] != want) {
			t.Errorf("told of %+v, want the label %s", s, want)
		}
	}
}

// TestAReaderKnowsWhatThereIs changes many endpoints at once, and reads.
func TestAReaderKnowsWhatThereIs(t *testing.T) {
	r, w := watched(t, nil, echo.New(echo.Options{}))
	ctx := context.Background()
	var writers errgroup.Group
	for i := range 8 {
		writers.Go(func() error {
			for j := range 40 {
				name := fmt.Sprint("e", (i+j)%5)
				var err error
				switch j % 4 {
				case 0:
					_, err = r.Create(ctx, tcp(name), false)
				case 1:
					_, err = r.Stop(ctx, name, 0)
				case 2:
					_, err = r.Update(ctx, name, UpdateOptions{}, func(d Definition) (Definition, error) { d.Description = fmt.Sprint(i, j); return d, nil })
				case 3:
					if i%2 == 0 {
						err = r.Delete(ctx, name, "", 0)
					} else {
						_, err = r.Start(ctx, name)
					}
				}
				if err != nil && !errors.Is(err, ErrExists) && !errors.Is(err, ErrNotFound) {
					return err
				}
			}
			return nil
		})
	}
	if err := writers.Wait(); err != nil {
		t.Fatal(err)
	}
	known := map[string]Endpoint{}
	for _, e := range eventtest.Told(t, w) {
		if e.Type == event.Deleted {
			delete(known, e.Name)
		} else if s, ok := e.Subject.(Endpoint); ok {
			known[e.Name] = s
		}
	}
	there, _ := r.List("", 1000, nil)
	if len(there) != len(known) {
		t.Errorf("the reader knows %d, and %d are there", len(known), len(there))
	}
	for _, e := range there {
		k := known[e.Name]
		if k.UID != e.UID || k.State != e.State || k.ETag != e.ETag || k.Address != e.Address || k.Description != e.Description {
			t.Errorf("the reader knows %+v, and there is %+v", k, e)
		}
	}
}

// TestAFailureIsToldWhenItHappens does what the engine does when it gives an endpoint up.
func TestAFailureIsToldWhenItHappens(t *testing.T) {
	r, w := watched(t, nil, echo.New(echo.Options{}))
	mustCreate(t, r, tcp("a"))
	e := r.entries["a"]
	before := e.live
	r.failed(e, before, net.ErrClosed)
	r.failed(e, before, net.ErrClosed)
	wantTold(t, w, "created a serving", "state a failed")
	now, err := r.Get("a")
	if err != nil || now.State != Failed || now.Reason != net.ErrClosed.Error() {
		t.Errorf("a is %+v, %v", now, err)
	}
	if _, err := r.Stop(context.Background(), "a", patience); err != nil {
		t.Fatal(err)
	}
	wantTold(t, w, "state a stopped")
	if _, err := r.Start(context.Background(), "a"); err != nil {
		t.Fatal(err)
	}
	r.failed(e, before, net.ErrClosed) // late: it is another that serves now
	wantTold(t, w, "state a serving")
}

// TestARenewalIsNoEvent renews an endpoint: a watch that is there is not told, one that begins knows until when it lives.
func TestARenewalIsNoEvent(t *testing.T) {
	r, w := watched(t, nil, echo.New(echo.Options{}))
	def := tcp("a")
	def.TTL = time.Hour
	before := mustCreate(t, r, def)
	wantTold(t, w, "created a serving")
	renewed, err := r.Renew(context.Background(), "a", 0)
	if err != nil || !renewed.ExpireTime.After(before.ExpireTime) {
		t.Fatalf("renewed until %v, before until %v: %v", renewed.ExpireTime, before.ExpireTime, err)
	}
	wantTold(t, w)
	later, err := r.events.Watch(event.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	e, ok, err := later.Next()
	if s, _ := e.Subject.(Endpoint); !ok || err != nil || !s.ExpireTime.Equal(renewed.ExpireTime) {
		t.Errorf("told of %+v, %v, want it until %v", e, err, renewed.ExpireTime)
	}
	if _, err := r.Renew(context.Background(), "a", 2*time.Hour); err != nil {
		t.Fatal(err)
	}
	wantTold(t, w, "updated a serving")
	if _, err := r.Renew(context.Background(), "a", time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for _, want := range []event.Type{event.Updated, event.Expired} {
		<-w.More()
		if e, ok, err := w.Next(); !ok || err != nil || e.Type != want {
			t.Errorf("told of %+v, %v, want type %d", e, err, want)
		}
	}
}
