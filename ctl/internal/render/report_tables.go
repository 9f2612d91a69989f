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
	late := wide || slices.ContainsFunc(r.GetFlows(), func(f *echov1.FlowReport) bool { return f.GetLate() > 0 })
	corrupted := wide || slices.ContainsFunc(r.GetFlows(), func(f *echov1.FlowReport) bool { return f.GetCorrupted() > 0 })
	g := &grid{header: []string{"FLOW", "SOURCE"}}
	g.header = append(append(g.header, endsHeader(late, corrupted)...), "P50-MS", "P99-MS", "MAX-MS", "OUTLIER")
	for _, f := range shown {
		outlier := cell{text: "-"}
		if standsOut(f) {
			outlier = cell{text: strings.Join(cleanAll(f.GetOutlier()), ", "), style: red}
		}
		row := append([]cell{{text: number(f.GetFlow())}, {text: orDash(clean(f.GetSource()))}}, endsCells(f, late, corrupted)...)
		g.add(append(row, figure(f.GetRtt(), (*echov1.Distribution).GetP50), figure(f.GetRtt(), (*echov1.Distribution).GetP99),
			figure(f.GetRtt(), (*echov1.Distribution).GetMax), outlier)...)
	}
	return section("flows", g, leftOut, o)
}

// ends is what became of the rounds of a flow or of a size.
type ends interface {
	GetSent() uint32
	GetReceived() uint32
	GetLost() uint32
	GetLate() uint32
	GetCorrupted() uint32
}

func endsHeader(late, corrupted bool) []string {
	header := []string{"SENT", "RECEIVED", "LOST"}
	if late {
		header = append(header, "LATE")
	}
	if corrupted {
		header = append(header, "CORRUPTED")
	}
	return header
}

func endsCells(e ends, late, corrupted bool) []cell {
	cells := []cell{{text: number(e.GetSent())}, {text: number(e.GetReceived())}, {text: number(e.GetLost())}}
	if late {
		cells = append(cells, cell{text: number(e.GetLate())})
	}
	if corrupted {
		cells = append(cells, cell{text: number(e.GetCorrupted())})
	}
	return cells
}

// sizeLines are the payload sizes of a sweep.
func sizeLines(r *echov1.ProbeReport, o Options) []string {
	if len(r.GetSizes()) == 0 {
		return nil
	}
	late := slices.ContainsFunc(r.GetSizes(), func(s *echov1.SizeReport) bool { return s.GetLate() > 0 })
	corrupted := slices.ContainsFunc(r.GetSizes(), func(s *echov1.SizeReport) bool { return s.GetCorrupted() > 0 })
	g := &grid{header: append(append([]string{"SIZE"}, endsHeader(late, corrupted)...), "MIN-MS", "P50-MS", "P99-MS", "MAX-MS")}
	for _, s := range r.GetSizes() {
		row := append([]cell{{text: number(s.GetPayloadSize())}}, endsCells(s, late, corrupted)...)
		g.add(append(row, figure(s.GetRtt(), (*echov1.Distribution).GetMin), figure(s.GetRtt(), (*echov1.Distribution).GetP50),
			figure(s.GetRtt(), (*echov1.Distribution).GetP99), figure(s.GetRtt(), (*echov1.Distribution).GetMax))...)
	}
	return section("sizes", g, "", o)
}
