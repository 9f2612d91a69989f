package rpc

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// ApplyEndpoints implements the service.
func (s *EndpointService) ApplyEndpoints(context.Context, *echov1.ApplyEndpointsRequest) (*echov1.ApplyEndpointsResponse, error) {
	return nil, status.Error(codes.Unimplemented, "not built")
}
