// Command fortio is the echo server of fortio's fnet package, with fortio's own settings. It is a module of its own, so
// that the product does not depend on fortio.
//
//	fortio tcp|udp ADDRESS
//
// It listens on a free port of ADDRESS, prints it, and ends when its standard input does.
package main

import (
	"fmt"
	"io"
	"net"
	"os"

	"fortio.org/fortio/fnet"
	"fortio.org/log"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: fortio tcp|udp ADDRESS")
		os.Exit(2)
	}
	log.SetLogLevel(log.Error) // as nobody reads it
	listen := net.JoinHostPort(os.Args[2], "0")
	var addr net.Addr
	switch os.Args[1] {
	case "tcp":
		addr = fnet.TCPEchoServer("bench", listen)
	case "udp":
		addr = fnet.UDPEchoServer("bench", listen, false)
	}
	if addr == nil {
		fmt.Fprintln(os.Stderr, "fortio: cannot listen on", listen)
		os.Exit(1)
	}
	fmt.Println(addr)
	_, _ = io.Copy(io.Discard, os.Stdin)
}
