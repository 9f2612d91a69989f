package render

import (
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// pathMTUSearchText says what a search for the path MTU does.
func pathMTUSearchText(p *echov1.Probe) string {
	text := "path mtu"
	if most := p.GetPathMtu().GetMaxPayload(); most > 0 {
		text += ", up to " + number(most) + " bytes"
	}
	text += ", " + number(p.GetCount()) + " tries of a size"
	if d := p.GetDuration().AsDuration(); d > 0 {
		text += ", for " + span(d)
	}
	if d := p.GetInterval().AsDuration(); d > 0 {
		text += ", one every " + span(d)
	}
	return text
}

// pathMTULine says what a search for the path MTU found, and how it is known; nothing where there was none.
func pathMTULine(r *echov1.ProbeReport) string {
	m := r.GetPathMtu()
	if m == nil {
		return ""
	}
	more, known := limitText(m)
	if m.Payload == nil {
		if known {
			return "path mtu unknown: " + more
		}
		if r.GetReceived() > 0 {
			return "path mtu unknown: nothing comes back any more"
		}
		return "path mtu unknown: nothing came back"
	}
	fits := number(m.GetPayload()) + " bytes come back"
	switch {
	case known:
		return "path mtu " + number(m.GetMtu()) + ": " + fits + ", " + more
	case m.TooBig != nil:
		return "path mtu at least " + number(m.GetMtu()) + ": " + fits + ", " + number(m.GetTooBig()) + " do not; what is between is not known"
	default:
		return "path mtu at least " + number(m.GetMtu()) + ": " + fits + "; more is not known"
	}
}

// limitText says what became of more than what came back; false when that is not known.
func limitText(m *echov1.PathMtu) (string, bool) {
	more := number(m.GetTooBig())
	switch m.GetLimit() {
	case echov1.PathMtu_LOCAL:
		return more + " are more than the interface takes", true
	case echov1.PathMtu_REPORTED:
		return more + " are too big (" + reportedText(m) + ")", true
	case echov1.PathMtu_SILENT:
		return more + " vanish without a word", true
	case echov1.PathMtu_MAX_PAYLOAD:
		return "more was not tried", true
	case echov1.PathMtu_TRUNCATED:
		return more + " come back cut short by the server", true
	default:
		return "", false
	}
}

// reportedText says who reported what, as far as that is known.
func reportedText(m *echov1.PathMtu) string {
	text := "reported"
	if m.GetRouter() != "" {
		text += " by " + clean(m.GetRouter())
	}
	if m.ReportedMtu != nil {
		text += ": " + number(m.GetReportedMtu())
	}
	return text
}
