//go:build linux

package torture_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

const (
	// namesEach is how many names a client has.
	namesEach = 12
	// portsEach is how many ports of its own a client has: fewer than names, so that one endpoint is in another's way.
	portsEach = 8
	// lease is long enough for any run.
	lease = 24 * time.Hour
)

// client changes endpoints that are its own, one call after the other, and knows what must have become of them.
type client struct {
	name string
	rest bool
	w    *world
	rnd  *rand.Rand
	m    model
	port int // the first of its own
}

// outcome is what is known of a call.
type outcome int

const (
	done    outcome = iota
	refused         // the daemon has said no: nothing has changed
	unknown         // no answer came: it may or may not be so
)

// judge says what an error of a call means, and whether it should not be.
func (w *world) judge(l *life, err error) (outcome, error) {
	if err == nil {
		return done, nil
	}
	s := status.Convert(err)
	for _, d := range s.Details() {
		info, ok := d.(*errdetails.ErrorInfo)
		if !ok || info.Domain != "echod" {
			continue
		}
		switch info.Reason {
		case "ADDRESS_IN_USE":
			return refused, nil // by another one of ours, or by a fault
		case "SHUTTING_DOWN":
			if l.mortal.Load() {
				return refused, nil
			}
		case "UPGRADING":
			if l.moving.Load() {
				return refused, nil
			}
		case "UPGRADED":
			if l.moving.Load() {
				return unknown, nil
			}
		}
		if w.refusals.Load() != nil && slices.Contains(*w.refusals.Load(), info.Reason) {
			return refused, nil
		}
		return refused, fmt.Errorf("refused without reason: %w", err)
	}
	if dying := l.mortal.Load() || l.moving.Load() || l.hasEnded(); dying && (s.Code() == codes.Unavailable || s.Code() == codes.Canceled) {
		return unknown, nil
	}
	if errors.Is(err, context.DeadlineExceeded) || s.Code() == codes.DeadlineExceeded {
		return unknown, fmt.Errorf("a call hangs: %w", err)
	}
	return unknown, fmt.Errorf("a call failed that should not: %w", err)
}

// api is the way to the daemon's present life.
func (c *client) api(l *life) echov1.EndpointServiceClient {
	if c.rest {
		return echov1.NewEndpointServiceClient(l.rest)
	}
	return l.endpoints()
}

func (c *client) filter() string { return fmt.Sprintf("labels.owner = %q", c.name) }

// work changes endpoints until the world ends.
func (c *client) work() {
	for !c.w.over() {
		c.w.churn.RLock()
		if l := c.w.life(); l != nil && !c.m.uncertain() {
			c.change(l)
		} else {
			c.w.idle()
		}
		c.w.churn.RUnlock()
	}
}

// change does one thing.
func (c *client) change(l *life) {
	c.turn(l, c.choose())
	if c.rnd.IntN(8) == 0 && !c.m.uncertain() {
		c.look(l)
	}
}

// call is one call and what is to come of it.
type call struct {
	what  string
	in    proto.Message
	after endpoints // when it is done
	do    func(context.Context, echov1.EndpointServiceClient) (proto.Message, error)
	// learn takes from an answer what the daemon chose; nil: it has to be looked at.
	learn func(endpoints, proto.Message) (wrong []string)
}

// turn makes a call, and has the model follow.
func (c *client) turn(l *life, do call) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	began := time.Now()
	answer, err := do.do(ctx, c.api(l))
	came, wrong := c.w.judge(l, err)
	c.w.answers.Add(1)
	e := event{Who: c.name, What: do.what, Life: l.number, Request: do.in, Took: time.Since(began).String()}
	if err == nil {
		e.Answer = answer
	} else {
		e.Error = err.Error()
	}
	c.w.history.add(e)
	if wrong != nil {
		c.w.fail("%s %s %v: %v", c.name, do.what, do.in, wrong)
	}
	switch came {
	case done:
		c.m.may = []endpoints{do.after}
		c.w.acked()
		if do.learn == nil {
			c.look(l)
		} else if wrong := do.learn(c.m.is(), answer); len(wrong) > 0 {
			c.w.fail("%s %s: the answer is not what was asked for: %s", c.name, do.what, strings.Join(wrong, ", "))
		}
	case unknown:
		c.m.may = append(c.m.may, do.after)
	}
}

// look reads all of its own, and compares.
func (c *client) look(l *life) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	got, err := list(ctx, c.api(l), c.filter())
	came, wrong := c.w.judge(l, err)
	if wrong != nil {
		c.w.fail("%s: cannot list: %v", c.name, wrong)
	}
	if came != done {
		return
	}
	if wrong := c.m.settle(got); wrong != "" {
		c.w.fail("%s: what is there is not what was acknowledged: %s", c.name, wrong)
	}
}

