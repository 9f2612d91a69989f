package echo

import (
	"errors"
	"fmt"
	"strconv"
	"syscall"
)

// What callers tell apart with errors.Is.
var (
	// ErrBadSpec marks a [Spec] or a listen string that no endpoint can be opened from.
	ErrBadSpec = errors.New("bad endpoint specification")
	// ErrClosed is returned by what was closed before.
	ErrClosed = errors.New("already closed")
	// ErrNeedsRebind is returned by [Endpoint.Update] for a change that only a new socket could make.
	ErrNeedsRebind = errors.New("protocol, listen address, interface and place change only with a new socket")
)

// Why an address cannot be bound. Errors of [Engine.Listen] satisfy errors.Is with one of them on every system when it
// is the reason.
var (
	// ErrAddressInUse: another socket has the address, or no free port is left to pick.
	ErrAddressInUse = errors.New("address already in use")
	// ErrAddressNotAvailable: the host has no such address or interface, or not that address family.
	ErrAddressNotAvailable = errors.New("this host has no such address")
	// ErrPortNeedsPrivilege: the process may not use the port.
	ErrPortNeedsPrivilege = errors.New("permission denied; this port needs privilege")
	// ErrInterfaceNotAvailable: there is no interface of that name, or sockets cannot be bound to one.
	ErrInterfaceNotAvailable = errors.New("there is no interface of that name")
	// ErrTooManyFiles: the process or the host has no file descriptor left.
	ErrTooManyFiles = errors.New("too many open files")
)

// specError is an ErrBadSpec whose text is the problem alone.
type specError string

func (e specError) Error() string        { return string(e) }
func (e specError) Is(target error) bool { return target == ErrBadSpec }

func badSpec(format string, args ...any) error { return specError(fmt.Sprintf(format, args...)) }

func badListen(listen, problem string) error {
	return badSpec("cannot listen on %s: %s", strconv.Quote(listen), problem)
}

// bindError says why asked cannot be bound: the reason alone, without the layers of package net around it.
func bindError(asked string, address Address, err error) error {
	if isOwnWords(err) {
		return fmt.Errorf("cannot bind %s: %w", asked, err)
	}
	for reason, codes := range bindReasons {
		for _, code := range codes {
			if errors.Is(err, code) {
				return fmt.Errorf("cannot bind %s: %w", asked, reason)
			}
		}
	}
	// An address whose zone names no interface of this host is an invalid argument to the system.
	if address.IP.Zone() != "" && errors.Is(err, invalidArgument) {
		return fmt.Errorf("cannot bind %s: %w", asked, ErrAddressNotAvailable)
	}
	if errors.Is(err, ErrBadSpec) {
		return badSpec("cannot bind %s: %v", asked, err)
	}
	if code, ok := errors.AsType[syscall.Errno](err); ok {
		err = code
	}
	return fmt.Errorf("cannot bind %s: %w", asked, err)
}

// isReset reports whether err says that the peer threw the connection away.
func isReset(err error) bool {
	for _, code := range resetCodes {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}
