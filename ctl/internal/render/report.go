package render

import (
	"fmt"
	"strconv"
	"strings"

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
	fmt.Fprintf(&b, ": %d bytes", p.GetPayloadSize())
	switch bound := boundText(p); {
	case p.GetCount() > 0:
		b.WriteString(", " + bound + " round trips")
	case p.GetDuration().AsDuration() > 0:
		b.WriteString(", " + bound)
	default:
		b.WriteString(", until stopped")
	}
	if d := p.GetInterval().AsDuration(); d > 0 {
		b.WriteString(", one every " + span(d))
	}
	return b.String()
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
		fmt.Fprintf(&b, "%d bytes from %s: seq=%d", p.GetPayloadSize(), clean(from), s.GetSeq())
	default:
		outcome := strings.ToLower(s.GetOutcome().String())
		fmt.Fprintf(&b, "seq=%d %s", s.GetSeq(), outcome)
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
	return b.String()
}

// reasonText adds the words to a reason, unless they say nothing more.
func reasonText(reason, message string) string {
	if message == "" || message == reason {
		return clean(reason)
	}
	return clean(reason) + " (" + clean(message) + ")"
}

// reportLines are the summary of a report under its headline.
func reportLines(r *echov1.ProbeReport, wide bool) []string {
	headline := "--- " + targetText(r.GetTarget()) + " probe statistics ---"
	return append([]string{headline}, summaryLines(r, wide)...)
}

func summaryLines(r *echov1.ProbeReport, wide bool) []string {
	lines := []string{totalsLine(r)}
	if r.GetRtt() != nil {
		lines = append(lines, distributionLine("rtt", r.GetRtt(), wide))
	}
	if r.GetConnect() != nil {
		lines = append(lines, distributionLine("connect", r.GetConnect(), wide))
	}
	if odd := oddities(r); odd != "" {
		lines = append(lines, odd)
	}
	if len(r.GetErrors()) > 0 {
		parts := make([]string, len(r.GetErrors()))
		for i, e := range r.GetErrors() {
			parts[i] = reasonText(e.GetReason()+" "+number(e.GetCount()), e.GetMessage())
		}
		lines = append(lines, "errors: "+strings.Join(parts, ", "))
	}
	return append(lines, verdictLines(r)...)
}

func totalsLine(r *echov1.ProbeReport) string {
	line := fmt.Sprintf("%d sent, %d received, %d lost", r.GetSent(), r.GetReceived(), r.GetLost())
	if r.GetSent() > 0 {
		line += " (" + percent(r.GetLost(), r.GetSent()) + " %)"
	}
	if r.GetElapsed() != nil {
		line += ", time " + strconv.FormatFloat(r.GetElapsed().AsDuration().Seconds(), 'f', 1, 64) + " s"
	}
	return line
}

// percent has as many digits as it takes to tell a little from nothing, and nearly all from all.
func percent(part, whole uint32) string {
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

// distributionLine is ping's last line with percentiles. A single time needs no statistics.
func distributionLine(what string, d *echov1.Distribution, wide bool) string {
	if d.GetCount() == 1 && d.GetMin() != nil {
		return what + " = " + milliseconds(d.GetMin()) + " ms"
	}
	figures := []struct {
		name  string
		value *durationpb.Duration
		wide  bool
	}{
		{"min", d.GetMin(), false}, {"mean", d.GetMean(), false}, {"p50", d.GetP50(), false},
		{"p90", d.GetP90(), false}, {"p99", d.GetP99(), false}, {"p999", d.GetP999(), true},
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
		{r.GetOutstanding(), "on the way when it ended"}, {r.GetLate(), "late"}, {r.GetCorrupted(), "corrupted"},
		{r.GetDuplicated(), "duplicated"}, {r.GetReordered(), "reordered"},
	} {
		if c.count > 0 {
			parts = append(parts, number(c.count)+" "+c.what)
		}
	}
	return strings.Join(parts, ", ")
}
