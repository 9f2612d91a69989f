package cli

import (
	"math"
	"strings"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
)

// endpointOptions are the flags that say what an endpoint does and what it is limited to. create and update have the same.
type endpointOptions struct {
	oneShot         bool
	idleTimeout     durationFlag
	stallTimeout    durationFlag
	maxConnections  countFlag
	maxBytes        sizeFlag
	socketBuffer    sizeFlag
	loopGuard       bool
	sourceDatagrams countFlag
	sourceBytes     sizeFlag
	allow           []string
	deny            []string
	namespace       string
	device          string
}

// optionFlags are the names of these flags, and the field that each sets.
var optionFlags = []struct{ flag, path string }{
	{"one-shot", "tcp.one_shot"},
	{"idle-timeout", "tcp.idle_timeout"},
	{"stall-timeout", "tcp.stall_timeout"},
	{"max-connections", "tcp.max_connections"},
	{"max-bytes", "tcp.max_bytes"},
	{"socket-buffer", "tcp.socket_buffer_bytes"},
	{"loop-guard", "udp.loop_guard"},
	{"source-datagrams", "udp.max_source_datagrams"},
	{"source-bytes", "udp.max_source_bytes"},
	{"allow", "sources.allow"},
	{"deny", "sources.deny"},
	{"network-namespace", "network_namespace"},
	{"netns", "network_namespace"},
	{"interface", "interface"},
}

// addTo adds the flags. An update takes the word "default", too, and replaces lists.
func (o *endpointOptions) addTo(cmd *cobra.Command, update bool) {
	flags, orDefault, list, stopped := cmd.Flags(), "", "may be repeated", ""
	if update {
		orDefault, list = ", or default", `replaces the list, "" empties it`
		stopped = `, "" is any; needs the endpoint to be stopped`
	}
	for _, f := range []*bool{&o.idleTimeout.orDefault, &o.stallTimeout.orDefault, &o.maxConnections.orDefault,
		&o.maxBytes.orDefault, &o.socketBuffer.orDefault, &o.sourceDatagrams.orDefault, &o.sourceBytes.orDefault} {
		*f = update
	}
	o.socketBuffer.most = math.MaxUint32
	flags.BoolVar(&o.oneShot, "one-shot", false, "tcp: echo the first bytes that come, then end the connection")
	flags.Var(&o.idleTimeout, "idle-timeout",
		"tcp: close a connection that is idle for `DURATION`; 0 is never"+orDefault)
	flags.Var(&o.stallTimeout, "stall-timeout",
		"tcp: reset a connection whose peer takes no byte of its echo for `DURATION`; 0 is never"+orDefault)
	flags.Var(&o.maxConnections, "max-connections", "tcp: at most `N` connections at once; 0 is no limit"+orDefault)
	flags.Var(&o.maxBytes, "max-bytes", "tcp: end a connection after `SIZE`; 0 is no limit"+orDefault)
	flags.Var(&o.socketBuffer, "socket-buffer",
		"tcp: ask for `SIZE` of receive and of send buffer for each connection; 0 is the daemon's choice"+orDefault)
	flags.BoolVar(&o.loopGuard, "loop-guard", true, "udp: do not answer what another echo service may have sent")
	flags.Var(&o.sourceDatagrams, "source-datagrams",
		"udp: answer at most `N` datagrams a second to one source; 0 is no limit"+orDefault)
	flags.Var(&o.sourceBytes, "source-bytes",
		"udp: answer at most `SIZE` a second to one source; 0 is no limit"+orDefault)
	flags.StringSliceVar(&o.allow, "allow", nil,
		"take only what comes from `PREFIX,...`, as in 192.0.2.0/24 or ::1; "+list)
	flags.StringSliceVar(&o.deny, "deny", nil,
		"take nothing that comes from `PREFIX,...`, whatever --allow says; "+list)
	flags.StringVar(&o.namespace, "network-namespace", "",
		"listen in the network namespace `NAME`, as \"ip netns\" has it, or a path"+strings.Replace(stopped, "any", "the daemon's own", 1))
	flags.StringVar(&o.namespace, "netns", "", "the same as --network-namespace `NAME`")
	flags.StringVar(&o.device, "interface", "", "bind to the interface or VRF `NAME`: nothing else is seen, and answers leave by it"+stopped)
}

// into writes the options that were given into an endpoint, and answers the fields' paths. What was not given stays
// absent: the daemon has the defaults.
func (o *endpointOptions) into(e *echov1.Endpoint, cmd *cobra.Command) (paths []string) {
	for _, f := range optionFlags {
		if !cmd.Flags().Changed(f.flag) {
			continue
		}
		paths = append(paths, f.path)
		switch part, _, _ := strings.Cut(f.path, "."); part {
		case "tcp":
			e.Tcp = o.tcp()
		case "udp":
			e.Udp = o.udp(cmd)
		case "network_namespace":
			e.NetworkNamespace = o.namespace
		case "interface":
			e.Interface = o.device
		default:
			e.Sources = &echov1.Sources{Allow: trimmed(o.allow), Deny: trimmed(o.deny)}
		}
	}
	return paths
}

func (o *endpointOptions) tcp() *echov1.TcpOptions {
	return &echov1.TcpOptions{
		OneShot: o.oneShot, IdleTimeout: o.idleTimeout.proto(), StallTimeout: o.stallTimeout.proto(),
		MaxConnections: o.maxConnections.proto(), MaxBytes: o.maxBytes.value,
		SocketBufferBytes: uint32(o.socketBuffer.value),
	}
}

func (o *endpointOptions) udp(cmd *cobra.Command) *echov1.UdpOptions {
	udp := &echov1.UdpOptions{MaxSourceBytes: o.sourceBytes.value}
	if n := o.sourceDatagrams.proto(); n != nil {
		udp.MaxSourceDatagrams = *n
	}
	if cmd.Flags().Changed("loop-guard") {
		udp.LoopGuard = &o.loopGuard
	}
	return udp
}

// checkProtocol refuses the options of the other protocol.
func checkProtocol(p echov1.Protocol, cmd *cobra.Command) error {
	for _, f := range optionFlags {
		switch part, _, _ := strings.Cut(f.path, "."); {
		case !cmd.Flags().Changed(f.flag):
		case part == "tcp" && p == echov1.Protocol_UDP, part == "udp" && p == echov1.Protocol_TCP:
			return usagef("--%s is for %s", f.flag, part)
		}
	}
	return nil
}

// trimmed takes the blanks away that people write behind commas.
func trimmed(words []string) []string {
	for i := range words {
		words[i] = strings.TrimSpace(words[i])
	}
	return words
}
