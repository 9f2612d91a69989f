package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/echod/echod/daemon/internal/wire"
)

// What a probe does when its user says nothing else. A Plan has no defaults of its own: whoever fills one in from
// optional fields uses these.
const (
	DefaultCount        uint32 = 5
	DefaultInterval            = 200 * time.Millisecond
	DefaultTimeout             = time.Second
	DefaultPayloadBytes        = 64
	DefaultTries        uint32 = 3 // of a size, in a search for the path MTU
)

// What Validate lets pass at most.
const (
	MaxCount    uint32 = 100_000_000
	MaxDuration        = 24 * time.Hour
	MaxInterval        = time.Hour
	MinTimeout         = time.Millisecond
	MaxTimeout         = 5 * time.Minute
	// MaxPayloadTCP is 1 MiB.
	MaxPayloadTCP = 1 << 20
	// MaxPayloadUDP4 is what fits an IPv4 packet (RFC 791) beside its header of 20 bytes and UDP's of 8 (RFC 768).
	MaxPayloadUDP4 = 65507
	// MaxPayloadUDP6 is what fits an IPv6 packet (RFC 8200), whose length does not count the IP header.
	MaxPayloadUDP6 = 65527
	MaxFlows       = 256
	MaxSizes       = 64
	// MaxTries is how often a search for the path MTU may try a size.
	MaxTries uint32 = 100
)

// ErrBadPlan is what errors.Is finds in every error of Plan.Validate.
var ErrBadPlan = errors.New("bad probe plan")

// Protocol is what a probe speaks. The zero value is none and is refused by Validate.
type Protocol uint8

const (
	// TCP is a stream, RFC 9293.
	TCP Protocol = 1
	// UDP is datagrams, RFC 768.
	UDP Protocol = 2
)

// String answers "tcp", "udp" or "Protocol(n)".
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	default:
		return fmt.Sprintf("Protocol(%d)", uint8(p))
	}
}

// Pacing is how rounds keep to the interval.
type Pacing uint8

const (
	// Fixed is an open loop: rounds leave an interval apart, whether or not those before have come back.
	Fixed Pacing = iota
	// Poisson is an open loop, too: the times between rounds are drawn from an exponential distribution whose mean is the
	// interval, so that rounds do not march in step with what they measure (RFC 2330, 11.1.1).
	Poisson
	// Closed is Fixed, but a flow's round waits until the one before it has ended.
	Closed
)

// String answers "fixed", "poisson", "closed" or "Pacing(n)".
func (p Pacing) String() string {
	switch p {
	case Fixed:
		return "fixed"
	case Poisson:
		return "poisson"
	case Closed:
		return "closed"
	default:
		return fmt.Sprintf("Pacing(%d)", uint8(p))
	}
}

