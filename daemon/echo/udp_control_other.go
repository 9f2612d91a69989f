//go:build !linux

package echo

import (
	"sync/atomic"
	"syscall"
)

// controlBytes is 0 as no control messages are used: the answer of a socket of all addresses comes from the address
// that the system picks, with its usual TTL and no DSCP.
const controlBytes = 0

func askControlRaw(string, bool, syscall.RawConn) error { return nil }

func answerControl([]byte, *guard, *counters) ([]byte, *atomic.Uint64) { return nil, nil }

// observeDrops does nothing: this system does not tell what a socket has lost.
func observeDrops(int, *counters) {}
