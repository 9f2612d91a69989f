package registry

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
)

// A connection is told with the name and the labels that its endpoint has as it comes.
func TestObserve(t *testing.T) {
	watches := new(event.Connections)
	r := New(Config{Engine: echo.New(echo.Options{Observe: Observe(watches)})})
	t.Cleanup(func() {
		if err := r.Close(ended()); err != nil {
			t.Error(err)
		}
	})
	ctx := context.Background()
	def := tcp("")
	def.Labels = map[string]string{"rack": "r1"}
	made := mustCreate(t, r, def)
	unseen := echoOnce(t, made) // before anybody watches
	w := watches.Watch(1, nil)
	defer w.Close()
	unseen.Close()

	first := echoOnce(t, made)
	if _, err := r.Update(ctx, made.Name, UpdateOptions{}, func(d Definition) (Definition, error) {
		d.Labels["rack"] = "r2"
		return d, nil
	}); err != nil {
		t.Fatal(err)
	}
	second := echoOnce(t, made)
	first.Close()
	gone := take(t, w, 3)
	if _, err := r.Stop(ctx, made.Name, 0); err != nil {
		t.Fatal(err)
	}
	gone = append(gone, take(t, w, 1)...)
	if _, err := r.Start(ctx, made.Name); err != nil {
		t.Fatal(err)
	}
	third := echoOnce(t, made)
	gone = append(gone, take(t, w, 1)...)

	for i, want := range []struct {
		what event.Type
		rack string
		conn net.Conn
		end  event.Ending
	}{
		{event.ConnectionOpened, "r1", first, event.Ending{}},
		{event.ConnectionOpened, "r2", second, event.Ending{}},
		{event.ConnectionClosed, "r1", first, event.Ending{BytesIn: 5, BytesOut: 5, Reason: echo.EndedPeerClosed}},
		{event.ConnectionClosed, "r2", second, event.Ending{BytesIn: 5, BytesOut: 5, Reason: echo.EndedStopped}},
		{event.ConnectionOpened, "r2", third, event.Ending{}},
	} {
		got := gone[i].Subject.(event.ConnectionEvent)
		if gone[i].Type != want.what || gone[i].Name != made.Name || got.Endpoint != made.Name || got.Labels["rack"] != want.rack ||
			got.Peer.String() != want.conn.LocalAddr().String() || got.Ending != want.end {
			t.Errorf("event %d: got %+v of %+v, want %+v", i, got.Ending, *got.Connection, want)
		}
	}
}

// Whichever way an endpoint came to serve, its connections are told with the name that it has.
func TestObserveKnowsEveryName(t *testing.T) {
	watches := new(event.Connections)
	w := watches.Watch(1, nil)
	defer w.Close()
	store := &memory{records: map[string][]byte{}}
	ctx := context.Background()
	begin := func() *Registry {
		r := New(Config{Engine: echo.New(echo.Options{Observe: Observe(watches)}), Store: store})
		t.Cleanup(func() {
			if err := r.Close(ended()); err != nil {
				t.Error(err)
			}
		})
		return r
	}
	expect := func(e Endpoint, rack string) {
		t.Helper()
		echoOnce(t, e).Close()
		for _, one := range take(t, w, 2) {
			if got := one.Subject.(event.ConnectionEvent); got.Endpoint != e.Name || e.Name == "" || got.Labels["rack"] != rack {
				t.Errorf("a connection of %q, in rack %q, is told of %q and %v", e.Name, rack, got.Endpoint, got.Labels)
			}
		}
	}
	r := begin()
	expect(mustCreate(t, r, tcp("")), "")
	several, err := r.CreateAll(ctx, []Definition{tcp(""), tcp("named"), tcp("")}, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range several {
		expect(e, "")
	}
	for _, rack := range []string{"r1", "r2"} { // created, and updated
		def := tcp("applied")
		def.Labels = map[string]string{"rack": rack}
		if _, err := r.Apply(ctx, want(def), ApplyOptions{}); err != nil {
			t.Fatal(err)
		}
		expect(mustGet(t, r, "applied"), rack)
	}
	if err := r.Close(ended()); err != nil {
		t.Fatal(err)
	}
	again := begin()
	if err := again.Restore(ctx); err != nil {
		t.Fatal(err)
	}
	expect(mustGet(t, again, "applied"), "r2")
}

// echoOnce opens a connection and has five bytes echoed.
func echoOnce(t *testing.T, e Endpoint) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", e.Address.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// take waits for so many events.
func take(t *testing.T, w *event.ConnectionWatch, n int) (events []event.Event) {
	t.Helper()
	for len(events) < n {
		select {
		case <-w.Ready():
		case <-time.After(30 * time.Second):
			t.Fatalf("%d events, want %d", len(events), n)
		}
		some, _ := w.Take()
		events = append(events, some...)
	}
	return events
}
