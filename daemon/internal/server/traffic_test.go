package server

import (
	"io"
	"net"
	"testing"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// told reads the next message that is no heartbeat.
func (w *watching) told(t *testing.T) *echov1.WatchEventsResponse {
	t.Helper()
	for {
		m, err := w.next()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetEvent().GetType() != echov1.Event_HEARTBEAT {
			return m
		}
	}
}

// TestTraffic watches the connections of an endpoint, over gRPC and over REST.
func TestTraffic(t *testing.T) {
	for name, follow := range watchers {
		t.Run(name, func(t *testing.T) {
			d := startDaemon(t, testConfig(t))
			ctx := testContext(t)
			endpoints := echov1.NewEndpointServiceClient(d.dial(t, d.GRPC))
			lab := mustCreate(t, endpoints, &echov1.Endpoint{Name: "lab", Protocol: echov1.Protocol_TCP, Labels: map[string]string{"rack": "r1"}})
			other := mustCreate(t, endpoints, &echov1.Endpoint{Name: "other", Protocol: echov1.Protocol_TCP})
			before := echoedOnce(t, lab) // there is no watch yet

			quiet := follow(t, d, &echov1.WatchEventsRequest{ChangesOnly: true})
			defer quiet.leave()
			watch := follow(t, d, &echov1.WatchEventsRequest{
				Filter: `kind = "traffic" AND labels.rack = "r1"`, ChangesOnly: true, TrafficOneIn: 1,
			})
			defer watch.leave()
			synced := watch.told(t)
			if synced.GetEvent().GetType() != echov1.Event_SYNCED || quiet.told(t).GetEvent().GetType() != echov1.Event_SYNCED {
				t.Fatalf("the watch begins with %v", synced)
			}
			before.Close()
			echoedOnce(t, other).Close()
			first := echoedOnce(t, lab)
			number := expectTraffic(t, watch.told(t), first, echov1.Event_CONNECTION_OPENED, "")
			first.Close()
			if again := expectTraffic(t, watch.told(t), first, echov1.Event_CONNECTION_CLOSED, "peer_closed"); again != number {
				t.Errorf("connection %d is %d now", number, again)
			}
			second := echoedOnce(t, lab)
			if other := expectTraffic(t, watch.told(t), second, echov1.Event_CONNECTION_OPENED, ""); other == number {
				t.Errorf("two connections have number %d", number)
			}
			if _, err := endpoints.StopEndpoint(ctx, &echov1.StopEndpointRequest{Name: "lab"}); err != nil {
				t.Fatal(err)
			}
			closed := watch.told(t)
			expectTraffic(t, closed, second, echov1.Event_CONNECTION_CLOSED, "stopped")
			if closed.GetResumeToken() == "" || closed.GetTrafficDropped() != 0 {
				t.Errorf("got %v", closed)
			}
			// Who did not ask for connections is told of none of them.
			if m := quiet.told(t); m.GetEvent().GetType() != echov1.Event_STATE_CHANGED || m.GetEvent().GetEndpoint().GetName() != "lab" {
				t.Errorf("who asked for no connections was told %v", m)
			}
		})
	}
}

// expectTraffic compares an event with the connection of a client that had five bytes echoed, and answers its number.
func expectTraffic(t *testing.T, m *echov1.WatchEventsResponse, conn net.Conn, what echov1.Event_Type, reason string) uint64 {
	t.Helper()
	e, got := m.GetEvent(), m.GetEvent().GetTraffic()
	if e.GetType() != what || e.GetRevision() != 0 || got.GetEndpoint() != "lab" || got.GetPeer() != conn.LocalAddr().String() || got.GetConnection() == 0 {
		t.Fatalf("got %v, want %v of %v", e, what, conn.LocalAddr())
	}
	opened, at := got.GetOpenTime().AsTime(), e.GetTime().AsTime()
	ended := what == echov1.Event_CONNECTION_CLOSED
	if !ended && !opened.Equal(at) || ended && at.Before(opened) {
		t.Errorf("opened at %v, told of %v", opened, at)
	}
	if (got.BytesIn != nil) != ended || (got.BytesOut != nil) != ended || got.GetReason() != reason {
		t.Errorf("got %v, want reason %q", got, reason)
	}
	if ended && (got.GetBytesIn() != 5 || got.GetBytesOut() != 5) {
		t.Errorf("got %d bytes in and %d out, want 5", got.GetBytesIn(), got.GetBytesOut())
	}
	return got.GetConnection()
}

// echoedOnce connects to an endpoint and has five bytes echoed.
func echoedOnce(t *testing.T, e *echov1.Endpoint) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", e.GetAddress())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	return conn
}
