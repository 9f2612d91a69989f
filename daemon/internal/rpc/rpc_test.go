package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/registry"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

func TestPageTokens(t *testing.T) {
	p := newPager()
	token := p.token("web-1", "a = b")
	if after, err := p.after(token, "a = b"); err != nil || after != "web-1" {
		t.Errorf("after = %q, %v", after, err)
	}
	if after, err := p.after("", "whatever"); err != nil || after != "" {
		t.Errorf("the first page: %q, %v", after, err)
	}
	other := newPager()
	flipped := []byte(token)
	flipped[len(flipped)-1] ^= 1
	for name, try := range map[string]func() (string, error){
		"another filter": func() (string, error) { return p.after(token, "a = c") },
		"another daemon": func() (string, error) { return other.after(token, "a = b") },
		"tampered with":  func() (string, error) { return p.after(string(flipped), "a = b") },
		"no token":       func() (string, error) { return p.after("!!!", "a = b") },
		"a short one":    func() (string, error) { return p.after("Zm9v", "a = b") },
	} {
		_, err := try()
		var bad *badRequest
		if !errors.As(err, &bad) || bad.reason != "BAD_PAGE_TOKEN" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPageSize(t *testing.T) {
	for asked, want := range map[int32]int{0: 100, 1: 1, 1000: 1000, 1001: 1000, 1 << 30: 1000} {
		if got := pageSize(asked); got != want {
			t.Errorf("pageSize(%d) = %d, want %d", asked, got, want)
		}
	}
}

func TestMaskStarIsEverySettableField(t *testing.T) {
	dst := &echov1.Endpoint{Name: "a", Uid: "kept", Description: "old", Labels: map[string]string{"a": "b"}, State: echov1.Endpoint_SERVING}
	src := &echov1.Endpoint{Name: "a", Uid: "ignored", Description: "new", State: echov1.Endpoint_FAILED}
	if _, err := applyMask(dst, src, &fieldmaskpb.FieldMask{Paths: []string{"*"}}); err != nil {
		t.Fatal(err)
	}
	if dst.GetDescription() != "new" || dst.GetLabels() != nil || dst.GetUid() != "kept" || dst.GetState() != echov1.Endpoint_SERVING {
		t.Errorf("%v", dst)
	}
	if src.GetUid() != "ignored" {
		t.Error("the request was changed")
	}
}

func TestMasksHaveALimit(t *testing.T) {
	paths := make([]string, maxMaskPaths+1)
	if _, err := applyMask(&echov1.Endpoint{}, &echov1.Endpoint{}, &fieldmaskpb.FieldMask{Paths: paths}); err == nil {
		t.Error("taken")
	}
}

func TestEveryErrorOfTheDomainHasAStatus(t *testing.T) {
	for _, row := range table {
		sent, internal := toStatus(fmt.Errorf("outer: %w", row.err))
		s := status.Convert(sent)
		if s.Code() != row.code || internal || !strings.HasPrefix(s.Message(), "outer: ") {
			t.Errorf("%v becomes %v, internal %v", row.err, s, internal)
		}
	}
}

func TestViolationsAreCountedAndCut(t *testing.T) {
	bad := &badRequest{}
	for i := range 50 {
		bad.violations = append(bad.violations, violation{fmt.Sprint("f", i), "is wrong"})
	}
	sent, _ := toStatus(bad)
	s := status.Convert(sent)
	if !strings.HasSuffix(s.Message(), "and 30 more") {
		t.Errorf("message: %s", s.Message())
	}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.BadRequest:
			if len(d.GetFieldViolations()) != maxViolations {
				t.Errorf("%d violations", len(d.GetFieldViolations()))
			}
		case *errdetails.ErrorInfo:
			if d.GetMetadata()["violations"] != "50" {
				t.Errorf("metadata: %v", d.GetMetadata())
			}
		}
	}
}

func TestLongValuesAreNotRepeated(t *testing.T) {
	err := validate(&echov1.GetEndpointRequest{Name: strings.Repeat("A", 1<<20)})
	sent, _ := toStatus(err)
	if n := len(status.Convert(sent).Message()); n > 300 {
		t.Errorf("a message of %d bytes", n)
	}
}

