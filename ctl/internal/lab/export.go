package lab

import (
	"net"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// Of makes of an endpoint, as the daemon answers it, what a file says to have the same again: its settable fields without
// those that are as in defaults, which is an endpoint of the same protocol that was given none. A port that was picked is
// written: it is the endpoint's own.
func Of(e, defaults *echov1.Endpoint) *echov1.Endpoint {
	out := proto.CloneOf(e)
	strip(out.ProtoReflect(), nil)
	strip(out.GetTcp().ProtoReflect(), defaults.GetTcp().ProtoReflect())
	strip(out.GetUdp().ProtoReflect(), defaults.GetUdp().ProtoReflect())
	if proto.Size(out.GetTcp()) == 0 {
		out.Tcp = nil
	}
	if proto.Size(out.GetUdp()) == 0 {
		out.Udp = nil
	}
	// An etag would be stale at the first change, and a session ends with who holds it.
	out.Etag, out.Session = "", ""
	host, port, err := net.SplitHostPort(e.GetListen())
	if n, _ := strconv.Atoi(port); err == nil && n == 0 {
		out.Listen = net.JoinHostPort(host, strconv.FormatUint(uint64(e.GetPort()), 10))
	}
	return out
}

// strip clears what cannot be set, and what is as in defaults.
func strip(m, defaults protoreflect.Message) {
	if !m.IsValid() {
		return
	}
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if outputOnly(field) || defaults != nil && defaults.IsValid() && defaults.Has(field) && defaults.Get(field).Equal(v) {
			m.Clear(field)
		}
		return true
	})
}
