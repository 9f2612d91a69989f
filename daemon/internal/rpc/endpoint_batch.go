package rpc

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/echod/echod/daemon/internal/registry"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// maxNames is how many names an answer has.
const maxNames = 10_000

// BatchCreateEndpoints implements the service.
func (s *EndpointService) BatchCreateEndpoints(ctx context.Context, req *echov1.BatchCreateEndpointsRequest) (*echov1.BatchCreateEndpointsResponse, error) {
	const list, place = "requests", ".endpoint"
	bad := &badRequest{}
	defs := make([]registry.Definition, 0, len(req.GetRequests()))
	names := namesOnce{list: list, place: place}
	for i, one := range req.GetRequests() {
		if one.GetValidateOnly() {
			bad.violations = append(bad.violations, violation{
				element(list, i, ".validate_only"), "has no meaning for one of a batch; set validate_only of the whole",
			})
		}
		bad.violations = append(bad.violations, names.check(i, one.GetEndpoint().GetName())...)
		def, err := definitionFromProto(one.GetEndpoint())
		bad.violations = append(bad.violations, relocated(err, element(list, i, place))...)
		defs = append(defs, def)
	}
	if len(bad.violations) > 0 {
		return nil, bad
	}
	made, err := s.endpoints.CreateAll(ctx, defs, req.GetValidateOnly())
	if err != nil {
		return nil, inRequest(err, list, place, len(defs))
	}
	return batchReply(made), nil
}

// batchReply writes endpoints without counters; where that would be too much for a gRPC client, what is needed to use them.
func batchReply(made []registry.Endpoint) *echov1.BatchCreateEndpointsResponse {
	resp := &echov1.BatchCreateEndpointsResponse{Endpoints: make([]*echov1.Endpoint, 0, len(made))}
	for _, e := range made {
		resp.Endpoints = append(resp.Endpoints, basicToProto(e))
	}
	if proto.Size(resp) > maxPageBytes {
		for i, e := range resp.GetEndpoints() {
			resp.Endpoints[i] = &echov1.Endpoint{
				Name: e.GetName(), Uid: e.GetUid(), Protocol: e.GetProtocol(),
				Address: e.GetAddress(), Host: e.GetHost(), Port: e.GetPort(), State: e.GetState(),
			}
		}
	}
	return resp
}

// namesOnce finds endpoints of one request that have the same name.
type namesOnce struct {
	list, place string
	first       map[string]int
}

func (n *namesOnce) check(index int, name string) []violation {
	if n.first == nil {
		n.first = map[string]int{}
	}
	if other, twice := n.first[name]; twice && name != "" {
		return []violation{{
			element(n.list, index, n.place) + ".name", fmt.Sprintf("%q is the name of %s, too; each needs its own", name, element(n.list, other, n.place)),
		}}
	}
	n.first[name] = index
	return nil
}

// PurgeEndpoints implements the service.
func (s *EndpointService) PurgeEndpoints(ctx context.Context, req *echov1.PurgeEndpointsRequest) (*echov1.PurgeEndpointsResponse, error) {
	match, err := selection("filter", req.GetFilter())
	if err != nil {
		return nil, err
	}
	var names []string
	if req.GetForce() {
		names, err = s.endpoints.Purge(ctx, match, req.GetDrainTimeout().AsDuration())
	} else {
		names = s.endpoints.Matching(match)
	}
	if err != nil {
		return nil, err
	}
	return &echov1.PurgeEndpointsResponse{Count: uint32(len(names)), Names: names[:min(len(names), maxNames)]}, nil
}

// selection reads the filter of a call that changes what it matches; field is what the request calls it. It must be there:
// what is forgotten must not mean everything, for which there is "*".
func selection(field, filter string) (func(*registry.Endpoint) bool, error) {
	switch strings.TrimSpace(filter) {
	case "":
		return nil, badField(field, "is missing: say which endpoints, as in labels.rack = \"r1\"; \"*\" is all of them")
	case "*":
		return func(*registry.Endpoint) bool { return true }, nil
	}
	match, err := endpointFilter.parse(filter)
	if bad := asBadRequest(err); bad != nil {
		bad.violations[0].field = field
	}
	return match, err
}
