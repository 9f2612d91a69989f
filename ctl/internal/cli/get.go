package cli

import (
	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
)

func newGetCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "get NAME...",
		Short: "Show endpoints with their counters",
		Long: long(`Shows all there is to say of each endpoint: where it listens, its options,
labels and counters. With -o wide it is a row each; with -o json or yaml an
object or a document each.`),
		Example: `  echoctl get web-1
  echoctl get web-1 web-2 -o wide
  echoctl get web-1 -o json | jq .counters`,
		Args:              argsBetween(1, unlimited, "NAME"),
		RunE:              func(cmd *cobra.Command, args []string) error { return runGet(a, cmd, args) },
		ValidArgsFunction: a.completeEndpoints,
	}
}

func runGet(a *app, cmd *cobra.Command, names []string) error {
	s, err := a.connect()
	if err != nil {
		return err
	}
	found, failed := each(a, names, func(name string) (*echov1.Endpoint, error) {
		ctx, cancel := s.call(cmd.Context(), 0)
		defer cancel()
		e, err := s.endpoints.GetEndpoint(ctx, &echov1.GetEndpointRequest{Name: name})
		return e, about(anEndpoint, name, err)
	})
	if err := s.out.DescribeEndpoints(found); err != nil {
		return err
	}
	return failed
}
