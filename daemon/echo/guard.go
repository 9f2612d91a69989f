package echo

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// servicePorts are those of UDP services that answer whatever comes: an echo of ours to one of them could come back for
// ever (echo, daytime, quotd, chargen, DNS, TFTP, NTP, SNMP, LDAP, SSDP, mDNS, memcached).
var servicePorts = [...]uint16{7, 13, 17, 19, 53, 69, 123, 161, 389, 1900, 5353, 11211}

// guard says which datagrams a UDP endpoint answers: none that might be answered in turn, and what Spec says of sources.
type guard struct {
	off       atomic.Bool
	sources   atomic.Pointer[sources]
	rates     sourceRates
	endpoints *ownEndpoints
	namespace uint64 // of the endpoint; known when it is bound
}

func newGuard(g *Engine, s Spec) *guard {
	made := &guard{endpoints: &g.own}
	made.set(s)
	return made
}

func (g *guard) set(s Spec) {
	g.off.Store(s.UDP.NoLoopGuard)
	g.sources.Store(newSources(s))
	g.rates.set(s.UDP)
}

// admit answers how many of some datagrams from there are answered, and why the others are not. They have size bytes each,
// but for the last, which is what is left of bytes. From must not be an IPv4-mapped address; now is the time since any
// moment, the same for all calls, which come from one goroutine.
func (g *guard) admit(from netip.AddrPort, datagrams, size, bytes int, now time.Duration) (answered int, refused event) {
	switch {
	case from.Port() == 0:
		return 0, dropSourcePortZero
	case !g.sources.Load().take(from.Addr()):
		return 0, dropSourceDenied
	}
	if reason := g.loops(from); reason != noEvent {
		return 0, reason
	}
	return g.rates.take(from.Addr(), datagrams, size, bytes, now), dropSourceRate
}

// loops answers why an answer to there might come back as another request, or noEvent.
func (g *guard) loops(from netip.AddrPort) event {
	switch addr := from.Addr(); {
	case g.off.Load():
		return noEvent
	case addr.IsMulticast() || addr.IsUnspecified() || addr == broadcast:
		return dropSourceNotUnicast
	case slices.Contains(servicePorts[:], from.Port()):
		return dropSourceIsService
	case g.endpoints.have(from, g.namespace):
		return dropSourceIsEndpoint
	}
	return noEvent
}

// ownEndpoints are the UDP endpoints of an engine, by port.
//
// Addresses of a loopback, and link-local ones, mean something in their own network namespace alone: what comes from there is
// an endpoint only if that is in the namespace to which it came. All others lead from one namespace to the next.
type ownEndpoints struct {
	taken [1 << 16 / 64]atomic.Uint64 // a bit for each port that is in ports: most datagrams come from none of them

	mu     sync.RWMutex // guards what follows
	ports  map[uint16]map[ownEndpoint]int
	places map[uint64]*ownPlace // by their namespaces, where there are endpoints of all addresses

	localMu sync.Mutex // guards what follows
	local   map[uint64][]netip.Addr
	asked   time.Time
}

// ownEndpoint is where an endpoint is.
type ownEndpoint struct {
	namespace uint64     // 0 for an address that means the same everywhere
	addr      netip.Addr // without zone; the zero Addr for all addresses of the namespace
}

type ownPlace struct {
	endpoints int
	place     Place
}

// localAge is how old what is known of the host's addresses may be.
const localAge = 5 * time.Second

// endpointAt is the endpoint of an address that was met in a namespace.
func endpointAt(addr netip.Addr, namespace uint64) ownEndpoint {
	addr = addr.WithZone("")
	switch {
	case addr.IsUnspecified():
		return ownEndpoint{namespace: namespace}
	case addr.IsLoopback(), addr.IsLinkLocalUnicast():
		return ownEndpoint{namespace, addr}
	default:
		return ownEndpoint{addr: addr}
	}
}

