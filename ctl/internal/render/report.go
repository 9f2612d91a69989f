package render

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// probeHeadline says what is about to happen, as ping's first line does.
func probeHeadline(p *echov1.Probe) string {
	var b strings.Builder
	b.WriteString("probing " + targetText(p.GetTarget()))
	if t := p.GetTarget(); t.GetEndpoint() != "" {
		detail := strings.TrimSpace(strings.ToLower(protocolText(t.GetProtocol())) + " " + clean(probeAddress(p)))
		if detail != "-" {
			b.WriteString(" (" + detail + ")")
		}
	}
	if p.GetPathMtu() != nil {
		b.WriteString(": " + pathMTUSearchText(p))
		return b.String()
	}
	b.WriteString(": " + sizeText(p) + " bytes")
	switch bound := boundText(p); {
	case p.GetCount() > 0:
		b.WriteString(", " + bound + " round trips")
	case p.GetDuration().AsDuration() > 0:
		b.WriteString(", " + bound)
	default:
		b.WriteString(", until stopped")
	}
	if d := p.GetInterval().AsDuration(); d > 0 {
		b.WriteString(", one every " + span(d) + pacingText(p.GetPacing()))
	}
	if p.GetFlows() > 1 {
		b.WriteString(", " + number(p.GetFlows()) + " flows")
	}
	return b.String()
}

// pacingText says what is to be said of how rounds keep to their interval.
func pacingText(p echov1.Probe_Pacing) string {
	switch p {
	case echov1.Probe_POISSON:
		return " on average"
	case echov1.Probe_CLOSED:
		return " at most"
	default:
		return ""
	}
}

// sizeText is the payload of a probe's rounds: "64", or "64 to 1400" where it varies.
func sizeText(p *echov1.Probe) string {
	if sweep := p.GetPayloadSweep(); sweep != nil {
		return number(sweep.GetFrom()) + " to " + number(sweep.GetTo())
	}
	return number(p.GetPayloadSize())
}

// probeAddress is where the rounds go, as far as it is known when the probe begins.
func probeAddress(p *echov1.Probe) string {
	if a := p.GetReport().GetAddress(); a != "" {
		return a
	}
	return p.GetTarget().GetAddress()
}

// sampleLine writes one round trip as ping does.
func sampleLine(p *echov1.Probe, s *echov1.Sample) string {
	var b strings.Builder
	switch s.GetOutcome() {
	case echov1.Sample_RECEIVED:
		from := probeAddress(p)
		if from == "" {
			from = p.GetTarget().GetEndpoint()
		}
		size := p.GetPayloadSize()
		if p.GetPayloadSweep() != nil || p.GetPathMtu() != nil {
			size = s.GetPayloadSize()
		}
		fmt.Fprintf(&b, "%d bytes from %s: seq=%d", size, clean(from), s.GetSeq())
	default:
		outcome := strings.ToLower(s.GetOutcome().String())
		fmt.Fprintf(&b, "seq=%d %s", s.GetSeq(), outcome)
		if p.GetPathMtu() != nil {
			fmt.Fprintf(&b, " of %d bytes", s.GetPayloadSize())
		}
		switch {
		case s.GetReason() == outcome && s.GetMessage() != "":
			b.WriteString(": " + clean(s.GetMessage()))
		case s.GetReason() != "" && s.GetReason() != outcome:
			b.WriteString(": " + reasonText(s.GetReason(), s.GetMessage()))
		}
	}
	if s.GetRtt() != nil {
		b.WriteString(" time=" + milliseconds(s.GetRtt()) + " ms")
	}
	if s.GetConnect() != nil {
		b.WriteString(" connect=" + milliseconds(s.GetConnect()) + " ms")
	}
	if p.GetFlows() > 1 {
		b.WriteString(" flow=" + number(s.GetFlow()))
	}
	if s.GetPaused() {
		b.WriteString(" (paused)")
	}
	return b.String()
}

