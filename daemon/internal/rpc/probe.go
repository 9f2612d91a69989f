package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/registry"
	"github.com/echod/echod/daemon/internal/runs"
	"github.com/echod/echod/daemon/probe"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// maxRunTime is how long RunProbe waits; a probe that takes longer is stopped then.
const maxRunTime = 5 * time.Minute

// Runs is what ProbeService needs of the running probes.
type Runs interface {
	Start(name string, target runs.Target, plan probe.Plan) (*runs.Handle, error)
	Follow(name string, target runs.Target, plan probe.Plan) (*runs.Handle, error)
	FollowAggregates(name string, target runs.Target, plan probe.Plan, every time.Duration) (*runs.Aggregates, error)
	Get(name string) (runs.Run, error)
	List(after string, limit int) (found []runs.Run, more bool)
	Stop(name string) (runs.Run, error)
	Delete(name string) error
}

// Targets is where ProbeService finds the endpoints that it is to probe, and their ledgers.
type Targets interface {
	Get(name string) (registry.Endpoint, error)
	Ledgers
}

// Policy says whether the API of an echod may be called at an address.
type Policy interface {
	PermitControl(netip.AddrPort) error
}

// ProbeService serves echo.v1.ProbeService.
type ProbeService struct {
	echov1.UnsafeProbeServiceServer
	runs    Runs
	targets Targets
	policy  Policy
	pages   pager
}

// NewProbeService serves one set of runs, finds endpoints to probe among targets, and asks for the ledgers of others where
// the policy lets it.
func NewProbeService(r Runs, targets Targets, policy Policy) *ProbeService {
	return &ProbeService{runs: r, targets: targets, policy: policy, pages: newPager()}
}

// RunProbe implements the service.
func (s *ProbeService) RunProbe(ctx context.Context, req *echov1.RunProbeRequest) (*echov1.ProbeReport, error) {
	target, plan, err := s.plan(req.GetProbe())
	if err != nil {
		return nil, err
	}
	started, err := s.runs.Start(req.GetProbe().GetName(), target, plan)
	if err != nil {
		return nil, err
	}
	waiting, cancel := context.WithTimeout(ctx, maxRunTime)
	defer cancel()
	run, err := started.Wait(waiting)
	if err != nil && (ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded)) {
		return nil, err
	}
	return reportToProto(run), nil
}

// StreamProbe implements the service.
func (s *ProbeService) StreamProbe(req *echov1.StreamProbeRequest, stream grpc.ServerStreamingServer[echov1.StreamProbeResponse]) error {
	target, plan, err := s.plan(req.GetProbe())
	if err != nil {
		return err
	}
	followed, next, err := s.follow(req, target, plan)
	if err != nil {
		return err
	}
	// Whatever ends this call ends the probe; for one that has ended this is nothing.
	defer followed.Stop()
	message := &echov1.StreamProbeResponse{Message: &echov1.StreamProbeResponse_Probe{Probe: probeToProto(followed.Run())}}
	for ok := true; ok; {
		if err := stream.Send(message); err != nil {
			return err
		}
		if message, ok, err = next(stream.Context()); err != nil {
			return err
		}
	}
	return stream.Send(&echov1.StreamProbeResponse{Message: &echov1.StreamProbeResponse_Report{Report: reportToProto(followed.Stop())}})
}

// followedRun is a run that is followed in one way or the other.
type followedRun interface {
	Run() runs.Run
	Stop() runs.Run
}

