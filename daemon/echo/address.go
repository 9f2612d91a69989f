package echo

import (
	"net/netip"
	"strconv"
	"strings"
)

// Address is the meaning of a listen string. Addresses of the same meaning are equal (==), however they were written.
type Address struct {
	// IP is the address to bind, never an IPv4-mapped one. The zero Addr stands for every address of the host, IPv4 and
	// IPv6 on one socket; netip.IPv4Unspecified and netip.IPv6Unspecified are all addresses of that family alone.
	IP netip.Addr
	// Port is 0 to let the system pick a free one.
	Port uint16
}

// broadcast is every host of this network (RFC 919 section 7).
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// ParseListen parses where to listen:
//
//	":7"                 every address of the host, one dual-stack socket (IPv4 only where there is no IPv6)
//	"0.0.0.0:7"          every IPv4 address
//	"[::]:7"             every IPv6 address and nothing of IPv4
//	"127.0.0.1:7"        one IPv4 address
//	"[::1]:7"            one IPv6 address
//	"[fe80::1%eth0]:7"   one link-local IPv6 address with its zone
//	"localhost:7"        127.0.0.1
//
// The port is decimal, 0 to 65535; 0 picks a free one. Other host names are refused, as they may mean several addresses
// or another one tomorrow, and so are multicast and broadcast addresses. Errors satisfy errors.Is(err, [ErrBadSpec]).
func ParseListen(listen string) (Address, error) {
	colon := strings.LastIndexByte(listen, ':')
	if colon < 0 {
		return Address{}, badListen(listen, `it has no port; write "HOST:PORT", "[IPV6]:PORT" or ":PORT"`)
	}
	host, digits := listen[:colon], listen[colon+1:]
	port, ok := parsePort(digits)
	if !ok {
		return Address{}, badListen(listen, "port "+strconv.Quote(digits)+
			" is not a decimal number from 0 to 65535 without leading zeros")
	}
	ip, problem := parseHost(host)
	if problem != "" {
		return Address{}, badListen(listen, problem)
	}
	return Address{IP: ip, Port: port}, nil
}

// String returns the canonical listen string, which [ParseListen] reads back as a.
func (a Address) String() string {
	if !a.IP.IsValid() {
		return ":" + strconv.Itoa(int(a.Port))
	}
	return netip.AddrPortFrom(a.IP, a.Port).String()
}

// Overlaps reports whether two sockets of one protocol at these addresses and one port are in each other's way: as long as one
// is bound the other cannot be, unless they are bound to interfaces of their own or in different network namespaces.
func (a Address) Overlaps(b Address) bool {
	switch {
	case a.Port != b.Port:
		return false
	case !a.IP.IsValid() || !b.IP.IsValid():
		return true // both families
	case a.IP.Is4() != b.IP.Is4():
		return false
	default:
		return a.IP == b.IP || a.IP.IsUnspecified() || b.IP.IsUnspecified()
	}
}

// family returns what package net appends to "tcp" or "udp" for the address family of a.
func (a Address) family() string {
	switch {
	case !a.IP.IsValid():
		return ""
	case a.IP.Is4():
		return "4"
	default:
		return "6"
	}
}

// wildcard reports whether a is more than one address of the host.
func (a Address) wildcard() bool { return !a.IP.IsValid() || a.IP.IsUnspecified() }

func parsePort(s string) (uint16, bool) {
	if len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	port, err := strconv.ParseUint(s, 10, 16)
	return uint16(port), err == nil
}

// parseHost returns the address that host means, or what is wrong with it.
func parseHost(host string) (ip netip.Addr, problem string) {
	if host == "" {
		return netip.Addr{}, ""
	}
	if strings.EqualFold(host, "localhost") {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), ""
	}
	inner, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		if inner, bracketed = strings.CutSuffix(inner, "]"); !bracketed {
			return netip.Addr{}, `an IPv6 address is written as in "[::1]:7"`
		}
	}
	ip, err := netip.ParseAddr(inner)
	switch {
	case err != nil && bracketed:
		return netip.Addr{}, strconv.Quote(inner) + " is not an IPv6 address"
	case err != nil && !strings.Contains(host, ":"):
		return netip.Addr{}, strconv.Quote(host) + " is not an IP address; host names other than localhost are not taken"
	case err != nil, !bracketed && ip.Is6():
		return netip.Addr{}, `an IPv6 address is written in brackets, as in "[::1]:7"`
	case bracketed && ip.Is4():
		return netip.Addr{}, "an IPv4 address is written without brackets"
	}
	return checkIP(ip)
}

// checkIP refuses what parses but cannot be listened on, and takes the IPv4 address out of a mapped one.
func checkIP(ip netip.Addr) (checked netip.Addr, problem string) {
	linkLocal := ip.Is6() && ip.IsLinkLocalUnicast()
	switch {
	case ip.Zone() != "" && !linkLocal:
		return netip.Addr{}, "only a link-local address (fe80::/10) takes a zone"
	case ip.Zone() == "" && linkLocal && !ip.Is4In6():
		return netip.Addr{}, `a link-local address needs its zone, as in "[fe80::1%eth0]:7"`
	}
	ip = ip.Unmap()
	if ip.IsMulticast() || ip == broadcast {
		return netip.Addr{}, "it is a multicast or broadcast address, which no answer can come from"
	}
	return ip, ""
}
