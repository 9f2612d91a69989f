package cli

import (
	"net"
	"strings"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
)

const targetHelp = `TARGET is the name of an endpoint of the daemon, or any echo server as
tcp://HOST:PORT or udp://HOST:PORT. An endpoint that is called like a command
of "echoctl probe" (start, list, ...) is written endpoint/NAME.`

const probeLong = `Sends round trips from where the daemon stands and measures them, as ping does.

` + targetHelp + `

On a terminal each round trip has a line as it ends; of a fast probe (more than
100 round trips, less than 10ms apart) there is one line instead that changes. A
summary comes last, with a histogram. Elsewhere there is the summary only,
unless --verbose or --histogram is given. -o json and yaml write the report.

Ctrl-C ends the probe and shows what it measured so far; a second Ctrl-C ends
echoctl at once, with exit code 130.

` + expectHelp + `

` + pathMTUHelp + `

-o junit writes a JUnit test suite with a case for each expectation.

Exit code 0: all expectations are met, or without any at least one reply was
received; 3: the probe ran and that is not so.`

// probeOptions are the flags of a probe, whether it is followed or left to run. The letters are ping's.
type probeOptions struct {
	name          string
	count         countFlag
	interval      durationFlag
	size          countFlag
	timeout       durationFlag
	duration      durationFlag
	newConnection bool
	awaitClose    bool
	expect        []string
	ledger        string
	local         bool
	path          pathOptions
	pathMTU       pathMTUFlag
}

func newProbeCommand(a *app) *cobra.Command {
	o, w := &probeOptions{}, &watchOptions{}
	cmd := &cobra.Command{
		Use:   "probe TARGET",
		Short: "Measure round trips to an endpoint or any echo server",
		Long:  long(probeLong),
		Example: `  echoctl probe web-1
  echoctl probe tcp://192.0.2.7:7 -c 100 -i 20ms -s 1400
  echoctl probe udp://[2001:db8::1]:7 -w 10s -W 0.5
  echoctl probe web-1 --new-connection --await-close
  echoctl probe web-1 -c 0 -i 1
  echoctl probe dns-1 --rate 10000 -w 30s --pacing poisson --flows 16
  echoctl probe udp://192.0.2.7:7 --sweep 64:1472:64 --dont-fragment -c 220
  echoctl probe udp://192.0.2.7:7 --dscp ef --source 192.0.2.1 --ttl 4
  echoctl probe web-1 -o json | jq .rtt.p99
  echoctl probe web-1 -c 100 --expect 'loss <= 0.1%' --expect 'p99 < 2ms'
  echoctl probe web-1 --expect 'p99 < 2ms' -o junit > probe.xml
  echoctl probe udp://192.0.2.7:7 --ledger 192.0.2.7:7007
  echoctl probe --local udp://192.0.2.7:7
  echoctl probe udp://192.0.2.7:7 --path-mtu`,
		Annotations:       writesJUnit,
		Args:              argsBetween(1, 1, "TARGET"),
		RunE:              func(cmd *cobra.Command, args []string) error { return runProbe(a, cmd, o, w, args[0]) },
		ValidArgsFunction: firstOnly(a.completeTargets),
	}
	o.addTo(cmd)
	addLocalFlag(cmd, &o.local)
	w.addTo(cmd)
	cmd.AddCommand(newProbeStartCommand(a), newProbeListCommand(a), newProbeGetCommand(a), newProbeStopCommand(a),
		newProbeDeleteCommand(a))
	return cmd
}

