package echo

import (
	"sync/atomic"
	"time"
)

// Stats are the counters of an endpoint since it was opened, as of one moment. What has reached a peer this instant may
// not be counted yet.
type Stats struct {
	// ConnectionsOpen is how many TCP connections are open now, ConnectionsTotal how many there have been with them.
	// Connections that were turned away are in Drops alone.
	ConnectionsOpen  int
	ConnectionsTotal uint64
	// BytesIn and BytesOut are the bytes read from and written to peers, TCP and UDP payload alike.
	BytesIn, BytesOut uint64
	// DatagramsIn and DatagramsOut are the UDP datagrams received and sent back.
	DatagramsIn, DatagramsOut uint64
	// Drops counts by reason (the Drop constants) what was refused or thrown away on purpose, Errors by kind (the
	// Error constants) what failed. What never happened is not in the map, which is nil when nothing has.
	Drops, Errors map[string]uint64
	// LastActivity is when a connection was accepted or bytes or a datagram moved last; zero if never.
	LastActivity time.Time
}

// The reasons in Stats.Drops. Connections are counted, unless it says bytes or datagrams.
const (
	// DropIdleTimeout: closed as no byte had moved for TCPOptions.IdleTimeout.
	DropIdleTimeout = "idle_timeout"
	// DropStallTimeout: reset as the peer had taken no byte of its echo for TCPOptions.StallTimeout.
	DropStallTimeout = "stall_timeout"
	// DropMaxBytes: ended as TCPOptions.MaxBytes had been echoed.
	DropMaxBytes = "max_bytes"
	// DropMaxConnections: closed as it came, since TCPOptions.MaxConnections were open.
	DropMaxConnections = "max_connections"
	// DropMaxSockets: closed as it came, since the engine had as many sockets as it may.
	DropMaxSockets = "max_sockets"
	// DropRest: bytes that came after our side of a connection had ended, for OneShot or MaxBytes.
	DropRest = "rest"
	// DropNotTaken: bytes that were read of a connection and not written before it ended, since its peer did not take them.
	DropNotTaken = "not_taken"
	// DropClosing: cut, or turned away, because the endpoint closed.
	DropClosing = "closing"
	// DropSourceDenied: connections and datagrams from where Spec.Allow and Spec.Deny let none come from.
	DropSourceDenied = "source_denied"
	// DropSourceRate: datagrams over what UDPOptions let one source send.
	DropSourceRate = "source_rate"
	// DropReceiveBufferFull: datagrams that the kernel threw away since they came faster than they were read (Linux).
	DropReceiveBufferFull = "receive_buffer_full"
	// DropSourcePortZero: datagrams from port 0, which nobody can be answered at.
	DropSourcePortZero = "source_port_zero"
	// DropSourceNotUnicast: datagrams from a multicast, broadcast or unspecified address.
	DropSourceNotUnicast = "source_not_unicast"
	// DropSourceIsService: datagrams from the port of a service that answers anything.
	DropSourceIsService = "source_is_service"
	// DropSourceIsEndpoint: datagrams from a UDP endpoint of the same engine.
	DropSourceIsEndpoint = "source_is_endpoint"
	// DropHopsSpent: datagrams that came with a TTL or hop limit of 1, whose answer would have none left.
	DropHopsSpent = "hops_spent"
	// DropDestinationNotUnicast: datagrams to a broadcast or multicast address, which no answer can come from.
	DropDestinationNotUnicast = "destination_not_unicast"
	// DropLedger: ledgers of other runs, thrown away for that of a run that came here since there were MaxLedgers.
	DropLedger = "ledger_displaced"
)

// The kinds in Stats.Errors.
const (
	// ErrorAccept: a connection could not be accepted, for lack of file descriptors for instance; retried.
	ErrorAccept = "accept"
	// ErrorRead: reading from a connection or a socket failed.
	ErrorRead = "read"
	// ErrorWrite: writing to a connection or sending a datagram failed.
	ErrorWrite = "write"
	// ErrorReset: the peer reset a connection.
	ErrorReset = "reset"
)

// event is what Stats.Drops and Stats.Errors count.
type event uint8

