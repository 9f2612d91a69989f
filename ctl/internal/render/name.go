package render

import (
	"io"
	"strconv"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// nameWriter writes one name a line, for scripts and xargs.
type nameWriter struct {
	w io.Writer
}

func (n *nameWriter) line(name string) error {
	_, err := io.WriteString(n.w, clean(name)+"\n")
	return err
}

func writeNames[T any](n *nameWriter, list []T, name func(T) string) error {
	for _, item := range list {
		if err := n.line(name(item)); err != nil {
			return err
		}
	}
	return nil
}

func (n *nameWriter) EndpointList(l []*echov1.Endpoint) error {
	return writeNames(n, l, (*echov1.Endpoint).GetName)
}
func (n *nameWriter) Endpoints(l []*echov1.Endpoint) error         { return n.EndpointList(l) }
func (n *nameWriter) DescribeEndpoints(l []*echov1.Endpoint) error { return n.EndpointList(l) }

func (n *nameWriter) ProbeList(l []*echov1.Probe) error {
	return writeNames(n, l, (*echov1.Probe).GetName)
}
func (n *nameWriter) Probes(l []*echov1.Probe) error         { return n.ProbeList(l) }
func (n *nameWriter) DescribeProbes(l []*echov1.Probe) error { return n.ProbeList(l) }

func (n *nameWriter) MonitorList(l []*echov1.Monitor) error {
	return writeNames(n, l, (*echov1.Monitor).GetName)
}
func (n *nameWriter) Monitors(l []*echov1.Monitor) error         { return n.MonitorList(l) }
func (n *nameWriter) DescribeMonitors(l []*echov1.Monitor) error { return n.MonitorList(l) }

// MonitorRuns have no names: a run is told from others by when it began.
func (n *nameWriter) MonitorRuns(l []*echov1.MonitorRun) error { return writeNames(n, l, runStart) }

func (n *nameWriter) ProbeBegin(*echov1.Probe) error    { return nil }
func (n *nameWriter) Sample(*echov1.Sample) error       { return nil }
func (n *nameWriter) Aggregate(*echov1.Aggregate) error { return nil }
func (n *nameWriter) Reports(l []*echov1.ProbeReport) error {
	return writeNames(n, l, (*echov1.ProbeReport).GetProbe)
}

func (n *nameWriter) Changes(l []*echov1.EndpointChange) error {
	for _, c := range l {
		if c.GetAction() == echov1.EndpointChange_NONE {
			continue
		}
		if err := n.line(c.GetName()); err != nil {
			return err
		}
	}
	return nil
}

func (n *nameWriter) Purged(r *echov1.PurgeEndpointsResponse) error { return n.Deleted(r.GetNames()) }

func (n *nameWriter) Deleted(names []string) error {
	return writeNames(n, names, func(s string) string { return s })
}

// Info has no name: the addresses that the daemon listens on are what one would call it by.
func (n *nameWriter) Info(i *echov1.Info, _ *echov1.Readiness) error {
	return writeNames(n, i.GetListeners(), (*echov1.Listener).GetAddress)
}

// Upgraded has no name: the process id is what one would call the new process by.
func (n *nameWriter) Upgraded(u *echov1.UpgradeDaemonResponse, _ bool) error {
	return n.line(strconv.FormatUint(uint64(u.GetPid()), 10))
}

// Version writes the client's version alone.
func (n *nameWriter) Version(v Version) error { return n.line(v.Client.Version) }
