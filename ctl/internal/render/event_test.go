package render

import (
	"time"

	"google.golang.org/protobuf/proto"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// events are one of each kind, told as they come.
func events() []*echov1.Event {
	bad := endpoints()[2]
	done := probes()[0]
	done.State, done.Report, done.EndTime = echov1.Probe_DONE, report(), ago(0)
	failed := monitors()[0]
	failed.LastRun = &echov1.MonitorRun{Failure: "no such endpoint: \"gone\"\x1b[31m"}
	all := []*echov1.Event{
		{Type: echov1.Event_EXISTING, Subject: &echov1.Event_Daemon{Daemon: &echov1.DaemonEvent{State: echov1.DaemonEvent_READY, Start: echov1.Info_CRASHED}}},
		{Type: echov1.Event_STATE_CHANGED, Subject: &echov1.Event_Daemon{Daemon: &echov1.DaemonEvent{
			State: echov1.DaemonEvent_NOT_READY, Reason: "state: cannot be written: no space left\non device",
		}}},
		{Type: echov1.Event_EXISTING, Subject: &echov1.Event_Endpoint{Endpoint: endpoints()[0]}},
		{Type: echov1.Event_SYNCED},
		{Type: echov1.Event_STATE_CHANGED, Subject: &echov1.Event_Endpoint{Endpoint: bad}},
		{Type: echov1.Event_CREATED, Subject: &echov1.Event_Probe{Probe: probes()[0]}},
		{Type: echov1.Event_STATE_CHANGED, Subject: &echov1.Event_Probe{Probe: done}},
		{Type: echov1.Event_RUN_ENDED, Subject: &echov1.Event_Monitor{Monitor: monitors()[1]}},
		{Type: echov1.Event_STATE_CHANGED, Subject: &echov1.Event_Monitor{Monitor: failed}},
		{Type: echov1.Event_CONNECTION_OPENED, Subject: &echov1.Event_Traffic{Traffic: &echov1.Traffic{Endpoint: "web-1", Peer: "192.0.2.7:40000"}}},
		{Type: echov1.Event_CONNECTION_CLOSED, Subject: &echov1.Event_Traffic{Traffic: &echov1.Traffic{
			Endpoint: "an-endpoint-with-a-name-of-some-length", Peer: "192.0.2.7:40000", BytesIn: proto.Uint64(64), BytesOut: proto.Uint64(60), Reason: "reset",
		}}},
		{Type: 99},
	}
	for i, e := range all[:len(all)-1] {
		e.Revision, e.Time = uint64(i+1), ago(-time.Duration(i)*1234*time.Millisecond)
	}
	return all
}

func init() {
	scenes["events"] = func(w Writer) error {
		for _, e := range events() {
			if err := w.Event(e); err != nil {
				return err
			}
		}
		return nil
	}
	terminalScenes = append(terminalScenes, "events")
}