// reasonText adds the words to a reason, unless they say nothing more.
func reasonText(reason, message string) string {
	if message == "" || message == reason {
		return clean(reason)
	}
	return clean(reason) + " (" + clean(message) + ")"
}

// reportLines are the summary of a report under its headline; what became of expectations comes last.
func reportLines(r *echov1.ProbeReport, wide bool, o Options) []string {
	headline := "--- " + targetText(r.GetTarget()) + " probe statistics ---"
	lines := append([]string{headline}, summaryLines(r, wide, o)...)
	if o.Histogram {
		lines = append(lines, histogramLines("rtt", r.GetRtt(), o)...)
	}
	lines = append(lines, directionLines(r, wide)...)
	return append(lines, verdictLines(r)...)
}

// summaryLines say what a report says, each kind of thing only where there is something to say; wide has all there is.
func summaryLines(r *echov1.ProbeReport, wide bool, o Options) []string {
	lines := []string{totalsLine(r)}
	for _, line := range []string{
		pathMTULine(r),
		distributionLine("rtt", r.GetRtt(), wide),
		applicationLine(r, wide),
		distributionLine("connect", r.GetConnect(), wide),
		jitterLine(r),
		timestampsLine(r),
		scheduleLine(r, wide),
		burstsLine(r, wide),
		oddities(r),
		unknownLine(r),
		errorsLine(r),
		throughputLine(r, wide),
		coverageLine(r),
	} {
		if line != "" {
			lines = append(lines, line)
		}
	}
	lines = append(lines, outageLines(r, wide, o)...)
	lines = append(lines, flowLines(r, wide, o)...)
	return append(lines, sizeLines(r, o)...)
}

func totalsLine(r *echov1.ProbeReport) string {
	line := fmt.Sprintf("%d sent, %d received, %d lost", r.GetSent(), r.GetReceived(), r.GetLost())
	if r.GetLate() > 0 {
		line += ", " + number(r.GetLate()) + " late"
	}
	if share := lossText(r); share != "" {
		line += " (" + share + ")"
	}
	if r.GetElapsed() != nil {
		line += ", time " + seconds(r.GetElapsed().AsDuration()) + " s"
	}
	if r.GetState() == echov1.Probe_STOPPED {
		line += ", stopped"
	}
	return line
}

// lossText is the share that had no reply in time, and what it may be in truth: none of a few is no promise of none.
func lossText(r *echov1.ProbeReport) string {
	text := ""
	missing := r.GetLost() + r.GetLate()
	if ended := r.GetSent() - r.GetOutstanding(); missing > 0 && ended > 0 {
		text = percent(missing, ended) + " %"
	}
	if r.GetLoss() == nil || missing == r.GetSent() {
		return text
	}
	bound := boundPercent(r.GetLoss().GetUpperBound())
	if text != "" {
		text += ", "
	}
	return text + "at most " + bound + " % with 95 % confidence"
}

// boundPercent writes an upper bound with two digits, rounded up so that it stays one.
func boundPercent(ratio float64) string {
	share := 100 * min(max(ratio, 0), 1)
	if share == 0 {
		return "0"
	}
	unit := math.Pow(10, math.Floor(math.Log10(share))-1)
	// What only computing has put over a step stays on it.
	steps := math.Ceil(share/unit - 1e-6)
	return strconv.FormatFloat(steps*unit, 'g', 3, 64)
}

// applicationLine tells the round trips as the daemon's process saw them, where that is something else.
func applicationLine(r *echov1.ProbeReport, wide bool) string {
	a, n := r.GetApplicationRtt(), r.GetRtt()
	if a == nil {
		return ""
	}
	apart := func(of func(*echov1.Distribution) *durationpb.Duration) bool {
		application, network := of(a).AsDuration(), of(n).AsDuration()
		return application-network > network/5
	}
	if !wide && n != nil && !apart((*echov1.Distribution).GetP50) && !apart((*echov1.Distribution).GetP99) {
		return ""
	}
	return distributionLine("application rtt", a, wide)
}