// Plan says what to probe, and how. Its zero values mean what is said here, not a default.
type Plan struct {
	// Protocol is TCP or UDP.
	Protocol Protocol
	// Address is "HOST:PORT" or "[IPV6]:PORT", PORT from 1 to 65535. A host name is looked up once, when the run
	// starts; of several addresses the first is taken, in the order of RFC 6724, but 127.0.0.0/8 before ::1.
	Address string
	// Count is how many rounds, at most MaxCount. 0: no bound (but for 2^32-2, where sequence numbers end).
	Count uint32
	// Duration is for how long rounds leave, 0 to MaxDuration. 0: no bound.
	Duration time.Duration
	// Interval is the time between the starts of two rounds of the run, 0 to MaxInterval. 0: a flow's round leaves when the
	// one before it has ended, as MaxRate lets it; Pacing may not be Poisson then, and is Closed whatever else it says.
	Interval time.Duration
	// MaxRate is how many rounds a second leave at most where Interval is 0: as fast as answers come, refusals too, but none
	// before 1/MaxRate s after the one before. It is no schedule, and none is late by it. 0: no bound; else at least 0.001.
	// With an Interval it means nothing.
	MaxRate float64
	// Pacing is how rounds keep to the interval.
	Pacing Pacing
	// Flows is how many sockets (UDP) or connections (TCP) take turns with the rounds, up to MaxFlows; round n belongs to
	// flow (n-1) modulo Flows. 0: 1.
	Flows int
	// Timeout is how long a round waits for its reply, and a TCP connect for its connection: MinTimeout to MaxTimeout.
	Timeout time.Duration
	// PayloadBytes is the payload of a round. 0 is an empty datagram over UDP and is refused over TCP. At most
	// MaxPayloadTCP, MaxPayloadUDP4 or MaxPayloadUDP6.
	PayloadBytes int
	// Sizes are the payloads of rounds by turns, instead of PayloadBytes: up to MaxSizes, each within its limits. Nil: none.
	Sizes []int
	// Source is where rounds come from; Run answers ErrSource where that cannot be. The zero address lets the system choose. A
	// port is that of the first flow, and those after it have the ports that follow; 0 lets the system choose. Of TCP with
	// NewConnection it must be 0, and else such connections are closed with a RST, so that their ports are free again at once.
	Source netip.AddrPort
	// SourceNamespace is the network namespace that rounds leave from (Linux): the name of one in /run/netns, or the path of a
	// namespace's file. It is entered by that name once, when the run starts; names are looked up in the process's own. Run
	// answers ErrSource and ErrSourceNamespace where it cannot be entered. Empty: the process's own.
	SourceNamespace string
	// SourceInterface is the interface, or VRF, by which rounds leave and replies come (SO_BINDTODEVICE; Linux). Run answers
	// ErrSource and ErrSourceInterface where there is none of that name. Empty: any.
	SourceInterface string
	// DSCP is the DiffServ code point (RFC 2474) of packets, 0 to 63.
	DSCP uint8
	// DontFragment has packets sent with the DF bit, and never fragmented by this host. UDP only.
	DontFragment bool
	// TTL is the time to live or hop limit of packets. 0: the system's default.
	TTL uint8
	// PathMTU searches for the largest payload that comes back with DontFragment, and makes no other rounds. Then Count, 1 to
	// MaxTries, is how often a size is tried before it is taken for not coming back, Interval the time between two rounds,
	// PayloadBytes 0, Flows at most 1; and there are no Sizes. UDP only. Nil: no search.
	PathMTU *PathMTUSearch
	// NewConnection makes a new connection for each round. TCP only.
	NewConnection bool
	// AwaitClose sends a FIN after the echo and waits until the server closes, too, for up to another Timeout. It implies
	// NewConnection. TCP only.
	AwaitClose bool
	// Ledger asks the target for its ledger of a run, once its last round has ended; Report.Directions says what came of
	// it. Nil: the target is not asked. It must keep to its context, which ends after 2 s. An error that is ErrNoLedger says
	// that nothing of the run came there in the CompleteFor of the Ledger that comes with it; the text of any other is why it
	// is not known. UDP only.
	Ledger func(ctx context.Context, run uint64) (Ledger, error)
	// Tally may be nil. Else it is where this run sums up, so that its owner can look at the report while it runs. It
	// serves one run at a time; a run that starts clears it.
	Tally *Tally
	// Admit may be nil. Else it is asked as Options.Permit is, after it and for this run alone: whether there is room for
	// the run at that address, and which MaxRate it keeps to there, whatever the plan says.
	Admit func(netip.AddrPort) (maxRate float64, err error)
}

// minMaxRate is the least MaxRate that is a bound.
const minMaxRate = 0.001

// PathMTUSearch says how far to search for the largest payload that comes back.
type PathMTUSearch struct {
	// MaxPayload is the largest payload to try, 16 to what PayloadBytes may be. 0: what the system sends.
	MaxPayload int
}

