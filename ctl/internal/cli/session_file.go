package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/echod/echod/ctl/internal/lab"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// readFiles reads what the session's files say; nothing when there are none. The endpoints are in no other session.
func (o *sessionOptions) readFiles(stdin io.Reader, hasCommand bool) (*lab.Lab, error) {
	if len(o.files) == 0 {
		if o.recursive {
			return nil, usagef("--recursive is about folders, and -f is not given")
		}
		return &lab.Lab{}, nil
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if hasCommand && slices.Contains(o.files, stdinFile) {
		return nil, usagef("-f - would read the standard input of the command: give it a file")
	}
	l, err := o.read(stdin)
	if err != nil {
		return nil, err
	}
	for i, e := range l.Endpoints {
		if e.GetSession() != "" {
			return nil, fmt.Errorf("%s: %s: session: the endpoint is to be in this session, not in %q: take the line away",
				l.Place(i, "session"), e.GetName(), e.GetSession())
		}
	}
	return l, nil
}

// createDescribed creates the endpoints that files describe in the session, as one change. Labels come on top of theirs.
func (h *heldSession) createDescribed(ctx context.Context, l *lab.Lab, labels map[string]string) ([]*echov1.Endpoint, error) {
	if len(l.Endpoints) == 0 {
		return nil, nil
	}
	request := &echov1.BatchCreateEndpointsRequest{}
	for _, described := range l.Endpoints {
		e := proto.CloneOf(described)
		e.Session = h.name
		if e.Labels == nil {
			e.Labels = map[string]string{}
		}
		maps.Copy(e.Labels, labels)
		request.Requests = append(request.Requests, &echov1.CreateEndpointRequest{Endpoint: e})
	}
	if err := fits(request, "describe fewer endpoints"); err != nil {
		return nil, err
	}
	ctx, cancel := h.session.call(ctx, 0)
	defer cancel()
	created, err := h.session.endpoints.BatchCreateEndpoints(ctx, request)
	if err != nil {
		return nil, &callError{kind: anEndpoint, err: err, locate: inFiles(l, "requests", "endpoint")}
	}
	return created.GetEndpoints(), nil
}
