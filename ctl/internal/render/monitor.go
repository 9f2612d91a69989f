package render

import (
	"fmt"
	"strings"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
)

func monitorRows(list []*echov1.Monitor, now time.Time) *grid {
	g := &grid{header: []string{"NAME", "TARGET", "EVERY", "STATE", "VERDICT", "SINCE", "LAST", "RUNS", "FAILURES", "P50-MS", "LABELS"}}
	for _, m := range list {
		g.add(append(monitorCells(m, now), cell{text: orDash(labelText(m.GetLabels()))})...)
	}
	return g
}

func wideMonitorRows(list []*echov1.Monitor, now time.Time) *grid {
	g := &grid{header: []string{
		"NAME", "TARGET", "EVERY", "STATE", "VERDICT", "SINCE", "LAST", "RUNS", "FAILURES", "P50-MS", "P99-MS", "LOST", "SKIPPED", "LATE", "NEXT",
		"AGE", "UID", "REASON", "LABELS",
	}}
	for _, m := range list {
		r, c := m.GetLastRun().GetReport(), m.GetCounters()
		g.add(append(monitorCells(m, now),
			cell{text: rttText(r, (*echov1.Distribution).GetP99)},
			cell{text: numberIf(r != nil, uint64(r.GetLost()))},
			cell{text: numberIf(c != nil, c.GetSkipped())},
			cell{text: numberIf(c != nil, c.GetLate())},
			cell{text: untilText(now, m)},
			cell{text: age(now, m.GetCreateTime())},
			cell{text: orDash(clean(m.GetUid()))},
			cell{text: runReason(m.GetLastRun())},
			cell{text: orDash(labelText(m.GetLabels()))},
		)...)
	}
	return g
}

func monitorCells(m *echov1.Monitor, now time.Time) []cell {
	c := m.GetCounters()
	return []cell{
		{text: clean(m.GetName())},
		{text: monitorTarget(m)},
		{text: spanText(m.GetInterval())},
		monitorState(m.GetState()),
		monitorVerdict(m.GetVerdict()),
		{text: age(now, m.GetSince())},
		{text: age(now, m.GetLastRun().GetEndTime())}, // a verdict may be old: runs may be skipped
		{text: numberIf(c != nil, c.GetRuns())},
		{text: numberIf(c != nil, c.GetFailures())},
		{text: rttText(m.GetLastRun().GetReport(), (*echov1.Distribution).GetP50)},
	}
}

// monitorTarget is what a monitor probes; a daemon that says nothing of it may be newer.
func monitorTarget(m *echov1.Monitor) string {
	if m.GetProbe().GetTarget() == nil {
		return "-"
	}
	return targetText(m.GetProbe().GetTarget())
}

// untilText says how long it is until the next run, in whole seconds.
func untilText(now time.Time, m *echov1.Monitor) string {
	if m.GetNextRunTime() == nil {
		return "-"
	}
	return span(max(m.GetNextRunTime().AsTime().Sub(now), 0).Round(time.Second))
}

func monitorRunRows(list []*echov1.MonitorRun) *grid {
	g := &grid{header: []string{"START", "VERDICT", "SENT", "RECEIVED", "LOST", "P50-MS", "P99-MS", "REASON"}}
	for _, run := range list {
		g.add(append(monitorRunCells(run), cell{text: runReason(run)})...)
	}
	return g
}

func wideMonitorRunRows(list []*echov1.MonitorRun) *grid {
	g := &grid{header: []string{
		"START", "VERDICT", "SENT", "RECEIVED", "LOST", "P50-MS", "P99-MS", "MAX-MS", "CORRUPTED", "LATE", "ADDRESS", "ELAPSED-MS", "REASON",
	}}
	for _, run := range list {
		r := run.GetReport()
		elapsed := "-"
		if r.GetElapsed() != nil {
			elapsed = milliseconds(r.GetElapsed())
		}
		g.add(append(monitorRunCells(run),
			cell{text: rttText(r, (*echov1.Distribution).GetMax)},
			cell{text: numberIf(r != nil, uint64(r.GetCorrupted()))},
			cell{text: numberIf(r != nil, uint64(r.GetLate()))},
			cell{text: orDash(clean(r.GetAddress()))},
			cell{text: elapsed},
			cell{text: runReason(run)},
		)...)
	}
	return g
}

func monitorRunCells(run *echov1.MonitorRun) []cell {
	r := run.GetReport()
	return []cell{
		{text: runStart(run)},
		metCell(run.GetMet()),
		{text: numberIf(r != nil, uint64(r.GetSent()))},
		{text: numberIf(r != nil, uint64(r.GetReceived()))},
		{text: numberIf(r != nil, uint64(r.GetLost()))},
		{text: rttText(r, (*echov1.Distribution).GetP50)},
		{text: rttText(r, (*echov1.Distribution).GetP99)},
	}
}

func runStart(run *echov1.MonitorRun) string {
	if run.GetStartTime() == nil {
		return "-"
	}
	return run.GetStartTime().AsTime().UTC().Format("2006-01-02T15:04:05.000Z")
}

