//go:build linux

package torture_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
)

// failpoint has the daemon kill itself between two steps of writing: it is started with the point armed, and used until it dies.
type failpoint struct {
	point string
	nth   int
}

// failpoints are those of the store, and how many passes of each may be awaited: what is passed with each change comes often, the
// others once in a life or two.
var failpoints = []struct {
	point string
	most  int
}{
	{"commit.begin", 30}, {"commit.done", 30}, {"commit.kept", 30},
	{"state.written", 1}, {"state.synced", 1}, {"state.renamed", 1}, {"state.done", 1},
	{"copy.written", 1}, {"copy.synced", 1}, {"copy.renamed", 1}, {"copy.done", 1},
	{"close.begin", 1}, {"close.marked", 1},
}

func drawFailpoint(rnd *rand.Rand) fault {
	f := failpoints[rnd.IntN(len(failpoints))]
	return failpoint{f.point, 1 + rnd.IntN(f.most)}
}

func (f failpoint) String() string { return fmt.Sprintf("failpoint %s:%d", f.point, f.nth) }

func (f failpoint) inject(w *world) {
	w.down((*life).kill)
	err := w.up(launch{env: []string{fmt.Sprintf("ECHOD_FAILPOINT=%s:%d", f.point, f.nth)}})
	if err == nil {
		if !strings.HasPrefix(f.point, "close.") {
			w.awaitChanges(2 * f.nth) // or its end; calls that come together are one commit
		}
		w.down(func(l *life) {
			_ = l.signal(syscall.SIGTERM) // where it is dead or dying this does nothing
			if !w.await(patience, l.hasEnded) {
				w.fail("the daemon neither dies nor stops in %v", patience)
				l.kill()
			} else if l.p.Load().status.Signaled() {
				w.hits.Add(1)
			}
		})
	} else if errors.Is(err, errDied) {
		w.hits.Add(1)
	}
	w.mustUp(launch{})
}
