package probe

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// canMark: whether the IP options of a plan can be set.
	canMark = true
	// hasStamps: whether the kernel tells the times of packets.
	hasStamps = true
)

// mark sets the IP options of a plan on a socket that is being made.
func (p Plan) mark(network, _ string, c syscall.RawConn) error {
	level, options := unix.IPPROTO_IP, map[int]int{}
	set := func(four, six, value int) {
		if level == unix.IPPROTO_IPV6 {
			four = six
		}
		options[four] = value
	}
	if network == "tcp6" || network == "udp6" {
		level = unix.IPPROTO_IPV6
	}
	if p.DSCP != 0 {
		set(unix.IP_TOS, unix.IPV6_TCLASS, int(p.DSCP)<<2) // the lower two bits are ECN's (RFC 3168)
	}
	if p.TTL != 0 {
		set(unix.IP_TTL, unix.IPV6_UNICAST_HOPS, int(p.TTL))
	}
	if p.DontFragment || p.PathMTU != nil {
		// Each datagram goes out as it is, with the DF bit, whatever was heard of the path before.
		set(unix.IP_MTU_DISCOVER, unix.IPV6_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	}
	return onSocket(c, func(fd int) error {
		for option, value := range options {
			if err := unix.SetsockoptInt(fd, level, option, value); err != nil {
				return err
			}
		}
		return nil
	})
}

// onSocket calls f with the descriptor of a socket.
func onSocket(c syscall.RawConn, f func(fd int) error) error {
	var inner error
	if err := c.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}
