// Package server assembles a daemon and runs it: check the configuration, bind every socket, bring back the endpoints,
// serve, drain. It is the only package that knows all the others; package main of echod calls it, and tests.
package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"time"

	"github.com/fullstorydev/grpchan/inprocgrpc"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/budget"
	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/gateway"
	"github.com/echod/echod/daemon/internal/monitor"
	"github.com/echod/echod/daemon/internal/registry"
	"github.com/echod/echod/daemon/internal/rpc"
	"github.com/echod/echod/daemon/internal/runs"
	"github.com/echod/echod/daemon/internal/store"
	"github.com/echod/echod/daemon/internal/targets"
	"github.com/echod/echod/daemon/probe"
)

const (
	// maxMessageBytes is the largest gRPC message; the same holds for a REST body.
	maxMessageBytes = 8 << 20
	// keptEvents is how many events a watch can go back, as long as what they tell of does not take more than
	// keptEventBytes.
	keptEvents     = 16384
	keptEventBytes = 64 << 20
	// maxWatches is how many watches there may be at once, over gRPC and REST together.
	maxWatches = 1000
	// controlGrace is how long control calls may take to end once everything else has: what a client keeps open
	// does not hold up a stop.
	controlGrace = time.Second
)

// DiscardGRPCLog ends the log of gRPC in this process. gRPC and its gateway write what clients do into it, in a form of their
// own; what matters of that comes to us as errors. It is for a process that is a daemon and nothing else, before Run.
func DiscardGRPCLog() { grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) }

// Run is a daemon's life: it returns when ctx has ended and everything is drained, with nil, or with the reason why the
// daemon could not start or go on.
func Run(ctx context.Context, c Config) error {
	if c.Manager != nil {
		defer c.Manager.Close()
	}
	if err := c.check(); err != nil {
		return err
	}
	var given controlListeners
	var err error
	if c.Manager != nil {
		if given, err = takeControl(c.Manager); err != nil {
			return err
		}
	}
	listeners, err := listen(c, given)
	if err != nil {
		return err
	}
	defer listeners.close()
	// One that a crash left behind tells of a daemon that is gone.
	if err := clearReadyFile(c.ReadyFile); err != nil {
		return err
	}
	d, err := assemble(ctx, c, listeners)
	if err != nil {
		return err
	}
	return errors.Join(d.serve(ctx), d.close())
}

// daemon is what Run assembles.
type daemon struct {
	config    Config
	log       *slog.Logger
	info      rpc.DaemonInfo
	listeners *controlListeners
	store     *store.Store // nil: in memory
	events    *event.Log
	traffic   event.Connections // tells of TCP connections, where somebody watches them
	engine    *echo.Engine
	registry  *registry.Registry
	targets   *targets.Policy
	runs      *runs.Manager
	probes    *rpc.ProbeService
	monitors  *monitor.Manager
	health    *health.Server
	channel   grpc.ClientConnInterface // to our own services, without a network
	grpc      *grpc.Server
	http      *http.Server
	stopping  context.CancelFunc // ends the open streams
}