// definition makes an endpoint up; what it leaves to the daemon is the port at most.
func (c *client) definition(name string) *echov1.Endpoint {
	e := &echov1.Endpoint{Name: name, Protocol: echov1.Protocol_TCP, Description: fmt.Sprint("made up ", c.rnd.IntN(1000))}
	port := 0
	if c.rnd.IntN(3) == 0 {
		port = c.port + c.rnd.IntN(portsEach)
	}
	e.Listen = fmt.Sprintf("%s:%d", c.w.host, port)
	if c.rnd.IntN(2) == 0 {
		e.Protocol = echov1.Protocol_UDP
	}
	c.options(e)
	return e
}

// options makes up what may change while an endpoint serves.
func (c *client) options(e *echov1.Endpoint) {
	if e.Protocol == echov1.Protocol_TCP {
		limit := uint32(16 + c.rnd.IntN(1000)) // more than use an endpoint at once
		e.Tcp = &echov1.TcpOptions{
			IdleTimeout:    durationpb.New(time.Duration(1+c.rnd.IntN(100)) * time.Minute),
			StallTimeout:   durationpb.New(time.Duration(1+c.rnd.IntN(100)) * time.Minute),
			MaxConnections: &limit,
		}
	} else {
		e.Udp = &echov1.UdpOptions{LoopGuard: proto.Bool(c.rnd.IntN(2) == 0)}
	}
	e.Labels = map[string]string{"owner": c.name, "turn": fmt.Sprint(c.rnd.IntN(4))}
	if c.rnd.IntN(2) == 0 {
		e.Labels["extra"] = fmt.Sprint(c.rnd.IntN(1000))
	}
	e.Ttl = nil
	if c.rnd.IntN(3) == 0 {
		e.Ttl = durationpb.New(lease + time.Duration(c.rnd.IntN(100))*time.Hour)
	}
}

func (c *client) pick(from []string) string { return from[c.rnd.IntN(len(from))] }

// choose makes up a call.
func (c *client) choose() call {
	now := c.m.is()
	var free []string
	for i := range namesEach {
		if name := fmt.Sprintf("%s-%d", c.name, i); now[name].def == nil {
			free = append(free, name)
		}
	}
	have := now.names()
	for {
		switch n := c.rnd.IntN(100); {
		case n < 22 && len(free) > 0:
			return c.create(c.pick(free))
		case n < 30 && len(free) > 2:
			return c.batchCreate(free)
		case n < 50 && len(have) > 0:
			return c.update(c.pick(have))
		case n < 60 && len(have) > 0:
			return c.stop(c.pick(have))
		case n < 72 && len(have) > 0:
			return c.start(c.pick(have))
		case n < 82 && len(have) > 0:
			return c.delete(c.pick(have))
		case n < 87 && len(have) > 0:
			return c.renew(c.pick(have))
		case n < 90 && len(have) > 0:
			return c.purge()
		case n >= 90:
			return c.apply()
		}
	}
}

// learnOne is for calls that answer an endpoint.
func learnOne(name string) func(endpoints, proto.Message) []string {
	return func(state endpoints, answer proto.Message) []string {
		got := answer.(*echov1.Endpoint)
		w := state[name].changed(state[name].def) // it may be later than what is known
		wrong := w.differs(got)
		w.seen = proto.CloneOf(got)
		w.seen.Counters = nil
		state[name] = w
		return wrong
	}
}

// learnNothing is for calls whose answer tells nothing new.
func learnNothing(endpoints, proto.Message) []string { return nil }

func (c *client) create(name string) call {
	def := c.definition(name)
	after := c.m.is().clone()
	after[name] = wanted{def: def, serve: true}
	in := &echov1.CreateEndpointRequest{Endpoint: def}
	return call{"create", in, after, func(ctx context.Context, api echov1.EndpointServiceClient) (proto.Message, error) {
		return api.CreateEndpoint(ctx, in)
	}, learnOne(name)}
}

func (c *client) batchCreate(free []string) call {
	after := c.m.is().clone()
	in := &echov1.BatchCreateEndpointsRequest{}
	for _, name := range free[:2+c.rnd.IntN(len(free)-1)] {
		def := c.definition(name)
		after[name] = wanted{def: def, serve: true}
		in.Requests = append(in.Requests, &echov1.CreateEndpointRequest{Endpoint: def})
	}
	return call{"batch create", in, after, func(ctx context.Context, api echov1.EndpointServiceClient) (proto.Message, error) {
		return api.BatchCreateEndpoints(ctx, in)
	}, nil}
}

