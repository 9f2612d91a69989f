package rpc

import (
	"math"
	"net/netip"
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
		Pacing:        pacingFromProto(p.GetPacing()),
		Flows:         int(p.GetFlows()),
		Sizes:         sweepSizes(p.GetPayloadSweep()),
		DSCP:          uint8(p.GetIp().GetDscp()),
		DontFragment:  p.GetIp().GetDontFragment(),
		TTL:           uint8(p.GetIp().GetTtl()),
		NewConnection: p.GetTcp().GetNewConnection(),
		AwaitClose:    p.GetTcp().GetAwaitClose(),
	}
	if rate := p.GetRate(); rate > 0 {
		plan.Interval = time.Duration(math.Round(float64(time.Second) / rate))
	}
	plan.Source = sourceFromProto(p.GetSource())
	plan.SourceNamespace, plan.SourceInterface = p.GetSource().GetNetworkNamespace(), p.GetSource().GetInterface()
	if p.Count == nil && plan.Duration == 0 {
		plan.Count = probe.DefaultCount
	}
	if p.PayloadSize != nil {
		plan.PayloadBytes = int(p.GetPayloadSize())
	}
	if m := p.GetPathMtu(); m != nil {
		plan.PathMTU = &probe.PathMTUSearch{MaxPayload: int(m.GetMaxPayload())}
		plan.PayloadBytes = 0
		if p.Count == nil {
			plan.Count = probe.DefaultTries
		}
	}
	return plan
}

// sweepSizes lists the payloads of a sweep; nil when there is none.
func sweepSizes(sweep *echov1.PayloadSweep) (sizes []int) {
	if sweep == nil {
		return nil
	}
	for size := sweep.GetFrom(); size <= sweep.GetTo(); size += sweep.GetStep() {
		sizes = append(sizes, int(size))
	}
	return sizes
}

func sweepToProto(sizes []int) *echov1.PayloadSweep {
	if len(sizes) < 2 {
		return nil
	}
	return &echov1.PayloadSweep{From: uint32(sizes[0]), To: uint32(sizes[len(sizes)-1]), Step: uint32(sizes[1] - sizes[0])}
}

// sourceFromProto reads an address that the contract has checked.
func sourceFromProto(s *echov1.ProbeSource) netip.AddrPort {
	address, _ := netip.ParseAddr(s.GetAddress())
	return netip.AddrPortFrom(address.Unmap(), uint16(s.GetPort()))
}

func sourceToProto(p probe.Plan) *echov1.ProbeSource {
	if p.Source == (netip.AddrPort{}) && p.SourceNamespace == "" && p.SourceInterface == "" {
		return nil
	}
	out := &echov1.ProbeSource{Port: uint32(p.Source.Port()), NetworkNamespace: p.SourceNamespace, Interface: p.SourceInterface}
	if p.Source.Addr().IsValid() {
		out.Address = p.Source.Addr().String()
	}
	return out
}

