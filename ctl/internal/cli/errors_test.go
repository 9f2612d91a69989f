package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"testing"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func reason(r string) *errdetails.ErrorInfo { return &errdetails.ErrorInfo{Reason: r, Domain: "echod"} }

func violations(fields ...string) *errdetails.BadRequest {
	b := &errdetails.BadRequest{}
	for _, f := range fields {
		b.FieldViolations = append(b.FieldViolations,
			&errdetails.BadRequest_FieldViolation{Field: f, Description: "must be so"})
	}
	return b
}

// TestTextThatCannotBeSent: gRPC's words of it say nothing to who typed it.
func TestTextThatCannotBeSent(t *testing.T) {
	s := at(t, shared.GRPC)
	for _, args := range [][]string{
		{"list", "--filter", "name = \"\xff\""}, {"create", "tcp", "--name", "\xff"}, {"create", "tcp", "--description", "\xff", "--count", "2"}, {"get", "\xff"},
	} {
		s.run(args...).want(t, 2, "", "echoctl: a name or text of this command is not UTF-8\n")
	}
}

// TestErrorsInWords holds each kind of refusal to its words, its advice and its exit code.
func TestErrorsInWords(t *testing.T) {
	many := reason("BAD_VALUE")
	many.Metadata = map[string]string{"violations": "30"}
	for _, c := range []struct {
		name string
		err  error
		code int
		want string
	}{
		{"needs stop", failure(t, codes.FailedPrecondition, `"web-1" serves`, reason("NEEDS_STOP")), 1,
			"\"web-1\" serves\nstop it first: echoctl stop web-1\n"},
		{"address in use", failure(t, codes.FailedPrecondition, "web-1: in use", reason("ADDRESS_IN_USE")), 1,
			"web-1: in use\n"},
		{"taken", failure(t, codes.AlreadyExists, "web-1 is taken", reason("ALREADY_EXISTS")), 1,
			"web-1 is taken\nechoctl get web-1 shows it\n"},
		{"no such", failure(t, codes.NotFound, "no web-1", reason("NOT_FOUND")), 1,
			"no web-1\nechoctl list shows those there are\n"},
		{"stale", failure(t, codes.Aborted, "web-1 has changed", reason("ETAG_MISMATCH")), 1,
			"web-1 has changed\nechoctl get web-1 shows it as it is now\n"},
		{"no name in the message", failure(t, codes.ResourceExhausted, "out of descriptors", reason("DESCRIPTORS")), 1,
			"web-1: out of descriptors\n"},
		{"no message", failure(t, codes.Internal, "", reason("INTERNAL")), 1, "web-1: the daemon answered Internal\n"},
		{"one violation", failure(t, codes.InvalidArgument, "web-1 is bad", reason("BAD_VALUE"),
			violations("endpoint.listen")), 1,
			"web-1 is bad\n  endpoint.listen: must be so\n"},
		{"one that is the message", failure(t, codes.InvalidArgument, "endpoint.name: must be so", reason("BAD_VALUE"),
			violations("endpoint.name")), 1, "web-1: endpoint.name: must be so\n"},
		{"several that are the message", failure(t, codes.InvalidArgument,
			"a: must be so; b: must be so", reason("BAD_VALUE"),
			violations("a", "b")), 1, "the daemon refuses these values:\n  a: must be so\n  b: must be so\n"},
		{"many", failure(t, codes.InvalidArgument, "a: must be so; b: must be so", many, violations("a", "b")), 1,
			"the daemon refuses these values:\n  a: must be so\n  b: must be so\n  and 28 more\n"},
		{"no field", failure(t, codes.InvalidArgument, "web-1 is bad", reason("BAD_VALUE"), violations("")), 1,
			"web-1 is bad\n  must be so\n"},
		{"shutting down", failure(t, codes.Unavailable, "echod is stopping", reason("SHUTTING_DOWN")), 1,
			"web-1: echod is stopping\n"},
		{"unknown call", status.Error(codes.Unimplemented, "unknown method"), 1,
			"the daemon at * does not know this call; it may be older than this echoctl (echoctl version shows both)\n"},
		{"lost", status.Error(codes.Unavailable, "rpc error: code = gone"), 4, "lost the connection to echod at *\n"},
		{"control characters", failure(t, codes.Internal, "web-1\x1b[31m", reason("INTERNAL")), 1, "web-1\\x1b[31m\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fake{create: func(*echov1.CreateEndpointRequest) (*echov1.Endpoint, error) { return nil, c.err }}
			at(t, f.start(t)).run("create", "tcp", "--name", "web-1").want(t, c.code, "", "echoctl: "+c.want)
		})
	}
}