// TestWhatIsNotTheCallersBusinessIsLogged has a handler fail and panic.
func TestWhatIsNotTheCallersBusinessIsLogged(t *testing.T) {
	for name, handle := range map[string]grpc.UnaryHandler{
		"error": func(context.Context, any) (any, error) { return nil, errors.New("secret path") },
		"panic": func(context.Context, any) (any, error) { panic("secret path") },
	} {
		var log bytes.Buffer
		unary, stream := Interceptors(context.Background(), nil, slog.New(slog.NewTextHandler(&log, nil)))
		_, err := unary(context.Background(), &echov1.GetInfoRequest{}, &grpc.UnaryServerInfo{FullMethod: "/m"}, handle)
		streamErr := stream(nil, fakeStream{}, &grpc.StreamServerInfo{FullMethod: "/s"}, func(any, grpc.ServerStream) error {
			_, err := handle(context.Background(), nil)
			return err
		})
		for _, err := range []error{err, streamErr} {
			if s := status.Convert(err); s.Code() != codes.Internal || s.Message() != "internal error" {
				t.Errorf("%s: sent as %v", name, s)
			}
		}
		if strings.Count(log.String(), "secret path") != 2 || !strings.Contains(log.String(), "method=/m") {
			t.Errorf("%s: logged as %s", name, log.String())
		}
	}
}

type fakeStream struct{ grpc.ServerStream }

func (fakeStream) Context() context.Context { return context.Background() }

func TestStreamsEndWhenTheDaemonStops(t *testing.T) {
	stopping, stop := context.WithCancel(context.Background())
	_, stream := Interceptors(stopping, nil, slog.New(slog.DiscardHandler))
	err := stream(nil, fakeStream{}, &grpc.StreamServerInfo{}, func(_ any, s grpc.ServerStream) error {
		stop()
		<-s.Context().Done()
		return context.Cause(s.Context())
	})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("%v, want UNAVAILABLE", err)
	}
}

func TestWhereAnEndpointIsDialled(t *testing.T) {
	for _, tc := range []struct{ listen, bound, want string }{
		{"127.0.0.5:0", "127.0.0.5:7", "127.0.0.5:7"},
		{":0", "[::]:7", "127.0.0.1:7"},
		{":0", "0.0.0.0:7", "127.0.0.1:7"},
		{"0.0.0.0:0", "0.0.0.0:7", "127.0.0.1:7"},
		{"[::]:0", "[::]:7", "[::1]:7"},
		{"[::1]:0", "[::1]:7", "[::1]:7"},
	} {
		e := registry.Endpoint{Definition: registry.Definition{Listen: tc.listen}, Address: netip.MustParseAddrPort(tc.bound)}
		if got := dialable(e).String(); got != tc.want {
			t.Errorf("%s bound as %s is dialled at %s, want %s", tc.listen, tc.bound, got, tc.want)
		}
	}
}

func TestDurationsThatAreNone(t *testing.T) {
	for _, d := range []*durationpb.Duration{{Seconds: 1, Nanos: -5}, {Nanos: 2147483647}, {Seconds: -1, Nanos: 1999999999}} {
		sent, _ := toStatus(validate(&echov1.RunProbeRequest{Probe: &echov1.Probe{
			Target: &echov1.ProbeTarget{Endpoint: "a"}, Timeout: d, Interval: durationpb.New(1),
		}}))
		if s := status.Convert(sent); s.Code() != codes.InvalidArgument || !strings.Contains(s.Message(), "timeout") {
			t.Errorf("%v: %v", d, s)
		}
	}
}

func TestSourcesAreAnsweredInTheirCanonicalForm(t *testing.T) {
	got, err := sourcesFromProto(&echov1.Sources{
		Allow: []string{"10.0.0.1", "192.0.2.0/24", "::ffff:192.0.2.0/120", "0.0.0.0/0"}, Deny: []string{"2001:DB8::/32", "2001:db8:0::1"},
	})
	want := &echov1.Sources{
		Allow: []string{"10.0.0.1/32", "192.0.2.0/24", "192.0.2.0/24", "0.0.0.0/0"}, Deny: []string{"2001:db8::/32", "2001:db8::1/128"},
	}
	if answered := sourcesToProto(got); err != nil || !proto.Equal(answered, want) {
		t.Errorf("answered as %v, %v; want %v", answered, err, want)
	}
	for _, none := range []*echov1.Sources{nil, {}} {
		if got, err := sourcesFromProto(none); err != nil || sourcesToProto(got) != nil {
			t.Errorf("%v is answered as %v, %v; want nothing", none, sourcesToProto(got), err)
		}
	}
}

func TestEachSourceThatIsNoneIsNamed(t *testing.T) {
	_, err := sourcesFromProto(&echov1.Sources{
		Allow: []string{"10.0.0.1", "10.0.0.1/8", "here"}, Deny: []string{"fe80::1%eth0", ""},
	})
	var bad *badRequest
	if !errors.As(err, &bad) {
		t.Fatalf("%v, want a badRequest", err)
	}
	var fields []string
	for _, v := range bad.violations {
		fields = append(fields, v.field)
	}
	want := []string{"endpoint.sources.allow[1]", "endpoint.sources.allow[2]", "endpoint.sources.deny[0]", "endpoint.sources.deny[1]"}
	if !slices.Equal(fields, want) {
		t.Errorf("violations of %v, want %v", fields, want)
	}
	for _, says := range []string{"10.0.0.0/8", `"here"`, `"fe80::1%eth0"`} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %s", err, says)
		}
	}
}

