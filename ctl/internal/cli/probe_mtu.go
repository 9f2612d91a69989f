package cli

import (
	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
)

const pathMTUHelp = `--path-mtu searches for the largest datagram that comes back without being
fragmented on its way there, instead of making round trips of one size. --count
is then how often a size is tried before it is taken for too big (default: 3).`

// pathMTUFlag is --path-mtu, which may have a value: the largest payload to try.
type pathMTUFlag struct {
	most countFlag
	set  bool
}

func (f *pathMTUFlag) Set(text string) error {
	f.set = true
	return f.most.Set(text)
}

func (f *pathMTUFlag) String() string { return f.most.String() }
func (f *pathMTUFlag) Type() string   { return "MAX" }

func addPathMTUFlag(cmd *cobra.Command, f *pathMTUFlag) {
	cmd.Flags().Var(f, "path-mtu", "udp: search for the largest payload that comes back, up to `MAX` bytes (default: 0, as many "+
		"as the interface has room for)")
	cmd.Flags().Lookup("path-mtu").NoOptDefVal = "0"
}

// into makes a probe a search if that was asked for.
func (f *pathMTUFlag) into(p *echov1.Probe) error {
	if !f.set {
		return nil
	}
	if p.GetTarget().GetProtocol() == echov1.Protocol_TCP || p.GetTcp() != nil {
		return usagef("--path-mtu is for udp")
	}
	if p.PayloadSize != nil || p.PayloadSweep != nil {
		return usagef("--path-mtu chooses the sizes; leave --size and --sweep out")
	}
	p.PathMtu = &echov1.PathMtuSearch{MaxPayload: f.most.value}
	return nil
}
