package render

import (
	"fmt"
	"slices"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// endpointRows has a column for when endpoints expire only where one does.
func endpointRows(list []*echov1.Endpoint, now time.Time) *grid {
	g := &grid{header: []string{"NAME", "PROTOCOL", "ADDRESS", "STATE", "AGE", "LABELS"}}
	expiring := slices.ContainsFunc(list, func(e *echov1.Endpoint) bool { return e.GetExpireTime() != nil })
	if expiring {
		g.header = []string{"NAME", "PROTOCOL", "ADDRESS", "STATE", "AGE", "EXPIRES", "LABELS"}
	}
	for _, e := range list {
		row := []cell{
			{text: clean(e.GetName())},
			{text: protocolText(e.GetProtocol())},
			{text: orDash(clean(e.GetAddress()))},
			endpointState(e.GetState()),
			{text: age(now, e.GetCreateTime())},
		}
		if expiring {
			row = append(row, cell{text: until(now, e.GetExpireTime())})
		}
		g.add(append(row, cell{text: orDash(labelText(e.GetLabels()))})...)
	}
	return g
}

func wideEndpointRows(list []*echov1.Endpoint, now time.Time) *grid {
	g := &grid{header: []string{
		"NAME", "PROTOCOL", "ADDRESS", "STATE", "AGE", "EXPIRES", "SESSION", "LISTEN", "NETNS", "INTERFACE", "OPEN", "CONNECTIONS", "BYTES-IN", "BYTES-OUT",
		"DATAGRAMS-IN", "DATAGRAMS-OUT", "DROPS", "ERRORS", "UID", "RETRY", "REASON", "LABELS",
	}}
	for _, e := range list {
		c := e.GetCounters()
		// What the protocol does not have is not 0 but nothing.
		tcp, udp := e.GetProtocol() != echov1.Protocol_UDP, e.GetProtocol() != echov1.Protocol_TCP
		g.add(
			cell{text: clean(e.GetName())},
			cell{text: protocolText(e.GetProtocol())},
			cell{text: orDash(clean(e.GetAddress()))},
			endpointState(e.GetState()),
			cell{text: age(now, e.GetCreateTime())},
			cell{text: until(now, e.GetExpireTime())},
			cell{text: orDash(clean(e.GetSession()))},
			cell{text: orDash(clean(e.GetListen()))},
			cell{text: orDash(clean(e.GetNetworkNamespace()))},
			cell{text: orDash(clean(e.GetInterface()))},
			cell{text: numberIf(tcp && c != nil, uint64(c.GetConnectionsOpen()))},
			cell{text: numberIf(tcp && c != nil, c.GetConnectionsTotal())},
			cell{text: numberIf(c != nil, c.GetBytesIn())},
			cell{text: numberIf(c != nil, c.GetBytesOut())},
			cell{text: numberIf(udp && c != nil, c.GetDatagramsIn())},
			cell{text: numberIf(udp && c != nil, c.GetDatagramsOut())},
			cell{text: numberIf(c != nil, sum(c.GetDrops()))},
			cell{text: numberIf(c != nil, sum(c.GetErrors()))},
			cell{text: orDash(clean(e.GetUid()))},
			cell{text: until(now, e.GetRetryTime())},
			cell{text: orDash(clean(e.GetStateReason()))},
			cell{text: orDash(labelText(e.GetLabels()))},
		)
	}
	return g
}

func numberIf(known bool, n uint64) string {
	if !known {
		return "-"
	}
	return number(n)
}

func sum(counts map[string]uint64) uint64 {
	var total uint64
	for _, n := range counts {
		total += n
	}
	return total
}

func describeEndpoint(e *echov1.Endpoint, now time.Time) *pairs {
	p := &pairs{}
	p.add("Name", clean(e.GetName()))
	p.add("UID", orDash(clean(e.GetUid())))
	p.add("Protocol", protocolText(e.GetProtocol()))
	p.addCells("State", endpointState(e.GetState()))
	if e.GetStateReason() != "" {
		p.add("Reason", clean(e.GetStateReason()))
	}
	if t := e.GetRetryTime(); t != nil {
		p.add("Retry", fmt.Sprintf("%s (%s)", t.AsTime().UTC().Format(time.RFC3339), until(now, t)))
	}
	p.add("Address", orDash(clean(e.GetAddress())))
	p.add("Listen", orDash(clean(e.GetListen())))
	if e.GetNetworkNamespace() != "" {
		p.add("Namespace", clean(e.GetNetworkNamespace()))
	}
	if e.GetInterface() != "" {
		p.add("Interface", clean(e.GetInterface()))
	}
	p.add("Labels", labelLines(e.GetLabels())...)
	p.add("Description", orDash(clean(e.GetDescription())))
	if tcp := e.GetTcp(); tcp != nil {
		describeTCP(p, tcp)
	}
	if udp := e.GetUdp(); udp != nil {
		describeUDP(p, udp)
	}
	describeSources(p, e.GetSources())
	if c := e.GetCounters(); c != nil {
		describeCounters(p, e.GetProtocol(), c, now)
	}
	if e.GetTtl() != nil {
		p.add("TTL", span(e.GetTtl().AsDuration()))
	}
	if t := e.GetExpireTime(); t != nil {
		p.add("Expires", fmt.Sprintf("%s (%s)", t.AsTime().UTC().Format(time.RFC3339), until(now, t)))
	}
	if e.GetSession() != "" {
		p.add("Session", clean(e.GetSession()))
	}
	p.add("Created", moment(now, e.GetCreateTime(), "-"))
	p.add("Changed", moment(now, e.GetUpdateTime(), "-"))
	p.add("Etag", orDash(clean(e.GetEtag())))
	return p
}

func describeTCP(p *pairs, tcp *echov1.TcpOptions) {
	if tcp.GetOneShot() {
		p.add("One shot", "yes")
	} else {
		p.add("One shot", "no")
	}
	describeTimeout(p, "Idle timeout", tcp.GetIdleTimeout())
	describeTimeout(p, "Stall timeout", tcp.GetStallTimeout())
	if tcp.MaxConnections != nil {
		text := number(tcp.GetMaxConnections())
		if tcp.GetMaxConnections() == 0 {
			text = "no limit"
		}
		p.add("Max connections", text)
	}
	if n := tcp.GetMaxBytes(); n > 0 {
		p.add("Max bytes", number(n))
	}
	if n := tcp.GetSocketBufferBytes(); n > 0 {
		p.add("Socket buffer", number(n)+" bytes")
	}
}

func describeTimeout(p *pairs, key string, d *durationpb.Duration) {
	if d == nil {
		return
	}
	text := span(d.AsDuration())
	if d.AsDuration() == 0 {
		text = "never"
	}
	p.add(key, text)
}

func describeUDP(p *pairs, udp *echov1.UdpOptions) {
	if udp.LoopGuard != nil {
		text := "on"
		if !udp.GetLoopGuard() {
			text = "off"
		}
		p.add("Loop guard", text)
	}
	if n := udp.GetMaxSourceDatagrams(); n > 0 {
		p.add("Source datagrams", "at most "+number(n)+" a second")
	}
	if n := udp.GetMaxSourceBytes(); n > 0 {
		p.add("Source bytes", "at most "+number(n)+" a second")
	}
}

func describeSources(p *pairs, s *echov1.Sources) {
	if allow := s.GetAllow(); len(allow) > 0 {
		p.add("Allow", cleanAll(allow)...)
	}
	if deny := s.GetDeny(); len(deny) > 0 {
		p.add("Deny", cleanAll(deny)...)
	}
}

func describeCounters(p *pairs, protocol echov1.Protocol, c *echov1.Counters, now time.Time) {
	if protocol != echov1.Protocol_UDP {
		p.add("Connections", fmt.Sprintf("%d open, %d in all", c.GetConnectionsOpen(), c.GetConnectionsTotal()))
	}
	p.add("Bytes", fmt.Sprintf("%d in, %d out", c.GetBytesIn(), c.GetBytesOut()))
	if protocol != echov1.Protocol_TCP {
		p.add("Datagrams", fmt.Sprintf("%d in, %d out", c.GetDatagramsIn(), c.GetDatagramsOut()))
	}
	p.add("Drops", countText(c.GetDrops()))
	p.add("Errors", countText(c.GetErrors()))
	p.add("Last activity", moment(now, c.GetLastActivityTime(), "never"))
}

func protocolText(p echov1.Protocol) string {
	if p == echov1.Protocol_PROTOCOL_UNSPECIFIED {
		return "-"
	}
	return p.String()
}

func endpointState(s echov1.Endpoint_State) cell {
	switch s {
	case echov1.Endpoint_STATE_UNSPECIFIED:
		return cell{text: "-"}
	case echov1.Endpoint_SERVING:
		return cell{text: s.String(), style: green}
	case echov1.Endpoint_STOPPED:
		return cell{text: s.String(), style: dim}
	case echov1.Endpoint_FAILED:
		return cell{text: s.String(), style: red}
	default:
		return cell{text: s.String()}
	}
}
