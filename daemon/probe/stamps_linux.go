package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/echod/echod/daemon/internal/wire"
)

// stamped is a socket that is not connected and sees all that comes to its port, with the kernel's times of what leaves and
// what comes (SO_TIMESTAMPING, see Documentation/networking/timestamping.rst of the kernel), and with the ICMP reports
// on what it sent, each with the datagram that it is about (IP_RECVERR, ip(7)).
type stamped struct {
	run    *run
	conn   *net.UDPConn
	raw    syscall.RawConn
	target netip.AddrPort
	source netip.AddrPort
}

// stampFlags ask for the times that the kernel takes, and the card where it has been told to: of each packet that comes,
// and of each that leaves on the error queue, by its number and without a copy of it.
const stampFlags = unix.SOF_TIMESTAMPING_RX_SOFTWARE | unix.SOF_TIMESTAMPING_TX_SOFTWARE | unix.SOF_TIMESTAMPING_SOFTWARE |
	unix.SOF_TIMESTAMPING_RX_HARDWARE | unix.SOF_TIMESTAMPING_TX_HARDWARE | unix.SOF_TIMESTAMPING_RAW_HARDWARE |
	unix.SOF_TIMESTAMPING_OPT_ID | unix.SOF_TIMESTAMPING_OPT_TSONLY | unix.SOF_TIMESTAMPING_OPT_TX_SWHW

func openStamped(ctx context.Context, r *run, number int) (udpSocket, error) {
	network, any, level, recvErr := "udp4", netip.IPv4Unspecified(), unix.IPPROTO_IP, unix.IP_RECVERR
	if r.address.Addr().Is6() {
		network, any, level, recvErr = "udp6", netip.IPv6Unspecified(), unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	source := r.source(number)
	if !source.IsValid() {
		source = netip.AddrPortFrom(any, 0)
	}
	config := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		err := onSocket(c, func(fd int) error {
			return errors.Join(unix.SetsockoptInt(fd, level, recvErr, 1),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stampFlags))
		})
		return errors.Join(err, r.plan.mark(network, address, c))
	}}
	opened, err := config.ListenPacket(ctx, network, source.String())
	if err != nil {
		return nil, err
	}
	conn := opened.(*net.UDPConn)
	_ = conn.SetReadBuffer(receiveBuffer) // A wish.
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &stamped{run: r, conn: conn, raw: raw, target: r.address, source: comingFrom(conn, r.address)}, nil
}

// comingFrom is where packets of a socket to the target come from: where it is bound to no address, the one that the
// routes have now.
func comingFrom(conn *net.UDPConn, target netip.AddrPort) netip.AddrPort {
	bound := addrPort(conn.LocalAddr())
	if !bound.Addr().IsUnspecified() {
		return bound
	}
	route, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(target)) // Sends nothing.
	if err != nil {
		return bound
	}
	defer route.Close()
	return netip.AddrPortFrom(addrPort(route.LocalAddr()).Addr(), bound.Port())
}

func (s *stamped) local() netip.AddrPort { return s.source }
func (s *stamped) stamps() bool          { return true }
func (s *stamped) close()                { _ = s.conn.Close() } // Nothing was buffered that could fail.

func (s *stamped) write(b []byte, deadline time.Time) error {
	if err := s.conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	_, err := s.conn.WriteToUDPAddrPort(b, s.target)
	return err
}

func (s *stamped) countAnew() {
	_ = onSocket(s.raw, func(fd int) error { // Fails when it is closed.
		return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stampFlags&^unix.SOF_TIMESTAMPING_OPT_ID),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stampFlags))
	})
}

const (
	// readAtOnce is how many datagrams, or entries of the error queue, are read before they are told of.
	readAtOnce = 32
	// controlBytes is more than the control messages of a packet take.
	controlBytes = 512
	// quotedBytes is what is read of a datagram that an ICMP report brings back: our header, and a little.
	quotedBytes = 64
)

// read tells of what has left before it tells of what came after: the kernel notes that a datagram has left before its
// reply can have come.
func (s *stamped) read(tell func(arrival) bool) {
	r := &stampedReader{stamped: s, buffer: make([]byte, longestDatagram)}
	for {
		more := false
		err := s.raw.Read(func(fd uintptr) bool {
			more = r.readOnce(int(fd))
			return more
		})
		// The poller takes a socket of which it hears of errors alone for one that cannot be polled. It can: there is
		// something in the error queue, and no room to send.
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil && !more {
			time.Sleep(time.Millisecond)
			err = s.raw.Control(func(fd uintptr) { more = r.readOnce(int(fd)) })
			if err != nil {
				return
			}
		}
		for _, a := range r.arrivals {
			if !tell(a) {
				return
			}
		}
		r.arrivals = r.arrivals[:0]
	}
}

