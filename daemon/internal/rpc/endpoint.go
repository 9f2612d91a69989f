package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/registry"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// Endpoints is what EndpointService needs of the registry.
type Endpoints interface {
	Get(name string) (registry.Endpoint, error)
	List(after string, limit int, match func(*registry.Endpoint) bool) (found []registry.Endpoint, more bool)
	Create(ctx context.Context, def registry.Definition, validateOnly bool) (registry.Endpoint, error)
	CreateAll(ctx context.Context, defs []registry.Definition, validateOnly bool) ([]registry.Endpoint, error)
	Update(ctx context.Context, name string, opt registry.UpdateOptions, change func(registry.Definition) (registry.Definition, error)) (registry.Endpoint, error)
	Apply(ctx context.Context, wanted []registry.Wanted, opt registry.ApplyOptions) ([]registry.Change, error)
	Matching(match func(*registry.Endpoint) bool) []string
	Purge(ctx context.Context, match func(*registry.Endpoint) bool, drain time.Duration) ([]string, error)
	Delete(ctx context.Context, name, etag string, drain time.Duration) error
	Start(ctx context.Context, name string) (registry.Endpoint, error)
	Stop(ctx context.Context, name string, drain time.Duration) (registry.Endpoint, error)
	Renew(ctx context.Context, name string, ttl time.Duration) (registry.Endpoint, error)
	RenewAll(ctx context.Context, match func(*registry.Endpoint) bool, ttl time.Duration) ([]string, error)
}

// EndpointService serves echo.v1.EndpointService.
type EndpointService struct {
	echov1.UnsafeEndpointServiceServer
	endpoints Endpoints
	pages     pager
}

// NewEndpointService serves the endpoints of one registry.
func NewEndpointService(endpoints Endpoints) *EndpointService {
	return &EndpointService{endpoints: endpoints, pages: newPager()}
}

// CreateEndpoint implements the service.
func (s *EndpointService) CreateEndpoint(ctx context.Context, req *echov1.CreateEndpointRequest) (*echov1.Endpoint, error) {
	def, err := definitionFromProto(req.GetEndpoint())
	if err != nil {
		return nil, err
	}
	return endpointReply(s.endpoints.Create(ctx, def, req.GetValidateOnly()))
}

// GetEndpoint implements the service.
func (s *EndpointService) GetEndpoint(_ context.Context, req *echov1.GetEndpointRequest) (*echov1.Endpoint, error) {
	return endpointReply(s.endpoints.Get(req.GetName()))
}

// ListEndpoints implements the service.
func (s *EndpointService) ListEndpoints(_ context.Context, req *echov1.ListEndpointsRequest) (*echov1.ListEndpointsResponse, error) {
	after, err := s.pages.after(req.GetPageToken(), req.GetFilter())
	if err != nil {
		return nil, err
	}
	match, err := endpointFilter.parse(req.GetFilter())
	if err != nil {
		return nil, err
	}
	size, write := pageSize(req.GetPageSize()), endpointToProto
	if req.GetView() == echov1.ListEndpointsRequest_BASIC {
		size, write = basicPageSize(req.GetPageSize()), basicToProto
	}
	found, more := s.endpoints.List(after, size, match)
	resp := &echov1.ListEndpointsResponse{}
	bytes := 0
	for i, e := range found {
		out := write(e)
		if bytes += proto.Size(out); i > 0 && bytes > maxPageBytes {
			more = true
			break
		}
		resp.Endpoints = append(resp.Endpoints, out)
	}
	if more {
		resp.NextPageToken = s.pages.token(found[len(resp.Endpoints)-1].Name, req.GetFilter())
	}
	return resp, nil
}

