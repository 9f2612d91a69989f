package rpc

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/registry"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

func TestProblemsOfManyAreCountedAndCut(t *testing.T) {
	problems := &registry.Problems{Lost: []error{errors.New(`"web" is FAILED`)}}
	for i := range 50 {
		problems.List = append(problems.List, registry.Problem{Index: 2 * i, Field: "listen", Err: fmt.Errorf("cannot bind :%d: %w", i, echo.ErrAddressInUse)})
	}
	sent, internal := toStatus(inRequest(problems, "requests", ".endpoint", 100))
	s := status.Convert(sent)
	want := `50 of 100 endpoints cannot be had, and nothing was changed, but "web" is FAILED: requests[0].endpoint.listen: cannot bind :0: address already in use; `
	if s.Code() != codes.FailedPrecondition || internal || !strings.HasPrefix(s.Message(), want) || !strings.HasSuffix(s.Message(), "; and 47 more") {
		t.Errorf("sent as %v, internal %v", s, internal)
	}
	var violations []*errdetails.BadRequest_FieldViolation
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.BadRequest:
			violations = d.GetFieldViolations()
		case *errdetails.ErrorInfo:
			if d.GetReason() != "ADDRESS_IN_USE" || d.GetMetadata()["violations"] != "50" {
				t.Errorf("info: %v", d)
			}
		}
	}
	if len(violations) != maxViolations || violations[19].GetField() != "requests[38].endpoint.listen" || !strings.Contains(violations[19].GetDescription(), "cannot bind :19") {
		t.Errorf("%d violations: %v", len(violations), violations)
	}
}

// TestAProblemThatIsNotTheCallersBusiness is logged, and its text stays here.
func TestAProblemThatIsNotTheCallersBusiness(t *testing.T) {
	problems := &registry.Problems{List: []registry.Problem{{Index: 1, Field: "listen", Err: errors.New("secret path")}}}
	sent, internal := toStatus(inRequest(problems, "endpoints", "", 2))
	if s := status.Convert(sent); s.Code() != codes.Internal || !internal || strings.Contains(s.String(), "secret") || !strings.Contains(s.Message(), "endpoints[1].listen: internal error") {
		t.Errorf("sent as %v, internal %v", s, internal)
	}
}

func TestDurationsInListsThatAreNone(t *testing.T) {
	req := &echov1.BatchCreateEndpointsRequest{Requests: []*echov1.CreateEndpointRequest{
		{Endpoint: &echov1.Endpoint{Protocol: echov1.Protocol_TCP}},
		{Endpoint: &echov1.Endpoint{Protocol: echov1.Protocol_TCP, Tcp: &echov1.TcpOptions{IdleTimeout: &durationpb.Duration{Seconds: 1, Nanos: -5}}}},
	}}
	sent, _ := toStatus(validate(req))
	if s := status.Convert(sent); s.Code() != codes.InvalidArgument || !strings.Contains(s.Message(), "requests[1].endpoint.tcp.idle_timeout") {
		t.Errorf("%v", s)
	}
}

func TestBasicPageSize(t *testing.T) {
	for asked, want := range map[int32]int{0: 100, 1: 1, 1001: 1001, 10_000: 10_000, 10_001: 10_000, 1 << 30: 10_000} {
		if got := basicPageSize(asked); got != want {
			t.Errorf("basicPageSize(%d) = %d, want %d", asked, got, want)
		}
	}
}

// largeLabels are as much as an endpoint can have of them.
func largeLabels(fill string) map[string]string {
	labels := map[string]string{}
	for i := range 64 {
		labels[fmt.Sprintf("label-%02d", i)] = strings.Repeat(fill, 63)
	}
	return labels
}

