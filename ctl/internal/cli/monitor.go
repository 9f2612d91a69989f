package cli

import (
	"context"
	"maps"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
)

const monitorLong = `Monitors are probes that repeat by themselves in the daemon, as long as it runs;
with a state directory they go on after a restart of it. A monitor says whether
what is expected of it is met, and since when. Without an expectation that is at
least one reply.`

func newMonitorCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "monitor",
		Aliases: []string{"mon"},
		Short:   "Keep probes that repeat by themselves",
		Long:    long(monitorLong),
		Example: `  echoctl monitor create web-1 --every 30s --expect 'loss == 0'
  echoctl monitor list --filter 'verdict = NOT_MET'
  echoctl monitor history web-1`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
	}
	cmd.AddCommand(newMonitorCreateCommand(a), newMonitorListCommand(a), newMonitorGetCommand(a), newMonitorUpdateCommand(a),
		newMonitorDeleteCommand(a), newMonitorPauseCommand(a), newMonitorResumeCommand(a), newMonitorRunCommand(a),
		newMonitorHistoryCommand(a))
	return cmd
}

// monitorOptions are the flags of a monitor beside those of its probe; create and update have the same.
type monitorOptions struct {
	probe        probeOptions
	every        durationFlag
	labels       labelsFlag
	description  string
	history      countFlag
	validateOnly bool
}

// addTo adds the flags; those of the probe come with it, its name does not.
func (o *monitorOptions) addTo(cmd *cobra.Command, update bool) {
	o.every.orDefault, o.history.orDefault = update, update
	orDefault := ""
	if update {
		orDefault = ", or default"
	}
	flags := cmd.Flags()
	flags.Var(&o.every, "every", "`DURATION` from the start of a run to that of the next, 1s to 24h (default: 1m)"+orDefault)
	flags.StringVar(&o.description, "description", "", "a `SENTENCE` for people")
	flags.Var(&o.history, "history", "keep the last `N` runs, 1 to 100 (default: 10)"+orDefault)
	probe := &cobra.Command{}
	o.probe.addTo(probe)
	for _, f := range flagsOf(probe) {
		if f.Name != "name" {
			flags.AddFlag(f)
		}
	}
	addValidateOnly(cmd, &o.validateOnly)
}

func newMonitorCreateCommand(a *app) *cobra.Command {
	o, name, paused := &monitorOptions{}, "", false
	cmd := &cobra.Command{
		Use:   "create TARGET",
		Short: "Create a monitor",
		Long: long(`Creates a monitor and writes it as created. Its first run comes by itself within
its interval and within a minute; "monitor run" does not wait for that.

` + targetHelp + `

An endpoint need not be there yet: runs fail, and say why, until it serves.

` + expectHelp),
		Example: `  echoctl monitor create web-1 --every 30s --name web-1 --label rack=r1
  echoctl monitor create udp://192.0.2.7:7 -c 20 -i 10ms --every 10
  echoctl monitor create web-1 --expect 'loss == 0' --expect 'p99 < 2ms'`,
		Args: argsBetween(1, 1, "TARGET"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := o.monitor(args[0])
			if err != nil {
				return err
			}
			m.Name, m.Paused, m.Labels, m.Description = name, paused, o.labels.values, o.description
			s, err := a.connect()
			if err != nil {
				return err
			}
			ctx, cancel := s.call(cmd.Context(), 0)
			defer cancel()
			created, err := s.monitors.CreateMonitor(ctx, &echov1.CreateMonitorRequest{Monitor: m, ValidateOnly: o.validateOnly})
			if err != nil {
				return about(aMonitor, name, err)
			}
			if o.validateOnly {
				a.talk("checked only; nothing was created")
			}
			return s.out.Monitors([]*echov1.Monitor{created})
		},
		ValidArgsFunction: firstOnly(a.completeTargets),
	}
	flags := cmd.Flags()
	flags.StringVar(&name, "name", "", "what to call it: `NAME` of a-z, 0-9 and '-'; else the daemon chooses one")
	flags.VarP(&o.labels, "label", "l", "a label `KEY=VALUE` to select by; may be repeated")
	flags.BoolVar(&paused, "paused", false, "begin no run until it is resumed")
	o.addTo(cmd, false)
	return cmd
}

// monitor is what the flags ask for. Flags that were not given stay absent: the daemon has the defaults.
func (o *monitorOptions) monitor(target string) (*echov1.Monitor, error) {
	p, err := o.probe.probe(target)
	if err != nil {
		return nil, err
	}
	return &echov1.Monitor{Probe: p, Interval: o.every.proto(), HistoryLimit: o.history.proto()}, nil
}

