package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// What shells answer of a command that is found and cannot be run, and of one that is not found.
const (
	exitNotExecutable = 126
	exitNoCommand     = 127
	exitSignaled      = 128 // and the signal's number
)

// runCommand runs a command to its end, with more variables in its environment, and hands on the signals that come. Its
// error has the command's exit code. When ctx ends, that is a Ctrl-C for the command.
func (a *app) runCommand(ctx context.Context, args, variables []string) error {
	command := exec.Command(args[0], args[1:]...)
	command.Stdin, command.Stdout, command.Stderr = a.env.Stdin, a.env.Stdout, a.env.Stderr
	command.Env = environ(variables)
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, handedOn...)
	if a.env.TakeSignals != nil {
		a.env.TakeSignals() // for good: one that comes when the command has ended is to kill nobody who cleans up
	} else {
		defer signal.Stop(signals)
	}
	if err := command.Start(); err != nil {
		return a.cannotStart(args[0], err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	interrupted := ctx.Done()
	for {
		select {
		case s := <-signals:
			if !fromTerminal(s) {
				// A command that has ended meanwhile is told nothing.
				_ = command.Process.Signal(s)
			}
		case <-interrupted:
			interrupted = nil
			_ = command.Process.Signal(os.Interrupt)
		case err := <-ended:
			return a.commandError(args[0], command.ProcessState, err)
		}
	}
}

func (a *app) cannotStart(name string, err error) error {
	var found *exec.Error
	var path *fs.PathError
	switch {
	case errors.As(err, &found):
		err = found.Err
	case errors.As(err, &path):
		err = path.Err
	}
	a.talk("echoctl: cannot start %s: %v", name, err)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return &exitError{exitNoCommand}
	}
	return &exitError{exitNotExecutable}
}

// commandError is how a command ended, as an exit code.
func (a *app) commandError(name string, state *os.ProcessState, err error) error {
	if err == nil {
		return nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("%s: %w", name, err) // its output could not be copied
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return &exitError{exitSignaled + int(status.Signal())}
	}
	return &exitError{state.ExitCode()}
}
