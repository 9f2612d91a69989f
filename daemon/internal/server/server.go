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
	"maps"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/fullstorydev/grpchan/inprocgrpc"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/grpclog"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/budget"
	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/gateway"
	"github.com/echod/echod/daemon/internal/health"
	"github.com/echod/echod/daemon/internal/monitor"
	"github.com/echod/echod/daemon/internal/netwatch"
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
	if c.Predecessor != nil {
		d, err := takeOver(ctx, c, c.Predecessor)
		if d == nil {
			return err
		}
		defer d.listeners.close()
		return errors.Join(d.serve(ctx), d.close())
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
	d, err := assemble(c, listeners)
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
	state     stateFile
	// stateReport is what was found in the state directory.
	stateReport store.Report
	// stateWarnings are what an operator has to know of that: those of the process that handed over, after an upgrade.
	stateWarnings []string
	events        *event.Log
	traffic       event.Connections // tells of TCP connections, where somebody watches them
	registry      *registry.Registry
	network       *netwatch.Watch
	targets       *targets.Policy
	runs          *runs.Manager
	probes        *rpc.ProbeService
	monitors      *monitor.Manager
	readiness     *health.Readiness
	lookout       *lookout
	herald        *herald
	gate          *rpc.Gate
	channel       grpc.ClientConnInterface // to our own services, without a network
	grpc          *grpc.Server
	http          *http.Server
	stopping      context.CancelCauseFunc // ends the open streams

	barrier    rpc.Barrier     // refuses changes for the moment of an upgrade
	arrival    *arrival        // what was taken over from another process; nil: nothing
	upgrading  chan struct{}   // full while an upgrade is under way, and once there are to be none
	life       context.Context // ends when the daemon is to stop
	handedOver chan struct{}   // closed when another process is the daemon
	gone       error           // what is known to be wrong with that one; written before
}

// assemble puts the rooms together. They are empty, and nobody is served before restore.
func assemble(c Config, listeners *controlListeners) (_ *daemon, err error) {
	d := &daemon{
		config: c, log: c.Log, listeners: listeners, readiness: newReadiness(), gate: rpc.NewGate(), handedOver: make(chan struct{}),
		upgrading: make(chan struct{}, 1),
	}
	listeners.canRest()
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
	engine := echo.New(echo.Options{
		MaxSockets: maxSockets(c.ProbeLimits.Sockets, fileLimit()), Observe: registry.Observe(&d.traffic),
	})
	d.network = netwatch.New()
	registryConfig := registry.Config{Events: d.events, Network: d.network, Engine: engine, DefaultHost: c.DefaultHost, Log: c.Log}
	if c.StateDir != "" {
		registryConfig.Store = &d.state
	}
	d.takeSockets(&registryConfig)
	d.registry = registry.New(registryConfig)
	prober, account := probe.New(probe.Options{Permit: d.targets.Permit}), budget.New(limits)
	d.runs = runs.New(prober, account, d.events)
	d.probes = rpc.NewProbeService(d.runs, d.gate.Targets(d.registry), d.targets)
	monitorConfig := monitor.Config{Prober: budgeted{prober, account}, Prepare: d.probes.Prepare, Events: d.events, Log: c.Log}
	if c.StateDir != "" {
		monitorConfig.Store = &d.state
	}
	d.monitors = monitor.New(monitorConfig)
	d.lookout = &lookout{readiness: d.readiness, events: d.events, endpoints: d.registry, strict: c.StrictReady}
	d.info = rpc.DaemonInfo{
		Version: Version, Platform: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH, PID: os.Getpid(),
		StartTime: time.Now(), Listeners: listeners.described(), StateDirectory: c.StateDir, Warnings: d.warnings(),
		ProbeLimits: limits, ProbeAllow: allowed.Allow, ProbeDeny: allowed.Deny,
	}
	return d, d.assembleControl()
}

// restore opens the store and brings back what it holds.
func (d *daemon) restore(ctx context.Context) error {
	if d.arrival != nil {
		return nil // it has everything
	}
	if d.config.restoring != nil {
		d.config.restoring(d.listeners.ready())
	}
	if d.config.StateDir != "" {
		if err := d.openState(); err != nil {
			return err
		}
		d.lookAtState(d.stateReport.Warnings())
		d.info.Start, d.info.Warnings = startAfter(d.stateReport.Last), d.warnings()
	}
	if d.config.storeHealth != nil {
		d.lookout.store = d.config.storeHealth
	}
	if d.stateReport.Lost == nil { // else there is nothing to bring back, which readiness says
		return d.bringBack(ctx)
	}
	return nil
}