func newMonitorListCommand(a *app) *cobra.Command {
	o := &listOptions{}
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the monitors",
		Long: long(`Lists the monitors by name, all of them unless a filter, a selector or a limit
is given.

A filter speaks of name, endpoint, address (of the target), state, verdict,
description and labels (AIP-160).`),
		Example: `  echoctl monitor list
  echoctl monitor list --filter 'verdict = NOT_MET' -o name
  echoctl monitor list --selector rack=r1 -o wide`,
		Args: argsBetween(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.connect()
			if err != nil {
				return err
			}
			list, err := s.listMonitors(cmd.Context(), o.expression(), o.limit.value)
			if err != nil {
				return err
			}
			switch {
			case len(list) > 0:
			case !o.given():
				a.talk("no monitors; create one with: echoctl monitor create TARGET")
			default:
				a.talk("no monitor matches")
			}
			return s.out.MonitorList(list)
		},
	}
	o.addTo(cmd)
	cmd.Flags().Var(&o.limit, "limit", "at most `N`; 0 is all")
	return cmd
}

// listMonitors reads page after page, up to limit monitors; 0 is all.
func (s *session) listMonitors(ctx context.Context, filter string, limit uint32) ([]*echov1.Monitor, error) {
	return readPages(limit, pageSize, func(size int32, token string) ([]*echov1.Monitor, string, error) {
		ctx, cancel := s.call(ctx, 0)
		defer cancel()
		page, err := s.monitors.ListMonitors(ctx, &echov1.ListMonitorsRequest{PageSize: size, PageToken: token, Filter: filter})
		return page.GetMonitors(), page.GetNextPageToken(), err
	})
}

func newMonitorGetCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "get NAME...",
		Short: "Show monitors with their last report",
		Long: long(`Shows all there is to say of each monitor and what its last run measured. With
-o json or yaml the history is there, too.`),
		Example: `  echoctl monitor get web-1
  echoctl monitor get web-1 -o json | jq .lastRun.report.rtt`,
		Args: argsBetween(1, unlimited, "NAME"),
		RunE: func(cmd *cobra.Command, names []string) error {
			s, err := a.connect()
			if err != nil {
				return err
			}
			found, failed := each(a, names, func(name string) (*echov1.Monitor, error) { return s.getMonitor(cmd.Context(), name) })
			if err := s.out.DescribeMonitors(found); err != nil {
				return err
			}
			return failed
		},
		ValidArgsFunction: a.completeMonitors,
	}
}

func (s *session) getMonitor(ctx context.Context, name string) (*echov1.Monitor, error) {
	ctx, cancel := s.call(ctx, 0)
	defer cancel()
	m, err := s.monitors.GetMonitor(ctx, &echov1.GetMonitorRequest{Name: name})
	return m, about(aMonitor, name, err)
}

func newMonitorHistoryCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "history NAME",
		Short: "Show what the last runs of a monitor measured",
		Long: long(`Shows the runs of a monitor that the daemon keeps, the newest first. With -o
json or yaml their reports are there, too; only the newest is whole.`),
		Example: `  echoctl monitor history web-1
  echoctl monitor history web-1 -o json | jq '.runs[].report.lost'`,
		Args: argsBetween(1, 1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.connect()
			if err != nil {
				return err
			}
			m, err := s.getMonitor(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if len(m.GetHistory()) == 0 {
				a.talk("no run has ended yet; echoctl monitor run %s does one now", args[0])
			}
			return s.out.MonitorRuns(m.GetHistory())
		},
		ValidArgsFunction: firstOnly(a.completeMonitors),
	}
}

// runWait is what a run is given beside --call-timeout.
const runWait = 5 * time.Minute

func newMonitorRunCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "run NAME",
		Short: "Run a monitor now",
		Long: long(`Runs a monitor now, paused or not, and shows how it went. It counts as any other
run. When one is under way already, that one is waited for and shown.

Exit code 0: all is as expected; 3: it is not, or the probe could not be run.`),
		Example: `  echoctl monitor run web-1
  echoctl monitor run web-1 -o json | jq .report`,
		Args: argsBetween(1, 1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.connect()
			if err != nil {
				return err
			}
			ctx, cancel := s.call(cmd.Context(), runWait)
			defer cancel()
			run, err := s.monitors.RunMonitor(ctx, &echov1.RunMonitorRequest{Name: args[0]})
			if err != nil {
				return about(aMonitor, args[0], err)
			}
			if err := s.out.MonitorRuns([]*echov1.MonitorRun{run}); err != nil {
				return err
			}
			if !run.GetMet() {
				return &exitError{exitUnmet}
			}
			return nil
		},
		ValidArgsFunction: firstOnly(a.completeMonitors),
	}
}