// Validate says whether the plan can be run. Its errors are ErrBadPlan and begin with the field and its value.
func (p Plan) Validate() error {
	if p.Protocol != TCP && p.Protocol != UDP {
		return badPlan("protocol %s: must be tcp or udp", p.Protocol)
	}
	host, err := p.checkAddress()
	if err != nil {
		return err
	}
	switch {
	case p.Count > MaxCount:
		return badPlan("count %d: must be 0 (no bound) to %d", p.Count, MaxCount)
	case p.Duration < 0 || p.Duration > MaxDuration:
		return badPlan("duration %v: must be 0s (no bound) to %v", p.Duration, MaxDuration)
	case p.Interval < 0 || p.Interval > MaxInterval:
		return badPlan("interval %v: must be 0s (when the round before has ended) to %v", p.Interval, MaxInterval)
	case p.MaxRate != 0 && !(p.MaxRate >= minMaxRate): // a number that is none is neither
		return badPlan("max_rate %v: must be 0 (no bound) or at least %v rounds a second", p.MaxRate, minMaxRate)
	case p.Timeout < MinTimeout || p.Timeout > MaxTimeout:
		return badPlan("timeout %v: must be %v to %v", p.Timeout, MinTimeout, MaxTimeout)
	case p.Pacing > Closed:
		return badPlan("pacing %s: must be fixed, poisson or closed", p.Pacing)
	case p.Pacing == Poisson && p.Interval == 0:
		return badPlan("pacing %s: needs an interval, which is 0s; say one, or a rate", p.Pacing)
	case p.Flows < 0 || p.Flows > MaxFlows:
		return badPlan("flows %d: must be 1 to %d", p.Flows, MaxFlows)
	case p.DSCP > 63:
		return badPlan("dscp %d: must be 0 to 63", p.DSCP)
	case p.DontFragment && p.Protocol != UDP:
		return badPlan("dont_fragment true: is for UDP only")
	case !canMark && (p.DSCP != 0 || p.TTL != 0 || p.DontFragment):
		return badPlan("ip options: cannot be set on this system")
	case p.NewConnection && p.Protocol != TCP:
		return badPlan("new_connection true: is for TCP only")
	case p.AwaitClose && p.Protocol != TCP:
		return badPlan("await_close true: is for TCP only")
	}
	if err := p.checkSource(host); err != nil {
		return err
	}
	if p.PathMTU != nil {
		return p.checkSearch(host)
	}
	if len(p.Sizes) > MaxSizes {
		return badPlan("payload_sweep %d sizes: must be at most %d", len(p.Sizes), MaxSizes)
	}
	for _, size := range p.Sizes {
		if err := p.checkPayload("payload_sweep", host, size); err != nil {
			return err
		}
	}
	if len(p.Sizes) > 0 {
		return nil
	}
	return p.checkPayload("payload_size", host, p.PayloadBytes)
}

func (p Plan) checkSearch(host string) error {
	most := p.PathMTU.MaxPayload
	switch {
	case p.Protocol != UDP:
		return badPlan("path_mtu search: is for UDP only")
	case !canMark:
		return badPlan("path_mtu search: cannot be made on this system, which does not let fragments be forbidden here")
	case p.Count == 0 || p.Count > MaxTries:
		return badPlan("count %d: must be 1 to %d tries of a size in a search for the path MTU", p.Count, MaxTries)
	case p.flows() > 1:
		return badPlan("flows %d: must be 1 in a search for the path MTU", p.Flows)
	case p.PayloadBytes != 0:
		return badPlan("payload_size %d: is chosen by a search for the path MTU; leave it out", p.PayloadBytes)
	case len(p.Sizes) > 0:
		return badPlan("payload_sweep %d sizes: are chosen by a search for the path MTU; leave it out", len(p.Sizes))
	case most != 0 && most < leastTried:
		return badPlan("max_payload %d: must be 0 (what fits the interface) or at least %d", most, leastTried)
	default:
		return p.checkPayload("max_payload", host, most)
	}
}

// maxInterface is how long the name of an interface may be: IFNAMSIZ of Linux, without the zero at its end.
const maxInterface = 15

