package echo

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// bindReasons are the system's codes behind each reason that an address cannot be bound. Sockets of Windows have codes
// of their own, which package syscall does not take for the POSIX ones.
var bindReasons = map[error][]syscall.Errno{
	ErrAddressInUse:        {windows.WSAEADDRINUSE},
	ErrAddressNotAvailable: {windows.WSAEADDRNOTAVAIL, windows.WSAEAFNOSUPPORT},
	ErrPortNeedsPrivilege:  {windows.WSAEACCES},
	ErrTooManyFiles:        {windows.WSAEMFILE},
}

const invalidArgument = windows.WSAEINVAL

// resetCodes are what reading from and writing to a connection tell after the peer's reset. A UDP socket reports with
// the first of them that an earlier datagram found no receiver.
var resetCodes = []syscall.Errno{windows.WSAECONNRESET, windows.WSAECONNABORTED, windows.WSAENETRESET,
	windows.WSAENOTCONN}