// runReason says why a run was not as expected, "-" when it was: what kept it from being run, what was not met with what
// was seen, or why there was no reply.
func runReason(run *echov1.MonitorRun) string {
	r := run.GetReport()
	switch {
	case run == nil || run.GetMet():
		return "-"
	case run.GetFailure() != "":
		return clean(run.GetFailure())
	}
	var reasons []string
	for _, v := range r.GetVerdicts() {
		if v.GetMet() {
			continue
		}
		reason := clean(v.GetExpect())
		if why := verdictReason(v); why != "" {
			reason += " (" + why + ")"
		}
		reasons = append(reasons, reason)
	}
	if len(reasons) == 0 {
		for _, e := range r.GetErrors() {
			reasons = append(reasons, reasonText(e.GetReason(), e.GetMessage()))
		}
	}
	if len(reasons) == 0 {
		return "no reply"
	}
	return strings.Join(reasons, "; ")
}

func describeMonitor(m *echov1.Monitor, o Options) *pairs {
	now := o.Now()
	d := &pairs{}
	d.add("Name", clean(m.GetName()))
	d.add("UID", orDash(clean(m.GetUid())))
	d.add("Target", monitorTarget(m))
	d.add("Every", spanText(m.GetInterval()))
	if lines := setFields(m.GetProbe().ProtoReflect(), ""); len(lines) > 0 {
		d.add("Probe", lines...)
	}
	if expect := m.GetProbe().GetExpect(); len(expect) > 0 {
		d.add("Expect", cleanAll(expect)...)
	} else {
		d.add("Expect", "at least one reply")
	}
	d.addCells("State", monitorState(m.GetState()))
	d.addCells("Verdict", monitorVerdict(m.GetVerdict()))
	d.add("Since", moment(now, m.GetSince(), "-"))
	d.add("Next run", untilLine(now, m))
	if c := m.GetCounters(); c != nil {
		d.add("Runs", fmt.Sprintf("%d, %d not as expected, %d skipped, %d late", c.GetRuns(), c.GetFailures(), c.GetSkipped(), c.GetLate()))
	}
	if m.HistoryLimit != nil {
		d.add("History", fmt.Sprintf("%d of up to %d runs", len(m.GetHistory()), m.GetHistoryLimit()))
	}
	d.add("Labels", labelLines(m.GetLabels())...)
	d.add("Description", orDash(clean(m.GetDescription())))
	if run := m.GetLastRun(); run != nil {
		d.addCells("Last run", metCell(run.GetMet()))
		d.add("Last ended", moment(now, run.GetEndTime(), "-"))
		if !run.GetMet() {
			d.add("Reason", runReason(run))
		}
		if r := run.GetReport(); r != nil {
			d.add("Report", summaryLines(r, true, o)...)
		}
	}
	d.add("Created", moment(now, m.GetCreateTime(), "-"))
	d.add("Changed", moment(now, m.GetUpdateTime(), "-"))
	d.add("Etag", orDash(clean(m.GetEtag())))
	return d
}

func untilLine(now time.Time, m *echov1.Monitor) string {
	if m.GetNextRunTime() == nil {
		return "-"
	}
	return m.GetNextRunTime().AsTime().UTC().Format(time.RFC3339) + " (in " + untilText(now, m) + ")"
}

// setFields writes what a monitor's probe says, a line for each field that is there: the daemon keeps a monitor's probe as
// it was given, and what it leaves open is the default of each run. Target and expectations have lines of their own.
func setFields(m protoreflect.Message, prefix string) (lines []string) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		name := prefix + field.JSONName()
		if !m.Has(field) || field.IsList() || field.IsMap() || name == "target" {
			continue
		}
		switch value := m.Get(field); {
		case field.Enum() != nil:
			lines = append(lines, fmt.Sprintf("%s: %v", name, enumText(field, value.Enum())))
		case field.Message() == nil:
			lines = append(lines, name+": "+clean(value.String()))
		default:
			if d, ok := value.Message().Interface().(*durationpb.Duration); ok {
				lines = append(lines, name+": "+span(d.AsDuration()))
				continue
			}
			lines = append(lines, setFields(value.Message(), name+".")...)
		}
	}
	return lines
}

func enumText(field protoreflect.FieldDescriptor, number protoreflect.EnumNumber) string {
	if value := field.Enum().Values().ByNumber(number); value != nil {
		return string(value.Name())
	}
	return fmt.Sprint(number)
}

func metCell(met bool) cell {
	if met {
		return monitorVerdict(echov1.Monitor_MET)
	}
	return monitorVerdict(echov1.Monitor_NOT_MET)
}

func monitorVerdict(v echov1.Monitor_Verdict) cell {
	switch v {
	case echov1.Monitor_VERDICT_UNSPECIFIED:
		return cell{text: "-"}
	case echov1.Monitor_UNKNOWN:
		return cell{text: v.String(), style: dim}
	case echov1.Monitor_MET:
		return cell{text: v.String(), style: green}
	case echov1.Monitor_NOT_MET:
		return cell{text: v.String(), style: red}
	default:
		return cell{text: v.String()}
	}
}

func monitorState(s echov1.Monitor_State) cell {
	switch s {
	case echov1.Monitor_STATE_UNSPECIFIED:
		return cell{text: "-"}
	case echov1.Monitor_RUNNING:
		return cell{text: s.String(), style: green}
	case echov1.Monitor_PAUSED:
		return cell{text: s.String(), style: dim}
	default:
		return cell{text: s.String()}
	}
}
