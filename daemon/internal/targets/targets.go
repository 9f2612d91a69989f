// Package targets says where a daemon's probes may go to. It judges addresses, after names were looked up; it looks
// nothing up and sends nothing. server makes the policy; probe, runs and rpc ask it.
package targets

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/echod/echod/daemon/probe"
)

// ErrRefused is what errors.Is finds in every error of a Policy. Its text says which address, by which rule, and what
// to do instead.
var ErrRefused = errors.New("the target is not allowed")

// Config is what a policy is made of. The zero value is the rules that nobody can switch off.
type Config struct {
	// Allow is where probes may go to; empty: to all that is not refused. It lifts none of the other rules.
	Allow []netip.Prefix
	// Deny is where probes may not go to besides.
	Deny []netip.Prefix
	// Control are the addresses of the daemon's own TCP listeners for control calls, as bound.
	Control []netip.AddrPort
	// HostPrefixes answers the addresses of this host, each with the length of its network's prefix. Nil: as the
	// system's interfaces have them when it is asked.
	HostPrefixes func() ([]netip.Prefix, error)
}

// Policy says where probes may go to. It does not change, and is safe for concurrent use.
//
// It knows no network namespaces: whichever one a probe leaves from, an address is judged as one of this host's own. That refuses
// a little more than it must (a control port of the daemon at 127.0.0.1 of another namespace is not the daemon's) and nothing less:
// to the broadcast addresses of another namespace's networks its kernel does not let a probe's sockets send, and where the daemon's
// control listeners answer is the same from everywhere.
type Policy struct{ config Config }

// New makes a policy. IPv4-mapped prefixes must have been turned into IPv4 ones.
func New(c Config) *Policy {
	if c.HostPrefixes == nil {
		c.HostPrefixes = hostPrefixes
	}
	c.Allow, c.Deny, c.Control = slices.Clone(c.Allow), slices.Clone(c.Deny), slices.Clone(c.Control)
	for i, l := range c.Control {
		c.Control[i] = netip.AddrPortFrom(l.Addr().Unmap(), l.Port())
	}
	return &Policy{config: c}
}

// Permit says whether a probe of that protocol may be sent to an address. The error is ErrRefused.
func (p *Policy) Permit(address netip.AddrPort, protocol probe.Protocol) error {
	return p.judge(address, protocol == probe.TCP)
}

// PermitControl says whether an API of an echod may be called at an address, as for a ledger. It is Permit, but for the
// daemon's own listeners, which may be what is meant. It is to be asked of the address that is dialled, after a name was
// looked up: in the Control function of a net.Dialer, say.
func (p *Policy) PermitControl(address netip.AddrPort) error { return p.judge(address, false) }

// judge goes through the rules, for the address itself and for the IPv4 addresses that it stands for; notOwn has the
// daemon's own control listeners refused, too.
func (p *Policy) judge(address netip.AddrPort, notOwn bool) error {
	addr := address.Addr().Unmap()
	address = netip.AddrPortFrom(addr, address.Port())
	host, err := p.config.HostPrefixes()
	if err != nil {
		return fmt.Errorf("%w: cannot tell whether %s is this host or a broadcast address: %w", ErrRefused, address, err)
	}
	rule := func(a netip.Addr) string {
		if why := forbidden(a, host); why != "" {
			return why
		}
		if notOwn && p.isControl(netip.AddrPortFrom(a, address.Port()), host) {
			return "is this daemon's own control listener; probe one of its endpoints"
		}
		if i := slices.IndexFunc(p.config.Deny, contains(a)); i >= 0 {
			return fmt.Sprintf("is in %v of --probe-deny", p.config.Deny[i])
		}
		return ""
	}
	if why := rule(addr); why != "" {
		return fmt.Errorf("%w: %s %s", ErrRefused, address, why)
	}
	for _, inner := range embedded(addr) {
		if why := rule(inner); why != "" {
			return fmt.Errorf("%w: %s stands for %s, which %s", ErrRefused, address, inner, why)
		}
	}
	if len(p.config.Allow) > 0 && !slices.ContainsFunc(p.config.Allow, contains(addr)) {
		return fmt.Errorf("%w: %s is not in --probe-allow, which is %s", ErrRefused, address, shown(p.config.Allow))
	}
	return nil
}

// contains answers a test for the prefixes that an address lies in; prefixes have no zones.
func contains(a netip.Addr) func(netip.Prefix) bool {
	a = a.WithZone("")
	return func(p netip.Prefix) bool { return p.Contains(a) }
}

// thisNetwork is "this host on this network" (RFC 1122, 3.2.1.3); its first address reaches the host itself.
var thisNetwork = netip.MustParsePrefix("0.0.0.0/8")

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// forbidden says by which of the rules that hold everywhere an address is refused; empty: by none.
func forbidden(a netip.Addr, host []netip.Prefix) string {
	bare := a.WithZone("")
	if whose := metadata[bare]; whose != "" {
		return "is the metadata service of " + whose + "; nothing is sent there"
	}
	switch {
	case bare.IsUnspecified(), thisNetwork.Contains(bare):
		return "is no address of a host; say 127.0.0.1 or [::1] for this one"
	case bare.IsMulticast():
		return "is a multicast address; probe the address of one host"
	case bare == limitedBroadcast:
		return "is the broadcast address; probe the address of one host"
	}
	for _, p := range host {
		if p.Addr().Is4() && p.Bits() < 31 && bare == lastOf(p) { // RFC 3021: a network of two has none
			return fmt.Sprintf("is the broadcast address of %v; probe the address of one host", p.Masked())
		}
	}
	return ""
}

// lastOf is the last address of an IPv4 prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// isControl says whether one of the daemon's own control listeners answers at an address.
func (p *Policy) isControl(a netip.AddrPort, host []netip.Prefix) bool {
	addr := a.Addr().WithZone("")
	ours := addr.IsLoopback() || slices.ContainsFunc(host, func(p netip.Prefix) bool { return p.Addr() == addr })
	return slices.ContainsFunc(p.config.Control, func(l netip.AddrPort) bool {
		if l.Port() != a.Port() {
			return false
		}
		// "[::]" may take IPv4, too.
		return l.Addr().WithZone("") == addr || ours && l.Addr().IsUnspecified()
	})
}

// hostPrefixes reads the addresses of the host's interfaces.
func hostPrefixes() ([]netip.Prefix, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, a := range all {
		network, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		addr, ok := netip.AddrFromSlice(network.IP)
		bits, _ := network.Mask.Size()
		if ok {
			out = append(out, netip.PrefixFrom(addr.Unmap(), bits))
		}
	}
	return out, nil
}

// maxShown is how many prefixes an error lists.
const maxShown = 5

func shown(prefixes []netip.Prefix) string {
	texts := make([]string, 0, maxShown+1)
	for _, p := range prefixes[:min(len(prefixes), maxShown)] {
		texts = append(texts, p.String())
	}
	if rest := len(prefixes) - len(texts); rest > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", rest))
	}
	return strings.Join(texts, ", ")
}
