package render

import (
	"strings"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// verdictLines say what became of each expectation, in the order asked.
func verdictLines(r *echov1.ProbeReport) []string {
	lines := make([]string, 0, len(r.GetVerdicts()))
	for _, v := range r.GetVerdicts() {
		line := "NOT MET: "
		if v.GetMet() {
			line = "met: "
		}
		line += clean(v.GetExpect())
		if why := verdictReason(v); why != "" {
			line += " (" + why + ")"
		}
		lines = append(lines, line)
	}
	return lines
}

// verdictReason is what was seen, and what the daemon says besides: "p99 = 3.1ms, lost = 2".
func verdictReason(v *echov1.Verdict) string {
	parts := seenTexts(v)
	if v.GetMessage() != "" {
		parts = append(parts, clean(v.GetMessage()))
	}
	return strings.Join(parts, ", ")
}

// seenTexts are the values that were seen; what is not known is the message's to tell.
func seenTexts(v *echov1.Verdict) []string {
	var parts []string
	for _, s := range v.GetSeen() {
		if s.GetValue() != "" {
			parts = append(parts, clean(s.GetName())+" = "+clean(s.GetValue()))
		}
	}
	return parts
}
