package rpc

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/echod/echod/daemon/internal/registry"
)

// maxTold is how many problems are told in a message for people; the details have maxViolations.
const maxTold = 3

// several is why many endpoints cannot be had as one change. It becomes the status that the first problem would be alone,
// with the place of each in BadRequest.
type several struct {
	list  string // the field of the request that has the endpoints: requests, endpoints
	place string // and the endpoint in each of them: ".endpoint", or nothing
	of    int    // how many endpoints were given
	*registry.Problems
}

// inRequest says where in a request the definitions stood that an error of the registry is about.
func inRequest(err error, list, place string, of int) error {
	var problems *registry.Problems
	if errors.As(err, &problems) && len(problems.List) > 0 {
		return &several{list, place, of, problems}
	}
	return err
}

// element writes the path of an endpoint in a request.
func element(list string, index int, place string) string {
	return fmt.Sprintf("%s[%d]%s", list, index, place)
}

// relocated takes the violations of an endpoint that was looked at alone to where it stands in a request.
func relocated(err error, to string) []violation {
	bad := asBadRequest(err)
	if bad == nil {
		return nil
	}
	for i, v := range bad.violations {
		if rest, ok := strings.CutPrefix(v.field, "endpoint"); ok {
			bad.violations[i].field = to + rest
		}
	}
	return bad.violations
}

// status answers what is sent, and whether there is something in it for the log alone.
func (s *several) status() (sent error, internal bool) {
	first, _ := toStatus(s.List[0].Err)
	list := &errdetails.BadRequest{}
	var told []string
	for i, problem := range s.List {
		sent, hidden := toStatus(problem.Err)
		internal = internal || hidden
		if i >= maxViolations {
			continue
		}
		field, text := element(s.list, problem.Index, s.place)+"."+problem.Field, status.Convert(sent).Message()
		list.FieldViolations = append(list.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: field, Description: text})
		if i < maxTold {
			told = append(told, field+": "+text)
		}
	}
	if rest := len(s.List) - len(told); rest > 0 {
		told = append(told, fmt.Sprintf("and %d more", rest))
	}
	verdict := "nothing was changed"
	for i, err := range s.Lost {
		if i == maxTold {
			verdict += fmt.Sprintf("; and %d more", len(s.Lost)-i)
			break
		}
		verdict += ", but " + err.Error()
	}
	text := fmt.Sprintf("%d of %d endpoints cannot be had, and %s: %s", len(s.List), s.of, verdict, strings.Join(told, "; "))
	info := &errdetails.ErrorInfo{Reason: reasonOf(first), Domain: domain, Metadata: map[string]string{"violations": fmt.Sprint(len(s.List))}}
	if info.GetReason() == "" {
		return withDetails(codes.Internal, text, list), internal
	}
	return withDetails(status.Code(first), text, info, list), internal
}

// reasonOf reads the reason out of a status.
func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}