// stampedReader is what one goroutine needs to read.
type stampedReader struct {
	*stamped
	buffer   []byte
	control  [controlBytes]byte
	quoted   [quotedBytes]byte
	arrivals []arrival
}

// readOnce reads what is there, up to a bound; false when there was nothing.
func (r *stampedReader) readOnce(fd int) bool {
	var datagrams []arrival
	for range readAtOnce {
		n, oobn, _, from, err := unix.Recvmsg(fd, r.buffer, r.control[:], unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			r.readErrors(fd)
			r.arrivals = append(r.arrivals, datagrams...)
			return len(r.arrivals) > 0
		case err != nil: // a report that waits in the error queue with more to say, and EINTR
			r.readErrors(fd)
			continue
		}
		a := arrival{at: r.run.now(), when: parseControl(r.control[:oobn]).stamp, elsewhere: !r.isTarget(from)}
		a.seq, a.data = r.run.judge(r.buffer[:n])
		datagrams = append(datagrams, a)
	}
	r.readErrors(fd)
	r.arrivals = append(r.arrivals, datagrams...)
	return true
}

// isTarget says whether a packet comes from where the rounds go. A zone need not be compared: the port is ours.
func (s *stamped) isTarget(from unix.Sockaddr) bool {
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(from.Addr), uint16(from.Port)) == s.target
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(from.Addr), uint16(from.Port)) ==
			netip.AddrPortFrom(s.target.Addr().WithZone(""), s.target.Port())
	default:
		return false
	}
}

// readErrors reads what the error queue has.
func (r *stampedReader) readErrors(fd int) {
	for range 2 * readAtOnce {
		n, oobn, _, _, err := unix.Recvmsg(fd, r.quoted[:], r.control[:], unix.MSG_DONTWAIT|unix.MSG_ERRQUEUE)
		if err != nil {
			return
		}
		c := parseControl(r.control[:oobn])
		switch {
		case c.left:
			r.arrivals = append(r.arrivals, arrival{left: true, number: c.number, when: c.stamp})
		case c.errno != 0 && c.origin != unix.SO_EE_ORIGIN_LOCAL: // what is local the write has told
			a := arrival{at: r.run.now(), err: c.errno}
			if id, seq, ok := wire.Parse(r.quoted[:n]); ok && id == r.run.id {
				a.seq = seq
			}
			r.arrivals = append(r.arrivals, a)
		}
	}
}

// control is what the control messages of a packet say.
type control struct {
	stamp  stamp
	left   bool   // the datagram with this number has left
	number uint32 // see SOF_TIMESTAMPING_OPT_ID
	errno  syscall.Errno
	origin uint8
}

// parseControl reads the control messages of a packet, or of an entry of the error queue. What it does not know it passes by.
func parseControl(b []byte) (c control) {
	for len(b) >= unix.SizeofCmsghdr {
		header, data, rest, err := unix.ParseOneSocketControlMessage(b)
		if err != nil {
			return c
		}
		b = rest
		switch {
		case header.Level == unix.SOL_SOCKET && header.Type == unix.SO_TIMESTAMPING:
			c.stamp = parseStamp(data)
		case header.Level == unix.SOL_IP && header.Type == unix.IP_RECVERR,
			header.Level == unix.SOL_IPV6 && header.Type == unix.IPV6_RECVERR:
			c.parseError(data)
		}
	}
	return c
}

// parseStamp reads a struct scm_timestamping: the kernel's time, one that is no more, and the card's.
func parseStamp(b []byte) stamp {
	const size = 16 // of a struct timespec where a long has 8 bytes
	at := func(i int) int64 {
		if len(b) < (i+1)*size {
			return 0
		}
		seconds := binary.NativeEndian.Uint64(b[i*size:])
		return int64(seconds)*int64(time.Second) + int64(binary.NativeEndian.Uint64(b[i*size+8:]))
	}
	if nanos := at(2); nanos != 0 {
		return stamp{nanos, HardwareClock}
	}
	if nanos := at(0); nanos != 0 {
		return stamp{nanos, KernelClock}
	}
	return stamp{}
}

// parseError reads a struct sock_extended_err.
func (c *control) parseError(b []byte) {
	if len(b) < 16 {
		return
	}
	errno, origin := binary.NativeEndian.Uint32(b), b[4]
	if origin == unix.SO_EE_ORIGIN_TIMESTAMPING {
		c.left, c.number = true, binary.NativeEndian.Uint32(b[12:])
		return
	}
	c.errno, c.origin = syscall.Errno(errno), origin
}

// clockStep is the least difference that the clock of this process tells.
func clockStep() time.Duration {
	var step unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC, &step); err != nil {
		return time.Nanosecond
	}
	return time.Duration(step.Nano())
}
