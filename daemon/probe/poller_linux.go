package probe

import (
	"context"
	"encoding/binary"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketsAtOnce is how many sockets are read in a turn.
const socketsAtOnce = 16

// polled is a socket that a poller watches.
type polled interface {
	// ready takes in what the socket has, up to a bound; true: it may have more, for the next turn.
	ready() (more bool)
}

// poller watches the sockets of a run, and waits for them and for the time in the run's own goroutine. To leave each
// socket to the runtime's poller would wake other threads for each packet that leaves and that comes: they would take the
// processor from the echo server where it is on the same host, and the time to hand over from the answer. So it is told
// of the sockets by an epoll descriptor of its own, at which it waits itself where the moment counts (see holder). Else the
// runtime's poller waits, by a second descriptor, which watches the first for as long as it is asked to.
type poller struct {
	run     *run
	epoll   int             // of the sockets, the timer and wakeUp
	outer   int             // of epoll, while it is armed
	armed   bool            // it is: the runtime's poller has waited for the run
	file    *os.File        // of outer, which the runtime's poller watches
	watched syscall.RawConn // of file
	timer   int             // goes off at set
	wakeUp  int             // eventfd, written when the run's context ends
	release func()          // ends what waits for the context
	zero    int64           // the monotonic clock at the run's start, in ns
	set     time.Duration   // when the timer goes off next
	again   time.Duration   // how long after that it goes off once more
	sockets []watched       // by flow
	polled  time.Duration   // when it looked last
	unread  []int           // flows whose sockets have more to read
	failed  []int           // flows whose sockets have something in their error queues, and that is all that is known of them
	holder  holder
	events  [socketsAtOnce]unix.EpollEvent
}

// watched is the socket of a flow.
type watched struct {
	polled                  // nil: there is none yet
	isUnread, isFailed bool // whether it is among the poller's
}

// What the poller watches besides the sockets of flows, which it knows by their numbers.
const (
	timerEvent  = -1
	wakeUpEvent = -2
)

func newPoller(ctx context.Context, r *run) (*poller, error) {
	p := &poller{run: r, epoll: -1, outer: -1, timer: -1, wakeUp: -1, set: never, again: holdFor,
		sockets: make([]watched, r.plan.flows()), holder: newHolder()}
	if between := r.plan.Interval; between > 0 && between < holdFor {
		p.again = between
	}
	if err := p.begin(); err != nil {
		p.closeAll()
		return nil, err
	}
	woken := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(woken)
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		_, _ = unix.Write(p.wakeUp, one[:])
	})
	p.release = func() {
		if !cancel() {
			<-woken
		}
	}
	return p, nil
}

func (p *poller) begin() (err error) {
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if p.outer, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(p.outer, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if err := unix.EpollCtl(p.outer, unix.EPOLL_CTL_ADD, p.epoll, &unix.EpollEvent{}); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	p.file = os.NewFile(uintptr(p.outer), "epoll")
	if p.watched, err = p.file.SyscallConn(); err != nil {
		return err
	}
	if p.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return os.NewSyscallError("timerfd_create", err)
	}
	if p.zero, err = monotonicAtStart(p.run.now); err != nil {
		return os.NewSyscallError("clock_gettime", err)
	}
	if p.wakeUp, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	if err := p.watch(p.timer, timerEvent); err != nil {
		return err
	}
	return p.watch(p.wakeUp, wakeUpEvent)
}

// monotonicAtStart answers the monotonic clock's time, in ns, when now was 0. This process may pause between two readings: the
// closest of some are taken. What is wrong then makes it late, never early, for a timer that goes off before its time is set again
// at once, and again.
func monotonicAtStart(now func() time.Duration) (zero int64, err error) {
	closest := never
	for range 5 {
		var clock unix.Timespec
		before := now()
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &clock); err != nil {
			return 0, err
		}
		if apart := now() - before; apart < closest {
			closest, zero = apart, clock.Nano()-int64(before)
		}
	}
	return zero, nil
}

func (p *poller) watch(fd int, what int32) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: what}))
}

// add watches the socket of a flow, instead of one that the flow had and that is closed, for reading, and with EPOLLOUT for room
// to write, too.
func (p *poller) add(flow, fd int, s polled, events uint32) error {
	p.sockets[flow].polled = s
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET | events, Fd: int32(flow)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &event))
}

// lookAgainAt has the socket of a flow looked at in the next turn, whatever comes.
func (p *poller) lookAgainAt(flow int) {
	if w := &p.sockets[flow]; !w.isUnread {
		w.isUnread = true
		p.unread = append(p.unread, flow)
	}
}

// stop follows the end of all sockets.
func (p *poller) stop() {
	p.release()
	p.closeAll()
}

