package rpc

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// BatchCreateEndpoints implements the service.
func (s *EndpointService) BatchCreateEndpoints(context.Context, *echov1.BatchCreateEndpointsRequest) (*echov1.BatchCreateEndpointsResponse, error) {
	return nil, status.Error(codes.Unimplemented, "not built")
}

// PurgeEndpoints implements the service.
func (s *EndpointService) PurgeEndpoints(context.Context, *echov1.PurgeEndpointsRequest) (*echov1.PurgeEndpointsResponse, error) {
	return nil, status.Error(codes.Unimplemented, "not built")
}