// bringBack brings back what the store holds.
func (d *daemon) bringBack(ctx context.Context) error {
	if err := d.registry.Restore(ctx); err != nil {
		return fmt.Errorf("cannot bring back the endpoints: %w", err)
	}
	if err := d.monitors.Restore(); err != nil {
		return fmt.Errorf("cannot bring back the monitors: %w", err)
	}
	return nil
}

// watchTraffic tells a client of the connections of endpoints.
func (d *daemon) watchTraffic(oneIn uint32, match func(*event.Event) bool) rpc.TrafficWatch {
	return d.traffic.Watch(oneIn, match)
}

// assembleControl makes the servers: the same services behind the same interceptors, for gRPC and for REST.
func (d *daemon) assembleControl() error {
	services := rpc.Services{
		Endpoint: rpc.NewEndpointService(d.registry),
		Session:  rpc.NewSessionService(d.registry, d.gate),
		Probe:    d.probes,
		Ledger:   rpc.NewLedgerService(d.registry),
		Monitor:  rpc.NewMonitorService(d.monitors, d.probes),
		Event:    rpc.NewEventService(d.events, d.watchTraffic),
		Daemon:   rpc.NewDaemonService(&d.info, d.registry, d.readiness, d.upgrade),
	}
	stopping, stop := context.WithCancelCause(context.Background())
	d.stopping = stop
	unary, stream := d.barrier.Interceptors(rpc.Interceptors(stopping, d.gate, d.log))

	d.grpc = grpc.NewServer(
		grpc.UnaryInterceptor(unary), grpc.StreamInterceptor(stream),
		grpc.MaxRecvMsgSize(maxMessageBytes), grpc.MaxSendMsgSize(maxMessageBytes),
		grpc.MaxConcurrentStreams(1000), grpc.MaxHeaderListSize(16<<10), grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: d.config.clientSilence(), Timeout: d.config.clientSilence()}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	)
	services.Register(d.grpc)
	healthServer := grpchealth.NewServer()
	grpc_health_v1.RegisterHealthServer(d.grpc, healthServer)
	reflection.Register(d.grpc)
	// The daemon as a whole is the service without a name.
	d.herald = &herald{
		readiness: d.readiness, health: healthServer, services: slices.Collect(maps.Keys(d.grpc.GetServiceInfo())), events: d.events, log: d.log,
	}
	d.herald.services = append(d.herald.services, "")
	d.herald.serve()

	channel := new(inprocgrpc.Channel).WithServerUnaryInterceptor(unary).WithServerStreamInterceptor(stream)
	services.Register(channel)
	grpc_health_v1.RegisterHealthServer(channel, healthServer)
	d.channel = channel
	handler, err := gateway.New(stopping, gateway.Config{
		Channel: channel, Alive: d.alive, AllowedHosts: d.config.AllowHosts, BodyTime: d.config.httpTimes.body, WriteTime: d.config.httpTimes.write,
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
	all = append(all, d.stateWarnings...)
	for _, l := range []net.Listener{d.listeners.grpc, d.listeners.http} {
		if l == nil {
			continue
		}
		if host, _, err := net.SplitHostPort(l.Addr().String()); err == nil && !isLoopback(host) {
			all = append(all, "control calls are taken on "+l.Addr().String()+" from anybody who reaches it (--insecure)")
		}
	}
	if d.arrival != nil {
		all = append(all, d.arrival.warnings...)
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

// serve runs the servers, brings back what was there, goes on until ctx ends or a server fails, and then drains.
func (d *daemon) serve(ctx context.Context) error {
	tasks, failed := errgroup.WithContext(ctx)
	d.life = failed
	for _, l := range []net.Listener{d.listeners.grpc, d.listeners.unix} {
		if l != nil {
			tasks.Go(func() error { return ignoreClosed(d.grpc.Serve(l)) })
		}
	}
	if d.listeners.http != nil {
		tasks.Go(func() error { return ignoreClosed(d.http.Serve(d.listeners.http)) })
	}
	for _, l := range d.info.Listeners {
		d.log.Info("listening", "protocol", l.Protocol, "address", l.Address)
	}
	err := d.restore(failed)
	if err != nil || failed.Err() != nil { // nobody was told that it is ready
		return errors.Join(err, d.drain(0), tasks.Wait())
	}
	watched, unwatch := context.WithCancel(context.Background())
	defer unwatch()
	err = d.announce()
	tasks.Go(func() error { d.herald.run(watched); return nil })
	tasks.Go(func() error { d.lookout.run(watched); return nil })
	endReport := func() {}
	if err == nil {
		endReport = d.report()
		if d.untilTheEnd(failed) {
			unwatch()
			err := errors.Join(d.leave(), tasks.Wait())
			endReport()
			return err
		}
		d.log.Info("stopping", "drainDelay", d.config.DrainDelay, "drainTimeout", d.config.DrainTimeout)
	}
	err = errors.Join(err, d.drain(d.config.DrainDelay))
	unwatch()
	err = errors.Join(err, tasks.Wait(), removeReadyFile(d.config.ReadyFile))
	endReport() // last of all: a daemon that drains is alive
	return err
}

// untilTheEnd waits until the daemon is to stop, and upgrades it when it is told to; it answers whether another process is the
// daemon now.
func (d *daemon) untilTheEnd(stop context.Context) (gone bool) {
	var upgrades sync.WaitGroup
	defer upgrades.Wait()
	for {
		select {
		case <-d.handedOver:
			return true
		case <-d.servedAll():
		case <-stop.Done():
		case <-d.config.UpgradeSignal:
			upgrades.Go(func() {
				if _, err := d.upgrade(stop, false); err != nil {
					d.log.Warn("the signal to upgrade came to nothing", "error", err)
				}
			})
			continue
		}
		select {
		case <-d.handedOver: // just before, or by an upgrade that could not be taken back
			return true
		case d.upgrading <- struct{}{}:
			return false
		}
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// announce says that the daemon is ready, and where.
func (d *daemon) announce() error {
	for _, warning := range d.info.Warnings {
		d.log.Warn(warning)
	}
	d.lookout.look()
	d.lookout.count()
	d.readiness.Set(checkRestored, health.Ready, "")
	d.herald.begin(d.info.Start)
	if lost := d.stateReport.Lost; lost != nil {
		d.gate.OpenWithout(lost)
	} else {
		d.gate.Open()
	}
	ready := d.listeners.ready()
	if now := d.readiness.Report(); now.State == health.NotReady {
		ready.NotReady = now.Reason()
	}
	if err := writeReadyFile(d.config.ReadyFile, ready); err != nil {
		if d.arrival == nil {
			return err
		}
		d.log.Error("the daemon goes on without a ready file of its own", "error", err)
	}
	level, what := slog.LevelInfo, "ready"
	if ready.NotReady != "" {
		level, what = slog.LevelError, "takes calls, and is not ready" // the herald has said why
	}
	d.log.Log(context.Background(), level, what, "version", Version, "pid", d.info.PID, "endpoints", d.registry.Len(), "stateDirectory", d.config.StateDir)
	if d.config.OnReady != nil {
		d.config.OnReady(ready)
	}
	if d.arrival != nil {
		d.arrival.serves(d)
	}
	return nil
}

// drain ends everything in order: not ready any more, and nothing new is begun; after the delay, in which endpoints serve as
// before, monitors run no more; probes end with what they measured, and so do the calls that wait for them; endpoints take
// nothing new and let open connections finish; control calls end, streams first.
func (d *daemon) drain(delay time.Duration) error {
	d.reportStopping(delay)
	d.gate.Stop()
	d.herald.end("the daemon is stopping: it begins nothing new, and what is open may finish")
	select {
	case <-time.After(delay):
	case <-d.config.CutDrain:
	}
	ctx, cancel := context.WithTimeout(context.Background(), d.config.DrainTimeout)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-d.config.CutDrain:
			cancel()
		case <-ctx.Done():
		}
	})
	d.monitors.Close()
	d.runs.Close()
	err := d.registry.Close(ctx)
	if ctx.Err() != nil && d.config.DrainTimeout > 0 {
		d.log.Warn("what was still open is cut", "drainTimeout", d.config.DrainTimeout)
	}
	cancel()
	wg.Wait()
	d.stopping(rpc.ErrStopping)
	return errors.Join(err, d.stopControl())
}

// alive says whether the daemon does anything at all, at once, and whatever disks and peers do.
func (d *daemon) alive() error { return d.lookout.pulse.alive() }

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
		d.stopping(rpc.ErrStopping)
	}
	var errs []error
	if d.monitors != nil {
		d.monitors.Close()
	}
	if d.registry != nil {
		errs = append(errs, d.registry.Close(context.Background()))
	}
	d.network.Close() // which the registry follows
	errs = append(errs, d.state.close())
	return errors.Join(errs...)
}
