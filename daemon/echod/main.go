// Command echod hosts TCP and UDP echo endpoints that are created while it runs, and probes them or any echo server,
// under one contract for gRPC and REST.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/echod/echod/daemon/internal/handover"
	"github.com/echod/echod/daemon/internal/server"
)

// Exit codes: done, failed, wrong usage.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// checkState is the first argument of an echod that another one starts to look at a state file, whose path is the second.
const checkState = "verify-state"

// stateChecker is this binary with checkState. A test is another binary, which would run itself again and again.
var stateChecker []string

func main() {
	if len(os.Args) == 3 && os.Args[1] == checkState {
		os.Exit(server.CheckState(os.Args[2], os.Stdout))
	}
	if self, err := os.Executable(); err == nil {
		stateChecker = []string{self, checkState}
	}
	os.Exit(run(os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr))
}

func run(args []string, lookup lookupEnv, stdout, stderr io.Writer) int {
	// Who hands over to us wants to know why we cannot take over, whatever is wrong.
	predecessor, err := handover.Predecessor()
	if err != nil {
		fmt.Fprintf(stderr, "echod: %v\n", err)
		return exitUsage
	}
	settings, err := load(args, lookup)
	if predecessor != nil && err != nil {
		_ = predecessor.Refuse(err)
	}
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprint(stdout, settings.usage())
		return exitDone
	case err != nil:
		fmt.Fprintf(stderr, "echod: %v\nSee echod --help.\n", err)
		return exitUsage
	case settings.version:
		fmt.Fprintln(stdout, "echod", server.Version)
		return exitDone
	}
	manager, err := server.ServiceManager()
	if err != nil {
		fmt.Fprintf(stderr, "echod: %v\n", err)
		return exitFailed
	}
	server.DiscardGRPCLog()
	config := settings.config
	config.Manager = manager
	config.Log = slog.New(settings.logHandler(stderr))
	config.Predecessor = predecessor
	if handover.CanUpgrade {
		if config.Executable, err = handover.OwnPath(); err != nil {
			fmt.Fprintf(stderr, "echod: %v\n", err)
			return exitFailed
		}
	}
	config.UpgradeSignal = upgradeSignals()
	config.StateChecker = stateChecker
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// Whoever read our log may go away; that is no reason to end.
	signal.Ignore(syscall.SIGPIPE)
	cut := make(chan struct{})
	config.CutDrain = cut
	go endOnSignal(stopSignals(), cancel, func() { close(cut) }, stderr)
	if err := server.Run(ctx, config); err != nil {
		fmt.Fprintf(stderr, "echod: %v\n", err)
		return exitFailed
	}
	return exitDone
}

// stopSignals catches the signals that end the daemon, from its return on. A terminal that is closed ends it as Ctrl-C
// does, unless it was started to outlive it (nohup).
func stopSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	return signals
}

// cutPatience is how long a stop may take once it waits for nothing more.
const cutPatience = 5 * time.Second

// endOnSignal drains at the first signal, and at the second cuts what is open: that is a stop in order, too. Where even that
// does not end, and at a third signal, the process does. It lives as long as the process.
func endOnSignal(signals <-chan os.Signal, drain, cut func(), stderr io.Writer) {
	<-signals
	drain()
	<-signals
	fmt.Fprintln(stderr, "echod: second signal, cutting what is open")
	cut()
	select {
	case <-signals:
		fmt.Fprintln(stderr, "echod: third signal, ending at once")
	case <-time.After(cutPatience):
		fmt.Fprintf(stderr, "echod: not stopped in %v, ending at once\n", cutPatience)
	}
	os.Exit(exitFailed)
}
