package render

import (
	"strings"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

func (t *tableWriter) Readiness(r *echov1.Readiness) error {
	return describe(t, []*echov1.Readiness{r}, describeReadiness)
}

func (n *nameWriter) Readiness(r *echov1.Readiness) error { return n.line(r.GetState().String()) }

func (d *documentWriter) Readiness(r *echov1.Readiness) error {
	return emitEach(d, []*echov1.Readiness{r})
}

func describeReadiness(r *echov1.Readiness) *pairs {
	p := &pairs{}
	p.add("Readiness", r.GetState().String())
	for _, c := range r.GetChecks() {
		p.add(capital(clean(c.GetName())), checkText(c))
	}
	return p
}

func checkText(c *echov1.ReadinessCheck) string {
	if c.GetMessage() == "" {
		return c.GetState().String()
	}
	return c.GetState().String() + ": " + clean(c.GetMessage())
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// readinessLines are the state, and the checks that are not READY.
func readinessLines(r *echov1.Readiness) []string {
	lines := []string{r.GetState().String()}
	for _, c := range r.GetChecks() {
		if c.GetState() != echov1.Readiness_READY {
			lines = append(lines, clean(c.GetName())+" "+checkText(c))
		}
	}
	return lines
}

// startText says what was before a daemon's process, as in "started after a crash"; empty when it is not known.
func startText(s echov1.Info_Start) string {
	switch s {
	case echov1.Info_FIRST:
		return "for the first time"
	case echov1.Info_STOPPED:
		return "after a stop in order"
	case echov1.Info_CRASHED:
		return "after a crash"
	case echov1.Info_UPGRADED:
		return "by an upgrade"
	default:
		return ""
	}
}

func daemonState(s echov1.DaemonEvent_State) cell {
	c := cell{text: s.String()}
	switch s {
	case echov1.DaemonEvent_READY:
		c.style = green
	case echov1.DaemonEvent_DEGRADED:
		c.style = yellow
	case echov1.DaemonEvent_NOT_READY:
		c.style = red
	}
	return c
}

// daemonDetail says what was before, and why the daemon is not ready.
func daemonDetail(d *echov1.DaemonEvent) string {
	var texts []string
	if start := startText(d.GetStart()); start != "" {
		texts = append(texts, "started "+start)
	}
	if d.GetReason() != "" {
		texts = append(texts, clean(d.GetReason()))
	}
	return strings.Join(texts, "; ")
}
