package cli

import (
	"context"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
)

func newUpgradeCommand(a *app) *cobra.Command {
	req := &echov1.UpgradeDaemonRequest{}
	c := &cobra.Command{
		Use:   "upgrade",
		Short: "Have the daemon replaced by a new binary, unnoticed",
		Long: long(`Has the daemon start the binary that now lies where it was started from, and
hand everything over to it: endpoints with their sockets, open connections and
counters, sessions, monitors, and the sockets that it takes calls at. Nobody is
refused and nothing is lost; for the moment of "pause" nothing is echoed. Probes
that run end, and watches and sessions have to be begun again, which echoctl
does.

So: put the new binary in place of the old one (with mv, not by writing into
it), then upgrade. If the new one does not come up the daemon goes on as it was,
and this says why. --validate-only has it come up, read what it would take over,
and end again.`),
		Example: `  echoctl upgrade --validate-only && echoctl upgrade
  echoctl upgrade -o json | jq .pause`,
		Args: argsBetween(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.connect()
			if err != nil {
				return err
			}
			// A daemon gives an upgrade up by itself.
			ctx, cancel := s.call(cmd.Context(), 0)
			defer cancel()
			done, err := s.daemon.UpgradeDaemon(ctx, req)
			if err != nil {
				return err
			}
			return s.out.Upgraded(done, req.GetValidateOnly())
		},
	}
	c.Flags().BoolVar(&req.ValidateOnly, "validate-only", false, "try whether the new binary can take over, and change nothing")
	return c
}

// upgradingPatience is how long a call is tried again that a daemon refuses for an upgrade, which takes much less.
const upgradingPatience = 10 * time.Second

// throughUpgrades tries a call again that the daemon has refused as it is being upgraded: nothing was changed then.
func throughUpgrades(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	began := time.Now()
	for {
		err := invoke(ctx, method, req, reply, conn, opts...)
		if reasonOf(err) != "UPGRADING" || time.Since(began) > upgradingPatience {
			return err
		}
		select {
		case <-time.After(retryDelay(err)):
		case <-ctx.Done():
			return err
		}
	}
}

// retryDelay is after how long the daemon advises to try again.
func retryDelay(err error) time.Duration {
	for _, d := range statusOf(err).Details() {
		if retry, ok := d.(*errdetails.RetryInfo); ok && retry.GetRetryDelay().IsValid() {
			return min(max(retry.GetRetryDelay().AsDuration(), 10*time.Millisecond), time.Second)
		}
	}
	return 100 * time.Millisecond
}
