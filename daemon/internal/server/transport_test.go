package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// A transport calls a method of the contract with a request in JSON, and answers all messages that came back. The
// contract's cases run over each of them.
type transport interface {
	call(ctx context.Context, t *testing.T, method protoreflect.MethodDescriptor, request string) ([]proto.Message, error)
}

// methodNamed finds "EndpointService/GetEndpoint" among the contract's methods.
func methodNamed(t *testing.T, name string) protoreflect.MethodDescriptor {
	t.Helper()
	full := protoreflect.FullName("echo.v1." + strings.ReplaceAll(name, "/", "."))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(full)
	if err != nil {
		t.Fatal(err)
	}
	return d.(protoreflect.MethodDescriptor)
}

func newMessage(t *testing.T, d protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		t.Fatal(err)
	}
	return kind.New().Interface()
}

func readRequest(t *testing.T, method protoreflect.MethodDescriptor, request string) proto.Message {
	t.Helper()
	req := newMessage(t, method.Input())
	if err := protojson.Unmarshal([]byte(request), req); err != nil {
		t.Fatalf("the case's request cannot be written as %s: %v", method.Input().Name(), err)
	}
	return req
}

// overGRPC calls as a gRPC client does.
type overGRPC struct{ conn grpc.ClientConnInterface }

func (g overGRPC) call(ctx context.Context, t *testing.T, method protoreflect.MethodDescriptor, request string) ([]proto.Message, error) {
	t.Helper()
	req := readRequest(t, method, request)
	path := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
	if !method.IsStreamingServer() {
		resp := newMessage(t, method.Output())
		if err := g.conn.Invoke(ctx, path, req, resp); err != nil {
			return nil, err
		}
		return []proto.Message{resp}, nil
	}
	stream, err := g.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, path)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(stream.SendMsg(req), stream.CloseSend()); err != nil {
		return nil, err
	}
	var all []proto.Message
	for {
		resp := newMessage(t, method.Output())
		err := stream.RecvMsg(resp)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, resp)
	}
}

// overREST calls as a REST client does, by the method's http rule.
type overREST struct{ base string }

var pathVariable = regexp.MustCompile(`\{(\w+)\}`)

func (r overREST) call(ctx context.Context, t *testing.T, method protoreflect.MethodDescriptor, request string) ([]proto.Message, error) {
	t.Helper()
	httpReq := r.request(ctx, t, method, request)
	resp, err := http.DefaultClient.Do(httpReq)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	if method.IsStreamingServer() && resp.StatusCode == http.StatusOK {
		return readLines(t, method, resp.Body)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(body, []byte("}\n")) {
		t.Errorf("the answer does not end with a newline: %q", body)
	}
	if method.IsStreamingServer() {
		_, err := readLines(t, method, bytes.NewReader(body))
		if want := httpStatus[status.Code(err)]; resp.StatusCode != want {
			t.Errorf("HTTP status %d for %s, want %d", resp.StatusCode, status.Code(err), want)
		}
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, readStatus(t, resp.StatusCode, body)
	}
	out := newMessage(t, method.Output())
	if err := protojson.Unmarshal(body, out); err != nil {
		t.Fatalf("%s answered %s: %v", httpReq.URL, body, err)
	}
	return []proto.Message{out}, nil
}

// request lays a message out as path, query and body.
func (r overREST) request(ctx context.Context, t *testing.T, method protoreflect.MethodDescriptor, request string) *http.Request {
	t.Helper()
	rule := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
	verb, path := http.MethodGet, rule.GetGet()
	for other, p := range map[string]string{http.MethodPost: rule.GetPost(), http.MethodPatch: rule.GetPatch(), http.MethodDelete: rule.GetDelete()} {
		if p != "" {
			verb, path = other, p
		}
	}
	var fields map[string]json.RawMessage
	text, err := protojson.Marshal(readRequest(t, method, request))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	path = pathVariable.ReplaceAllStringFunc(path, func(variable string) string {
		name := strings.Trim(variable, "{}")
		var value string
		_ = json.Unmarshal(fields[name], &value) // absent: empty
		delete(fields, name)
		return url.PathEscape(value)
	})
	var body []byte
	switch rule.GetBody() {
	case "":
	case "*":
		body, err = json.Marshal(fields)
		fields = nil
	default:
		body = fields[rule.GetBody()]
		delete(fields, rule.GetBody())
	}
	if err != nil {
		t.Fatal(err)
	}
	query := url.Values{}
	for name, value := range fields {
		text := string(value)
		_ = json.Unmarshal(value, &text) // a number or a bool stays as it is written
		query.Set(name, text)
	}
	req, err := http.NewRequestWithContext(ctx, verb, r.base+path+"?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	return req
}

func readLines(t *testing.T, method protoreflect.MethodDescriptor, body io.Reader) ([]proto.Message, error) {
	t.Helper()
	var all []proto.Message
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct{ Result, Error json.RawMessage }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("a line of the stream is no JSON object: %v: %s", err, lines.Bytes())
		}
		if line.Error != nil {
			return all, readStatus(t, 0, line.Error)
		}
		out := newMessage(t, method.Output())
		if err := protojson.Unmarshal(line.Result, out); err != nil {
			t.Fatalf("%s: %v", line.Result, err)
		}
		all = append(all, out)
	}
	return all, lines.Err()
}

// httpStatus is what the contract says of a code over REST.
var httpStatus = map[codes.Code]int{
	codes.NotFound: 404, codes.Unimplemented: 501, codes.AlreadyExists: 409, codes.Aborted: 409, codes.FailedPrecondition: 400,
	codes.InvalidArgument: 400, codes.OutOfRange: 400, codes.PermissionDenied: 403, codes.ResourceExhausted: 429, codes.Unavailable: 503,
}

// readStatus reads a google.rpc.Status; code is the HTTP status that it came with, 0 in a stream.
func readStatus(t *testing.T, code int, body []byte) error {
	t.Helper()
	var s spb.Status
	if err := protojson.Unmarshal(body, &s); err != nil {
		t.Fatalf("an error is no google.rpc.Status: %v: %s", err, body)
	}
	err := status.FromProto(&s).Err()
	if want := httpStatus[status.Code(err)]; code != 0 && code != want {
		t.Errorf("HTTP status %d for %s, want %d: %s", code, status.Code(err), want, body)
	}
	return err
}
