package echo

import "net/netip"

// Observe is told of a TCP connection that an endpoint has taken: the endpoint's [Spec].Tag as it was then, and who is at
// the other end, whose address is never an IPv4-mapped one and has no zone. What it answers, if it is not nil, is called once, when the
// connection has ended. Connections that are turned away are not told; [Stats] counts them.
//
// Both are called by what serves the connections, the one before the first byte is read, the other before the connection is
// counted out and before any Close of its endpoint returns: they must be quick, must not wait for anything and must not call
// into the engine. Connections of one engine may be told at the same time.
type Observe func(tag any, peer netip.AddrPort) (ended func(Ending))

// Ending is how a TCP connection ended.
type Ending struct {
	// BytesIn and BytesOut are the bytes read from and written to the peer.
	BytesIn, BytesOut uint64
	// Reason is why: one of the Ended constants.
	Reason string
}

// The reasons in Ending.Reason.
const (
	// EndedPeerClosed: the peer ended its side, all was echoed, and we ended ours.
	EndedPeerClosed = "peer_closed"
	// EndedIdle: no byte had moved for TCPOptions.IdleTimeout.
	EndedIdle = "idle"
	// EndedStalled: the peer had taken no byte of its echo for TCPOptions.StallTimeout.
	EndedStalled = "stalled"
	// EndedReset: the peer reset it.
	EndedReset = "reset"
	// EndedOneShot: the one answer of a TCPOptions.OneShot connection had been given.
	EndedOneShot = "one_shot"
	// EndedMaxBytes: TCPOptions.MaxBytes had been echoed.
	EndedMaxBytes = "max_bytes"
	// EndedStopped: it was cut as its endpoint closed.
	EndedStopped = "stopped"
	// EndedError: the system could not go on with it; Stats.Errors counts how.
	EndedError = "error"
)

// told is what is kept of a connection whose end is to be told. Of others it is nil.
type told struct {
	ended   func(Ending)
	in, out uint64
}

// tell has the observer told of a connection that was taken. There may be no observer.
func (o Observe) tell(tag any, peer netip.AddrPort) *told {
	if o == nil {
		return nil
	}
	if ended := o(tag, peer); ended != nil {
		return &told{ended: ended}
	}
	return nil
}

// received notes bytes that were read.
func (t *told) received(n int) {
	if t != nil {
		t.in += uint64(n)
	}
}

// sent notes bytes that were written.
func (t *told) sent(n int) {
	if t != nil {
		t.out += uint64(n)
	}
}

// end tells of the end: why, as it was counted, whether our side had ended by itself, and whether for its bytes.
func (t *told) end(why event, answered, spent bool) {
	if t != nil {
		t.ended(Ending{BytesIn: t.in, BytesOut: t.out, Reason: endReason(why, answered, spent)})
	}
}

func endReason(why event, answered, spent bool) string {
	switch {
	case why == dropIdleTimeout:
		return EndedIdle
	case why == dropStallTimeout:
		return EndedStalled
	case why == dropClosing:
		return EndedStopped
	case why == errorReset:
		return EndedReset
	case why != noEvent:
		return EndedError
	case !answered:
		return EndedPeerClosed
	case spent:
		return EndedMaxBytes
	default:
		return EndedOneShot
	}
}
