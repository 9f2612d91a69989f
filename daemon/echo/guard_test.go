package echo

import (
	"net/netip"
	"testing"
	"time"
)

func TestGuardRefuses(t *testing.T) {
	g := new(Engine)
	for _, bound := range []string{"127.0.0.1:40000", "[::]:40001", "127.0.0.1:40002", "127.0.0.2:40002"} {
		g.own.add(netip.MustParseAddrPort(bound), 0, nil)
	}
	g.own.remove(netip.MustParseAddrPort("127.0.0.2:40002"), 0)
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

// TestGuardOfOtherNamespaces: each namespace has a loopback and link-local addresses of its own, and all else leads from one to
// the next.
func TestGuardOfOtherNamespaces(t *testing.T) {
	g := new(Engine)
	const here, there = 1, 2
	for bound, namespace := range map[string]uint64{
		"127.0.0.1:40000": there, "[fe80::1%eth0]:40000": there, "192.0.2.1:40000": there, "[2001:db8::1]:40000": there,
		"[::]:40001": there, "[::]:40002": here,
	} {
		g.own.add(netip.MustParseAddrPort(bound), namespace, nil)
	}
	g.own.local, g.own.asked = map[uint64][]netip.Addr{
		there: {netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("fe80::2")},
		here:  {netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("fe80::3")},
	}, time.Now().Add(time.Hour)
	for from, want := range map[string][2]event{
		"127.0.0.1:40000":     {noEvent, dropSourceIsEndpoint},
		"[fe80::1%3]:40000":   {noEvent, dropSourceIsEndpoint},
		"192.0.2.1:40000":     {dropSourceIsEndpoint, dropSourceIsEndpoint},
		"[2001:db8::1]:40000": {dropSourceIsEndpoint, dropSourceIsEndpoint},
		"127.0.0.1:40001":     {noEvent, dropSourceIsEndpoint},
		"127.0.0.1:40002":     {dropSourceIsEndpoint, noEvent},
		"192.0.2.2:40001":     {dropSourceIsEndpoint, dropSourceIsEndpoint},
		"192.0.2.3:40001":     {noEvent, noEvent},
		"192.0.2.2:40002":     {noEvent, noEvent},
		"192.0.2.3:40002":     {dropSourceIsEndpoint, dropSourceIsEndpoint},
		"[fe80::2%3]:40001":   {noEvent, dropSourceIsEndpoint},
		"[fe80::3%3]:40001":   {noEvent, noEvent},
		"[fe80::3%3]:40002":   {dropSourceIsEndpoint, noEvent},
		"192.0.2.9:40001":     {noEvent, noEvent},
	} {
		for i, namespace := range []uint64{here, there} {
			guard := newGuard(g, Spec{})
			guard.namespace = namespace
			if got := refused(guard, from); got != want[i] {
				t.Errorf("%s in namespace %d: refused for %q, want %q", from, namespace, eventNames[got], eventNames[want[i]])
			}
		}
	}
	for bound, namespace := range map[string]uint64{"[::]:40001": there, "192.0.2.1:40000": there} {
		g.own.remove(netip.MustParseAddrPort(bound), namespace)
	}
	guard := newGuard(g, Spec{})
	guard.namespace = there
	for _, from := range []string{"127.0.0.1:40001", "192.0.2.1:40000"} {
		if got := refused(guard, from); got != noEvent {
			t.Errorf("%s, which is gone: refused for %q", from, eventNames[got])
		}
	}
	if len(g.own.places) != 1 {
		t.Errorf("places: %v", g.own.places)
	}
}

// refused is why a datagram from there is not answered.
func refused(g *guard, from string) event {
	if answered, reason := g.admit(netip.MustParseAddrPort(from), 1, 1, 1, 0); answered == 0 {
		return reason
	}
	return noEvent
}
