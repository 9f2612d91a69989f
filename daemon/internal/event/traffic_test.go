package event_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/echod/echod/daemon/internal/event"
)

var peer = netip.MustParseAddrPort("192.0.2.1:4711")

// texts writes events as "type number".
func texts(events []event.Event) (all []string) {
	for _, e := range events {
		verb := map[event.Type]string{event.ConnectionOpened: "opened", event.ConnectionClosed: "closed"}[e.Type]
		all = append(all, fmt.Sprint(verb, " ", e.Subject.(event.ConnectionEvent).Number))
	}
	return all
}

func expectTexts(t *testing.T, w *event.ConnectionWatch, want ...string) {
	t.Helper()
	events, dropped := w.Take()
	if got := texts(events); !slices.Equal(got, want) || dropped != 0 {
		t.Errorf("got %q and %d dropped, want %q", got, dropped, want)
	}
}

func TestConnectionsAreToldWhole(t *testing.T) {
	of := new(event.Connections)
	if ended := of.Opened("web", nil, peer); ended != nil {
		t.Error("somebody wants to know the end, and nobody watches")
	}
	w := of.Watch(1, nil)
	first := of.Opened("web", map[string]string{"rack": "r1"}, peer)
	late := of.Watch(1, nil)
	second := of.Opened("web", nil, peer)
	first(event.Ending{BytesIn: 7, BytesOut: 5, Reason: "idle"})
	second(event.Ending{})
	<-w.Ready()
	events, _ := w.Take()
	if got := texts(events); !slices.Equal(got, []string{"opened 1", "opened 2", "closed 1", "closed 2"}) {
		t.Fatalf("got %q", got)
	}
	opened, closed := events[0].Subject.(event.ConnectionEvent), events[2].Subject.(event.ConnectionEvent)
	if opened.Connection != closed.Connection || opened.Endpoint != "web" || opened.Peer != peer || opened.Labels["rack"] != "r1" ||
		!opened.Opened.Equal(events[0].Time) || events[2].Time.Before(opened.Opened) {
		t.Errorf("got %+v and %+v", opened, closed)
	}
	if (opened.Ending != event.Ending{}) || (closed.Ending != event.Ending{BytesIn: 7, BytesOut: 5, Reason: "idle"}) {
		t.Errorf("got %+v and %+v", opened.Ending, closed.Ending)
	}
	if e := events[0]; e.Kind != event.Traffic || e.Name != "web" || e.Revision != 0 {
		t.Errorf("got %+v", e)
	}
	expectTexts(t, late, "opened 2", "closed 2") // the first was there before it
	expectTexts(t, w)

	w.Close()
	w.Close()
	third := of.Opened("web", nil, peer)
	third(event.Ending{})
	expectTexts(t, w)
	expectTexts(t, late, "opened 3", "closed 3")
	forth := of.Opened("web", nil, peer)
	late.Close()
	forth(event.Ending{}) // nobody is there to be told
	expectTexts(t, late)
	if ended := of.Opened("web", nil, peer); ended != nil {
		t.Error("somebody wants to know the end, and nobody watches any more")
	}
	if ended := (*event.Connections)(nil).Opened("web", nil, peer); ended != nil {
		t.Error("nobody can watch")
	}
}

// Each watch has its own share, whole, and the one who asks for less sees a part of what the other does.
func TestOneInSoMany(t *testing.T) {
	of := new(event.Connections)
	const connections = 20000
	shares := map[uint32]*event.ConnectionWatch{0: of.Watch(0, nil), 10: of.Watch(10, nil), 100: of.Watch(100, nil)}
	seen := map[uint32]map[uint64]int{}
	ofTwo := map[string]int{}
	for i := range connections {
		name := fmt.Sprint("e", i%10) // they take turns
		if ended := of.Opened(name, nil, peer); ended != nil {
			ended(event.Ending{})
		}
		for oneIn, w := range shares {
			events, dropped := w.Take()
			if dropped > 0 {
				t.Fatalf("%d were dropped", dropped)
			}
			for _, e := range events {
				if seen[oneIn] == nil {
					seen[oneIn] = map[uint64]int{}
				}
				seen[oneIn][e.Subject.(event.ConnectionEvent).Number]++
				if oneIn == 10 {
					ofTwo[e.Name]++
				}
			}
		}
	}
	for oneIn, want := range map[uint32]int{0: connections, 10: connections / 10, 100: connections / 100} {
		if got := len(seen[oneIn]); got < want*4/5 || got > want*6/5 {
			t.Errorf("one in %d: %d connections, want about %d", oneIn, got, want)
		}
		for number, events := range seen[oneIn] {
			if events != 2 {
				t.Fatalf("one in %d: %d events of connection %d", oneIn, events, number)
			}
		}
	}
	for number := range seen[100] {
		if seen[10][number] == 0 {
			t.Fatalf("connection %d is one in 100 and not one in 10", number)
		}
	}
	if len(ofTwo) != 10 {
		t.Errorf("one in 10 of ten endpoints that take turns is of %d of them", len(ofTwo))
	}
}

