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
	// PayloadBytes is the payload of a round, of a sweep the largest; 0 in a search for the path MTU, where they differ.
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
	// WrongAddress counts the right replies that came from another address than the one asked; they answer nothing. Nil
	// over TCP, and where the system does not show them.
	WrongAddress *uint32
	// Ignored counts the datagrams that came and belong to no round of this run. Nil over TCP.
	Ignored *uint32
	// DroppedHere counts the datagrams that this host's kernel dropped because the run did not read them in time: their
	// rounds are lost by us, not by the network. Nil where WrongAddress is.
	DroppedHere *uint32
	// RTT is over the received rounds, on the network as well as Timestamps tells; nil when there is none.
	RTT *Distribution
	// ApplicationRTT is the same as this process saw it; nil when there is none.
	ApplicationRTT *Distribution
	// Connect is over the TCP connections that were established; nil when there is none.
	Connect *Distribution
	// Jitter is the interarrival jitter of round trips at the end (RFC 3550, 6.4.1), of several flows the mean. Nil below
	// two round trips of a flow.
	Jitter *time.Duration
	// IPDV is over the absolute differences of the RTT of rounds that follow each other in a flow (RFC 3393).
	IPDV *Distribution
	// Timestamps tells where the times of RTT were taken; its zero value until a round has been received.
	Timestamps Timestamps
	// Schedule tells how well rounds kept to their times. Nil where they have none: without an Interval.
	Schedule *Schedule
	// Loss sums up Lost. Nil until a round has ended.
	Loss *Loss
	// Outages are the longest rows of rounds of one flow without a reply in time, by start; at most maxOutages. Empty
	// without an Interval.
	Outages []Outage
	// MoreOutages is how many there are besides.
	MoreOutages uint32
	// Throughput is nil until a round has been received.
	Throughput *Throughput
	// Flows has an entry for each flow, when there are several.
	Flows []FlowReport
	// Sizes has an entry for each of the plan's Sizes.
	Sizes []SizeReport
	// PathMTU is what a search has found; nil without one. The rounds of a search say nothing of the path but that: Jitter,
	// IPDV, Schedule, Loss, Outages and Throughput are nil then.
	PathMTU *PathMTU
	// Errors says why rounds were lost or corrupted, most frequent first. The counts add up to Lost + Corrupted, but
	// for ReasonNotClosed, which comes on top: its rounds are among the received. Of a run that was refused there are no
	// rounds, and one entry of ReasonTargetRefused, ReasonOverLimit or ReasonSourceUnavailable.
	Errors []ErrorCount
	// Directions tells which way datagrams were lost. Nil over TCP, and until the run has ended.
	Directions *Directions
	// Run is the number that this run's payloads carry.
	Run uint64
	// Start is when the first round could leave; the zero time before that.
	Start time.Time
}

// Clock is who takes the times of packets.
type Clock uint8

const (
	// UserClock is this process, as it writes and after it has read.
	UserClock Clock = iota + 1
	// KernelClock is the kernel, where a packet goes to the network card's driver and where it comes from there.
	KernelClock
	// HardwareClock is the network card.
	HardwareClock
)

// Timestamps tells where and how well times were taken.
type Timestamps struct {
	Clock Clock
	// Resolution is the least difference that the clock can tell.
	Resolution time.Duration
	// Uncertainty is how far an RTT may be off; 0: not known.
	Uncertainty time.Duration
	// Missing counts the received rounds without a time of that clock; RTT has the process's time for them.
	Missing uint32
	// Paused counts the received rounds that this process's own pauses made longer by more than pauseLeast. With
	// UserClock RTT leaves them out, unless there are no others; ApplicationRTT has them all.
	Paused uint32
	// LongestPause is the longest of those pauses; 0: none.
	LongestPause time.Duration
}

// Schedule tells how well rounds kept to their times.
type Schedule struct {
	// Error is how much later than its time a round left; nil when none left.
	Error *Distribution
	// Late counts the rounds that left more than lateLeast after their time.
	Late uint32
	// Moved is how often the run was more than maxBehind behind, and moved the schedule instead of making up for it.
	Moved uint32
	// Omitted is how many rounds had their times in what was skipped so, and never left: had they left, they would have
	// seen what held the others up.
	Omitted uint32
}

// Loss tells how much did not come in time, of the rounds that have ended: Lost and Late, so that it does not depend on
// how long the run waited after the timeout of a round (RFC 7680, 2.6).
type Loss struct {
	// Ratio is the share that had no reply in time, 0 to 1.
	Ratio float64
	// UpperBound is what the share is not above with 95 % confidence, if rounds are lost independently of one another.
	UpperBound float64
	// Bursts is how often rounds of a flow had no reply in time in a row, a single one being a row of 1; LongestBurst is the
	// longest.
	Bursts, LongestBurst uint32
}

// Outage is a row of rounds of one flow that had no reply in time.
type Outage struct {
	Flow int
	// Start is when the first of them left, since the run's start.
	Start time.Duration
	// Length is from then until the next round left that was answered, or the last of them was given up where there is
	// none. It is exact to the time between two rounds of the flow.
	Length time.Duration
	// Lost is how many they are.
	Lost uint32
	// Open: no round after it has been answered.
	Open bool
}

// Throughput is payload that moved, in bits a second, over the time in which rounds were on their way.
type Throughput struct{ Sent, Received float64 }

// FlowReport is what one flow measured.
type FlowReport struct {
	// Source is where it comes from; of TCP its last connection. Invalid when it never had a socket.
	Source                                netip.AddrPort
	Sent, Received, Lost, Corrupted, Late uint32
	// RTT is within 1 %; nil when there is none.
	RTT *Distribution
	// LossOutlier, by rounds without a right reply in time, and RTTOutlier: it stands out from the other flows.
	LossOutlier, RTTOutlier bool
}

// SizeReport is what the rounds of one payload size measured.
type SizeReport struct {
	PayloadBytes                          int
	Sent, Received, Lost, Corrupted, Late uint32
	// RTT is within 1 %; nil when there is none.
	RTT *Distribution
}

// MTULimit is how it is known that no larger payload comes back.
type MTULimit uint8

const (
	// LimitUnknown: the search is not done, was ended early, or nothing came back (any more).
	LimitUnknown MTULimit = iota
	// LimitLocal: this system did not send more.
	LimitLocal
	// LimitReported: a router said that more is too big.
	LimitReported
	// LimitSilent: more vanishes without a word.
	LimitSilent
	// LimitMaxPayload: no more was to be tried.
	LimitMaxPayload
	// LimitTruncated: more comes back cut short.
	LimitTruncated
)

// PathMTU is what a search has found. Where nothing is known a number is 0, which none of them can be otherwise.
type PathMTU struct {
	// PayloadBytes is the largest payload that came back, 0 when none did, or none does any more; MTU is that of the IP
	// packet with it and its headers.
	PayloadBytes, MTU int
	Limit             MTULimit
	// TooBig is the smallest payload that did not come back.
	TooBig int
	// ReportedMTU is what the router said, if Limit is LimitReported and it did, and Router its address, if that is known.
	ReportedMTU int
	Router      netip.Addr
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
	Count                                            uint32
	Min, Mean, P50, P90, P95, P99, P999, Max, StdDev time.Duration
	// Buckets say how many times lie where, in order, for drawing. Nil in the reports of flows and sizes.
	Buckets []Bucket
}

// Bucket counts the times above the end of the bucket before it, up to Upper.
type Bucket struct {
	Upper time.Duration
	Count uint32
}