// jitterLine says how much round trips differ from one to the next.
func jitterLine(r *echov1.ProbeReport) string {
	var parts []string
	if j := r.GetJitter(); j != nil {
		parts = append(parts, "jitter "+milliseconds(j)+" ms")
	}
	if d := r.GetIpdv(); d != nil {
		parts = append(parts, "ipdv p50/p99 = "+milliseconds(d.GetP50())+"/"+milliseconds(d.GetP99())+" ms")
	}
	return strings.Join(parts, ", ")
}

// timestampsLine says who took the times, how far they may be off, and what that did to them.
func timestampsLine(r *echov1.ProbeReport) string {
	t := r.GetTimestamps()
	if t.GetSource() == echov1.Timestamps_SOURCE_UNSPECIFIED || r.GetRtt() == nil && t.GetPaused() == 0 {
		return ""
	}
	line := "timestamps: " + strings.ToLower(t.GetSource().String())
	if t.GetUncertainty() != nil {
		line += " (±" + precision(t.GetUncertainty().AsDuration()) + ")"
	}
	if n := t.GetMissing(); n > 0 {
		line += ", missing for " + plural(n, "round")
	}
	if n := t.GetPaused(); n > 0 {
		line += ", paused in " + plural(n, "round")
		if t.GetLongestPause() != nil {
			line += " for up to " + milliseconds(t.GetLongestPause()) + " ms"
		}
		if t.GetSource() == echov1.Timestamps_USER && r.GetRtt().GetCount() < r.GetReceived() {
			line += ": not in rtt"
		}
	}
	return line
}

// precision writes a small time in its unit, "0.035 us", "1.2 us" or "3.4 ms".
func precision(d time.Duration) string {
	switch {
	case d < time.Microsecond:
		return strconv.FormatFloat(float64(d)/float64(time.Microsecond), 'f', 3, 64) + " us"
	case d < time.Millisecond:
		return strconv.FormatFloat(float64(d)/float64(time.Microsecond), 'f', 1, 64) + " us"
	}
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 1, 64) + " ms"
}

func plural(n uint32, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return number(n) + " " + what + "s"
}

// scheduleLine says how well rounds left at their times, when they did not or all is to be told.
func scheduleLine(r *echov1.ProbeReport, wide bool) string {
	s := r.GetSchedule()
	if s == nil || !wide && s.GetLate() == 0 && s.GetMoved() == 0 {
		return ""
	}
	line := "schedule: " + plural(s.GetLate(), "round") + " left late"
	if s.GetMoved() > 0 {
		line += ", moved " + plural(s.GetMoved(), "time")
	}
	if s.GetOmitted() > 0 {
		line += ", " + plural(s.GetOmitted(), "round") + " omitted"
	}
	if d := s.GetError(); d != nil {
		line += ", error p50/p99/max = " + milliseconds(d.GetP50()) + "/" + milliseconds(d.GetP99()) + "/" + milliseconds(d.GetMax()) + " ms"
	}
	return line
}

// burstsLine says how losses went together, when some did and not all were lost.
func burstsLine(r *echov1.ProbeReport, wide bool) string {
	l := r.GetLoss()
	if l.GetBursts() == 0 || !wide && (l.GetLongestBurst() < 2 || r.GetReceived() == 0) {
		return ""
	}
	return "no reply in time in " + plural(l.GetBursts(), "burst") + ", the longest of " + plural(l.GetLongestBurst(), "round")
}

// unknownLine says what nobody can know when a datagram has no room to say which it is.
func unknownLine(r *echov1.ProbeReport) string {
	if r.GetTarget().GetProtocol() != echov1.Protocol_UDP || r.GetSent() == 0 || r.Duplicated != nil || r.Reordered != nil {
		return ""
	}
	return "duplicated and reordered: unknown (the payload has no room for a sequence number)"
}

func errorsLine(r *echov1.ProbeReport) string {
	if len(r.GetErrors()) == 0 {
		return ""
	}
	parts := make([]string, len(r.GetErrors()))
	for i, e := range r.GetErrors() {
		parts[i] = reasonText(e.GetReason()+" "+number(e.GetCount()), e.GetMessage())
	}
	return "errors: " + strings.Join(parts, ", ")
}