func TestABatchOfLargeEndpointsIsAnsweredShort(t *testing.T) {
	var made []registry.Endpoint
	for i := range 1000 {
		made = append(made, registry.Endpoint{
			Definition: registry.Definition{Name: fmt.Sprint("e-", i), Protocol: echo.UDP, Listen: ":7", Labels: largeLabels("x")}, UID: "u", State: registry.Serving,
		})
	}
	few := batchReply(made[:10])
	if few.GetEndpoints()[0].GetLabels() == nil || few.GetEndpoints()[0].GetCounters() != nil {
		t.Errorf("%v", few.GetEndpoints()[0])
	}
	all := batchReply(made)
	want := &echov1.Endpoint{Name: "e-999", Uid: "u", Protocol: echov1.Protocol_UDP, State: echov1.Endpoint_SERVING}
	if len(all.GetEndpoints()) != 1000 || !proto.Equal(all.GetEndpoints()[999], want) || proto.Size(all) > maxPageBytes {
		t.Errorf("%d endpoints in %d bytes, the last %v", len(all.GetEndpoints()), proto.Size(all), all.GetEndpoints()[999])
	}
}

func TestAnApplyOfLargeChangesCountsWhatItLeavesOut(t *testing.T) {
	before := registry.Definition{Name: "a", Protocol: echo.UDP, Labels: largeLabels("x")}
	after := before
	after.Labels = largeLabels("y")
	var changes []registry.Change
	for range 1000 {
		changes = append(changes, registry.Change{Name: "a", Action: registry.ActionUpdate, Before: before, After: after})
	}
	resp := applyReply(changes)
	sent, omitted := 0, 0
	for _, c := range resp.GetChanges() {
		sent, omitted = sent+len(c.GetFields()), omitted+int(c.GetOmittedFields())
	}
	if sent+omitted != 64_000 || omitted == 0 || proto.Size(resp) > maxPageBytes || proto.Size(resp) < maxPageBytes/2 {
		t.Errorf("%d fields and %d left out, in %d bytes", sent, omitted, proto.Size(resp))
	}
}

// TestAnApplyTellsWhatStaysFailed, however many do.
func TestAnApplyTellsWhatStaysFailed(t *testing.T) {
	why := errors.New("cannot bind " + strings.Repeat("x", 1<<20))
	var changes []registry.Change
	for range 4 {
		changes = append(changes, registry.Change{Name: "a", Action: registry.ActionNone, Failure: why})
	}
	changes = append(changes, registry.Change{Name: "b", Action: registry.ActionNone})
	resp := applyReply(changes)
	for i, want := range []string{why.Error(), why.Error(), "see its stateReason", "see its stateReason", ""} {
		if got := resp.GetChanges()[i].GetFailure(); got != want {
			t.Errorf("%d: %.40s, want %.40s", i, got, want)
		}
	}
	if proto.Size(resp) > maxPageBytes {
		t.Errorf("it has %d bytes", proto.Size(resp))
	}
}

func TestFieldChanges(t *testing.T) {
	before := registry.Definition{
		Name: "a", Protocol: echo.TCP, Listen: ":7", Labels: map[string]string{"rack": "r1", "gone": "x", "same": "s"},
		TCP: registry.TCPOptions{IdleTimeout: time.Minute, MaxConnections: 5}, Sources: registry.Sources{Allow: nil},
	}
	after := before
	after.Listen, after.Labels = ":8", map[string]string{"rack": "r2", "a.b/c": "new", "same": "s"}
	after.TCP.IdleTimeout, after.TCP.OneShot = 40*time.Millisecond, true
	got := fieldChanges(registry.Change{Action: registry.ActionReplace, Before: before, After: after, Revive: true})
	want := []*echov1.FieldChange{
		{Path: `labels."a.b/c"`, After: `"new"`},
		{Path: "labels.gone", Before: `"x"`},
		{Path: "labels.rack", Before: `"r1"`, After: `"r2"`},
		{Path: "listen", Before: `":7"`, After: `":8"`, NeedsReplace: true},
		{Path: "state", Before: `"FAILED"`, After: `"SERVING"`},
		{Path: "tcp.idleTimeout", Before: `"60s"`, After: `"0.040s"`},
		{Path: "tcp.oneShot", After: "true"},
	}
	if len(got) != len(want) {
		t.Fatalf("%v", got)
	}
	for i := range want {
		if !proto.Equal(got[i], want[i]) {
			t.Errorf("%v, want %v", got[i], want[i])
		}
	}
}
