package rpc

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/echod/echod/daemon/internal/runs"
	"github.com/echod/echod/daemon/probe"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// planFromProto reads how to probe; what is left open is the daemon's default.
func planFromProto(p *echov1.Probe) probe.Plan {
	plan := probe.Plan{
		Protocol:      probeProtocol(p.GetTarget().GetProtocol()),
		Address:       p.GetTarget().GetAddress(),
		Count:         p.GetCount(),
		Duration:      p.GetDuration().AsDuration(),
		Interval:      durationOr(p.GetInterval(), probe.DefaultInterval),
		Timeout:       durationOr(p.GetTimeout(), probe.DefaultTimeout),
		PayloadBytes:  probe.DefaultPayloadBytes,
		NewConnection: p.GetTcp().GetNewConnection(),
		AwaitClose:    p.GetTcp().GetAwaitClose(),
	}
	if p.Count == nil && plan.Duration == 0 {
		plan.Count = probe.DefaultCount
	}
	if p.PayloadSize != nil {
		plan.PayloadBytes = int(p.GetPayloadSize())
	}
	return plan
}

func probeToProto(r runs.Run) *echov1.Probe {
	payload := uint32(r.Plan.PayloadBytes)
	p := &echov1.Probe{
		Name: r.Name, Uid: r.UID, Target: targetToProto(r.Target),
		Count: &r.Plan.Count, Duration: durationpb.New(r.Plan.Duration), Interval: durationpb.New(r.Plan.Interval),
		Timeout: durationpb.New(r.Plan.Timeout), PayloadSize: &payload,
		State: runStateToProto(r.State), Report: reportToProto(r),
		CreateTime: timestamp(r.CreateTime), EndTime: timestamp(r.EndTime),
	}
	if r.Plan.Protocol == probe.TCP {
		p.Tcp = &echov1.TcpProbeOptions{NewConnection: r.Plan.NewConnection || r.Plan.AwaitClose, AwaitClose: r.Plan.AwaitClose}
	}
	return p
}

func reportToProto(r runs.Run) *echov1.ProbeReport {
	m := r.Report
	out := &echov1.ProbeReport{
		Probe: r.Name, Target: targetToProto(r.Target), Address: addressText(m.Address), State: runStateToProto(r.State),
		Elapsed: durationpb.New(m.Elapsed), PayloadSize: uint32(m.PayloadBytes),
		Sent: m.Sent, Received: m.Received, Lost: m.Lost, Corrupted: m.Corrupted, Late: m.Late, Outstanding: m.Outstanding,
		Duplicated: m.Duplicated, Reordered: m.Reordered,
		Rtt: distributionToProto(m.RTT), Connect: distributionToProto(m.Connect),
	}
	for _, e := range m.Errors {
		out.Errors = append(out.Errors, &echov1.ErrorCount{Reason: string(e.Reason), Count: e.Count, Message: e.Message})
	}
	return out
}

func distributionToProto(d *probe.Distribution) *echov1.Distribution {
	if d == nil {
		return nil
	}
	return &echov1.Distribution{
		Count: d.Count, Min: durationpb.New(d.Min), Mean: durationpb.New(d.Mean), P50: durationpb.New(d.P50),
		P90: durationpb.New(d.P90), P99: durationpb.New(d.P99), P999: durationpb.New(d.P999), Max: durationpb.New(d.Max),
		Stddev: durationpb.New(d.StdDev),
	}
}

func sampleToProto(s probe.Sample) *echov1.Sample {
	return &echov1.Sample{
		Seq: s.Seq, Outcome: outcomeToProto(s.Outcome), Rtt: optionalDuration(s.RTT), Connect: optionalDuration(s.Connect),
		Reason: string(s.Reason), Message: s.Err,
	}
}

func optionalDuration(d *time.Duration) *durationpb.Duration {
	if d == nil {
		return nil
	}
	return durationpb.New(*d)
}

func targetToProto(t runs.Target) *echov1.ProbeTarget {
	out := &echov1.ProbeTarget{Endpoint: t.Endpoint, Address: t.Address, Protocol: echov1.Protocol_UDP}
	if t.Protocol == probe.TCP {
		out.Protocol = echov1.Protocol_TCP
	}
	return out
}

func outcomeToProto(o probe.Outcome) echov1.Sample_Outcome {
	switch o {
	case probe.Received:
		return echov1.Sample_RECEIVED
	case probe.Lost:
		return echov1.Sample_LOST
	case probe.Corrupted:
		return echov1.Sample_CORRUPTED
	case probe.Late:
		return echov1.Sample_LATE
	case probe.Duplicated:
		return echov1.Sample_DUPLICATED
	default:
		return echov1.Sample_OUTCOME_UNSPECIFIED
	}
}

func runStateToProto(s runs.State) echov1.Probe_State {
	switch s {
	case runs.Running:
		return echov1.Probe_RUNNING
	case runs.Done:
		return echov1.Probe_DONE
	case runs.Stopped:
		return echov1.Probe_STOPPED
	default:
		return echov1.Probe_STATE_UNSPECIFIED
	}
}

func probeProtocol(p echov1.Protocol) probe.Protocol {
	switch p {
	case echov1.Protocol_TCP:
		return probe.TCP
	case echov1.Protocol_UDP:
		return probe.UDP
	default:
		return 0
	}
}
