package echotest

import (
	"context"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/echod/echod/daemon/internal/server"
)

// DaemonOptions are what a [Daemon] is to be. The zero value is a daemon on free ports that keeps nothing on disk.
type DaemonOptions struct {
	// StateDir is where endpoints and monitors are kept, for a daemon that is to be stopped and started again. Empty: in
	// memory only. t.TempDir() makes a good one.
	StateDir string
	// DefaultHost is the IP address where endpoints listen that do not say. Empty: 127.0.0.1.
	DefaultHost string
	// DrainTimeout is how long Stop and the end of the test wait for open connections. 0: they are cut.
	DrainTimeout time.Duration
	// ProbeAllow and ProbeDeny are addresses and prefixes that probes may and may not go to, as --probe-allow and
	// --probe-deny. Probes have no other limits.
	ProbeAllow, ProbeDeny []string
}

// Daemon is a daemon in the process of the test. [StartDaemon] starts it.
type Daemon struct {
	Client

	t      TB
	output *output
	cancel context.CancelFunc
	ended  chan struct{} // closed when it has ended
	err    error         // why, once it has

	stopped atomic.Bool
}

// StartDaemon runs a daemon in this process until t is over. It takes gRPC and REST on free ports of 127.0.0.1 and, except on
// Windows, gRPC on a unix socket; it is ready when StartDaemon returns.
//
// A daemon that ends before the test does, or does not end well, fails the test. What it logs is kept, and goes to the log of
// a test that failed. A gRPC log of its own it has none: package grpclog is left as the test has it.
func StartDaemon(t TB, o DaemonOptions) *Daemon {
	t.Helper()
	if o.DefaultHost == "" {
		o.DefaultHost = "127.0.0.1"
	}
	d := &Daemon{t: t, output: &output{}, ended: make(chan struct{})}
	ready := make(chan server.Ready, 1)
	config := server.Config{
		GRPCListen: "127.0.0.1:0", HTTPListen: "127.0.0.1:0", StateDir: o.StateDir, DefaultHost: o.DefaultHost,
		DrainTimeout: o.DrainTimeout, ProbeAllow: o.ProbeAllow, ProbeDeny: o.ProbeDeny,
		OnReady: func(r server.Ready) { ready <- r },
		Log:     slog.New(slog.NewTextHandler(d.output, nil)),
	}
	if runtime.GOOS != "windows" {
		config.Socket = filepath.Join(tempDir(t), "echod.sock")
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	go func() {
		defer close(d.ended)
		defer cancel()
		d.err = server.Run(ctx, config)
	}()
	t.Cleanup(d.end)
	select {
	case r := <-ready:
		d.open(t, r.GRPC, r.HTTP, r.Socket)
	case <-d.ended:
		d.stopped.Store(true)
		t.Fatalf("the daemon of the test does not start: %v\n%s", d.err, d.output.block())
	case <-time.After(startTimeout):
		t.Fatalf("the daemon of the test is not ready after %v", startTimeout)
	}
	return d
}

// Stop ends the daemon as SIGTERM ends echod, and waits until it has ended. It fails the test when the daemon has ended before,
// or does not end well. Once it has ended, Stop does nothing. The test's end calls it, too.
//
// To start another in its place, with what it kept, give both the same StateDir.
func (d *Daemon) Stop() {
	d.t.Helper()
	if d.stopped.Swap(true) {
		return
	}
	d.close()
	select {
	case <-d.ended:
		d.t.Errorf("the daemon of the test ended before the test did: %v", d.err)
		return
	default:
	}
	d.cancel()
	select {
	case <-d.ended:
		if d.err != nil {
			d.t.Errorf("the daemon of the test did not end well: %v", d.err)
		}
	case <-time.After(startTimeout):
		d.t.Errorf("the daemon of the test does not end: it was asked to %v ago", startTimeout)
	}
}

// Output is what the daemon has logged: all of it, or the last mebibyte and a word on how much is missing.
func (d *Daemon) Output() string { return d.output.String() }

// end is what the end of the test does.
func (d *Daemon) end() {
	d.t.Helper()
	d.Stop()
	d.output.report(d.t)
}
