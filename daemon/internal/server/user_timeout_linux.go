package server

import (
	"time"

	"golang.org/x/sys/unix"
)

// setUserTimeout bounds how long what a connection sends may stay unacknowledged (TCP_USER_TIMEOUT, RFC 5482). Connections
// have it from their listener.
func setUserTimeout(fd uintptr, d time.Duration) error {
	return unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
}
