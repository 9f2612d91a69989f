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

	"github.com/spf13/pflag"

	"github.com/echod/echod/daemon/internal/server"
)

// Exit codes: done, failed, wrong usage.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run(os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr)) }

func run(args []string, lookup lookupEnv, stdout, stderr io.Writer) int {
	settings, err := load(args, lookup)
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
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// Whoever read our log may go away; that is no reason to end.
	signal.Ignore(syscall.SIGPIPE)
	go endOnSignal(stopSignals(), cancel, stderr)
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

// endOnSignal drains at the first signal and ends the process at the second. It lives as long as the process.
func endOnSignal(signals <-chan os.Signal, drain func(), stderr io.Writer) {
	<-signals
	drain()
	<-signals
	fmt.Fprintln(stderr, "echod: second signal, ending at once")
	os.Exit(exitFailed)
}
