package probe

import (
	"context"
	"encoding/binary"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/echod/echod/daemon/internal/wire"
)

const (
	// readAtOnce is how many datagrams of a socket, or entries of its error queue, are read in a turn.
	readAtOnce = 32
	// quotedBytes is what is read of a datagram that an ICMP report brings back: our header, and a little.
	quotedBytes = 64
	// socketsAtOnce is how many sockets are read in a turn.
	socketsAtOnce = 16
)

// poller holds the stamped sockets of a run, and waits for them and for the time in the run's own goroutine. To leave each
// socket to the runtime's poller would wake other threads for each datagram that leaves and that comes: they would take the
// processor from the echo server where it is on the same host, and the time to hand over from the answer. So it is told
// of the sockets by an epoll descriptor of its own, at which it waits itself where the moment counts (see holder). Else the
// runtime's poller waits, by a second descriptor, which watches the first for as long as it is asked to.
type poller struct {
	run     *run
	handle  func(arrival)
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
	flows   []*polled       // by flow; nil: without a socket
	polled  time.Duration   // when it looked last
	unread  []*polled       // that have more to read
	failed  []*polled       // whose error queue has something, and that is all that is known of them
	holder  holder

	events  [socketsAtOnce]unix.EpollEvent
	buffer  []byte
	control [controlBytes]byte
	quoted  [quotedBytes]byte
	came    []arrival
}

// polled is a socket with the flow that it belongs to.
type polled struct {
	*stamped
	flow  *udpFlow
	which int

	isUnread, isFailed bool // whether it is among the poller's
}

// What the poller watches besides the sockets of flows, which it knows by their numbers.
const (
	timerEvent  = -1
	wakeUpEvent = -2
)

func newPoller(ctx context.Context, r *run, handle func(arrival)) udpSockets {
	p := &poller{run: r, handle: handle, epoll: -1, outer: -1, timer: -1, wakeUp: -1, set: never, again: holdFor,
		flows: make([]*polled, r.plan.flows()), holder: newHolder(), buffer: make([]byte, longestDatagram)}
	if between := r.plan.Interval; between > 0 && between < holdFor {
		p.again = between
	}
	if err := p.begin(); err != nil {
		p.closeAll()
		return noSockets{newMailbox(r, 1, handle), err}
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
	return p
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
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: what}
	if what >= 0 {
		event.Events |= unix.EPOLLET
	}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &event))
}

func (p *poller) open(f *udpFlow, which int) (udpSocket, error) {
	s, err := openStamped(p.run, f.number)
	if err != nil {
		return nil, err
	}
	if err := p.watch(s.fd, int32(f.number)); err != nil {
		s.close()
		return nil, err
	}
	p.flows[f.number] = &polled{stamped: s, flow: f, which: which}
	return s, nil
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
			s := p.flows[event.Fd]
			switch {
			case event.Events != unix.EPOLLERR:
				p.read(s)
				some = true
			case !s.isFailed:
				s.isFailed = true
				p.failed = append(p.failed, s)
			}
		}
	}
	for _, s := range unread {
		if s.isUnread {
			s.isUnread = false
			p.read(s)
		}
	}
	if timeUp {
		p.readFailed()
	}
	// Those that were read with a reply have failed no more.
	p.failed = slices.DeleteFunc(p.failed, func(s *polled) bool { return !s.isFailed })
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
	for _, s := range failed {
		if s.isFailed {
			p.read(s)
		}
	}
}

// read takes in what a socket has: what has left before what came after, for the kernel notes that a datagram has left before
// its reply can have come.
func (p *poller) read(s *polled) {
	p.came = p.came[:0]
	s.isFailed = false
	if s.fd < 0 {
		return
	}
	more := true
	for range readAtOnce {
		n, oobn, _, from, err := syscall.Recvmsg(s.fd, p.buffer, p.control[:], unix.MSG_DONTWAIT)
		if more = err != syscall.EAGAIN; !more {
			break
		}
		if err != nil { // a report that waits in the error queue with more to say, and EINTR
			continue
		}
		c := parseControl(p.control[:oobn])
		if c.dropped != s.dropped {
			p.run.tally.drop(c.dropped - s.dropped)
			s.dropped = c.dropped
		}
		a := arrival{from: s.flow, socket: s.which, at: p.run.now(), when: c.stamp, elsewhere: !s.isTarget(from), size: n}
		a.seq, a.sent, a.data = p.run.judge(p.buffer[:n])
		p.came = append(p.came, a)
	}
	if more = p.readErrors(s) || more; more && !s.isUnread && s.fd >= 0 {
		s.isUnread = true
		p.unread = append(p.unread, s)
	}
	for _, a := range p.came {
		if p.run.emitErr != nil || s.fd < 0 {
			return
		}
		p.handle(a)
	}
}

// readErrors takes in what the error queue of a socket has, up to a bound; true: it may have more.
func (p *poller) readErrors(s *polled) (more bool) {
	for range 2 * readAtOnce {
		n, oobn, _, _, err := syscall.Recvmsg(s.fd, p.quoted[:], p.control[:], unix.MSG_DONTWAIT|unix.MSG_ERRQUEUE)
		if err != nil {
			return false
		}
		a := arrival{from: s.flow, socket: s.which, at: p.run.now()}
		switch c := parseControl(p.control[:oobn]); {
		case c.left:
			a.left, a.number, a.when = true, c.number, c.stamp
		case c.errno != 0 && c.origin != unix.SO_EE_ORIGIN_LOCAL: // what is local the write has told
			a.err = c.err()
			id, seq, ok := wire.Parse(p.quoted[:n])
			switch {
			case ok && id == p.run.id:
				a.seq = seq
			case ok: // about a datagram of an earlier run from the same port
				p.run.tally.ignore()
				continue
			}
		default:
			continue
		}
		if p.run.emitErr != nil {
			return false
		}
		p.handle(a)
	}
	return true
}

// noSockets is what there is where no poller can be made, for want of descriptors: every round is lost, in its time.
type noSockets struct {
	*mailbox[arrival]
	err error
}

func (n noSockets) open(*udpFlow, int) (udpSocket, error) { return nil, n.err }
