package echotest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// startTimeout bounds how long a daemon may take to be ready, and in process to end. Machines of CI are slow.
	startTimeout = time.Minute
	// stopTimeout is how long a process may take to end before it is killed, unless options say otherwise.
	stopTimeout = 30 * time.Second
	// pipeTimeout is how long the output of a process that has ended is waited for, which one that it started may hold open.
	pipeTimeout = 5 * time.Second
)

// binaryVariable names the echod to run where options do not.
const binaryVariable = "ECHOD_BINARY"

// ProcessOptions are what a [Process] is to be. The zero value is an echod on free ports that keeps nothing on disk.
type ProcessOptions struct {
	// Binary is the path of the echod to run. Empty: the path in the environment variable ECHOD_BINARY, and where that is not
	// set, either, one is built for this test, which takes a second or two: [Build] builds one for many.
	Binary string
	// Flags are the flags of echod, such as "--state-dir=" + t.TempDir(). Without any, it takes gRPC and REST on free ports
	// of 127.0.0.1 and gRPC on a unix socket in Dir, keeps nothing on disk, and cuts open connections when it stops.
	// --ready-file is this package's own.
	Flags []string
	// Env are variables for echod, each as "NAME=value", besides those of the test. Of the latter it gets none that would set
	// a flag of echod (ECHOD_..., STATE_DIRECTORY). Flags are stronger.
	Env []string
	// Dir is where the socket and the ready file are. Empty: a temporary directory of its own, which is removed when the
	// test is over. The path of a socket may have some 100 bytes, so that t.TempDir() may be too long.
	Dir string
	// Prepare changes the command before it is started: its user, its directory, where its output goes. May be nil.
	Prepare func(*exec.Cmd)
	// StartTimeout is how long it may take to be ready. 0: one minute.
	StartTimeout time.Duration
	// StopTimeout is how long it may take to end once it was asked to, before it is killed, which fails the test. 0: 30
	// seconds. It should be longer than --drain-timeout.
	StopTimeout time.Duration
}

// Process is an echod in a process of its own. [StartProcess] starts it.
type Process struct {
	Client
	PID int

	t       TB
	options ProcessOptions
	command *exec.Cmd
	output  *output
	ended   chan struct{} // closed when it has ended, and all its output is there

	expected atomic.Bool // that it ends: the test has asked for it, or knows
	stopped  atomic.Bool // by Stop
}

// StartProcess runs echod until t is over, and returns when it is ready. Then it is stopped (SIGTERM) and, when it does not end
// in time, killed (SIGKILL). On Linux it is killed as well when the process of the test dies, by a signal or by the timeout of
// go test; elsewhere it would live on then.
//
// It has the network namespace of this process, also when the test has moved its thread to another: to run it elsewhere, have
// Prepare make it a command of "ip netns exec".
//
// The test fails with what the process wrote when it does not start, ends unasked, must be killed, or is stopped and ends with
// another exit code than 0. What it wrote goes to the log of a test that fails for any other reason, too.
func StartProcess(t TB, o ProcessOptions) *Process {
	t.Helper()
	p := &Process{t: t, options: o.filled(t), output: &output{}, ended: make(chan struct{})}
	readyFile := p.prepare()
	if err := p.start(); err != nil {
		t.Fatalf("cannot run echod: %v; ProcessOptions.Binary says which to run, or %s in the environment", err, binaryVariable)
	}
	t.Cleanup(p.end)
	p.awaitReady(readyFile)
	return p
}

// filled is o with what it leaves to us.
func (o ProcessOptions) filled(t TB) ProcessOptions {
	t.Helper()
	if o.StartTimeout == 0 {
		o.StartTimeout = startTimeout
	}
	if o.StopTimeout == 0 {
		o.StopTimeout = stopTimeout
	}
	if o.Dir == "" {
		o.Dir = tempDir(t)
	}
	if o.Binary == "" {
		o.Binary = os.Getenv(binaryVariable)
	}
	if o.Binary == "" {
		built, err := Build(tempDir(t))
		if err != nil {
			t.Fatalf("%v\nOr say which echod to run: in ProcessOptions.Binary, or in the environment as %s.", err, binaryVariable)
		}
		o.Binary = built
	}
	for _, path := range []*string{&o.Dir, &o.Binary} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			t.Fatalf("cannot tell where %s is: %v", *path, err)
		}
		*path = absolute
	}
	return o
}

// prepare makes the command, and answers where its ready file will be.
func (p *Process) prepare() string {
	p.t.Helper()
	o := p.options
	readyFile := filepath.Join(o.Dir, "ready")
	// One of a process that was killed would be taken for ours.
	if err := os.Remove(readyFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Fatalf("cannot remove the ready file of before: %v", err)
	}
	args := append(append([]string{}, o.Flags...), "--ready-file="+readyFile)
	p.command = exec.Command(o.Binary, args...)
	// Ours are in the environment: flags and variables of the test are stronger.
	p.command.Env = append(withoutSettings(os.Environ()), "ECHOD_GRPC_LISTEN=127.0.0.1:0", "ECHOD_HTTP_LISTEN=127.0.0.1:0",
		"ECHOD_SOCKET="+socketIn(o.Dir), "ECHOD_DRAIN_TIMEOUT=0s")
	p.command.Env = append(p.command.Env, o.Env...)
	p.command.Stdout, p.command.Stderr = p.output, p.output
	p.command.WaitDelay = pipeTimeout
	if o.Prepare != nil {
		o.Prepare(p.command)
	}
	endWithParent(p.command)
	return readyFile
}

