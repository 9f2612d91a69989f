//go:build unix && !linux

package echo

import (
	"net"
	"strconv"

	"golang.org/x/sys/unix"
)

// checkTransport has nothing to add: this system does not tell the protocol of a socket, and its streams are TCP.
func checkTransport(int, int) error { return nil }

// checkPlace has nothing to compare: an endpoint has neither interface nor place here.
func checkPlace(_ int, s Spec) error {
	if s.Interface != "" {
		return bindToInterfaceRaw(nil, s.Interface)
	}
	return nil
}

// zoneOf answers the interface that a zone names.
func zoneOf(_ int, zone string) (uint32, error) {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	found, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(found.Index), nil
}

// plainListener has nothing to undo that this package knows of.
func plainListener(int) error { return nil }

// plainUDP has the system refuse to answer a broadcast address.
func plainUDP(fd int, _ bool) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 0)
}

// askAdopted has no control messages to ask for.
func askAdopted(int, bool) error { return nil }