func TestCallTimeout(t *testing.T) {
	f := &fake{list: func(ctx context.Context, _ *echov1.ListEndpointsRequest) (*echov1.ListEndpointsResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	address := f.start(t)
	// With too little time for the connection, echod is not the one to blame.
	for timeout := 100 * time.Millisecond; ; timeout *= 2 {
		r := at(t, address).run("list", "--call-timeout", timeout.String())
		if r.code == 4 && timeout < patience {
			continue
		}
		r.want(t, 1, "", "echoctl: echod at "+address+" did not answer within "+timeout.String()+" (--call-timeout)\n")
		return
	}
}

// TestDrainExtendsTheDeadline sees that a call may take as long as the daemon was asked to wait, and longer.
func TestDrainExtendsTheDeadline(t *testing.T) {
	var least atomic.Int64
	f := &fake{remove: func(ctx context.Context, r *echov1.DeleteEndpointRequest) error {
		deadline, ok := ctx.Deadline()
		if ok {
			least.Store(int64(time.Until(deadline)))
		}
		return nil
	}}
	at(t, f.start(t)).ok("delete", "web-1", "--drain-timeout", "1h")
	if got := time.Duration(least.Load()); got < time.Hour {
		t.Errorf("the daemon has %v for a drain of an hour", got)
	}
	at(t, f.start(t)).ok("delete", "web-1", "--call-timeout", "0")
}

// TestUpdateLabelsTriesTwice has labels change between the get and the update.
func TestUpdateLabelsTriesTwice(t *testing.T) {
	version, updates := 0, 0
	present := map[string]string{"a": "1", "gone": "x"}
	f := &fake{
		get: func(*echov1.GetEndpointRequest) (*echov1.Endpoint, error) {
			return &echov1.Endpoint{Name: "web-1", Labels: maps.Clone(present), Etag: fmt.Sprint(version)}, nil
		},
	}
	stale := failure(t, codes.Aborted, "web-1 has changed", reason("ETAG_MISMATCH"))
	f.update = func(r *echov1.UpdateEndpointRequest) (*echov1.Endpoint, error) {
		updates++
		if updates == 1 {
			version, present["b"] = version+1, "2"
		}
		if r.GetEndpoint().GetEtag() != fmt.Sprint(version) {
			return nil, stale
		}
		return r.GetEndpoint(), nil
	}
	s := at(t, f.start(t))
	m := s.json("update", "web-1", "--label", "c=3", "--remove-label", "gone")
	wantField(t, m, "labels", `{"a":"1","b":"2","c":"3"}`)
	if updates != 2 {
		t.Errorf("%d updates, want 2", updates)
	}

	// A second conflict in a row is the user's to know, and so is one with the user's own etag.
	f.update = func(*echov1.UpdateEndpointRequest) (*echov1.Endpoint, error) { updates++; return nil, stale }
	for want, args := range map[int][]string{
		2: {"update", "web-1", "--label", "c=3"},
		1: {"update", "web-1", "--label", "c=3", "--etag", "mine"},
	} {
		updates = 0
		s.run(args...).want(t, 1, "", "echoctl: web-1 has changed\nechoctl get web-1 shows it as it is now\n")
		if updates != want {
			t.Errorf("%q: %d updates, want %d", args, updates, want)
		}
	}
}

// broken is a standard output whose reader has left.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }
func (broken) String() string            { return "" }

func TestOutputThatCannotBeWritten(t *testing.T) {
	s := at(t, shared.GRPC)
	s.stdout = broken{}
	for _, args := range [][]string{{"info"}, {"info", "-o", "json"}, {"info", "-o", "yaml"}, {"version", "-o", "name"}} {
		s.run(args...).want(t, 1, "", "echoctl: cannot write standard output: broken pipe\n")
	}
}
