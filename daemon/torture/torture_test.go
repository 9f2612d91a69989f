//go:build linux

package torture_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/echod/echod/daemon/echotest"
)

var (
	seedFlag     = flag.Uint64("seed", 1, "what all faults and calls are made up from; 0: another one each time")
	durationFlag = flag.Duration("duration", 20*time.Second, "for how long faults come; with -short a fourth of it")
	faultsFlag   = flag.String("faults", "", "only these kinds of faults, as in kill,stop")
)

// insideVariable says that this process has file systems and a network of its own.
const insideVariable = "ECHOD_TORTURE_INSIDE"

func TestTorture(t *testing.T) {
	if !inside(t) {
		return
	}
	seed, duration := *seedFlag, *durationFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	if testing.Short() {
		duration /= 4
	}
	w := newWorld(t)
	can, cannot, err := choose(w, *faultsFlag)
	if err != nil {
		t.Fatal(err)
	}
	commit := "unknown"
	if out, err := exec.CommandContext(t.Context(), "git", "describe", "--always", "--dirty").Output(); err == nil {
		commit = strings.TrimSpace(string(out))
	}
	t.Logf("seed %d, commit %s, %v", seed, commit, duration)
	for _, why := range cannot {
		t.Logf("not here: %s", why)
	}
	if len(can) == 0 {
		t.Skip("none of the faults can be had here")
	}
	var happened []string
	t.Cleanup(func() {
		w.end()
		if t.Failed() {
			t.Logf("again: go test ./daemon/torture -run '^TestTorture$' -v -seed %d -duration %v (commit %s); its faults were\n%s",
				seed, duration, commit, strings.Join(happened, "\n"))
			w.report(happened)
		}
	})
	w.populate(seed)
	w.start()
	s := newSchedule(seed, can)
	tally := map[string]int{}
	for began := time.Now(); time.Since(began) < duration && !w.over(); {
		for range s.phase() {
			f := s.next()
			happened = append(happened, fmt.Sprintf("%4d  %8.3fs  life %d: %v", len(happened)+1, time.Since(began).Seconds(), w.lives, f))
			w.history.add(event{Who: "schedule", What: f.String(), Life: w.lives})
			kind, _, _ := strings.Cut(f.String(), " ")
			tally[kind]++
			f.inject(w)
			if w.over() {
				return
			}
		}
		w.liveness()
		happened = append(happened, "      all is well")
	}
	n := &w.counts
	t.Logf("%d lives, faults %v (%d failpoints hit); %d changes acknowledged, %d connections, %d bytes and %d datagrams came back",
		w.lives, tally, w.hits.Load(), n.calls.Load(), n.connections.Load(), n.bytes.Load(), n.datagrams.Load())
	if n.calls.Load() == 0 || n.bytes.Load() == 0 || n.datagrams.Load() == 0 {
		t.Error("nothing was done: this tried nothing")
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "torture-") // its socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	flags := []string{"-tags=failpoints,upgradefault"}
	if raced {
		flags = append(flags, "-race")
	}
	original, err := echotest.Build(t.TempDir(), flags...)
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv(insideVariable) != "" {
		loopbackUp(t)
		if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			t.Fatal("cannot see its own processes: ", err)
		}
	} else if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal("cannot be the parent of what an upgrade starts: ", err)
	}
	pid := os.Getpid()
	disk, noDisk := newDisk(t)
	w := &world{
		t: t, disk: disk, noDisk: noDisk, dir: dir, original: original, binary: filepath.Join(filepath.Dir(original), "installed"), history: &history{began: time.Now()},
		// An address that nothing else here uses, so that no port is taken by chance.
		host: fmt.Sprintf("127.%d.%d.%d", 64+pid>>14&63, pid>>7&127+1, pid&127+1),
	}
	if err := w.install(goodUpgrade); err != nil {
		t.Fatal(err)
	}
	return w
}

// inside says that this process has file systems and a network of its own, or cannot have them. Where it can, it runs the test
// in such a process: nothing is left of what it mounts.
func inside(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideVariable) != "" || os.Geteuid() != 0 {
		return true
	}
	var args []string
	flag.Visit(func(f *flag.Flag) {
		if f.Name != "test.run" && f.Name != "test.v" && f.Name != "test.count" && !strings.HasSuffix(f.Name, "profile") && f.Name != "test.testlogfile" {
			args = append(args, fmt.Sprintf("-%s=%s", f.Name, f.Value))
		}
	})
	cmd := exec.CommandContext(t.Context(), os.Args[0], append(args, "-test.v", "-test.count=1", "-test.run=^"+t.Name()+"$")...)
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// With the first process of a PID namespace all others end, too.
		Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL,
	}
	out := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if testing.Verbose() { // a run may be long
		cmd.Stdout = io.MultiWriter(out, os.Stdout)
		cmd.Stderr = cmd.Stdout
	}
	// The kernel ends the process with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	if errors.Is(err, unix.EPERM) {
		t.Log("no namespaces here")
		return true
	}
	if err != nil {
		if !testing.Verbose() {
			t.Logf("%s", out)
		}
		t.Fatalf("in its namespaces: %v", err)
	}
	if strings.Contains(out.String(), "--- SKIP") {
		t.Skipf("%s", out)
	}
	return false
}

// loopbackUp switches on the loopback of a network that is new.
func loopbackUp(t *testing.T) {
	t.Helper()
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo); err != nil {
		t.Fatal("cannot switch the loopback on: ", err)
	}
}
