// Package local is ProbeService in the caller's own process, without a daemon: the same service behind the same checks, over
// a channel that leaves no process. It has no endpoints, so that targets are addresses alone.
//
// It owns the probes that run through it, until Close. The command line tool calls it for "echoctl probe --local".
package local

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/fullstorydev/grpchan/inprocgrpc"
	"google.golang.org/grpc"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/budget"
	"github.com/echod/echod/daemon/internal/registry"
	"github.com/echod/echod/daemon/internal/rpc"
	"github.com/echod/echod/daemon/internal/runs"
	"github.com/echod/echod/daemon/internal/targets"
	"github.com/echod/echod/daemon/probe"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// Service serves probes in this process. It is safe for concurrent use.
type Service struct {
	runs    *runs.Manager
	channel inprocgrpc.Channel
	stop    context.CancelFunc
}

// New makes a service without probes.
func New() *Service {
	stopping, stop := context.WithCancel(context.Background())
	// The rules of targets that hold everywhere hold here. Limits do not: whoever has this process has its host's sockets.
	policy := targets.New(targets.Config{})
	prober := probe.New(probe.Options{Permit: policy.Permit})
	s := &Service{runs: runs.New(prober, budget.New(budget.Limits{}), nil), stop: stop}
	unary, stream := rpc.Interceptors(stopping, nil, slog.New(slog.DiscardHandler))
	s.channel.WithServerUnaryInterceptor(unary).WithServerStreamInterceptor(stream)
	echov1.RegisterProbeServiceServer(&s.channel, rpc.NewProbeService(s.runs, noEndpoints{}, policy))
	return s
}

// Channel answers what clients of ProbeService call through. Calls of other services are UNIMPLEMENTED.
func (s *Service) Channel() grpc.ClientConnInterface { return &s.channel }

// Close ends the probes that run, and waits for them. It may be called again.
func (s *Service) Close() error {
	s.runs.Close()
	s.stop()
	return nil
}

type noEndpoints struct{}

func (noEndpoints) Ledger(uint64) (echo.Ledger, error) { return echo.Ledger{}, registry.ErrNoLedger }

func (noEndpoints) Get(name string) (registry.Endpoint, error) {
	return registry.Endpoint{}, fmt.Errorf("%w: %q: there is no daemon here; say tcp://HOST:PORT or udp://HOST:PORT", registry.ErrNotFound, name)
}
