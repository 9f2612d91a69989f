package cli

import (
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/echod/echod/ctl/internal/render"
	"github.com/echod/echod/daemon/local"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// channel is what calls go through, and is closed at the end.
type channel interface {
	grpc.ClientConnInterface
	io.Closer
}

// localChannel has the probes run in this process.
type localChannel struct {
	grpc.ClientConnInterface
	*local.Service
}

// connectTo answers a session with the daemon or, where a probe is to run in this process, with a service that stands in
// for it.
func (a *app) connectTo(here bool, target *echov1.ProbeTarget, formats ...render.Format) (*session, error) {
	if !here {
		return a.connect(formats...)
	}
	if name := target.GetEndpoint(); name != "" {
		return nil, usagef("--local has no endpoint %q, for it asks no daemon: say tcp://HOST:PORT or udp://HOST:PORT", name)
	}
	format, err := a.format(formats)
	if err != nil {
		return nil, err
	}
	a.peer = &peer{server: server{"local", "--local"}, connected: true}
	service := local.New()
	return a.session(localChannel{service.Channel(), service}, format), nil
}

func addLocalFlag(cmd *cobra.Command, here *bool) {
	cmd.Flags().BoolVar(here, "local", false, "send from this host, without a daemon; the target is an address")
}
