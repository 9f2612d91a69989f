package rpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/registry"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// heartbeat is how long a watch is silent at most.
const heartbeat = 15 * time.Second

// EventLog is what EventService needs of the log of events.
type EventLog interface {
	Watch(event.Options) (*event.Watch, error)
}

// TrafficWatch tells of connections. What is not taken in time is lost and counted; nobody waits for it.
type TrafficWatch interface {
	// Ready receives when there may be something to take.
	Ready() <-chan struct{}
	// Take answers what has come since it was called last, and how many events were lost so far.
	Take() (events []event.Event, dropped uint64)
	Close()
}

// WatchTraffic begins to tell of connections, one in so many, and of those events alone for which match is true; a nil match
// takes all.
type WatchTraffic func(oneIn uint32, match func(*event.Event) bool) TrafficWatch

// EventService serves echo.v1.EventService.
type EventService struct {
	echov1.UnsafeEventServiceServer
	log     EventLog
	traffic WatchTraffic
}

// NewEventService tells what a log tells, and of connections, where somebody asks for them; a nil traffic has none.
func NewEventService(log EventLog, traffic WatchTraffic) *EventService {
	return &EventService{log: log, traffic: traffic}
}

// WatchEvents implements the service.
func (s *EventService) WatchEvents(req *echov1.WatchEventsRequest, stream grpc.ServerStreamingServer[echov1.WatchEventsResponse]) error {
	match, err := eventFilter.parse(req.GetFilter())
	if err != nil {
		return err
	}
	w := watcher{stream: stream, see: func(e *event.Event) bool { return e.Type == event.Synced || match == nil || match(e) }}
	if err := s.open(&w, "events", req); err != nil {
		return err
	}
	defer w.log.Close()
	if oneIn := req.GetTrafficOneIn(); oneIn > 0 {
		if s.traffic == nil {
			return badField("traffic_one_in", "must be 0: this daemon does not tell of connections")
		}
		w.traffic = s.traffic(oneIn, match)
		defer w.traffic.Close()
	}
	return w.run(stream.Context())
}

// WatchEndpoints implements the service.
func (s *EventService) WatchEndpoints(req *echov1.WatchEndpointsRequest, stream grpc.ServerStreamingServer[echov1.WatchEventsResponse]) error {
	match, err := watchedFilter.parse(req.GetFilter())
	if err != nil {
		return err
	}
	w := watcher{stream: stream, see: func(e *event.Event) bool { return ofEndpoints(e, match) }}
	if err := s.open(&w, "endpoints", req); err != nil {
		return err
	}
	defer w.log.Close()
	return w.run(stream.Context())
}

// ofEndpoints says whether a watch of the endpoints that match is told of an event. It needs no memory: an event knows how the
// endpoint was before. One that matches no more is told as deleted.
func ofEndpoints(e *event.Event, match func(*registry.Endpoint) bool) bool {
	if e.Type == event.Synced {
		return true
	}
	now, ok := e.Subject.(registry.Endpoint)
	if !ok || match == nil {
		return ok
	}
	before, known := e.Before.(registry.Endpoint)
	matched := known && match(&before)
	switch {
	case e.Type == event.Deleted, e.Type == event.Expired:
		return matched
	case match(&now):
		return true
	}
	if matched {
		e.Type = event.Deleted
	}
	return matched
}

// watchRequest is what both requests have in common.
type watchRequest interface {
	GetFilter() string
	GetResumeToken() string
	GetChangesOnly() bool
}

// open begins to read the log. The caller closes w.log.
func (s *EventService) open(w *watcher, what string, req watchRequest) (err error) {
	w.resumed = req.GetResumeToken() != ""
	if w.resumed && req.GetChangesOnly() {
		return badField("changes_only", "is not for a watch that goes on with a resume token; leave it out")
	}
	w.log, err = s.log.Watch(event.Options{
		Scope: what + " " + req.GetFilter(), Token: req.GetResumeToken(), ChangesOnly: req.GetChangesOnly(),
	})
	if errors.Is(err, event.ErrBadToken) {
		return &badRequest{reason: "BAD_RESUME_TOKEN", violations: []violation{{
			"resume_token", "is none that a daemon gave for this watch and this filter; watch without one",
		}}}
	}
	return err
}

// watcher tells one client.
type watcher struct {
	stream  grpc.ServerStreamingServer[echov1.WatchEventsResponse]
	see     func(*event.Event) bool // whether the client is told; it may change the event
	log     *event.Watch
	resumed bool
	traffic TrafficWatch // nil: none

	dropped uint64 // of traffic
	silence *time.Timer
}

// run tells what happens until ctx ends, whose cause it answers.
func (w *watcher) run(ctx context.Context) error {
	first := heartbeat
	if w.resumed {
		first = 0 // so that the client knows at once that it goes on
	}
	w.silence = time.NewTimer(first)
	defer w.silence.Stop()
	var traffic <-chan struct{}
	if w.traffic != nil {
		traffic = w.traffic.Ready()
	}
	for {
		if err := w.tell(); err != nil {
			return err
		}
		select {
		case <-w.log.More():
		case <-traffic:
		case <-w.silence.C:
			if err := w.send(&echov1.Event{Type: echov1.Event_HEARTBEAT, Revision: w.log.Revision(), Time: timestamp(time.Now())}); err != nil {
				return err
			}
		case <-ctx.Done():
			// What has happened until now is told all the same, that the daemon stops among it.
			if err := w.tell(); err != nil {
				return err
			}
			return context.Cause(ctx)
		}
	}
}

// tell tells what has happened until now.
func (w *watcher) tell() error {
	for {
		e, ok, err := w.log.Next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := w.tellOne(&e); err != nil {
			return err
		}
	}
	if w.traffic == nil {
		return nil
	}
	var events []event.Event
	events, w.dropped = w.traffic.Take()
	for i := range events {
		if err := w.tellOne(&events[i]); err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) tellOne(e *event.Event) error {
	if !w.see(e) {
		return nil
	}
	out, err := eventToProto(*e)
	if err != nil {
		return err
	}
	return w.send(out)
}

func (w *watcher) send(e *echov1.Event) error {
	w.silence.Reset(heartbeat)
	return w.stream.Send(&echov1.WatchEventsResponse{Event: e, ResumeToken: w.log.Token(), TrafficDropped: w.dropped})
}
