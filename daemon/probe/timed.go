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

// between completes the times of a reply by the kernel's, if there are both.
func (x replyTimes) between(left, came stamp) replyTimes {
	if left.clock != 0 && left.clock == came.clock {
		x.network, x.clock = time.Duration(came.nanos-left.nanos), came.clock
	}
	return x.judge()
}
