//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/echod/echod/bench/internal/many"
	"github.com/echod/echod/bench/internal/proc"
)

const (
	// askBefore connections are opened and closed first: what a server makes once is no connection's.
	askBefore = 64
	// echoWithin is how long one echo may take.
	echoWithin = 10 * time.Second
	// endpointsWithin is how long creating and changing all the endpoints may take.
	endpointsWithin = 2 * time.Minute
)

var idleServers = []string{ours, "c-epoll-64k", "go-net", "fortio", "asyncio"}

// endpointMemory measures what many endpoints of our own cost.
func endpointMemory(ctx context.Context, t *tools, s settings, count int) (Table, error) {
	table := Table{
		Title: fmt.Sprintf(endpointsCase+": %d of one echod on 127.0.0.1", count),
		Header: []string{"protocol", "created in", "memory each", "after a collection", "idle CPU in 1 s",
			"add p50", "add p99", "remove p50", "remove p99", "stats of all"},
		Notes: []string{"Memory is what the resident set grew by, and what of it stays after a garbage collection; " +
			"the kernel's is not in it. Stats of all is reading the counters of each once."},
	}
	for _, protocol := range []string{"tcp", "udp"} {
		cost, err := measureEndpoints(ctx, t, s, protocol, count)
		if err != nil {
			return Table{}, err
		}
		table.Rows = append(table.Rows, []string{
			protocol, formatDuration(cost.Create), formatKiB(float64(cost.Grown) / float64(count)),
			formatKiB(float64(cost.Kept) / float64(count)), formatDuration(cost.IdleCPU),
			formatDuration(cost.AddP50), formatDuration(cost.AddP99),
			formatDuration(cost.RemoveP50), formatDuration(cost.RemoveP99), formatDuration(cost.ReadAll),
		})
	}
	return table, nil
}

func measureEndpoints(ctx context.Context, t *tools, s settings, protocol string, count int) (many.Cost, error) {
	argv := []string{t.paths["echoserver"], "-protocol", protocol, "-engine", s.engine, "-count", fmt.Sprint(count)}
	p, err := startProcess(argv)
	if err != nil {
		return many.Cost{}, err
	}
	defer p.stop()
	defer context.AfterFunc(ctx, p.kill)()
	line, err := p.line(endpointsWithin)
	if err != nil {
		return many.Cost{}, err
	}
	var cost many.Cost
	if err := json.Unmarshal([]byte(line), &cost); err != nil {
		return many.Cost{}, fmt.Errorf("the echo server said %q: %w", line, err)
	}
	return cost, nil
}

// connectionMemory measures what a server holds for each of count connections that echoed once and are silent then.
func connectionMemory(ctx context.Context, t *tools, s settings, count int) (Table, error) {
	table := Table{
		Title:  fmt.Sprintf(idleCase+": %d of one server", count),
		Header: []string{"server", "memory each"},
		Notes: []string{"Memory is what the server's resident set grew by after each connection echoed 64 B once; " +
			"the kernel's is not in it."},
	}
	for _, name := range idleServers {
		server, err := findServer(name)
		if err != nil {
			return Table{}, err
		}
		if !s.wants(server) {
			continue
		}
		grown, err := idleConnections(ctx, t, server, s.engine, count)
		if ctx.Err() != nil {
			return Table{}, ctx.Err()
		}
		if err != nil {
			table.Notes = append(table.Notes, fmt.Sprintf("%s was not measured: %v", name, err))
			continue
		}
		table.Rows = append(table.Rows, []string{name, formatKiB(float64(grown) / float64(count))})
	}
	return table, nil
}

func idleConnections(ctx context.Context, t *tools, server Server, engine string, count int) (int64, error) {
	r, err := startServer(t, server, engine, "tcp", "127.0.0.1")
	if err != nil {
		return 0, err
	}
	defer r.stop()
	defer context.AfterFunc(ctx, r.kill)()

	first, err := openAndEcho(r.addr.String(), askBefore)
	closeConns(first)
	if err != nil {
		return 0, err
	}
	before, err := proc.Resident(r.pid())
	if err != nil {
		return 0, err
	}
	conns, err := openAndEcho(r.addr.String(), count)
	defer closeConns(conns)
	if err != nil {
		return 0, err
	}
	after, err := proc.Resident(r.pid())
	return after - before, err
}

// openAndEcho returns what it opened even with an error.
func openAndEcho(addr string, count int) ([]net.Conn, error) {
	var conns []net.Conn
	var buf [64]byte
	for range count {
		conn, err := net.Dial("tcp4", addr)
		if err != nil {
			return conns, err
		}
		conns = append(conns, conn)
		if err := echoOnce(conn, buf[:]); err != nil {
			return conns, err
		}
	}
	return conns, nil
}

func echoOnce(conn net.Conn, buf []byte) error {
	if err := conn.SetDeadline(time.Now().Add(echoWithin)); err != nil {
		return err
	}
	if _, err := conn.Write(buf); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, buf)
	return err
}

// closeConns resets them: ten thousand in TIME_WAIT would be in the way of what is measured next.
func closeConns(conns []net.Conn) {
	for _, conn := range conns {
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
}
