package render

import (
	"fmt"
	"strings"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// directionLines say which way a report's lost rounds were lost. Where they all were refused that is known without: why the
// ledger does not tell is for the wide lines, which also have what the target saw.
func directionLines(r *echov1.ProbeReport, wide bool) (lines []string) {
	d := r.GetDirections()
	switch {
	case d == nil || r.GetLost() == 0:
	case d.GetUnknown() == "":
		line := fmt.Sprintf("lost: %d on the way there, %d on the way back", d.GetLostThere(), d.GetLostBack())
		if n := d.GetLedger().GetUnanswered(); n > 0 {
			line += fmt.Sprintf(" (the target did not answer %d datagrams)", n)
		}
		lines = append(lines, line)
	case wide || refusals(r) < r.GetLost():
		lines = append(lines, "lost: which way is not known ("+clean(d.GetUnknown())+")")
	}
	if l := d.GetLedger(); l != nil && wide {
		lines = append(lines, ledgerLine(r, l))
	}
	return lines
}

func refusals(r *echov1.ProbeReport) uint32 {
	for _, e := range r.GetErrors() {
		if e.GetReason() == "refused" {
			return e.GetCount()
		}
	}
	return 0
}

// ledgerLine tells what the target saw of a probe.
func ledgerLine(r *echov1.ProbeReport, l *echov1.Ledger) string {
	line := fmt.Sprintf("the target saw %d of %d rounds, %d datagrams again, %d reordered", l.GetReceived(), r.GetSent(), l.GetDuplicated(), l.GetReordered())
	switch least, most := l.GetMinTtl(), l.GetMaxTtl(); {
	case l.MinTtl == nil || l.MaxTtl == nil:
	case least == most:
		line += ", TTL " + number(least)
	default:
		line += ", TTL " + number(least) + " to " + number(most)
	}
	if len(l.GetDscp()) > 0 {
		points := make([]string, len(l.GetDscp()))
		for i, d := range l.GetDscp() {
			points[i] = number(d)
		}
		line += ", DSCP " + strings.Join(points, " ")
	}
	return line
}
