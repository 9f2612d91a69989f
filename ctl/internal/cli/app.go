package cli

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"

	"github.com/echod/echod/ctl/internal/render"
)

// app is one run of echoctl.
type app struct {
	env     Env
	options globalOptions
	// histogram says whether to draw reports, where a command was told; nil: on a terminal.
	histogram *bool
	// The rest is there once connect was called.
	conn channel
	peer *peer
}

// globalOptions are the flags that every command has.
type globalOptions struct {
	server      string
	output      formatFlag
	callTimeout durationFlag
	noColor     bool
}

// session is what a command talks with: the daemon's services and the writer of the chosen format.
type session struct {
	endpoints echov1.EndpointServiceClient
	sessions  echov1.SessionServiceClient
	probes    echov1.ProbeServiceClient
	monitors  echov1.MonitorServiceClient
	events    echov1.EventServiceClient
	daemon    echov1.DaemonServiceClient
	out       render.Writer
	format    render.Format
	app       *app
}

// connect checks the global options and prepares a connection. It dials nothing yet: the first call does. more are
// the formats that the command writes besides those of every command.
func (a *app) connect(more ...render.Format) (*session, error) {
	format, err := a.format(more)
	if err != nil {
		return nil, err
	}
	where, err := a.server()
	if err != nil {
		return nil, err
	}
	a.peer = &peer{server: where}
	conn, err := dial(a.peer)
	if err != nil {
		return nil, err
	}
	return a.session(conn, format), nil
}

// session makes the clients of all services, whose calls go through conn; close closes it.
func (a *app) session(conn channel, format render.Format) *session {
	a.conn = conn
	return &session{
		endpoints: echov1.NewEndpointServiceClient(a.conn),
		sessions:  echov1.NewSessionServiceClient(a.conn),
		probes:    echov1.NewProbeServiceClient(a.conn),
		monitors:  echov1.NewMonitorServiceClient(a.conn),
		events:    echov1.NewEventServiceClient(a.conn),
		daemon:    echov1.NewDaemonServiceClient(a.conn),
		out: render.New(output{a.env.Stdout}, render.Options{
			Format: format, Color: a.color(), Width: a.width(), Histogram: a.drawn(), Unicode: a.unicode(),
		}),
		format: format,
		app:    a,
	}
}

func (a *app) close() {
	if a.conn != nil {
		// All calls have ended; what closing could still report is of no use to anyone.
		_ = a.conn.Close()
	}
}

// output is standard output, whose errors say so.
type output struct{ w io.Writer }

func (o output) Write(b []byte) (int, error) {
	n, err := o.w.Write(b)
	if err != nil {
		err = fmt.Errorf("cannot write standard output: %w", err)
	}
	return n, err
}

// getenv is a variable's value, empty when it is not set.
func (a *app) getenv(key string) string {
	value, _ := a.env.LookupEnv(key)
	return value
}

// format is the output format: the flag, else the environment's, else a table. more is as in connect.
func (a *app) format(more []render.Format) (render.Format, error) {
	if f := a.options.output.format; a.options.output.set {
		if !f.Valid() && !slices.Contains(more, f) {
			return "", usagef("-o %s is for echoctl probe, probe get and probe stop: say %s", f, formatNames())
		}
		return f, nil
	}
	fromEnv := a.getenv("ECHOCTL_OUTPUT")
	if fromEnv == "" {
		return render.Table, nil
	}
	if f := render.Format(fromEnv); f.Valid() || slices.Contains(more, f) {
		return f, nil
	}
	return "", usagef("ECHOCTL_OUTPUT is %q: say %s", fromEnv, formatNames())
}

// color tells whether to use colours: on a terminal, unless someone asked not to (https://no-color.org).
func (a *app) color() bool {
	return a.env.Terminal && !a.options.noColor && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
}

func (a *app) width() int {
	if !a.env.Terminal {
		return 0
	}
	return a.env.Width
}

// drawn tells whether reports have histograms.
func (a *app) drawn() bool {
	if a.histogram != nil {
		return *a.histogram
	}
	return a.env.Terminal
}

// unicode tells whether the locale is one of UTF-8, by POSIX's order of variables. Windows has none: Go writes to its
// consoles what they can show.
func (a *app) unicode() bool {
	if runtime.GOOS == "windows" {
		return a.env.Terminal
	}
	for _, key := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := a.getenv(key); value != "" {
			value = strings.ToLower(value)
			return strings.Contains(value, "utf-8") || strings.Contains(value, "utf8")
		}
	}
	return false
}

// talk writes a line for the user to standard error.
func (a *app) talk(format string, args ...any) {
	// Nothing can be said about a standard error that does not take it.
	_, _ = fmt.Fprintln(a.env.Stderr, render.CleanLines(fmt.Sprintf(format, args...)))
}

// isTable tells that the output is for people.
func (s *session) isTable() bool { return s.format == render.Table || s.format == render.Wide }

// call is the context of one call: it ends after --call-timeout, and after extra more for what the daemon was asked to
// wait for.
func (s *session) call(ctx context.Context, extra time.Duration) (context.Context, context.CancelFunc) {
	timeout := s.app.options.callTimeout.value
	if timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout+extra)
}
