package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/monitor"
	"github.com/echod/echod/daemon/internal/registry"
	"github.com/echod/echod/daemon/internal/runs"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// eventStream is a client that takes all at once, or fails.
type eventStream struct {
	grpc.ServerStream
	ctx  context.Context
	told chan *echov1.WatchEventsResponse
	err  error
}

func (s *eventStream) Context() context.Context { return s.ctx }

func (s *eventStream) Send(m *echov1.WatchEventsResponse) error {
	if s.err == nil {
		s.told <- m
	}
	return s.err
}

// text is what was told since the last look, "TYPE NAME" each.
func (s *eventStream) text() string {
	text := ""
	for len(s.told) > 0 {
		e := (<-s.told).GetEvent()
		text += fmt.Sprintf("%s %s%s%s, ", e.GetType(), e.GetEndpoint().GetName(), e.GetMonitor().GetName(), e.GetProbe().GetName())
	}
	return text
}

func newEventStream(ctx context.Context) *eventStream {
	return &eventStream{ctx: ctx, told: make(chan *echov1.WatchEventsResponse, 1000)}
}

func endpointEvent(what event.Type, e registry.Endpoint) event.Event {
	return event.Event{Type: what, Kind: event.Endpoint, Name: e.Name, Subject: e}
}

func anEndpoint(name, rack string) registry.Endpoint {
	return registry.Endpoint{Definition: registry.Definition{Name: name, Labels: map[string]string{"rack": rack}}, State: registry.Serving}
}

func TestAWatchIsNeverSilentForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := event.New(event.Limits{Events: 100})
		ctx, stop := context.WithCancelCause(t.Context())
		stream := newEventStream(ctx)
		ended := make(chan error, 1)
		s := NewEventService(log, nil)
		go func() {
			ended <- s.WatchEvents(&echov1.WatchEventsRequest{Filter: `name = "a"`}, stream)
		}()
		want := func(want string) {
			t.Helper()
			synctest.Wait()
			if got := stream.text(); got != want {
				t.Errorf("told %q, want %q", got, want)
			}
		}
		want("SYNCED , ")
		time.Sleep(heartbeat - time.Nanosecond)
		want("")
		log.Append(endpointEvent(event.Created, anEndpoint("a", "")))
		want("CREATED a, ")
		time.Sleep(heartbeat - time.Nanosecond)
		want("")
		log.Append(endpointEvent(event.Created, anEndpoint("b", ""))) // is not for it
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		beat := <-stream.told
		if e := beat.GetEvent(); e.GetType() != echov1.Event_HEARTBEAT || e.GetRevision() != 2 || e.GetTime() == nil || beat.GetResumeToken() == "" {
			t.Errorf("the heartbeat is %v", beat)
		}
		time.Sleep(2 * heartbeat)
		want("HEARTBEAT , HEARTBEAT , ")

		// What has happened before the daemon stops is told.
		log.Append(endpointEvent(event.Deleted, anEndpoint("a", "")))
		stop(ErrStopping)
		if err := <-ended; !errors.Is(err, ErrStopping) {
			t.Errorf("ended with %v", err)
		}
		want("DELETED a, ")

		// It goes on where the heartbeat was, and says at once that it does.
		ctx, stop = context.WithCancelCause(t.Context())
		stream.ctx = ctx
		go func() {
			ended <- s.WatchEvents(&echov1.WatchEventsRequest{Filter: `name = "a"`, ResumeToken: beat.GetResumeToken()}, stream)
		}()
		want("DELETED a, ")
		stop(nil)
		<-ended
		w, err := log.Watch(event.Options{Scope: `events name = "b"`, ChangesOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := w.Next(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		ctx, stop = context.WithCancelCause(t.Context())
		stream.ctx = ctx
		go func() {
			ended <- s.WatchEvents(&echov1.WatchEventsRequest{Filter: `name = "b"`, ResumeToken: w.Token()}, stream)
		}()
		want("HEARTBEAT , ")
		// A client that is gone.
		stream.err = errors.New("gone")
		log.Append(endpointEvent(event.Deleted, anEndpoint("b", "")))
		if err := <-ended; !errors.Is(err, stream.err) {
			t.Errorf("ended with %v", err)
		}
		stop(nil)
	})
}

