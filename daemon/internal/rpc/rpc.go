// Package rpc serves the contract of package echo.v1: one file a service, with what it needs of the domain declared as an
// interface beside it; convert_<service>.go between wire and domain; status.go from errors to statuses, and nowhere else.
// It starts no goroutine and keeps no state; server registers it on the gRPC server and on the gateway's channel.
package rpc

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/grpc"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// Services are what a daemon serves.
type Services struct {
	Endpoint *EndpointService
	Session  *SessionService
	Probe    *ProbeService
	Ledger   *LedgerService
	Monitor  *MonitorService
	Event    *EventService
	Daemon   *DaemonService
}

// Register enters the services in a server or channel.
func (s Services) Register(to grpc.ServiceRegistrar) {
	echov1.RegisterEndpointServiceServer(to, s.Endpoint)
	echov1.RegisterSessionServiceServer(to, s.Session)
	echov1.RegisterProbeServiceServer(to, s.Probe)
	echov1.RegisterLedgerServiceServer(to, s.Ledger)
	echov1.RegisterMonitorServiceServer(to, s.Monitor)
	echov1.RegisterEventServiceServer(to, s.Event)
	echov1.RegisterDaemonServiceServer(to, s.Daemon)
}

// ErrStopping is what streams end with when the daemon stops.
var ErrStopping = errors.New("the daemon is stopping")

// Interceptors is what every call passes, over gRPC and REST alike: the gate, where there is one; a panic becomes INTERNAL, the
// request is checked against the contract's rules, and an error becomes a status. What is not the caller's business goes to
// log. When stopping ends, open streams end with ErrStopping, so that none of them holds the daemon up.
func Interceptors(stopping context.Context, gate *Gate, log *slog.Logger) (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor) {
	i := interceptor{stopping: stopping, gate: gate, log: log}
	return i.unary, i.stream
}
