package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fullstorydev/grpchan/inprocgrpc"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

func TestHosts(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.0.0.1:7070": true, "localhost": true, "LOCALHOST:7070": true, "localhost.": true,
		"[::1]": true, "[::1]:7070": true, "::1": true, "10.1.2.3:80": true, "lab.example": true, "Lab.Example.:80": true,
		"": false, "evil.example": false, "evil.example:7070": false, "127.0.0.1.evil.example": false, "127.evil.example:80": false,
		"localhost.evil.example": false, "[evil]": false, "lab.example.evil": false, "127.1": false, ":7070": false,
	} {
		if got := hostAllowed(host, []string{"lab.example"}); got != want {
			t.Errorf("hostAllowed(%q) = %v, want %v", host, got, want)
		}
	}
}

// TestTheTableKnowsEveryRoute holds our own reading of the http rules against the ones that were generated.
func TestTheTableKnowsEveryRoute(t *testing.T) {
	table, err := contractRoutes()
	if err != nil {
		t.Fatal(err)
	}
	if len(table) != 35 {
		t.Errorf("%d routes", len(table))
	}
	for path, methods := range map[string]string{
		"/v1/endpoints": "GET POST", "/v1/endpoints/web-1": "GET PATCH DELETE", "/v1/endpoints/web-1:stop": "POST GET PATCH DELETE",
		"/v1/probes:run": "POST", "/v1/ledgers/0123456789abcdef": "GET", "/v1/monitors/m:run": "POST GET PATCH DELETE",
		"/v1/events:watch": "GET", "/v1/endpoints/a/b": "", "/v1/endpoints/": "", "/v1/info": "GET",
	} {
		var got []string
		for _, row := range table {
			if row.path.MatchString(path) {
				got = append(got, row.method)
			}
		}
		for _, m := range got {
			if !strings.Contains(methods, m) {
				t.Errorf("%s %s", m, path)
			}
		}
		if len(got) != len(strings.Fields(methods)) {
			t.Errorf("%s: %v, want %s", path, got, methods)
		}
	}
}