func (p *poller) closeAll() {
	if p.file != nil {
		_ = p.file.Close()
	} else if p.outer >= 0 {
		_ = unix.Close(p.outer)
	}
	for _, fd := range []int{p.epoll, p.timer, p.wakeUp} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

const (
	// lookAgain is how long after the last look another one is worth its system calls, where the run has something to send.
	lookAgain = 100 * time.Microsecond
	// replyFirst is how many milliseconds a socket's error queue may wait to be read (while the run holds, until the timer goes
	// off, which is no longer). What is in it is most often that a
	// datagram has left, at which nobody has to hurry; a reply, with which it is read, follows soon. On the host of an echo
	// server each moment that is spent between sending and waiting is one in which the server cannot run.
	replyFirst = 1
)

func (p *poller) drain(context.Context) {
	if p.run.now()-p.polled >= lookAgain {
		p.poll(0)
	}
}

func (p *poller) wait(_ context.Context, wake time.Duration) {
	now := p.run.now()
	switch closely, early := p.holder.watches(now, wake, &p.run.rounds); {
	case closely && len(p.unread) == 0 && hold():
		p.pollHolding(now, wake)
	case early:
		p.setTimer(wake - holdBefore)
		p.poll(p.patience())
	default:
		p.setTimer(wake)
		p.poll(p.patience())
	}
	p.run.pauses.woke(wake, p.run.now())
}

// patience is for how many milliseconds to wait; -1 is without end.
func (p *poller) patience() int {
	switch {
	case len(p.unread) > 0:
		return 0
	case len(p.failed) > 0:
		return replyFirst
	default:
		return -1
	}
}

// setTimer sets when the timer goes off first. After that it goes off again by itself: for the next round of a fixed interval,
// or to bound the wait for a reply, it need not be set between sending and waiting.
func (p *poller) setTimer(wake time.Duration) {
	if wake == p.set {
		return
	}
	p.set = wake
	var spec unix.ItimerSpec // disarms it
	if wake != never {
		spec.Value = unix.NsecToTimespec(max(p.zero+int64(wake), 1))
		spec.Interval = unix.NsecToTimespec(int64(p.again))
	}
	_ = unix.TimerfdSettime(p.timer, unix.TFD_TIMER_ABSTIME, &spec, nil)
}

// poll reads what there is, after waiting for it for so many milliseconds; -1 is without end.
func (p *poller) poll(milliseconds int) {
	n, err := p.look(milliseconds)
	p.polled = p.run.now()
	if err != nil {
		return // EINTR
	}
	p.takeIn(n, n == 0 && milliseconds > 0)
}

// pollHolding waits, with a processor in hand, for something that has to be handled at once, and reads it.
func (p *poller) pollHolding(now, wake time.Duration) {
	defer letGo() // Whatever comes of it: what it reads goes to others' code.
	waited := p.armed
	p.disarm()
	p.holder.giveWay(now, wake, &p.run.rounds, waited)
	if p.run.rounds.onWay == 0 {
		p.setTimer(wake)
	} else if until := min(wake, now+holdFor); p.set <= now || p.set > until {
		// Not without need: right after a round has left, the time that it takes to set the timer is the server's, too.
		p.setTimer(until)
	}
	for some := false; !some; {
		n := waitHolding(p.epoll, p.events[:])
		p.polled = p.run.now()
		if n == 0 {
			return
		}
		some = p.takeIn(n, false)
	}
}

// takeIn reads what the first n events tell of, and what was left unread before, but not the sockets that have something in
// their error queue alone, until the time is up for them. It answers whether any event had to be handled at once.
func (p *poller) takeIn(n int, timeUp bool) (some bool) {
	unread := p.unread
	p.unread = nil
	for _, event := range p.events[:n] {
		switch event.Fd {
		case timerEvent:
			var count [8]byte
			_, _ = unix.Read(p.timer, count[:])
			p.set += time.Duration(binary.NativeEndian.Uint64(count[:])) * p.again
			some, timeUp = true, true
		case wakeUpEvent: // The run ends.
			some = true
		default:
			flow := int(event.Fd)
			switch w := &p.sockets[flow]; {
			case event.Events != unix.EPOLLERR:
				p.read(flow)
				some = true
			case !w.isFailed:
				w.isFailed = true
				p.failed = append(p.failed, flow)
			}
		}
	}
	for _, flow := range unread {
		if w := &p.sockets[flow]; w.isUnread {
			w.isUnread = false
			p.read(flow)
		}
	}
	if timeUp {
		p.readFailed()
	}
	// Those that were read with a reply have failed no more.
	p.failed = slices.DeleteFunc(p.failed, func(flow int) bool { return !p.sockets[flow].isFailed })
	return some
}

// look answers how many events there are, after waiting for so many milliseconds. A long wait is the runtime's: it takes no
// thread, and wakes none besides. A short one is a system call, which hands over nothing when it returns.
func (p *poller) look(milliseconds int) (n int, err error) {
	if milliseconds >= 0 {
		return unix.EpollWait(p.epoll, p.events[:], milliseconds)
	}
	p.arm()
	gone := p.watched.Read(func(uintptr) bool {
		n, err = unix.EpollWait(p.epoll, p.events[:], 0)
		return n > 0 || err != nil
	})
	if gone != nil { // The runtime's poller has not taken the descriptor.
		return unix.EpollWait(p.epoll, p.events[:], milliseconds)
	}
	return n, err
}

// arm lets the runtime's poller know of what the sockets have.
func (p *poller) arm() { p.watchInner(true, unix.EPOLLIN) }

// disarm keeps it from being woken for them.
func (p *poller) disarm() { p.watchInner(false, 0) }

func (p *poller) watchInner(armed bool, events uint32) {
	if p.armed != armed {
		// It cannot fail: what is changed is there, and takes no memory.
		_ = unix.EpollCtl(p.outer, unix.EPOLL_CTL_MOD, p.epoll, &unix.EpollEvent{Events: events})
		p.armed = armed
	}
}

// readFailed reads the error queues that have something.
func (p *poller) readFailed() {
	failed := p.failed
	p.failed = nil
	for _, flow := range failed {
		if p.sockets[flow].isFailed {
			p.read(flow)
		}
	}
}

// read has the socket of a flow take in what it has.
func (p *poller) read(flow int) {
	w := &p.sockets[flow]
	w.isFailed = false
	if w.ready() {
		p.lookAgainAt(flow)
	}
}
