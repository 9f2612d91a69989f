package cli

import (
	"context"
	"net"
	"testing"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/emptypb"
)

// fake is a daemon for what a real one cannot be brought to do at will. What it has no function for is Unimplemented.
type fake struct {
	echov1.UnimplementedEndpointServiceServer
	echov1.UnimplementedProbeServiceServer
	echov1.UnimplementedDaemonServiceServer
	echov1.UnimplementedEventServiceServer
	echov1.UnimplementedSessionServiceServer

	get    func(*echov1.GetEndpointRequest) (*echov1.Endpoint, error)
	update func(*echov1.UpdateEndpointRequest) (*echov1.Endpoint, error)
	create func(*echov1.CreateEndpointRequest) (*echov1.Endpoint, error)
	list   func(context.Context, *echov1.ListEndpointsRequest) (*echov1.ListEndpointsResponse, error)
	remove func(context.Context, *echov1.DeleteEndpointRequest) error
	batch  func(*echov1.BatchCreateEndpointsRequest) (*echov1.BatchCreateEndpointsResponse, error)
	purge  func(context.Context, *echov1.PurgeEndpointsRequest) (*echov1.PurgeEndpointsResponse, error)
	apply  func(*echov1.ApplyEndpointsRequest) (*echov1.ApplyEndpointsResponse, error)
	stream func(grpc.ServerStreamingServer[echov1.StreamProbeResponse]) error
	hold   func(*echov1.HoldRequest, grpc.ServerStreamingServer[echov1.HoldResponse]) error
	watch  func(*echov1.WatchEventsRequest, grpc.ServerStreamingServer[echov1.WatchEventsResponse]) error
	// asked is where the request for a stream is copied to, unless nil.
	asked *echov1.StreamProbeRequest
	stop  func(*echov1.StopProbeRequest) (*echov1.ProbeReport, error)

	readiness func(context.Context) (*echov1.Readiness, error)
	upgrade   func(*echov1.UpgradeDaemonRequest) (*echov1.UpgradeDaemonResponse, error)
}

func (f *fake) GetReadiness(ctx context.Context, req *echov1.GetReadinessRequest) (*echov1.Readiness, error) {
	if f.readiness == nil {
		return f.UnimplementedDaemonServiceServer.GetReadiness(ctx, req)
	}
	return f.readiness(ctx)
}

func (f *fake) UpgradeDaemon(_ context.Context, req *echov1.UpgradeDaemonRequest) (*echov1.UpgradeDaemonResponse, error) {
	if f.upgrade == nil {
		return nil, errUnimplemented
	}
	return f.upgrade(req)
}

// start serves f until the test ends, and answers its address.
func (f *fake) start(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.serve(t, listener)
	return listener.Addr().String()
}

func (f *fake) serve(t *testing.T, listener net.Listener) {
	t.Helper()
	server := grpc.NewServer()
	echov1.RegisterEndpointServiceServer(server, f)
	echov1.RegisterProbeServiceServer(server, f)
	echov1.RegisterDaemonServiceServer(server, f)
	echov1.RegisterEventServiceServer(server, f)
	echov1.RegisterSessionServiceServer(server, f)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

var errUnimplemented = status.Error(codes.Unimplemented, "not here")

func (f *fake) GetEndpoint(_ context.Context, r *echov1.GetEndpointRequest) (*echov1.Endpoint, error) {
	if f.get == nil {
		return nil, errUnimplemented
	}
	return f.get(r)
}

func (f *fake) UpdateEndpoint(_ context.Context, r *echov1.UpdateEndpointRequest) (*echov1.Endpoint, error) {
	if f.update == nil {
		return nil, errUnimplemented
	}
	return f.update(r)
}

func (f *fake) CreateEndpoint(_ context.Context, r *echov1.CreateEndpointRequest) (*echov1.Endpoint, error) {
	if f.create == nil {
		return nil, errUnimplemented
	}
	return f.create(r)
}

func (f *fake) ListEndpoints(ctx context.Context,
	r *echov1.ListEndpointsRequest) (*echov1.ListEndpointsResponse, error) {
	if f.list == nil {
		return nil, errUnimplemented
	}
	return f.list(ctx, r)
}

func (f *fake) DeleteEndpoint(ctx context.Context, r *echov1.DeleteEndpointRequest) (*emptypb.Empty, error) {
	if f.remove == nil {
		return nil, errUnimplemented
	}
	return &emptypb.Empty{}, f.remove(ctx, r)
}

func (f *fake) BatchCreateEndpoints(_ context.Context,
	r *echov1.BatchCreateEndpointsRequest) (*echov1.BatchCreateEndpointsResponse, error) {
	if f.batch == nil {
		return nil, errUnimplemented
	}
	return f.batch(r)
}

func (f *fake) PurgeEndpoints(ctx context.Context,
	r *echov1.PurgeEndpointsRequest) (*echov1.PurgeEndpointsResponse, error) {
	if f.purge == nil {
		return nil, errUnimplemented
	}
	return f.purge(ctx, r)
}

func (f *fake) ApplyEndpoints(_ context.Context,
	r *echov1.ApplyEndpointsRequest) (*echov1.ApplyEndpointsResponse, error) {
	if f.apply == nil {
		return nil, errUnimplemented
	}
	return f.apply(r)
}

func (f *fake) StreamProbe(r *echov1.StreamProbeRequest,
	stream grpc.ServerStreamingServer[echov1.StreamProbeResponse]) error {
	if f.stream == nil {
		return errUnimplemented
	}
	if f.asked != nil {
		proto.Merge(f.asked, r)
	}
	return f.stream(stream)
}

func (f *fake) StopProbe(_ context.Context, r *echov1.StopProbeRequest) (*echov1.ProbeReport, error) {
	if f.stop == nil {
		return nil, errUnimplemented
	}
	return f.stop(r)
}

func (f *fake) WatchEvents(r *echov1.WatchEventsRequest, stream grpc.ServerStreamingServer[echov1.WatchEventsResponse]) error {
	if f.watch == nil {
		return errUnimplemented
	}
	return f.watch(r, stream)
}

func (f *fake) Hold(r *echov1.HoldRequest, stream grpc.ServerStreamingServer[echov1.HoldResponse]) error {
	if f.hold == nil {
		return errUnimplemented
	}
	return f.hold(r, stream)
}

func (f *fake) EndSession(context.Context, *echov1.EndSessionRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, nil
}

// failure makes a status with details.
func failure(t *testing.T, code codes.Code, message string, details ...protoadapt.MessageV1) error {
	t.Helper()
	s, err := status.New(code, message).WithDetails(details...)
	if err != nil {
		t.Fatal(err)
	}
	return s.Err()
}
