//go:build unix

package echo

import "syscall"

// bindReasons are the system's codes behind each reason that an address cannot be bound.
var bindReasons = map[error][]syscall.Errno{
	ErrAddressInUse:        {syscall.EADDRINUSE},
	ErrAddressNotAvailable: {syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT},
	ErrPortNeedsPrivilege:  {syscall.EACCES, syscall.EPERM},
	ErrTooManyFiles:        {syscall.EMFILE, syscall.ENFILE},
}

const invalidArgument = syscall.EINVAL

// resetCodes are what a connection tells after the peer's reset: first that, then a broken pipe to a write and no
// connection to a shutdown.
var resetCodes = []syscall.Errno{syscall.ECONNRESET, syscall.EPIPE, syscall.ENOTCONN}
