//go:build linux

package torture_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// upgrade replaces the daemon's binary while clients work, by a good one or by one that fails in some way. Streams go on and
// datagrams are answered either way; after a bad one, by the process that was there before.
type upgrade struct {
	changes int
	how     string
	killed  time.Duration // if not 0, the process that is replaced is killed so long after the upgrade has begun
}

// badUpgrades are how a binary that takes over may fail: not an echod at all, or at a step of the taking over.
var badUpgrades = []string{
	"false", "garbage", "hello:exit", "checked:panic", "assembled:kill", "adopted:exit", "adopted:kill", "ready:panic", "ready:kill", "protocol:0",
}

const goodUpgrade = "good"

func drawUpgrade(rnd *rand.Rand) fault {
	u := upgrade{changes: 1 + rnd.IntN(20), how: goodUpgrade}
	switch rnd.IntN(5) {
	case 0, 1:
		u.how = badUpgrades[rnd.IntN(len(badUpgrades))]
	case 2:
		u.killed = time.Duration(1+rnd.IntN(100_000)) * time.Microsecond
	}
	return u
}

func (u upgrade) String() string {
	text := fmt.Sprintf("upgrade after %d changes: %s", u.changes, u.how)
	if u.killed > 0 {
		text += fmt.Sprintf(", the old process killed after %v", u.killed)
	}
	return text
}

func (u upgrade) inject(w *world) {
	w.awaitChanges(u.changes)
	if err := w.install(u.how); err != nil {
		w.fail("cannot install a binary: %v", err)
	}
	defer func() {
		if err := w.install(goodUpgrade); err != nil {
			w.fail("cannot install a binary: %v", err)
		}
	}()
	l := w.life()
	if u.killed > 0 {
		u.die(w, l)
		return
	}
	before := l.p.Load()
	l.moving.Store(true)
	done, err := w.upgrade(l)
	if u.how != goodUpgrade {
		if reasonOf(err) != "UPGRADE_FAILED" {
			w.fail("an upgrade to a bad binary answers %v, %v", done, err)
		}
	} else if err != nil {
		w.fail("an upgrade fails: %v", err)
	} else if err := l.follow(int(done.Pid)); err != nil {
		w.fail("the daemon that was upgraded: %v", err)
	} else if !w.await(patience, func() bool { return before.over() }) {
		w.fail("process %d does not end after its upgrade", before.pid)
	}
	w.quiet(func() {
		if err := l.connect(); err != nil {
			w.fail("%v", err)
		}
		l.moving.Store(false)
		if info, err := w.info(); err != nil || int(info.Pid) != l.p.Load().pid {
			w.fail("process %d is to be the daemon, and it says %v, %v", l.p.Load().pid, info, err)
		}
		w.settle()
	})
}

// die kills the process that is replaced, and then whatever came of the upgrade.
func (u upgrade) die(w *world, l *life) {
	l.mortal.Store(true)
	l.moving.Store(true)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_, _ = w.upgrade(l) // it may come to anything
	}()
	time.Sleep(u.killed)
	w.down((*life).kill)
	<-answered
	for _, pid := range children() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	}
	w.mustUp(launch{})
}

func (w *world) upgrade(l *life) (*echov1.UpgradeDaemonResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	return echov1.NewDaemonServiceClient(l.conn).UpgradeDaemon(ctx, &echov1.UpgradeDaemonRequest{})
}

func (p *process) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.Reason
		}
	}
	return ""
}

// install puts a binary where the daemon was started from, as a package manager does.
func (w *world) install(how string) error {
	next := w.binary + ".next"
	_ = os.Remove(next)
	script := func(text string) error { return os.WriteFile(next, []byte("#!/bin/sh\n"+text+"\n"), 0o755) }
	var err error
	switch how {
	case goodUpgrade:
		err = os.Link(w.original, next)
	case "false":
		err = script("exit 1")
	case "garbage":
		err = os.WriteFile(next, []byte("no program at all"), 0o755)
	default:
		err = script(fmt.Sprintf("ECHOD_UPGRADE_FAULT=%s exec %s \"$@\"", how, w.original))
	}
	if err != nil {
		return err
	}
	return os.Rename(next, w.binary)
}

// children are the processes whose parent this one is: in the end, all that it has started.
func children() (all []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		var state string
		var parent, pid int
		_, _ = fmt.Sscan(rest, &state, &parent)
		_, _ = fmt.Sscan(string(text), &pid)
		if parent == os.Getpid() {
			all = append(all, pid)
		}
	}
	return all
}
