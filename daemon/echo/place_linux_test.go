package echo_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/netns"
	"github.com/echod/echod/daemon/internal/netns/netnstest"
)

// inside is a place: a network namespace by its path.
type inside string

func (p inside) Do(f func() error) error { return netns.Do(string(p), f) }
func (p inside) String() string          { return "in there" }

// openAt opens an endpoint at a place, from here.
func openAt(t *testing.T, newEngine maker, protocol echo.Protocol, listen, device string, n *netnstest.Namespace) *echo.Endpoint {
	t.Helper()
	return open(t, newEngine, echo.Spec{Protocol: protocol, Listen: listen, Interface: device, Place: inside(n.Path())})
}

// tryOpen opens an endpoint that may not be had.
func tryOpen(t *testing.T, newEngine maker, s echo.Spec) (*echo.Endpoint, error) {
	engine := newEngine()
	defer closeEngine(t, engine)
	return engine.Listen(patient(t), s)
}

// visit goes round once from a host to an endpoint.
func (h *host) visit(t *testing.T, protocol echo.Protocol, to string) {
	t.Helper()
	if protocol == echo.TCP {
		roundTrip(t, h.mustDialTCP(t, "", to), "hello")
		return
	}
	expectEcho(t, h.dialUDP(t, "", to))
}

var protocols = []echo.Protocol{echo.TCP, echo.UDP}

// An endpoint at a place is bound there, on every kind of address, and not here.
func TestPlace(t *testing.T) {
	a, b := twoHosts(t)
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for listen, addresses := range map[string][]string{
			"10.0.0.1:0":         {"10.0.0.1"},
			"0.0.0.0:0":          {"10.0.0.1", "10.0.0.3"},
			":0":                 {"10.0.0.1", "fd00::3", "fe80::1%right"},
			"[::]:0":             {"fd00::1", "fd00::3", "fe80::1%right"},
			"[fd00::1]:0":        {"fd00::1"},
			"[fe80::1%left]:0":   {"fe80::1%right"},
			"[fe80::1%71]:0":     {"fe80::1%right"},
			"[fe80::1%right]:0":  nil, // there is no such interface there
			"10.0.0.2:0":         nil, // nor such an address
			"[fe80::1%absent]:0": nil,
		} {
			if isIPv6(listen) && !hasIPv6() {
				continue
			}
			for _, protocol := range protocols {
				if addresses == nil {
					if hasIPv6() {
						b.namespace.Do(t, func() { rememberZone(t, "right") })
					}
					_, err := tryOpen(t, newEngine, echo.Spec{Protocol: protocol, Listen: listen, Place: inside(a.namespace.Path())})
					if want := "cannot bind " + listen + " in there: this host has no such address"; !errors.Is(err, echo.ErrAddressNotAvailable) || err.Error() != want {
						t.Errorf("%s on %s: %v, want %s", protocol, listen, err, want)
					}
					continue
				}
				e := openAt(t, newEngine, protocol, listen, "", a.namespace)
				if zone := e.Addr().Addr().Zone(); zone != "" && !strings.Contains(listen, "%"+zone+"]") {
					t.Errorf("%s is bound to %v", listen, e.Addr())
				}
				for _, address := range addresses {
					if isIPv6(address) && !hasIPv6() {
						continue
					}
					b.visit(t, protocol, at(address, e))
				}
			}
		}
		// The same address and port in each of two namespaces, and here.
		for _, protocol := range protocols {
			here := open(t, newEngine, echo.Spec{Protocol: protocol, Listen: ":0"})
			listen := fmt.Sprintf(":%d", here.Addr().Port())
			there := []*echo.Endpoint{openAt(t, newEngine, protocol, listen, "", a.namespace), openAt(t, newEngine, protocol, listen, "", b.namespace)}
			b.visit(t, protocol, at("10.0.0.1", here))
			a.visit(t, protocol, at("10.0.0.2", here))
			for _, e := range there {
				eventually(t, "each has its own", func() bool { return e.Stats().BytesOut > 0 })
			}
			if got := here.Stats().BytesIn; got != 0 {
				t.Errorf("%s: %d bytes came to where nobody sent any", protocol, got)
			}
			_, err := tryOpen(t, newEngine, echo.Spec{Protocol: protocol, Listen: listen, Place: inside(a.namespace.Path())})
			if !errors.Is(err, echo.ErrAddressInUse) {
				t.Errorf("%s on %s, which is taken there: %v", protocol, listen, err)
			}
		}
	})
}

