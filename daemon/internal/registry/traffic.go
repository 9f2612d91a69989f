package registry

import (
	"net/netip"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
)

// tag is what a connection is told with: whose it is.
type tag struct {
	name   string
	labels map[string]string // nobody changes them any more
}

// Observe has connections of a registry's endpoints told with the names and labels that those have as they come. It is for
// the options of the engine that the registry is given.
func Observe(watches *event.Connections) echo.Observe {
	return func(of any, peer netip.AddrPort) func(echo.Ending) {
		endpoint, _ := of.(tag)
		ended := watches.Opened(endpoint.name, endpoint.labels, peer)
		if ended == nil {
			return nil
		}
		return func(e echo.Ending) { ended(event.Ending{BytesIn: e.BytesIn, BytesOut: e.BytesOut, Reason: e.Reason}) }
	}
}
