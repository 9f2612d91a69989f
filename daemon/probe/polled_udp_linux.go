package probe

import (
	"context"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/echod/echod/daemon/internal/wire"
)

const (
	// readAtOnce is how often a socket is read from in a turn, at most; the error queue of a UDP socket twice as often.
	readAtOnce = 32
	// quotedBytes is what is read of a datagram that an ICMP report brings back: our header, and a little.
	quotedBytes = 64
)

// stampedSockets are the stamped UDP sockets of a run, which its poller watches.
type stampedSockets struct {
	*poller
	handle  func(arrival)
	buffer  []byte
	control [controlBytes]byte
	quoted  [quotedBytes]byte
	came    []arrival
}

func newStampedSockets(ctx context.Context, r *run, handle func(arrival)) udpSockets {
	p, err := newPoller(ctx, r)
	if err != nil {
		return noSockets{newMailbox(r, 1, handle), err}
	}
	return &stampedSockets{poller: p, handle: handle, buffer: make([]byte, longestDatagram)}
}

func (u *stampedSockets) open(f *udpFlow, which int) (udpSocket, error) {
	s, err := openStamped(u.run, f.number)
	if err != nil {
		return nil, err
	}
	s.all, s.flow, s.which = u, f, which
	if err := u.add(f.number, s.fd, s, 0); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// ready takes in what has left before what came after, for the kernel notes that a datagram has left before its reply can have
// come.
func (s *stamped) ready() (more bool) {
	if s.fd < 0 {
		return false
	}
	u := s.all
	u.came = u.came[:0]
	for range readAtOnce {
		n, oobn, _, from, err := syscall.Recvmsg(s.fd, u.buffer, u.control[:], unix.MSG_DONTWAIT)
		if more = err != syscall.EAGAIN; !more {
			break
		}
		if err != nil { // a report that waits in the error queue with more to say, and EINTR
			continue
		}
		c := parseControl(u.control[:oobn])
		if c.dropped != s.dropped {
			s.run.tally.drop(c.dropped - s.dropped)
			s.dropped = c.dropped
		}
		a := arrival{from: s.flow, socket: s.which, at: s.run.now(), when: c.stamp, elsewhere: !s.isTarget(from), size: n}
		a.seq, a.sent, a.data = s.run.judge(u.buffer[:n])
		u.came = append(u.came, a)
	}
	more = s.readErrors() || more
	for _, a := range u.came {
		if s.run.emitErr != nil || s.fd < 0 {
			break
		}
		u.handle(a)
	}
	return more && s.fd >= 0
}

// readErrors takes in what the error queue has, up to a bound; true: it may have more.
func (s *stamped) readErrors() (more bool) {
	u := s.all
	for range 2 * readAtOnce {
		n, oobn, _, _, err := syscall.Recvmsg(s.fd, u.quoted[:], u.control[:], unix.MSG_DONTWAIT|unix.MSG_ERRQUEUE)
		if err != nil {
			return false
		}
		a := arrival{from: s.flow, socket: s.which, at: s.run.now()}
		switch c := parseControl(u.control[:oobn]); {
		case c.left:
			a.left, a.number, a.when = true, c.number, c.stamp
		case c.errno != 0 && c.origin != unix.SO_EE_ORIGIN_LOCAL: // what is local the write has told
			a.err = c.err()
			id, seq, ok := wire.Parse(u.quoted[:n])
			switch {
			case ok && id == s.run.id:
				a.seq = seq
			case ok: // about a datagram of an earlier run from the same port
				s.run.tally.ignore()
				continue
			}
		default:
			continue
		}
		if s.run.emitErr != nil {
			return false
		}
		u.handle(a)
	}
	return true
}

// noSockets is what there is where no poller can be made, for want of descriptors: every round is lost, in its time.
type noSockets struct {
	*mailbox[arrival]
	err error
}

func (n noSockets) open(*udpFlow, int) (udpSocket, error) { return nil, n.err }