// follow starts a run and answers what tells of it: each message between the first and the last, until ok is false.
func (s *ProbeService) follow(req *echov1.StreamProbeRequest, target runs.Target, plan probe.Plan) (
	followedRun, func(context.Context) (message *echov1.StreamProbeResponse, ok bool, err error), error,
) {
	name := req.GetProbe().GetName()
	if every := aggregateEvery(req.GetAggregate(), plan); every > 0 {
		followed, err := s.runs.FollowAggregates(name, target, plan, every)
		return followed, func(ctx context.Context) (*echov1.StreamProbeResponse, bool, error) {
			a, ok, err := followed.Next(ctx)
			return &echov1.StreamProbeResponse{Message: &echov1.StreamProbeResponse_Aggregate{Aggregate: aggregateToProto(a)}}, ok, err
		}, err
	}
	followed, err := s.runs.Follow(name, target, plan)
	return followed, func(ctx context.Context) (*echov1.StreamProbeResponse, bool, error) {
		sample, ok, err := followed.Next(ctx)
		return &echov1.StreamProbeResponse{Message: &echov1.StreamProbeResponse_Sample{Sample: sampleToProto(sample)}}, ok, err
	}, err
}

// What a stream does when its client leaves it to the daemon.
const (
	fewRounds        = 100                    // in all: each is told of
	slowInterval     = 10 * time.Millisecond  // from this on each round is told of
	defaultAggregate = 500 * time.Millisecond // else this
)

// aggregateEvery is how far apart the aggregates of a stream are; 0: it tells of each round.
func aggregateEvery(asked *durationpb.Duration, plan probe.Plan) time.Duration {
	switch {
	case asked != nil:
		return asked.AsDuration()
	case plan.Count > 0 && plan.Count <= fewRounds, plan.Interval >= slowInterval:
		return 0
	default:
		return defaultAggregate
	}
}

// CreateProbe implements the service.
func (s *ProbeService) CreateProbe(_ context.Context, req *echov1.CreateProbeRequest) (*echov1.Probe, error) {
	target, plan, err := s.plan(req.GetProbe())
	if err != nil {
		return nil, err
	}
	started, err := s.runs.Start(req.GetProbe().GetName(), target, plan)
	if err != nil {
		return nil, err
	}
	return probeToProto(started.Run()), nil
}

// GetProbe implements the service.
func (s *ProbeService) GetProbe(_ context.Context, req *echov1.GetProbeRequest) (*echov1.Probe, error) {
	run, err := s.runs.Get(req.GetName())
	if err != nil {
		return nil, err
	}
	return probeToProto(run), nil
}

// ListProbes implements the service.
func (s *ProbeService) ListProbes(_ context.Context, req *echov1.ListProbesRequest) (*echov1.ListProbesResponse, error) {
	after, err := s.pages.after(req.GetPageToken(), "")
	if err != nil {
		return nil, err
	}
	found, more := s.runs.List(after, pageSize(req.GetPageSize()))
	resp := &echov1.ListProbesResponse{}
	for _, r := range found {
		resp.Probes = append(resp.Probes, probeToProto(r))
	}
	if more {
		resp.NextPageToken = s.pages.token(found[len(found)-1].Name, "")
	}
	return resp, nil
}

// StopProbe implements the service.
func (s *ProbeService) StopProbe(_ context.Context, req *echov1.StopProbeRequest) (*echov1.ProbeReport, error) {
	run, err := s.runs.Stop(req.GetName())
	if err != nil {
		return nil, err
	}
	return reportToProto(run), nil
}

