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
	// settledFor is how long the kernel's memory has to stay within settledPercent to be believed to stay there, and
	// settleWithin how long that is waited for.
	settledFor     = 400 * time.Millisecond
	settledPercent = 1
	settleWithin   = 8 * time.Second
	settleStep     = 50 * time.Millisecond
)

// honest is the load that a client with manners puts on the server, with the stalled peers and without.
var honest = load.Plan{Kind: load.PingPong, Conns: 16, Depth: 1, Size: 64}

// stalledPeers measures what our own server holds for peers that write and never read, and what others feel of them. A
// table comes with the errors of the others, too.
func stalledPeers(ctx context.Context, t *tools, s settings, count int) (Table, error) {
	table := Table{
		Title: fmt.Sprintf(stalledCase+": %d that write and never read, of one echod", count),
		Header: []string{"server", "memory each", "kernel memory each",
			"others' p50", "with them", "others' p99", "with them", "with/without"},
		Notes: []string{"Memory is what the server's resident set grew by; kernel memory what all TCP sockets of this network " +
			"namespace grew by, the clients' small ones included; the others are 16 connections in ping-pong of 64 B, in as " +
			"many rounds before as with them; with/without divides the medians of p99, which are not paired."},
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
	without := askHonestly(ctx, plan, s.rounds)
	memory, kernel, err := heldBy(r)
	if err != nil {
		return Table{}, err
	}
	conns, err := stall(ctx, r.addr.String(), count)
	defer closeConns(conns)
	if err != nil {
		return Table{}, err
	}
	settled, err := awaitSettled(ctx, tcpMemory)
	if err != nil {
		return Table{}, err
	}
	if !settled {
		table.Notes = append(table.Notes, fmt.Sprintf("Kernel memory had not settled after %v.", settleWithin))
	}
	memoryThen, kernelThen, err := heldBy(r)
	if err != nil {
		return Table{}, err
	}
	with := askHonestly(ctx, plan, s.rounds)

	each := func(grown int64) string { return formatKiB(float64(grown) / float64(count)) }
	table.Rows = [][]string{append([]string{ours, each(memoryThen - memory), each(kernelThen - kernel)},
		feltBy(without.samples, with.samples)...)}
	table.Notes = append(table.Notes, troubles(without)...)
	for _, trouble := range troubles(with) {
		table.Notes = append(table.Notes, "with them, "+trouble)
	}
	return table, errors.Join(append(failures(Case{Name: "before"}, []*measured{without}),
		failures(Case{Name: "with them"}, []*measured{with})...)...)
}

// askHonestly gives our server so many turns of a load.
func askHonestly(ctx context.Context, plan load.Plan, rounds int) *measured {
	m := &measured{server: Server{Name: ours}}
	for range rounds {
		result, err := runLoad(ctx, plan)
		m.samples = append(m.samples, sample{Result: result, err: err})
		if ctx.Err() != nil {
			break
		}
	}
	return m
}

// feltBy is what the stalled peers do to others: p50 and p99, each without them and with them, and how p99 changed.
func feltBy(without, with []sample) []string {
	p50 := column{of: sample.p50, format: formatSeconds}
	p99 := column{of: sample.p99, format: formatSeconds}
	change := unknown
	if before, then := valuesOf(without, p99.of), valuesOf(with, p99.of); len(before) > 0 && len(then) > 0 {
		change = formatEstimate(estimateQuotient(then, before))
	}
	return []string{p50.median(without), p50.median(with), p99.median(without), p99.median(with), change}
}

// awaitSettled returns when what read tells has stayed the same for a while, and reports false if it does not.
func awaitSettled(ctx context.Context, read func() (int64, error)) (bool, error) {
	was, since := int64(-1), time.Now()
	for began := time.Now(); time.Since(began) < settleWithin; {
		is, err := read()
		if err != nil {
			return false, err
		}
		if max(is-was, was-is)*100 > was*settledPercent {
			was, since = is, time.Now()
		} else if time.Since(since) >= settledFor {
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(settleStep):
		}
	}
	return false, nil
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
	chunk := make([]byte, 16<<10)
	for i, conn := range conns {
		writers.Go(func() { failed[i] = writeUntilStalled(ctx, conn, chunk) })
	}
	writers.Wait()
	return conns, errors.Join(errors.Join(failed...), ctx.Err())
}

func writeUntilStalled(ctx context.Context, conn net.Conn, chunk []byte) error {
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
