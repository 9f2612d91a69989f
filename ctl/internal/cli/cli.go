// Package cli is echoctl: its commands, flags, messages and exit codes. It owns the conversation with a daemon through
// the public contract and with the user through standard output (data, written by package render) and standard error
// (talk). It keeps no state between runs and knows nothing of the daemon's inside. Only echoctl's main may call it.
package cli

import (
	"context"
	"io"
	"os"

	"golang.org/x/term"
)

// Version is what `echoctl version` says; a build sets it by
// -ldflags "-X github.com/echod/echod/ctl/internal/cli.Version=1.2.3".
var Version = "dev"

// Env is what a run of echoctl takes from the system around it.
type Env struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// LookupEnv finds environment variables, as os.LookupEnv does.
	LookupEnv func(key string) (string, bool)
	// Terminal tells that Stdout is one: colours, and a line for each round trip of a probe.
	Terminal bool
	// Width is the terminal's in columns; 0 is unknown.
	Width int
	// StderrTerminal tells that Stderr is one: a line that shows how far a probe is. StderrWidth is as Width.
	StderrTerminal bool
	StderrWidth    int
	// TakeSignals is called, if it is not nil, by a command that hands signals on: from then on they end neither the run's
	// context nor the process.
	TakeSignals func()
	// StdinTerminal tells that Stdin is one: there is somebody who can be asked.
	StdinTerminal bool
	// Root tells that the user is root, whose daemon has its socket elsewhere.
	Root bool
}

// SystemEnv is the environment of this process.
func SystemEnv() Env {
	env := Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		LookupEnv: os.LookupEnv, Root: os.Geteuid() == 0,
	}
	fd := int(os.Stdout.Fd())
	if term.IsTerminal(fd) && enableColors(os.Stdout) {
		env.Terminal = true
		// Without a width nothing is cut.
		env.Width, _, _ = term.GetSize(fd)
	}
	if fd = int(os.Stderr.Fd()); term.IsTerminal(fd) {
		env.StderrTerminal = true
		env.StderrWidth, _, _ = term.GetSize(fd)
	}
	env.StdinTerminal = term.IsTerminal(int(os.Stdin.Fd()))
	return env
}

// Run runs echoctl with args (without the program's name) and answers its exit code. When ctx ends, a probe that is
// followed is stopped and its summary written; all else is given up.
func Run(ctx context.Context, env Env, args []string) int {
	a := &app{env: env}
	defer a.close()
	root := newRootCommand(a)
	// cobra takes nil for "look at os.Args".
	root.SetArgs(append([]string{}, args...))
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	return a.finish(cmd, err)
}