// TestAWatchThatHasEndedIsCountedNoMore begins more watches than there may be at once, one after the other, refused ones too.
func TestAWatchThatHasEndedIsCountedNoMore(t *testing.T) {
	s := NewEventService(event.New(event.Limits{Events: 100, Watches: 1}), nil)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	for range 3 {
		if err := s.WatchEvents(&echov1.WatchEventsRequest{}, newEventStream(ctx)); !errors.Is(err, context.Canceled) {
			t.Fatalf("events: %v", err)
		}
		if err := s.WatchEvents(&echov1.WatchEventsRequest{TrafficOneIn: 1}, newEventStream(ctx)); asBadRequest(err) == nil {
			t.Fatalf("traffic: %v", err)
		}
		if err := s.WatchEndpoints(&echov1.WatchEndpointsRequest{}, newEventStream(ctx)); !errors.Is(err, context.Canceled) {
			t.Fatalf("endpoints: %v", err)
		}
	}
}

// TestWhoMatchesNoMoreIsToldAsDeleted goes through what can become of an endpoint for a watch of rack r1.
func TestWhoMatchesNoMoreIsToldAsDeleted(t *testing.T) {
	match, err := endpointFilter.parse(`labels.rack = "r1"`)
	if err != nil {
		t.Fatal(err)
	}
	in, out := anEndpoint("a", "r1"), anEndpoint("a", "r2")
	for _, c := range []struct {
		what        event.Type
		before, now any
		want        event.Type // 0: it is not told
	}{
		{event.Existing, nil, in, event.Existing},
		{event.Existing, nil, out, 0},
		{event.Created, nil, in, event.Created},
		{event.Created, nil, out, 0},
		{event.Updated, in, in, event.Updated},
		{event.Updated, out, out, 0},
		{event.Updated, in, out, event.Deleted},
		{event.Updated, out, in, event.Updated},
		{event.StateChanged, in, in, event.StateChanged},
		{event.Deleted, in, in, event.Deleted},
		{event.Expired, in, in, event.Expired},
		{event.Deleted, out, out, 0},
		{event.Expired, out, in, 0}, // it was told before that it is gone
		{event.Synced, nil, nil, event.Synced},
		{event.Created, nil, runs.Run{Name: "p"}, 0},
	} {
		e := event.Event{Type: c.what, Before: c.before, Subject: c.now}
		told := ofEndpoints(&e, match)
		if told != (c.want != 0) || told && e.Type != c.want {
			t.Errorf("%d from %v to %v: told %v as %d, want %d", c.what, c.before, c.now, told, e.Type, c.want)
		}
		if all := (event.Event{Type: c.what, Before: c.before, Subject: c.now}); ofEndpoints(&all, nil) != (fmt.Sprintf("%T", c.now) != "runs.Run") {
			t.Errorf("without a filter: %+v", all)
		}
	}
}

// TestAWatchHasNoFilterOverExpiry sees that a watch refuses what a renewal, which is no event, would change: whoever had been
// told of an endpoint would not be told of its end.
func TestAWatchHasNoFilterOverExpiry(t *testing.T) {
	s := NewEventService(event.New(event.Limits{Events: 100}), nil)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	for filter, refused := range map[string]bool{
		`expire_time < "2030-01-01T00:00:00Z"`: true, `expireTime:*`: true, `ttl < 10m`: false, `update_time:*`: false, `labels.expire_time = "x"`: false,
	} {
		err := s.WatchEndpoints(&echov1.WatchEndpointsRequest{Filter: filter}, newEventStream(ctx))
		if bad := asBadRequest(err); (bad != nil) != refused || refused && !strings.Contains(bad.Error(), "a renewal is no event") {
			t.Errorf("%s: %v", filter, err)
		}
		if _, err := endpointFilter.parse(filter); err != nil {
			t.Errorf("%s in a list: %v", filter, err)
		}
	}
}

