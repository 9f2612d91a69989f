//go:build linux

package torture_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// restConn is the REST interface in the clothes of a gRPC connection, so that clients need not know which it is.
type restConn struct {
	url    string
	client *http.Client
}

func (c restConn) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "no streams over REST here")
}

// Invoke calls a method of EndpointService or DaemonService. An error that is no answer of the daemon's is Unavailable without details.
func (c restConn) Invoke(ctx context.Context, method string, in, out any, _ ...grpc.CallOption) error {
	verb, where, body, err := request(path.Base(method), in)
	if err != nil {
		return err
	}
	var content []byte
	if body != nil {
		if content, err = protojson.Marshal(body); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, verb, c.url+where, bytes.NewReader(content))
	if err != nil {
		return err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.client.Do(r)
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	if resp.StatusCode != http.StatusOK {
		s := &spb.Status{}
		if err := protojson.Unmarshal(text, s); err != nil {
			return status.Errorf(codes.Unknown, "HTTP status %d, and %v: %s", resp.StatusCode, err, text)
		}
		return status.ErrorProto(s)
	}
	return protojson.Unmarshal(text, out.(proto.Message))
}

// request is the REST form of a call.
func request(method string, in any) (verb, where string, body proto.Message, err error) {
	const all = "/v1/endpoints"
	one := func(name, action string) string { return all + "/" + name + action }
	switch in := in.(type) {
	case *echov1.CreateEndpointRequest:
		return http.MethodPost, all, in.Endpoint, nil
	case *echov1.GetEndpointRequest:
		return http.MethodGet, one(in.Name, ""), nil, nil
	case *echov1.ListEndpointsRequest:
		q := url.Values{"filter": {in.Filter}, "pageSize": {fmt.Sprint(in.PageSize)}, "pageToken": {in.PageToken}}
		return http.MethodGet, all + "?" + q.Encode(), nil, nil
	case *echov1.UpdateEndpointRequest:
		mask, err := protojson.Marshal(in.UpdateMask)
		q := url.Values{"updateMask": {string(bytes.Trim(mask, `"`))}}
		return http.MethodPatch, one(in.Name, "?"+q.Encode()), in.Endpoint, err
	case *echov1.DeleteEndpointRequest:
		return http.MethodDelete, one(in.Name, ""), nil, nil
	case *echov1.StartEndpointRequest:
		return http.MethodPost, one(in.Name, ":start"), nil, nil
	case *echov1.StopEndpointRequest:
		return http.MethodPost, one(in.Name, ":stop"), nil, nil
	case *echov1.RenewEndpointRequest:
		return http.MethodPost, one(in.Name, ":renew"), in, nil
	case *echov1.RenewEndpointsRequest:
		return http.MethodPost, all + ":renew", in, nil
	case *echov1.BatchCreateEndpointsRequest:
		return http.MethodPost, all + ":batchCreate", in, nil
	case *echov1.ApplyEndpointsRequest:
		return http.MethodPost, all + ":apply", in, nil
	case *echov1.PurgeEndpointsRequest:
		return http.MethodPost, all + ":purge", in, nil
	case *echov1.GetInfoRequest:
		return http.MethodGet, "/v1/info", nil, nil
	}
	return "", "", nil, fmt.Errorf("no REST form of %s here", method)
}