func (p Plan) checkSource(host string) error {
	source := p.Source.Addr()
	target, err := netip.ParseAddr(host)
	switch {
	case p.Source.Port() != 0 && p.newConnections():
		return badPlan("source.port %d: must be 0 where each round has a connection of its own", p.Source.Port())
	case p.Source.Port() != 0 && int(p.Source.Port())+p.flows()-1 > 65535:
		return badPlan("source.port %d: with %d flows it must be at most %d", p.Source.Port(), p.flows(), 65536-p.flows())
	case len(p.SourceInterface) > maxInterface || strings.ContainsAny(p.SourceInterface, "/: \t\n\x00"):
		return badPlan("source.interface %.*q: must be the name of an interface: at most %d characters, without '/', ':' and spaces",
			2*maxInterface, p.SourceInterface, maxInterface)
	case source.IsValid() && (source.IsUnspecified() || source.IsMulticast()):
		return badPlan("source.address %s: must be an address of this host", source)
	case source.IsValid() && err == nil && source.Unmap().Is4() != target.Unmap().Is4():
		return badPlan("source.address %s: cannot send to %s, which is of the other IP version", source, target)
	default:
		return nil
	}
}

func (p Plan) checkAddress() (host string, err error) {
	host, port, err := net.SplitHostPort(p.Address)
	if err != nil || host == "" {
		return "", badPlan("address %q: must be \"HOST:PORT\" or \"[IPV6]:PORT\"", p.Address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", badPlan("address %q: the port must be 1 to 65535", p.Address)
	}
	return host, nil
}

func (p Plan) checkPayload(field, host string, size int) error {
	least, most := 1, MaxPayloadTCP
	if p.Protocol == UDP {
		least, most = 0, MaxPayloadUDP6
		if ip, err := netip.ParseAddr(host); err == nil {
			most = maxPayloadUDP(ip.Unmap())
		}
	}
	if size < least || size > most {
		return badPlan("%s %d: must be %d to %d over %s", field, size, least, most, p.Protocol)
	}
	if held := size * p.flows(); p.Protocol == TCP && held > maxHeldBytes {
		return badPlan("%s %d: with %d flows it must be at most %d", field, size, p.flows(), maxHeldBytes/p.flows())
	}
	return nil
}

// maxPayloadUDP is the largest payload of a datagram to that address.
func maxPayloadUDP(a netip.Addr) int {
	if a.Is4() {
		return MaxPayloadUDP4
	}
	return MaxPayloadUDP6
}

// maxHeldBytes bounds the payloads that the connections of a run hold at once, each of which is in memory twice: as sent
// and as read.
const maxHeldBytes = 64 << 20

func (p Plan) flows() int { return max(p.Flows, 1) }

// newConnections says whether each round has a connection of its own.
func (p Plan) newConnections() bool { return p.NewConnection || p.AwaitClose }

// closed says whether a flow's round waits for the one before it.
func (p Plan) closed() bool {
	return p.Interval == 0 || p.Pacing == Closed || p.Protocol == UDP && !p.numbered()
}

// size is the payload of the round seq.
func (p Plan) size(seq uint32) int {
	if len(p.Sizes) == 0 {
		return p.PayloadBytes
	}
	return p.Sizes[(seq-1)%uint32(len(p.Sizes))]
}

// largest is the largest payload, as far as the plan says.
func (p Plan) largest() int {
	if len(p.Sizes) == 0 {
		return p.PayloadBytes
	}
	return slices.Max(p.Sizes)
}

// numbered says whether replies tell which round they belong to, whatever order they come in.
func (p Plan) numbered() bool {
	if len(p.Sizes) > 0 {
		return p.Protocol == UDP && slices.Min(p.Sizes) >= wire.HeaderBytes
	}
	return p.Protocol == UDP && (p.PayloadBytes >= wire.HeaderBytes || p.PathMTU != nil)
}

// maxOutstanding is how many rounds may be on their way at once. Datagrams cost no more than a place in the window.
func (p Plan) maxOutstanding() int {
	switch {
	case p.closed():
		return p.flows()
	case p.Protocol == UDP:
		return windowRounds - 1
	case p.newConnections():
		return min(MaxOutstanding, max(1, maxHeldBytes/p.largest()))
	default:
		return MaxOutstanding
	}
}

// badPlanError carries its whole message; ErrBadPlan is only for errors.Is.
type badPlanError string

func (e badPlanError) Error() string        { return string(e) }
func (e badPlanError) Is(target error) bool { return target == ErrBadPlan }

func badPlan(format string, args ...any) error {
	return badPlanError(fmt.Sprintf(format, args...))
}
