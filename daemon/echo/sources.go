package echo

import (
	"net/netip"
	"strconv"
)

// sources is whose connections and datagrams an endpoint takes: Spec.Allow and Spec.Deny. It does not change.
type sources struct{ allow, deny []netip.Prefix }

// newSources answers nil where all are taken.
func newSources(s Spec) *sources {
	if len(s.Allow) == 0 && len(s.Deny) == 0 {
		return nil
	}
	return &sources{allow: append([]netip.Prefix(nil), s.Allow...), deny: append([]netip.Prefix(nil), s.Deny...)}
}

// take reports whether what comes from there is taken. The address must not be an IPv4-mapped one.
func (s *sources) take(from netip.Addr) bool {
	if s == nil {
		return true
	}
	from = from.WithZone("") // a prefix has none
	for _, p := range s.deny {
		if p.Contains(from) {
			return false
		}
	}
	for _, p := range s.allow {
		if p.Contains(from) {
			return true
		}
	}
	return len(s.allow) == 0
}

// ParseSource parses a prefix of source addresses, "192.0.2.0/24" or "2001:db8::/32"; an address alone is a prefix of
// nothing else. An IPv4-mapped prefix ("::ffff:192.0.2.0/120") means the IPv4 one. Bits behind the prefix are refused, as
// they may be a slip, and so are zones. Errors satisfy errors.Is(err, [ErrBadSpec]).
func ParseSource(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, badSpec(`source %s is not an address or a prefix such as "192.0.2.0/24"`, shown(text))
		}
		p = netip.PrefixFrom(addr, addr.BitLen())
	}
	if p.Addr().Is4In6() && p.Bits() < mappedBits {
		return netip.Prefix{}, badSpec("source %s is more than all IPv4-mapped addresses; write the IPv4 prefix itself, such as 192.0.2.0/24", shown(text))
	}
	if whole := p.Masked(); whole != p {
		return netip.Prefix{}, badSpec("source %s has bits behind its prefix; the prefix is %v", shown(text), whole)
	}
	if p.Addr().Is4In6() {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mappedBits)
	}
	return p, nil
}

// mappedBits stand before the IPv4 address in an IPv4-mapped one (RFC 4291 section 2.5.5.2).
const mappedBits = 96

// shown quotes what a caller wrote, the beginning of it if it is long.
func shown(text string) string { return strconv.Quote(text[:min(len(text), 64)]) }

func checkSources(all []netip.Prefix) error {
	if len(all) > MaxSources {
		return badSpec("%d prefixes of sources are more than %d", len(all), MaxSources)
	}
	for _, p := range all {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return badSpec("source %v is not a prefix as ParseSource makes it", p)
		}
	}
	return nil
}