func (o *probeOptions) addTo(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.VarP(&o.count, "count", "c", "`N` round trips; 0 is no bound (default: 5, or no bound with --duration)")
	flags.VarP(&o.interval, "interval", "i",
		"`DURATION` from one to the next; 0 is as soon as one has ended (default: 0.2)")
	flags.VarP(&o.size, "size", "s", "`N` payload bytes (default: 64)")
	flags.VarP(&o.timeout, "timeout", "W", "wait `DURATION` for a reply or a connection (default: 1)")
	flags.VarP(&o.duration, "duration", "w", "end after `DURATION`")
	flags.BoolVar(&o.newConnection, "new-connection", false, "tcp: a new connection for each round trip")
	flags.BoolVar(&o.awaitClose, "await-close", false, "tcp: also wait until the server closes; implies --new-connection")
	flags.StringVar(&o.name, "name", "", "what to call the probe: `NAME` of a-z, 0-9 and '-'; else the daemon chooses one")
	flags.StringVar(&o.ledger, "ledger", "",
		"udp: `HOST:PORT` of the gRPC API of the echod that hosts the target; its ledger tells which way datagrams were lost")
	addExpectFlag(cmd, &o.expect)
	o.path.addTo(cmd)
	addPathMTUFlag(cmd, &o.pathMTU)
}

// probe is what the command line asks for. Flags that were not given stay absent: the daemon has the defaults.
func (o *probeOptions) probe(target string) (*echov1.Probe, error) {
	to, err := parseTarget(target)
	if err != nil {
		return nil, err
	}
	p := &echov1.Probe{
		Name: o.name, Target: to, Count: o.count.proto(), Duration: o.duration.proto(), Interval: o.interval.proto(),
		Timeout: o.timeout.proto(), PayloadSize: o.size.proto(), Expect: o.expect,
	}
	if o.ledger != "" {
		if to.GetProtocol() == echov1.Protocol_TCP {
			return nil, usagef("--ledger is for udp")
		}
		p.Ledger = &echov1.LedgerSource{Address: o.ledger}
	}
	if o.newConnection || o.awaitClose {
		if to.GetProtocol() == echov1.Protocol_UDP {
			return nil, usagef("--new-connection and --await-close are for tcp")
		}
		p.Tcp = &echov1.TcpProbeOptions{NewConnection: o.newConnection, AwaitClose: o.awaitClose}
	}
	if err := o.path.into(p); err != nil {
		return nil, err
	}
	return p, o.pathMTU.into(p)
}

// endpointPrefix marks a target as an endpoint's name, for those that are called like a subcommand.
const endpointPrefix = "endpoint/"

// parseTarget reads TARGET as targetHelp tells.
func parseTarget(text string) (*echov1.ProbeTarget, error) {
	if name, ok := strings.CutPrefix(text, endpointPrefix); ok && name != "" && !strings.ContainsAny(name, ":/") {
		return &echov1.ProbeTarget{Endpoint: name}, nil
	}
	scheme, address, found := strings.Cut(text, "://")
	if !found {
		if strings.ContainsAny(text, ":/") || text == "" {
			return nil, usagef("target %q: say NAME, tcp://HOST:PORT or udp://HOST:PORT", text)
		}
		return &echov1.ProbeTarget{Endpoint: text}, nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "" || strings.ContainsAny(address, "/ ") {
		return nil, usagef("target %q: say %s://HOST:PORT, as in %s://192.0.2.7:7 or %s://[2001:db8::1]:7", text, scheme,
			scheme, scheme)
	}
	switch strings.ToLower(scheme) {
	case "tcp":
		return &echov1.ProbeTarget{Address: address, Protocol: echov1.Protocol_TCP}, nil
	case "udp":
		return &echov1.ProbeTarget{Address: address, Protocol: echov1.Protocol_UDP}, nil
	}
	return nil, usagef("target %q: %q is no protocol; say tcp or udp", text, scheme)
}

func runProbe(a *app, cmd *cobra.Command, o *probeOptions, w *watchOptions, target string) error {
	probe, err := o.probe(target)
	if err != nil {
		return err
	}
	if err := w.check(); err != nil {
		return err
	}
	if cmd.Flags().Changed("histogram") {
		a.histogram = &w.histogram
	}
	s, err := a.connectTo(o.local, probe.GetTarget(), moreFormats(cmd)...)
	if err != nil {
		return err
	}
	see, end := s.watch(w)
	report, err := s.follow(cmd.Context(), &echov1.StreamProbeRequest{Probe: probe, Aggregate: w.every()}, see)
	end()
	if err != nil {
		return err
	}
	if err := s.out.Reports([]*echov1.ProbeReport{report}); err != nil {
		return err
	}
	return unmet(probe, report)
}