// rememberZone has package net remember the interfaces of this namespace, among which this one is, for all namespaces.
func rememberZone(t *testing.T, zone string) {
	conn, err := net.Dial("udp", "[fe80::1%"+zone+"]:9")
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

// Two interfaces may have the same address; each endpoint takes what comes by its own, and answers by it.
func TestInterface(t *testing.T) {
	router := netnstest.New(t)
	ends := []*netnstest.Namespace{netnstest.New(t), netnstest.New(t)}
	for i, end := range ends {
		port := fmt.Sprintf("port%d", i)
		netnstest.Cable(t, router, port, end, "port")
		router.IP(t, "addr add 10.0.0.1/24 dev "+port)
		end.IP(t, fmt.Sprintf("addr add 10.0.0.%d/24 dev port", 2+i))
		if hasIPv6() {
			router.IP(t, "addr add fe80::1/64 dev "+port+" nodad")
			end.IP(t, fmt.Sprintf("addr add fe80::%d/64 dev port nodad", 2+i))
		}
	}
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, listen := range []string{"10.0.0.1", "0.0.0.0", "", "[::]"} {
			if isIPv6(listen) && !hasIPv6() {
				continue
			}
			for _, protocol := range protocols {
				first := openAt(t, newEngine, protocol, listen+":0", "port0", router)
				port := first.Addr().Port()
				endpoints := []*echo.Endpoint{first, openAt(t, newEngine, protocol, fmt.Sprintf("%s:%d", listen, port), "port1", router)}
				for i, e := range endpoints {
					h := &host{namespace: ends[i]}
					to := at("10.0.0.1", e)
					if listen == "[::]" {
						to = at("fe80::1%port", e)
					}
					for range 2 {
						h.visit(t, protocol, to)
					}
					eventually(t, "what came by the interface is counted", func() bool {
						s := e.Stats()
						return s.BytesIn > 0 && s.BytesIn == s.BytesOut && (protocol == echo.TCP && s.ConnectionsTotal == 2 || s.DatagramsIn == 2)
					})
				}
				_, err := tryOpen(t, newEngine, echo.Spec{
					Protocol: protocol, Listen: fmt.Sprintf("%s:%d", listen, port), Interface: "port1", Place: inside(router.Path()),
				})
				if !errors.Is(err, echo.ErrAddressInUse) {
					t.Errorf("%s, which is taken on that interface: %v", protocol, err)
				}
			}
		}
	})
}

// An endpoint of a VRF is reached through the VRF's interfaces, and not from outside of it.
func TestVRF(t *testing.T) {
	a, b := twoHosts(t)
	if err := a.ip(t, "link add vrf7 type vrf table 70", "link set vrf7 up", "link set left master vrf7"); err != nil {
		t.Skipf("this kernel has no VRFs: %v", err)
	}
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, protocol := range protocols {
			e := openAt(t, newEngine, protocol, "0.0.0.0:0", "vrf7", a.namespace)
			b.visit(t, protocol, at("10.0.0.1", e))
			// The same address and port outside of it is another endpoint's.
			openAt(t, newEngine, protocol, fmt.Sprintf("127.0.0.1:%d", e.Addr().Port()), "lo", a.namespace)
		}
	})
}

