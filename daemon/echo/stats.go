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
	// Error constants) what failed. What never happened is not in the map.
	Drops, Errors map[string]uint64
	// LastActivity is when a connection was accepted or bytes or a datagram moved last; zero if never.
	LastActivity time.Time
}

// The reasons in Stats.Drops. Connections are counted, unless it says bytes or datagrams.
const (
	// DropIdleTimeout: closed as no byte had moved for TCPOptions.IdleTimeout.
	DropIdleTimeout = "idle_timeout"
	// DropMaxConnections: closed as it came, since TCPOptions.MaxConnections were open.
	DropMaxConnections = "max_connections"
	// DropMaxSockets: closed as it came, since the engine had as many sockets as it may.
	DropMaxSockets = "max_sockets"
	// DropOneShotRest: bytes that came after the answer of a one-shot connection.
	DropOneShotRest = "one_shot_rest"
	// DropClosing: cut, or turned away, because the endpoint closed.
	DropClosing = "closing"
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

// counters are the live side of Stats.
type counters struct {
	connectionsOpen                                   atomic.Int64
	connectionsTotal                                  atomic.Uint64
	bytesIn, bytesOut                                 atomic.Uint64
	datagramsIn, datagramsOut                         atomic.Uint64
	lastActivity                                      atomic.Int64 // Unix nanoseconds, 0 for never
	idleTimeout, maxConnections, oneShotRest, closing atomic.Uint64
	sourcePortZero, destinationNotUnicast             atomic.Uint64
	sourceNotUnicast, sourceIsService                 atomic.Uint64
	sourceIsEndpoint, hopsSpent, maxSockets           atomic.Uint64
	receiveBufferFull                                 atomic.Uint64
	acceptErrors, readErrors, writeErrors, resets     atomic.Uint64
}

// active notes that something moved at now.
func (c *counters) active(now time.Time) { c.lastActivity.Store(now.UnixNano()) }

func (c *counters) snapshot() Stats {
	s := Stats{
		ConnectionsOpen:  int(c.connectionsOpen.Load()),
		ConnectionsTotal: c.connectionsTotal.Load(),
		BytesIn:          c.bytesIn.Load(),
		BytesOut:         c.bytesOut.Load(),
		DatagramsIn:      c.datagramsIn.Load(),
		DatagramsOut:     c.datagramsOut.Load(),
		Drops: happened(map[string]*atomic.Uint64{
			DropIdleTimeout:           &c.idleTimeout,
			DropMaxConnections:        &c.maxConnections,
			DropMaxSockets:            &c.maxSockets,
			DropOneShotRest:           &c.oneShotRest,
			DropClosing:               &c.closing,
			DropReceiveBufferFull:     &c.receiveBufferFull,
			DropSourcePortZero:        &c.sourcePortZero,
			DropDestinationNotUnicast: &c.destinationNotUnicast,
			DropSourceNotUnicast:      &c.sourceNotUnicast,
			DropSourceIsService:       &c.sourceIsService,
			DropSourceIsEndpoint:      &c.sourceIsEndpoint,
			DropHopsSpent:             &c.hopsSpent,
		}),
		Errors: happened(map[string]*atomic.Uint64{
			ErrorAccept: &c.acceptErrors,
			ErrorRead:   &c.readErrors,
			ErrorWrite:  &c.writeErrors,
			ErrorReset:  &c.resets,
		}),
	}
	if last := c.lastActivity.Load(); last != 0 {
		s.LastActivity = time.Unix(0, last)
	}
	return s
}

// happened returns the counters that are not 0.
func happened(all map[string]*atomic.Uint64) map[string]uint64 {
	some := make(map[string]uint64)
	for name, counter := range all {
		if n := counter.Load(); n != 0 {
			some[name] = n
		}
	}
	return some
}
