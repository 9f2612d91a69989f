//go:build linux

package torture_test

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// kill ends the daemon as a crash does (SIGKILL), in the middle of whatever it is at.
type kill struct {
	changes int           // acknowledged before it
	moment  time.Duration // after the last of them
}

func drawKill(rnd *rand.Rand) fault {
	return kill{1 + rnd.IntN(60), time.Duration(rnd.IntN(3000)) * time.Microsecond}
}

func (k kill) String() string {
	return fmt.Sprintf("kill after %d changes and %v", k.changes, k.moment)
}

func (k kill) inject(w *world) {
	w.awaitChanges(k.changes)
	time.Sleep(k.moment)
	w.down((*life).kill)
	w.mustUp(launch{})
}

// mustUp is up where nothing ends the daemon.
func (w *world) mustUp(o launch) {
	w.t.Helper()
	if err := w.up(o); err != nil {
		w.fail("%v", err)
		w.t.Fatal("there is no daemon any more")
	}
}
