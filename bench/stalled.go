//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/echod/echod/bench/internal/load"
	"github.com/echod/echod/bench/internal/proc"
)

const (
	// stalledFor is how long a write may take before the server is believed to take no more.
	stalledFor = 500 * time.Millisecond
	// stalledBytes are written at most: a server that takes more holds it nowhere or everywhere.
	stalledBytes = 32 << 20
	// stalledSocketBytes are asked for the clients' own buffers, so that what is held is the server's.
	stalledSocketBytes = 4 << 10
)

// honest is the load that a client with manners puts on the server, with the stalled peers and without.
var honest = load.Plan{Kind: load.PingPong, Conns: 16, Depth: 1, Size: 64}

// stalledPeers measures what our own server holds for peers that write and never read, and what others feel of them.
func stalledPeers(ctx context.Context, t *tools, s settings, count int) (Table, error) {
	table := Table{
		Title: fmt.Sprintf(stalledCase+": %d that write and never read, of one echod", count),
		Header: []string{"server", "memory each", "kernel memory each",
			"others' p50", "with them", "others' p99", "with them"},
		Notes: []string{"Memory is what the server's resident set grew by; kernel memory what all TCP sockets of this network " +
			"namespace grew by, the clients' small ones included; the others are 16 connections in ping-pong of 64 B."},
	}
	server, err := findServer(ours)
	if err != nil {
		return Table{}, err
	}
	r, err := startServer(t, server, s.engine, "tcp", "127.0.0.1")
	if err != nil {
		return Table{}, err
	}
	defer r.stop()
	defer context.AfterFunc(ctx, r.kill)()

	plan := Case{Load: honest}.plan(r, s)
	without, err := runLoad(ctx, plan)
	if err != nil {
		return Table{}, err
	}
	memory, kernel, err := heldBy(r)
	if err != nil {
		return Table{}, err
	}
	conns, err := stall(ctx, r.addr.String(), count)
	defer closeConns(conns)
	if err != nil {
		return Table{}, err
	}
	memoryThen, kernelThen, err := heldBy(r)
	if err != nil {
		return Table{}, err
	}
	with, err := runLoad(ctx, plan)
	if err != nil {
		return Table{}, err
	}
	each := func(grown int64) string { return formatKiB(float64(grown) / float64(count)) }
	table.Rows = [][]string{{ours, each(memoryThen - memory), each(kernelThen - kernel),
		formatDuration(*without.P50), formatDuration(*with.P50), formatDuration(*without.P99), formatDuration(*with.P99)}}
	return table, nil
}

// heldBy is the memory of the server, and that of the kernel's TCP sockets.
func heldBy(r *running) (own, kernel int64, err error) {
	if own, err = proc.Resident(r.pid()); err != nil {
		return 0, 0, err
	}
	kernel, err = tcpMemory()
	return own, kernel, err
}

// tcpMemory reads the bytes that TCP sockets hold from the line "TCP: inuse 5 orphan 0 tw 0 alloc 7 mem 3", in pages.
func tcpMemory() (int64, error) {
	text, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		words := bytes.Fields(line)
		if len(words) < 3 || string(words[0]) != "TCP:" || string(words[len(words)-2]) != "mem" {
			continue
		}
		pages, err := strconv.ParseInt(string(words[len(words)-1]), 10, 64)
		return pages * int64(os.Getpagesize()), err
	}
	return 0, errors.New("/proc/net/sockstat does not tell the memory of TCP")
}

// stall opens connections and writes to each until no more is taken. It returns what it opened even with an error.
func stall(ctx context.Context, addr string, count int) ([]net.Conn, error) {
	var conns []net.Conn
	for range count {
		conn, err := net.Dial("tcp4", addr)
		if err != nil {
			return conns, err
		}
		conns = append(conns, conn)
		tcp := conn.(*net.TCPConn)
		if err := errors.Join(tcp.SetReadBuffer(stalledSocketBytes), tcp.SetWriteBuffer(stalledSocketBytes)); err != nil {
			return conns, err
		}
	}
	var writers sync.WaitGroup
	failed := make([]error, count)
	for i, conn := range conns {
		writers.Go(func() { failed[i] = writeUntilStalled(ctx, conn) })
	}
	writers.Wait()
	return conns, errors.Join(errors.Join(failed...), ctx.Err())
}

func writeUntilStalled(ctx context.Context, conn net.Conn) error {
	chunk := make([]byte, 16<<10)
	for written := 0; written < stalledBytes && ctx.Err() == nil; {
		if err := conn.SetWriteDeadline(time.Now().Add(stalledFor)); err != nil {
			return err
		}
		n, err := conn.Write(chunk)
		written += n
		if errors.Is(err, os.ErrDeadlineExceeded) && n == 0 {
			return nil
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return nil
}
