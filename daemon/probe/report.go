package probe

import (
	"net/netip"
	"time"
)

// Report is what a run measured. At any time Sent == Received + Lost + Corrupted + Late + Outstanding. What is not known
// is nil, never 0.
type Report struct {
	// Address is what the rounds went to, after the name was looked up; invalid (IsValid) when it could not be.
	Address netip.AddrPort
	// Elapsed is from the start of the run to its end, or until now.
	Elapsed time.Duration
	// PayloadBytes is the payload of a round.
	PayloadBytes int
	// Sent counts the rounds begun: written, or tried to.
	Sent uint32
	// Received counts the rounds whose reply came in time and was right, byte for byte.
	Received uint32
	// Lost counts the rounds without any right reply, and Errors says why.
	Lost uint32
	// Corrupted counts the rounds whose reply was not what was sent.
	Corrupted uint32
	// Late counts the rounds whose reply was right but came after they had been given up.
	Late uint32
	// Outstanding counts the rounds that are on their way, or were when the run was ended early: what became of them is
	// not known. It is 0 when a run has come to its own end.
	Outstanding uint32
	// Duplicated counts the replies that came again. Nil over TCP, and over UDP when a payload has no room for a
	// sequence number.
	Duplicated *uint32
	// Reordered counts the right replies that were overtaken by the reply of a later round (RFC 4737). Nil where
	// Duplicated is.
	Reordered *uint32
	// RTT is over the received rounds; nil when there is none.
	RTT *Distribution
	// Connect is over the TCP connections that were established; nil when there is none.
	Connect *Distribution
	// Errors says why rounds were lost or corrupted, most frequent first. The counts add up to Lost + Corrupted, but
	// for ReasonNotClosed, which comes on top: its rounds are among the received.
	Errors []ErrorCount
}

// ErrorCount says how often something went wrong.
type ErrorCount struct {
	Reason Reason
	// Count is at least 1.
	Count uint32
	// Message is the last one, in words.
	Message string
}

// Distribution sums up a set of times. Percentiles are within 0.1 % of the exact value, the rest is exact. StdDev is
// that of the whole set, not an estimate from a part of it.
type Distribution struct {
	// Count is how many times it sums up, at least 1.
	Count                                       uint32
	Min, Mean, P50, P90, P99, P999, Max, StdDev time.Duration
}
