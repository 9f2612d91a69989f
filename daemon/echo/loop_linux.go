package echo

import (
	"container/heap"
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// loop serves sockets in one goroutine: it turns readiness into calls. It blocks no thread, for its epoll descriptor is
// itself watched by Go's own poller; that descriptor's read deadline is the loop's timer, and its wake-up.
//
// All that a loop owns is touched by its own goroutine alone. Others send it work by do.
type loop struct {
	epoll *os.File
	fd    int // of epoll; good as long as the loop runs
	raw   syscall.RawConn
	start time.Time
	epoch int64         // start in Unix nanoseconds
	now   time.Duration // since start, as of this turn
	load  atomic.Int64  // sockets that it serves, or is about to

	ready   [256]unix.EpollEvent
	events  int                   // how many of ready are
	poll    func(fd uintptr) bool // look, made once: one made each turn would be garbage
	sources []slot
	free    []int32 // of sources
	again   []source
	timers  timers
	buffer  []byte          // what a read fills; nothing stays in it over a turn
	name    [nameBytes]byte // of whom was accepted last
	deep    deep
	batch   *udpBatch // made with the first UDP socket
	armed   time.Duration
	ended   bool
	over    chan struct{} // closed when run has returned

	woken atomic.Bool // there is mail, or was
	mu    sync.Mutex  // guards mail and the setting of the deadline
	mail  []func()
}

// source is a socket that a loop serves.
type source interface {
	// handle does what the events allow, for a bounded time. One that has more to do asks for another turn.
	handle(events uint32)
}

// slot is a place for a source. The generation tells an event of the source that is there now from one of a source
// that was there when the kernel noted it: descriptors and slots are used again.
type slot struct {
	source     source
	generation int32
}

const (
	// bufferBytes is the most that one read takes.
	bufferBytes = 256 << 10
	// edges are the events of every socket. Edge-triggered, so that a read that comes back short need not be tried
	// again; RDHUP tells of a FIN that is behind such a read, PRI of an urgent mark that may have cut it short.
	edges = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET
)

const noDeadline = time.Duration(1<<63 - 1)

func newLoop() (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	// Go's poller takes descriptors that are not blocking.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	file := os.NewFile(uintptr(fd), "epoll")
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	l := &loop{epoll: file, fd: fd, raw: raw, start: time.Now(), buffer: make([]byte, bufferBytes), armed: noDeadline, over: make(chan struct{})}
	l.epoch = l.start.UnixNano()
	l.poll = l.look
	return l, nil
}

// run serves until end.
func (l *loop) run() {
	defer func() {
		_ = l.epoll.Close()
		close(l.over)
	}()
	for !l.ended {
		l.wait()
		l.now = time.Since(l.start)
		for _, event := range l.ready[:l.events] {
			if s := l.sources[event.Fd]; s.generation == event.Pad && s.source != nil {
				s.source.handle(event.Events)
			}
		}
		l.runAgain()
		l.timers.run(l.now)
		l.readMail()
	}
}

// wait parks until there is something to do.
func (l *loop) wait() {
	l.setDeadline()
	l.events = 0
	// A deadline that has passed is a timer or a wake-up: both are looked at in any case.
	_ = l.raw.Read(l.poll)
}

// look answers whether there is something to do. Go's poller calls it again whenever the epoll descriptor becomes
// readable.
func (l *loop) look(fd uintptr) bool {
	l.events = epollWait(int(fd), l.ready[:])
	return l.events > 0 || len(l.again) > 0
}

// setDeadline lets wait end with the next timer. The lock keeps it from undoing a wake-up.
func (l *loop) setDeadline() {
	next := l.timers.next()
	if next == l.armed && !l.woken.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mail) > 0 {
		return // it is woken, and stays so until the mail is read
	}
	l.woken.Store(false)
	l.armed = next
	deadline := time.Time{}
	if next != noDeadline {
		deadline = l.start.Add(next)
	}
	_ = l.epoll.SetReadDeadline(deadline) // fails only on a closed file
}

