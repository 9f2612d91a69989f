// Command echoctl is the client of echod at the command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/echod/echod/ctl/internal/cli"
)

// exitInterrupted is what shells show of a program that Ctrl-C ended.
const exitInterrupted = 130

// main ends cli.Run's context at the first Ctrl-C, which lets a probe finish with its summary, and the process at the
// second, unless the run takes signals itself.
func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	var taken atomic.Bool
	go func() {
		for pressed := 0; ; {
			<-signals
			if taken.Load() {
				continue
			}
			if pressed++; pressed > 1 {
				os.Exit(exitInterrupted)
			}
			cancel()
		}
	}()
	env := cli.SystemEnv()
	env.TakeSignals = func() { taken.Store(true) }
	os.Exit(cli.Run(ctx, env, os.Args[1:]))
}
