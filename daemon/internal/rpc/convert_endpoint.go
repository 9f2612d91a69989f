package rpc

import (
	"fmt"
	"net/netip"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/registry"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// definitionFromProto reads the settable fields of an endpoint. What TCP options leave open is the daemon's default. The
// error is a badRequest about sources: the rules in the proto have seen all else.
func definitionFromProto(e *echov1.Endpoint) (registry.Definition, error) {
	sources, err := sourcesFromProto(e.GetSources())
	def := registry.Definition{
		Name: e.GetName(), Protocol: protocolFromProto(e.GetProtocol()), Listen: e.GetListen(),
		NetworkNamespace: e.GetNetworkNamespace(), Interface: e.GetInterface(),
		Labels: e.GetLabels(), Description: e.GetDescription(), Sources: sources,
		TTL: e.GetTtl().AsDuration(), Session: e.GetSession(),
	}
	if def.Protocol == echo.TCP {
		def.TCP = tcpOptionsFromProto(e.GetTcp())
	}
	if def.Protocol == echo.UDP {
		def.UDP = registry.UDPOptions{
			NoLoopGuard:        e.GetUdp() != nil && e.GetUdp().LoopGuard != nil && !e.GetUdp().GetLoopGuard(),
			MaxSourceDatagrams: e.GetUdp().GetMaxSourceDatagrams(),
			MaxSourceBytes:     e.GetUdp().GetMaxSourceBytes(),
		}
	}
	return def, err
}

func tcpOptionsFromProto(o *echov1.TcpOptions) registry.TCPOptions {
	out := registry.TCPOptions{
		OneShot:           o.GetOneShot(),
		IdleTimeout:       durationOr(o.GetIdleTimeout(), registry.DefaultIdleTimeout),
		StallTimeout:      durationOr(o.GetStallTimeout(), registry.DefaultStallTimeout),
		MaxConnections:    registry.DefaultMaxConnections,
		MaxBytes:          o.GetMaxBytes(),
		SocketBufferBytes: o.GetSocketBufferBytes(),
	}
	if o != nil && o.MaxConnections != nil {
		out.MaxConnections = o.GetMaxConnections()
	}
	return out
}

// sourcesFromProto parses prefixes. The error names each that is none, by its place in the list.
func sourcesFromProto(s *echov1.Sources) (registry.Sources, error) {
	bad := &badRequest{}
	parse := func(field string, texts []string) (all []netip.Prefix) {
		for i, text := range texts {
			p, err := echo.ParseSource(text)
			if err != nil {
				bad.violations = append(bad.violations, violation{fmt.Sprintf("endpoint.sources.%s[%d]", field, i), err.Error()})
			}
			all = append(all, p)
		}
		return all
	}
	out := registry.Sources{Allow: parse("allow", s.GetAllow()), Deny: parse("deny", s.GetDeny())}
	if len(bad.violations) > 0 {
		return registry.Sources{}, bad
	}
	return out, nil
}

// definitionToProto writes the settable fields of an endpoint: what a mask is applied to.
func definitionToProto(def registry.Definition) *echov1.Endpoint {
	e := &echov1.Endpoint{
		Name: def.Name, Protocol: protocolToProto(def.Protocol), Listen: def.Listen,
		NetworkNamespace: def.NetworkNamespace, Interface: def.Interface,
		Labels: def.Labels, Description: def.Description, Sources: sourcesToProto(def.Sources),
		Session: def.Session,
	}
	if def.TTL > 0 {
		e.Ttl = durationpb.New(def.TTL)
	}
	if def.Protocol == echo.TCP {
		e.Tcp = &echov1.TcpOptions{
			OneShot:           def.TCP.OneShot,
			IdleTimeout:       durationpb.New(def.TCP.IdleTimeout),
			StallTimeout:      durationpb.New(def.TCP.StallTimeout),
			MaxConnections:    &def.TCP.MaxConnections,
			MaxBytes:          def.TCP.MaxBytes,
			SocketBufferBytes: def.TCP.SocketBufferBytes,
		}
	}
	if def.Protocol == echo.UDP {
		guard := !def.UDP.NoLoopGuard
		e.Udp = &echov1.UdpOptions{
			LoopGuard:          &guard,
			MaxSourceDatagrams: def.UDP.MaxSourceDatagrams,
			MaxSourceBytes:     def.UDP.MaxSourceBytes,
		}
	}
	return e
}

// sourcesToProto writes prefixes; that everybody is taken is absent.
func sourcesToProto(s registry.Sources) *echov1.Sources {
	if len(s.Allow) == 0 && len(s.Deny) == 0 {
		return nil
	}
	return &echov1.Sources{Allow: prefixTexts(s.Allow), Deny: prefixTexts(s.Deny)}
}

func prefixTexts(all []netip.Prefix) []string {
	texts := make([]string, 0, len(all))
	for _, p := range all {
		texts = append(texts, p.String())
	}
	return texts
}

// endpointToProto writes all of an endpoint.
func endpointToProto(e registry.Endpoint) *echov1.Endpoint {
	out := basicToProto(e)
	out.Counters = countersToProto(e.Stats)
	return out
}

// basicToProto writes an endpoint without its counters.
func basicToProto(e registry.Endpoint) *echov1.Endpoint {
	out := definitionToProto(e.Definition)
	out.Uid, out.Inherited = e.UID, e.Inherited
	out.Address, out.Host, out.Port = addressText(e.Address), hostText(e.Address), uint32(e.Address.Port())
	out.State = stateToProto(e.State)
	out.StateReason = e.Reason
	out.CreateTime = timestamp(e.CreateTime)
	out.UpdateTime = timestamp(e.UpdateTime)
	out.ExpireTime = timestamp(e.ExpireTime)
	out.RetryTime = timestamp(e.RetryTime)
	out.Etag = e.ETag
	return out
}

func countersToProto(s echo.Stats) *echov1.Counters {
	return &echov1.Counters{
		ConnectionsOpen:  uint32(s.ConnectionsOpen),
		ConnectionsTotal: s.ConnectionsTotal,
		BytesIn:          s.BytesIn,
		BytesOut:         s.BytesOut,
		DatagramsIn:      s.DatagramsIn,
		DatagramsOut:     s.DatagramsOut,
		Drops:            s.Drops,
		Errors:           s.Errors,
		LastActivityTime: timestamp(s.LastActivity),
	}
}

func stateToProto(s registry.State) echov1.Endpoint_State {
	switch s {
	case registry.Serving:
		return echov1.Endpoint_SERVING
	case registry.Stopped:
		return echov1.Endpoint_STOPPED
	case registry.Draining:
		return echov1.Endpoint_DRAINING
	case registry.Failed:
		return echov1.Endpoint_FAILED
	default:
		return echov1.Endpoint_STATE_UNSPECIFIED
	}
}

func protocolFromProto(p echov1.Protocol) echo.Protocol {
	switch p {
	case echov1.Protocol_TCP:
		return echo.TCP
	case echov1.Protocol_UDP:
		return echo.UDP
	default:
		return 0
	}
}

func protocolToProto(p echo.Protocol) echov1.Protocol {
	switch p {
	case echo.TCP:
		return echov1.Protocol_TCP
	case echo.UDP:
		return echov1.Protocol_UDP
	default:
		return echov1.Protocol_PROTOCOL_UNSPECIFIED
	}
}
