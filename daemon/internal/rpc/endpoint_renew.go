package rpc

import (
	"context"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// RenewEndpoint implements the service.
func (s *EndpointService) RenewEndpoint(ctx context.Context, req *echov1.RenewEndpointRequest) (*echov1.Endpoint, error) {
	return endpointReply(s.endpoints.Renew(ctx, req.GetName(), req.GetTtl().AsDuration()))
}

// RenewEndpoints implements the service.
func (s *EndpointService) RenewEndpoints(ctx context.Context, req *echov1.RenewEndpointsRequest) (*echov1.RenewEndpointsResponse, error) {
	match, err := selection("filter", req.GetFilter())
	if err != nil {
		return nil, err
	}
	names, err := s.endpoints.RenewAll(ctx, match, req.GetTtl().AsDuration())
	if err != nil {
		return nil, err
	}
	return &echov1.RenewEndpointsResponse{Count: uint32(len(names)), Names: names[:min(len(names), maxNames)]}, nil
}
