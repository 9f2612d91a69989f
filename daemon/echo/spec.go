package echo

import (
	"fmt"
	"net/netip"
	"time"
)

// Protocol is what an endpoint speaks.
type Protocol uint8

// The protocols. The zero Protocol is none, and a [Spec] with it is refused.
const (
	TCP Protocol = iota + 1
	UDP
)

// String returns "TCP" or "UDP".
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	default:
		return fmt.Sprintf("Protocol(%d)", uint8(p))
	}
}

// MarshalText writes what String returns, so that a stored protocol can be read by people.
func (p Protocol) MarshalText() ([]byte, error) {
	if p != TCP && p != UDP {
		return nil, badSpec("protocol must be TCP or UDP")
	}
	return []byte(p.String()), nil
}

// UnmarshalText reads "TCP" or "UDP"; its error satisfies errors.Is(err, [ErrBadSpec]).
func (p *Protocol) UnmarshalText(text []byte) error {
	switch string(text) {
	case "TCP":
		*p = TCP
	case "UDP":
		*p = UDP
	default:
		return badSpec("protocol must be TCP or UDP, not %.16q", text)
	}
	return nil
}

// Spec says what an endpoint is to be.
type Spec struct {
	// Protocol is TCP or UDP.
	Protocol Protocol
	// Listen is where to listen, as [ParseListen] takes it.
	Listen string
	// Interface is the name of an interface, or VRF, that the sockets are bound to (SO_BINDTODEVICE; Linux): what comes by
	// others is not seen, and answers leave by it. Two endpoints may have the same address and port on two interfaces. Empty:
	// any.
	Interface string
	// Place is where the sockets are made. Nil: here.
	Place Place
	// TCP are the options of a TCP endpoint. They must be zero for UDP.
	TCP TCPOptions
	// UDP are the options of a UDP endpoint. They must be zero for TCP.
	UDP UDPOptions
	// Allow and Deny say whose connections and datagrams are taken: those from Deny are not, and where Allow is not
	// empty, only those from Allow. Each has at most [MaxSources] prefixes, as [ParseSource] makes them; they are
	// looked at one by one, for each datagram. Which of two prefixes is the longer does not matter: Deny wins.
	Allow, Deny []netip.Prefix
	// Tag is told to [Options].Observe with each connection of a TCP endpoint, so that it knows whose that is. The engine does
	// not look at it.
	Tag any

	// settled says that the socket that is adopted was made at the place: it is not compared, and may be gone.
	settled bool
}

// MaxSources is how many prefixes Spec.Allow and Spec.Deny may have.
const MaxSources = 256

// UDPOptions are what a UDP endpoint does besides echoing. The zero value is a plain echo with its guard on.
type UDPOptions struct {
	// NoLoopGuard switches off what keeps two echo services from answering each other for ever, which one datagram with
	// a forged source would start: datagrams from multicast, broadcast and unspecified addresses, from the ports of
	// services that answer anything (7, 13, 17, 19, 53, 69, 123, 161, 389, 1900, 5353, 11211) and from UDP endpoints
	// of this engine are dropped; and, on Linux, an answer lives one hop less than what it answers (TTL and hop limit are
	// the received less 1, at most 64), so that what bounces between two such services ends after 64 answers.
	NoLoopGuard bool
	// MaxSourceDatagrams and MaxSourceBytes are how many datagrams and bytes of payload one source may send a second; what
	// is over it is dropped, never queued. A source is an IPv4 address or the first 64 bits of an IPv6 one. One that was
	// silent for a second may send a second's worth at once; so a datagram of more than MaxSourceBytes is never answered.
	// 0 is no limit.
	//
	// An endpoint keeps account of up to [MaxTrackedSources] sources that have sent in the last second or so; more share
	// one allowance, so that forged sources cost a bounded memory (about 0.3 MiB).
	MaxSourceDatagrams uint32
	MaxSourceBytes     uint64
}

// MaxTrackedSources is how many sources of a UDP endpoint have an allowance of their own.
const MaxTrackedSources = 4096

