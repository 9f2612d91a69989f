//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// upgradeSignals catches the signal that upgrades the daemon, from its return on. Two that come together are one.
func upgradeSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR2)
	return signals
}