func probeToProto(r runs.Run) *echov1.Probe {
	payload, flows := uint32(r.Plan.PayloadBytes), uint32(max(r.Plan.Flows, 1))
	p := &echov1.Probe{
		Name: r.Name, Uid: r.UID, Target: targetToProto(r.Target),
		Count: &r.Plan.Count, Duration: durationpb.New(r.Plan.Duration), Interval: durationpb.New(r.Plan.Interval),
		Timeout: durationpb.New(r.Plan.Timeout), Pacing: pacingToProto(r.Plan), Flows: &flows, PayloadSize: &payload,
		PayloadSweep: sweepToProto(r.Plan.Sizes), Source: sourceToProto(r.Plan),
		Expect: r.Target.Expect.Texts(), State: runStateToProto(r.State), Report: reportToProto(r),
		CreateTime: timestamp(r.CreateTime), EndTime: timestamp(r.EndTime),
	}
	if len(r.Plan.Sizes) > 0 {
		p.PayloadSize = nil
	}
	if m := r.Plan.PathMTU; m != nil {
		p.PayloadSize, p.PathMtu = nil, &echov1.PathMtuSearch{MaxPayload: uint32(m.MaxPayload)}
	}
	if r.Plan.DSCP != 0 || r.Plan.DontFragment || r.Plan.TTL != 0 {
		p.Ip = &echov1.IpOptions{Dscp: uint32(r.Plan.DSCP), DontFragment: r.Plan.DontFragment, Ttl: uint32(r.Plan.TTL)}
	}
	if r.Target.Ledger != "" {
		p.Ledger = &echov1.LedgerSource{Address: r.Target.Ledger}
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
		Duplicated: m.Duplicated, Reordered: m.Reordered, WrongAddress: m.WrongAddress, Ignored: m.Ignored,
		DroppedHere: m.DroppedHere,
		Rtt:         distributionToProto(m.RTT), ApplicationRtt: distributionToProto(m.ApplicationRTT),
		Connect: distributionToProto(m.Connect), Jitter: optionalDuration(m.Jitter), Ipdv: distributionToProto(m.IPDV),
		Timestamps: timestampsToProto(m.Timestamps), Schedule: scheduleToProto(m.Schedule), Loss: lossToProto(m.Loss),
		MoreOutages: m.MoreOutages, Coverage: coverageToProto(m.Flows), StartTime: timestamp(m.Start),
		Directions: directionsToProto(m.Run, m.Directions),
	}
	out.PathMtu = pathMTUToProto(m.PathMTU)
	for _, o := range m.Outages {
		out.Outages = append(out.Outages, &echov1.Outage{
			Flow: uint32(o.Flow), Start: timestamp(m.Start.Add(o.Start)), Length: durationpb.New(o.Length), Lost: o.Lost, Open: o.Open,
		})
	}
	if t := m.Throughput; t != nil {
		out.Throughput = &echov1.Throughput{SentBitsPerSecond: t.Sent, ReceivedBitsPerSecond: t.Received}
	}
	for i, f := range m.Flows {
		out.Flows = append(out.Flows, flowToProto(i, f))
	}
	for _, s := range m.Sizes {
		out.Sizes = append(out.Sizes, &echov1.SizeReport{
			PayloadSize: uint32(s.PayloadBytes), Sent: s.Sent, Received: s.Received, Lost: s.Lost, Corrupted: s.Corrupted, Late: s.Late, Rtt: distributionToProto(s.RTT),
		})
	}
	for _, e := range m.Errors {
		out.Errors = append(out.Errors, &echov1.ErrorCount{Reason: string(e.Reason), Count: e.Count, Message: e.Message})
	}
	judge(out, r.Target.Expect.Judge(m))
	return out
}

func distributionToProto(d *probe.Distribution) *echov1.Distribution {
	if d == nil {
		return nil
	}
	out := &echov1.Distribution{
		Count: d.Count, Min: durationpb.New(d.Min), Mean: durationpb.New(d.Mean), P50: durationpb.New(d.P50),
		P90: durationpb.New(d.P90), P95: durationpb.New(d.P95), P99: durationpb.New(d.P99), P999: durationpb.New(d.P999), Max: durationpb.New(d.Max),
		Stddev: durationpb.New(d.StdDev),
	}
	for _, b := range d.Buckets {
		out.Buckets = append(out.Buckets, &echov1.Bucket{Upper: durationpb.New(b.Upper), Count: b.Count})
	}
	return out
}

func flowToProto(number int, f probe.FlowReport) *echov1.FlowReport {
	out := &echov1.FlowReport{
		Flow: uint32(number), Source: addressText(f.Source), Sent: f.Sent, Received: f.Received, Lost: f.Lost, Corrupted: f.Corrupted, Late: f.Late,
		Rtt: distributionToProto(f.RTT),
	}
	if f.LossOutlier {
		out.Outlier = append(out.Outlier, "loss")
	}
	if f.RTTOutlier {
		out.Outlier = append(out.Outlier, "rtt")
	}
	return out
}

// coverageToProto says for 2, 4, 8 and so on paths how likely the flows took them all; nothing for a single flow. One that
// never had a socket took none.
func coverageToProto(reports []probe.FlowReport) (out []*echov1.PathCoverage) {
	flows := 0
	for _, f := range reports {
		if f.Source.IsValid() {
			flows++
		}
	}
	for paths := 2; paths <= flows; paths *= 2 {
		out = append(out, &echov1.PathCoverage{Paths: uint32(paths), Probability: probe.Coverage(flows, paths)})
	}
	return out
}