func (c *client) update(name string) call {
	after := c.m.is().clone()
	def := proto.CloneOf(after[name].def)
	c.options(def)
	def.Description = fmt.Sprint("changed ", c.rnd.IntN(1000))
	after[name] = after[name].changed(def)
	in := &echov1.UpdateEndpointRequest{
		Name: name, Endpoint: def, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"description", "labels", "ttl", "tcp", "udp"}},
	}
	return call{"update", in, after, func(ctx context.Context, api echov1.EndpointServiceClient) (proto.Message, error) {
		return api.UpdateEndpoint(ctx, in)
	}, learnOne(name)}
}

func (c *client) serves(name string, serve bool) endpoints {
	after := c.m.is().clone()
	w := after[name]
	w.serve = serve
	after[name] = w
	return after
}

func (c *client) stop(name string) call {
	in := &echov1.StopEndpointRequest{Name: name}
	return call{"stop", in, c.serves(name, false), func(ctx context.Context, api echov1.EndpointServiceClient) (proto.Message, error) {
		return api.StopEndpoint(ctx, in)
	}, learnOne(name)}
}

func (c *client) start(name string) call {
	in := &echov1.StartEndpointRequest{Name: name}
	return call{"start", in, c.serves(name, true), func(ctx context.Context, api echov1.EndpointServiceClient) (proto.Message, error) {
		return api.StartEndpoint(ctx, in)
	}, learnOne(name)}
}

func (c *client) delete(name string) call {
	after := c.m.is().clone()
	delete(after, name)
	in := &echov1.DeleteEndpointRequest{Name: name}
	return call{"delete", in, after, func(ctx context.Context, api echov1.EndpointServiceClient) (proto.Message, error) {
		return api.DeleteEndpoint(ctx, in)
	}, learnNothing}
}

func (c *client) renew(name string) call {
	after := c.m.is().clone()
	def := proto.CloneOf(after[name].def)
	def.Ttl = durationpb.New(lease + time.Duration(c.rnd.IntN(100))*time.Hour)
	after[name] = after[name].changed(def)
	in := &echov1.RenewEndpointRequest{Name: name, Ttl: def.Ttl}
	return call{"renew", in, after, func(ctx context.Context, api echov1.EndpointServiceClient) (proto.Message, error) {
		return api.RenewEndpoint(ctx, in)
	}, learnOne(name)}
}

// purge deletes a fourth of what it has, about.
func (c *client) purge() call {
	turn := fmt.Sprint(c.rnd.IntN(4))
	after := c.m.is().clone()
	maps.DeleteFunc(after, func(_ string, w wanted) bool { return w.def.Labels["turn"] == turn })
	in := &echov1.PurgeEndpointsRequest{Filter: fmt.Sprintf("%s AND labels.turn = %q", c.filter(), turn), Force: true}
	return call{"purge", in, after, func(ctx context.Context, api echov1.EndpointServiceClient) (proto.Message, error) {
		return api.PurgeEndpoints(ctx, in)
	}, learnNothing}
}

// apply says what some names are to be, and has all others deleted.
func (c *client) apply() call {
	now, after := c.m.is(), endpoints{}
	in := &echov1.ApplyEndpointsRequest{PruneFilter: c.filter(), Replace: true}
	for i := range namesEach {
		name := fmt.Sprintf("%s-%d", c.name, i)
		w, there := now[name]
		switch n := c.rnd.IntN(4); {
		case n == 0 && there: // as it is
			after[name] = w.changed(w.def) // it may have a lease, which is renewed
		case n == 1 && there: // changed
			def := proto.CloneOf(w.def)
			c.options(def)
			after[name] = w.changed(def)
		case n == 2:
			def := c.definition(name)
			after[name] = wanted{def: def, serve: true}
			if there {
				// A port that is left open stays what it is, unless the protocol changes.
				expected := proto.CloneOf(def)
				if def.Protocol == w.def.Protocol && strings.HasSuffix(def.Listen, ":0") {
					expected.Listen = w.def.Listen
				}
				n := w.changed(expected)
				if n.seen != nil && def.Protocol != w.def.Protocol {
					n.seen.Address = ""
				}
				after[name] = n
			}
			in.Endpoints = append(in.Endpoints, def)
			continue
		default:
			continue
		}
		in.Endpoints = append(in.Endpoints, after[name].def)
	}
	return call{"apply", in, after, func(ctx context.Context, api echov1.EndpointServiceClient) (proto.Message, error) {
		return api.ApplyEndpoints(ctx, in)
	}, nil}
}
