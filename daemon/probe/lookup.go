package probe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// leastLookup is how long a lookup may take at least: a resolver's own first retry comes after 5 s.
const leastLookup = 6 * time.Second

// lookup answers the one address that a run goes to. address must have passed Validate.
func (p *Prober) lookup(ctx context.Context, address string, timeout time.Duration) (netip.AddrPort, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(ip.Unmap(), uint16(port)), nil
	}
	ctx, cancel := context.WithTimeout(ctx, max(2*timeout, leastLookup))
	defer cancel()
	found, err := p.options.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if len(found) == 0 {
		return netip.AddrPort{}, fmt.Errorf("lookup %s: no addresses", host)
	}
	return netip.AddrPortFrom(best(found), uint16(port)), nil
}

// best is the first address, but for a host that is this one: "localhost" is ::1 first by RFC 6724, and much that
// listens on loopback does so on 127.0.0.1 alone.
func best(found []netip.Addr) netip.Addr {
	first := found[0].Unmap()
	if first != netip.IPv6Loopback() {
		return first
	}
	i := slices.IndexFunc(found, func(a netip.Addr) bool { return a.Unmap().Is4() && a.Unmap().IsLoopback() })
	if i < 0 {
		return first
	}
	return found[i].Unmap()
}
