package echo

import (
	"net"
	"net/netip"
	"testing"
)

// What the system does to a connection is no other reason, whatever had been said before.
func TestEndReason(t *testing.T) {
	for _, why := range []event{errorAccept, errorRead, errorWrite} {
		for _, answered := range []bool{false, true} {
			if got := endReason(why, answered, answered); got != EndedError {
				t.Errorf("%s, answered %t: %s", eventNames[why], answered, got)
			}
		}
	}
	if got := endReason(errorReset, true, true); got != EndedReset {
		t.Errorf("a reset after the answer: %s", got)
	}
	if got := endReason(noEvent, false, true); got != EndedPeerClosed {
		t.Errorf("the peer's end, with as many bytes as may be: %s", got)
	}
}

// A link-local peer is known by its address alone, by the one who is told of it and by the sources.
func TestPeersHaveNoZone(t *testing.T) {
	peer := peerAddr(&net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 7, Zone: "eth0"})
	if peer != netip.MustParseAddrPort("[fe80::1]:7") || !netip.MustParsePrefix("fe80::/10").Contains(peer.Addr()) {
		t.Errorf("got %v", peer)
	}
}
