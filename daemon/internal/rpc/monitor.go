package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/echod/echod/daemon/internal/monitor"
	"github.com/echod/echod/daemon/internal/registry"
	"github.com/echod/echod/daemon/probe"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// Monitors is what MonitorService needs of the monitors.
type Monitors interface {
	Get(name string) (monitor.Monitor, error)
	List(after string, limit int, match func(*monitor.Monitor) bool) (found []monitor.Monitor, more bool)
	Create(ctx context.Context, def monitor.Definition, validateOnly bool) (monitor.Monitor, error)
	Update(ctx context.Context, name string, opt monitor.UpdateOptions, change func(monitor.Definition) (monitor.Definition, error)) (monitor.Monitor, error)
	Delete(ctx context.Context, name, etag string) error
	Run(ctx context.Context, name string) (monitor.Run, error)
}

// MonitorService serves echo.v1.MonitorService.
type MonitorService struct {
	echov1.UnsafeMonitorServiceServer
	monitors Monitors
	probes   *ProbeService
	pages    pager
}

// NewMonitorService serves one set of monitors, whose probes are understood as probes understands them.
func NewMonitorService(monitors Monitors, probes *ProbeService) *MonitorService {
	return &MonitorService{monitors: monitors, probes: probes, pages: newPager()}
}

// CreateMonitor implements the service.
func (s *MonitorService) CreateMonitor(ctx context.Context, req *echov1.CreateMonitorRequest) (*echov1.Monitor, error) {
	def, err := s.definition(req.GetMonitor())
	if err != nil {
		return nil, err
	}
	return monitorReply(s.monitors.Create(ctx, def, req.GetValidateOnly()))
}

// GetMonitor implements the service.
func (s *MonitorService) GetMonitor(_ context.Context, req *echov1.GetMonitorRequest) (*echov1.Monitor, error) {
	return monitorReply(s.monitors.Get(req.GetName()))
}

// ListMonitors implements the service.
func (s *MonitorService) ListMonitors(_ context.Context, req *echov1.ListMonitorsRequest) (*echov1.ListMonitorsResponse, error) {
	after, err := s.pages.after(req.GetPageToken(), req.GetFilter())
	if err != nil {
		return nil, err
	}
	match, err := monitorFilter.parse(req.GetFilter())
	if err != nil {
		return nil, err
	}
	found, more := s.monitors.List(after, pageSize(req.GetPageSize()), match)
	resp := &echov1.ListMonitorsResponse{}
	bytes := 0
	for i, m := range found {
		out, err := briefMonitorToProto(m)
		if err != nil {
			return nil, err
		}
		if bytes += proto.Size(out); i > 0 && bytes > maxPageBytes {
			more = true
			break
		}
		resp.Monitors = append(resp.Monitors, out)
	}
	if more {
		resp.NextPageToken = s.pages.token(found[len(resp.Monitors)-1].Name, req.GetFilter())
	}
	return resp, nil
}

// UpdateMonitor implements the service.
func (s *MonitorService) UpdateMonitor(ctx context.Context, req *echov1.UpdateMonitorRequest) (*echov1.Monitor, error) {
	wanted := req.GetMonitor()
	if wanted.GetName() != "" && wanted.GetName() != req.GetName() {
		return nil, badField("monitor.name", "%q is not the monitor being updated, %q; a name cannot be changed", wanted.GetName(), req.GetName())
	}
	opt := monitor.UpdateOptions{ETag: wanted.GetEtag(), ValidateOnly: req.GetValidateOnly()}
	m, err := s.monitors.Update(ctx, req.GetName(), opt, func(now monitor.Definition) (monitor.Definition, error) {
		present, err := monitorDefinitionToProto(now)
		if err != nil {
			return monitor.Definition{}, err
		}
		return s.merge(present, req)
	})
	if !errors.Is(err, monitor.ErrNotFound) || !req.GetAllowMissing() {
		return monitorReply(m, err)
	}
	if opt.ETag != "" {
		return nil, fmt.Errorf("%w: %q is gone, and the change was meant for it as it was with etag %s", monitor.ErrStale, req.GetName(), opt.ETag)
	}
	// The mask is checked here, too; what it leaves out is the default.
	def, err := s.merge(&echov1.Monitor{Name: req.GetName()}, req)
	if err != nil {
		return nil, err
	}
	m, err = s.monitors.Create(ctx, def, req.GetValidateOnly())
	if errors.Is(err, monitor.ErrExists) && ctx.Err() == nil {
		return s.UpdateMonitor(ctx, req) // somebody else has created it meanwhile
	}
	return monitorReply(m, err)
}

// merge makes of a monitor what an update asks for, and checks the whole as a create would be checked; a probe that stays as
// it is was checked before, and what its endpoint is like meanwhile is for its runs to find out.
func (s *MonitorService) merge(merged *echov1.Monitor, req *echov1.UpdateMonitorRequest) (monitor.Definition, error) {
	before := proto.CloneOf(merged.GetProbe())
	paths, err := applyMask(merged, req.GetMonitor(), req.GetUpdateMask())
	if err != nil {
		return monitor.Definition{}, err
	}
	merged.Name, merged.Etag = req.GetName(), ""
	replaceWhole(merged.GetProbe(), req.GetMonitor().GetProbe(), paths)
	if err := validate(&echov1.CreateMonitorRequest{Monitor: merged}); err != nil {
		return monitor.Definition{}, err
	}
	if proto.Equal(before, merged.GetProbe()) {
		return monitorDefinitionFromProto(merged)
	}
	return s.definition(merged)
}

