package server

import (
	"io"
	"strings"

	"github.com/echod/echod/daemon/internal/rpc"
	"github.com/echod/echod/daemon/internal/store"
)

// CheckState is a process of its own that looks at a state file, for Config.StateChecker: one that makes its reader hang or
// die does no harm there. It says on out what it found, and answers the exit code.
func CheckState(path string, out io.Writer) int { return store.VerifyMain(path, out) }

// openState opens the state directory, and notes what was found there. A state that is lost is no error: the daemon says so to
// whoever asks, instead of being started again and again.
func (d *daemon) openState() error {
	o := store.Options{AcceptDataLoss: d.config.AcceptDataLoss, Log: d.log}
	if command := d.config.StateChecker; len(command) > 0 {
		o.Verify = store.NewVerifier(command[0], command[1:]...)
	}
	opened, err := store.Open(d.config.StateDir, o)
	if err != nil {
		return err
	}
	d.state.is(opened)
	d.stateReport = opened.Report()
	return nil
}

// lookAtState has readiness say how the state file is, and was when it was opened.
func (d *daemon) lookAtState(warnings []string) {
	d.stateWarnings = warnings
	d.lookout.store, d.lookout.damaged = d.state.Health, strings.Join(warnings, "; ")
}

// startAfter is what clients are told of the daemon before this one.
func startAfter(last store.LastRun) rpc.Start {
	switch last {
	case store.First:
		return rpc.StartFirst
	case store.Stopped:
		return rpc.StartStopped
	case store.Crashed:
		return rpc.StartCrashed
	default:
		return rpc.StartUnknown
	}
}
