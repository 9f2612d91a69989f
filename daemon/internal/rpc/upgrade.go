package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// What an upgrade may end with.
var (
	// ErrUpgradeFailed says that no other process took over, and why; the daemon goes on.
	ErrUpgradeFailed = errors.New("cannot upgrade")
	// ErrUpgradeRunning says that one is under way.
	ErrUpgradeRunning = errors.New("another upgrade is under way")
	// ErrCannotUpgrade says that this daemon never can.
	ErrCannotUpgrade = errors.New("this daemon cannot hand over to another process")
	// ErrUpgrading is what changes are refused with for the moment of an upgrade.
	ErrUpgrading = errors.New("the daemon is being upgraded")
	// ErrUpgraded is what calls end with that another process goes on with.
	ErrUpgraded = errors.New("the daemon was upgraded")
)

// retryUpgrading is after how long a change that was refused for an upgrade is to be tried again.
const retryUpgrading = 200 * time.Millisecond

// Upgraded is what an upgrade came to.
type Upgraded struct {
	PID                      int // of the new process
	Version, PreviousVersion string
	Endpoints, Connections   int
	Pause                    time.Duration // for how long nothing was echoed
}

// Upgrade hands over to what now lies where the daemon was started from, or, with validateOnly, tries whether it could. The
// error is one of those above.
type Upgrade func(ctx context.Context, validateOnly bool) (Upgraded, error)

// UpgradeDaemon implements the service.
func (s *DaemonService) UpgradeDaemon(ctx context.Context, req *echov1.UpgradeDaemonRequest) (*echov1.UpgradeDaemonResponse, error) {
	if s.upgrade == nil {
		return nil, ErrCannotUpgrade
	}
	u, err := s.upgrade(ctx, req.GetValidateOnly())
	if err != nil {
		return nil, err
	}
	return &echov1.UpgradeDaemonResponse{
		Pid: uint32(u.PID), Version: u.Version, PreviousVersion: u.PreviousVersion, Endpoints: uint32(u.Endpoints),
		Connections: uint64(u.Connections), Pause: durationpb.New(u.Pause),
	}, nil
}

// Barrier refuses calls that change something while it is closed, and knows which are under way. The zero Barrier is open. It is
// safe for concurrent use.
type Barrier struct {
	mu     sync.Mutex
	closed bool
	inside map[string]int // calls under way, by method
	idle   chan struct{}  // closed when the last has left; nil: nobody waits
}

// Interceptors puts the barrier behind others, so that what it refuses becomes a status, too.
func (b *Barrier) Interceptors(unary grpc.UnaryServerInterceptor, stream grpc.StreamServerInterceptor) (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor) {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			return unary(ctx, req, info, func(ctx context.Context, req any) (any, error) {
				if err := b.enter(info.FullMethod); err != nil {
					return nil, err
				}
				defer b.leave(info.FullMethod)
				return handle(ctx, req)
			})
		}, func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			return stream(srv, s, info, func(srv any, s grpc.ServerStream) error {
				if err := b.enter(info.FullMethod); err != nil {
					return err
				}
				inside := &gatedStream{ServerStream: s, leave: func() { b.leave(info.FullMethod) }}
				defer inside.once.Do(inside.leave)
				return handle(srv, inside)
			})
		}
}

// gatedStream changes something until it answers for the first time: a session is open then, a probe begun.
type gatedStream struct {
	grpc.ServerStream
	once  sync.Once
	leave func()
}

// SendMsg implements grpc.ServerStream.
func (s *gatedStream) SendMsg(m any) error {
	s.once.Do(s.leave)
	return s.ServerStream.SendMsg(m)
}

// changes says whether a method may change something, as far as its name tells. What runs long and keeps nothing is none: it
// ends by itself when the daemon goes.
func changes(method string) bool {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	if !strings.HasPrefix(service, "echo.v1.") {
		return false // health and reflection
	}
	switch name {
	case "UpgradeDaemon", "RunProbe", "RunMonitor":
		return false
	}
	for _, reads := range []string{"Get", "List", "Watch"} {
		if strings.HasPrefix(name, reads) {
			return false
		}
	}
	return true
}

func (b *Barrier) enter(method string) error {
	if !changes(method) {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return fmt.Errorf("%w, which takes a moment; nothing was changed, try again", ErrUpgrading)
	}
	if b.inside == nil {
		b.inside = map[string]int{}
	}
	b.inside[method]++
	return nil
}

func (b *Barrier) leave(method string) {
	if !changes(method) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.inside[method]--; b.inside[method] == 0 {
		delete(b.inside, method)
	}
	if len(b.inside) == 0 && b.idle != nil {
		close(b.idle)
		b.idle = nil
	}
}

// Close refuses changes from here on and waits for those that are under way. The error names them when ctx ends before; the
// barrier is open again then.
func (b *Barrier) Close(ctx context.Context) error {
	b.mu.Lock()
	b.closed = true
	var idle chan struct{}
	if len(b.inside) > 0 {
		idle = make(chan struct{})
		b.idle = idle
	}
	b.mu.Unlock()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		defer b.Open()
		return fmt.Errorf("%s does not end: an endpoint that drains may take long, and a second stop with a shorter drain ends it; %w", b.names(), context.Cause(ctx))
	}
}

func (b *Barrier) names() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var names []string
	for method := range b.inside {
		names = append(names, method[strings.LastIndexByte(method, '/')+1:])
	}
	return strings.Join(names, ", ")
}

// Open takes changes again.
func (b *Barrier) Open() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed, b.idle = false, nil
}
