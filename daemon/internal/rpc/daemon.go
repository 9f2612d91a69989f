package rpc

import (
	"context"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/echod/echod/daemon/internal/budget"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// DaemonInfo is what a daemon knows of itself once it has started.
type DaemonInfo struct {
	Version        string
	Platform       string // "go1.26 linux/amd64"
	PID            int
	StartTime      time.Time
	Listeners      []Listener
	StateDirectory string // empty: in memory
	Warnings       []string
	ProbeLimits    budget.Limits
	// Where probes may go to, and where not; empty: all, none.
	ProbeAllow, ProbeDeny []netip.Prefix
	Start                 Start
}

// Listener is one place where control calls are taken.
type Listener struct {
	Protocol string // "grpc" or "http"
	Address  string // "HOST:PORT" or "unix:PATH"
}

// DaemonService serves echo.v1.DaemonService.
type DaemonService struct {
	echov1.UnsafeDaemonServiceServer
	info      *DaemonInfo
	endpoints interface{ Len() int }
	readiness Readiness
	upgrade   Upgrade
}

// NewDaemonService tells of one daemon, how many endpoints it has, and whether it can do its work, and upgrades it; a nil upgrade
// is none. The info may be filled in until the gate opens.
func NewDaemonService(info *DaemonInfo, endpoints interface{ Len() int }, readiness Readiness, upgrade Upgrade) *DaemonService {
	return &DaemonService{info: info, endpoints: endpoints, readiness: readiness, upgrade: upgrade}
}

// GetInfo implements the service.
func (s *DaemonService) GetInfo(context.Context, *echov1.GetInfoRequest) (*echov1.Info, error) {
	info := &echov1.Info{
		Version: s.info.Version, Platform: s.info.Platform, Pid: uint32(s.info.PID), StartTime: timestamp(s.info.StartTime),
		StateDirectory: s.info.StateDirectory, Warnings: s.info.Warnings, Endpoints: uint32(s.endpoints.Len()),
		Start: startToProto(s.info.Start),
	}
	limits := s.info.ProbeLimits
	info.ProbeLimits = &echov1.ProbeLimits{
		Probes: uint32(limits.Probes), RoundsPerSecond: limits.RoundsPerSecond, Sockets: uint32(limits.Sockets),
		MemoryMib: uint32(limits.MemoryBytes >> 20), Duration: durationpb.New(limits.Duration), TargetProbes: uint32(limits.TargetProbes),
		TargetRoundsPerSecond: limits.TargetRoundsPerSecond, TargetMbps: limits.TargetBitsPerSecond / 1e6,
		Allow: texts(s.info.ProbeAllow), Deny: texts(s.info.ProbeDeny),
	}
	for _, l := range s.info.Listeners {
		info.Listeners = append(info.Listeners, &echov1.Listener{Protocol: l.Protocol, Address: l.Address})
	}
	return info, nil
}

func texts(prefixes []netip.Prefix) (out []string) {
	for _, p := range prefixes {
		out = append(out, p.String())
	}
	return out
}
