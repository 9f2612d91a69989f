package cli

import (
	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
)

func newStartCommand(a *app) *cobra.Command {
	o := &selection{}
	cmd := &cobra.Command{
		Use:   "start NAME... | --selector KEY=VALUE,... | --filter EXPRESSION",
		Short: "Start stopped endpoints",
		Long: long(`Starts endpoints by name, or all that match a selector and a filter (see list),
at the address and port that they had. One that serves is left as it is. All are
tried; the exit code is 1 when any failed.`),
		Example: `  echoctl start web-1 web-2
  echoctl start --selector rack=r1
  echoctl start --filter 'state = FAILED'`,
		Args: func(_ *cobra.Command, args []string) error { return o.check(args) },
		RunE: func(cmd *cobra.Command, args []string) error {
			return runOnEach(a, cmd, o, args, func(s *session, name string) (*echov1.Endpoint, error) {
				ctx, cancel := s.call(cmd.Context(), 0)
				defer cancel()
				return s.endpoints.StartEndpoint(ctx, &echov1.StartEndpointRequest{Name: name})
			})
		},
		ValidArgsFunction: a.completeEndpoints,
	}
	o.addTo(cmd)
	return cmd
}

func newStopCommand(a *app) *cobra.Command {
	o, drain := &selection{}, &durationFlag{}
	cmd := &cobra.Command{
		Use:   "stop NAME... | --selector KEY=VALUE,... | --filter EXPRESSION",
		Short: "Stop endpoints but keep them",
		Long: long(`Stops endpoints by name, or all that match a selector and a filter (see list).
Their ports are free when this returns; what they are and their port numbers are
kept for a later start. All are tried; the exit code is 1 when any failed.`),
		Example: `  echoctl stop web-1 web-2
  echoctl stop --selector rack=r1 --drain-timeout 5s`,
		Args: func(_ *cobra.Command, args []string) error { return o.check(args) },
		RunE: func(cmd *cobra.Command, args []string) error {
			return runOnEach(a, cmd, o, args, func(s *session, name string) (*echov1.Endpoint, error) {
				ctx, cancel := s.call(cmd.Context(), drain.value)
				defer cancel()
				return s.endpoints.StopEndpoint(ctx, &echov1.StopEndpointRequest{Name: name, DrainTimeout: drain.proto()})
			})
		},
		ValidArgsFunction: a.completeEndpoints,
	}
	o.addTo(cmd)
	addDrain(cmd, drain)
	return cmd
}

// runOnEach changes the chosen endpoints and writes what they are then.
func runOnEach(a *app, cmd *cobra.Command, o *selection, args []string,
	change func(*session, string) (*echov1.Endpoint, error)) error {
	s, err := a.connect()
	if err != nil {
		return err
	}
	names, err := o.names(cmd, s, args)
	if err != nil {
		return err
	}
	changed, failed := each(a, names, func(name string) (*echov1.Endpoint, error) {
		e, err := change(s, name)
		return e, about(anEndpoint, name, err)
	})
	if err := s.out.Endpoints(changed); err != nil {
		return err
	}
	return failed
}
