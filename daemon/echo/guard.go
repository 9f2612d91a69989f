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
	case g.endpoints.have(from):
		return dropSourceIsEndpoint
	}
	return noEvent
}

// ownEndpoints are the UDP endpoints of an engine, by port.
type ownEndpoints struct {
	taken [1 << 16 / 64]atomic.Uint64 // a bit for each port that is in ports: most datagrams come from none of them

	mu    sync.RWMutex            // guards ports
	ports map[uint16][]netip.Addr // lists never change once they are in; unspecified for all addresses

	localMu sync.Mutex // guards what follows
	local   []netip.Addr
	asked   time.Time
}

// localAge is how old what is known of the host's addresses may be.
const localAge = 5 * time.Second

func (o *ownEndpoints) add(bound netip.AddrPort) {
	port := bound.Port()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ports == nil {
		o.ports = make(map[uint16][]netip.Addr)
	}
	o.ports[port] = append(slices.Clone(o.ports[port]), bound.Addr())
	o.taken[port/64].Or(uint64(1) << (port % 64))
}

func (o *ownEndpoints) remove(bound netip.AddrPort) {
	port := bound.Port()
	o.mu.Lock()
	defer o.mu.Unlock()
	addrs := o.ports[port]
	if i := slices.Index(addrs, bound.Addr()); i >= 0 {
		addrs = slices.Delete(slices.Clone(addrs), i, i+1)
	}
	if len(addrs) > 0 {
		o.ports[port] = addrs
		return
	}
	delete(o.ports, port)
	o.taken[port/64].And(^(uint64(1) << (port % 64)))
}

// have reports whether from is one of the endpoints. One of all addresses is at each address of the host.
func (o *ownEndpoints) have(from netip.AddrPort) bool {
	if o.taken[from.Port()/64].Load()&(uint64(1)<<(from.Port()%64)) == 0 {
		return false
	}
	o.mu.RLock()
	addrs := o.ports[from.Port()]
	o.mu.RUnlock()
	for _, a := range addrs {
		if a == from.Addr() || a.IsUnspecified() && o.isLocal(from.Addr()) {
			return true
		}
	}
	return false
}

// isLocal reports whether the host has an address. It asks the system only so often: anybody can forge the source that
// brings us here.
func (o *ownEndpoints) isLocal(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	o.localMu.Lock()
	defer o.localMu.Unlock()
	if time.Since(o.asked) > localAge {
		o.local, o.asked = hostAddresses(), time.Now()
	}
	return slices.Contains(o.local, addr.WithZone(""))
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