// assemble puts the rooms together and brings back what the state directory holds.
func assemble(ctx context.Context, c Config, listeners *controlListeners) (_ *daemon, err error) {
	d := &daemon{config: c, log: c.Log, listeners: listeners}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	allowed, err := c.targets(listeners)
	if err != nil {
		return nil, err
	}
	d.targets = targets.New(allowed)
	limits := c.ProbeLimits.limits()
	d.events = event.New(event.Limits{Events: keptEvents, Bytes: keptEventBytes, Watches: maxWatches})
	d.engine = echo.New(echo.Options{
		MaxSockets: maxSockets(c.ProbeLimits.Sockets, fileLimit()), Observe: registry.Observe(&d.traffic),
	})
	registryConfig := registry.Config{Events: d.events, Engine: d.engine, DefaultHost: c.DefaultHost, Log: c.Log}
	if c.StateDir != "" {
		if d.store, err = store.Open(c.StateDir); err != nil {
			return nil, err
		}
		registryConfig.Store = d.store
	}
	d.takeSockets(&registryConfig)
	d.registry = registry.New(registryConfig)
	if err := d.registry.Restore(ctx); err != nil {
		return nil, fmt.Errorf("cannot bring back the endpoints: %w", err)
	}
	prober, account := probe.New(probe.Options{Permit: d.targets.Permit}), budget.New(limits)
	d.runs = runs.New(prober, account, d.events)
	d.probes = rpc.NewProbeService(d.runs, d.registry, d.targets)
	monitorConfig := monitor.Config{Prober: budgeted{prober, account}, Prepare: d.probes.Prepare, Events: d.events, Log: c.Log}
	if d.store != nil {
		monitorConfig.Store = d.store
	}
	d.monitors = monitor.New(monitorConfig)
	if err := d.monitors.Restore(); err != nil {
		return nil, fmt.Errorf("cannot bring back the monitors: %w", err)
	}
	d.health = health.NewServer()
	d.info = rpc.DaemonInfo{
		Version: Version, Platform: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH, PID: os.Getpid(),
		StartTime: time.Now(), Listeners: listeners.described(), StateDirectory: c.StateDir, Warnings: d.warnings(),
		ProbeLimits: limits, ProbeAllow: allowed.Allow, ProbeDeny: allowed.Deny,
	}
	return d, d.assembleControl()
}

// watchTraffic tells a client of the connections of endpoints.
func (d *daemon) watchTraffic(oneIn uint32, match func(*event.Event) bool) rpc.TrafficWatch {
	return d.traffic.Watch(oneIn, match)
}

// assembleControl makes the servers: the same services behind the same interceptors, for gRPC and for REST.
func (d *daemon) assembleControl() error {
	services := rpc.Services{
		Endpoint: rpc.NewEndpointService(d.registry),
		Session:  rpc.NewSessionService(d.registry),
		Probe:    d.probes,
		Ledger:   rpc.NewLedgerService(d.registry),
		Monitor:  rpc.NewMonitorService(d.monitors, d.probes),
		Event:    rpc.NewEventService(d.events, d.watchTraffic),
		Daemon:   rpc.NewDaemonService(d.info, d.registry),
	}
	stopping, stop := context.WithCancel(context.Background())
	d.stopping = stop
	unary, stream := rpc.Interceptors(stopping, d.log)

	d.grpc = grpc.NewServer(
		grpc.UnaryInterceptor(unary), grpc.StreamInterceptor(stream),
		grpc.MaxRecvMsgSize(maxMessageBytes), grpc.MaxSendMsgSize(maxMessageBytes),
		grpc.MaxConcurrentStreams(1000), grpc.MaxHeaderListSize(16<<10), grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: d.config.clientSilence(), Timeout: d.config.clientSilence()}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	)
	services.Register(d.grpc)
	grpc_health_v1.RegisterHealthServer(d.grpc, d.health)
	reflection.Register(d.grpc)

	channel := new(inprocgrpc.Channel).WithServerUnaryInterceptor(unary).WithServerStreamInterceptor(stream)
	services.Register(channel)
	grpc_health_v1.RegisterHealthServer(channel, d.health)
	d.channel = channel
	handler, err := gateway.New(stopping, gateway.Config{
		Channel: channel, AllowedHosts: d.config.AllowHosts, BodyTime: d.config.httpTimes.body, WriteTime: d.config.httpTimes.write,
	})
	if err != nil {
		return err
	}
	times := d.config.httpTimes
	d.http = &http.Server{
		Handler: handler, ReadHeaderTimeout: cmp.Or(times.header, 5*time.Second), IdleTimeout: cmp.Or(times.idle, time.Minute), MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}
	return nil
}

func (d *daemon) warnings() []string {
	var all []string
	if d.config.StateDir == "" {
		all = append(all, "endpoints are kept in memory only and end with this process; --state-dir keeps them")
	}
	for _, l := range []net.Listener{d.listeners.grpc, d.listeners.http} {
		if l == nil {
			continue
		}
		if host, _, err := net.SplitHostPort(l.Addr().String()); err == nil && !isLoopback(host) {
			all = append(all, "control calls are taken on "+l.Addr().String()+" from anybody who reaches it (--insecure)")
		}
	}
	if d.config.Manager != nil {
		all = append(all, d.config.Manager.Warnings...)
	}
	if got, asked, err := echo.UDPReceiveBuffer(); err == nil && got < asked {
		all = append(all, receiveBufferWarning(got, asked))
	}
	return all
}

