package probe

import (
	"context"
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// localMTU is the MTU of the interface that leads to the target; 0 when it is not known or larger than any packet.
//
// It is what the kernel refuses a datagram for that is the first of a packet which it is told to wait with (UDP_CORK, udp(7)).
// Nothing is sent, and what routers reported before does not matter, as it would to IP_MTU.
func localMTU(r *run) (mtu int) {
	dialer := r.dialer(0)
	if local, ok := dialer.LocalAddr.(*net.UDPAddr); ok {
		local.Port = 0 // The port is for the rounds.
	}
	dialed, err := dialer.DialContext(context.Background(), "udp", r.address.String()) // Does not wait for anything.
	if err != nil {
		return 0
	}
	conn := dialed.(*net.UDPConn)
	defer func() { _ = conn.Close() }() // Takes with it what waits to be sent.
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	level, recvErr := unix.IPPROTO_IP, unix.IP_RECVERR
	if r.address.Addr().Is6() {
		level, recvErr = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	_ = onSocket(raw, func(fd int) error { // Without success it is not known.
		err := errors.Join(unix.SetsockoptInt(fd, level, recvErr, 1), unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_CORK, 1))
		if err != nil {
			return err
		}
		_, err = unix.SendmsgN(fd, make([]byte, maxPayloadUDP(r.address.Addr())), nil, nil, unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.EMSGSIZE) {
			return err
		}
		control := make([]byte, controlBytes)
		_, n, _, _, err := unix.Recvmsg(fd, nil, control, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if c := parseControl(control[:n]); err == nil && c.origin == unix.SO_EE_ORIGIN_LOCAL {
			mtu = c.mtu
		}
		return err
	})
	return mtu
}
