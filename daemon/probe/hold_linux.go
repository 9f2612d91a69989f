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
	// holdFor is how long after a round has left a run begins to wait with a processor in hand, and how long it waits so for
	// the answer before it looks around.
	holdFor = replyFirst * time.Millisecond
	// holdBefore is how long before the time for which it waits, a round's above all, a run begins to hold. When a process
	// has been idle, the thread that watches over Go's scheduler (sysmon, runtime/proc.go) looks each 20 us, asleep for 70
	// in truth, until it has seen nothing to do 50 times; and so often it takes a processor from what a round needs.
	holdBefore = 8 * time.Millisecond
	// giveWayAfter is after how long a run that holds lets others go first, at a moment at which it has time. One that has
	// none is interrupted by the scheduler each 10 ms, be it in the midst of a round.
	giveWayAfter = 4 * time.Millisecond
	// giveWayBefore is how long before the time for which it waits a run has time.
	giveWayBefore = 300 * time.Microsecond
)

// holder decides when a run waits with a processor of Go's scheduler (a P) in hand: in a system call of which the scheduler is
// not told.
//
// Told of it, it has threads look for other work, when the call begins and when it ends. On a small host they take
// the processor from an echo server there, or have it woken on another one, and either makes the round trip longer by as much
// as it takes. To the scheduler, a run that holds is one that computes, and it can be interrupted as such: epoll_wait(2) ends
// with the signal by which the scheduler asks for a processor, to collect memory or for others that have waited for long. (It
// asks again when one came just before the call; and no wait is longer than holdBefore.)
type holder struct {
	able   bool          // there is a processor for the others
	last   uint32        // the last round that is known
	left   time.Duration // since when
	passed time.Duration // when others were let go first
}

func newHolder() holder { return holder{able: runtime.GOMAXPROCS(0) > 1} }

// watches answers whether a wait until wake that begins now is one that counts, or else, whether its end is.
func (h *holder) watches(now, wake time.Duration, r *rounds) (closely, early bool) {
	if !h.able {
		return false, false
	}
	if r.last != h.last {
		h.last, h.left = r.last, now
	}
	closely = wake-now <= holdBefore || r.onWay > 0 && now-h.left <= holdFor
	return closely, !closely && wake != never
}

// giveWay lets others go first, where nothing is on its way and nothing leaves soon, and always when the runtime's poller has
// waited for the run since (waited): the thread that did so is then the run's, and but for this nobody would wait there in its place
// until the scheduler looks, after up to 10 ms.
func (h *holder) giveWay(now, wake time.Duration, r *rounds, waited bool) {
	if waited || r.onWay == 0 && wake-now >= giveWayBefore && now-h.passed >= giveWayAfter {
		h.passed = now
		h.able = runtime.GOMAXPROCS(0) > 1 // It follows the limits of a container.
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
