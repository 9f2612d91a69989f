//go:build linux

package torture_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// ports takes ports of endpoints while the daemon is down, and gives them back when clients have worked a while. Those endpoints
// have failed and say why; all others serve. Once their ports are free they come good by themselves.
type ports struct{ changes, most, calls int }

func drawPorts(rnd *rand.Rand) fault { return ports{1 + rnd.IntN(30), 1 + rnd.IntN(6), rnd.IntN(30)} }

func (p ports) String() string {
	return fmt.Sprintf("ports taken, %d at most, after %d changes and for %d calls", p.most, p.changes, p.calls)
}

func (p ports) inject(w *world) {
	w.awaitChanges(p.changes)
	w.down((*life).kill)
	taken, held := map[string]bool{}, []io.Closer{}
	for _, c := range w.clients {
		for _, name := range c.m.is().names() {
			it := c.m.is()[name]
			if len(taken) == p.most || !it.serve || it.seen.GetAddress() == "" {
				continue
			}
			// While an answer is missing, it may be nobody's any more.
			if one, err := occupy(it.def.Protocol, it.seen.Address); err == nil {
				held, taken[fmt.Sprint(it.def.Protocol, it.seen.Address)] = append(held, one), true
			}
		}
	}
	w.mustUp(launch{check: func() {
		w.settle()
		by, err := w.listAll()
		if err != nil {
			w.fail("cannot list: %v", err)
		}
		for _, of := range by {
			for name, e := range of {
				switch bad := taken[fmt.Sprint(e.Protocol, e.Address)]; {
				case e.State == echov1.Endpoint_SERVING && bad:
					w.fail("%s serves at %s, which is taken", name, e.Address)
				case e.State == echov1.Endpoint_FAILED && !bad:
					w.fail("%s at %s has failed with others: %s", name, e.Address, e.StateReason)
				case e.State == echov1.Endpoint_FAILED && !strings.Contains(e.StateReason, e.Address):
					w.fail("%s at %s does not say why it has failed: %q", name, e.Address, e.StateReason)
				}
			}
		}
	}})
	w.awaitCalls(p.calls)
	for _, one := range held {
		one.Close()
	}
}

// occupy takes an address.
func occupy(p echov1.Protocol, address string) (io.Closer, error) {
	if p == echov1.Protocol_UDP {
		return net.ListenPacket("udp", address)
	}
	return net.Listen("tcp", address)
}
