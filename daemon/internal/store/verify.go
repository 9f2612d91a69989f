package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
)

// errCannotCheck says that no process could be started to look at a file: this says nothing of the file.
var errCannotCheck = errors.New("no check was made")

// verdict is what the checking process says, as JSON.
type verdict struct {
	Summary
	Kind    string `json:"kind,omitempty"`    // of problem: the keys of verdictKinds, or anything else
	Problem string `json:"problem,omitempty"` // none: the file is good
}

var verdictKinds = map[string]error{"damaged": ErrDamaged, "newer": ErrNewer, "in use": ErrInUse, "missing": fs.ErrNotExist}

// Check reads a state file and looks at everything in it: the meta pages, the checksum of each record, their number, and that
// they are all of the same time. Where nothing is wrong with the records, Flaws tells what is wrong with the pages they are in.
// A damaged file can make it hang, or end the process: NewVerifier. The errors are ErrDamaged, ErrNewer, ErrInUse,
// fs.ErrNotExist, or why the file cannot be read at all.
func Check(path string) (Summary, error) {
	return check(path, func(Summary) error { return nil })
}

// check is Check, which tells what it knows of the records before it looks at the pages: a page that says that it goes on for
// 4,294,967,295 others costs bbolt all the memory that there is, and says nothing of the records.
func check(path string, records func(Summary) error) (Summary, error) {
	m, err := read(path)
	if err != nil {
		return Summary{}, err
	}
	says := m.head
	if err := records(says); err != nil {
		return says, err
	}
	err = view(path, func(tx *bbolt.Tx) error {
		n := 0
		for flaw := range tx.Check() {
			if n++; n == 1 {
				says.Flaws = flaw.Error()
			}
		}
		if n > 1 {
			says.Flaws += fmt.Sprintf(", and %d more", n-1)
		}
		return nil
	})
	return says, err
}

// VerifyMain is the process that NewVerifier starts: it checks the file at path, says on out what it found of the records and, once
// more, of all, and answers the exit code. It has memory for an honest file of that size (limitMemory). It ends when standard
// input does, which is when its parent has gone, and only then: what tells a daemon to stop is also sent to its children, and a
// check that was broken off would look like damage.
func VerifyMain(path string, out io.Writer) int {
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	debug.SetMaxStack(64 << 20) // pages that lead to each other
	limitMemory(path)
	var v verdict
	var err error
	says := json.NewEncoder(out)
	if v.Summary, err = check(path, func(known Summary) error { return says.Encode(verdict{Summary: known}) }); err != nil {
		v.Kind, v.Problem = "other", err.Error()
		for kind, sentinel := range verdictKinds {
			if errors.Is(err, sentinel) {
				v.Kind = kind
			}
		}
	}
	if encodeErr := says.Encode(v); encodeErr != nil || err != nil {
		return 1
	}
	return 0
}

// NewVerifier answers an Options.Verify that runs a command, which must end in VerifyMain, with the path as its last argument. A
// command that cannot tell before the context ends, or dies, has met a damaged file; where it could tell of the records before that,
// a file whose pages are damaged.
func NewVerifier(command string, args ...string) func(ctx context.Context, path string) (Summary, error) {
	return func(ctx context.Context, path string) (Summary, error) {
		var out, talk bytes.Buffer
		cmd := exec.CommandContext(ctx, command, append(args[:len(args):len(args)], path)...)
		cmd.Stdout, cmd.Stderr = &out, &talk
		cmd.WaitDelay = time.Second
		stdin, err := cmd.StdinPipe() // open for as long as we live
		if err != nil {
			return Summary{}, fmt.Errorf("%w: %w", errCannotCheck, err)
		}
		defer func() { _ = stdin.Close() }()
		if err := cmd.Start(); err != nil {
			return Summary{}, fmt.Errorf("%w: %w", errCannotCheck, err)
		}
		ended := cmd.Wait()
		v, told := lastVerdict(&out)
		switch {
		case ctx.Err() == nil && interrupted(cmd.ProcessState):
			return Summary{}, fmt.Errorf("%w: it was broken off: %w", errCannotCheck, ended)
		case told && v.Problem != "":
			return Summary{}, v.err()
		case told && ended == nil:
			return v.Summary, nil
		}
		why := "it could not be checked in time: bbolt seems to hang on it"
		if ctx.Err() == nil {
			first, _, _ := strings.Cut(strings.TrimSpace(talk.String()), "\n")
			why = fmt.Sprintf("whoever reads it dies: %v: %.200s", ended, first)
			if strings.Contains(first, "out of memory") {
				why = "to look at its pages takes more memory than a sound file of its size does"
			}
		}
		if !told {
			return Summary{}, damaged("%s", why)
		}
		v.Flaws = why
		return v.Summary, nil
	}
}

// lastVerdict answers the last that was said, if anything was.
func lastVerdict(out io.Reader) (last verdict, told bool) {
	for says := json.NewDecoder(out); ; told = true {
		var next verdict
		if says.Decode(&next) != nil {
			return last, told
		}
		last = next
	}
}

// err is the problem again, as Check had it.
func (v verdict) err() error {
	sentinel, known := verdictKinds[v.Kind]
	if !known {
		return errors.New(v.Problem)
	}
	if text, ok := strings.CutPrefix(v.Problem, sentinel.Error()+": "); ok {
		return fmt.Errorf("%w: %s", sentinel, text)
	}
	return fmt.Errorf("%w: %s", sentinel, v.Problem)
}

// interrupted says whether a process was told to stop by somebody else, before it could know to ignore that.
func interrupted(p *os.ProcessState) bool {
	status, ok := p.Sys().(interface{ Signal() syscall.Signal })
	if !ok {
		return false
	}
	switch status.Signal() {
	case syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP:
		return true
	default:
		return false
	}
}