// replaceWhole takes care of what a mask that was applied cannot know: a target is one thing, and of a rate and an interval,
// or a size and a sweep, what is given takes the place of the other.
func replaceWhole(merged, given *echov1.Probe, paths []string) {
	if merged == nil || given == nil {
		return
	}
	if names(paths, "probe.target") {
		merged.Target = proto.CloneOf(given.GetTarget())
	}
	only := func(field, other string) bool { return names(paths, "probe."+field) && !names(paths, "probe."+other) }
	switch {
	case given.Rate != nil && only("rate", "interval"):
		merged.Interval = nil
	case given.Interval != nil && only("interval", "rate"):
		merged.Rate = nil
	}
	switch {
	case given.PayloadSweep != nil && only("payload_sweep", "payload_size"):
		merged.PayloadSize = nil
	case given.PayloadSize != nil && only("payload_size", "payload_sweep"):
		merged.PayloadSweep = nil
	}
}

// DeleteMonitor implements the service.
func (s *MonitorService) DeleteMonitor(ctx context.Context, req *echov1.DeleteMonitorRequest) (*emptypb.Empty, error) {
	if err := s.monitors.Delete(ctx, req.GetName(), req.GetEtag()); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

// PauseMonitor implements the service.
func (s *MonitorService) PauseMonitor(ctx context.Context, req *echov1.PauseMonitorRequest) (*echov1.Monitor, error) {
	return s.setPaused(ctx, req.GetName(), true)
}

// ResumeMonitor implements the service.
func (s *MonitorService) ResumeMonitor(ctx context.Context, req *echov1.ResumeMonitorRequest) (*echov1.Monitor, error) {
	return s.setPaused(ctx, req.GetName(), false)
}

func (s *MonitorService) setPaused(ctx context.Context, name string, paused bool) (*echov1.Monitor, error) {
	return monitorReply(s.monitors.Update(ctx, name, monitor.UpdateOptions{}, func(def monitor.Definition) (monitor.Definition, error) {
		def.Paused = paused
		return def, nil
	}))
}

// RunMonitor implements the service.
func (s *MonitorService) RunMonitor(ctx context.Context, req *echov1.RunMonitorRequest) (*echov1.MonitorRun, error) {
	run, err := s.monitors.Run(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	return monitorRunToProto(req.GetName(), run), nil
}

// definition reads the settable fields of a monitor, and checks its probe as far as that is possible before it runs.
func (s *MonitorService) definition(m *echov1.Monitor) (monitor.Definition, error) {
	if err := s.checkProbe(m.GetProbe()); err != nil {
		return monitor.Definition{}, within("monitor", err)
	}
	return monitorDefinitionFromProto(m)
}

// checkProbe says whether a probe can be run. That its endpoint is not there, or does not serve, is for a run to find out.
func (s *MonitorService) checkProbe(p *echov1.Probe) error {
	if err := validate(&echov1.RunProbeRequest{Probe: p}); err != nil {
		return err
	}
	_, _, err := s.probes.plan(p)
	if !errors.Is(err, registry.ErrNotFound) && !errors.Is(err, registry.ErrNotServing) {
		return err
	}
	// As if it were there: its protocol is known at most from what is asked of it.
	protocol := p.GetTarget().GetProtocol()
	if protocol == echov1.Protocol_PROTOCOL_UNSPECIFIED {
		protocol = echov1.Protocol_UDP
		if p.GetTcp() != nil || p.GetPayloadSize() > probe.MaxPayloadUDP4 {
			protocol = echov1.Protocol_TCP
		}
	}
	somewhere := proto.CloneOf(p)
	somewhere.Target = &echov1.ProbeTarget{Address: "127.0.0.1:1", Protocol: protocol}
	_, _, err = s.probes.plan(somewhere)
	return err
}

// within tells of violations in a message that is a field of another.
func within(field string, err error) error {
	bad := asBadRequest(err)
	if bad == nil {
		return err
	}
	moved := &badRequest{reason: bad.reason}
	for _, v := range bad.violations {
		moved.violations = append(moved.violations, violation{field + "." + v.field, v.text})
	}
	return moved
}

func monitorReply(m monitor.Monitor, err error) (*echov1.Monitor, error) {
	if err != nil {
		return nil, err
	}
	return monitorToProto(m)
}

// Prepare says what a monitor's probe, as this package wrote it, comes to at this moment.
func (s *ProbeService) Prepare(text json.RawMessage) (monitor.Target, probe.Plan, error) {
	p, err := probeFromJSON(text)
	if err != nil {
		return monitor.Target{}, probe.Plan{}, err
	}
	target, plan, err := s.plan(p)
	return monitor.Target{Endpoint: target.Endpoint, Address: target.Address, Protocol: target.Protocol}, plan, err
}
