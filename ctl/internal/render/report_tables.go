package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// maxTableRows is how many rows a table in a report has, unless it is wide.
const maxTableRows = 20

// section writes a table under its title, and what is to be said of rows that it leaves out.
func section(title string, g *grid, leftOut string, o Options) []string {
	var b strings.Builder
	// A strings.Builder takes everything. A report's tables are not cut: only their last column could be.
	_ = g.write(&b, Options{Color: o.Color})
	lines := []string{title + ":"}
	for line := range strings.SplitSeq(strings.TrimSuffix(b.String(), "\n"), "\n") {
		lines = append(lines, "  "+line)
	}
	if leftOut != "" {
		lines = append(lines, "  "+leftOut)
	}
	return lines
}

// figure is one time of a distribution, or "-" where there is none: never 0.
func figure(d *echov1.Distribution, of func(*echov1.Distribution) *durationpb.Duration) cell {
	if d == nil || of(d) == nil {
		return cell{text: "-"}
	}
	return cell{text: milliseconds(of(d))}
}

// outageLines are the outages by their start; where they are too many, the longest. That nothing was ever received has
// been said before.
func outageLines(r *echov1.ProbeReport, wide bool, o Options) []string {
	if len(r.GetOutages()) == 0 || !wide && r.GetReceived() == 0 {
		return nil
	}
	shown := slices.Clone(r.GetOutages())
	if !wide && len(shown) > maxTableRows {
		slices.SortStableFunc(shown, func(a, b *echov1.Outage) int {
			return cmp.Compare(b.GetLength().AsDuration(), a.GetLength().AsDuration())
		})
		shown = shown[:maxTableRows]
		slices.SortStableFunc(shown, func(a, b *echov1.Outage) int { return a.GetStart().AsTime().Compare(b.GetStart().AsTime()) })
	}
	several := len(r.GetFlows()) > 1
	g := &grid{header: []string{"START", "LENGTH", "LOST"}}
	if several {
		g.header = append(g.header, "FLOW")
	}
	for _, outage := range shown {
		length := seconds3(outage.GetLength().AsDuration())
		if outage.GetOpen() {
			length += ", open"
		}
		row := []cell{
			{text: outage.GetStart().AsTime().UTC().Format("2006-01-02T15:04:05.000Z")},
			{text: length},
			{text: number(outage.GetLost())},
		}
		if several {
			row = append(row, cell{text: number(outage.GetFlow())})
		}
		g.add(row...)
	}
	leftOut := ""
	if more := uint64(len(r.GetOutages())-len(shown)) + uint64(r.GetMoreOutages()); more > 0 {
		leftOut = fmt.Sprintf("and %d more, none of them longer", more)
	}
	return section("outages", g, leftOut, o)
}

// seconds3 writes a time exact to the millisecond, "1.200 s".
func seconds3(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }

// flowLines are the flows by number; where they are too many, those that stand out come first and leave room for others.
func flowLines(r *echov1.ProbeReport, wide bool, o Options) []string {
	if len(r.GetFlows()) < 2 {
		return nil
	}
	shown := slices.Clone(r.GetFlows())
	standsOut := func(f *echov1.FlowReport) bool { return len(f.GetOutlier()) > 0 }
	slices.SortStableFunc(shown, func(a, b *echov1.FlowReport) int {
		switch {
		case standsOut(a) == standsOut(b):
			return cmp.Compare(a.GetFlow(), b.GetFlow())
		case standsOut(a):
			return -1
		default:
			return 1
		}
	})
	leftOut := ""
	if !wide && len(shown) > maxTableRows {
		rest := shown[maxTableRows:]
		shown = shown[:maxTableRows]
		leftOut = fmt.Sprintf("and %d more (-o wide shows all)", len(rest))
	}
	g := &grid{header: []string{"FLOW", "SOURCE", "SENT", "RECEIVED", "LOST", "P50-MS", "P99-MS", "MAX-MS", "OUTLIER"}}
	for _, f := range shown {
		outlier := cell{text: "-"}
		if standsOut(f) {
			outlier = cell{text: strings.Join(cleanAll(f.GetOutlier()), ", "), style: red}
		}
		g.add(cell{text: number(f.GetFlow())}, cell{text: orDash(clean(f.GetSource()))},
			cell{text: number(f.GetSent())}, cell{text: number(f.GetReceived())}, cell{text: number(f.GetLost())},
			figure(f.GetRtt(), (*echov1.Distribution).GetP50), figure(f.GetRtt(), (*echov1.Distribution).GetP99),
			figure(f.GetRtt(), (*echov1.Distribution).GetMax), outlier)
	}
	return section("flows", g, leftOut, o)
}

// sizeLines are the payload sizes of a sweep.
func sizeLines(r *echov1.ProbeReport, o Options) []string {
	if len(r.GetSizes()) == 0 {
		return nil
	}
	g := &grid{header: []string{"SIZE", "SENT", "RECEIVED", "LOST", "MIN-MS", "P50-MS", "P99-MS", "MAX-MS"}}
	for _, s := range r.GetSizes() {
		g.add(cell{text: number(s.GetPayloadSize())},
			cell{text: number(s.GetSent())}, cell{text: number(s.GetReceived())}, cell{text: number(s.GetLost())},
			figure(s.GetRtt(), (*echov1.Distribution).GetMin), figure(s.GetRtt(), (*echov1.Distribution).GetP50),
			figure(s.GetRtt(), (*echov1.Distribution).GetP99), figure(s.GetRtt(), (*echov1.Distribution).GetMax))
	}
	return section("sizes", g, "", o)
}
