package cli

import (
	"strings"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
)

type createOptions struct {
	name         string
	count        countFlag
	labels       labelsFlag
	description  string
	ttl          durationFlag
	session      string
	options      endpointOptions
	validateOnly bool
}

func newCreateCommand(a *app) *cobra.Command {
	o := &createOptions{}
	cmd := &cobra.Command{
		Use:   "create tcp|udp [LISTEN]",
		Short: "Create echo endpoints and start them",
		Long: long(`Creates a TCP or UDP echo endpoint. It is bound and answers when this returns.

LISTEN is where: "127.0.0.1:7", ":7" (every address of the host), "0.0.0.0:7"
(IPv4 only), "[::]:7" (IPv6 only), "[fe80::1%eth0]:7". Port 0 picks a free port;
without LISTEN it is a free port of the daemon's default host.

A range of ports, ":20000-20999", makes one endpoint for each; --count N makes
N, on consecutive ports from that of LISTEN on, or each on a free port. Up to
10,000 are created as one change: all of them, or none. They are named NAME-1,
NAME-2, ... after --name, without zeros in front.

With --ttl it expires so long after its creation, unless echoctl renew gives it
as long again. With --session it is deleted when that session ends; within
echoctl session that is the session around, unless --session '' says none.

On Linux it may listen in any network namespace of the daemon's host, and on one
interface or VRF alone.`),
		Example: `  echoctl create tcp
  echoctl create tcp 127.0.0.1:7000 --name web-1 --label rack=r1 --label role=web
  echoctl create udp :7 --description "the lab's echo"
  echoctl create tcp --one-shot --idle-timeout 30s --max-connections 100
  echoctl create tcp :7 --max-bytes 10MiB --stall-timeout 30s --allow 10.0.0.0/8
  echoctl create udp :7 --source-datagrams 100 --deny 192.0.2.0/24,2001:db8::/32
  echoctl create udp :20000-20999 --name rack --label rack=r1
  echoctl create tcp --count 500 --label run=1234 -o name
  echoctl create tcp --ttl 10m
  echoctl create tcp :7 --netns lab-a --interface eth1
  echoctl create tcp -o json | jq -r .address`,
		Args: argsBetween(1, 2, "tcp or udp"),
		RunE: func(cmd *cobra.Command, args []string) error { return runCreate(a, cmd, o, args) },
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []cobra.Completion{"tcp", "udp"}, cobra.ShellCompDirectiveNoFileComp
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.name, "name", "", "what to call it: `NAME` of a-z, 0-9 and '-'; else the daemon chooses one")
	flags.Var(&o.count, "count", "create `N` of them")
	flags.VarP(&o.labels, "label", "l", "a label `KEY=VALUE` to select by; may be repeated")
	flags.StringVar(&o.description, "description", "", "a `SENTENCE` for people")
	flags.Var(&o.ttl, "ttl", "delete it `DURATION` from now unless it is renewed; 0 is never (the default)")
	flags.StringVar(&o.session, "session", "", "delete it when the session `NAME` ends (default: $"+sessionVariable+")")
	o.options.addTo(cmd, false)
	addValidateOnly(cmd, &o.validateOnly)
	return cmd
}

// addValidateOnly adds the flag under both names that people look for.
func addValidateOnly(cmd *cobra.Command, value *bool) {
	cmd.Flags().BoolVar(value, "validate-only", false, "check only, change nothing")
	cmd.Flags().BoolVar(value, "dry-run", false, "the same as --validate-only")
}

func runCreate(a *app, cmd *cobra.Command, o *createOptions, args []string) error {
	endpoint, err := o.endpoint(cmd, args)
	if err != nil {
		return err
	}
	if !cmd.Flags().Changed("session") {
		endpoint.Session = a.getenv(sessionVariable)
	}
	many, err := newSeries(endpoint.GetListen(), &o.count)
	if err != nil {
		return err
	}
	s, err := a.connect()
	if err != nil {
		return err
	}
	if many != nil {
		return s.createMany(cmd.Context(), many, endpoint, o.validateOnly)
	}
	ctx, cancel := s.call(cmd.Context(), 0)
	defer cancel()
	created, err := s.endpoints.CreateEndpoint(ctx, &echov1.CreateEndpointRequest{
		Endpoint: endpoint, ValidateOnly: o.validateOnly,
	})
	if err != nil {
		return about(anEndpoint, o.name, err)
	}
	if o.validateOnly {
		a.talk("checked only; nothing was created")
	}
	return s.out.Endpoints([]*echov1.Endpoint{created})
}

// endpoint is what the command line asks for. Flags that were not given stay absent: the daemon has the defaults.
func (o *createOptions) endpoint(cmd *cobra.Command, args []string) (*echov1.Endpoint, error) {
	e := &echov1.Endpoint{Name: o.name, Labels: o.labels.values, Description: o.description, Ttl: o.ttl.proto(), Session: o.session}
	switch strings.ToLower(args[0]) {
	case "tcp":
		e.Protocol = echov1.Protocol_TCP
	case "udp":
		e.Protocol = echov1.Protocol_UDP
	default:
		return nil, usagef("%q is no protocol: say tcp or udp", args[0])
	}
	if len(args) > 1 {
		e.Listen = args[1]
	}
	if err := checkProtocol(e.Protocol, cmd); err != nil {
		return nil, err
	}
	o.options.into(e, cmd)
	return e, nil
}