// withoutSettings leaves out what would be a setting of echod.
func withoutSettings(environment []string) []string {
	var kept []string
	for _, variable := range environment {
		if name, _, _ := strings.Cut(variable, "="); !strings.HasPrefix(name, "ECHOD_") && name != "STATE_DIRECTORY" {
			kept = append(kept, variable)
		}
	}
	return kept
}

func socketIn(dir string) string {
	if runtime.GOOS == "windows" {
		return ""
	}
	return filepath.Join(dir, "echod.sock")
}

// start runs the command in a goroutine that ends with it. That goroutine keeps its thread: the parent that Linux kills the
// process with is the thread which started it, not the process that the thread belongs to.
func (p *Process) start() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.command.Start()
		started <- err
		if err != nil {
			return
		}
		_ = p.command.Wait() // ProcessState tells
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return err
	}
	p.PID = p.command.Process.Pid
	return nil
}

// awaitReady returns when the process is ready, and ends the test when it ends or takes too long.
func (p *Process) awaitReady(path string) {
	p.t.Helper()
	timeout := time.After(p.options.StartTimeout)
	for {
		if text, err := os.ReadFile(path); err == nil {
			var ready struct{ GRPC, HTTP, Socket string }
			if err := json.Unmarshal(text, &ready); err != nil {
				p.t.Fatalf("the ready file of echod is no JSON: %v: %s", err, text)
			}
			p.open(p.t, ready.GRPC, ready.HTTP, ready.Socket)
			return
		}
		select {
		case <-p.ended:
			p.expected.Store(true)
			p.t.Fatalf("echod ended before it was ready: %v\n%s", p.command.ProcessState, p.output.block())
		case <-timeout:
			p.t.Fatalf("echod is not ready after %v: it wrote no ready file %s\n%s", p.options.StartTimeout, path, p.output.block())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Stop asks the process to end (SIGTERM), waits until it has, and kills it when it takes longer than StopTimeout. Once it has
// ended, Stop does nothing. On Windows, which knows no such signal, it is killed at once.
//
// It fails the test when the process had ended unasked, must be killed, or ends with another exit code than 0.
func (p *Process) Stop() {
	p.t.Helper()
	if p.stopped.Swap(true) {
		return
	}
	p.close()
	select {
	case <-p.ended:
		if !p.expected.Load() {
			p.t.Errorf("echod (process %d) ended before the test did: %v\n%s", p.PID, p.command.ProcessState, p.output.block())
		}
		return
	default:
	}
	p.expected.Store(true)
	if err := stopProcess(p.command.Process); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("cannot stop echod (process %d): %v", p.PID, err)
	}
	select {
	case <-p.ended:
		if code := p.command.ProcessState.ExitCode(); code != 0 && runtime.GOOS != "windows" {
			p.t.Errorf("echod (process %d) did not end well: %v\n%s", p.PID, p.command.ProcessState, p.output.block())
		}
	case <-time.After(p.options.StopTimeout):
		p.Kill()
		p.t.Errorf("echod (process %d) did not end within %v after SIGTERM, and was killed\n%s", p.PID, p.options.StopTimeout, p.output.block())
	}
}

// Kill ends the process at once (SIGKILL), as a crash or the kernel would, and waits until it is gone.
func (p *Process) Kill() {
	p.t.Helper()
	p.expected.Store(true)
	if err := p.command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("cannot kill echod (process %d): %v", p.PID, err)
		return
	}
	<-p.ended
}

// Signal sends the process a signal. That it ends by it is the test's to see, by Wait.
func (p *Process) Signal(s os.Signal) {
	p.t.Helper()
	p.expected.Store(true)
	if err := p.command.Process.Signal(s); err != nil {
		p.t.Fatalf("cannot send %v to echod (process %d): %v", s, p.PID, err)
	}
}

// Wait waits for the process to end, for StopTimeout at most, and answers its exit code, -1 when it was ended by a signal. The
// test fails when it does not end, and then only: how it ends is the caller's to judge.
func (p *Process) Wait() int {
	p.t.Helper()
	p.expected.Store(true)
	select {
	case <-p.ended:
	case <-time.After(p.options.StopTimeout):
		p.t.Fatalf("echod (process %d) does not end: waited for %v\n%s", p.PID, p.options.StopTimeout, p.output.block())
	}
	return p.command.ProcessState.ExitCode()
}

// Ended returns a channel that closes when the process has ended. It may be called from any goroutine.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Output is what the process has written to standard output and standard error: all of it, or the last mebibyte and a word on
// how much is missing. It may be called from any goroutine.
func (p *Process) Output() string { return p.output.String() }

// String tells which process it is, for messages.
func (p *Process) String() string { return fmt.Sprintf("%s (process %d)", p.options.Binary, p.PID) }

// end is what the end of the test does.
func (p *Process) end() {
	p.t.Helper()
	p.Stop()
	p.output.report(p.t)
}
