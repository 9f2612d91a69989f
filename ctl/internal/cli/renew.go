package cli

import (
	"slices"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
)

type renewOptions struct {
	selection
	ttl durationFlag
}

func newRenewCommand(a *app) *cobra.Command {
	o := &renewOptions{}
	cmd := &cobra.Command{
		Use:   "renew NAME... | --selector KEY=VALUE,... | --filter EXPRESSION",
		Short: "Give endpoints that would expire a new life",
		Long: long(`Has endpoints expire their ttl from now: those named, or all that have a ttl and
match a selector and a filter (see list; a filter "*" is all). --ttl gives them
another ttl first; one that is named may have none until then. All names are
tried; the exit code is 1 when any failed.`),
		Example: `  echoctl renew web-1 web-2
  echoctl renew web-1 --ttl 1h
  echoctl renew --selector run=1234
  while sleep 20; do echoctl renew --filter 'labels.run = "1234"'; done`,
		Args:              func(_ *cobra.Command, args []string) error { return o.check(args) },
		RunE:              func(cmd *cobra.Command, args []string) error { return runRenew(a, cmd, o, args) },
		ValidArgsFunction: a.completeEndpoints,
	}
	o.addTo(cmd)
	cmd.Flags().Var(&o.ttl, "ttl", "their ttl from now on is `DURATION` (default: the one they have)")
	return cmd
}

func runRenew(a *app, cmd *cobra.Command, o *renewOptions, args []string) error {
	s, err := a.connect()
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return o.renewMatching(cmd, s)
	}
	renewed, failed := each(a, args, func(name string) (*echov1.Endpoint, error) {
		ctx, cancel := s.call(cmd.Context(), 0)
		defer cancel()
		e, err := s.endpoints.RenewEndpoint(ctx, &echov1.RenewEndpointRequest{Name: name, Ttl: o.ttl.proto()})
		return e, about(anEndpoint, name, err)
	})
	if err := s.out.Endpoints(renewed); err != nil {
		return err
	}
	return failed
}

// renewMatching renews by a filter, in one call, and writes what the endpoints are then.
func (o *renewOptions) renewMatching(cmd *cobra.Command, s *session) error {
	filter := o.expression()
	ctx, cancel := s.call(cmd.Context(), 0)
	defer cancel()
	renewed, err := s.endpoints.RenewEndpoints(ctx, &echov1.RenewEndpointsRequest{Filter: filter, Ttl: o.ttl.proto()})
	if err != nil {
		return err
	}
	if renewed.GetCount() == 0 {
		s.app.talk("no endpoint with a ttl matches")
	}
	if filter == allFilter {
		filter = ""
	}
	list, err := s.listEndpoints(cmd.Context(), filter, echov1.ListEndpointsRequest_FULL, 0)
	if err != nil {
		return err
	}
	names := make(map[string]bool, len(renewed.GetNames()))
	for _, name := range renewed.GetNames() {
		names[name] = true
	}
	return s.out.Endpoints(slices.DeleteFunc(list, func(e *echov1.Endpoint) bool { return !names[e.GetName()] }))
}
