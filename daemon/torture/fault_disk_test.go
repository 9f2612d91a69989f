//go:build linux

package torture_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// full fills the disk of the state directory. Changes are refused, or kept where there is room; whatever runs goes on, and so it
// does after a start on the full disk. When there is room again, changes are taken again.
type full struct {
	before, during int // how many calls
	killed         bool
}

func drawFull(rnd *rand.Rand) fault {
	return full{1 + rnd.IntN(20), 5 + rnd.IntN(40), rnd.IntN(2) == 0}
}

func (f full) String() string {
	text := fmt.Sprintf("full disk after %d changes, for %d calls", f.before, f.during)
	if f.killed {
		text += ", with a kill"
	}
	return text
}

func (f full) inject(w *world) {
	w.awaitChanges(f.before)
	w.refusals.Store(&[]string{"STATE_NOT_WRITABLE"})
	if err := w.disk.fill(); err != nil {
		w.fail("cannot fill the disk: %v", err)
	}
	w.awaitCalls(f.during)
	w.isAlive("the disk is full")
	if f.killed {
		w.down((*life).kill)
		w.mustUp(launch{})
		w.awaitCalls(f.during)
		w.isAlive("the disk is full")
	}
	if err := w.disk.empty(); err != nil {
		w.fail("cannot empty the disk: %v", err)
	}
	w.awaitChanges(3)
	w.quiet(func() {
		w.refusals.Store(nil)
		w.settle()
	})
}

// isAlive holds the daemon to its answer that it lives, whatever is the matter with its disk.
func (w *world) isAlive(though string) {
	w.t.Helper()
	rest := w.life().rest
	resp, err := rest.client.Get(rest.url + "/healthz")
	if err != nil {
		w.fail("%s, and /healthz: %v", though, err)
		return
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		w.fail("%s, and /healthz answers %s", though, resp.Status)
	}
}

// awaitCalls waits until so many calls were answered, by whatever.
func (w *world) awaitCalls(n int) {
	from := w.answers.Load()
	if !w.await(patience, func() bool { return w.answers.Load() >= from+uint64(n) }) && !w.over() {
		w.fail("%d calls were answered in %v, not %d", w.answers.Load()-from, patience, n)
	}
}

// power cuts the power of the disk while changes are kept, and kills the daemon a little later: what it has acknowledged is on
// the disk that comes back, and after the cut it acknowledges nothing.
type power struct {
	changes int
	moment  time.Duration
	calls   int
}

func drawPower(rnd *rand.Rand) fault {
	return power{rnd.IntN(40), time.Duration(rnd.IntN(3000)) * time.Microsecond, rnd.IntN(10)}
}

func (p power) String() string {
	return fmt.Sprintf("power cut after %d changes and %v, %d calls before the end", p.changes, p.moment, p.calls)
}

func (p power) inject(w *world) {
	w.awaitChanges(p.changes)
	time.Sleep(p.moment)
	w.refusals.Store(&[]string{"STATE_NOT_WRITABLE"})
	if err := w.disk.cut(); err != nil {
		w.fail("cannot cut the power: %v", err)
	}
	w.awaitCalls(p.calls)
	w.isAlive("the disk is gone")
	w.down((*life).kill)
	if err := w.disk.unplug(); err != nil {
		w.fail("cannot unplug the disk: %v", err)
	}
	if err := w.disk.plug(); err != nil {
		w.fail("cannot plug the disk: %v", err)
	}
	w.refusals.Store(nil)
	w.mustUp(launch{})
}

func needsDisk(w *world) string { return w.noDisk }
