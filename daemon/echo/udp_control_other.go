//go:build !linux

package echo

import "syscall"

// controlBytes is 0 as no control messages are used: the answer of a socket of all addresses comes from the address
// that the system picks.
const controlBytes = 0

func askDestinationRaw(string, syscall.RawConn) error { return nil }

func answerFromDestination([]byte) (answer []byte, unicast bool) { return nil, true }
