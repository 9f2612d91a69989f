package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"buf.build/go/protovalidate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/budget"
	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/monitor"
	"github.com/echod/echod/daemon/internal/registry"
	"github.com/echod/echod/daemon/internal/runs"
	"github.com/echod/echod/daemon/internal/targets"
	"github.com/echod/echod/daemon/probe"
)

const (
	// domain is what ErrorInfo says our reasons belong to.
	domain = "echod"
	// maxViolations is how many violations are listed; their number is told whatever it is.
	maxViolations = 20
	// maxShownValue is how much of a refused value is repeated to the caller.
	maxShownValue = 64
	maxShownPath  = 128
	// reasonNoLedger is read, too: of another daemon's answer.
	reasonNoLedger = "LEDGER_NOT_FOUND"
	// reasonNoSession is told to who would create in a session, and to who would hold it again.
	reasonNoSession = "SESSION_NOT_FOUND"
	// What reasonUpgrading and reasonUpgraded are told for passes in a moment.
	reasonUpgrading = "UPGRADING"
	reasonUpgraded  = "UPGRADED"
)

// badRequest is a request that a caller must change; it becomes INVALID_ARGUMENT.
type badRequest struct {
	reason     string // empty: BAD_VALUE
	violations []violation
}

type violation struct{ field, text string }

func (b *badRequest) Error() string {
	texts := make([]string, 0, len(b.violations))
	for _, v := range b.violations[:min(len(b.violations), maxViolations)] {
		texts = append(texts, strings.TrimPrefix(v.field+": "+v.text, ": "))
	}
	if rest := len(b.violations) - len(texts); rest > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", rest))
	}
	return strings.Join(texts, "; ")
}

func badField(field, format string, args ...any) error {
	return &badRequest{violations: []violation{{field, fmt.Sprintf(format, args...)}}}
}

