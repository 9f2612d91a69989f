package echo

import (
	"bytes"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// A socket of all addresses learns with each datagram which one it was sent to (IP_PKTINFO, ip(7); IPV6_PKTINFO,
// RFC 3542 section 4) and gives the same control message with the answer, so that it comes from there.

// controlBytes holds both messages: a dual-stack socket gets the two of them for an IPv4 datagram.
var controlBytes = unix.CmsgSpace(unix.SizeofInet4Pktinfo) + unix.CmsgSpace(unix.SizeofInet6Pktinfo)

// askDestinationRaw switches the messages on for a socket of package net. The network is "udp4" or "udp6", of one family
// or both.
func askDestinationRaw(network string, raw syscall.RawConn) error {
	var err error
	controlErr := raw.Control(func(fd uintptr) { err = askDestination(int(fd), network == "udp6") })
	if controlErr != nil {
		return controlErr
	}
	return err
}

// askDestination switches the messages on; six says that the socket is of IPv6, or of both.
func askDestination(fd int, six bool) error {
	err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	if err == nil && six {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	return err
}

// answerFromDestination edits received control messages in place into those of the answer. It reports false when the
// datagram was sent to a broadcast or multicast address, from which no answer can come.
func answerFromDestination(control []byte) (answer []byte, unicast bool) {
	unicast = true
	for rest := control; len(rest) > 0; {
		header, data, next, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			return nil, unicast // not from this kernel; the answer comes from the address it picks
		}
		rest = next
		switch {
		case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			unicast = editPktinfo4(data) && unicast
		case header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			unicast = editPktinfo6(data) && unicast
		}
	}
	return control, unicast
}

// editPktinfo4 edits a struct in_pktinfo: interface index, local address, destination in the header (4 bytes each). The
// local address is the destination, unless that was a broadcast or multicast.
func editPktinfo4(info []byte) (unicast bool) {
	index, local, destination := info[0:4], info[4:8], info[8:12]
	clear(index) // routing picks the way back, which need not be the way here
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
