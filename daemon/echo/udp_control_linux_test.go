package echo

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"unsafe"

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

// control makes one control message.
func control(level, kind int32, data ...byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(len(data)))
	copy(b[unix.CmsgLen(0):], data)
	return b
}

func number(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

func ttl(n uint32) []byte      { return control(unix.IPPROTO_IP, unix.IP_TTL, number(n)...) }
func hopLimit(n uint32) []byte { return control(unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT, number(n)...) }
func tos(b byte) []byte        { return control(unix.IPPROTO_IP, unix.IP_TOS, b) }
func tclass(n uint32) []byte   { return control(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, number(n)...) }

func gro(n uint32) []byte { return control(unix.IPPROTO_UDP, unix.UDP_GRO, number(n)...) }
func segments(n uint16) []byte {
	c := control(unix.IPPROTO_UDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, n)...)
	return c[:len(gro(0))]
}

func TestAnswerControl(t *testing.T) {
	// What a datagram came with is not what it is answered with.
	seenWith := map[string]marks{
		"none": noMarks, "IPv4": noMarks, "at most 64 hops": {255, -1}, "the last hop": {1, -1}, "the last hop, no guard": {1, -1},
		"one hop less over IPv6": {64, -1}, "DSCP without ECN": {-1, 46}, "DSCP without ECN on IPv6": {-1, 46}, "all of them": {64, 0},
	}
	for name, test := range map[string]struct {
		received, answer []byte
		refused          event
		segment          int
		unguarded        bool
	}{
		"none":       {received: nil, answer: nil},
		"IPv4":       {received: pktinfo4(3, "192.0.2.1", "192.0.2.1"), answer: pktinfo4(0, "192.0.2.1", "192.0.2.1")},
		"broadcast":  {received: pktinfo4(3, "192.0.2.1", "192.0.2.255"), refused: dropDestinationNotUnicast},
		"IPv6":       {received: pktinfo6(3, "2001:db8::1"), answer: pktinfo6(0, "2001:db8::1")},
		"link-local": {received: pktinfo6(3, "fe80::1"), answer: pktinfo6(3, "fe80::1")}, // its address means nothing without
		"multicast":  {received: pktinfo6(3, "ff02::1"), refused: dropDestinationNotUnicast},
		"IPv4 on a dual-stack socket": {
			received: slices.Concat(pktinfo4(3, "192.0.2.1", "192.0.2.1"), pktinfo6(3, "::ffff:192.0.2.1")),
			answer:   slices.Concat(pktinfo4(0, "192.0.2.1", "192.0.2.1"), pktinfo6(0, "::ffff:192.0.2.1")),
		},
		"IPv4 link-local on a dual-stack socket": {
			received: pktinfo6(3, "::ffff:169.254.0.1"), answer: pktinfo6(0, "::ffff:169.254.0.1"),
		},
		"one hop less":             {received: ttl(10), answer: ttl(9)},
		"at most 64 hops":          {received: ttl(255), answer: ttl(64)},
		"the last hop but one":     {received: ttl(2), answer: ttl(1)},
		"the last hop":             {received: ttl(1), refused: dropHopsSpent},
		"one hop less over IPv6":   {received: hopLimit(64), answer: hopLimit(63)},
		"the last hop over IPv6":   {received: hopLimit(1), refused: dropHopsSpent},
		"the last hop, no guard":   {received: ttl(1), answer: ttl(64), unguarded: true},
		"DSCP without ECN":         {received: tos(0xbb), answer: tos(0xb8)},
		"DSCP without ECN on IPv6": {received: tclass(0xbb), answer: tclass(0xb8)},
		"a multicast of one hop":   {received: slices.Concat(pktinfo6(3, "ff02::1"), hopLimit(1)), refused: dropDestinationNotUnicast},
		"a train":                  {received: gro(1200), answer: segments(1200), segment: 1200},
		"a refused train":          {received: slices.Concat(ttl(1), gro(1200)), refused: dropHopsSpent, segment: 1200},
		"all of them": {
			received: slices.Concat(pktinfo4(3, "192.0.2.1", "192.0.2.1"), ttl(64), tos(3)),
			answer:   slices.Concat(pktinfo4(0, "192.0.2.1", "192.0.2.1"), ttl(63), tos(0)),
		},
	} {
		answer := test.received // edited in place
		segment, seen, refused := answerControl(answer, !test.unguarded)
		if refused != test.refused {
			t.Errorf("%s: refused for %q, want %q", name, eventNames[refused], eventNames[test.refused])
		}
		if want, ok := seenWith[name]; ok && seen != want {
			t.Errorf("%s: seen with %+v, want %+v", name, seen, want)
		}
		if segment != test.segment {
			t.Errorf("%s: segments of %d bytes, want %d", name, segment, test.segment)
		}
		if refused == noEvent && string(answer) != string(test.answer) {
			t.Errorf("%s: got % x, want % x", name, answer, test.answer)
		}
	}
}

func FuzzAnswerControl(f *testing.F) {
	f.Add(pktinfo4(3, "192.0.2.1", "192.0.2.255"))
	f.Add(slices.Concat(pktinfo4(3, "192.0.2.1", "192.0.2.1"), pktinfo6(3, "::ffff:192.0.2.1"), ttl(64), tos(1), hopLimit(2), tclass(9)))
	f.Add(slices.Concat(gro(1), gro(1200), ttl(1)))
	f.Fuzz(func(t *testing.T, control []byte) {
		segment, seen, refused := answerControl(control, true)
		if segment < 0 || refused >= events || seen.hops > 255 || seen.dscp > 63 {
			t.Fatalf("segments of %d bytes, seen with %+v, refused for %d", segment, seen, refused)
		}
		uncouple(control)
	})
}
