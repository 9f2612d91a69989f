package echo

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func pktinfo4(index int32, local, destination string) []byte {
	return unix.PktInfo4(&unix.Inet4Pktinfo{
		Ifindex: index, Spec_dst: netip.MustParseAddr(local).As4(), Addr: netip.MustParseAddr(destination).As4(),
	})
}

func pktinfo6(index uint32, destination string) []byte {
	return unix.PktInfo6(&unix.Inet6Pktinfo{Ifindex: index, Addr: netip.MustParseAddr(destination).As16()})
}

// The answer is bound to an interface only where its address means nothing without one.
func TestAnswerFromDestination(t *testing.T) {
	for name, test := range map[string]struct {
		received, answer []byte
		unicast          bool
	}{
		"none":       {nil, nil, true},
		"IPv4":       {pktinfo4(3, "192.0.2.1", "192.0.2.1"), pktinfo4(0, "192.0.2.1", "192.0.2.1"), true},
		"broadcast":  {pktinfo4(3, "192.0.2.1", "192.0.2.255"), nil, false},
		"IPv6":       {pktinfo6(3, "2001:db8::1"), pktinfo6(0, "2001:db8::1"), true},
		"link-local": {pktinfo6(3, "fe80::1"), pktinfo6(3, "fe80::1"), true},
		"multicast":  {pktinfo6(3, "ff02::1"), nil, false},
		"IPv4 on a dual-stack socket": {
			append(pktinfo4(3, "192.0.2.1", "192.0.2.1"), pktinfo6(3, "::ffff:192.0.2.1")...),
			append(pktinfo4(0, "192.0.2.1", "192.0.2.1"), pktinfo6(0, "::ffff:192.0.2.1")...), true,
		},
		"IPv4 link-local on a dual-stack socket": {
			pktinfo6(3, "::ffff:169.254.0.1"), pktinfo6(0, "::ffff:169.254.0.1"), true,
		},
	} {
		answer, unicast := answerFromDestination(test.received)
		if unicast != test.unicast || unicast && string(answer) != string(test.answer) {
			t.Errorf("%s: got % x, unicast %t; want % x, unicast %t", name, answer, unicast, test.answer, test.unicast)
		}
	}
}

func FuzzAnswerFromDestination(f *testing.F) {
	f.Add(pktinfo4(3, "192.0.2.1", "192.0.2.255"))
	f.Add(append(pktinfo4(3, "192.0.2.1", "192.0.2.1"), pktinfo6(3, "::ffff:192.0.2.1")...))
	f.Fuzz(func(t *testing.T, control []byte) {
		if answer, _ := answerFromDestination(control); len(answer) > len(control) {
			t.Fatalf("%d bytes became %d", len(control), len(answer))
		}
	})
}
