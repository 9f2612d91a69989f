package probe

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// searchBetween searches from one station to an echo server at that address of another one.
func searchBetween(t *testing.T, client, server *station, address string, change func(*Plan)) Report {
	t.Helper()
	if strings.Contains(address, "[") && !hasIPv6() {
		t.Skip("there is no IPv6 here")
	}
	var plan Plan
	server.do(t, func() { plan = searchPlan(t, udpPeer(t, address, echoDatagram)) })
	if change != nil {
		change(&plan)
	}
	var r Report
	client.do(t, func() { r, _ = runPlan(t, plan) })
	return r
}

const (
	serverIPv4 = "10.2.0.1:0"
	serverIPv6 = "[fd02::1]:0"
)

func TestPathMTUThatARouterReports(t *testing.T) {
	client, _, server := threeStations(t, 1400)
	r := searchBetween(t, client, server, serverIPv4, nil)
	wantMTU(t, r, PathMTU{PayloadBytes: 1372, MTU: 1400, Limit: LimitReported, TooBig: 1373, ReportedMTU: 1400,
		Router: netip.MustParseAddr("10.1.0.2")})
	wantReason(t, r, ReasonTooBig, 2)
	if got := r.Errors[0].Message; got != "message too long, says 10.1.0.2" {
		t.Errorf("the message is %q", got)
	}
	t.Run("IPv6", func(t *testing.T) {
		r := searchBetween(t, client, server, serverIPv6, nil)
		wantMTU(t, r, PathMTU{PayloadBytes: 1352, MTU: 1400, Limit: LimitReported, TooBig: 1353, ReportedMTU: 1400,
			Router: netip.MustParseAddr("fd01::2")})
		wantReason(t, r, ReasonTooBig, 2)
	})
}

func TestPathMTUOfTheInterface(t *testing.T) {
	client, _, server := threeStations(t, 1500)
	r := searchBetween(t, client, server, serverIPv4, nil)
	wantMTU(t, r, PathMTU{PayloadBytes: 1472, MTU: 1500, Limit: LimitLocal, TooBig: 1473})
	wantCounts(t, r, 4, 3, 1, 0, 0)
	wantReason(t, r, ReasonTooBig, 1)
	r = searchBetween(t, client, server, serverIPv4, func(p *Plan) { p.PathMTU.MaxPayload = 1472 })
	wantMTU(t, r, PathMTU{PayloadBytes: 1472, MTU: 1500, Limit: LimitMaxPayload})
	r = searchBetween(t, client, server, serverIPv4, func(p *Plan) {
		p.Source = netip.AddrPortFrom(netip.MustParseAddr("10.1.0.1"), 4000)
	})
	wantMTU(t, r, PathMTU{PayloadBytes: 1472, MTU: 1500, Limit: LimitLocal, TooBig: 1473})
	t.Run("IPv6", func(t *testing.T) {
		r := searchBetween(t, client, server, serverIPv6, nil)
		wantMTU(t, r, PathMTU{PayloadBytes: 1452, MTU: 1500, Limit: LimitLocal, TooBig: 1453})
		wantCounts(t, r, 4, 3, 1, 0, 0)
	})
}

// silence is long enough for a reply to come over a namespace or two, however busy the machine is, and short enough to be
// waited for again and again. Where it is not, the reply is late, and the search takes the round for lost by chance.
const silence = 400 * time.Millisecond

// bearSilence has a plan wait no longer than need be, and try often.
func bearSilence(p *Plan) { p.Timeout, p.Interval, p.Count = silence, 5*time.Millisecond, 5 }

func TestPathMTUOfABlackHole(t *testing.T) {
	t.Parallel() // Most of it is waiting.
	client, router, server := threeStations(t, 1500)
	router.nft(t, "meta length > 1300 drop", "")
	r := searchBetween(t, client, server, serverIPv4, bearSilence)
	wantMTU(t, r, PathMTU{PayloadBytes: 1272, MTU: 1300, Limit: LimitSilent, TooBig: 1273})
	t.Run("IPv6", func(t *testing.T) {
		r := searchBetween(t, client, server, serverIPv6, bearSilence)
		wantMTU(t, r, PathMTU{PayloadBytes: 1252, MTU: 1300, Limit: LimitSilent, TooBig: 1253})
	})
}

// A router that is not allowed to report is a black hole, too.
func TestPathMTUWithoutReports(t *testing.T) {
	t.Parallel() // Most of it is waiting.
	client, router, server := threeStations(t, 1400)
	router.nft(t, "", "icmp type destination-unreachable drop\n\t\ticmpv6 type packet-too-big drop")
	r := searchBetween(t, client, server, serverIPv4, bearSilence)
	wantMTU(t, r, PathMTU{PayloadBytes: 1372, MTU: 1400, Limit: LimitSilent, TooBig: 1373})
}

// A fifth of all packets is lost, each way.
func TestPathMTUWithLoss(t *testing.T) {
	t.Parallel() // Most of it is waiting.
	client, router, server := threeStations(t, 1500)
	router.nft(t, "numgen random mod 100 < 20 drop\n\t\tmeta length > 1300 drop", "")
	r := searchBetween(t, client, server, serverIPv4, func(p *Plan) {
		bearSilence(p)
		p.Count = 10
	})
	wantMTU(t, r, PathMTU{PayloadBytes: 1272, MTU: 1300, Limit: LimitSilent, TooBig: 1273})
	if r.Lost == 0 {
		t.Error("nothing was lost")
	}
}

// An entry of the error queue may be cut, or lack the router.
func TestParseError(t *testing.T) {
	whole := []byte{byte(unix.EMSGSIZE), 0, 0, 0, unix.SO_EE_ORIGIN_ICMP, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	binary.NativeEndian.PutUint32(whole, uint32(unix.EMSGSIZE))
	binary.NativeEndian.PutUint32(whole[8:], 1400)
	offender := make([]byte, unix.SizeofSockaddrInet4)
	binary.NativeEndian.PutUint16(offender, unix.AF_INET)
	copy(offender[4:], []byte{10, 0, 0, 1})
	whole = append(whole, offender...)
	for length := range len(whole) + 1 {
		var c control
		c.parseError(whole[:length])
		var big tooBigError
		if known := length >= 16; known != errors.As(c.err(), &big) || known && big.mtu != 1400 {
			t.Errorf("%d bytes: %+v", length, c)
		}
		if known := length == len(whole); known != (c.router == aRouter) || !known && c.router.IsValid() {
			t.Errorf("%d bytes: router %v", length, c.router)
		}
	}
}
