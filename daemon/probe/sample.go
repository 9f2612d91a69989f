package probe

import (
	"fmt"
	"time"
)

// Outcome tells what became of a round.
type Outcome uint8

const (
	// Received: the reply came in time and was right, byte for byte.
	Received Outcome = iota + 1
	// Lost: no reply within the timeout, or none possible. Sample.Reason says why.
	Lost
	// Corrupted: a reply came, but not what was sent.
	Corrupted
	// Late: the right reply came after its round had been told of as Lost, and takes that back.
	Late
	// Duplicated: the reply came again. The round has been told of before.
	Duplicated
	// WrongAddress: the right reply came from another address than the one asked. The round goes on waiting.
	WrongAddress
)

// String answers the outcome in lower case: "received", "lost", "corrupted", "late", "duplicated",
// "wrong_address".
func (o Outcome) String() string {
	switch o {
	case Received:
		return "received"
	case Lost:
		return "lost"
	case Corrupted:
		return "corrupted"
	case Late:
		return "late"
	case Duplicated:
		return "duplicated"
	case WrongAddress:
		return "wrong_address"
	default:
		return fmt.Sprintf("Outcome(%d)", uint8(o))
	}
}

// Reason says why a round was not received, or not as it should be. Its values are words of the contract.
type Reason string

const (
	// NoReason is that of a round with which all is well.
	NoReason Reason = ""
	// ReasonTimeout: no connection, or no reply, within the timeout.
	ReasonTimeout Reason = "timeout"
	// ReasonRefused: nobody listens: a RST to our SYN, or ICMP port unreachable.
	ReasonRefused Reason = "refused"
	// ReasonUnreachable: there is no way to the host or its network.
	ReasonUnreachable Reason = "unreachable"
	// ReasonReset: the peer broke the connection with a RST.
	ReasonReset Reason = "reset"
	// ReasonClosedEarly: the peer closed before it had sent back everything.
	ReasonClosedEarly Reason = "closed_early"
	// ReasonNameNotFound: the host's name could not be turned into an address.
	ReasonNameNotFound Reason = "name_not_found"
	// ReasonCorrupted: the reply was not what was sent.
	ReasonCorrupted Reason = "corrupted"
	// ReasonNotClosed: the echo was right, but the server did not close after our FIN. The round stays Received.
	ReasonNotClosed Reason = "not_closed"
	// ReasonTooBig: the datagram is larger than the way to the target takes: the system did not send it, or a router said so.
	ReasonTooBig Reason = "too_big"
	// ReasonTargetRefused: Options.Permit refused the address, and nothing was sent. It is of the run, not of a round.
	ReasonTargetRefused Reason = "target_refused"
	// ReasonOverLimit: Plan.Admit had no room for the run, and nothing was sent. It is of the run, not of a round.
	ReasonOverLimit Reason = "over_limit"
	// ReasonSourceUnavailable: Plan.Source cannot be had, and nothing was sent. It is of the run, not of a round.
	ReasonSourceUnavailable Reason = "source_unavailable"
	// ReasonNotSent: this host had no room for the datagram, and it never left.
	ReasonNotSent Reason = "not_sent"
	// ReasonOther: anything else; the message says what.
	ReasonOther Reason = "other"
)

// Sample is what became of one round. A round has one sample, Received, Lost or Corrupted, when it ends; after that
// there may be one Late sample, which takes back the Lost, and any number of Duplicated ones.
type Sample struct {
	// Seq is the round's number, from 1. Samples come in the order of events, which need not be that of Seq.
	Seq uint32
	// Outcome is what became of it.
	Outcome Outcome
	// Flow is which flow it belongs to, from 0.
	Flow int
	// Left is when the round left, since the run's start.
	Left time.Duration
	// PayloadBytes is the payload of the round.
	PayloadBytes int
	// RTT is the round trip on the network, as well as Report.Timestamps tells; nil unless the reply was right (Received
	// and Late, and Duplicated when the reply that came again was right).
	RTT *time.Duration
	// ApplicationRTT is the time from the first byte written to the last byte read, in this process; nil where RTT is.
	ApplicationRTT *time.Duration
	// Paused: a pause of this process made ApplicationRTT longer by more than a millisecond.
	Paused bool
	// Connect is how long it took to connect; nil when no connection was made for this round.
	Connect *time.Duration
	// Reason is NoReason unless the round was Lost or Corrupted, or Received but ReasonNotClosed.
	Reason Reason
	// Err is the reason in words; empty where Reason is.
	Err string
}
