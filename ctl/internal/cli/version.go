package cli

import (
	"context"
	"runtime"
	"time"

	"github.com/echod/echod/ctl/internal/render"
	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
)

// versionWait is how long `version` waits for a daemon, which it can do without.
const versionWait = time.Second

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the versions of echoctl and of the daemon",
		Long: long(`Shows the version of this echoctl, and that of the daemon if it answers within a
second; that it does not is no failure. With -o name: the version of this
echoctl alone.`),
		Example: `  echoctl version
  echoctl version -o name`,
		Args: argsBetween(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return runVersion(a, cmd) },
	}
}

func runVersion(a *app, cmd *cobra.Command) error {
	s, err := a.connect()
	if err != nil {
		return err
	}
	v := render.Version{Client: render.ClientVersion{
		Version: Version, Platform: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH,
	}}
	ctx, cancel := context.WithTimeout(cmd.Context(), versionWait)
	defer cancel()
	if info, err := s.daemon.GetInfo(ctx, &echov1.GetInfoRequest{}); err == nil {
		v.Daemon = &render.DaemonVersion{
			Version: info.GetVersion(), Platform: info.GetPlatform(), Address: a.peer.server.String(),
		}
	}
	return s.out.Version(v)
}
