//go:build !linux

package echo

import (
	"errors"
	"syscall"
)

// controlBytes is 0 as no control messages are used: the answer of a socket of all addresses comes from the address
// that the system picks, with its usual TTL and no DSCP.
const controlBytes = 0

// askControlRaw asks for none. It has the kernel refuse to answer a broadcast address, which a forged source may be.
func askControlRaw(_ string, _ bool, raw syscall.RawConn) error { return switchBroadcastOff(raw) }

func answerControl([]byte, bool) (int, event) { return 0, noEvent }

// observeDrops does nothing: this system does not tell what a socket has lost.
func observeDrops(int, *counters) {}

// UDPReceiveBuffer is not told by this system.
func UDPReceiveBuffer() (got, asked int, err error) { return 0, udpSocketBytes, errors.ErrUnsupported }
