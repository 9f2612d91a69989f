//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	// probeInterval is the time between two round trips where a case does not say.
	probeInterval = time.Millisecond
	// spinArgument, as the only one, makes this program keep a processor busy until its standard input closes.
	spinArgument = "spin"
	// irttClient is that of the clients that speaks to a server of its own.
	irttClient = "irtt"
	// stampClient is the client in C, by whose kernel times the others are judged.
	stampClient = "c-stamps"
)

// ProbeCase is round trips that several clients time on the same path, in turns.
type ProbeCase struct {
	Name     string
	Title    string
	Protocol string
	Size     int
	Cable    bool          // between two network namespaces, with a processor for each, instead of over the loopback
	Busy     bool          // another process takes what it gets of a processor
	Interval time.Duration // between two round trips; 0: probeInterval
}

func (c ProbeCase) interval() time.Duration { return cmp.Or(c.Interval, probeInterval) }

var probeCases = []ProbeCase{
	{Name: "probe-udp-64B", Title: "UDP round trips of 64 B over the loopback", Protocol: "udp", Size: 64},
	{Name: "probe-udp-1200B", Title: "UDP round trips of 1200 B over the loopback", Protocol: "udp", Size: 1200},
	{Name: "probe-tcp-64B", Title: "TCP round trips of 64 B over the loopback", Protocol: "tcp", Size: 64},
	{Name: "probe-tcp-1200B", Title: "TCP round trips of 1200 B over the loopback", Protocol: "tcp", Size: 1200},
	{Name: "probe-udp-cable", Title: "UDP round trips of 64 B between two namespaces, each on its own processor",
		Protocol: "udp", Size: 64, Cable: true},
	{Name: "probe-tcp-cable", Title: "TCP round trips of 64 B between two namespaces, each on its own processor",
		Protocol: "tcp", Size: 64, Cable: true},
	{Name: "probe-udp-seldom", Title: "UDP round trips of 64 B over the loopback, one in 10 ms", Protocol: "udp", Size: 64,
		Interval: 10 * time.Millisecond},
	{Name: "probe-udp-busy", Title: "UDP round trips of 64 B over the loopback, beside a process that computes",
		Protocol: "udp", Size: 64, Busy: true},
	{Name: "probe-tcp-busy", Title: "TCP round trips of 64 B over the loopback, beside a process that computes",
		Protocol: "tcp", Size: 64, Busy: true},
}

// probeClient is a client to be measured.
type probeClient struct {
	name    string
	program string
	// views are what is shown of it: the times of the kernel, and those of its process.
	network, application string
	// number reads the number of a round, from 0, out of its payload; nil: the client is not set beside a capture.
	number func(payload []byte) (int, bool)
}

var probeClients = []probeClient{
	{name: stampClient, program: "stamp_client", network: "C, the kernel's time", application: "C, the process's time",
		number: stampNumber},
	{name: ours, program: "probeclient", network: "echod, network", application: "echod, application",
		number: ourNumber},
	{name: "go-net", program: "netclient", application: "Go's package net"},
	{name: irttClient, program: "irtt", application: "irtt, to its own server"},
}

// clients are those that can speak the protocol.
func (c ProbeCase) clients() []probeClient {
	if c.Protocol == "udp" {
		return probeClients
	}
	return probeClients[:len(probeClients)-1]
}

// server is the echo server that all but irtt talk to.
func (c ProbeCase) server() string {
	if c.Protocol == "udp" {
		return "c-mmsg"
	}
	return "c-epoll-64k"
}

// programs are those that the case needs.
func (c ProbeCase) programs() []string {
	needed := []string{"tcp_epoll"}
	if c.Protocol == "udp" {
		needed[0] = "udp_mmsg"
	}
	for _, k := range c.clients() {
		needed = append(needed, k.program)
	}
	return needed
}

// probed is what a case showed of a client. A turn that failed has no round trips.
type probed struct {
	probeClient
	asked   int // round trips in a turn
	turns   []roundTrips
	wrong   error // what failed last
	missing error // why there are no turns
	// In blind turns there was no capture of the packets, the last time for the reason unseen.
	blind  int
	unseen error
}

// probePath is where the ends of a probe are.
type probePath struct {
	address        string // of the server
	device         string // of the client
	client, server place
}

// task is what a client does in each of its turns.
type task struct {
	command []string
	server  netip.AddrPort
}

// runProbes gives each client its turn in every round.
func runProbes(ctx context.Context, t *tools, c ProbeCase, s settings) (_ []*probed, err error) {
	where := probePath{address: "127.0.0.1", device: "lo"}
	if c.Cable {
		made, err := newCable(ctx)
		if err != nil {
			return nil, err
		}
		defer made.close()
		where = probePath{
			address: serverAddress,
			device:  cableDevice,
			client:  place{namespace: made.client, pinned: true, processor: min(1, runtime.NumCPU()-1)},
			server:  place{namespace: made.server, pinned: true},
		}
	}
	if c.Busy {
		stop, err := spin()
		if err != nil {
			return nil, err
		}
		defer stop()
	}
	var all, able []*probed
	tasks := map[*probed]task{}
	echo, err := startEcho(t, c, where)
	if err != nil {
		return nil, err
	}
	defer echo.stop()
	for _, k := range c.clients() {
		p := &probed{probeClient: k, asked: c.count(s) - c.warmCount(s)}
		all = append(all, p)
		target := echo.addr
		if k.name == irttClient {
			server, err := startIrtt(t, where)
			if err != nil {
				p.missing = err
				continue
			}
			defer server.stop()
			target = server.addr
		}
		command, err := t.probeCommand(c, k, s, target)
		if err != nil {
			p.missing = err
			continue
		}
		tasks[p] = task{command: command, server: target}
		able = append(able, p)
	}
	for round := range s.rounds {
		for _, i := range order(len(able), round) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			able[i].turn(ctx, c, tasks[able[i]], where, s)
		}
	}
	return all, ctx.Err()
}