// receiveBufferWarning says what UDP endpoints lack when the kernel gives them less receive buffer than they ask for, both
// in bytes.
func receiveBufferWarning(got, asked int) string {
	return fmt.Sprintf("UDP endpoints get %d KiB of receive buffer, not the %d KiB asked for, and lose datagrams sooner; raise net.core.rmem_max",
		got>>10, asked>>10)
}

// serve runs the servers until ctx ends or one of them fails, and then drains.
func (d *daemon) serve(ctx context.Context) error {
	tasks, failed := errgroup.WithContext(ctx)
	for _, l := range []net.Listener{d.listeners.grpc, d.listeners.unix} {
		if l != nil {
			tasks.Go(func() error { return ignoreClosed(d.grpc.Serve(l)) })
		}
	}
	if d.listeners.http != nil {
		tasks.Go(func() error { return ignoreClosed(d.http.Serve(d.listeners.http)) })
	}
	err := d.announce()
	endReport := func() {}
	if err == nil {
		endReport = d.report()
		select {
		case <-failed.Done():
		case <-d.servedAll():
		}
		d.log.Info("stopping", "drainTimeout", d.config.DrainTimeout)
	}
	err = errors.Join(err, d.drain(), tasks.Wait(), removeReadyFile(d.config.ReadyFile))
	endReport() // last of all: a daemon that drains is alive
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// announce says that the daemon is ready, and where.
func (d *daemon) announce() error {
	for _, l := range d.info.Listeners {
		d.log.Info("listening", "protocol", l.Protocol, "address", l.Address)
	}
	for _, warning := range d.info.Warnings {
		d.log.Warn(warning)
	}
	for service := range d.grpc.GetServiceInfo() {
		d.health.SetServingStatus(service, grpc_health_v1.HealthCheckResponse_SERVING)
	}
	d.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_SERVING) // the daemon as a whole
	d.events.Append(event.Event{Type: event.StateChanged, Kind: event.Daemon, Subject: rpc.DaemonReady})
	ready := d.listeners.ready()
	if err := writeReadyFile(d.config.ReadyFile, ready); err != nil {
		return err
	}
	d.log.Info("ready", "version", Version, "pid", d.info.PID, "endpoints", d.registry.Len(), "stateDirectory", d.config.StateDir)
	if d.config.OnReady != nil {
		d.config.OnReady(ready)
	}
	return nil
}

// drain ends everything in order: not ready any more; monitors run no more; probes end with what they measured, and so do the calls that wait
// for them; endpoints take nothing new and let open connections finish; control calls end, streams first.
func (d *daemon) drain() error {
	ctx, cancel := context.WithTimeout(context.Background(), d.config.DrainTimeout)
	defer cancel()
	d.reportStopping()
	d.health.Shutdown()
	d.events.Append(event.Event{Type: event.StateChanged, Kind: event.Daemon, Subject: rpc.DaemonStopping})
	d.monitors.Close()
	d.runs.Close()
	err := d.registry.Close(ctx)
	d.stopping()
	return errors.Join(err, d.stopControl())
}

func (d *daemon) stopControl() error {
	ctx, cancel := context.WithTimeout(context.Background(), controlGrace)
	defer cancel()
	graceful := make(chan struct{})
	go func() {
		d.grpc.GracefulStop()
		close(graceful)
	}()
	err := d.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = d.http.Close()
	}
	select {
	case <-graceful:
	case <-ctx.Done():
		d.grpc.Stop()
		<-graceful
	}
	return err
}

// close gives back what assemble took; after serve, or instead of it.
func (d *daemon) close() error {
	if d.stopping != nil {
		d.stopping()
	}
	var errs []error
	if d.monitors != nil {
		d.monitors.Close()
	}
	if d.registry != nil {
		errs = append(errs, d.registry.Close(context.Background()))
	}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	return errors.Join(errs...)
}
