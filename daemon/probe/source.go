package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"syscall"
)

// Why rounds cannot come from where a plan says (Plan.Source). Errors of Run satisfy errors.Is with ErrSource, and with one
// of the others on every system when it is the reason. Their text says which address and port, and what to do.
var (
	ErrSource = errors.New("the source cannot be had")
	// ErrSourceInUse: another socket has the port, or it is kept for a connection that has ended.
	ErrSourceInUse = errors.New("address already in use")
	// ErrSourceNotAvailable: this host has no such address, or it is of another IP version than the target.
	ErrSourceNotAvailable = errors.New("this host has no such address")
	// ErrSourceNeedsPrivilege: the process may not use the port.
	ErrSourceNeedsPrivilege = errors.New("permission denied; this port needs privilege")
)

// unixSources are the errors of binding on Linux, macOS and their kin.
var unixSources = map[syscall.Errno]error{
	syscall.EADDRINUSE:    ErrSourceInUse,
	syscall.EADDRNOTAVAIL: ErrSourceNotAvailable,
	syscall.EAFNOSUPPORT:  ErrSourceNotAvailable,
	syscall.EACCES:        ErrSourceNeedsPrivilege,
	syscall.EPERM:         ErrSourceNeedsPrivilege,
}

// windowsSources are the same as Winsock numbers them; see windowsReasons.
var windowsSources = map[syscall.Errno]error{
	10048: ErrSourceInUse,          // WSAEADDRINUSE
	10049: ErrSourceNotAvailable,   // WSAEADDRNOTAVAIL
	10047: ErrSourceNotAvailable,   // WSAEAFNOSUPPORT
	10013: ErrSourceNeedsPrivilege, // WSAEACCES
}

// sourceAdvice says what to do about each.
var sourceAdvice = map[error]string{
	ErrSource:               "choose another source",
	ErrSourceInUse:          "choose another source port, or wait until it is free",
	ErrSourceNotAvailable:   "choose an address of the host that sends, or none",
	ErrSourceNeedsPrivilege: "choose a source port from 1024 up, or give the process CAP_NET_BIND_SERVICE",
}

// sourceError is an ErrSource, and the reason.
type sourceError struct {
	text   string
	reason error
}

func (e sourceError) Error() string        { return e.text }
func (e sourceError) Is(target error) bool { return target == ErrSource || target == e.reason }

// sourceFailed tells why a socket cannot be bound to a source.
func sourceFailed(source netip.AddrPort, err error) error {
	from := source.String()
	if source.Port() == 0 {
		from = source.Addr().String()
	}
	reason, why := ErrSource, inWords(err)
	sources := unixSources
	if runtime.GOOS == "windows" {
		sources = windowsSources
	}
	var errno syscall.Errno
	if errors.As(err, &errno) && sources[errno] != nil {
		reason = sources[errno]
		why = reason.Error()
	}
	return sourceError{fmt.Sprintf("cannot send from %s: %s; %s", from, why, sourceAdvice[reason]), reason}
}

// checkSource says whether each flow can come from where the plan says: else a flow's rounds would be lost for want of a
// port here, and read as loss of the network's. Sockets are bound and closed again; a port that is taken between that and
// the flow's first round is still told of by its rounds.
func (r *run) checkSource() error {
	if r.prober.options.DialContext != nil || !r.source(0).IsValid() {
		return nil
	}
	source, target := r.source(0).Addr(), r.address.Addr()
	if source.Is4() != target.Is4() {
		text := fmt.Sprintf("cannot send from %s to %s, which is of the other IP version; choose a source of that one, or none", source, target)
		return refusal{sourceError{text, ErrSourceNotAvailable}, ReasonSourceUnavailable}
	}
	flows := r.plan.flows()
	if r.plan.Source.Port() == 0 {
		flows = 1 // they differ only in the ports that the system chooses
	}
	for flow := range flows {
		// What else may fail (no descriptors, no IPv6) the rounds tell.
		err := bindOnce(r.plan.Protocol, r.source(flow))
		if call, ok := errors.AsType[*os.SyscallError](err); ok && call.Syscall == "bind" {
			return refusal{sourceFailed(r.source(flow), err), ReasonSourceUnavailable}
		}
	}
	return nil
}
