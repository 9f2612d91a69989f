package echo

import (
	"net/netip"
	"testing"
)

func TestGuardRefuses(t *testing.T) {
	g := new(Engine)
	for _, bound := range []string{"127.0.0.1:40000", "[::]:40001", "127.0.0.1:40002", "127.0.0.2:40002"} {
		g.own.add(netip.MustParseAddrPort(bound))
	}
	g.own.remove(netip.MustParseAddrPort("127.0.0.2:40002"))
	c := new(counters)
	for from, want := range map[string]any{
		"192.0.2.1:50000": nil, "[2001:db8::1]:50000": nil, "127.0.0.1:50000": nil,
		"192.0.2.1:0":           &c.sourcePortZero,
		"224.0.0.1:50000":       &c.sourceNotUnicast,
		"[ff02::1]:50000":       &c.sourceNotUnicast,
		"0.0.0.0:50000":         &c.sourceNotUnicast,
		"255.255.255.255:50000": &c.sourceNotUnicast,
		"192.0.2.1:7":           &c.sourceIsService,
		"192.0.2.1:53":          &c.sourceIsService,
		"192.0.2.1:11211":       &c.sourceIsService,
		"192.0.2.1:8":           nil,
		"127.0.0.1:40000":       &c.sourceIsEndpoint,
		"127.0.0.2:40000":       nil, // the endpoint is at another address
		"127.0.0.9:40001":       &c.sourceIsEndpoint,
		"[::1]:40001":           &c.sourceIsEndpoint,
		"192.0.2.1:40001":       nil, // another host's
		"127.0.0.1:40002":       &c.sourceIsEndpoint,
		"127.0.0.2:40002":       nil, // gone
	} {
		got := newGuard(g, UDPOptions{}).refuse(netip.MustParseAddrPort(from), c)
		if (got == nil) != (want == nil) || got != nil && any(got) != want {
			t.Errorf("%s: refused %v", from, got != nil)
		}
		off := newGuard(g, UDPOptions{NoLoopGuard: true}).refuse(netip.MustParseAddrPort(from), c)
		if refused := off != nil; refused != (netip.MustParseAddrPort(from).Port() == 0) {
			t.Errorf("%s without the guard: refused %v", from, refused)
		}
	}
}