// UpdateEndpoint implements the service.
func (s *EndpointService) UpdateEndpoint(ctx context.Context, req *echov1.UpdateEndpointRequest) (*echov1.Endpoint, error) {
	wanted := req.GetEndpoint()
	if wanted.GetName() != "" && wanted.GetName() != req.GetName() {
		return nil, badField("endpoint.name", "%q is not the endpoint being updated, %q; a name cannot be changed", wanted.GetName(), req.GetName())
	}
	opt := registry.UpdateOptions{ETag: wanted.GetEtag(), ValidateOnly: req.GetValidateOnly()}
	e, err := s.endpoints.Update(ctx, req.GetName(), opt, func(now registry.Definition) (registry.Definition, error) {
		def, err := merge(now, req)
		if err == nil && def.Session != "" && def.Session != now.Session {
			err = badField("endpoint.session", "%q cannot become the session of %q: an endpoint is created in one, and stays in it", def.Session, now.Name)
		}
		return def, err
	})
	if !errors.Is(err, registry.ErrNotFound) || !req.GetAllowMissing() {
		return endpointReply(e, err)
	}
	if opt.ETag != "" {
		return nil, fmt.Errorf("%w: %q is gone, and the change was meant for it as it was with etag %s", registry.ErrStale, req.GetName(), opt.ETag)
	}
	// The mask is checked here, too; what it leaves out is the default.
	def, err := merge(registry.Definition{Name: req.GetName()}, req)
	if err != nil {
		return nil, err
	}
	e, err = s.endpoints.Create(ctx, def, req.GetValidateOnly())
	if errors.Is(err, registry.ErrExists) && ctx.Err() == nil {
		return s.UpdateEndpoint(ctx, req) // somebody else has created it meanwhile
	}
	return endpointReply(e, err)
}

// merge makes of a definition what an update asks for, and checks the whole as a create would be checked.
func merge(now registry.Definition, req *echov1.UpdateEndpointRequest) (registry.Definition, error) {
	merged := definitionToProto(now)
	paths, err := applyMask(merged, req.GetEndpoint(), req.GetUpdateMask())
	if err != nil {
		return registry.Definition{}, err
	}
	merged.Name, merged.Etag = now.Name, ""
	// An endpoint that changes its protocol takes the options of the other with it only if it is told to.
	if merged.GetProtocol() == echov1.Protocol_UDP && !names(paths, "tcp") {
		merged.Tcp = nil
	}
	if merged.GetProtocol() == echov1.Protocol_TCP && !names(paths, "udp") {
		merged.Udp = nil
	}
	if err := validate(&echov1.CreateEndpointRequest{Endpoint: merged}); err != nil {
		return registry.Definition{}, err
	}
	return definitionFromProto(merged)
}

// names says whether a path is a field or within it.
func names(paths []string, field string) bool {
	return slices.ContainsFunc(paths, func(path string) bool { return path == field || strings.HasPrefix(path, field+".") })
}

// DeleteEndpoint implements the service.
func (s *EndpointService) DeleteEndpoint(ctx context.Context, req *echov1.DeleteEndpointRequest) (*emptypb.Empty, error) {
	if err := s.endpoints.Delete(ctx, req.GetName(), req.GetEtag(), req.GetDrainTimeout().AsDuration()); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

// StartEndpoint implements the service.
func (s *EndpointService) StartEndpoint(ctx context.Context, req *echov1.StartEndpointRequest) (*echov1.Endpoint, error) {
	return endpointReply(s.endpoints.Start(ctx, req.GetName()))
}

// StopEndpoint implements the service.
func (s *EndpointService) StopEndpoint(ctx context.Context, req *echov1.StopEndpointRequest) (*echov1.Endpoint, error) {
	return endpointReply(s.endpoints.Stop(ctx, req.GetName(), req.GetDrainTimeout().AsDuration()))
}

func endpointReply(e registry.Endpoint, err error) (*echov1.Endpoint, error) {
	if errors.Is(err, echo.ErrBadSpec) {
		return nil, badField("endpoint.listen", "%v", err) // the rest of a specification was checked before
	}
	if err != nil {
		return nil, err
	}
	return endpointToProto(e), nil
}