func startEcho(t *tools, c ProbeCase, where probePath) (r *running, err error) {
	server, err := findServer(c.server())
	if err != nil {
		return nil, err
	}
	err = where.server.do(func() error {
		r, err = startServer(t, server, "", c.Protocol, where.address)
		return err
	})
	return r, err
}

// listening is the line that irtt prints of the address it has bound.
var listening = regexp.MustCompile(`listener on (\S+)$`)

// startIrtt starts irtt's server.
func startIrtt(t *tools, where probePath) (r *running, err error) {
	program, ok := t.paths["irtt"]
	if !ok {
		return nil, errors.New(t.missing["irtt"])
	}
	var p *process
	err = where.server.do(func() error {
		p, err = startProcess([]string{program, "server", "-b", where.address + ":0", "-i", "0"})
		return err
	})
	if err != nil {
		return nil, err
	}
	for range 4 { // what it says before that is little
		line, err := p.line(startWithin)
		if err != nil {
			p.stop()
			return nil, err
		}
		if found := listening.FindStringSubmatch(line); found != nil {
			addr, err := netip.ParseAddrPort(found[1])
			if err != nil {
				p.stop()
				return nil, err
			}
			return &running{process: p, addr: addr}, nil
		}
	}
	p.stop()
	return nil, errors.New("irtt does not say where it listens")
}

// warmCount is how many round trips of a turn are not looked at, and count how many there are in all.
func (c ProbeCase) warmCount(s settings) int { return int(s.warm / c.interval()) }
func (c ProbeCase) count(s settings) int     { return c.warmCount(s) + max(1, int(s.trial/c.interval())) }

// probeCommand is the command line of a client.
func (t *tools) probeCommand(c ProbeCase, k probeClient, s settings, target netip.AddrPort) ([]string, error) {
	program, ok := t.paths[k.program]
	if !ok {
		return nil, fmt.Errorf("%s: %s", k.program, t.missing[k.program])
	}
	size, count := strconv.Itoa(c.Size), strconv.Itoa(c.count(s))
	switch k.name {
	case stampClient:
		return []string{program, c.Protocol, target.Addr().String(), strconv.Itoa(int(target.Port())), size, count,
			strconv.FormatInt(c.interval().Nanoseconds(), 10)}, nil
	case irttClient:
		lasting := time.Duration(c.count(s)) * c.interval()
		// Without the server's times: from those it would take the time out that the packet was in the server, which the
		// others measure, too.
		return []string{program, "client", "-i", c.interval().String(), "-d", lasting.String(), "-l", size,
			"--stats=none", "--tstamp=none", "--wait=200ms", "-Q", "-o", "-", target.String()}, nil
	default:
		return []string{program, c.Protocol, target.String(), size, count, c.interval().String()}, nil
	}
}

// turn runs the client once. Every client has a capture in its turns, which costs all of them the same.
func (p *probed) turn(ctx context.Context, c ProbeCase, t task, where probePath, s settings) {
	var watch *capture
	unseen := where.client.do(func() (err error) {
		watch, err = newCapture(where.device, c.Protocol, t.server, c.count(s))
		return err
	})
	if unseen == nil {
		defer watch.close()
	}
	text, err := outputAt(ctx, where.client, t.command, s.warm+s.trial+loadGrace)
	var seen roundTrips
	if err == nil && p.name == irttClient {
		seen, err = parseIrtt(text, c.warmCount(s), c.interval())
	} else if err == nil {
		seen, err = parseClient(text, c.warmCount(s))
	}
	if err != nil {
		p.wrong = err
	}
	if err == nil && p.number != nil {
		var captured map[int]time.Duration
		if unseen == nil {
			captured, unseen = watch.trips(c.Size, p.number)
		}
		if unseen != nil {
			p.unseen = unseen
			p.blind++
		}
		seen.compare(captured)
	}
	p.turns = append(p.turns, seen)
}

// outputAt runs a command in a place and returns all that it prints. It is killed after a while.
func outputAt(ctx context.Context, where place, command []string, within time.Duration) (string, error) {
	var p *process
	err := where.do(func() (err error) {
		p, err = startProcess(command)
		return err
	})
	if err != nil {
		return "", err
	}
	spare := context.AfterFunc(ctx, p.kill)
	late := time.AfterFunc(within, p.kill)
	text, err := io.ReadAll(p.lines)
	spare()
	late.Stop()
	_ = p.stdin.Close()
	if err := errors.Join(err, p.cmd.Wait()); err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(command[0]), err, p.complaint)
	}
	return string(text), nil
}

// spin starts a process that computes, until stop is called.
func spin() (stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := startProcess([]string{self, spinArgument})
	if err != nil {
		return nil, err
	}
	return p.stop, nil
}

// beBusy keeps a processor busy until standard input closes.
func beBusy() {
	var over atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		over.Store(true)
	}()
	for !over.Load() {
		continue // that is all that it does
	}
}
