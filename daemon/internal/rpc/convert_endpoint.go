package rpc

import (
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/registry"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// definitionFromProto reads the settable fields of an endpoint. What TCP options leave open is the daemon's default.
func definitionFromProto(e *echov1.Endpoint) registry.Definition {
	def := registry.Definition{
		Name: e.GetName(), Protocol: protocolFromProto(e.GetProtocol()), Listen: e.GetListen(),
		Labels: e.GetLabels(), Description: e.GetDescription(),
	}
	if def.Protocol == echo.TCP {
		def.TCP = registry.TCPOptions{
			OneShot:        e.GetTcp().GetOneShot(),
			IdleTimeout:    durationOr(e.GetTcp().GetIdleTimeout(), registry.DefaultIdleTimeout),
			MaxConnections: registry.DefaultMaxConnections,
		}
		if e.GetTcp() != nil && e.GetTcp().MaxConnections != nil {
			def.TCP.MaxConnections = e.GetTcp().GetMaxConnections()
		}
	}
	if def.Protocol == echo.UDP {
		def.UDP.NoLoopGuard = e.GetUdp() != nil && e.GetUdp().LoopGuard != nil && !e.GetUdp().GetLoopGuard()
	}
	return def
}

// definitionToProto writes the settable fields of an endpoint: what a mask is applied to.
func definitionToProto(def registry.Definition) *echov1.Endpoint {
	e := &echov1.Endpoint{
		Name: def.Name, Protocol: protocolToProto(def.Protocol), Listen: def.Listen,
		Labels: def.Labels, Description: def.Description,
	}
	if def.Protocol == echo.TCP {
		e.Tcp = &echov1.TcpOptions{
			OneShot:        def.TCP.OneShot,
			IdleTimeout:    durationpb.New(def.TCP.IdleTimeout),
			MaxConnections: &def.TCP.MaxConnections,
		}
	}
	if def.Protocol == echo.UDP {
		guard := !def.UDP.NoLoopGuard
		e.Udp = &echov1.UdpOptions{LoopGuard: &guard}
	}
	return e
}

func endpointToProto(e registry.Endpoint) *echov1.Endpoint {
	out := definitionToProto(e.Definition)
	out.Uid = e.UID
	out.Address = addressText(e.Address)
	if e.Address.IsValid() {
		out.Host, out.Port = e.Address.Addr().String(), uint32(e.Address.Port())
	}
	out.State = stateToProto(e.State)
	out.StateReason = e.Reason
	out.Counters = countersToProto(e.Stats)
	out.CreateTime = timestamp(e.CreateTime)
	out.UpdateTime = timestamp(e.UpdateTime)
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
