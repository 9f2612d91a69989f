package targets

import "net/netip"

// metadata are the addresses at which clouds hand out credentials and secrets to whoever asks from inside of a machine.
// A name such as metadata.google.internal leads to one of them. The rest of 169.254.0.0/16 and fe80::/10 is link-local
// and may be probed: labs do.
var metadata = map[netip.Addr]string{
	// AWS, Azure, Google, Oracle, DigitalOcean, Hetzner, OpenStack and many others.
	netip.MustParseAddr("169.254.169.254"): "most clouds",
	// Google, on machines without IPv4.
	netip.MustParseAddr("fd20:ce::254"):  "Google Cloud",
	netip.MustParseAddr("fd00:ec2::254"): "AWS",
	// Tasks of ECS, and the agent of EKS Pod Identity.
	netip.MustParseAddr("169.254.170.2"):  "AWS ECS",
	netip.MustParseAddr("169.254.170.23"): "AWS EKS",
	netip.MustParseAddr("fd00:ec2::23"):   "AWS EKS",
	// The "wire server", which is no link-local address; it is Azure's DNS, too.
	netip.MustParseAddr("168.63.129.16"):      "Azure",
	netip.MustParseAddr("100.100.100.200"):    "Alibaba Cloud",
	netip.MustParseAddr("169.254.0.23"):       "Tencent Cloud",
	netip.MustParseAddr("192.0.0.192"):        "Oracle Cloud Classic",
	netip.MustParseAddr("fd00:c1::a9fe:a9fe"): "Oracle Cloud",
	netip.MustParseAddr("169.254.42.42"):      "Scaleway",
	netip.MustParseAddr("fd00:42::42"):        "Scaleway",
	netip.MustParseAddr("fd00:a9fe:a9fe::1"):  "Akamai (Linode)",
}

// embeddings are the IPv6 prefixes whose addresses stand for IPv4 ones, and where in them those are. IPv4-mapped ones
// are not among them: they are unmapped before.
var embeddings = []struct {
	prefix   netip.Prefix
	at       [4]int // the bytes of the IPv4 address
	inverted bool
	unsure   bool // an IPv4 address in 0.0.0.0/8 is none: the prefix has other addresses, too
}{
	{prefix: netip.MustParsePrefix("::/96"), at: lastFour, unsure: true},                     // IPv4-compatible (RFC 4291, 2.5.5.1); ::1
	{prefix: netip.MustParsePrefix("::ffff:0:0:0/96"), at: lastFour},                         // IPv4-translated (RFC 2765)
	{prefix: netip.MustParsePrefix("64:ff9b::/96"), at: lastFour},                            // NAT64 (RFC 6052)
	{prefix: netip.MustParsePrefix("64:ff9b:1::/48"), at: lastFour, unsure: true},            // NAT64 of a network's own (RFC 8215), as a /96
	{prefix: netip.MustParsePrefix("64:ff9b:1::/48"), at: [4]int{6, 7, 9, 10}, unsure: true}, // the same as a /48; byte 8 is left out
	{prefix: netip.MustParsePrefix("2002::/16"), at: [4]int{2, 3, 4, 5}},                     // 6to4 (RFC 3056)
	{prefix: netip.MustParsePrefix("2001::/32"), at: lastFour, inverted: true},               // Teredo (RFC 4380)
}

var lastFour = [4]int{12, 13, 14, 15}

// embedded are the IPv4 addresses that an IPv6 address stands for, if any.
func embedded(a netip.Addr) (found []netip.Addr) {
	if !a.Is6() {
		return nil
	}
	a = a.WithZone("")
	bytes := a.As16()
	for _, e := range embeddings {
		if !e.prefix.Contains(a) {
			continue
		}
		var v4 [4]byte
		for i, at := range e.at {
			v4[i] = bytes[at]
			if e.inverted {
				v4[i] = ^v4[i]
			}
		}
		if v4[0] != 0 || !e.unsure {
			found = append(found, netip.AddrFrom4(v4))
		}
	}
	return found
}
