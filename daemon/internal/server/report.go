package server

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/echod/echod/daemon/internal/handover"
	"github.com/echod/echod/daemon/internal/health"
	"github.com/echod/echod/daemon/internal/registry"
)

// statusEvery is how often the service manager is told what the daemon does, if that has changed.
const statusEvery = time.Second

// report tells the service manager that the daemon serves, and goes on to tell how it is. End ends that, and waits for it.
func (d *daemon) report() (end func()) {
	m := d.config.Manager
	if m == nil || m.Notifier == nil {
		return func() {}
	}
	status := d.status()
	d.told(m.Notifier.Ready(os.Getpid(), status))
	ctx, cancel := context.WithCancel(context.Background())
	var reporting sync.WaitGroup
	reporting.Go(func() { d.reportOn(ctx, m, status) })
	return func() {
		cancel()
		reporting.Wait()
	}
}

// reportOn tells the service manager that the daemon lives, as often as it wants to know, and what it does, when that has changed.
func (d *daemon) reportOn(ctx context.Context, m *handover.Manager, told string) {
	status := time.NewTicker(statusEvery)
	defer status.Stop()
	var beats <-chan time.Time // never, without a watchdog
	if m.Watchdog > 0 {
		beat := time.NewTicker(max(m.Watchdog/3, time.Millisecond))
		defer beat.Stop()
		beats = beat.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-beats:
			d.beat(m.Notifier)
		case <-status.C:
			if now := d.status(); now != told {
				told = now
				d.told(m.Notifier.Status(now))
			}
		}
	}
}

// beat gives a sign of life once all that the daemon's work depends on has answered: the loops that serve endpoints, the registry
// behind its lock, and a control call on its whole way. What hangs keeps it from returning, and the manager from hearing of us.
func (d *daemon) beat(n *handover.Notifier) {
	d.registry.Beat()
	// That it says something is what counts: it refuses calls when it stops.
	_, _ = grpc_health_v1.NewHealthClient(d.channel).Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
	d.told(n.Alive())
}

// servedAll returns a channel that closes when there is nothing left to do for a daemon that was started for the connections
// that were passed to it (inetd's nowait) and that nobody can ask for more.
func (d *daemon) servedAll() <-chan struct{} {
	if len(d.info.Listeners) > 0 || d.registry.Listens() {
		return nil
	}
	return d.registry.ConnectionsOver()
}

// told logs that the manager could not be told.
func (d *daemon) told(err error) {
	if err != nil {
		d.log.Warn("the service manager does not hear of this daemon", "error", err)
	}
}

// status is what the daemon does, in a line.
func (d *daemon) status() string {
	states := d.registry.States()
	text := fmt.Sprintf("serving %d %s", states[registry.Serving], plural(states[registry.Serving], "endpoint"))
	for _, one := range []struct {
		state registry.State
		word  string
	}{{registry.Draining, "draining"}, {registry.Stopped, "stopped"}, {registry.Failed, "failed"}} {
		if n := states[one.state]; n > 0 {
			text += fmt.Sprintf(", %d %s", n, one.word)
		}
	}
	for _, c := range d.readiness.Report().Checks {
		if c.Name == checkState && c.State != health.Ready {
			text += "; " + checkState + ": " + c.Message
		}
	}
	return text
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// reportStopping tells the service manager that the daemon drains, and how long it may take.
func (d *daemon) reportStopping(delay time.Duration) {
	if m := d.config.Manager; m != nil {
		within := delay + d.config.DrainTimeout + 2*controlGrace
		d.told(m.Notifier.Stopping(within, fmt.Sprintf("stopping: open connections may finish for %v", d.config.DrainTimeout)))
	}
}

// tellMainPID tells the service manager which process is the daemon from now on.
func (d *daemon) tellMainPID(pid int) {
	if m := d.config.Manager; m != nil {
		if err := m.Notifier.MainPID(pid); err != nil {
			d.log.Warn("the service manager does not know which process is the daemon now", "pid", pid, "error", err)
		}
	}
}

// managerEnvironment is what the successor needs to tell the same service manager.
func (d *daemon) managerEnvironment() []string {
	m := d.config.Manager
	if m == nil || m.Notifier == nil {
		return nil
	}
	all := m.Notifier.Environment()
	if m.Watchdog > 0 {
		all = append(all, fmt.Sprint("WATCHDOG_USEC=", m.Watchdog.Microseconds()))
	}
	if m.StoreMax >= 0 {
		all = append(all, fmt.Sprint("FDSTORE=", m.StoreMax))
	}
	return all
}
