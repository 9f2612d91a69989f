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
	for from, want := range map[string]event{
		"192.0.2.1:50000": noEvent, "[2001:db8::1]:50000": noEvent, "127.0.0.1:50000": noEvent,
		"192.0.2.1:0":           dropSourcePortZero,
		"224.0.0.1:50000":       dropSourceNotUnicast,
		"[ff02::1]:50000":       dropSourceNotUnicast,
		"0.0.0.0:50000":         dropSourceNotUnicast,
		"255.255.255.255:50000": dropSourceNotUnicast,
		"192.0.2.1:7":           dropSourceIsService,
		"192.0.2.1:53":          dropSourceIsService,
		"192.0.2.1:11211":       dropSourceIsService,
		"192.0.2.1:8":           noEvent,
		"127.0.0.1:40000":       dropSourceIsEndpoint,
		"127.0.0.2:40000":       noEvent, // the endpoint is at another address
		"127.0.0.9:40001":       dropSourceIsEndpoint,
		"[::1]:40001":           dropSourceIsEndpoint,
		"192.0.2.1:40001":       noEvent, // another host's
		"127.0.0.1:40002":       dropSourceIsEndpoint,
		"127.0.0.2:40002":       noEvent, // gone
	} {
		if got := refused(newGuard(g, Spec{}), from); got != want {
			t.Errorf("%s: refused for %q, want %q", from, eventNames[got], eventNames[want])
		}
		off := refused(newGuard(g, Spec{UDP: UDPOptions{NoLoopGuard: true}}), from)
		if refused := off != noEvent; refused != (netip.MustParseAddrPort(from).Port() == 0) {
			t.Errorf("%s without the guard: refused %v", from, refused)
		}
	}
}

// refused is why a datagram from there is not answered.
func refused(g *guard, from string) event {
	if answered, reason := g.admit(netip.MustParseAddrPort(from), 1, 1, 1, 0); answered == 0 {
		return reason
	}
	return noEvent
}