func TestFriendlyDurations(t *testing.T) {
	for in, want := range map[string]string{
		`{"interval":"40ms"}`:                                `{"interval":"0.040000000s"}`,
		`{"interval" : "1m30s" , "count":1}`:                 `{"interval" : "90.000000000s" , "count":1}`,
		`{"timeout":"0.04s","interval":"-1.5s"}`:             `{"timeout":"0.040000000s","interval":"-1.500000000s"}`,
		`{"name":"40ms","target":{"address":"10m"}}`:         `{"name":"40ms","target":{"address":"10m"}}`,
		`{"unknown":{"interval":"40ms"}}`:                    `{"unknown":{"interval":"40ms"}}`,
		`{"interval":null}`:                                  `{"interval":null}`,
		`{"interval":"40ms"`:                                 `{"interval":"40ms"`, // the real reader says what is wrong
		`[{"interval":"40ms"}]`:                              `[{"interval":"0.040000000s"}]`,
		`{"report":{"rtt":{"min":"1h"},"errors":[{"a":1}]}}`: `{"report":{"rtt":{"min":"3600.000000000s"},"errors":[{"a":1}]}}`,
		``: ``,
	} {
		got, err := friendlyDurations([]byte(in), (&echov1.Probe{}).ProtoReflect().Descriptor())
		if err != nil || string(got) != want {
			t.Errorf("%s becomes %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{`{"interval":"fast"}`, `{"interval":5}`, `{"interval":{}}`, `{"interval":""}`, `{"interval":"5"}`} {
		if _, err := friendlyDurations([]byte(in), (&echov1.Probe{}).ProtoReflect().Descriptor()); err == nil {
			t.Errorf("%s is taken", in)
		}
	}
}

// FuzzFriendlyDurations holds that what protobuf takes already means the same after the rewriting, and that nothing that
// it refuses becomes acceptable but for its durations.
func FuzzFriendlyDurations(f *testing.F) {
	f.Add([]byte(`{"name":"a","interval":"0.04s","tcp":{"awaitClose":true},"target":{"endpoint":"b"},"report":{"errors":[{"count":1}]}}`))
	f.Add([]byte(`{"interval":"40ms","interval":"1s"}`))
	f.Add([]byte(`{"timeout":"315576000000.5s"}{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := friendlyDurations(text, (&echov1.Probe{}).ProtoReflect().Descriptor())
		if err != nil {
			return
		}
		var before, after echov1.Probe
		if protojson.Unmarshal(text, &before) == nil {
			if err := protojson.Unmarshal(got, &after); err != nil || !proto.Equal(&before, &after) {
				t.Errorf("%q became %q: %v", text, got, err)
			}
		}
		if json.Valid(text) != json.Valid(got) {
			t.Errorf("%q became %q", text, got)
		}
	})
}

func TestReadersErrorsNameTheField(t *testing.T) {
	for message, field := range map[string]string{
		"proto:\u00a0(line 1:2): unknown field \"nam\"":                      "nam",
		"proto: (line 1:13): invalid value for enum field protocol: \"X\"":   "protocol",
		"proto: (line 1:13): invalid value for uint32 field count: 1e99":     "count",
		"proto: syntax error (line 1:19): unexpected token {":                "body",
		"invalid value for duration field idleTimeout: \"fast\"; write it …": "idleTimeout",
	} {
		if got, text := readError(message); got != field || strings.HasPrefix(text, "proto") {
			t.Errorf("%s: field %q, text %q", message, got, text)
		}
	}
}

// talker streams without end, as fast as it is read.
type talker struct {
	echov1.UnimplementedProbeServiceServer
	ended chan error
}

func (s talker) StreamProbe(_ *echov1.StreamProbeRequest, stream grpc.ServerStreamingServer[echov1.StreamProbeResponse]) error {
	long := &echov1.StreamProbeResponse{Message: &echov1.StreamProbeResponse_Probe{Probe: &echov1.Probe{Name: strings.Repeat("x", 1<<16)}}}
	for {
		if err := stream.Send(long); err != nil {
			s.ended <- err
			return err
		}
		if err := stream.Context().Err(); err != nil {
			s.ended <- err
			return err
		}
	}
}

// TestAClientThatDoesNotReadIsLetGo has a client ask for a stream and read only its beginning.
func TestAClientThatDoesNotReadIsLetGo(t *testing.T) {
	service := talker{ended: make(chan error, 1)}
	channel := new(inprocgrpc.Channel)
	echov1.RegisterProbeServiceServer(channel, service)
	handler, err := New(context.Background(), Config{Channel: channel, WriteTime: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /v1/probes:stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", resp, err)
	}
	defer resp.Body.Close()
	select {
	case <-service.ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the stream goes on for a client that does not read")
	}
}

// busy refuses, and says what of it a test wants.
type busy struct {
	echov1.UnimplementedDaemonServiceServer
	status error
}

func (s busy) GetInfo(context.Context, *echov1.GetInfoRequest) (*echov1.Info, error) {
	return nil, s.status
}

// TestRetryAfter asks for what is refused for a while.
func TestRetryAfter(t *testing.T) {
	for name, tc := range map[string]struct {
		code  codes.Code
		delay *durationpb.Duration
		http  int
		want  string
	}{
		"in a moment":     {codes.Unavailable, durationpb.New(200 * time.Millisecond), http.StatusServiceUnavailable, "1"},
		"in two seconds":  {codes.Unavailable, durationpb.New(2 * time.Second), http.StatusServiceUnavailable, "2"},
		"in some more":    {codes.ResourceExhausted, durationpb.New(61*time.Second + 1), http.StatusTooManyRequests, "62"},
		"at once":         {codes.Unavailable, durationpb.New(0), http.StatusServiceUnavailable, "0"},
		"in the past":     {codes.Unavailable, durationpb.New(-time.Minute), http.StatusServiceUnavailable, "0"},
		"nobody knows":    {codes.Unavailable, nil, http.StatusServiceUnavailable, ""},
		"nonsense":        {codes.Unavailable, &durationpb.Duration{Seconds: 1, Nanos: -1}, http.StatusServiceUnavailable, ""},
		"never as it was": {codes.NotFound, nil, http.StatusNotFound, ""},
	} {
		s := status.New(tc.code, name)
		if tc.delay != nil {
			var err error
			if s, err = s.WithDetails(&errdetails.ErrorInfo{Reason: "BUSY"}, &errdetails.RetryInfo{RetryDelay: tc.delay}); err != nil {
				t.Fatal(err)
			}
		}
		channel := new(inprocgrpc.Channel)
		echov1.RegisterDaemonServiceServer(channel, busy{status: s.Err()})
		handler, err := New(context.Background(), Config{Channel: channel})
		if err != nil {
			t.Fatal(err)
		}
		answer, request := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/v1/info", nil)
		request.Host = "localhost"
		handler.ServeHTTP(answer, request)
		if got := strings.Join(answer.Header().Values("Retry-After"), ","); answer.Code != tc.http || got != tc.want {
			t.Errorf("%s: %d, Retry-After %q; want %d, %q: %s", name, answer.Code, got, tc.http, tc.want, answer.Body)
		}
	}
}