func newMonitorPauseCommand(a *app) *cobra.Command {
	o := &selection{}
	cmd := &cobra.Command{
		Use:   "pause NAME... | --selector KEY=VALUE,... | --filter EXPRESSION",
		Short: "Pause monitors",
		Long: long(`Pauses monitors by name, or all that have the labels of the selector: a run that
is under way is ended, and no other begins. One that is paused is left as it is.`),
		Example: `  echoctl monitor pause web-1
  echoctl monitor pause --selector rack=r1`,
		Args: func(_ *cobra.Command, args []string) error { return o.check(args) },
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeMonitors(a, cmd, o, args, func(ctx context.Context, s *session, name string) (*echov1.Monitor, error) {
				return s.monitors.PauseMonitor(ctx, &echov1.PauseMonitorRequest{Name: name})
			})
		},
		ValidArgsFunction: a.completeMonitors,
	}
	o.addTo(cmd)
	return cmd
}

func newMonitorResumeCommand(a *app) *cobra.Command {
	o := &selection{}
	cmd := &cobra.Command{
		Use:   "resume NAME... | --selector KEY=VALUE,... | --filter EXPRESSION",
		Short: "Let paused monitors run again",
		Long: long(`Lets monitors run again, by name, or all that have the labels of the selector.
One that is not paused is left as it is.`),
		Example: `  echoctl monitor resume web-1
  echoctl monitor resume --selector rack=r1`,
		Args: func(_ *cobra.Command, args []string) error { return o.check(args) },
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeMonitors(a, cmd, o, args, func(ctx context.Context, s *session, name string) (*echov1.Monitor, error) {
				return s.monitors.ResumeMonitor(ctx, &echov1.ResumeMonitorRequest{Name: name})
			})
		},
		ValidArgsFunction: a.completeMonitors,
	}
	o.addTo(cmd)
	return cmd
}

// changeMonitors changes the chosen monitors and writes what they are then.
func changeMonitors(a *app, cmd *cobra.Command, o *selection, args []string,
	change func(context.Context, *session, string) (*echov1.Monitor, error)) error {
	s, err := a.connect()
	if err != nil {
		return err
	}
	names, err := s.monitorNames(cmd.Context(), o, args)
	if err != nil {
		return err
	}
	changed, failed := each(a, names, func(name string) (*echov1.Monitor, error) {
		ctx, cancel := s.call(cmd.Context(), 0)
		defer cancel()
		m, err := change(ctx, s, name)
		return m, about(aMonitor, name, err)
	})
	if err := s.out.Monitors(changed); err != nil {
		return err
	}
	return failed
}

// monitorNames are those given or those that the selector finds; with none found it says so.
func (s *session) monitorNames(ctx context.Context, o *selection, args []string) ([]string, error) {
	if !o.given() {
		return args, nil
	}
	list, err := s.listMonitors(ctx, o.expression(), 0)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		s.app.talk("no monitor matches %s", o)
	}
	names := make([]string, len(list))
	for i, m := range list {
		names[i] = m.GetName()
	}
	return names, nil
}

func newMonitorDeleteCommand(a *app) *cobra.Command {
	o := &selection{}
	cmd := &cobra.Command{
		Use:     "delete NAME... | --selector KEY=VALUE,... | --filter EXPRESSION",
		Aliases: []string{"rm"},
		Short:   "Forget monitors and their histories",
		Long: long(`Deletes monitors by name, or all that have the labels of the selector, with
their histories. All names are tried; the exit code is 1 when any failed. A
selector that matches none is no failure.`),
		Example: `  echoctl monitor delete web-1
  echoctl monitor delete --selector run=1234`,
		Args: func(_ *cobra.Command, args []string) error { return o.check(args) },
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.connect()
			if err != nil {
				return err
			}
			names, err := s.monitorNames(cmd.Context(), o, args)
			if err != nil {
				return err
			}
			return s.deleteEach(names, func(name string) error {
				ctx, cancel := s.call(cmd.Context(), 0)
				defer cancel()
				_, err := s.monitors.DeleteMonitor(ctx, &echov1.DeleteMonitorRequest{Name: name})
				if o.given() && codeOf(err) == codes.NotFound {
					return nil // somebody else deleted it since it was listed, which is as well
				}
				return about(aMonitor, name, err)
			})
		},
		ValidArgsFunction: a.completeMonitors,
	}
	o.addTo(cmd)
	return cmd
}

// completeMonitors offers the names of the daemon's monitors.
func (a *app) completeMonitors(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion,
	cobra.ShellCompDirective) {
	return a.complete(cmd, args, typed, func(ctx context.Context, s *session) (map[string]string, error) {
		list, err := s.listMonitors(ctx, "", pageSize)
		names := make(map[string]string, len(list))
		for _, m := range list {
			names[m.GetName()] = m.GetState().String() + " " + m.GetVerdict().String()
		}
		return names, err
	})
}

// relabelled are labels after some were set and some taken away.
func relabelled(present, set map[string]string, remove []string) map[string]string {
	labels := maps.Clone(present)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, set)
	for _, key := range remove {
		delete(labels, key)
	}
	return labels
}
