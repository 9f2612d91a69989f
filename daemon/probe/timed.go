package probe

import (
	"cmp"
	"net"
	"time"
)

// timedReader reads from a connection, with the kernel's times where there are any. One goroutine uses it.
type timedReader interface {
	// read is Read of net.Conn; when is the kernel's time of the last byte.
	read(b []byte) (n int, when stamp, err error)
	// leftAt is when the byte left that has this number among those written, counted from 0 modulo 2^32; the zero stamp if
	// it is not known. Bytes must be asked for in order.
	leftAt(number uint32) stamp
}

// plainReader has no times.
type plainReader struct{ net.Conn }

func (r plainReader) read(b []byte) (n int, when stamp, err error) {
	n, err = r.Read(b)
	return n, stamp{}, err
}

func (plainReader) leftAt(uint32) stamp { return stamp{} }

// timed answers a reader for a new connection, on which nothing has been written.
func (r *run) timed(conn net.Conn) timedReader {
	if r.stamped() {
		if reader := stampConn(conn); reader != nil {
			return reader
		}
	}
	return plainReader{conn}
}

// stamped says whether the kernel tells the times of packets of this run.
func (r *run) stamped() bool { return hasStamps && r.prober.options.DialContext == nil }

// replyTimes are the times of a reply that came.
type replyTimes struct {
	application time.Duration // as this process saw it
	network     time.Duration // as the clock tells
	clock       Clock
	pause       time.Duration // how much of application was this process's own
}

// times tells the times of a reply that was read at a time and took so long, by the kernel's or the card's times of when it
// left and came if there are both.
func (r *run) times(at, application time.Duration, left, came stamp) replyTimes {
	x := replyTimes{application: application, network: application, clock: UserClock}
	for _, clock := range []Clock{HardwareClock, KernelClock} {
		network, known := came.since(left, clock)
		if !known || network <= 0 || network > application {
			continue
		}
		if r.wall.look(r.start); r.wall.steppedSince(at - application) {
			break
		}
		x.network, x.clock, x.pause = network, clock, application-network
		if r.plan.Protocol == TCP && came.kernel != 0 {
			// Of a stream, application has also the time in which the bytes before the last left, as fast as the peer took them.
			x.pause = min(x.pause, at-r.wall.sinceStart(came.kernel))
		}
		return x
	}
	x.pause = r.pauses.within(at-application, at)
	return x
}

// stamp is a packet's times on the clocks of the kernel and of the card, in nanoseconds; 0 is none.
type stamp struct{ kernel, card int64 }

// since answers the time from another stamp to this one by a clock, if both have a time of it.
func (s stamp) since(earlier stamp, clock Clock) (time.Duration, bool) {
	from, to := earlier.kernel, s.kernel
	if clock == HardwareClock {
		from, to = earlier.card, s.card
	}
	return time.Duration(to - from), from != 0 && to != 0
}

// or answers s, with the times of another where it has none.
func (s stamp) or(other stamp) stamp {
	return stamp{cmp.Or(s.kernel, other.kernel), cmp.Or(s.card, other.card)}
}

// wallClock watches the clock by which the kernel tells its times. It can be set, and a pair of times with such a step
// between them has the step in it. The clock of this process cannot, and runs as fast.
type wallClock struct {
	ahead   int64         // of the run's own time, in nanoseconds
	stepped time.Duration // when a step was last seen; 0: never
}

// stepLeast is what counts as a step: more than lies between looking at one clock and at the other.
const stepLeast = time.Millisecond

// look compares the clocks, in a run that began at a time.
func (w *wallClock) look(start time.Time) {
	var ahead int64
	var since time.Duration
	for range 2 { // What came between the two looks does not do so twice.
		now := time.Now()
		since = now.Sub(start)
		ahead = now.UnixNano() - int64(since)
		if time.Duration(ahead-w.ahead).Abs() <= stepLeast {
			return
		}
	}
	w.ahead, w.stepped = ahead, since
}

// steppedSince says whether there may have been a step since then.
func (w *wallClock) steppedSince(then time.Duration) bool { return w.stepped != 0 && then <= w.stepped }

// sinceStart turns a time of the kernel's into one of the run.
func (w *wallClock) sinceStart(nanos int64) time.Duration { return time.Duration(nanos - w.ahead) }