// table says which status an error of the domain becomes, and what its receiver can do about it where the error does
// not say so itself. The first match counts.
var table = []struct {
	err    error
	code   codes.Code
	reason string
	advice string
}{
	{registry.ErrNotFound, codes.NotFound, "ENDPOINT_NOT_FOUND", ""},
	{registry.ErrNoLedger, codes.NotFound, reasonNoLedger, ""},
	{registry.ErrExists, codes.AlreadyExists, "ENDPOINT_EXISTS", ""},
	{registry.ErrStale, codes.Aborted, "STALE_ETAG", ""},
	{registry.ErrNeedsStop, codes.FailedPrecondition, "NEEDS_STOP", ""},
	{registry.ErrNeedsReplace, codes.FailedPrecondition, "NEEDS_REPLACE", ""},
	{registry.ErrNotServing, codes.FailedPrecondition, "NOT_SERVING", ""},
	{registry.ErrNotStored, codes.Unavailable, "STATE_NOT_WRITABLE", "nothing was changed"},
	{registry.ErrDraining, codes.FailedPrecondition, "DRAINING", ""},
	{registry.ErrNoTTL, codes.FailedPrecondition, "NO_TTL", ""},
	{registry.ErrNoSession, codes.FailedPrecondition, reasonNoSession, ""},
	{registry.ErrOtherSession, codes.InvalidArgument, "BAD_VALUE", ""},
	{registry.ErrSessionOver, codes.NotFound, reasonNoSession, ""},
	{registry.ErrSessionHeld, codes.AlreadyExists, "SESSION_HELD", ""},
	{registry.ErrWrongSecret, codes.PermissionDenied, "WRONG_SECRET", ""},
	{registry.ErrTooManySessions, codes.ResourceExhausted, "TOO_MANY_SESSIONS", ""},
	{registry.ErrTakenOver, codes.Aborted, "SESSION_TAKEN_OVER", ""},
	{runs.ErrNotFound, codes.NotFound, "PROBE_NOT_FOUND", ""},
	{runs.ErrExists, codes.AlreadyExists, "PROBE_EXISTS", ""},
	{budget.ErrUsedUp, codes.ResourceExhausted, "TOO_MANY_PROBES", ""},
	{budget.ErrTooLarge, codes.ResourceExhausted, "PROBE_TOO_LARGE", ""},
	{targets.ErrRefused, codes.PermissionDenied, "TARGET_REFUSED", ""},
	{runs.ErrTooSlow, codes.ResourceExhausted, "CLIENT_TOO_SLOW", ""},
	{monitor.ErrNotFound, codes.NotFound, "MONITOR_NOT_FOUND", ""},
	{monitor.ErrExists, codes.AlreadyExists, "MONITOR_EXISTS", ""},
	{monitor.ErrStale, codes.Aborted, "STALE_ETAG", ""},
	{monitor.ErrChanged, codes.Aborted, "MONITOR_CHANGED", ""},
	{monitor.ErrNotStored, codes.Unavailable, "STATE_NOT_WRITABLE", "nothing was changed"},
	{monitor.ErrTooMany, codes.ResourceExhausted, "TOO_MANY_MONITORS", ""},
	{monitor.ErrBusy, codes.ResourceExhausted, "TOO_MANY_PROBES", ""},
	{monitor.ErrBadExpect, codes.InvalidArgument, "BAD_VALUE", ""},
	{monitor.ErrClosed, codes.Unavailable, "SHUTTING_DOWN", ""},
	{event.ErrExpired, codes.OutOfRange, "RESUME_TOKEN_EXPIRED", ""},
	{event.ErrTooSlow, codes.OutOfRange, "WATCH_TOO_SLOW", "watch anew, with a filter or a faster reader"},
	{event.ErrTooMany, codes.ResourceExhausted, "TOO_MANY_WATCHES", "end others first"},
	{ErrUpgradeFailed, codes.FailedPrecondition, "UPGRADE_FAILED", ""},
	{ErrUpgradeRunning, codes.Aborted, "UPGRADE_RUNNING", ""},
	{ErrCannotUpgrade, codes.Unimplemented, "UPGRADE_NOT_POSSIBLE", "stop it and start the new one"},
	{ErrUpgrading, codes.Unavailable, reasonUpgrading, ""},
	{ErrUpgraded, codes.Unavailable, reasonUpgraded, "begin the call again, with the new process"},
	{ErrStateLost, codes.Unavailable, "STATE_LOST", ""},
	{ErrStopping, codes.Unavailable, "SHUTTING_DOWN", ""},
	{runs.ErrClosed, codes.Unavailable, "SHUTTING_DOWN", ""},
	{registry.ErrClosing, codes.Unavailable, "SHUTTING_DOWN", ""},
	{echo.ErrClosed, codes.Unavailable, "SHUTTING_DOWN", ""},
	{echo.ErrBadSpec, codes.InvalidArgument, "BAD_VALUE", ""},
	{echo.ErrNeedsRebind, codes.FailedPrecondition, "NEEDS_STOP", "stop the endpoint first"},
	{registry.ErrNamespaceNotAvailable, codes.FailedPrecondition, "NAMESPACE_NOT_AVAILABLE", ""},
	{echo.ErrInterfaceNotAvailable, codes.FailedPrecondition, "INTERFACE_NOT_AVAILABLE", "choose an interface or VRF of the daemon's host, or of the endpoint's network namespace"},
	{echo.ErrAddressInUse, codes.FailedPrecondition, "ADDRESS_IN_USE", "choose another port, or port 0 for a free one"},
	{echo.ErrAddressNotAvailable, codes.FailedPrecondition, "ADDRESS_NOT_AVAILABLE", "listen on an address of the daemon's host, or of the endpoint's network namespace, or on \":PORT\" for all of them"},
	{echo.ErrPortNeedsPrivilege, codes.FailedPrecondition, "PORT_NEEDS_PRIVILEGE", "take a port from 1024 up, or give echod CAP_NET_BIND_SERVICE"},
	{echo.ErrTooManyFiles, codes.ResourceExhausted, "TOO_MANY_FILES", "delete endpoints, or raise the daemon's limit of open files (ulimit -n)"},
	{probe.ErrSourceInterface, codes.FailedPrecondition, "INTERFACE_NOT_AVAILABLE", ""},
	{probe.ErrSourceInUse, codes.FailedPrecondition, "ADDRESS_IN_USE", ""},
	{probe.ErrSourceNotAvailable, codes.FailedPrecondition, "ADDRESS_NOT_AVAILABLE", ""},
	{probe.ErrSourceNeedsPrivilege, codes.FailedPrecondition, "PORT_NEEDS_PRIVILEGE", ""},
	{probe.ErrSource, codes.FailedPrecondition, "SOURCE_UNAVAILABLE", ""},
	{probe.ErrBadPlan, codes.InvalidArgument, "BAD_VALUE", ""},
	{context.Canceled, codes.Canceled, "", ""},
	{context.DeadlineExceeded, codes.DeadlineExceeded, "", ""},
}

