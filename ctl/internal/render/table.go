package render

import (
	"io"
	"strings"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// tableWriter writes for people: rows, descriptions, and lines as ping has them.
type tableWriter struct {
	w       io.Writer
	options Options
	// followed is what ProbeBegin was told of; the lines of its round trips repeat its size and address.
	followed *echov1.Probe
	headed   bool // the header of events is written
}

func (t *tableWriter) EndpointList(l []*echov1.Endpoint) error {
	g := endpointRows(l, t.options.Now())
	return g.write(t.w, t.options)
}

func (t *tableWriter) Endpoints(l []*echov1.Endpoint) error { return t.EndpointList(l) }

func (t *tableWriter) DescribeEndpoints(l []*echov1.Endpoint) error {
	return describe(t, l, func(e *echov1.Endpoint) *pairs { return describeEndpoint(e, t.options.Now()) })
}

func (t *tableWriter) ProbeList(l []*echov1.Probe) error {
	g := probeRows(l, t.options.Now())
	return g.write(t.w, t.options)
}

func (t *tableWriter) Probes(l []*echov1.Probe) error { return t.ProbeList(l) }

func (t *tableWriter) DescribeProbes(l []*echov1.Probe) error {
	return describe(t, l, func(p *echov1.Probe) *pairs { return describeProbe(p, t.options) })
}

func (t *tableWriter) MonitorList(l []*echov1.Monitor) error {
	g := monitorRows(l, t.options.Now())
	return g.write(t.w, t.options)
}

func (t *tableWriter) Monitors(l []*echov1.Monitor) error { return t.MonitorList(l) }

func (t *tableWriter) DescribeMonitors(l []*echov1.Monitor) error {
	return describe(t, l, func(m *echov1.Monitor) *pairs { return describeMonitor(m, t.options) })
}

func (t *tableWriter) MonitorRuns(l []*echov1.MonitorRun) error {
	g := monitorRunRows(l)
	return g.write(t.w, t.options)
}

func (t *tableWriter) ProbeBegin(p *echov1.Probe) error {
	t.followed = p
	return t.lines(probeHeadline(p))
}

func (t *tableWriter) Sample(s *echov1.Sample) error { return t.lines(sampleLine(t.followed, s)) }

func (t *tableWriter) Aggregate(a *echov1.Aggregate) error { return t.lines(aggregateLine(a)) }

func (t *tableWriter) Reports(l []*echov1.ProbeReport) error { return t.reports(l, false) }

func (t *tableWriter) reports(l []*echov1.ProbeReport, wide bool) error {
	for i, r := range l {
		// The summary of a probe that was followed is set apart from its lines, and reports from each other.
		if i > 0 || t.followed != nil {
			if err := t.lines(""); err != nil {
				return err
			}
		}
		if err := t.lines(reportLines(r, wide, t.options)...); err != nil {
			return err
		}
	}
	return nil
}

func (t *tableWriter) Changes(l []*echov1.EndpointChange) error {
	if len(l) == 0 {
		return nil
	}
	return t.lines(changeLines(l, t.options)...)
}

func (t *tableWriter) Purged(*echov1.PurgeEndpointsResponse) error { return nil }
func (t *tableWriter) Deleted([]string) error                      { return nil }

func (t *tableWriter) Info(i *echov1.Info, r *echov1.Readiness) error {
	return describe(t, []*echov1.Info{i}, func(i *echov1.Info) *pairs { return describeInfo(i, r, t.options.Now()) })
}

func (t *tableWriter) Upgraded(u *echov1.UpgradeDaemonResponse, tried bool) error {
	return describe(t, []*echov1.UpgradeDaemonResponse{u}, func(u *echov1.UpgradeDaemonResponse) *pairs { return describeUpgrade(u, tried) })
}

func (t *tableWriter) Version(v Version) error {
	return describe(t, []Version{v}, describeVersion)
}

func (t *tableWriter) lines(lines ...string) error {
	_, err := io.WriteString(t.w, strings.Join(lines, "\n")+"\n")
	return err
}

// describe writes descriptions with an empty line between one and the next.
func describe[T any](t *tableWriter, list []T, as func(T) *pairs) error {
	var b strings.Builder
	for i, item := range list {
		if i > 0 {
			b.WriteByte('\n')
		}
		as(item).write(&b, t.options)
	}
	_, err := io.WriteString(t.w, b.String())
	return err
}
