//go:build linux

package main

import "fmt"

// Server is an echo server to be measured.
type Server struct {
	Name  string
	About string
	// Program is the name of one of the tools.
	Program string
	// Args of it; {address}, {port} and {config} stand for what the trial gives.
	Args []string
	// Config, if any, is what is written to the file {config}, with the same placeholders.
	Config string
	// Told: it cannot pick a port, it is told one, for TCP.
	// The others print the address that they bound as their first line.
	Told bool
	// Forks: it starts a process for each connection. -quick leaves it out.
	Forks bool
}

var servers = []Server{
	{
		Name: ours, About: "the engine of this project",
		Program: "echoserver", Args: []string{"-protocol", "{protocol}", "-address", "{address}", "-engine", "{engine}"},
	},

	{
		Name: "c-epoll-32k", About: "C, level-triggered epoll, reads of 32 KiB",
		Program: "tcp_epoll", Args: []string{"{address}", "32768"},
	},
	{
		Name: "c-epoll-64k", About: "C, level-triggered epoll, reads of 64 KiB",
		Program: "tcp_epoll", Args: []string{"{address}", "65536"},
	},
	{
		Name: "c-epoll-128k", About: "C, level-triggered epoll, reads of 128 KiB",
		Program: "tcp_epoll", Args: []string{"{address}", "131072"},
	},
	{
		Name: "c-epoll-256k", About: "C, level-triggered epoll, reads of 256 KiB",
		Program: "tcp_epoll", Args: []string{"{address}", "262144"},
	},
	{
		Name: "c-mmsg", About: "C, recvmmsg and sendmmsg",
		Program: "udp_mmsg", Args: []string{"{address}"},
	},
	{
		Name: "c-mmsg-tos-ttl", About: "the same, answering with the DSCP and the TTL that echod answers with",
		Program: "udp_mmsg", Args: []string{"{address}", "tos", "ttl"},
	},
	{
		Name: "c-mmsg-pktinfo-tos-ttl", About: "the same, and from the address that was asked",
		Program: "udp_mmsg", Args: []string{"{address}", "pktinfo", "tos", "ttl"},
	},
	{
		Name: "c-gso", About: "C, recvmmsg and sendmmsg with UDP_GRO and UDP_SEGMENT",
		Program: "udp_mmsg", Args: []string{"{address}", "gro"},
	},
	{
		Name: "c-gso-tos-ttl", About: "the same, answering with the DSCP and the TTL that echod answers with",
		Program: "udp_mmsg", Args: []string{"{address}", "gro", "tos", "ttl"},
	},

	{
		Name: "go-net", About: "Go, package net, a goroutine and 32 KiB a connection",
		Program: "netecho", Args: []string{"{protocol}", "{address}"},
	},
	{
		Name: "fortio", About: "Go, fortio's fnet",
		Program: "fortio", Args: []string{"{protocol}", "{address}"},
	},
	{
		Name: "asyncio", About: "Python, asyncio as its documentation has it",
		Program: "python3", Args: []string{"{peers}/asyncio_echo.py", "{protocol}", "{address}"},
	},

	{
		Name: "socat", About: "socat TCP-LISTEN,fork PIPE",
		Program: "socat", Told: true, Forks: true,
		Args: []string{"TCP4-LISTEN:{port},bind={address},fork,reuseaddr,nodelay,backlog=1024", "PIPE"},
	},
	{
		Name: "xinetd", About: "xinetd's own echo service, TCP",
		Program: "xinetd", Told: true, Forks: true, Config: xinetdConfig,
		Args: []string{"-dontfork", "-f", "{config}", "-pidfile", "{config}.pid", "-filelog", "{config}.log"},
	},
}

// xinetdConfig has every limit out of the way. It is TCP's: for UDP, xinetd forks for a datagram and loses most of those
// that come meanwhile, which leaves nothing to measure but how soon the client gives them up.
const xinetdConfig = `defaults
{
}
service echo
{
	id          = echo-stream
	type        = INTERNAL UNLISTED
	socket_type = stream
	protocol    = tcp
	wait        = no
	user        = {user}
	bind        = {address}
	port        = {port}
	instances   = UNLIMITED
	per_source  = UNLIMITED
	cps         = 1000000 1
}
`

func findServer(name string) (Server, error) {
	for _, s := range servers {
		if s.Name == name {
			return s, nil
		}
	}
	return Server{}, fmt.Errorf("there is no server %q; -list shows them", name)
}
