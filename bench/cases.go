//go:build linux

package main

import "github.com/echod/echod/bench/internal/load"

// Case is one load that several servers have to bear.
type Case struct {
	Name    string
	Title   string
	Load    load.Plan
	Servers []string // ours first
	Listen  string   // the address that the servers bind; empty is 127.0.0.1
	Dial    string   // the address that is asked; empty is the one that they bind
}

const ours = "echod"

// Who is measured where: ours first, then the one to be measured by, then the others.
var (
	tcpServers = []string{ours, "c-epoll-64k", "go-net", "fortio", "asyncio", "socat", "xinetd"}
	// Without those who start a process for each connection.
	tcpManyServers = []string{ours, "c-epoll-64k", "go-net", "fortio", "asyncio"}
	tcpBulkServers = []string{ours, "c-epoll-64k", "c-epoll-32k", "c-epoll-128k", "c-epoll-256k",
		"go-net", "fortio", "asyncio", "socat", "xinetd"}
	udpServers      = []string{ours, "c-mmsg-tos-ttl", "c-mmsg", "go-net", "fortio", "asyncio"}
	udpTrainServers = []string{ours, "c-gso-tos-ttl", "c-gso", "c-mmsg-tos-ttl", "go-net", "asyncio"}
	// Those who answer from the address that was asked.
	udpWildcardServers = []string{ours, "c-mmsg-pktinfo-tos-ttl"}
)

// expedited is DSCP EF in IP_TOS (RFC 3246).
const expedited = 0xb8

var cases = []Case{
	{
		Name: "tcp-64x64B", Title: "TCP ping-pong, 64 connections, 64 B",
		Load: load.Plan{Kind: load.PingPong, Conns: 64, Depth: 1, Size: 64}, Servers: tcpServers,
	},
	{
		Name: "tcp-64x1KiB", Title: "TCP ping-pong, 64 connections, 1 KiB",
		Load: load.Plan{Kind: load.PingPong, Conns: 64, Depth: 1, Size: 1024}, Servers: tcpServers,
	},
	{
		Name: "tcp-1000x64B", Title: "TCP ping-pong, 1000 connections, 64 B",
		Load: load.Plan{Kind: load.PingPong, Conns: 1000, Depth: 1, Size: 64}, Servers: tcpManyServers,
	},
	{
		Name: "tcp-1000x1KiB", Title: "TCP ping-pong, 1000 connections, 1 KiB",
		Load: load.Plan{Kind: load.PingPong, Conns: 1000, Depth: 1, Size: 1024}, Servers: tcpManyServers,
	},
	{
		Name: "tcp-1x64B", Title: "TCP ping-pong, one connection, 64 B (waking up across cores: it measures the machine)",
		Load: load.Plan{Kind: load.PingPong, Conns: 1, Depth: 1, Size: 64}, Servers: tcpManyServers,
	},
	{
		Name: "tcp-pipelined", Title: "TCP, 64 connections with 16 requests of 64 B under way on each",
		Load: load.Plan{Kind: load.PingPong, Conns: 64, Depth: 16, Size: 64}, Servers: tcpServers,
	},
	{
		Name: "tcp-bulk-1", Title: "TCP bulk, one connection, 4 MiB under way",
		Load: load.Plan{Kind: load.Bulk, Conns: 1, Depth: 1, Size: 256 << 10}, Servers: tcpBulkServers,
	},
	{
		Name: "tcp-bulk-8", Title: "TCP bulk, 8 connections, 4 MiB under way over all",
		Load: load.Plan{Kind: load.Bulk, Conns: 8, Depth: 1, Size: 256 << 10}, Servers: tcpBulkServers,
	},
	{
		Name: "tcp-connect", Title: "TCP connect, echo of 64 B, reset (RST), 16 at a time",
		Load: load.Plan{Kind: load.Connect, Conns: 16, Depth: 1, Size: 64}, Servers: tcpServers,
	},
	{
		Name: "udp-1x64B", Title: "UDP, one flow with 64 datagrams of 64 B under way",
		Load: load.Plan{Kind: load.Datagrams, Conns: 1, Depth: 64, Size: 64}, Servers: udpServers,
	},
	{
		Name: "udp-1x1200B", Title: "UDP, one flow with 64 datagrams of 1200 B under way",
		Load: load.Plan{Kind: load.Datagrams, Conns: 1, Depth: 64, Size: 1200}, Servers: udpServers,
	},
	{
		Name: "udp-64x64B", Title: "UDP, 64 flows with 4 datagrams of 64 B under way in each",
		Load: load.Plan{Kind: load.Datagrams, Conns: 64, Depth: 4, Size: 64}, Servers: udpServers,
	},
	{
		Name: "udp-64x1200B", Title: "UDP, 64 flows with 4 datagrams of 1200 B under way in each",
		Load: load.Plan{Kind: load.Datagrams, Conns: 64, Depth: 4, Size: 1200}, Servers: udpServers,
	},
	{
		Name: "udp-wildcard", Title: "UDP to 127.0.0.5 of a server on 0.0.0.0, DSCP EF, 64 flows with 4 of 64 B under way in each",
		Load:    load.Plan{Kind: load.Datagrams, Conns: 64, Depth: 4, Size: 64, TOS: expedited},
		Servers: udpWildcardServers, Listen: "0.0.0.0", Dial: "127.0.0.5",
	},
	{
		Name: "udp-trains", Title: "UDP from a sender of GSO trains, one flow with 256 datagrams of 1200 B under way",
		Load: load.Plan{Kind: load.Trains, Conns: 1, Depth: 256, Size: 1200}, Servers: udpTrainServers,
	},
}

// udp reports whether the case is one of UDP.
func (c Case) udp() bool { return c.Load.Kind == load.Datagrams || c.Load.Kind == load.Trains }

// listen is the address that the servers bind.
func (c Case) listen() string {
	if c.Listen == "" {
		return "127.0.0.1"
	}
	return c.Listen
}
