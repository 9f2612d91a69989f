package rpc

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/echod/echod/gen/echo/v1"
)

// refusedAtTheEnd are the methods that a daemon which stops refuses. A new method is to be thought of: it is here or it is not.
var refusedAtTheEnd = []string{
	"ApplyEndpoints", "BatchCreateEndpoints", "CreateEndpoint", "CreateMonitor", "CreateProbe", "RunMonitor", "RunProbe", "StartEndpoint",
	"StreamProbe", "UpgradeDaemon",
}

var answeredAtTheEnd = []string{
	"DeleteEndpoint", "DeleteMonitor", "DeleteProbe", "EndSession", "GetEndpoint", "GetInfo", "GetLedger", "GetMonitor", "GetProbe", "GetReadiness",
	"Hold", // of a session that there is
	"ListEndpoints", "ListMonitors", "ListProbes", "PauseMonitor", "PurgeEndpoints", "RenewEndpoint", "RenewEndpoints", "ResumeMonitor", "StopEndpoint",
	"StopProbe", "UpdateEndpoint", "UpdateMonitor", "WatchEndpoints", "WatchEvents",
}

// eachCall has a call of every method come to a gate.
func eachCall(t *testing.T, gate *Gate, came func(name string, err error)) {
	t.Helper()
	protoregistry.GlobalFiles.RangeFilesByPackage("echo.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			service := f.Services().Get(i)
			for j := range service.Methods().Len() {
				name := string(service.Methods().Get(j).Name())
				came(name, gate.pass(t.Context(), t.Context(), "/"+string(service.FullName())+"/"+name))
			}
		}
		return true
	})
}

func TestWhatIsRefusedAtTheEnd(t *testing.T) {
	gate := NewGate()
	gate.Open()
	gate.Stop()
	var refused, answered []string
	eachCall(t, gate, func(name string, err error) {
		switch {
		case err == nil:
			answered = append(answered, name)
		case errors.Is(err, ErrStopping):
			refused = append(refused, name)
		default:
			t.Errorf("%s: %v", name, err)
		}
	})
	slices.Sort(refused)
	slices.Sort(answered)
	if !slices.Equal(refused, refusedAtTheEnd) || !slices.Equal(answered, answeredAtTheEnd) {
		t.Errorf("refused are %q,\nanswered %q", refused, answered)
	}
}

// answeredWithoutState are the methods that a daemon answers whose state is lost. A new method is to be thought of: it is here or
// it is not.
var answeredWithoutState = []string{
	"CreateProbe", "DeleteProbe", "GetInfo", "GetLedger", "GetProbe", "GetReadiness", "ListProbes", "RunProbe", "StopProbe", "StreamProbe", "UpgradeDaemon",
}

func TestWhatIsAnsweredWithoutState(t *testing.T) {
	gate := NewGate()
	gate.OpenWithout(errors.New("both files are damaged"))
	var answered []string
	eachCall(t, gate, func(name string, err error) {
		switch {
		case err == nil:
			answered = append(answered, name)
		case !errors.Is(err, ErrStateLost) || !strings.Contains(err.Error(), "both files are damaged"):
			t.Errorf("%s: %v", name, err)
		}
	})
	slices.Sort(answered)
	if !slices.Equal(answered, answeredWithoutState) {
		t.Errorf("answered are %q", answered)
	}
	if err := gate.pass(t.Context(), t.Context(), "/grpc.health.v1.Health/Check"); err != nil {
		t.Errorf("health: %v", err)
	}
}

func TestTheGate(t *testing.T) {
	const get = "/echo.v1.EndpointService/GetEndpoint"
	ended, end := context.WithCancel(context.Background())
	end()
	never := context.Background()
	gate := NewGate()
	for name, c := range map[string]struct {
		ctx, stopping context.Context
		method        string
		want          error
	}{
		"its caller leaves":   {ended, never, get, context.Canceled},
		"the daemon stops":    {never, ended, get, ErrStopping},
		"readiness":           {never, never, "/echo.v1.DaemonService/GetReadiness", nil},
		"health":              {never, never, "/grpc.health.v1.Health/Watch", nil},
		"reflection":          {never, never, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", nil},
		"info, and it is not": {ended, never, "/echo.v1.DaemonService/GetInfo", context.Canceled},
	} {
		if err := gate.pass(c.ctx, c.stopping, c.method); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	done := make(chan error, 1)
	go func() { done <- gate.pass(never, never, get) }()
	gate.Open()
	gate.Open()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// What is open stays open: a context that has ended is its caller's business.
	if err := gate.pass(ended, ended, get); err != nil {
		t.Error(err)
	}
	if err := (*Gate)(nil).pass(never, never, get); err != nil {
		t.Error(err)
	}
}
