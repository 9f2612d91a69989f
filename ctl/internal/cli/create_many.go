package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/protobuf/proto"
)

// The most that the daemon takes in one call.
const (
	maxBatch        = 10_000
	maxRequestBytes = 8 << 20
)

const highestPort = 65535

// series is how many endpoints a create makes, and where each listens.
type series struct {
	count int
	host  string // of LISTEN, as given
	port  int    // the first; 0: each has a port that is picked
}

// newSeries reads LISTEN, which may end in a range of ports, and --count. It is nil when one endpoint is meant.
func newSeries(listen string, count *countFlag) (*series, error) {
	host, ports := listen, ""
	if i := strings.LastIndexByte(listen, ':'); i >= 0 {
		host, ports = listen[:i], listen[i+1:]
	}
	first, last, isRange := strings.Cut(ports, "-")
	s := &series{host: host}
	switch {
	case !isRange && !count.set:
		return nil, nil
	case isRange && count.set:
		return nil, usagef("say either a range of ports or --count, not both")
	case isRange:
		from, errFrom := strconv.ParseUint(first, 10, 16)
		to, errTo := strconv.ParseUint(last, 10, 16)
		if errFrom != nil || errTo != nil || from == 0 || to < from {
			return nil, usagef("%q is no range of ports: say FIRST-LAST, as in 20000-20999, of 1 to %d", ports, highestPort)
		}
		s.port, s.count = int(from), int(to-from)+1
	case count.value == 0:
		return nil, usagef("--count must be at least 1")
	default:
		s.count = int(min(count.value, maxBatch+1))
		port, err := strconv.ParseUint(ports, 10, 16)
		if listen != "" && err != nil {
			return nil, usagef("LISTEN %q has no port to count from: say HOST:PORT, with port 0 for free ones", listen)
		}
		if s.port = int(port); s.port > 0 && s.port+s.count-1 > highestPort && s.count <= maxBatch {
			return nil, usagef("%d ports from %d on go beyond %d", s.count, s.port, highestPort)
		}
	}
	if s.count > maxBatch {
		return nil, usagef("at most %d endpoints are created at once: create them in parts", maxBatch)
	}
	return s, nil
}

// endpoint is the i-th of the series, from 0, made after a model. Names are numbered without zeros in front, so that they stay
// the same however many there are.
func (s *series) endpoint(model *echov1.Endpoint, i int) *echov1.Endpoint {
	e := proto.CloneOf(model)
	if e.GetName() != "" {
		e.Name = fmt.Sprintf("%s-%d", e.GetName(), i+1)
	}
	if s.port > 0 {
		e.Listen = s.host + ":" + strconv.Itoa(s.port+i)
	}
	return e
}

// createMany creates a series as one change.
func (s *session) createMany(ctx context.Context, many *series, model *echov1.Endpoint, validateOnly bool) error {
	request := &echov1.BatchCreateEndpointsRequest{ValidateOnly: validateOnly}
	for i := range many.count {
		request.Requests = append(request.Requests, &echov1.CreateEndpointRequest{Endpoint: many.endpoint(model, i)})
	}
	if err := fits(request, "create fewer at once"); err != nil {
		return err
	}
	ctx, cancel := s.call(ctx, 0)
	defer cancel()
	created, err := s.endpoints.BatchCreateEndpoints(ctx, request)
	if err != nil {
		return &callError{kind: anEndpoint, err: err, locate: func(field string) string {
			i, rest, ok := indexed(field, "requests")
			if !ok || i >= many.count {
				return ""
			}
			e := request.GetRequests()[i].GetEndpoint()
			name := e.GetName()
			if name == "" {
				name = fmt.Sprintf("endpoint %d", i+1)
			}
			if e.GetListen() != "" {
				name += " (" + e.GetListen() + ")"
			}
			return joined(name, strings.TrimPrefix(strings.TrimPrefix(rest, "endpoint"), "."))
		}}
	}
	if err := s.out.Endpoints(created.GetEndpoints()); err != nil {
		return err
	}
	if validateOnly {
		s.app.talk("checked only; nothing was created")
	} else {
		s.app.talk("created %s", endpointsText(len(created.GetEndpoints())))
	}
	return nil
}

// indexed takes "list[12].rest" apart.
func indexed(field, list string) (i int, rest string, ok bool) {
	number, rest, ok := strings.Cut(strings.TrimPrefix(field, list+"["), "]")
	i, err := strconv.Atoi(number)
	return i, strings.TrimPrefix(rest, "."), ok && err == nil && i >= 0 && strings.HasPrefix(field, list+"[")
}

// joined is "what: field", or what alone.
func joined(what, field string) string {
	if field == "" {
		return what
	}
	return what + ": " + field
}

// fits refuses a request that the daemon would not read.
func fits(request proto.Message, advice string) error {
	if size := proto.Size(request); size > maxRequestBytes {
		return fmt.Errorf("that is a request of %.1f MiB, and the daemon takes %d MiB: %s", float64(size)/(1<<20), maxRequestBytes>>20, advice)
	}
	return nil
}