// A watch is told what it wants to be told of, as it was when the connection was opened.
func TestConnectionsThatMatch(t *testing.T) {
	of := new(event.Connections)
	r1 := of.Watch(1, func(e *event.Event) bool { return e.Subject.(event.ConnectionEvent).Labels["rack"] == "r1" })
	ends := of.Watch(1, func(e *event.Event) bool { return e.Type == event.ConnectionClosed })
	openings := of.Watch(1, func(e *event.Event) bool { return e.Type == event.ConnectionOpened && strings.HasPrefix(e.Name, "a") })
	for _, name := range []string{"a", "b"} {
		rack := map[string]string{"a": "r1", "b": "r2"}[name]
		of.Opened(name, map[string]string{"rack": rack}, peer)(event.Ending{})
	}
	expectTexts(t, r1, "opened 1", "closed 1")
	expectTexts(t, ends, "closed 1", "closed 2")
	expectTexts(t, openings, "opened 1")
	r1.Close()
	ends.Close()
	if ended := of.Opened("b", nil, peer); ended != nil {
		t.Error("nobody wants to know the end")
	}
}

// What a watch does not take in time is dropped, whole as far as it can be, and counted; others lose nothing.
func TestSlowWatchLoses(t *testing.T) {
	of := new(event.Connections)
	slow, quick := of.Watch(1, nil), of.Watch(1, nil)
	const room, over = 4096, 100
	var ends []func(event.Ending)
	told := 0
	open := func(n int) {
		for range n {
			ends = append(ends, of.Opened("web", nil, peer))
			events, dropped := quick.Take()
			told += len(events)
			if dropped != 0 {
				t.Fatalf("the quick one lost %d", dropped)
			}
		}
	}
	open(room + over)
	events, dropped := slow.Take()
	if len(events) != room || dropped != over {
		t.Fatalf("%d events and %d dropped, want %d and %d", len(events), dropped, room, over)
	}
	// There is room again. The ends of those whose beginning was lost are not told, but counted.
	for _, ended := range ends[room-50:] {
		ended(event.Ending{})
	}
	events, dropped = slow.Take()
	if len(events) != 50 || dropped != 2*over {
		t.Errorf("%d ends and %d dropped, want 50 and %d", len(events), dropped, 2*over)
	}
	// An end that finds no room is lost, too.
	open(room)
	ends[0](event.Ending{})
	if events, dropped := slow.Take(); len(events) != room || dropped != 2*over+1 {
		t.Errorf("%d events and %d dropped, want %d and %d", len(events), dropped, room, 2*over+1)
	}
	if quickEvents, _ := quick.Take(); told+len(quickEvents) != 2*room+over+50+over+1 {
		t.Errorf("the quick one had %d events", told+len(quickEvents))
	}
}

// Whatever comes at once, each watch has the beginning of a connection before its end.
func TestConnectionsFromManySides(t *testing.T) {
	of := new(event.Connections)
	w := of.Watch(2, nil)
	const sides, each = 8, 2000
	var opening, watching sync.WaitGroup
	for range sides {
		opening.Go(func() {
			for range each {
				if ended := of.Opened("web", nil, peer); ended != nil {
					ended(event.Ending{})
				}
			}
		})
		watching.Go(func() { // others come and go
			for range each / 100 {
				of.Watch(1, nil).Close()
			}
		})
	}
	done := make(chan struct{})
	go func() {
		opening.Wait()
		close(done)
	}()
	var events []event.Event
	var dropped uint64
	take := func() {
		some, lost := w.Take()
		events, dropped = append(events, some...), lost
	}
	for over := false; !over; take() {
		select {
		case <-w.Ready():
		case <-done:
			over = true
		}
	}
	watching.Wait()
	open := map[uint64]bool{}
	for _, e := range events {
		number := e.Subject.(event.ConnectionEvent).Number
		if opened := e.Type == event.ConnectionOpened; open[number] == opened {
			t.Fatalf("connection %d: opened %t, and it was %t", number, opened, open[number])
		}
		open[number] = e.Type == event.ConnectionOpened
	}
	if len(events) == 0 || uint64(len(events))+dropped > 2*sides*each {
		t.Errorf("%d events and %d dropped of %d connections", len(events), dropped, sides*each)
	}
}

// A watch is woken up soon, and not for each event.
func TestConnectionsGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		of := new(event.Connections)
		w := of.Watch(1, nil)
		start := time.Now()
		for turn := range 3 {
			of.Opened("web", nil, peer)(event.Ending{})
			time.Sleep(10 * time.Millisecond)
			of.Opened("web", nil, peer)(event.Ending{})
			<-w.Ready()
			if waited := time.Since(start); waited != time.Duration(turn+1)*20*time.Millisecond {
				t.Errorf("turn %d: after %v", turn, waited)
			}
			if events, _ := w.Take(); len(events) != 4 {
				t.Errorf("turn %d: %d events", turn, len(events))
			}
		}
		of.Opened("web", nil, peer)
		w.Close()
		select {
		case <-w.Ready():
			t.Error("a closed watch has something")
		case <-time.After(time.Hour):
		}
	})
}

// BenchmarkOpened is what one connection costs who serves it.
func BenchmarkOpened(b *testing.B) {
	for _, watches := range []int{0, 1, 3} {
		b.Run(fmt.Sprint(watches, " watches"), func(b *testing.B) {
			of := new(event.Connections)
			for range watches {
				w := of.Watch(1, nil)
				done := make(chan struct{})
				left := make(chan struct{})
				go func() {
					defer close(left)
					for {
						select {
						case <-w.Ready():
							w.Take()
						case <-done:
							return
						}
					}
				}()
				defer func() { close(done); <-left; w.Close() }()
			}
			b.ReportAllocs()
			for b.Loop() {
				if ended := of.Opened("web", nil, peer); ended != nil {
					ended(event.Ending{Reason: "peer_closed"})
				}
			}
		})
	}
}
