package rpc

import (
	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/monitor"
	"github.com/echod/echod/daemon/internal/registry"
	"github.com/echod/echod/daemon/internal/runs"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// eventToProto writes an event with its subject.
func eventToProto(e event.Event) (*echov1.Event, error) {
	out := &echov1.Event{Revision: e.Revision, Time: timestamp(e.Time), Type: eventTypeToProto(e.Type)}
	switch s := e.Subject.(type) {
	case registry.Endpoint:
		endpoint := endpointToProto(s)
		endpoint.Counters = nil // they have none, and 0 would be a claim
		out.Subject = &echov1.Event_Endpoint{Endpoint: endpoint}
	case runs.Run:
		out.Subject = &echov1.Event_Probe{Probe: probeToProto(s)}
	case monitor.Monitor:
		m, err := briefMonitorToProto(s)
		if err != nil {
			return nil, err
		}
		out.Subject = &echov1.Event_Monitor{Monitor: m}
	case DaemonEvent:
		out.Subject = &echov1.Event_Daemon{Daemon: daemonEventToProto(s)}
	case event.ConnectionEvent:
		out.Subject = &echov1.Event_Traffic{Traffic: trafficToProto(e.Type, s)}
	}
	return out, nil
}

func trafficToProto(what event.Type, c event.ConnectionEvent) *echov1.Traffic {
	out := &echov1.Traffic{Endpoint: c.Endpoint, Peer: c.Peer.String(), Connection: c.Number, OpenTime: timestamp(c.Opened)}
	if what == event.ConnectionClosed {
		out.BytesIn, out.BytesOut, out.Reason = &c.BytesIn, &c.BytesOut, c.Reason
	}
	return out
}

// eventState is the state of an event's subject, as a filter compares it.
func eventState(e *event.Event) string {
	switch s := e.Subject.(type) {
	case registry.Endpoint:
		return stateToProto(s.State).String()
	case runs.Run:
		return runStateToProto(s.State).String()
	case monitor.Monitor:
		return monitorStateToProto(s.State).String()
	case DaemonEvent:
		return daemonStateToProto(s.State).String()
	default:
		return ""
	}
}

// eventLabels are the labels of an event's subject.
func eventLabels(e *event.Event) map[string]string {
	switch s := e.Subject.(type) {
	case registry.Endpoint:
		return s.Labels
	case monitor.Monitor:
		return s.Labels
	case event.ConnectionEvent:
		return s.Labels
	default:
		return nil
	}
}

func eventTypeToProto(t event.Type) echov1.Event_Type {
	switch t {
	case event.Existing:
		return echov1.Event_EXISTING
	case event.Synced:
		return echov1.Event_SYNCED
	case event.Created:
		return echov1.Event_CREATED
	case event.Updated:
		return echov1.Event_UPDATED
	case event.StateChanged:
		return echov1.Event_STATE_CHANGED
	case event.Deleted:
		return echov1.Event_DELETED
	case event.Expired:
		return echov1.Event_EXPIRED
	case event.RunEnded:
		return echov1.Event_RUN_ENDED
	case event.ConnectionOpened:
		return echov1.Event_CONNECTION_OPENED
	case event.ConnectionClosed:
		return echov1.Event_CONNECTION_CLOSED
	default:
		return echov1.Event_TYPE_UNSPECIFIED
	}
}
