//go:build !unix

package echo

import "syscall"

// waiter would wait until a socket has something to read. Where there is no poll(2) the read itself waits, and its
// buffer with it.
type waiter struct{}

func newWaiter(syscall.Conn) (*waiter, error) { return &waiter{}, nil }

func (*waiter) wait() error { return nil }

// control does nothing: there is nothing to ask of the descriptor.
func (*waiter) control(func(fd uintptr)) error { return nil }

// takeUrgentInline does nothing: here urgent data is not echoed.
func takeUrgentInline(syscall.RawConn) error { return nil }

// buffersAreInherited: here each connection is given its socket buffers.
const buffersAreInherited = false

func setListenerBuffers(syscall.RawConn, buffers) error { return nil }

// switchBroadcastOff does nothing: here an answer may go to a broadcast address of one network.
func switchBroadcastOff(syscall.RawConn) error { return nil }
