package gateway

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
)

// newStatus makes what a refusal of HTTP's own is told as; its reason is in ErrorInfo, like the services' reasons.
func newStatus(code codes.Code, reason, message string, details ...protoadapt.MessageV1) *spb.Status {
	info := &errdetails.ErrorInfo{Reason: reason, Domain: "echod"}
	s, err := status.New(code, message).WithDetails(append([]protoadapt.MessageV1{info}, details...)...)
	if err != nil {
		return &spb.Status{Code: int32(code), Message: message}
	}
	return s.Proto()
}

func badValue(field, text string) *spb.Status {
	return newStatus(codes.InvalidArgument, "BAD_VALUE", field+": "+text, &errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: text}},
	})
}

func notFoundStatus(path, hint string) *spb.Status {
	return newStatus(codes.NotFound, "PATH_NOT_FOUND", fmt.Sprintf("there is nothing at %s; %s", shorten(path), hint))
}

func writeStatus(w http.ResponseWriter, code int, s *spb.Status) {
	text, err := newJSON().Marshal(s)
	if err != nil {
		text = []byte(`{"message": "internal error"}` + "\n")
	}
	w.Header().Set("Content-Type", "application/json")
	if after := retryAfter(s); after != "" {
		w.Header().Set("Retry-After", after)
	}
	w.WriteHeader(code)
	_, _ = w.Write(text) // a client that went away is told nothing
}

// retryAfter is when to try again, as HTTP has it: in whole seconds, and so not too soon. Empty where a status does not say.
func retryAfter(s *spb.Status) string {
	for _, detail := range s.GetDetails() {
		var retry errdetails.RetryInfo
		if detail.MessageIs(&retry) && detail.UnmarshalTo(&retry) == nil && retry.GetRetryDelay().IsValid() {
			return strconv.FormatInt(max(0, int64(math.Ceil(retry.GetRetryDelay().AsDuration().Seconds()))), 10)
		}
	}
	return ""
}

// writeCallError answers a call that failed: in a service, or while its request was read.
func writeCallError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	s := status.Convert(err)
	sent := s.Proto()
	if s.Code() == codes.InvalidArgument && len(s.Details()) == 0 {
		field, text := readError(s.Message())
		sent = badValue(field, text)
	}
	writeStatus(w, runtime.HTTPStatusFromCode(s.Code()), sent)
}

// How the JSON and query readers write their errors, in more than one spelling.
var (
	readerPrefix = regexp.MustCompile(`^(?:proto:[\s\x{a0}]*)?(?:\(line (\d+):(\d+)\):[\s\x{a0}]*)?`)
	fieldName    = regexp.MustCompile(`\b(?:field|parameter|key):? "?([A-Za-z_][\w.]*)"?`)
)

// readError makes of a reader's error what people are told: which field, and what is wrong.
func readError(message string) (field, text string) {
	text = strings.TrimSpace(readerPrefix.ReplaceAllString(message, ""))
	if at := readerPrefix.FindStringSubmatch(message); at != nil && at[1] != "" {
		text += fmt.Sprintf(" (line %s, column %s)", at[1], at[2])
	}
	field = "body"
	if m := fieldName.FindStringSubmatch(text); m != nil {
		field = m[1]
	}
	return field, text
}
