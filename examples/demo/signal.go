//go:build !windows

package main

import (
	"os"
	"syscall"
)

var stopSignal os.Signal = syscall.SIGTERM
