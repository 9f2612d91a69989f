package render

import (
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// wideWriter writes tables with every column, and cuts none of them. What has no columns it writes as a table does.
type wideWriter struct {
	tableWriter
}

// uncut are the options without the terminal's width: who asks for wide wants all of it.
func (t *wideWriter) uncut() Options {
	o := t.options
	o.Width = 0
	return o
}

func (t *wideWriter) EndpointList(l []*echov1.Endpoint) error {
	g := wideEndpointRows(l, t.options.Now())
	return g.write(t.w, t.uncut())
}

func (t *wideWriter) Endpoints(l []*echov1.Endpoint) error         { return t.EndpointList(l) }
func (t *wideWriter) DescribeEndpoints(l []*echov1.Endpoint) error { return t.EndpointList(l) }

func (t *wideWriter) ProbeList(l []*echov1.Probe) error {
	g := wideProbeRows(l, t.options.Now())
	return g.write(t.w, t.uncut())
}

func (t *wideWriter) Probes(l []*echov1.Probe) error         { return t.ProbeList(l) }
func (t *wideWriter) DescribeProbes(l []*echov1.Probe) error { return t.ProbeList(l) }

func (t *wideWriter) MonitorList(l []*echov1.Monitor) error {
	g := wideMonitorRows(l, t.options.Now())
	return g.write(t.w, t.uncut())
}

func (t *wideWriter) Monitors(l []*echov1.Monitor) error         { return t.MonitorList(l) }
func (t *wideWriter) DescribeMonitors(l []*echov1.Monitor) error { return t.MonitorList(l) }

func (t *wideWriter) MonitorRuns(l []*echov1.MonitorRun) error {
	g := wideMonitorRunRows(l)
	return g.write(t.w, t.uncut())
}

func (t *wideWriter) Reports(l []*echov1.ProbeReport) error { return t.reports(l, true) }