// DeleteProbe implements the service.
func (s *ProbeService) DeleteProbe(_ context.Context, req *echov1.DeleteProbeRequest) (*emptypb.Empty, error) {
	if err := s.runs.Delete(req.GetName()); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

// plan says what a probe comes to: whom it is sent to, and how.
func (s *ProbeService) plan(p *echov1.Probe) (runs.Target, probe.Plan, error) {
	plan := planFromProto(p)
	target := runs.Target{Endpoint: p.GetTarget().GetEndpoint(), Address: p.GetTarget().GetAddress(), Protocol: plan.Protocol, Ledger: p.GetLedger().GetAddress()}
	var err error
	if target.Expect, err = expectationsFromProto(p.GetExpect()); err != nil {
		return target, plan, err
	}
	if target.Endpoint != "" {
		e, err := s.targets.Get(target.Endpoint)
		if err != nil {
			return target, plan, err
		}
		// Whoever answers at the address of an endpoint that does not serve is not the endpoint.
		if e.State != registry.Serving && e.State != registry.Draining {
			return target, plan, fmt.Errorf("%w: %q is %s; start it first, or probe its address", registry.ErrNotServing, e.Name, stateToProto(e.State))
		}
		asked := p.GetTarget().GetProtocol()
		if asked != echov1.Protocol_PROTOCOL_UNSPECIFIED && asked != protocolToProto(e.Protocol) {
			return target, plan, badField("probe.target.protocol", "is %s, but endpoint %q speaks %s; leave it out", asked, e.Name, e.Protocol)
		}
		if e.Protocol == echo.UDP && p.GetTcp() != nil {
			return target, plan, badField("probe.tcp", "is for TCP, but endpoint %q speaks UDP; leave it out", e.Name)
		}
		target.Protocol = probeProtocol(protocolToProto(e.Protocol))
		plan.Protocol, plan.Address = target.Protocol, dialable(e).String()
		if err := leaveFrom(&plan, e); err != nil {
			return target, plan, err
		}
	}
	if p.GetLedger() != nil && plan.Protocol == probe.TCP {
		return target, plan, badField("probe.ledger", "is for UDP, and the target speaks TCP; leave it out")
	}
	plan.Ledger = s.ledgerOf(target.Ledger, target.Endpoint != "")
	if err := plan.Validate(); err != nil {
		// Such an error begins with the field.
		name, _, _ := strings.Cut(err.Error(), " ")
		return target, plan, badField(cmp.Or(planFields[name], "probe."+name), "%v", err)
	}
	return target, plan, nil
}

// planFields are the fields of a plan that the contract has elsewhere than in the probe itself.
var planFields = map[string]string{
	"protocol": "probe.target.protocol", "address": "probe.target.address",
	"new_connection": "probe.tcp.new_connection", "await_close": "probe.tcp.await_close",
	"max_payload": "probe.path_mtu.max_payload",
}

// leaveFrom has a probe of an endpoint leave from where the endpoint is, unless its source says otherwise.
func leaveFrom(plan *probe.Plan, e registry.Endpoint) error {
	if plan.SourceNamespace == "" {
		plan.SourceNamespace = e.NetworkNamespace
	}
	if !e.IsIn(plan.SourceNamespace) {
		address := e.Address.Addr()
		if address.IsUnspecified() || address.IsLoopback() || address.Zone() != "" {
			// Whoever is there in the other namespace is not the endpoint.
			return badField("probe.source.network_namespace", "is %q, where %s is not endpoint %q, which is in %s; probe an address of it that leads there",
				plan.SourceNamespace, e.Address, e.Name, namespaceText(e.NetworkNamespace))
		}
		return nil
	}
	if e.Address.Addr().IsUnspecified() && e.Interface != "" && e.Interface != loopbackInterface {
		return badField("probe.target.endpoint", "%q listens on every address of interface %s, to which loopback does not lead; probe one of these addresses",
			e.Name, e.Interface)
	}
	if plan.SourceInterface == "" {
		plan.SourceInterface = e.Interface
	}
	return nil
}

// loopbackInterface is what Linux calls the interface of its loopback.
const loopbackInterface = "lo"

func namespaceText(name string) string {
	if name == "" {
		return "the daemon's own"
	}
	return fmt.Sprintf("%q", name)
}

// dialable answers where an endpoint is reached from its own host: over loopback when it listens on every address.
func dialable(e registry.Endpoint) netip.AddrPort {
	addr := e.Address.Addr()
	switch {
	case !addr.IsUnspecified():
		return e.Address
	case addr.Is4(), dualStack(e.Listen):
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), e.Address.Port())
	default:
		return netip.AddrPortFrom(netip.IPv6Loopback(), e.Address.Port())
	}
}

// dualStack says whether a listen without a host was asked for.
func dualStack(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	return err == nil && host == ""
}
