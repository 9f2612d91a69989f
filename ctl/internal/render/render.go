// Package render writes what echoctl shows on its standard output: endpoints, probes, reports and what the daemon says
// of itself, in one of five formats. It owns their layout and keeps control characters of other people's texts away
// from the terminal. It never calls the daemon, never reads the environment and never writes messages or errors: those
// are its caller's talk. Only package cli may call it.
package render

import (
	"io"
	"slices"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// Format is a way to write data.
type Format string

// The formats. Table and Wide are for people and may change; JSON and YAML have the fields of the REST interface, in
// the contract's order; Name is one name a line.
const (
	Table Format = "table"
	Wide  Format = "wide"
	JSON  Format = "json"
	YAML  Format = "yaml"
	Name  Format = "name"
)

// Formats are all formats, the default first.
var Formats = []Format{Table, Wide, JSON, YAML, Name}

// Valid tells whether f is one of Formats.
func (f Format) Valid() bool { return slices.Contains(Formats, f) }

// Options are how to write. The zero value is a table without colour for a reader without a width.
type Options struct {
	Format Format
	// Color marks states with ANSI colours in tables.
	Color bool
	// Width is the terminal's, in columns: the last column of a table is cut to fit. 0 cuts nothing.
	Width int
	// Histogram draws the round-trip times below a report in tables, across Width or 80 columns.
	Histogram bool
	// Unicode says that whoever reads knows block characters; else a histogram is drawn with '#'.
	Unicode bool
	// Now is what ages are counted to; nil means time.Now.
	Now func() time.Time
}

// Version is what `echoctl version` shows.
type Version struct {
	Client ClientVersion `json:"client"`
	// Daemon is nil when there is none that answers.
	Daemon *DaemonVersion `json:"daemon,omitempty"`
}

// ClientVersion tells about this echoctl.
type ClientVersion struct {
	Version  string `json:"version"`
	Platform string `json:"platform"`
}

// DaemonVersion tells about the daemon that answered.
type DaemonVersion struct {
	Version  string `json:"version"`
	Platform string `json:"platform"`
	Address  string `json:"address"`
}

// Writer writes data in one format. A slice is written as several things, one after the other (JSON: an object each;
// YAML: a document each; a table: a row each), except by the List methods, which write one list. All errors are those
// of the underlying writer or of a value that cannot be written at all. A Writer is for one goroutine.
type Writer interface {
	// EndpointList writes what a list found.
	EndpointList([]*echov1.Endpoint) error
	// Endpoints writes endpoints that were just created or changed.
	Endpoints([]*echov1.Endpoint) error
	// DescribeEndpoints writes all there is to say of each endpoint.
	DescribeEndpoints([]*echov1.Endpoint) error

	// ProbeList writes what a list found.
	ProbeList([]*echov1.Probe) error
	// Probes writes probes that were just created.
	Probes([]*echov1.Probe) error
	// DescribeProbes writes all there is to say of each probe.
	DescribeProbes([]*echov1.Probe) error

	// MonitorList writes what a list found.
	MonitorList([]*echov1.Monitor) error
	// Monitors writes monitors that were just created or changed.
	Monitors([]*echov1.Monitor) error
	// DescribeMonitors writes all there is to say of each monitor; tables leave out its history.
	DescribeMonitors([]*echov1.Monitor) error
	// MonitorRuns writes runs of a monitor.
	MonitorRuns([]*echov1.MonitorRun) error

	// ProbeBegin writes the headline of a probe that is followed; nothing where a format has no lines. The probe is kept
	// for the lines of its samples: a report that its caller puts into it later tells them the address.
	ProbeBegin(*echov1.Probe) error
	// Sample writes one round trip of the probe that ProbeBegin was told of; nothing where a format has no lines.
	Sample(*echov1.Sample) error
	// Aggregate writes what happened in one interval of that probe; nothing where a format has no lines.
	Aggregate(*echov1.Aggregate) error
	// Reports writes what probes measured.
	Reports([]*echov1.ProbeReport) error

	// Changes writes what an apply does with each endpoint, or would do. Names are those of what is changed alone.
	Changes([]*echov1.EndpointChange) error
	// Purged writes what a purge deleted. Tables write nothing.
	Purged(*echov1.PurgeEndpointsResponse) error
	// Event writes an event of a watch as it comes, on a line of its own (YAML: as a document).
	Event(*echov1.Event) error

	// Deleted writes what is gone now. Tables write nothing: there is no data left to show.
	Deleted(names []string) error
	// Info writes what the daemon says of itself. Tables tell its readiness, too; nil: it is not known.
	Info(*echov1.Info, *echov1.Readiness) error
	// Readiness writes whether the daemon can do its work. The name of that is its state.
	Readiness(*echov1.Readiness) error
	// Upgraded writes what an upgrade came to, or one that was only tried.
	Upgraded(u *echov1.UpgradeDaemonResponse, tried bool) error
	// Version writes the versions of client and daemon.
	Version(Version) error
}

// New makes the Writer of a format. An unknown format is written as a table.
func New(w io.Writer, o Options) Writer {
	if o.Now == nil {
		o.Now = time.Now
	}
	switch o.Format {
	case JSON:
		return &documentWriter{
			emit: func(doc []byte) error { return writeJSON(w, doc) }, line: func(doc []byte) error { return writeJSONLine(w, doc) },
		}
	case YAML:
		emit := newYAMLEmitter(w)
		return &documentWriter{emit: emit, line: emit}
	case Name:
		return &nameWriter{w: w}
	case JUnit:
		return &junitWriter{tableWriter{w: w, options: o}}
	case Wide:
		return &wideWriter{tableWriter{w: w, options: o}}
	default:
		return &tableWriter{w: w, options: o}
	}
}