func pathMTUToProto(m *probe.PathMTU) *echov1.PathMtu {
	if m == nil {
		return nil
	}
	out := &echov1.PathMtu{
		Payload: numberIf(m.PayloadBytes), Mtu: numberIf(m.MTU), Limit: mtuLimitToProto(m.Limit), TooBig: numberIf(m.TooBig),
		ReportedMtu: numberIf(m.ReportedMTU),
	}
	if m.Router.IsValid() {
		out.Router = m.Router.String()
	}
	return out
}

func mtuLimitToProto(l probe.MTULimit) echov1.PathMtu_Limit {
	switch l {
	case probe.LimitLocal:
		return echov1.PathMtu_LOCAL
	case probe.LimitReported:
		return echov1.PathMtu_REPORTED
	case probe.LimitSilent:
		return echov1.PathMtu_SILENT
	case probe.LimitMaxPayload:
		return echov1.PathMtu_MAX_PAYLOAD
	case probe.LimitTruncated:
		return echov1.PathMtu_TRUNCATED
	default:
		return echov1.PathMtu_LIMIT_UNSPECIFIED
	}
}

// numberIf answers nothing for 0.
func numberIf(n int) *uint32 {
	if n == 0 {
		return nil
	}
	return new(uint32(n))
}

func timestampsToProto(t probe.Timestamps) *echov1.Timestamps {
	if t.Clock == 0 {
		return nil
	}
	return &echov1.Timestamps{
		Source: clockToProto(t.Clock), Resolution: durationpb.New(t.Resolution), Uncertainty: durationIf(t.Uncertainty),
		Missing: t.Missing, Paused: t.Paused, LongestPause: durationIf(t.LongestPause),
	}
}

func scheduleToProto(s *probe.Schedule) *echov1.Schedule {
	if s == nil {
		return nil
	}
	return &echov1.Schedule{Error: distributionToProto(s.Error), Late: s.Late, Moved: s.Moved, Omitted: s.Omitted}
}

func lossToProto(l *probe.Loss) *echov1.Loss {
	if l == nil {
		return nil
	}
	return &echov1.Loss{Ratio: l.Ratio, UpperBound: l.UpperBound, Bursts: l.Bursts, LongestBurst: l.LongestBurst}
}

func sampleToProto(s probe.Sample) *echov1.Sample {
	return &echov1.Sample{
		Seq: s.Seq, Outcome: outcomeToProto(s.Outcome), Rtt: optionalDuration(s.RTT), Connect: optionalDuration(s.Connect),
		Reason: string(s.Reason), Message: s.Err, Flow: uint32(s.Flow), SentAfter: durationpb.New(s.Left),
		ApplicationRtt: optionalDuration(s.ApplicationRTT), Paused: s.Paused, PayloadSize: uint32(s.PayloadBytes),
	}
}

func aggregateToProto(a probe.Aggregate) *echov1.Aggregate {
	return &echov1.Aggregate{
		Until: durationpb.New(a.Until), Sent: a.Sent, Received: a.Received, Lost: a.Lost, Corrupted: a.Corrupted, Late: a.Late,
		Duplicated: a.Duplicated, Rtt: distributionToProto(a.RTT),
	}
}

func optionalDuration(d *time.Duration) *durationpb.Duration {
	if d == nil {
		return nil
	}
	return durationpb.New(*d)
}

// durationIf answers nothing for 0.
func durationIf(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
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
	case probe.WrongAddress:
		return echov1.Sample_WRONG_ADDRESS
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

func pacingFromProto(p echov1.Probe_Pacing) probe.Pacing {
	switch p {
	case echov1.Probe_POISSON:
		return probe.Poisson
	case echov1.Probe_CLOSED:
		return probe.Closed
	default:
		return probe.Fixed
	}
}

// pacingToProto tells how rounds are paced in fact: without an interval the loop is closed, whatever was asked for.
func pacingToProto(p probe.Plan) echov1.Probe_Pacing {
	switch {
	case p.Interval == 0, p.Pacing == probe.Closed:
		return echov1.Probe_CLOSED
	case p.Pacing == probe.Poisson:
		return echov1.Probe_POISSON
	default:
		return echov1.Probe_FIXED
	}
}

func clockToProto(c probe.Clock) echov1.Timestamps_Source {
	switch c {
	case probe.UserClock:
		return echov1.Timestamps_USER
	case probe.KernelClock:
		return echov1.Timestamps_KERNEL
	case probe.HardwareClock:
		return echov1.Timestamps_HARDWARE
	default:
		return echov1.Timestamps_SOURCE_UNSPECIFIED
	}
}
