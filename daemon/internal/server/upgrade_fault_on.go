//go:build upgradefault && linux

package server

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// faultVariable says how a process that takes over is to fail, as in "adopted:panic": before it says so at a step, it hangs,
// exits, panics, is stopped or is killed. "protocol:0" has it speak another protocol.
const faultVariable = "ECHOD_UPGRADE_FAULT"

func fault() (step, how string) {
	step, how, _ = strings.Cut(os.Getenv(faultVariable), ":")
	return step, how
}

// atStep is where a test of upgrades has a process that takes over fail.
func atStep(name string) {
	step, how := fault()
	if step != name {
		return
	}
	switch how {
	case "hang":
		time.Sleep(time.Hour)
	case "exit":
		os.Exit(3)
	case "panic":
		panic("a fault for a test")
	case "stop":
		// This thread at once: a signal to the process may take it a moment, in which this goes on.
		runtime.LockOSThread()
		_ = unix.Tgkill(os.Getpid(), unix.Gettid(), syscall.SIGSTOP)
		runtime.UnlockOSThread()
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// ownProtocol is the protocol of upgrades that this process says it speaks.
func ownProtocol() int {
	if step, _ := fault(); step == "protocol" {
		return upgradeProtocol - 1
	}
	return upgradeProtocol
}
