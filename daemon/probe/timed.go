package probe

import (
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

// times tells the times of a reply that was read at a time and took so long, by the kernel's times of when it left and came
// if there are both.
func (r *run) times(at, application time.Duration, left, came stamp) replyTimes {
	x := replyTimes{application: application, network: application, clock: UserClock}
	network := time.Duration(came.nanos - left.nanos)
	// The kernel's times are of the wall clock, which can be set; a pair with a step between them has the step in it.
	if left.clock == 0 || left.clock != came.clock || network <= 0 || network > application+time.Millisecond {
		x.pause = r.pauses.within(at-application, at)
		return x
	}
	x.network, x.clock, x.pause = network, came.clock, application-network
	if r.plan.Protocol == TCP && x.clock == KernelClock {
		// Of a stream, application has also the time in which the bytes before the last left, as fast as the peer took them.
		x.pause = min(x.pause, at-time.Duration(came.nanos-r.start.UnixNano()))
	}
	return x
}