// toStatus turns an error of a call into the one that is sent; internal says that its text is for the log only.
func toStatus(err error) (sent error, internal bool) {
	if err == nil {
		return nil, false
	}
	if bad := asBadRequest(err); bad != nil {
		return bad.status(), false
	}
	var many *several
	if errors.As(err, &many) {
		return many.status()
	}
	if _, ok := status.FromError(err); ok {
		return err, false // gRPC's own: a message that does not fit, a method that does not exist
	}
	for _, row := range table {
		if errors.Is(err, row.err) {
			text := err.Error()
			if row.advice != "" {
				text += "; " + row.advice
			}
			if row.reason == "" {
				return status.Error(row.code, text), false
			}
			details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: row.reason, Domain: domain}}
			if row.reason == reasonUpgrading || row.reason == reasonUpgraded {
				details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retryUpgrading)})
			}
			return withDetails(row.code, text, details...), false
		}
	}
	return status.Error(codes.Internal, "internal error"), true
}

// asBadRequest finds the request that a caller must change in an error, or answers nil.
func asBadRequest(err error) *badRequest {
	var invalid *protovalidate.ValidationError
	if errors.As(err, &invalid) {
		return fromRules(invalid)
	}
	var bad *badRequest
	if errors.As(err, &bad) {
		return bad
	}
	return nil
}

func (b *badRequest) status() error {
	reason := b.reason
	if reason == "" {
		reason = "BAD_VALUE"
	}
	list := &errdetails.BadRequest{}
	for _, v := range b.violations[:min(len(b.violations), maxViolations)] {
		list.FieldViolations = append(list.FieldViolations,
			&errdetails.BadRequest_FieldViolation{Field: v.field, Description: v.text})
	}
	info := &errdetails.ErrorInfo{
		Reason: reason, Domain: domain, Metadata: map[string]string{"violations": fmt.Sprint(len(b.violations))},
	}
	return withDetails(codes.InvalidArgument, b.Error(), info, list)
}

func withDetails(code codes.Code, text string, details ...protoadapt.MessageV1) error {
	s, err := status.New(code, text).WithDetails(details...)
	if err != nil {
		return status.Error(code, text) // the details are ours and encode; should they not, the text still counts
	}
	return s.Err()
}

// fromRules retells the violations of the contract's rules, with the value that broke each.
func fromRules(invalid *protovalidate.ValidationError) *badRequest {
	bad := &badRequest{}
	for _, v := range invalid.Violations {
		text := v.Proto.GetMessage()
		if text == "" {
			text = "breaks the rule " + v.Proto.GetRuleId()
		}
		// What is missing has no value to be shown.
		if shown := showValue(v.FieldDescriptor, v.FieldValue); shown != "" && !strings.HasPrefix(text, "is missing") {
			text += ", not " + shown
		}
		// A map's key is part of the path, and may be of any length.
		path := protovalidate.FieldPathString(v.Proto.GetField())
		if len(path) > maxShownPath {
			path = strings.ToValidUTF8(path[:maxShownPath], "") + "..."
		}
		bad.violations = append(bad.violations, violation{path, text})
	}
	return bad
}

// showValue writes a scalar for people, or nothing.
func showValue(field protoreflect.FieldDescriptor, value protoreflect.Value) string {
	if field == nil || !value.IsValid() {
		return ""
	}
	switch v := value.Interface().(type) {
	case string:
		if len(v) > maxShownValue {
			return fmt.Sprintf("%.*q... (%d bytes)", maxShownValue, v, len(v))
		}
		return fmt.Sprintf("%q", v)
	case protoreflect.Message:
		if d, ok := asDuration(v); ok {
			return d.String()
		}
		return ""
	case protoreflect.Map, protoreflect.List:
		return ""
	default:
		return fmt.Sprint(v)
	}
}
