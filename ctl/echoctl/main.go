// Command echoctl is the client of echod at the command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/echod/echod/ctl/internal/cli"
)

// exitInterrupted is what shells show of a program that Ctrl-C ended.
const exitInterrupted = 130

// main ends cli.Run's context at the first Ctrl-C, which lets a probe finish with its summary, and the process at the
// second.
func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(exitInterrupted)
	}()
	os.Exit(cli.Run(ctx, cli.SystemEnv(), os.Args[1:]))
}
