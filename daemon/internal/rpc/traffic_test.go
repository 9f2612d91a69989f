package rpc

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"

	"github.com/echod/echod/daemon/internal/event"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// slowStream is a client that takes a message when told to.
type slowStream struct {
	grpc.ServerStream
	ctx  context.Context
	told chan *echov1.WatchEventsResponse
}

func (s *slowStream) Context() context.Context { return s.ctx }

func (s *slowStream) Send(m *echov1.WatchEventsResponse) error {
	select {
	case s.told <- m:
		return nil
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// TestASlowWatchLosesTraffic has a client read too late what connections did: it is told how much it has lost, and holds up
// nobody.
func TestASlowWatchLosesTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		connections := new(event.Connections)
		s := NewEventService(event.New(event.Limits{Events: 10}), func(oneIn uint32, match func(*event.Event) bool) TrafficWatch {
			return connections.Watch(oneIn, match)
		})
		ctx, leave := context.WithCancel(t.Context())
		stream := &slowStream{ctx: ctx, told: make(chan *echov1.WatchEventsResponse)}
		ended := make(chan error, 1)
		go func() {
			ended <- s.WatchEvents(&echov1.WatchEventsRequest{TrafficOneIn: 1, Filter: `name = "web" type = CONNECTION_OPENED`}, stream)
		}()
		if m := <-stream.told; m.GetEvent().GetType() != echov1.Event_SYNCED {
			t.Fatalf("got %v", m)
		}
		const room, over = 4096, 10
		peer := netip.MustParseAddrPort("192.0.2.1:4711")
		open := func(n int) {
			for range n {
				if ended := connections.Opened("web", nil, peer); ended != nil {
					t.Fatal("ends are not asked for")
				}
				connections.Opened("other", nil, peer)
			}
		}
		open(1)
		first := <-stream.told
		if first.GetEvent().GetTraffic().GetConnection() != 1 || first.GetTrafficDropped() != 0 {
			t.Fatalf("got %v", first)
		}
		open(1)
		synctest.Wait() // gathering
		open(room - 1)
		open(over)
		for i := range room {
			if m := <-stream.told; m.GetEvent().GetTraffic().GetEndpoint() != "web" || m.GetTrafficDropped() != over {
				t.Fatalf("message %d is %v, want %d lost", i, m, over)
			}
		}
		open(1)
		if m := <-stream.told; m.GetTrafficDropped() != over {
			t.Errorf("got %v", m)
		}
		leave()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		if ended := connections.Opened("web", nil, peer); ended != nil {
			t.Error("somebody still watches")
		}
	})
}
