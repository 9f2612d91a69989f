// Package load is the benchmark's client: it keeps an echo server busy for a moment and says how fast the answers came.
//
// It is one thread that blocks in epoll_wait and makes raw non-blocking calls, so that as little as can be of what is
// measured is its own cost, which all servers pay alike. It allocates nothing while it measures. It starts no server and
// judges none. Only the benchmark calls it, in a process of its own: while it runs, no other goroutine of the process
// may want to. It needs Linux.
package load

import "time"

// Kind is what the client does.
type Kind string

// The kinds of load.
const (
	// PingPong keeps Depth requests of Size bytes under way on each of Conns TCP connections.
	PingPong Kind = "pingpong"
	// Bulk writes as much as is taken on Conns TCP connections, with at most 4 MiB under way over all.
	Bulk Kind = "bulk"
	// Connect opens a TCP connection, has Size bytes echoed and resets it (RST), with Conns of them at a time. The reset
	// keeps the ports free that TIME_WAIT would hold.
	Connect Kind = "connect"
	// Datagrams keeps Depth datagrams of Size bytes under way in each of Conns UDP flows.
	Datagrams Kind = "datagrams"
	// Trains is Datagrams with segmentation offload (UDP_SEGMENT, UDP_GRO): what is sent leaves as trains.
	Trains Kind = "trains"
)

// Plan is what to do. Conns, Depth and Size are 1 and up.
type Plan struct {
	Kind  Kind
	Conns int // connections or flows
	Depth int // requests under way on each
	Size  int // bytes of a request
	TOS   int // IP_TOS of what is sent; 0 is the system's

	Target    string // host:port, IPv4
	ServerPID int    // its process group's CPU time is read; 0 reads none
	Warm      time.Duration
	For       time.Duration // the measurement alone
}

// Result is what was seen after the warm-up. What is not known is nil.
type Result struct {
	Echoes  uint64 // whole requests that came back; 0 for Bulk
	Bytes   uint64 // bytes that came back
	Lost    uint64 // datagrams that were given up; an answer that still comes counts as an echo
	Elapsed time.Duration
	CPU     *time.Duration // of the server's processes, user and system
	P50     *time.Duration // of round trips; of PingPong with Depth 1 and of Connect
	P99     *time.Duration
}
