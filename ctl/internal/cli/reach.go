package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
)

// reached tells whether what listens there is a gRPC server.
func (p *peer) reached() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dialErr == nil && len(p.greeting) == greetingBytes && p.greeting[greetingBytes-1] == settingsFrameType
}

// trouble says why a call did not get through, perhaps because its time was up, and what to do about it.
func (p *peer) trouble(timeUp bool) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	const elsewhere = "Another address: --server or ECHOCTL_SERVER."
	switch {
	case p.dialErr != nil:
		advice := "Is it running? Start it with: echod. " + elsewhere
		if errors.Is(p.dialErr, fs.ErrPermission) {
			advice = elsewhere
		}
		return fmt.Sprintf("cannot reach echod at %s: %s. %s", p.server, dialReason(p.dialErr), advice)
	case !p.connected:
		return fmt.Sprintf("cannot reach echod at %s: no connection yet when time was up (--call-timeout). %s", p.server,
			elsewhere)
	case len(p.greeting) < greetingBytes && timeUp:
		return fmt.Sprintf("cannot reach echod at %s: it takes connections, but had not answered as a gRPC server when time "+
			"was up (--call-timeout). %s", p.server, elsewhere)
	case len(p.greeting) < greetingBytes:
		return fmt.Sprintf("cannot reach echod at %s: it takes connections but does not answer as a gRPC server. %s",
			p.server, elsewhere)
	case strings.HasPrefix(string(p.greeting), "HTTP"):
		return fmt.Sprintf("%s is no gRPC server: it answers in HTTP/1. Give the address that echod takes gRPC at "+
			"(%s unless it was told otherwise), not the one for REST.", p.server, defaultServer)
	case p.greeting[greetingBytes-1] != settingsFrameType:
		return fmt.Sprintf("%s is no gRPC server: it does not answer in HTTP/2. %s", p.server, elsewhere)
	default:
		return fmt.Sprintf("lost the connection to echod at %s", p.server)
	}
}

// dialReason is the cause of a failed dial without the address, which the message has already.
func dialReason(err error) string {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		if dns.IsNotFound {
			return "no such host"
		}
		return dns.Err
	}
	// Before the system call's error: a deadline is one of those, too.
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Sprintf("no answer within %s", connectTimeout)
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		return call.Err.Error()
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}
