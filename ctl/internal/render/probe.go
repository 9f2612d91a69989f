package render

import (
	"strings"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

func probeRows(list []*echov1.Probe, now time.Time) *grid {
	g := &grid{header: []string{"NAME", "TARGET", "STATE", "SENT", "RECEIVED", "LOST", "P50-MS", "AGE"}}
	for _, p := range list {
		g.add(append(probeCells(p), cell{text: age(now, p.GetCreateTime())})...)
	}
	return g
}

func wideProbeRows(list []*echov1.Probe, now time.Time) *grid {
	g := &grid{header: []string{
		"NAME", "TARGET", "STATE", "SENT", "RECEIVED", "LOST", "P50-MS", "P99-MS", "MAX-MS", "CORRUPTED", "LATE",
		"ADDRESS", "BOUND", "INTERVAL", "TIMEOUT", "SIZE", "AGE", "UID",
	}}
	for _, p := range list {
		r := p.GetReport()
		g.add(append(probeCells(p),
			cell{text: rttText(r, (*echov1.Distribution).GetP99)},
			cell{text: rttText(r, (*echov1.Distribution).GetMax)},
			cell{text: numberIf(r != nil, uint64(r.GetCorrupted()))},
			cell{text: numberIf(r != nil, uint64(r.GetLate()))},
			cell{text: orDash(clean(r.GetAddress()))},
			cell{text: boundText(p)},
			cell{text: spanText(p.GetInterval())},
			cell{text: spanText(p.GetTimeout())},
			cell{text: orDash(probeSize(p))},
			cell{text: age(now, p.GetCreateTime())},
			cell{text: orDash(clean(p.GetUid()))},
		)...)
	}
	return g
}

func probeCells(p *echov1.Probe) []cell {
	r := p.GetReport()
	return []cell{
		{text: clean(p.GetName())},
		{text: targetText(p.GetTarget())},
		probeState(p.GetState()),
		{text: numberIf(r != nil, uint64(r.GetSent()))},
		{text: numberIf(r != nil, uint64(r.GetReceived()))},
		{text: numberIf(r != nil, uint64(r.GetLost()))},
		{text: rttText(r, (*echov1.Distribution).GetP50)},
	}
}

// rttText is one figure of the round trips, or "-" when there is none: never 0.
func rttText(r *echov1.ProbeReport, of func(*echov1.Distribution) *durationpb.Duration) string {
	if r.GetRtt() == nil || of(r.GetRtt()) == nil {
		return "-"
	}
	return milliseconds(of(r.GetRtt()))
}

// spanText is a duration of a probe; the daemon fills them all in, so that "-" means a daemon that did not.
func spanText(d *durationpb.Duration) string {
	if d == nil {
		return "-"
	}
	return span(d.AsDuration())
}

// targetText names what is probed: an endpoint by its name, an address with its protocol.
func targetText(t *echov1.ProbeTarget) string {
	if t.GetEndpoint() != "" {
		return clean(t.GetEndpoint())
	}
	return strings.ToLower(t.GetProtocol().String()) + "://" + clean(t.GetAddress())
}

// boundText says how many rounds a probe has: "5", "5 in 10s", "for 10s" or "no bound".
func boundText(p *echov1.Probe) string {
	duration := p.GetDuration().AsDuration()
	switch {
	case p.GetCount() > 0 && duration > 0:
		return number(p.GetCount()) + " in " + span(duration)
	case p.GetCount() > 0:
		return number(p.GetCount())
	case duration > 0:
		return "for " + span(duration)
	default:
		return "no bound"
	}
}

func describeProbe(p *echov1.Probe, o Options) *pairs {
	now := o.Now()
	d := &pairs{}
	d.add("Name", clean(p.GetName()))
	d.add("UID", orDash(clean(p.GetUid())))
	d.add("Target", targetText(p.GetTarget()))
	d.add("Protocol", protocolText(p.GetTarget().GetProtocol()))
	d.add("Address", orDash(clean(p.GetReport().GetAddress())))
	d.addCells("State", probeState(p.GetState()))
	if p.GetPathMtu() != nil {
		d.add("Search", pathMTUSearchText(p))
	} else {
		d.add("Round trips", boundText(p))
	}
	d.add("Interval", spanText(p.GetInterval()))
	if p.GetPacing() != echov1.Probe_PACING_UNSPECIFIED {
		d.add("Pacing", strings.ToLower(p.GetPacing().String()))
	}
	d.add("Timeout", spanText(p.GetTimeout()))
	if size := probeSize(p); size != "" {
		d.add("Payload", size+" bytes")
	}
	if p.GetFlows() > 1 {
		d.add("Flows", number(p.GetFlows()))
	}
	if s := p.GetSource(); s != nil {
		d.add("Source", sourceText(s))
	}
	if ip := p.GetIp(); ip != nil {
		d.add("IP", ipText(ip))
	}
	if tcp := p.GetTcp(); tcp.GetNewConnection() || tcp.GetAwaitClose() {
		text := "a new one for each round trip"
		if tcp.GetAwaitClose() {
			text += ", until the server closes it"
		}
		d.add("Connection", text)
	}
	if len(p.GetExpect()) > 0 {
		d.add("Expected", cleanAll(p.GetExpect())...)
	}
	d.add("Created", moment(now, p.GetCreateTime(), "-"))
	d.add("Ended", moment(now, p.GetEndTime(), "-"))
	if r := p.GetReport(); r != nil {
		d.add("Report", append(summaryLines(r, true, o), verdictLines(r)...)...)
	}
	return d
}

// probeSize is the payload of a probe's rounds, empty where the daemon does not say it.
func probeSize(p *echov1.Probe) string {
	if sweep := p.GetPayloadSweep(); sweep != nil {
		return sizeText(p) + " by " + number(sweep.GetStep())
	}
	if p.PayloadSize == nil {
		return ""
	}
	return sizeText(p)
}

// sourceText is where rounds come from; what was not asked for is the system's choice.
func sourceText(s *echov1.ProbeSource) string {
	var parts []string
	if s.GetAddress() != "" {
		parts = append(parts, clean(s.GetAddress()))
	}
	if s.GetPort() != 0 {
		parts = append(parts, "port "+number(s.GetPort()))
	}
	if s.GetNetworkNamespace() != "" {
		parts = append(parts, "network namespace "+clean(s.GetNetworkNamespace()))
	}
	if s.GetInterface() != "" {
		parts = append(parts, "interface "+clean(s.GetInterface()))
	}
	return strings.Join(parts, ", ")
}

func ipText(ip *echov1.IpOptions) string {
	var parts []string
	if ip.GetDscp() != 0 {
		parts = append(parts, "dscp "+number(ip.GetDscp()))
	}
	if ip.GetDontFragment() {
		parts = append(parts, "don't fragment")
	}
	if ip.GetTtl() != 0 {
		parts = append(parts, "ttl "+number(ip.GetTtl()))
	}
	return orDash(strings.Join(parts, ", "))
}

func probeState(s echov1.Probe_State) cell {
	switch s {
	case echov1.Probe_STATE_UNSPECIFIED:
		return cell{text: "-"}
	case echov1.Probe_RUNNING:
		return cell{text: s.String(), style: green}
	case echov1.Probe_STOPPED:
		return cell{text: s.String(), style: dim}
	default:
		return cell{text: s.String()}
	}
}
