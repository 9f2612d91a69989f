// Command netecho is the echo server that one writes first in Go: package net, a goroutine and a 32 KiB buffer a
// connection, one goroutine for UDP. It is a peer to measure against and nothing else.
//
//	netecho tcp|udp ADDRESS
//
// It listens on a free port of ADDRESS, prints it, and ends when its standard input does.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
)

const (
	tcpBufferBytes = 32 << 10
	udpBufferBytes = 64 << 10
	udpSocketBytes = 1 << 20
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: netecho tcp|udp ADDRESS")
		os.Exit(2)
	}
	if err := run(os.Args[1], net.JoinHostPort(os.Args[2], "0")); err != nil {
		fmt.Fprintln(os.Stderr, "netecho:", err)
		os.Exit(1)
	}
}

func run(protocol, listen string) error {
	switch protocol {
	case "tcp":
		listener, err := net.Listen("tcp4", listen)
		if err != nil {
			return err
		}
		return serve(listener.Addr(), func() { accept(listener) })
	case "udp":
		conn, err := net.ListenPacket("udp4", listen)
		if err != nil {
			return err
		}
		udp := conn.(*net.UDPConn)
		_ = udp.SetReadBuffer(udpSocketBytes) // a wish: a smaller one loses sooner
		return serve(udp.LocalAddr(), func() { answer(udp) })
	}
	return fmt.Errorf("protocol must be tcp or udp, not %q", protocol)
}

// serve prints the address and runs echo until standard input ends. The process ends then, and the goroutines with it.
func serve(addr net.Addr, echo func()) error {
	fmt.Println(addr)
	go echo()
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go echo(conn)
	}
}

func echo(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	buf := make([]byte, tcpBufferBytes)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return
		}
	}
}

func answer(conn *net.UDPConn) {
	buf := make([]byte, udpBufferBytes)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if _, err := conn.WriteToUDPAddrPort(buf[:n], from); err != nil {
			return
		}
	}
}