func TestPlacesThatCannotBeHad(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, protocol := range protocols {
			for device, want := range map[string]error{
				"nowhere7": echo.ErrInterfaceNotAvailable, "much.too.long.for.one": echo.ErrBadSpec, "a b": echo.ErrBadSpec, "a/b": echo.ErrBadSpec, "..": echo.ErrBadSpec,
			} {
				if _, err := tryOpen(t, newEngine, echo.Spec{Protocol: protocol, Listen: "127.0.0.1:0", Interface: device}); !errors.Is(err, want) {
					t.Errorf("%s on %q: %v, want %v", protocol, device, err, want)
				}
			}
			_, err := tryOpen(t, newEngine, echo.Spec{Protocol: protocol, Listen: "127.0.0.1:0", Place: inside("/nowhere")})
			if !errors.Is(err, netns.ErrNotAvailable) || !strings.HasPrefix(err.Error(), "cannot bind 127.0.0.1:0 in there: no network namespace") {
				t.Errorf("%s: %v", protocol, err)
			}
		}
	})
}

// Interface and place are of the socket.
func TestUpdateOfPlace(t *testing.T) {
	n := netnstest.New(t)
	n.IP(t, "link set lo up")
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, protocol := range protocols {
			spec := echo.Spec{Protocol: protocol, Listen: "127.0.0.1:0", Interface: "lo", Place: inside(n.Path())}
			e := open(t, newEngine, spec)
			if err := e.Update(spec); err != nil {
				t.Errorf("no change: %v", err)
			}
			other := spec
			other.Interface = ""
			if err := e.Update(other); !errors.Is(err, echo.ErrNeedsRebind) {
				t.Errorf("another interface: %v", err)
			}
			other = spec
			other.Place = nil
			if err := e.Update(other); !errors.Is(err, echo.ErrNeedsRebind) {
				t.Errorf("another place: %v", err)
			}
		}
	})
}

// The guard against loops knows which of two loopbacks is meant, and that an endpoint in one namespace is the same engine's
// when it is met in another.
func TestGuardAcrossPlaces(t *testing.T) {
	a, b := twoHosts(t)
	a.ipv4(t, "rp_filter", "0")
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		g := newEngine()
		t.Cleanup(func() { closeEngine(t, g) })
		same := func() *echo.Engine { return g }
		for _, listen := range []string{"127.0.0.1:0", "0.0.0.0:0", ":0", "10.0.0.2:0"} {
			there := openAt(t, same, echo.UDP, listen, "", b.namespace)
			here := openAt(t, same, echo.UDP, "0.0.0.0:0", "", a.namespace)
			source := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), there.Addr().Port()).String()
			expectEcho(t, a.dialUDP(t, source, at("127.0.0.1", here)))
			if listen == "127.0.0.1:0" {
				continue // nobody else can be met from there
			}
			before := here.Stats().Drops[echo.DropSourceIsEndpoint]
			b.forge(t, at("10.0.0.2", there), at("10.0.0.1", here), 64, "ping")
			comesTo(t, here, func(s echo.Stats) bool { return s.Drops[echo.DropSourceIsEndpoint] == before+1 })
		}
	})
}

// What is made there stays, when the place is not to be had any more.
func TestPlaceIsGone(t *testing.T) {
	n := netnstest.New(t)
	n.IP(t, "link set lo up")
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		place := &gone{inside: inside(n.Path())}
		e := open(t, newEngine, echo.Spec{Protocol: echo.TCP, Listen: ":0", Place: place})
		u := open(t, newEngine, echo.Spec{Protocol: echo.UDP, Listen: ":0", Place: place})
		place.over = true
		h := &host{namespace: n}
		h.visit(t, echo.TCP, at("127.0.0.1", e))
		h.visit(t, echo.UDP, at("127.0.0.1", u))
		if _, err := tryOpen(t, newEngine, echo.Spec{Protocol: echo.TCP, Listen: ":0", Place: place}); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("Listen: %v", err)
		}
	})
}

// gone is a place that goes away.
type gone struct {
	inside
	over bool
}

func (g *gone) Do(f func() error) error {
	if g.over {
		return io.ErrClosedPipe
	}
	return g.inside.Do(f)
}
