//go:build !windows

package main

import "syscall"

var stopSignal = syscall.SIGTERM
