package rpc

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/echod/echod/daemon/internal/registry"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// needReplace are the fields that change only with a new socket, by their names in JSON.
var needReplace = map[string]bool{"protocol": true, "listen": true, "networkNamespace": true, "interface": true}

// ApplyEndpoints implements the service.
func (s *EndpointService) ApplyEndpoints(ctx context.Context, req *echov1.ApplyEndpointsRequest) (*echov1.ApplyEndpointsResponse, error) {
	wanted, err := wantedFromProto(req.GetEndpoints())
	if err != nil {
		return nil, err
	}
	opt := registry.ApplyOptions{Replace: req.GetReplace(), ValidateOnly: req.GetValidateOnly()}
	if req.GetPruneFilter() != "" {
		if opt.Prune, err = selection("prune_filter", req.GetPruneFilter()); err != nil {
			return nil, err
		}
	}
	changes, err := s.endpoints.Apply(ctx, wanted, opt)
	if err != nil {
		return nil, inRequest(err, "endpoints", "", len(wanted))
	}
	return applyReply(changes), nil
}

// wantedFromProto reads what is to be there. The error names all that is wrong.
func wantedFromProto(endpoints []*echov1.Endpoint) ([]registry.Wanted, error) {
	const list = "endpoints"
	bad := &badRequest{}
	names := namesOnce{list: list}
	wanted := make([]registry.Wanted, 0, len(endpoints))
	for i, e := range endpoints {
		if e.GetName() == "" {
			bad.violations = append(bad.violations, violation{element(list, i, ".name"), "is missing: each endpoint needs a name to be found by"})
		}
		if e.GetProtocol() == echov1.Protocol_PROTOCOL_UNSPECIFIED {
			bad.violations = append(bad.violations, violation{element(list, i, ".protocol"), `is missing: say "TCP" or "UDP"`})
		}
		bad.violations = append(bad.violations, names.check(i, e.GetName())...)
		def, err := definitionFromProto(e)
		bad.violations = append(bad.violations, relocated(err, element(list, i, ""))...)
		wanted = append(wanted, registry.Wanted{Definition: def, ETag: e.GetEtag()})
	}
	if len(bad.violations) > 0 {
		return nil, bad
	}
	return wanted, nil
}

// applyReply writes what an apply does. The fields that differ are left out, and counted, where they would be too much for a
// gRPC client; of why something stays FAILED, that it does is told all the same.
func applyReply(changes []registry.Change) *echov1.ApplyEndpointsResponse {
	resp := &echov1.ApplyEndpointsResponse{Changes: make([]*echov1.EndpointChange, 0, len(changes))}
	for _, c := range changes {
		resp.Changes = append(resp.Changes, &echov1.EndpointChange{Name: c.Name, Action: actionToProto(c.Action)})
	}
	size := proto.Size(resp)
	for i, c := range changes {
		if c.Failure != nil {
			failure := c.Failure.Error()
			if size += len(failure) + 8; size > maxPageBytes { // 8: what a text costs within a message
				failure = "see its stateReason"
			}
			resp.Changes[i].Failure = failure
		}
		if c.Action != registry.ActionUpdate && c.Action != registry.ActionReplace {
			continue
		}
		for _, field := range fieldChanges(c) {
			if size += proto.Size(field) + 8; size > maxPageBytes { // 8: what a message costs within others
				resp.Changes[i].OmittedFields++
				continue
			}
			resp.Changes[i].Fields = append(resp.Changes[i].Fields, field)
		}
	}
	return resp
}

func actionToProto(a registry.Action) echov1.EndpointChange_Action {
	switch a {
	case registry.ActionNone:
		return echov1.EndpointChange_NONE
	case registry.ActionCreate:
		return echov1.EndpointChange_CREATE
	case registry.ActionUpdate:
		return echov1.EndpointChange_UPDATE
	case registry.ActionReplace:
		return echov1.EndpointChange_REPLACE
	case registry.ActionDelete:
		return echov1.EndpointChange_DELETE
	default:
		return echov1.EndpointChange_ACTION_UNSPECIFIED
	}
}

// fieldChanges says what differs between two definitions, field by field, in order of their paths.
func fieldChanges(c registry.Change) []*echov1.FieldChange {
	before, after := leaves(definitionToProto(c.Before)), leaves(definitionToProto(c.After))
	if c.Revive {
		before["state"], after["state"] = quoted(registry.Failed), quoted(registry.Serving)
	}
	var all []*echov1.FieldChange
	for path := range maps.Keys(before) {
		if _, there := after[path]; !there {
			after[path] = ""
		}
	}
	for path, text := range after {
		if before[path] != text {
			all = append(all, &echov1.FieldChange{
				Path: path, Before: before[path], After: text, NeedsReplace: c.Action == registry.ActionReplace && needReplace[path],
			})
		}
	}
	slices.SortFunc(all, func(a, b *echov1.FieldChange) int { return cmp.Compare(a.GetPath(), b.GetPath()) })
	return all
}

func quoted(s registry.State) string { return strconv.Quote(stateToProto(s).String()) }

// leaves writes the fields that a message has, by their paths, as JSON: those of messages and the values of maps one by one,
// lists as a whole.
func leaves(m proto.Message) map[string]string {
	found := map[string]string{}
	text, err := protojson.Marshal(m)
	if err == nil {
		err = addLeaves(found, "", text, m.ProtoReflect().Descriptor())
	}
	if err != nil {
		panic("rpc: a message of our own cannot be written as JSON: " + err.Error())
	}
	return found
}

func addLeaves(found map[string]string, prefix string, text []byte, message protoreflect.MessageDescriptor) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return err
	}
	for name, value := range fields {
		path := prefix + name
		var field protoreflect.FieldDescriptor
		if message != nil {
			field = message.Fields().ByJSONName(name)
		} else if strings.Contains(name, ".") {
			path = prefix + strconv.Quote(name) // as a filter has it: labels."app.example/part-of"
		}
		var err error
		switch {
		case field != nil && field.IsMap():
			err = addLeaves(found, path+".", value, nil)
		case field != nil && fieldsOf(field) != nil:
			err = addLeaves(found, path+".", value, fieldsOf(field))
		default:
			var compact bytes.Buffer
			err = json.Compact(&compact, value)
			found[path] = compact.String()
		}
		if err != nil {
			return errors.Join(fmt.Errorf("cannot read %s", path), err)
		}
	}
	return nil
}
