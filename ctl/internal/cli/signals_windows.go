package cli

import (
	"os"
	"syscall"
)

// handedOn are the signals that this process outlives while a command of ours runs.
var handedOn = []os.Signal{os.Interrupt, syscall.SIGTERM}

// fromTerminal is always true: Windows gives Ctrl-C to every process of a console, and no process to another.
func fromTerminal(os.Signal) bool { return true }
