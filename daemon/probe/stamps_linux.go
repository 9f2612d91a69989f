package probe

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stampFlags ask for the times that the kernel takes, and the card where it has been told to: of each packet that comes,
// and of each that leaves on the error queue, by its number and without a copy of it.
const stampFlags = unix.SOF_TIMESTAMPING_RX_SOFTWARE | unix.SOF_TIMESTAMPING_TX_SOFTWARE | unix.SOF_TIMESTAMPING_SOFTWARE |
	unix.SOF_TIMESTAMPING_RX_HARDWARE | unix.SOF_TIMESTAMPING_TX_HARDWARE | unix.SOF_TIMESTAMPING_RAW_HARDWARE |
	unix.SOF_TIMESTAMPING_OPT_ID | unix.SOF_TIMESTAMPING_OPT_TSONLY | unix.SOF_TIMESTAMPING_OPT_TX_SWHW

// stampingBegins is how long is waited at most until the kernel takes the times of packets.
const stampingBegins = 20 * time.Millisecond

// keepStamping has the kernel take the times of packets until the function that it answers is called. The kernel does so
// while a socket wants it, and begins a little after the first one does: packets of a connection that wants it for the
// time of a round trip would have none, and neither would the first packets of a run.
func keepStamping() (stop func()) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return func() {}
	}
	// All of this is a wish: where it fails the first packets may have no times, and the report says so.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, unix.SOF_TIMESTAMPING_RX_SOFTWARE|unix.SOF_TIMESTAMPING_SOFTWARE) == nil &&
		unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}) == nil {
		for begun := time.Now(); !isStamping(fd) && time.Since(begun) < stampingBegins; {
			time.Sleep(100 * time.Microsecond)
		}
	}
	return func() { _ = unix.Close(fd) }
}

// isStamping has a socket send itself a datagram, and says whether it has a time. Without a loopback there is nothing to
// wait for.
func isStamping(fd int) bool {
	self, err := unix.Getsockname(fd)
	if err != nil || unix.Sendto(fd, []byte{0}, 0, self) != nil {
		return true
	}
	var b [1]byte
	var control [controlBytes]byte
	_, n, _, _, err := syscall.Recvmsg(fd, b[:], control[:], 0)
	return err == nil && parseControl(control[:n]).stamp != stamp{}
}

// controlBytes is more than the control messages of a packet take.
const controlBytes = 512

// control is what the control messages of a packet say.
type control struct {
	stamp  stamp
	left   bool          // the datagram with this number has left
	number uint32        // see SOF_TIMESTAMPING_OPT_ID
	errno  syscall.Errno // of an error; 0: none
	origin uint8

	mtu     int        // what EMSGSIZE is about; 0: not said
	router  netip.Addr // who reported it; invalid: not known
	dropped uint32     // how many datagrams the socket had no room for, modulo 2^32 (SO_RXQ_OVFL); absent is 0
}

// err is the error that an entry of the error queue tells of.
func (c control) err() error {
	if c.errno == unix.EMSGSIZE {
		return tooBigError{mtu: c.mtu, router: c.router}
	}
	return c.errno
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
		case header.Level == unix.SOL_SOCKET && header.Type == unix.SO_RXQ_OVFL && len(data) >= 4:
			c.dropped = binary.NativeEndian.Uint32(data)
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
	return stamp{kernel: at(0), card: at(2)}
}

// parseError reads a struct sock_extended_err, and the address behind it of whom the error comes from.
func (c *control) parseError(b []byte) {
	const size = 16 // of the struct
	if len(b) < size {
		return
	}
	errno, origin := binary.NativeEndian.Uint32(b), b[4]
	if origin == unix.SO_EE_ORIGIN_TIMESTAMPING {
		c.left, c.number = true, binary.NativeEndian.Uint32(b[12:])
		return
	}
	c.errno, c.origin = syscall.Errno(errno), origin
	if c.errno != unix.EMSGSIZE {
		return
	}
	c.mtu = int(binary.NativeEndian.Uint32(b[8:]))
	switch offender := b[size:]; {
	case len(offender) >= unix.SizeofSockaddrInet4 && binary.NativeEndian.Uint16(offender) == unix.AF_INET:
		c.router = netip.AddrFrom4([4]byte(offender[4:]))
	case len(offender) >= unix.SizeofSockaddrInet6 && binary.NativeEndian.Uint16(offender) == unix.AF_INET6:
		c.router = netip.AddrFrom16([16]byte(offender[8:])).Unmap()
	}
}

// clockStep is the least difference that the clock of this process tells.
func clockStep() time.Duration {
	var step unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC, &step); err != nil {
		return time.Nanosecond
	}
	return time.Duration(step.Nano())
}
