package render

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// EventSubject names what an event is about, "KIND/NAME"; the daemon has no name, and an event about nothing is empty.
func EventSubject(e *echov1.Event) string {
	switch s := e.GetSubject().(type) {
	case *echov1.Event_Endpoint:
		return "endpoint/" + s.Endpoint.GetName()
	case *echov1.Event_Probe:
		return "probe/" + s.Probe.GetName()
	case *echov1.Event_Monitor:
		return "monitor/" + s.Monitor.GetName()
	case *echov1.Event_Daemon:
		return "daemon"
	case *echov1.Event_Traffic:
		return "traffic/" + s.Traffic.GetEndpoint()
	default:
		return ""
	}
}

// Columns of events. Nobody knows what comes, so each has the width that most values keep to; a longer one moves what is
// behind it.
var (
	eventHeader     = []string{"TIME", "EVENT", "SUBJECT", "STATE", "DETAIL"}
	eventWidths     = []int{12, 17, 30, 8, 0}
	wideEventHeader = []string{"REVISION", "TIME", "EVENT", "SUBJECT", "STATE", "UID", "DETAIL", "LABELS"}
	wideEventWidths = []int{8, 24, 17, 30, 8, 36, 32, 0}
)

// eventCells are the columns of a table, in the time zone of now.
func eventCells(e *echov1.Event, now time.Time) []cell {
	at := "-"
	if e.GetTime() != nil {
		at = e.GetTime().AsTime().In(now.Location()).Format("15:04:05.000")
	}
	return []cell{{text: at}, {text: e.GetType().String()}, {text: orDash(clean(EventSubject(e)))}, eventState(e), {text: orDash(eventDetail(e))}}
}

func wideEventCells(e *echov1.Event) []cell {
	at, uid, labels := "-", "", map[string]string(nil)
	if e.GetTime() != nil {
		at = e.GetTime().AsTime().Format("2006-01-02T15:04:05.000Z07:00")
	}
	switch s := e.GetSubject().(type) {
	case *echov1.Event_Endpoint:
		uid, labels = s.Endpoint.GetUid(), s.Endpoint.GetLabels()
	case *echov1.Event_Probe:
		uid = s.Probe.GetUid()
	case *echov1.Event_Monitor:
		uid, labels = s.Monitor.GetUid(), s.Monitor.GetLabels()
	}
	return []cell{
		{text: number(e.GetRevision())}, {text: at}, {text: e.GetType().String()}, {text: orDash(clean(EventSubject(e)))}, eventState(e),
		{text: orDash(clean(uid))}, {text: orDash(eventDetail(e))}, {text: orDash(labelText(labels))},
	}
}

func eventState(e *echov1.Event) cell {
	switch s := e.GetSubject().(type) {
	case *echov1.Event_Endpoint:
		return endpointState(s.Endpoint.GetState())
	case *echov1.Event_Probe:
		return probeState(s.Probe.GetState())
	case *echov1.Event_Monitor:
		return monitorState(s.Monitor.GetState())
	case *echov1.Event_Daemon:
		return daemonState(s.Daemon.GetState())
	default:
		return cell{text: "-"}
	}
}

// eventDetail is what matters most of a subject besides its state.
func eventDetail(e *echov1.Event) string {
	switch s := e.GetSubject().(type) {
	case *echov1.Event_Endpoint:
		text := protocolText(s.Endpoint.GetProtocol()) + " " + orDash(clean(s.Endpoint.GetAddress()))
		if reason := s.Endpoint.GetStateReason(); reason != "" {
			text += ": " + clean(reason)
		}
		return text
	case *echov1.Event_Probe:
		text := targetText(s.Probe.GetTarget())
		if s.Probe.GetEndTime() != nil {
			text += ": " + reportText(s.Probe.GetReport())
		}
		return text
	case *echov1.Event_Monitor:
		text := "verdict " + monitorVerdict(s.Monitor.GetVerdict()).text
		if run := s.Monitor.GetLastRun(); run.GetFailure() != "" {
			text += ": " + clean(run.GetFailure())
		} else if run != nil {
			text += ": " + reportText(run.GetReport())
		}
		return text
	case *echov1.Event_Daemon:
		return daemonDetail(s.Daemon)
	case *echov1.Event_Traffic:
		text := "peer " + clean(s.Traffic.GetPeer())
		if e.GetType() == echov1.Event_CONNECTION_CLOSED {
			text += fmt.Sprintf(": %s, %d bytes in, %d out", orDash(clean(s.Traffic.GetReason())), s.Traffic.GetBytesIn(), s.Traffic.GetBytesOut())
		}
		return text
	default:
		return ""
	}
}

func reportText(r *echov1.ProbeReport) string {
	text := fmt.Sprintf("%d sent, %d received", r.GetSent(), r.GetReceived())
	if r.GetRtt() != nil {
		text += ", p50 " + milliseconds(r.GetRtt().GetP50()) + " ms"
	}
	return text
}

func (t *tableWriter) Event(e *echov1.Event) error {
	return t.event(eventHeader, eventWidths, eventCells(e, t.options.Now()), t.options)
}

func (t *wideWriter) Event(e *echov1.Event) error {
	return t.event(wideEventHeader, wideEventWidths, wideEventCells(e), t.uncut())
}

// event writes a line as it comes, the first one below a header.
func (t *tableWriter) event(header []string, widths []int, row []cell, o Options) error {
	var b strings.Builder
	if !t.headed {
		t.headed = true
		names := make([]cell, len(header))
		for i, name := range header {
			names[i].text = name
		}
		writeRow(&b, names, widths, o)
	}
	wide := make([]int, len(widths))
	for i, c := range row {
		wide[i] = max(widths[i], utf8.RuneCountInString(c.text))
	}
	writeRow(&b, row, wide, o)
	return t.lines(strings.TrimSuffix(b.String(), "\n"))
}

func (n *nameWriter) Event(e *echov1.Event) error {
	if name := EventSubject(e); name != "" {
		return n.line(name)
	}
	return nil
}

// Event writes JSON as one line, so that whoever reads along need not look for the end of an object.
func (d *documentWriter) Event(e *echov1.Event) error {
	doc, err := marshal(e)
	if err != nil {
		return err
	}
	return d.line(doc)
}