// do has the loop call f, soon. It may be called from any goroutine; a loop that has ended does nothing more.
func (l *loop) do(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mail = append(l.mail, f)
	if !l.woken.Swap(true) {
		_ = l.epoll.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed file
	}
}

func (l *loop) readMail() {
	if !l.woken.Load() {
		return
	}
	l.mu.Lock()
	mail := l.mail
	l.mail = nil
	l.mu.Unlock()
	for _, f := range mail {
		f()
	}
	l.armed = -1 // the wake-up has moved the deadline
}

// await is do, and returns when f has been called, or the loop has ended.
func (l *loop) await(f func()) {
	called := make(chan struct{})
	l.do(func() {
		f()
		close(called)
	})
	select {
	case <-called:
	case <-l.over:
	}
}

// clock is the time of this turn, in Unix nanoseconds.
func (l *loop) clock() int64 { return l.epoch + int64(l.now) }

// end lets run return after the mail that came before.
func (l *loop) end() { l.do(func() { l.ended = true }) }

// add begins to serve a socket and answers its slot.
func (l *loop) add(fd int, s source) (int32, error) {
	var at int32
	if n := len(l.free); n > 0 {
		at, l.free = l.free[n-1], l.free[:n-1]
	} else {
		at = int32(len(l.sources))
		l.sources = append(l.sources, slot{})
	}
	place := &l.sources[at]
	place.source = s
	if errno := epollAdd(l.fd, fd, &unix.EpollEvent{Events: edges, Fd: at, Pad: place.generation}); errno != 0 {
		l.release(at)
		return 0, errno
	}
	return at, nil
}

// leave notes the end of a socket that was assigned to the loop.
func (l *loop) leave() { l.load.Add(-1) }

// release stops serving a socket. The caller closes it, which takes it out of epoll.
func (l *loop) release(at int32) {
	l.sources[at].source = nil
	l.sources[at].generation++
	l.free = append(l.free, at)
}

// remove stops serving a socket that stays open, here or in another process: closed or not, it would stay in epoll as long as
// anybody has it.
func (l *loop) remove(at int32, fd int) {
	epollDelete(l.fd, fd)
	l.release(at)
}

// forget takes back that a source has asked for another turn.
func (l *loop) forget(s source) {
	l.again = slices.DeleteFunc(l.again, func(other source) bool { return other == s })
}

// later gives a source another turn, after the others have had theirs.
func (l *loop) later(s source) { l.again = append(l.again, s) }

func (l *loop) runAgain() {
	turn := l.again
	l.again = nil
	for _, s := range turn {
		s.handle(0)
	}
}

// timer calls back at a time. It belongs to one loop, and is in its heap at most once.
type timer struct {
	due   time.Duration // since the loop's start
	index int           // in the heap, plus one; 0: not in it
	owner interface{ expire() }
}

// timers is a heap of timers by their time.
type timers []*timer

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].due < t[j].due }
func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i+1, j+1
}

// Push is for package heap.
func (t *timers) Push(x any) {
	one := x.(*timer)
	*t = append(*t, one)
	one.index = len(*t)
}

// Pop is for package heap.
func (t *timers) Pop() any {
	last := (*t)[len(*t)-1]
	(*t)[len(*t)-1] = nil
	*t = (*t)[:len(*t)-1]
	last.index = 0
	return last
}

// set moves a timer to a time, wherever it was.
func (t *timers) set(one *timer, due time.Duration) {
	one.due = due
	if one.index > 0 {
		heap.Fix(t, one.index-1)
		return
	}
	heap.Push(t, one)
}

// cancel takes a timer out, if it is in.
func (t *timers) cancel(one *timer) {
	if one.index > 0 {
		heap.Remove(t, one.index-1)
	}
}

func (t timers) next() time.Duration {
	if len(t) == 0 {
		return noDeadline
	}
	return t[0].due
}

// run calls what is due.
func (t *timers) run(now time.Duration) {
	for len(*t) > 0 && (*t)[0].due <= now {
		heap.Pop(t).(*timer).owner.expire()
	}
}