func (o *ownEndpoints) add(bound netip.AddrPort, namespace uint64, place Place) {
	port, e := bound.Port(), endpointAt(bound.Addr(), namespace)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ports == nil {
		o.ports, o.places = make(map[uint16]map[ownEndpoint]int), make(map[uint64]*ownPlace)
	}
	if o.ports[port] == nil {
		o.ports[port] = make(map[ownEndpoint]int)
	}
	o.ports[port][e]++
	o.taken[port/64].Or(uint64(1) << (port % 64))
	if e.addr.IsValid() {
		return
	}
	if o.places[namespace] == nil {
		o.places[namespace] = &ownPlace{place: place}
	}
	o.places[namespace].endpoints++
}

func (o *ownEndpoints) remove(bound netip.AddrPort, namespace uint64) {
	port, e := bound.Port(), endpointAt(bound.Addr(), namespace)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ports[port][e]--; o.ports[port][e] <= 0 {
		delete(o.ports[port], e)
	}
	if len(o.ports[port]) == 0 {
		delete(o.ports, port)
		o.taken[port/64].And(^(uint64(1) << (port % 64)))
	}
	if p := o.places[namespace]; p != nil && !e.addr.IsValid() {
		if p.endpoints--; p.endpoints == 0 {
			delete(o.places, namespace)
		}
	}
}

// have reports whether from, whence a datagram came to that namespace, is one of the endpoints. One of all addresses is at
// each address of its namespace.
func (o *ownEndpoints) have(from netip.AddrPort, namespace uint64) bool {
	port, e := from.Port(), endpointAt(from.Addr(), namespace)
	if o.taken[port/64].Load()&(uint64(1)<<(port%64)) == 0 {
		return false
	}
	switch {
	case o.is(port, e):
		return true
	case e.addr.IsLoopback():
		return o.is(port, ownEndpoint{namespace: namespace})
	case e.addr.IsLinkLocalUnicast():
		return o.is(port, ownEndpoint{namespace: namespace}) && slices.Contains(o.addresses()[namespace], e.addr)
	case !o.haveAll(port):
		return false
	}
	for owner, addrs := range o.addresses() {
		if slices.Contains(addrs, e.addr) && o.is(port, ownEndpoint{namespace: owner}) {
			return true
		}
	}
	return false
}

func (o *ownEndpoints) is(port uint16, e ownEndpoint) bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.ports[port][e] > 0
}

// haveAll reports whether any of the endpoints with a port is one of all addresses.
func (o *ownEndpoints) haveAll(port uint16) bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	for e := range o.ports[port] {
		if !e.addr.IsValid() {
			return true
		}
	}
	return false
}

// addresses are those of the namespaces with endpoints of all addresses. It asks the system only so often: anybody can forge
// the source that brings us here.
func (o *ownEndpoints) addresses() map[uint64][]netip.Addr {
	o.localMu.Lock()
	defer o.localMu.Unlock()
	if time.Since(o.asked) > localAge {
		o.local, o.asked = o.ask(o.local), time.Now()
	}
	return o.local
}

// ask answers the addresses as they are now, or were where a namespace cannot be entered any more. What it answers is never
// changed.
func (o *ownEndpoints) ask(before map[uint64][]netip.Addr) map[uint64][]netip.Addr {
	o.mu.RLock()
	places := make(map[uint64]Place, len(o.places))
	for namespace, p := range o.places {
		places[namespace] = p.place
	}
	o.mu.RUnlock()
	now := make(map[uint64][]netip.Addr, len(places))
	for namespace, place := range places {
		now[namespace] = before[namespace]
		_ = doAt(place, func() error { // Should it fail, the hops of an answer still end a loop.
			now[namespace] = hostAddresses()
			return nil
		})
	}
	return now
}

func hostAddresses() []netip.Addr {
	found, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	addrs := make([]netip.Addr, 0, len(found))
	for _, a := range found {
		if network, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(network.IP); ok {
				addrs = append(addrs, addr.Unmap())
			}
		}
	}
	return addrs
}
