package echo

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A socket learns with each datagram, by control messages, how many hops it had left and how it was marked (IP_TTL and
// IP_TOS, ip(7); IPV6_HOPLIMIT and IPV6_TCLASS, RFC 3542), a socket of all addresses also where it was sent to (IP_PKTINFO,
// IPV6_PKTINFO), and one that takes trains how they are to be cut (UDP_GRO, udp(7)). Edited in place, they are given with
// the answer.

// controlBytes holds all messages: a dual-stack socket gets the PKTINFO of both families for an IPv4 datagram.
var controlBytes = unix.CmsgSpace(unix.SizeofInet4Pktinfo) + unix.CmsgSpace(unix.SizeofInet6Pktinfo) + 5*unix.CmsgSpace(4)

// maxHops is the TTL or hop limit of an answer at most: what Linux sends with by default (RFC 1700).
const maxHops = 64

// ecnBits of a TOS or traffic class belong to each packet's own way (RFC 3168) and are not copied. The DSCP is above them.
const (
	ecnBits  = 0x03
	ecnWidth = 2
)

// askControlRaw switches the messages on for a socket of package net. The network is "udp4" or "udp6", of one family or
// both.
func askControlRaw(network string, wildcard bool, raw syscall.RawConn) error {
	var err error
	controlErr := raw.Control(func(fd uintptr) { err = askControl(int(fd), network == "udp6", wildcard) })
	if controlErr != nil {
		return controlErr
	}
	return err
}

// askControl switches the messages on; six says that the socket is of IPv6, or of both.
func askControl(fd int, six, wildcard bool) error {
	wanted := []option{{unix.IPPROTO_IP, unix.IP_RECVTTL, 1}, {unix.IPPROTO_IP, unix.IP_RECVTOS, 1}}
	if wildcard {
		wanted = append(wanted, option{unix.IPPROTO_IP, unix.IP_PKTINFO, 1})
	}
	if six {
		wanted = append(wanted, option{unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1}, option{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1})
		if wildcard {
			wanted = append(wanted, option{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1})
		}
	}
	return setOptions(fd, wanted...)
}

// answerControl edits received control messages in place into those of the answer, or says why there is none: the
// datagram was sent to a broadcast or multicast address, from which no answer can come, or it had no hop left to give.
// What was received is a train of datagrams of segment bytes, the last of which may be shorter; 0: one datagram. Seen is
// how it was marked as it came.
func answerControl(control []byte, guarded bool) (segment int, seen marks, refused event) {
	seen = noMarks
	for rest := control; len(rest) > 0; {
		header, data, next, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			return segment, seen, refused // not from this kernel; the answer goes as the kernel sees fit
		}
		switch {
		case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			if !editPktinfo4(data) {
				refused = dropDestinationNotUnicast
			}
		case header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			if !editPktinfo6(data) {
				refused = dropDestinationNotUnicast
			}
		case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_TTL && len(data) >= 4,
			header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_HOPLIMIT && len(data) >= 4:
			seen.hops = int16(uint8(binary.NativeEndian.Uint32(data)))
			if !editHops(data, guarded) && refused == noEvent {
				refused = dropHopsSpent
			}
		case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_TOS && len(data) >= 1:
			seen.dscp = int16(data[0] >> ecnWidth)
			data[0] &^= ecnBits
		case header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_TCLASS && len(data) >= 4:
			class := binary.NativeEndian.Uint32(data)
			seen.dscp = int16(uint8(class) >> ecnWidth)
			binary.NativeEndian.PutUint32(data, class&^ecnBits)
		case header.Level == unix.IPPROTO_UDP && header.Type == unix.UDP_GRO && len(data) >= 4:
			segment = editTrain(rest, data)
		}
		rest = next
	}
	return segment, seen, refused
}

// editTrain edits a UDP_GRO message, an int, into the UDP_SEGMENT (a 16-bit number) that sends what came as it came.
func editTrain(message, data []byte) (segment int) {
	segment = int(binary.NativeEndian.Uint32(data))
	header := (*unix.Cmsghdr)(unsafe.Pointer(&message[0]))
	header.Type = unix.UDP_SEGMENT
	header.SetLen(unix.CmsgLen(segmentBytes))
	binary.NativeEndian.PutUint16(data, uint16(segment))
	return segment
}

// segmentBytes are those of a UDP_SEGMENT message.
const segmentBytes = 2

// uncouple edits the UDP_SEGMENT among control messages so that what is sent with them is one datagram, and answers what
// it was.
func uncouple(control []byte) (segment int) {
	for rest := control; len(rest) > 0; {
		header, data, next, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			return segment
		}
		if header.Level == unix.IPPROTO_UDP && header.Type == unix.UDP_SEGMENT && len(data) >= segmentBytes {
			segment = int(binary.NativeEndian.Uint16(data))
			binary.NativeEndian.PutUint16(data, 0)
		}
		rest = next
	}
	return segment
}

// editHops edits an int, the hops that a datagram had left, into those of its answer: one less, so that what bounces
// between two echo services comes to an end. Without the guard an answer has as many as it can.
func editHops(data []byte, guarded bool) (left bool) {
	hops := int32(binary.NativeEndian.Uint32(data))
	if !guarded {
		hops = maxHops + 1
	}
	if hops <= 1 {
		return false
	}
	binary.NativeEndian.PutUint32(data, uint32(min(hops-1, maxHops)))
	return true
}

// editPktinfo4 edits a struct in_pktinfo: interface index, local address, destination in the header (4 bytes each). The
// local address is the destination, unless that was a broadcast or multicast. It is not known of a datagram that came before a
// socket that was adopted had asked for it; then the kernel refuses to answer from a broadcast address of a network.
func editPktinfo4(info []byte) (unicast bool) {
	index, local, destination := info[0:4], info[4:8], info[8:12]
	clear(index) // routing picks the way back, which need not be the way here
	if unknown := [4]byte(local) == [4]byte{}; unknown {
		copy(local, destination)
		to := netip.AddrFrom4([4]byte(destination))
		return !to.IsMulticast() && to != broadcast
	}
	return bytes.Equal(local, destination)
}

// editPktinfo6 edits a struct in6_pktinfo: destination (16 bytes), interface index (4 bytes).
func editPktinfo6(info []byte) (unicast bool) {
	destination := netip.AddrFrom16([16]byte(info[0:16])).Unmap()
	if !(destination.Is6() && destination.IsLinkLocalUnicast()) {
		clear(info[16:20]) // only a link-local address means nothing without its interface
	}
	return !destination.IsMulticast()
}
