//go:build linux

package torture_test

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"
)

// stop ends the daemon in order (SIGTERM) while clients work. It ends with exit code 0.
type stop struct{ changes int }

func drawStop(rnd *rand.Rand) fault { return stop{1 + rnd.IntN(40)} }

func (s stop) String() string { return fmt.Sprintf("stop after %d changes", s.changes) }

func (s stop) inject(w *world) {
	w.awaitChanges(s.changes)
	w.down(w.terminate)
	w.mustUp(launch{})
}

// terminate stops the daemon in order, and holds it to its exit code.
func (w *world) terminate(l *life) {
	if err := l.signal(syscall.SIGTERM); err != nil {
		w.fail("cannot stop the daemon: %v", err)
	}
	if !w.await(patience, l.hasEnded) {
		if !w.over() {
			w.fail("the daemon does not stop in %v", patience)
		}
		l.kill()
	} else if status := l.p.Load().status; !status.Exited() || status.ExitStatus() != 0 {
		w.fail("the daemon stopped otherwise than with exit code 0: %#x", status)
	}
}

// pause freezes the daemon for a while (SIGSTOP), as a machine does that has too much to do: everybody waits, nothing breaks.
type pause struct {
	changes int
	length  time.Duration
}

func drawPause(rnd *rand.Rand) fault {
	return pause{1 + rnd.IntN(20), time.Duration(50+rnd.IntN(500)) * time.Millisecond}
}

func (p pause) String() string {
	return fmt.Sprintf("pause of %v after %d changes", p.length, p.changes)
}

func (p pause) inject(w *world) {
	w.awaitChanges(p.changes)
	l := w.life()
	if err := l.signal(syscall.SIGSTOP); err != nil {
		w.fail("cannot pause the daemon: %v", err)
	}
	time.Sleep(p.length)
	if err := l.signal(syscall.SIGCONT); err != nil {
		w.fail("cannot let the daemon go on: %v", err)
	}
	w.quiet(w.settle)
}