// What a few pings move is of no interest: a throughput is worth a line from so many bits a second and rounds on.
const (
	tellingBits   = 1e6
	tellingRounds = 100
)

func throughputLine(r *echov1.ProbeReport, wide bool) string {
	t := r.GetThroughput()
	if t == nil || !wide && (t.GetSentBitsPerSecond() < tellingBits || r.GetSent() < tellingRounds) {
		return ""
	}
	return "throughput: " + bitRate(t.GetSentBitsPerSecond()) + " sent, " + bitRate(t.GetReceivedBitsPerSecond()) + " received"
}

// bitRate writes bits a second in the largest unit that leaves a digit before the point.
func bitRate(bits float64) string {
	for _, u := range []struct {
		name string
		unit float64
	}{{"Gbit/s", 1e9}, {"Mbit/s", 1e6}, {"kbit/s", 1e3}} {
		if bits >= u.unit {
			return strconv.FormatFloat(bits/u.unit, 'f', 2, 64) + " " + u.name
		}
	}
	return strconv.FormatFloat(bits, 'f', 1, 64) + " bit/s"
}

// coverageLine says how likely the flows took every path that there may be.
func coverageLine(r *echov1.ProbeReport) string {
	var parts []string
	for _, c := range r.GetCoverage() {
		parts = append(parts, number(c.GetPaths())+" paths "+shareOf(c.GetProbability()))
	}
	if len(parts) == 0 {
		return ""
	}
	return "chance that the flows took all of: " + strings.Join(parts, ", ")
}

// percent has as many digits as it takes to tell a little from nothing, and nearly all from all.
func percent[T uint32 | uint64](part, whole T) string {
	share := 100 * float64(part) / float64(whole)
	for digits := 0; digits < 6; digits++ {
		text := strconv.FormatFloat(share, 'f', digits, 64)
		rounded, _ := strconv.ParseFloat(text, 64)
		exact := rounded == share
		near := digits >= 1 && rounded > 0 && rounded < 100
		if exact || near {
			return text
		}
	}
	return strconv.FormatFloat(share, 'g', 2, 64)
}

// distributionLine is ping's last line with percentiles; empty where there is nothing. A single time needs no statistics.
func distributionLine(what string, d *echov1.Distribution, wide bool) string {
	if d == nil {
		return ""
	}
	if d.GetCount() == 1 && d.GetMin() != nil {
		return what + " = " + milliseconds(d.GetMin()) + " ms"
	}
	figures := []struct {
		name  string
		value *durationpb.Duration
		wide  bool
	}{
		{"min", d.GetMin(), false}, {"mean", d.GetMean(), false}, {"p50", d.GetP50(), false},
		{"p90", d.GetP90(), false}, {"p95", d.GetP95(), false}, {"p99", d.GetP99(), false}, {"p999", d.GetP999(), true},
		{"max", d.GetMax(), false}, {"stddev", d.GetStddev(), false},
	}
	var names, values []string
	for _, f := range figures {
		if f.value != nil && (wide || !f.wide) {
			names = append(names, f.name)
			values = append(values, milliseconds(f.value))
		}
	}
	return what + " " + strings.Join(names, "/") + " = " + strings.Join(values, "/") + " ms"
}

// oddities are the counts that are worth a word only when there are any.
func oddities(r *echov1.ProbeReport) string {
	var parts []string
	for _, c := range []struct {
		count uint32
		what  string
	}{
		{r.GetOutstanding(), "on the way when it ended"}, {r.GetCorrupted(), "corrupted"},
		{r.GetDuplicated(), "duplicated"}, {r.GetReordered(), "reordered"}, {r.GetWrongAddress(), "from a wrong address"},
		{r.GetIgnored(), "of no round"}, {r.GetDroppedHere(), "dropped here"},
	} {
		if c.count > 0 {
			parts = append(parts, number(c.count)+" "+c.what)
		}
	}
	return strings.Join(parts, ", ")
}
