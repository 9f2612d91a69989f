package handover

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// variable names the descriptor of the link in the environment of the process that is to take over.
const variable = "ECHOD_UPGRADE_FD"

// CanUpgrade says whether processes can hand over to each other on this system.
const CanUpgrade = runtime.GOOS == "linux"

// OwnPath is where this process's binary was started from, for what lies there later. It is to be asked for at the start: a
// relative path means something else when the directory is another, and the system calls a binary that was replaced "(deleted)".
//
// A symbolic link stays one, so that it can be pointed at another version.
func OwnPath() (string, error) {
	running, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("cannot tell where this binary was started from: %w", err)
	}
	running = strings.TrimSuffix(running, " (deleted)")
	named, err := exec.LookPath(os.Args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return running, nil // whoever started us gave another name
	}
	if named, err = filepath.Abs(named); err != nil {
		return running, nil //nolint:nilerr // likewise
	}
	if !isSameFile(named, running) {
		return running, nil
	}
	return named, nil
}

// isSameFile says whether two paths lead to one file, as far as can be told.
func isSameFile(one, other string) bool {
	a, err := os.Stat(one)
	if err != nil {
		return false
	}
	b, err := os.Stat(other)
	return err == nil && os.SameFile(a, b)
}

// Successor is the process that is to take over. Its end is noticed at the link, too.
type Successor struct {
	*Link
	command *exec.Cmd
	ended   chan struct{} // closed when it has ended
}

// StartSuccessor starts the binary at path with this process's arguments, environment, standard output and standard error, and
// more of the environment, as "NAME=value".
func StartSuccessor(path string, more []string) (*Successor, error) {
	link, theirs, err := newLinks()
	if err != nil {
		return nil, err
	}
	command := exec.Command(path)
	command.Args = append([]string{path}, os.Args[1:]...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.ExtraFiles = []*os.File{theirs}
	command.Env = append(append(environment(), more...), variable+"=3")
	err = command.Start()
	err = errors.Join(err, theirs.Close())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot start %s: %w", path, err), link.Close())
	}
	s := &Successor{Link: link, command: command, ended: make(chan struct{})}
	go func() {
		_ = command.Wait() // ProcessState tells
		close(s.ended)
	}()
	return s, nil
}

// environment is ours without what is of this process alone.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		// The service manager's watchdog would be that of another process; without the variable it is everybody's.
		return name == variable || name == "WATCHDOG_PID"
	})
}

// PID is its process id.
func (s *Successor) PID() int { return s.command.Process.Pid }

// Ended is closed when it has ended; End says how, from then on.
func (s *Successor) Ended() <-chan struct{} { return s.ended }

// End says how it has ended.
func (s *Successor) End() string { return s.command.ProcessState.String() }

// Kill ends it at once. When it returns, the process is gone, and with it all that it was handed; what it said before can still
// be received.
func (s *Successor) Kill() {
	_ = s.command.Process.Kill() // it may have ended
	<-s.ended
}

// Predecessor answers the link to the process that this one is to take over from; nil: it was started by somebody else. It is
// to be called once, at the start.
func Predecessor() (*Link, error) {
	text, there := os.LookupEnv(variable)
	if !there {
		return nil, nil
	}
	_ = os.Unsetenv(variable) // what we start has none
	fd, err := strconv.ParseUint(text, 10, 16)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s=%q: is for an echod that starts another; unset it", variable, text)
	}
	link, err := newLink(os.NewFile(uintptr(fd), "upgrade"))
	if err != nil {
		return nil, fmt.Errorf("%s=%q: is for an echod that starts another; unset it: %w", variable, text, err)
	}
	return link, nil
}
