// Command netclient times round trips as a Go program does that knows nothing better: package net, and time.Now before the
// write and after the read.
//
//	netclient udp|tcp ADDRESS:PORT BYTES COUNT INTERVAL
//
// Each leaves at its time, or when the one before it has come back. It prints a line for each round trip: its number from 0 and, in ns, "-", as it does not
// know what the kernel saw of it, what this process saw of it, and how much later than its time it left. The last line
// is "sent N". A datagram that is not answered within a second is lost.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"
)

// patience is how long a reply is waited for.
const patience = time.Second

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "netclient:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) != 5 {
		return errors.New("usage: netclient udp|tcp ADDRESS:PORT BYTES COUNT INTERVAL")
	}
	size, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	interval, err := time.ParseDuration(args[4])
	if err != nil {
		return err
	}
	if size < 1 || count < 1 || interval <= 0 {
		return errors.New("BYTES, COUNT and INTERVAL must be more than 0")
	}
	conn, err := net.Dial(args[0], args[1])
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing was buffered that could fail
	w := bufio.NewWriterSize(out, 1<<20)
	if err := measure(conn, w, size, count, interval); err != nil {
		return err
	}
	fmt.Fprintf(w, "sent %d\n", count)
	return w.Flush()
}

func measure(conn net.Conn, w io.Writer, size, count int, interval time.Duration) error {
	b := make([]byte, size)
	start := time.Now().Add(interval)
	for k := range count {
		due := start.Add(time.Duration(k) * interval)
		time.Sleep(time.Until(due))
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		left := time.Now()
		if _, err := conn.Write(b); err != nil {
			return err
		}
		_, err := io.ReadFull(conn, b)
		took := time.Since(left)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%d - %d %d\n", k, took.Nanoseconds(), left.Sub(due).Nanoseconds())
	}
	return nil
}
