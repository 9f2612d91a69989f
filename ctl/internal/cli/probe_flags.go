package cli

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
)

// pathOptions are the flags of a probe that say when its rounds leave, from where, and in what packets.
type pathOptions struct {
	rate         rateFlag
	pacing       pacingFlag
	flows        countFlag
	sweep        sweepFlag
	source       string
	sourcePort   countFlag
	namespace    string
	device       string
	dscp         dscpFlag
	dontFragment bool
	ttl          countFlag
}

func (o *pathOptions) addTo(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.Var(&o.rate, "rate", "`N` round trips a second, instead of --interval")
	flags.Var(&o.pacing, "pacing",
		"`HOW` they leave: fixed, poisson (at random) or closed (one of a flow at a time) (default: fixed)")
	flags.Var(&o.flows, "flows", "`N` sockets or connections take turns, each with a source port of its own (default: 1)")
	flags.Var(&o.sweep, "sweep", "payloads of `FROM:TO:STEP` bytes by turns, instead of --size")
	flags.StringVar(&o.source, "source", "", "send from `ADDRESS`, which is one of the daemon's host")
	flags.Var(&o.sourcePort, "source-port", "send from `PORT`, and those that follow with --flows; 0 is any. TCP connections from it end with a RST")
	flags.StringVar(&o.namespace, "source-netns", "", "send from the network namespace `NAME` of the daemon's host, as \"ip netns\" has it, or a path")
	flags.StringVar(&o.namespace, "source-network-namespace", "", "the same as --source-netns `NAME`")
	flags.StringVar(&o.device, "source-interface", "", "send by the interface or VRF `NAME`, and take only what comes by it")
	flags.Var(&o.dscp, "dscp", "mark packets with `DSCP`: 0 to 63, or a name as ef, af41 or cs1")
	flags.BoolVar(&o.dontFragment, "dont-fragment", false, "udp: set the DF bit, and never fragment")
	flags.Var(&o.ttl, "ttl", "time to live or hop limit `N` of packets; 0 is the system's default")
	complete := func(flag string, words []string) {
		mustRegister(cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)))
	}
	complete("pacing", pacingNames)
	complete("dscp", dscpNames)
}

// into writes the flags into a probe. What was not given stays absent: the daemon has the defaults.
func (o *pathOptions) into(p *echov1.Probe) error {
	switch {
	case o.rate.value != nil && p.Interval != nil:
		return usagef("say either --interval or --rate, not both")
	case o.sweep.value != nil && p.PayloadSize != nil:
		return usagef("say either --size or --sweep, not both")
	case o.dontFragment && p.GetTarget().GetProtocol() == echov1.Protocol_TCP:
		return usagef("--dont-fragment is for udp")
	}
	p.Rate, p.Pacing, p.Flows, p.PayloadSweep = o.rate.value, o.pacing.value, o.flows.proto(), o.sweep.value
	if o.source != "" || o.sourcePort.set || o.namespace != "" || o.device != "" {
		p.Source = &echov1.ProbeSource{Address: o.source, Port: o.sourcePort.value, NetworkNamespace: o.namespace, Interface: o.device}
	}
	if o.dscp.set || o.dontFragment || o.ttl.set {
		p.Ip = &echov1.IpOptions{Dscp: o.dscp.value, DontFragment: o.dontFragment, Ttl: o.ttl.value}
	}
	return nil
}

// rateFlag is a flag with a number of round trips a second; nil when it was not given. How many are too many is the
// daemon's to say.
type rateFlag struct{ value *float64 }

func (f *rateFlag) Set(text string) error {
	rate, err := strconv.ParseFloat(text, 64)
	if err != nil || !(rate > 0) || math.IsInf(rate, 0) {
		return errors.New(`say a number above 0, as 0.5 or 10000`)
	}
	f.value = &rate
	return nil
}

func (f *rateFlag) String() string {
	if f.value == nil {
		return ""
	}
	return strconv.FormatFloat(*f.value, 'g', -1, 64)
}

func (f *rateFlag) Type() string { return "N" }

// pacingNames are the words of --pacing.
var pacingNames = []string{"fixed", "poisson", "closed"}

// pacingFlag is --pacing.
type pacingFlag struct{ value echov1.Probe_Pacing }

func (f *pacingFlag) Set(text string) error {
	if !slices.Contains(pacingNames, text) {
		return errors.New("say fixed, poisson or closed")
	}
	f.value = echov1.Probe_Pacing(echov1.Probe_Pacing_value[strings.ToUpper(text)])
	return nil
}

func (f *pacingFlag) String() string {
	if f.value == echov1.Probe_PACING_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(f.value.String())
}

func (f *pacingFlag) Type() string { return "HOW" }

// sweepFlag is --sweep, nil when it was not given.
type sweepFlag struct{ value *echov1.PayloadSweep }

func (f *sweepFlag) Set(text string) error {
	parts := strings.Split(text, ":")
	var n [3]uint32
	for i := range parts {
		value, err := strconv.ParseUint(parts[i], 10, 32)
		if err != nil || len(parts) != len(n) {
			return errors.New("say FROM:TO:STEP in bytes, as 64:1472:64")
		}
		n[i] = uint32(value)
	}
	if n[0] >= n[1] || n[2] == 0 {
		return errors.New("FROM must be below TO, and STEP at least 1")
	}
	f.value = &echov1.PayloadSweep{From: n[0], To: n[1], Step: n[2]}
	return nil
}

func (f *sweepFlag) String() string {
	if f.value == nil {
		return ""
	}
	return fmt.Sprintf("%d:%d:%d", f.value.GetFrom(), f.value.GetTo(), f.value.GetStep())
}

func (f *sweepFlag) Type() string { return "FROM:TO:STEP" }

// dscpNames are the code points that have a name: RFC 2474 (cs), 2597 (af), 3246 (ef), 5865 (va), 8622 (le).
var dscpNames = []string{
	"cs0", "cs1", "cs2", "cs3", "cs4", "cs5", "cs6", "cs7", "af11", "af12", "af13", "af21", "af22", "af23", "af31", "af32",
	"af33", "af41", "af42", "af43", "ef", "va", "le",
}

// dscpOf answers the code point of a name that is one.
func dscpOf(name string) uint32 {
	switch digits := name[2:]; {
	case name == "ef":
		return 46
	case name == "va":
		return 44
	case name == "le":
		return 1
	case len(digits) == 1: // csN
		return uint32(digits[0]-'0') * 8
	default: // afXY
		return uint32(digits[0]-'0')*8 + uint32(digits[1]-'0')*2
	}
}

// dscpFlag is a flag with a DiffServ code point.
type dscpFlag struct {
	value uint32
	set   bool
}

func (f *dscpFlag) Set(text string) error {
	if name := strings.ToLower(text); slices.Contains(dscpNames, name) {
		f.value, f.set = dscpOf(name), true
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n > 63 {
		return errors.New("say 0 to 63, or cs0 to cs7, af11 to af43, ef, va, le")
	}
	f.value, f.set = uint32(n), true
	return nil
}

func (f *dscpFlag) String() string {
	if !f.set {
		return ""
	}
	return strconv.FormatUint(uint64(f.value), 10)
}

func (f *dscpFlag) Type() string { return "DSCP" }
