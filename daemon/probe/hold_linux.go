package probe

import (
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// holdFor is how long before a round leaves, and after one has left, a run waits with a processor in hand.
	holdFor = 2 * time.Millisecond
	// giveWayAfter is how long a run holds at most before it lets others go first when it has time. After 10 ms the
	// scheduler would take the processor from it, be it in the midst of a round.
	giveWayAfter = 4 * time.Millisecond
	// giveWayBefore is how long before a round a run has time.
	giveWayBefore = 300 * time.Microsecond
)

// holder decides when a run waits with a processor of Go's scheduler (a P) in hand: in a system call of which the scheduler is
// not told.
//
// Told of it, it has threads look for other work, when the call begins and when it ends. On a small host they take
// the processor from an echo server there, or have it woken on another one, and either makes the round trip longer by as much
// as it takes. To the scheduler, a run that holds is one that computes, and it can be interrupted as such: epoll_wait(2) ends
// with the signal by which the scheduler asks for a processor, to collect memory or for others that have waited for long.
type holder struct {
	able   bool          // there is a processor for the others
	last   uint32        // the last round that is known
	left   time.Duration // since when
	passed time.Duration // when others were let go first

	elsewhere bool // the last wait was the runtime's
}

func newHolder() holder { return holder{able: runtime.GOMAXPROCS(0) > 1, elsewhere: true} }

// watches answers whether a wait until wake that begins now is one that counts, or else, whether its end is.
func (h *holder) watches(now, wake time.Duration, r *rounds) (closely, early bool) {
	if !h.able {
		return false, false
	}
	if r.last != h.last {
		h.last, h.left = r.last, now
	}
	closely = wake-now <= holdFor || r.onWay > 0 && now-h.left <= holdFor
	return closely, !closely && wake != never
}

// giveWay lets others go first, where nothing is on its way and nothing leaves soon, and whenever the runtime's poller has
// waited for the run (elsewhere): the thread that did so is then the run's, and but for this nobody would wait there in its place
// until the scheduler looks, after up to 10 ms.
func (h *holder) giveWay(now, wake time.Duration, r *rounds) {
	if h.elsewhere || r.onWay == 0 && wake-now >= giveWayBefore && now-h.passed >= giveWayAfter {
		h.elsewhere, h.passed = false, now
		runtime.Gosched()
	}
}

// held says that a run of this process holds. It is one at a time, so that the others have processors enough.
var held atomic.Bool

// hold answers whether the run may hold, until it lets go.
func hold() bool { return held.CompareAndSwap(false, true) }

func letGo() { held.Store(false) }

// waitHolding is epoll_wait(2) without an end. It answers how many events there are; none when a signal has ended it.
func waitHolding(epoll int, events []unix.EpollEvent) int {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), ^uintptr(0), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}
