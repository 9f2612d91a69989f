package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The exit codes. Scripts rely on them.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnmet       = 3
	exitUnreachable = 4
)

// errInterrupted ends what a Ctrl-C cut short.
var errInterrupted = errors.New("interrupted")

// usageError is a command line that cannot be meant.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// exitError ends with a code when all there is to say has been said.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// kind is what a call was about, which decides what advice helps.
type kind string

const (
	anEndpoint kind = "endpoint"
	aProbe     kind = "probe"
	aMonitor   kind = "monitor"
	aSession   kind = "session"
)

// callError is a failed call about one thing; the name is empty when the daemon was to choose it.
type callError struct {
	kind kind
	name string
	err  error
	// locate says in the user's words what a field of the request was, such as its place in a file; empty when it cannot.
	// Nil: fields are told by their paths.
	locate func(field string) string
}

func (e *callError) Error() string { return e.err.Error() }
func (e *callError) Unwrap() error { return e.err }

// about says what a failed call was about; it keeps nil nil.
func about(k kind, name string, err error) error {
	if err == nil {
		return nil
	}
	return &callError{kind: k, name: name, err: err}
}

// finish tells the user of an error, if there is one, and answers the exit code.
func (a *app) finish(cmd *cobra.Command, err error) int {
	if err == nil {
		return exitDone
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	var usage *usageError
	if errors.As(err, &usage) {
		a.talk("echoctl: %s (see %s --help)", usage.message, cmd.CommandPath())
		return exitUsage
	}
	message, code := a.explain(err)
	a.talk("echoctl: %s", message)
	return code
}

// statusOf is the gRPC status in err's chain; nil when there is none.
func statusOf(err error) *status.Status {
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		return s.GRPCStatus()
	}
	return nil
}

func codeOf(err error) codes.Code {
	if s := statusOf(err); s != nil {
		return s.Code()
	}
	return codes.OK
}

// explain puts an error into words, with advice where there is some, and answers the exit code that goes with it.
func (a *app) explain(err error) (string, int) {
	s := statusOf(err)
	if s == nil {
		return err.Error(), exitFailed
	}
	info, violations := details(s)
	switch {
	case errors.Is(err, context.Canceled) || s.Code() == codes.Canceled:
		return errInterrupted.Error(), exitFailed
	case info == nil && isForeign(s):
		return fmt.Sprintf("%s is no gRPC server: it answers in plain HTTP. Give the address that echod takes gRPC at "+
			"(%s unless it was told otherwise), not the one for REST.", a.peer.server, defaultServer), exitUnreachable
	case info == nil && s.Code() == codes.Unavailable:
		return a.peer.trouble(false), exitUnreachable
	case info == nil && s.Code() == codes.DeadlineExceeded && !a.peer.reached():
		return a.peer.trouble(true), exitUnreachable
	case info == nil && s.Code() == codes.DeadlineExceeded:
		return fmt.Sprintf("echod at %s did not answer within %s (--call-timeout)", a.peer.server,
			a.options.callTimeout.value), exitFailed
	case info == nil && s.Code() == codes.Unimplemented:
		return fmt.Sprintf("the daemon at %s does not know this call; it may be older than this echoctl "+
			"(echoctl version shows both)", a.peer.server), exitFailed
	case info == nil && s.Code() == codes.Internal && strings.HasSuffix(s.Message(), "string field contains invalid UTF-8"):
		return "a name or text of this command is not UTF-8", exitUsage // it was not even sent
	}
	return a.words(err, s, info, violations), exitFailed
}

// isForeign tells of answers in HTTP/2 that are not gRPC's.
func isForeign(s *status.Status) bool {
	return slices.ContainsFunc([]string{"unexpected HTTP status code", "unexpected content-type", "malformed header"},
		func(sign string) bool { return strings.Contains(s.Message(), sign) })
}

// needsReplace is the reason of an apply that only a new socket would do for.
const needsReplace = "NEEDS_REPLACE"

// reasonOf is the reason in an error of the daemon's; empty when there is none.
func reasonOf(err error) string {
	if s := statusOf(err); s != nil {
		info, _ := details(s)
		return info.GetReason()
	}
	return ""
}

