package cli

import (
	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
)

func newInfoCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "info",
		Short: "Show what the daemon says of itself",
		Long: long(`Shows the daemon's version, since when it runs and what was before, whether it
is ready, where it listens, where it keeps its endpoints, and what the operator
should know. With -o name: the addresses that it listens on, one a line.`),
		Example: `  echoctl info
  echoctl info -o json | jq -r '.warnings[]'
  echoctl info --server unix:/run/echod/echod.sock`,
		Args: argsBetween(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.connect()
			if err != nil {
				return err
			}
			ctx, cancel := s.call(cmd.Context(), 0)
			defer cancel()
			info, err := s.daemon.GetInfo(ctx, &echov1.GetInfoRequest{})
			if err != nil {
				return err
			}
			// One that does not know it is older, and works.
			var readiness *echov1.Readiness
			if s.isTable() {
				readiness, _ = s.daemon.GetReadiness(ctx, &echov1.GetReadinessRequest{})
			}
			return s.out.Info(info, readiness)
		},
	}
}
