//go:build !linux

package echo

import (
	"errors"
	"syscall"
)

// controlBytes is 0 as no control messages are used: the answer of a socket of all addresses comes from the address
// that the system picks, with its usual TTL and no DSCP.
const controlBytes = 0

func askControlRaw(string, bool, syscall.RawConn) error { return nil }

func answerControl([]byte, bool) (int, marks, event) { return 0, noMarks, noEvent }

// observeDrops does nothing: this system does not tell what a socket has lost.
func observeDrops(int, *counters) {}

// UDPReceiveBuffer is not told by this system.
func UDPReceiveBuffer() (got, asked int, err error) { return 0, udpSocketBytes, errors.ErrUnsupported }
