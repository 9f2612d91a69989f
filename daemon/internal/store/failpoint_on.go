//go:build failpoints

package store

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
)

// A binary built with the tag failpoints kills itself (SIGKILL) at the n-th pass of a point when its environment has
// ECHOD_FAILPOINT=POINT[:n], n from 1. The points, each between two things of which a crash may leave the first alone:
//
//	commit.begin    calls were taken; nothing is written
//	commit.done     bbolt has committed and synced; nobody was answered
//	commit.kept     memory has the change, too; nobody was answered
//	state.written   a new state file is written, not synced (at start, and after a failed commit)
//	state.synced    it is synced, and still has its temporary name
//	state.renamed   it has its name; the directory is not synced
//	state.done      the directory is synced
//	copy.written, copy.synced, copy.renamed, copy.done   the same of the good copy
//	aside.renamed   a damaged file was set aside; nothing took its place
//	close.begin     all calls are answered; the file still says that a daemon runs
//	close.marked    the file says that the daemon stopped; the good copy may be older
var (
	failAt, failNth = failSetting()
	failPassed      atomic.Int64
)

func failSetting() (string, int64) {
	name, nth, given := strings.Cut(os.Getenv("ECHOD_FAILPOINT"), ":")
	if !given {
		return name, 1
	}
	n, err := strconv.ParseInt(nth, 10, 64)
	if err != nil || n < 1 {
		panic("ECHOD_FAILPOINT must be POINT or POINT:n, n from 1")
	}
	return name, n
}

func failpoint(name string) {
	if name != failAt || failPassed.Add(1) != failNth {
		return
	}
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Kill()
	}
	select {} // the signal is on its way
}
