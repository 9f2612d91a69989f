package rpc

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/echod/echod/daemon/internal/monitor"
	"github.com/echod/echod/daemon/internal/runs"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// monitorDefinitionFromProto reads the settable fields of a monitor that was checked.
func monitorDefinitionFromProto(m *echov1.Monitor) (monitor.Definition, error) {
	text, err := probeToJSON(m.GetProbe())
	return monitor.Definition{
		Name: m.GetName(), Labels: m.GetLabels(), Description: m.GetDescription(), Probe: text,
		Expect: m.GetProbe().GetExpect(), Interval: m.GetInterval().AsDuration(), HistoryLimit: int(m.GetHistoryLimit()),
		Paused: m.GetPaused(),
	}, err
}

// monitorDefinitionToProto writes the settable fields of a monitor: what a mask is applied to.
func monitorDefinitionToProto(def monitor.Definition) (*echov1.Monitor, error) {
	p, err := probeFromJSON(def.Probe)
	if err != nil {
		return nil, err
	}
	p.Expect = def.Expect
	limit := uint32(def.HistoryLimit)
	return &echov1.Monitor{
		Name: def.Name, Labels: def.Labels, Description: def.Description, Probe: p, Interval: durationpb.New(def.Interval),
		HistoryLimit: &limit, Paused: def.Paused,
	}, nil
}

// probeToJSON writes what a monitor is to run, as the state file keeps it: the settable fields, without the expectations.
func probeToJSON(p *echov1.Probe) (json.RawMessage, error) {
	p = proto.CloneOf(p)
	p.Name, p.Uid, p.Expect, p.State, p.Report, p.CreateTime, p.EndTime = "", "", nil, echov1.Probe_STATE_UNSPECIFIED, nil, nil, nil
	text, err := protojson.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("cannot encode a probe: %w", err)
	}
	return json.Marshal(json.RawMessage(text)) // protojson varies its blanks
}

// probeFromJSON reads what probeToJSON wrote. What a newer daemon wrote and this one does not know is passed over.
func probeFromJSON(text json.RawMessage) (*echov1.Probe, error) {
	p := &echov1.Probe{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, p); err != nil {
		return nil, fmt.Errorf("cannot understand the probe of a monitor: %w", err)
	}
	return p, nil
}

// briefMonitorToProto writes a monitor as a list has it.
func briefMonitorToProto(m monitor.Monitor) (*echov1.Monitor, error) {
	m.History = nil
	if m.Last != nil {
		last := *m.Last
		last.Report = monitor.Slim(last.Report)
		m.Last = &last
	}
	return monitorToProto(m)
}

func monitorToProto(m monitor.Monitor) (*echov1.Monitor, error) {
	out, err := monitorDefinitionToProto(m.Definition)
	if err != nil {
		return nil, err
	}
	out.Uid = m.UID
	out.State = monitorStateToProto(m.State)
	out.Verdict = monitorVerdictToProto(m.Verdict)
	out.Since = timestamp(m.Since)
	out.NextRunTime = timestamp(m.NextRun)
	if m.Last != nil {
		out.LastRun = monitorRunToProto(m.Name, *m.Last)
	}
	for _, r := range m.History {
		out.History = append(out.History, monitorRunToProto(m.Name, r))
	}
	out.Counters = &echov1.MonitorCounters{
		Runs: m.Counters.Runs, Failures: m.Counters.Failures, Skipped: m.Counters.Skipped, Late: m.Counters.Late,
	}
	out.CreateTime = timestamp(m.CreateTime)
	out.UpdateTime = timestamp(m.UpdateTime)
	out.Etag = m.ETag
	return out, nil
}

func monitorRunToProto(name string, r monitor.Run) *echov1.MonitorRun {
	out := &echov1.MonitorRun{StartTime: timestamp(r.Start), EndTime: timestamp(r.End), Met: r.Met, Failure: r.Failure}
	if r.Failure != "" {
		return out
	}
	target := runs.Target{Endpoint: r.Target.Endpoint, Address: r.Target.Address, Protocol: r.Target.Protocol}
	out.Report = reportToProto(runs.Run{Name: name, Target: target, State: runs.Done, Report: r.Report})
	judge(out.Report, r.Verdicts)
	if r.Expected {
		out.Report.Met = &r.Met // older runs have not all of their verdicts
	}
	return out
}

func monitorStateToProto(s monitor.State) echov1.Monitor_State {
	switch s {
	case monitor.Waiting:
		return echov1.Monitor_WAITING
	case monitor.Running:
		return echov1.Monitor_RUNNING
	case monitor.Paused:
		return echov1.Monitor_PAUSED
	default:
		return echov1.Monitor_STATE_UNSPECIFIED
	}
}

func monitorVerdictToProto(v monitor.Verdict) echov1.Monitor_Verdict {
	switch v {
	case monitor.Unknown:
		return echov1.Monitor_UNKNOWN
	case monitor.Met:
		return echov1.Monitor_MET
	case monitor.NotMet:
		return echov1.Monitor_NOT_MET
	default:
		return echov1.Monitor_VERDICT_UNSPECIFIED
	}
}