// TestDefinitionsSurviveTheContract writes a definition as a message and reads it again.
func TestDefinitionsSurviveTheContract(t *testing.T) {
	sources := registry.Sources{
		Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Deny: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")},
	}
	for _, def := range []registry.Definition{
		{Name: "a", Protocol: echo.TCP, Listen: ":7", Sources: sources, TCP: registry.TCPOptions{
			OneShot: true, IdleTimeout: 1, StallTimeout: 2, MaxConnections: 3, MaxBytes: math.MaxUint64, SocketBufferBytes: 4096,
		}},
		{Name: "zero", Protocol: echo.TCP},
		{Name: "b", Protocol: echo.UDP, Sources: sources, UDP: registry.UDPOptions{
			NoLoopGuard: true, MaxSourceDatagrams: math.MaxUint32, MaxSourceBytes: math.MaxUint64,
		}},
	} {
		if got, err := definitionFromProto(definitionToProto(def)); err != nil || !reflect.DeepEqual(got, def) {
			t.Errorf("%+v becomes %+v, %v", def, got, err)
		}
	}
}

func TestWhatIsLeftOpenIsTheDefault(t *testing.T) {
	got, err := definitionFromProto(&echov1.Endpoint{Protocol: echov1.Protocol_TCP})
	want := registry.TCPOptions{
		IdleTimeout: registry.DefaultIdleTimeout, StallTimeout: registry.DefaultStallTimeout, MaxConnections: registry.DefaultMaxConnections,
	}
	if err != nil || got.TCP != want {
		t.Errorf("%+v, %v; want %+v", got.TCP, err, want)
	}
}

// TestMasksReachIntoSources sets one list, sets it back, and sets back the whole, whether the endpoint has sources or not.
func TestMasksReachIntoSources(t *testing.T) {
	both := &echov1.Sources{Allow: []string{"192.0.2.0/24"}, Deny: []string{"192.0.2.1/32"}}
	other := &echov1.Sources{Deny: []string{"10.0.0.0/8", "10.0.0.0/16"}}
	for _, tc := range []struct {
		name, mask      string
		has, body, want *echov1.Sources
	}{
		{"one list", "sources.deny", both, other, &echov1.Sources{Allow: both.Allow, Deny: other.Deny}},
		{"one list where there was none", "sources.deny", nil, other, other},
		{"without a mask", "", both, other, &echov1.Sources{Allow: both.Allow, Deny: other.Deny}},
		{"the whole", "sources", both, other, other},
		{"one list back", "sources.deny", both, nil, &echov1.Sources{Allow: both.Allow}},
		{"the last list back", "sources.deny", other, nil, nil},
		{"the whole back", "sources", both, nil, nil},
		{"back where there was none", "sources.allow", nil, nil, nil},
		{"an empty body without a mask", "", both, &echov1.Sources{}, nil},
	} {
		has, err := definitionFromProto(&echov1.Endpoint{Name: "a", Protocol: echov1.Protocol_UDP, Sources: tc.has})
		if err != nil {
			t.Fatal(err)
		}
		req := &echov1.UpdateEndpointRequest{Name: "a", Endpoint: &echov1.Endpoint{Sources: tc.body}}
		if tc.mask != "" {
			req.UpdateMask = &fieldmaskpb.FieldMask{Paths: []string{tc.mask}}
		}
		got, err := merge(has, req)
		if err != nil || !proto.Equal(sourcesToProto(got.Sources), tc.want) {
			t.Errorf("%s: %v, %v; want %v", tc.name, got.Sources, err, tc.want)
		}
	}
}

// A mask that names a field of a message that nobody has makes none: that it is there may mean something.
func TestMaskMakesNoMessages(t *testing.T) {
	probe := &echov1.Probe{Ip: &echov1.IpOptions{Ttl: 4}}
	monitor := &echov1.Monitor{Probe: probe}
	mask := &fieldmaskpb.FieldMask{Paths: []string{"probe.pathMtu.maxPayload", "probe.source.port", "probe.ip.ttl"}}
	if _, err := applyMask(monitor, &echov1.Monitor{}, mask); err != nil {
		t.Fatal(err)
	}
	if probe := monitor.GetProbe(); probe.PathMtu != nil || probe.Source != nil || probe.GetIp().GetTtl() != 0 {
		t.Errorf("%v", monitor)
	}
	if _, err := applyMask(monitor, &echov1.Monitor{Probe: &echov1.Probe{PathMtu: &echov1.PathMtuSearch{MaxPayload: 1000}}}, mask); err != nil || monitor.GetProbe().GetPathMtu().GetMaxPayload() != 1000 {
		t.Errorf("%v, %v", monitor, err)
	}
}