// TCPOptions are what a TCP endpoint does besides echoing. The zero value is a plain echo without limits.
type TCPOptions struct {
	// OneShot answers once: what the first read returns is echoed (up to 32 KiB), then our side ends (FIN). What the
	// peer still sends within one second is read and thrown away, so that no reset overtakes the answer, and the
	// connection is closed. A peer that ends its side without a byte gets the end alone.
	OneShot bool
	// IdleTimeout closes a connection over which no byte moved for that long in either direction: a silent peer gets a
	// FIN, one that takes no byte of its echo a reset. Such a peer may last up to twice as long, as the kernel does not
	// tell when it took the last. 0 never closes, negative is refused.
	IdleTimeout time.Duration
	// StallTimeout resets a connection whose peer has taken no byte of its echo for that long, while some waits for it.
	// It begins when our send buffer is full, and may last up to twice as long. The peer's system tells only now and then,
	// when it has room for much, what its reader took: less than some seconds may be too short for one that is slow. A
	// connection that was closed before its peer took all is given up by the system after that time, too (Linux).
	// 0 never does, negative is refused.
	StallTimeout time.Duration
	// MaxConnections is how many connections may be open at a time; one more is closed as it comes. 0 is no limit,
	// negative is refused.
	MaxConnections int
	// MaxBytes is how many bytes of a connection are echoed. Then our side ends (FIN), and what the peer still sends
	// within one second is read and thrown away, as with OneShot. 0 is no limit.
	MaxBytes uint64
	// SocketBufferBytes is asked of the kernel as receive and as send buffer of each connection to come, from
	// [MinSocketBufferBytes] to [MaxSocketBufferBytes]. The kernel takes about twice that for either one, and no more than
	// the system's limits (net.core.rmem_max and wmem_max on Linux).
	//
	// 0 is 64 KiB to receive and 96 KiB to send, so that a peer which writes and never reads holds half a mebibyte of the
	// kernel's memory at most. On Linux, eight connections of a loop at a time have 2 MiB of each: those of peers that have
	// taken a mebibyte of their echo, while they move much.
	SocketBufferBytes int
}

// The range of TCPOptions.SocketBufferBytes.
const (
	MinSocketBufferBytes = 4 << 10
	MaxSocketBufferBytes = 64 << 20
)

// Validate reports whether an endpoint could be opened from s, as far as s itself tells. Its errors satisfy
// errors.Is(err, [ErrBadSpec]) and name the field.
func (s Spec) Validate() error {
	_, err := s.parse()
	return err
}

// parse validates s and returns the meaning of its Listen.
func (s Spec) parse() (Address, error) {
	if s.Protocol != TCP && s.Protocol != UDP {
		return Address{}, badSpec("protocol must be TCP or UDP")
	}
	if s.Protocol == UDP && s.TCP != (TCPOptions{}) {
		return Address{}, badSpec("a UDP endpoint takes no TCP options")
	}
	if s.Protocol == TCP && s.UDP != (UDPOptions{}) {
		return Address{}, badSpec("a TCP endpoint takes no UDP options")
	}
	if s.TCP.IdleTimeout < 0 {
		return Address{}, badSpec("idle timeout %v is negative; 0 means never", s.TCP.IdleTimeout)
	}
	if s.TCP.StallTimeout < 0 {
		return Address{}, badSpec("stall timeout %v is negative; 0 means never", s.TCP.StallTimeout)
	}
	if s.TCP.MaxConnections < 0 {
		return Address{}, badSpec("maximum of connections %d is negative; 0 means no limit", s.TCP.MaxConnections)
	}
	if b := s.TCP.SocketBufferBytes; b != 0 && (b < MinSocketBufferBytes || b > MaxSocketBufferBytes) {
		return Address{}, badSpec("socket buffer of %d bytes is not 0 or %d to %d", b, MinSocketBufferBytes, MaxSocketBufferBytes)
	}
	if err := checkInterface(s.Interface); err != nil {
		return Address{}, err
	}
	for _, sources := range [][]netip.Prefix{s.Allow, s.Deny} {
		if err := checkSources(sources); err != nil {
			return Address{}, err
		}
	}
	return ParseListen(s.Listen)
}
