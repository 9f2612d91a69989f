package rpc

import (
	"context"

	"github.com/echod/echod/daemon/internal/health"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// Readiness says whether the daemon can do its work.
type Readiness interface {
	// Report answers at once, whatever is wrong.
	Report() health.Report
}

// Start is what was before a daemon's process.
type Start uint8

// What may have been before.
const (
	StartUnknown  Start = iota // it keeps nothing that could tell
	StartFirst                 // nothing: the state directory is new
	StartStopped               // a daemon that stopped in order
	StartCrashed               // a daemon that did not
	StartUpgraded              // a daemon that handed over to this one
)

// DaemonEvent is the subject of an event about the daemon.
type DaemonEvent struct {
	State  DaemonState
	Reason string // why it is not DaemonReady
	Start  Start  // in the first event of its life; StartUnknown in others
}

// DaemonState is where a daemon is in its life.
type DaemonState uint8

// The states of a daemon.
const (
	DaemonReady    DaemonState = iota + 1 // it has brought back what it had, and serves
	DaemonStopping                        // it takes nothing new
	DaemonDegraded                        // it does its work, and something is not as it should be
	DaemonNotReady                        // it does not do its work, or not all of it
)

// StateOf is the state of a daemon that does not stop.
func StateOf(s health.State) DaemonState {
	switch s {
	case health.Ready:
		return DaemonReady
	case health.Degraded:
		return DaemonDegraded
	default:
		return DaemonNotReady
	}
}

// GetReadiness implements the service.
func (s *DaemonService) GetReadiness(context.Context, *echov1.GetReadinessRequest) (*echov1.Readiness, error) {
	report := s.readiness.Report()
	out := &echov1.Readiness{State: readinessToProto(report.State)}
	for _, c := range report.Checks {
		out.Checks = append(out.Checks, &echov1.ReadinessCheck{Name: c.Name, State: readinessToProto(c.State), Message: c.Message})
	}
	return out, nil
}

func readinessToProto(s health.State) echov1.Readiness_State {
	switch s {
	case health.Ready:
		return echov1.Readiness_READY
	case health.Degraded:
		return echov1.Readiness_DEGRADED
	case health.NotReady:
		return echov1.Readiness_NOT_READY
	default:
		return echov1.Readiness_STATE_UNSPECIFIED
	}
}

func startToProto(s Start) echov1.Info_Start {
	switch s {
	case StartFirst:
		return echov1.Info_FIRST
	case StartStopped:
		return echov1.Info_STOPPED
	case StartCrashed:
		return echov1.Info_CRASHED
	case StartUpgraded:
		return echov1.Info_UPGRADED
	default:
		return echov1.Info_START_UNSPECIFIED
	}
}

func daemonEventToProto(e DaemonEvent) *echov1.DaemonEvent {
	return &echov1.DaemonEvent{State: daemonStateToProto(e.State), Reason: e.Reason, Start: startToProto(e.Start)}
}

func daemonStateToProto(s DaemonState) echov1.DaemonEvent_State {
	switch s {
	case DaemonReady:
		return echov1.DaemonEvent_READY
	case DaemonStopping:
		return echov1.DaemonEvent_STOPPING
	case DaemonDegraded:
		return echov1.DaemonEvent_DEGRADED
	case DaemonNotReady:
		return echov1.DaemonEvent_NOT_READY
	default:
		return echov1.DaemonEvent_STATE_UNSPECIFIED
	}
}