func details(s *status.Status) (*errdetails.ErrorInfo, []*errdetails.BadRequest_FieldViolation) {
	var info *errdetails.ErrorInfo
	var violations []*errdetails.BadRequest_FieldViolation
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.BadRequest:
			violations = append(violations, d.GetFieldViolations()...)
		}
	}
	return info, violations
}

// words are the daemon's message, the fields it objects to one a line, and what to do next.
func (a *app) words(err error, s *status.Status, info *errdetails.ErrorInfo,
	violations []*errdetails.BadRequest_FieldViolation) string {
	message := s.Message()
	if message == "" {
		message = "the daemon answered " + s.Code().String()
	}
	var call *callError
	if !errors.As(err, &call) {
		call = &callError{}
	}
	if call.name != "" && !strings.Contains(message, call.name) {
		message = call.name + ": " + message
	}
	lines := append([]string{message}, violationLines(message, violations)...)
	if located := locatedLines(message, info, violations, call.locate); located != nil {
		lines = located
	} else if len(violations) > 1 && len(lines) == 1 {
		// The message has all of them in a row, which is hard to read when there are several.
		lines = append([]string{"the daemon refuses these values:"}, violationLines("", violations)...)
		if all, _ := strconv.Atoi(info.GetMetadata()["violations"]); all > len(violations) {
			lines = append(lines, fmt.Sprintf("  and %d more", all-len(violations)))
		}
	}
	if hint := hint(s.Code(), info.GetReason(), call); hint != "" {
		lines = append(lines, hint)
	}
	return strings.Join(lines, "\n")
}

// locatedLines are what the daemon objects to, each with its place; nil when there is one without.
func locatedLines(message string, info *errdetails.ErrorInfo, violations []*errdetails.BadRequest_FieldViolation,
	locate func(string) string) []string {
	if locate == nil || len(violations) == 0 {
		return nil
	}
	var lines []string
	for _, v := range violations {
		where := locate(v.GetField())
		if where == "" {
			return nil
		}
		lines = append(lines, "  "+where+": "+v.GetDescription())
	}
	all := len(violations)
	if n, _ := strconv.Atoi(info.GetMetadata()["violations"]); n > all {
		lines, all = append(lines, fmt.Sprintf("  and %d more", n-all)), n
	}
	// What stands before the first of them says how many there are, and what became of the rest.
	head, _, ok := strings.Cut(message, ": "+violations[0].GetField()+": ")
	switch {
	case !ok && all == 1:
		return []string{strings.TrimSpace(lines[0]), "nothing was changed"}
	case !ok:
		head = fmt.Sprintf("the daemon refuses %d values, and nothing was changed", all)
	}
	return append([]string{head + ":"}, lines...)
}

// violationLines are the fields that the daemon objects to, without those that the message names already.
func violationLines(message string, violations []*errdetails.BadRequest_FieldViolation) []string {
	var lines []string
	for _, v := range violations {
		line := v.GetDescription()
		if v.GetField() != "" {
			line = v.GetField() + ": " + line
		}
		if message == "" || !strings.Contains(message, line) {
			lines = append(lines, "  "+line)
		}
	}
	return lines
}

// hint is what to do next, where the message does not say it already.
func hint(code codes.Code, reason string, call *callError) string {
	if reason == "NEEDS_STOP" {
		return "stop it first: echoctl stop " + call.name
	}
	switch reason {
	case "NO_TTL":
		return "give it one: echoctl renew " + call.name + " --ttl 10m"
	case needsReplace:
		return replaceHint
	case "SESSION_NOT_FOUND":
		return "echoctl session holds one"
	}
	if call.kind == aSession {
		return ""
	}
	list, get := "echoctl list", "echoctl get "
	if call.kind == aProbe || call.kind == aMonitor {
		list, get = "echoctl "+string(call.kind)+" list", "echoctl "+string(call.kind)+" get "
	}
	switch {
	case code == codes.NotFound && call.kind != "":
		return list + " shows those there are"
	case code == codes.AlreadyExists && call.name != "":
		return get + call.name + " shows it"
	case code == codes.Aborted && call.name != "":
		return get + call.name + " shows it as it is now"
	}
	return ""
}
