package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"syscall"

	"github.com/echod/echod/daemon/internal/netns"
)

// Why rounds cannot come from where a plan says (Plan.Source and what begins like it). Errors of Run satisfy errors.Is with
// ErrSource, and with one of the others on every system when it is the reason. Their text says which address and port, and what
// to do.
var (
	ErrSource = errors.New("the source cannot be had")
	// ErrSourceInUse: another socket has the port, or it is kept for a connection that has ended.
	ErrSourceInUse = errors.New("address already in use")
	// ErrSourceNotAvailable: this host has no such address, or it is of another IP version than the target.
	ErrSourceNotAvailable = errors.New("this host has no such address")
	// ErrSourceNamespace: there is no such network namespace, or the process may not enter it.
	ErrSourceNamespace = netns.ErrNotAvailable
	// ErrSourceInterface: there is no interface of that name, or sockets cannot be bound to one.
	ErrSourceInterface = errors.New("there is no interface of that name")
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

// enter finds out whether sockets can be made where the plan says, and holds that namespace open until leave.
func (r *run) enter() (err error) {
	name, device := r.plan.SourceNamespace, r.plan.SourceInterface
	if r.prober.options.DialContext != nil || name == "" && device == "" {
		return nil
	}
	if name != "" {
		if r.from, err = netns.Open(name); err != nil {
			return r.notThere(err)
		}
	}
	// What else may fail (no descriptors, no IPv6) the rounds tell.
	if err := r.trySocket(); errors.Is(err, ErrSourceNamespace) || errors.Is(err, ErrSourceInterface) {
		r.leave()
		return r.notThere(err)
	}
	return nil
}

// leave lets go of what enter has opened; sockets stay where they are.
func (r *run) leave() { _ = r.from.Close() } // It was opened to be looked through.

// notThere ends the run, for its sockets cannot be made where they are to be.
func (r *run) notThere(err error) error {
	reason, text := ErrSource, fmt.Sprintf("cannot send from network namespace %q: %v", r.plan.SourceNamespace, err)
	switch {
	case errors.Is(err, ErrSourceInterface):
		reason, text = ErrSourceInterface, fmt.Sprintf("cannot send by interface %s: %v; choose one that is there, or none", r.plan.SourceInterface, err)
		if r.plan.SourceNamespace != "" {
			text = fmt.Sprintf("cannot send by interface %s in network namespace %q: %v; choose one that is there, or none",
				r.plan.SourceInterface, r.plan.SourceNamespace, err)
		}
	case errors.Is(err, ErrSourceNamespace):
		reason = ErrSourceNamespace
	}
	return refusal{sourceError{text, reason}, ReasonSourceUnavailable}
}

// interfaceError is an ErrSourceInterface whose text is the problem alone.
type interfaceError string

func (e interfaceError) Error() string        { return string(e) }
func (e interfaceError) Is(target error) bool { return target == ErrSourceInterface }

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
		err := r.bindOnce(r.source(flow))
		if call, ok := errors.AsType[*os.SyscallError](err); ok && call.Syscall == "bind" {
			return refusal{sourceFailed(r.source(flow), err), ReasonSourceUnavailable}
		}
	}
	return nil
}
