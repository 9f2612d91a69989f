package rpc

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// RenewEndpoint implements the service.
func (s *EndpointService) RenewEndpoint(context.Context, *echov1.RenewEndpointRequest) (*echov1.Endpoint, error) {
	return nil, status.Error(codes.Unimplemented, "not built")
}

// RenewEndpoints implements the service.
func (s *EndpointService) RenewEndpoints(context.Context, *echov1.RenewEndpointsRequest) (*echov1.RenewEndpointsResponse, error) {
	return nil, status.Error(codes.Unimplemented, "not built")
}