func TestEventFilter(t *testing.T) {
	e := endpointEvent(event.StateChanged, anEndpoint("web-1", "r1"))
	e.Subject = func() registry.Endpoint { s := anEndpoint("web-1", "r1"); s.State = registry.Stopped; return s }()
	m := event.Event{Type: event.RunEnded, Kind: event.Monitor, Name: "m", Subject: monitor.Monitor{State: monitor.Paused}}
	p := event.Event{Type: event.Created, Kind: event.Probe, Name: "p", Subject: runs.Run{State: runs.Running}}
	d := event.Event{Type: event.StateChanged, Kind: event.Daemon, Subject: DaemonEvent{State: DaemonStopping}}
	for _, c := range []struct {
		filter string
		want   string
	}{
		{`kind = "endpoint"`, "e"},
		{`kind = endpoint OR kind = daemon`, "ed"},
		{`NOT type = RUN_ENDED`, "epd"},
		{`type = "STATE_CHANGED" AND state = STOPPED`, "e"},
		{`state = STOPPING`, "d"},
		{`state = RUNNING`, "p"},
		{`state = PAUSED`, "m"},
		{`labels.rack = "r*"`, "e"},
		{`name = "web-*" OR name = "m"`, "em"},
	} {
		match, err := eventFilter.parse(c.filter)
		if err != nil {
			t.Errorf("%s: %v", c.filter, err)
			continue
		}
		got := ""
		for i, one := range []event.Event{e, m, p, d} {
			if match(&one) {
				got += string("empd"[i])
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.filter, got, c.want)
		}
	}
}

// lostTraffic is a source of connections that has lost some.
type lostTraffic struct {
	ready  chan struct{}
	events []event.Event
	closed bool
}

func (l *lostTraffic) Ready() <-chan struct{} { return l.ready }
func (l *lostTraffic) Take() ([]event.Event, uint64) {
	all := l.events
	l.events = nil
	return all, 7
}
func (l *lostTraffic) Close() { l.closed = true }

// TestTrafficComesBesides merges events that the log does not keep into a watch.
func TestTrafficComesBesides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := event.New(event.Limits{Events: 100})
		traffic := &lostTraffic{ready: make(chan struct{})}
		asked := uint32(0)
		s := NewEventService(log, func(oneIn uint32, match func(*event.Event) bool) TrafficWatch {
			asked = oneIn
			return traffic
		})
		ctx, stop := context.WithCancel(t.Context())
		stream := newEventStream(ctx)
		ended := make(chan error, 1)
		go func() { ended <- s.WatchEvents(&echov1.WatchEventsRequest{TrafficOneIn: 10}, stream) }()
		synctest.Wait()
		before := <-stream.told
		traffic.events = []event.Event{endpointEvent(event.Updated, anEndpoint("a", ""))}
		traffic.ready <- struct{}{}
		synctest.Wait()
		m := <-stream.told
		if asked != 10 || m.GetTrafficDropped() != 7 || m.GetEvent().GetRevision() != 0 || m.GetResumeToken() != before.GetResumeToken() {
			t.Errorf("asked for one in %d, told %v", asked, m)
		}
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) || !traffic.closed {
			t.Errorf("ended with %v, closed: %v", err, traffic.closed)
		}
		if err := NewEventService(log, nil).WatchEvents(&echov1.WatchEventsRequest{TrafficOneIn: 1}, newEventStream(ctx)); asBadRequest(err) == nil {
			t.Errorf("without a source: %v", err)
		}
	})
}

// lateTraffic does something at the last moment before a watch waits.
type lateTraffic struct{ do func() }

func (l lateTraffic) Ready() <-chan struct{} { return nil }
func (l lateTraffic) Take() ([]event.Event, uint64) {
	l.do()
	return nil, 0
}
func (l lateTraffic) Close() {}

// TestTheLastEventIsTold ends a watch at the moment at which something has happened, more than once: which of both it sees
// first is a matter of luck.
func TestTheLastEventIsTold(t *testing.T) {
	for range 20 {
		log := event.New(event.Limits{Events: 100})
		ctx, stop := context.WithCancelCause(t.Context())
		stream := newEventStream(ctx)
		late := lateTraffic{sync.OnceFunc(func() {
			log.Append(endpointEvent(event.Created, anEndpoint("a", "")))
			stop(ErrStopping)
		})}
		s := NewEventService(log, func(uint32, func(*event.Event) bool) TrafficWatch { return late })
		if err := s.WatchEvents(&echov1.WatchEventsRequest{TrafficOneIn: 1}, stream); !errors.Is(err, ErrStopping) {
			t.Fatalf("ended with %v", err)
		}
		if got, want := stream.text(), "SYNCED , CREATED a, "; got != want {
			t.Fatalf("told %q, want %q", got, want)
		}
	}
}
