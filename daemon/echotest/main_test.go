package echotest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience bounds every wait of the tests; a machine may be slow.
const patience = time.Minute

// The test binary is also an echod that does not behave, and a test that is killed: what the variable says.
const roleVariable = "ECHOTEST_ROLE"

// echod is the binary that TestMain has built.
var echod string

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role))
	}
	code := Main(m, func(t TB) {
		var err error
		if echod, err = Build(tempDir(t)); err != nil {
			t.Fatalf("%v", err)
		}
		if err := os.Setenv(binaryVariable, echod); err != nil {
			t.Fatalf("%v", err)
		}
	})
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// play is an echod that does not behave.
func play(role string) int {
	fmt.Println("this is a fake that is to", role)
	if role == "be killed" {
		return beKilled()
	}
	if role == "refuse" {
		return 3
	}
	terminate := make(chan os.Signal, 1)
	if role == "ignore SIGTERM" {
		signal.Ignore(syscall.SIGTERM)
	} else {
		signal.Notify(terminate, syscall.SIGTERM)
	}
	if role != "never be ready" {
		for _, arg := range os.Args {
			if path, ok := strings.CutPrefix(arg, "--ready-file="); ok {
				if err := os.WriteFile(path+".new", []byte(`{"grpc": "127.0.0.1:1"}`), 0o600); err != nil {
					panic(err)
				}
				if err := os.Rename(path+".new", path); err != nil {
					panic(err)
				}
			}
		}
	}
	select {
	case <-terminate:
		return map[string]int{"die": 4, "end badly": 5}[role]
	case <-time.After(10 * patience): // nobody is there any more
		return 6
	}
}

// beKilled starts an echod, says where, and waits for its own end.
func beKilled() int {
	s := &scope{log: os.Stderr}
	s.run(func() {
		StartProcess(s, ProcessOptions{
			Binary: os.Getenv("ECHOD_BINARY"),
			// The parent's test holds the other end of it.
			Prepare: func(c *exec.Cmd) { c.ExtraFiles = []*os.File{os.NewFile(3, "life")} },
		})
	})
	fmt.Println("started")
	time.Sleep(10 * patience)
	return 7
}

// trial is a test that is expected to say something.
type trial struct {
	*scope
	log *bytes.Buffer
}

func newTrial() trial {
	log := &bytes.Buffer{}
	return trial{&scope{log: log}, log}
}

// do runs a test from its beginning to the end of its cleanups, and answers what it said.
func do(test func(t TB)) (said string, failed bool) {
	t := newTrial()
	t.run(func() { test(t) })
	t.end()
	return t.log.String(), t.Failed()
}

// wantSaid fails the test unless said has each of the parts, once.
func wantSaid(t *testing.T, said string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if n := strings.Count(said, part); n != 1 {
			t.Errorf("%q is there %d times, in:\n%s", part, n, said)
		}
	}
}

// RunExample is for examples, which have no test of their own: it prints what theirs says.
func RunExample(test func(t TB)) {
	said, _ := do(test)
	fmt.Print(said)
}