const (
	noEvent event = iota
	dropIdleTimeout
	dropStallTimeout
	dropMaxBytes
	dropMaxConnections
	dropMaxSockets
	dropRest
	dropNotTaken
	dropClosing
	dropSourceDenied
	dropSourceRate
	dropReceiveBufferFull
	dropSourcePortZero
	dropSourceNotUnicast
	dropSourceIsService
	dropSourceIsEndpoint
	dropHopsSpent
	dropDestinationNotUnicast
	dropLedger
	errorAccept // from here on, errors
	errorRead
	errorWrite
	errorReset
	events // how many there are
)

var eventNames = [events]string{
	dropIdleTimeout: DropIdleTimeout, dropStallTimeout: DropStallTimeout, dropMaxBytes: DropMaxBytes, dropMaxConnections: DropMaxConnections,
	dropMaxSockets: DropMaxSockets, dropRest: DropRest, dropNotTaken: DropNotTaken, dropClosing: DropClosing, dropSourceDenied: DropSourceDenied,
	dropSourceRate: DropSourceRate, dropReceiveBufferFull: DropReceiveBufferFull, dropSourcePortZero: DropSourcePortZero,
	dropSourceNotUnicast: DropSourceNotUnicast, dropSourceIsService: DropSourceIsService, dropSourceIsEndpoint: DropSourceIsEndpoint,
	dropHopsSpent: DropHopsSpent, dropDestinationNotUnicast: DropDestinationNotUnicast, dropLedger: DropLedger,
	errorAccept: ErrorAccept, errorRead: ErrorRead, errorWrite: ErrorWrite, errorReset: ErrorReset,
}

// counters are the live side of Stats.
type counters struct {
	connectionsOpen           atomic.Int64
	connectionsTotal          atomic.Uint64
	bytesIn, bytesOut         atomic.Uint64
	datagramsIn, datagramsOut atomic.Uint64
	lastActivity              atomic.Int64 // Unix nanoseconds, 0 for never
	// rare is nil until the first of them: most of thousands of endpoints never have any.
	rare atomic.Pointer[[events]atomic.Uint64]
}

// active notes that something moved at now.
func (c *counters) active(now time.Time) { c.lastActivity.Store(now.UnixNano()) }

// count notes that an event happened n times more.
func (c *counters) count(e event, n uint64) { c.of(e).Add(n) }

// of answers the counter of an event.
func (c *counters) of(e event) *atomic.Uint64 {
	all := c.rare.Load()
	if all == nil {
		c.rare.CompareAndSwap(nil, new([events]atomic.Uint64))
		all = c.rare.Load()
	}
	return &all[e]
}

// restore counts on from s, but for the open connections. Events of which nothing is known here are left out.
func (c *counters) restore(s Stats) {
	c.connectionsTotal.Store(s.ConnectionsTotal)
	c.bytesIn.Store(s.BytesIn)
	c.bytesOut.Store(s.BytesOut)
	c.datagramsIn.Store(s.DatagramsIn)
	c.datagramsOut.Store(s.DatagramsOut)
	if !s.LastActivity.IsZero() {
		c.active(s.LastActivity)
	}
	for e := noEvent + 1; e < events; e++ {
		if n := s.Drops[eventNames[e]] + s.Errors[eventNames[e]]; n > 0 {
			c.count(e, n)
		}
	}
}

func (c *counters) snapshot() Stats {
	s := Stats{
		ConnectionsOpen:  int(c.connectionsOpen.Load()),
		ConnectionsTotal: c.connectionsTotal.Load(),
		BytesIn:          c.bytesIn.Load(),
		BytesOut:         c.bytesOut.Load(),
		DatagramsIn:      c.datagramsIn.Load(),
		DatagramsOut:     c.datagramsOut.Load(),
	}
	if rare := c.rare.Load(); rare != nil {
		s.Drops, s.Errors = happened(rare, noEvent+1, errorAccept), happened(rare, errorAccept, events)
	}
	if last := c.lastActivity.Load(); last != 0 {
		s.LastActivity = time.Unix(0, last)
	}
	return s
}

// happened returns the counters from first to before end that are not 0, nil if all are.
func happened(all *[events]atomic.Uint64, first, end event) map[string]uint64 {
	var some map[string]uint64
	for e := first; e < end; e++ {
		if n := all[e].Load(); n != 0 {
			if some == nil {
				some = make(map[string]uint64)
			}
			some[eventNames[e]] = n
		}
	}
	return some
}
