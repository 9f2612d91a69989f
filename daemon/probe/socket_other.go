//go:build !linux

package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
)

const (
	// canMark: whether the IP options of a plan can be set.
	canMark = false
	// hasStamps: whether the kernel tells the times of packets.
	hasStamps = false
)

// mark sets the IP options of a plan, of which there are none here.
func (p Plan) mark(_, _ string, _ syscall.RawConn) error { return nil }

// bindOnce binds a socket to an address, and closes it. The error says which system call failed. Over TCP it listens there for
// a moment, which is how package net binds without connecting.
func (r *run) bindOnce(source netip.AddrPort) error {
	if r.plan.Protocol == TCP {
		l, err := net.Listen("tcp", source.String())
		if err == nil {
			_ = l.Close()
		}
		return err
	}
	c, err := net.ListenPacket("udp", source.String())
	if err == nil {
		_ = c.Close()
	}
	return err
}

// trySocket says whether a socket can be made where the plan wants it.
func (r *run) trySocket() error {
	if r.plan.SourceInterface != "" {
		return interfaceError("sockets are bound to an interface on Linux only")
	}
	return nil
}

// dialThere is for network namespaces, of which there are none.
func (r *run) dialThere(context.Context, int) (net.Conn, time.Time, error) {
	return nil, time.Time{}, errors.ErrUnsupported
}

func newStampedSockets(context.Context, *run, func(arrival)) udpSockets { return nil }

func newPolledConns(context.Context, *run, func(streamEvent)) streamConns { return nil }

func keepStamping() func() { return func() {} }

func stampConn(net.Conn) timedReader { return nil }

// localMTU is not known here.
func localMTU(*run) int { return 0 }

// newAlarm answers the most exact alarm that there is.
func newAlarm() alarm { return newTimer() }

// clockStep is the least difference that the clock of this process tells, as far as it can be said without asking.
func clockStep() time.Duration { return 100 * time.Nanosecond }
