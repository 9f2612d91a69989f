// Package echo is the data plane: TCP and UDP echo as RFC 862 has it.
//
// An [Engine] owns every socket and goroutine; the [Endpoint]s that it opens are what it serves. Endpoints come and go
// while the engine runs, their options change while they serve, and engines of one process do not know of each other.
// The package knows no names, no labels and no RPC, keeps nothing on disk and logs nothing: what happens shows in
// [Stats], and each thing that is refused or thrown away is counted there under a reason. Any package may call it. All
// methods are safe for concurrent use.
//
// # TCP
//
// Every byte comes back in order, urgent data (RFC 6093) where it stood; Windows echoes none of that. When the peer ends its
// side, the rest is echoed and our side ends, too. What a peer does not take stops the reading from it: it stays in the
// kernel's buffers, which are of fixed size, but for a small read (16 KiB; 32 KiB where package net serves). So a peer that
// only writes costs a bounded amount of memory. [TCPOptions] limit idle, stalling and surplus connections, and what is echoed.
//
// On Linux what a connection sends has the DSCP of its SYN.
//
// # UDP
//
// Every datagram comes back whole, the empty one and the largest (65,507 bytes over IPv4, 65,527 over IPv6) included,
// to where it came from.
//
// On Linux the answer also comes from the address that was asked, which matters to an endpoint of all addresses on a
// host that has several; a datagram sent to a broadcast or multicast address cannot be answered so and is dropped. On
// other systems the answer of such an endpoint comes from the address that the system picks for the way back, and
// broadcasts are answered; endpoints of one address behave alike everywhere.
//
// Unless UDPOptions say otherwise, what another echo service may have sent is not answered, so that no two of them can
// go on for ever. On Linux an answer has the DSCP of its request, and datagrams that came as a train (UDP_GRO) go back as
// one (UDP_SEGMENT).
//
// # Ledgers
//
// The payloads of package probe carry the number of their run and of their round. UDP endpoints echo them as any others, and
// keep a [Ledger] of what came of each run ([Engine.Ledger]), so that the prober can tell what was lost on its way there from
// what was lost on its way back.
//
// # Connections
//
// Who wants to know of each TCP connection that comes, and why it ended, says so in Options.Observe.
//
// # Handing over
//
// What serves an endpoint can go to another engine, most often that of the next version in another process, and no peer notices
// anything but a short wait: [Endpoint.Pause] stops without closing and answers the sockets with what was read and not yet
// written, [Engine.Adopt] takes them, the old endpoint lets go of them by [Endpoint.Release], and [Endpoint.Resume] of the new one
// goes on; or that of the old one, if anything went wrong. How the files get from one process to another is the caller's affair.
// Adopt also takes sockets that no engine has served: those that systemd or inetd have opened. Not on Windows.
//
// # Addresses
//
// [ParseListen] says how addresses are written. Where a host has no IPv6, ":7" is IPv4 only, and so it is on OpenBSD
// and DragonFly BSD, whose sockets are never of both.
//
// # How it serves
//
// On Linux a loop for each processor but one serves all sockets: readiness comes from epoll (loop_linux.go), connections are
// accepted in loop_tcp_linux.go and live in loop_conn_linux.go, a datagram's way is in loop_udp_linux.go. An idle
// connection or endpoint holds no buffer and no goroutine. Elsewhere, and where Options say so, package net serves with a
// goroutine a socket (tcp_server.go, tcp.go, udp.go); the same tests hold both. Handing over is in handover.go and, for each of
// the two, loop_handover_linux.go and portable_handover.go.
package echo
