package cli

import (
	"context"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
)

func newProbeStartCommand(a *app) *cobra.Command {
	o := &probeOptions{}
	cmd := &cobra.Command{
		Use:   "start TARGET",
		Short: "Start a probe and leave it running",
		Long: long(`Creates a probe that runs by itself and writes it as created. "probe get" shows
its report so far, "probe stop" ends it. The daemon keeps a probe for 10 minutes
after its end.

` + targetHelp + `

` + expectHelp + `

` + pathMTUHelp),
		Example: `  echoctl probe start web-1 --name nightly -c 0 -i 1
  echoctl probe start tcp://192.0.2.7:7 -w 1h -o name
  echoctl probe start web-1 --name soak -c 0 --expect 'longest_outage < 3s'`,
		Args: argsBetween(1, 1, "TARGET"),
		RunE: func(cmd *cobra.Command, args []string) error {
			probe, err := o.probe(args[0])
			if err != nil {
				return err
			}
			s, err := a.connect()
			if err != nil {
				return err
			}
			ctx, cancel := s.call(cmd.Context(), 0)
			defer cancel()
			created, err := s.probes.CreateProbe(ctx, &echov1.CreateProbeRequest{Probe: probe})
			if err != nil {
				return aboutNewProbe(probe, err)
			}
			return s.out.Probes([]*echov1.Probe{created})
		},
		ValidArgsFunction: firstOnly(a.completeTargets),
	}
	o.addTo(cmd)
	return cmd
}

func newProbeListCommand(a *app) *cobra.Command {
	limit := &countFlag{}
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the probes",
		Long:    long(`Lists the probes by name, those that run and those that the daemon still keeps.`),
		Example: `  echoctl probe list
  echoctl probe list -o wide --limit 10`,
		Args: argsBetween(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.connect()
			if err != nil {
				return err
			}
			list, err := s.listProbes(cmd.Context(), limit.value)
			if err != nil {
				return err
			}
			if len(list) == 0 {
				a.talk("no probes; start one with: echoctl probe start TARGET")
			}
			return s.out.ProbeList(list)
		},
	}
	cmd.Flags().Var(limit, "limit", "at most `N`; 0 is all")
	return cmd
}

// listProbes reads page after page, up to limit probes; 0 is all.
func (s *session) listProbes(ctx context.Context, limit uint32) ([]*echov1.Probe, error) {
	return readPages(limit, pageSize, func(size int32, token string) ([]*echov1.Probe, string, error) {
		ctx, cancel := s.call(ctx, 0)
		defer cancel()
		page, err := s.probes.ListProbes(ctx, &echov1.ListProbesRequest{PageSize: size, PageToken: token})
		return page.GetProbes(), page.GetNextPageToken(), err
	})
}

func newProbeGetCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "get NAME...",
		Short: "Show probes with their reports so far",
		Long: long(`Shows all there is to say of each probe and what it has measured until now, or
in all when it has ended, with what becomes of its expectations so far. -o junit
writes the expectations of one that runs as skipped tests.`),
		Example: `  echoctl probe get nightly
  echoctl probe get nightly -o json | jq .report.rtt`,
		Args:        argsBetween(1, unlimited, "NAME"),
		Annotations: writesJUnit,
		RunE: func(cmd *cobra.Command, names []string) error {
			s, err := a.connect(moreFormats(cmd)...)
			if err != nil {
				return err
			}
			found, failed := each(a, names, func(name string) (*echov1.Probe, error) {
				ctx, cancel := s.call(cmd.Context(), 0)
				defer cancel()
				p, err := s.probes.GetProbe(ctx, &echov1.GetProbeRequest{Name: name})
				return p, about(aProbe, name, err)
			})
			if err := s.out.DescribeProbes(found); err != nil {
				return err
			}
			return failed
		},
		ValidArgsFunction: a.completeProbes,
	}
}

func newProbeStopCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "stop NAME...",
		Short: "End probes early and show their reports",
		Long: long(`Ends probes and writes their final reports. One that has ended already is left
as it is. Exit code 3: something was expected of one (--expect) that is not met.`),
		Example: `  echoctl probe stop nightly
  echoctl probe stop nightly -o json
  echoctl probe stop nightly -o junit > nightly.xml`,
		Args:        argsBetween(1, unlimited, "NAME"),
		Annotations: writesJUnit,
		RunE: func(cmd *cobra.Command, names []string) error {
			s, err := a.connect(moreFormats(cmd)...)
			if err != nil {
				return err
			}
			reports, failed := each(a, names, func(name string) (*echov1.ProbeReport, error) {
				ctx, cancel := s.call(cmd.Context(), 0)
				defer cancel()
				r, err := s.probes.StopProbe(ctx, &echov1.StopProbeRequest{Name: name})
				return r, about(aProbe, name, err)
			})
			if err := s.out.Reports(reports); err != nil {
				return err
			}
			if failed != nil {
				return failed
			}
			return anyUnmet(reports)
		},
		ValidArgsFunction: a.completeProbes,
	}
}

func newProbeDeleteCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "delete NAME...",
		Aliases: []string{"rm"},
		Short:   "Stop probes and forget them and their reports",
		Long:    long("Stops probes if they run, and forgets them and what they measured."),
		Example: `  echoctl probe delete nightly
  echoctl probe list -o name | xargs echoctl probe delete`,
		Args: argsBetween(1, unlimited, "NAME"),
		RunE: func(cmd *cobra.Command, names []string) error {
			s, err := a.connect()
			if err != nil {
				return err
			}
			return s.deleteEach(names, func(name string) error {
				ctx, cancel := s.call(cmd.Context(), 0)
				defer cancel()
				_, err := s.probes.DeleteProbe(ctx, &echov1.DeleteProbeRequest{Name: name})
				return about(aProbe, name, err)
			})
		},
		ValidArgsFunction: a.completeProbes,
	}
}
