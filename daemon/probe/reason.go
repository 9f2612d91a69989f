package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
)

// unixReasons are the errors of sockets on Linux, macOS and their kin.
var unixReasons = map[syscall.Errno]Reason{
	syscall.ECONNREFUSED: ReasonRefused,
	syscall.ENETUNREACH:  ReasonUnreachable,
	syscall.EHOSTUNREACH: ReasonUnreachable,
	syscall.ENETDOWN:     ReasonUnreachable,
	syscall.EHOSTDOWN:    ReasonUnreachable,
	syscall.EACCES:       ReasonUnreachable, // ICMPv6 administratively prohibited (RFC 4443), as firewalls reject
	syscall.ENOPROTOOPT:  ReasonUnreachable, // ICMP protocol unreachable (RFC 792)
	syscall.ECONNRESET:   ReasonReset,
	syscall.ECONNABORTED: ReasonReset,
	syscall.EPIPE:        ReasonReset,
	syscall.ETIMEDOUT:    ReasonTimeout,
	syscall.EMSGSIZE:     ReasonTooBig,
}

// windowsReasons are the same as Winsock numbers them. They are numbers here because package syscall has only some of
// them, and only on Windows; its constants above are made up there.
var windowsReasons = map[syscall.Errno]Reason{
	10061: ReasonRefused,     // WSAECONNREFUSED
	10051: ReasonUnreachable, // WSAENETUNREACH
	10065: ReasonUnreachable, // WSAEHOSTUNREACH
	10050: ReasonUnreachable, // WSAENETDOWN
	10064: ReasonUnreachable, // WSAEHOSTDOWN
	10054: ReasonReset,       // WSAECONNRESET
	10053: ReasonReset,       // WSAECONNABORTED
	10060: ReasonTimeout,     // WSAETIMEDOUT
	10040: ReasonTooBig,      // WSAEMSGSIZE
}

// errNoRoom is why a datagram was not sent.
var errNoRoom = errors.New("no room in the socket's buffer: not sent")

// reasonOf puts an error of a socket into the contract's words.
func reasonOf(err error) Reason {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		reasons := unixReasons
		if runtime.GOOS == "windows" {
			reasons = windowsReasons
		}
		if reason, ok := reasons[errno]; ok {
			return reason
		}
	}
	var timeout net.Error
	switch {
	case errors.Is(err, errNoRoom):
		return ReasonNotSent
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ReasonClosedEarly
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return ReasonTimeout
	case errors.As(err, &timeout) && timeout.Timeout():
		return ReasonTimeout
	default:
		return ReasonOther
	}
}

// inWords answers what the system says of an error of a socket, without the layers of package net around it: they name
// the address, which the report has, and a local port, by which alike errors would read differently.
func inWords(err error) string {
	var big tooBigError
	if errors.As(err, &big) {
		return big.Error()
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	// Which resolver was asked is nobody's business who may only probe.
	var lookup *net.DNSError
	if errors.As(err, &lookup) {
		return lookup.Err
	}
	return err.Error()
}
