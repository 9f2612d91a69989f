package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/handover"
	"github.com/echod/echod/daemon/internal/monitor"
	"github.com/echod/echod/daemon/internal/registry"
	"github.com/echod/echod/daemon/internal/rpc"
)

// toldPatience is how long one that has taken over waits for the other to have told the service manager.
const toldPatience = 5 * time.Second

// arrival is what this process takes over from another.
type arrival struct {
	link      *handover.Link
	manifest  manifest
	endpoints *registry.Handed
	monitors  *monitor.Handed
	passed    []*os.File // the service manager's sockets
	warnings  []string

	arrivals *registry.Arrivals // since it was assembled
}

// takeOver becomes the daemon in place of the process at the other end of the link. A nil daemon without an error was only to
// try. Whatever happens before the other process has let go, it goes on, and nobody notices: this one is to end then, and to
// close no socket in any other way.
func takeOver(ctx context.Context, c Config, link *handover.Link) (*daemon, error) {
	a := &arrival{link: link}
	d, err := a.take(ctx, c)
	if err != nil {
		_ = link.Refuse(err) // the other one may have ended
		_ = link.Close()
		return nil, fmt.Errorf("cannot take over: %w", err)
	}
	if d == nil {
		return nil, link.Close()
	}
	return d, nil
}

func (a *arrival) take(ctx context.Context, c Config) (*daemon, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	atStep("hello")
	if err := a.link.Send(helloMessage, hello{Protocol: ownProtocol(), OldestProtocol: ownProtocol(), Version: Version, PID: os.Getpid()}); err != nil {
		return nil, err
	}
	if err := a.receive(c); err != nil {
		return nil, err
	}
	// The next upgrade starts what this one has started, be that a script, and not what that has become.
	if a.manifest.Executable != "" { // a daemon of before that does not tell
		c.Executable = a.manifest.Executable
	}
	atStep("checked")
	if err := a.link.Send(checkedMessage, nothing{}); err != nil || a.manifest.ValidateOnly {
		return nil, err
	}
	listeners, err := a.listeners(c)
	if err != nil {
		return nil, err
	}
	d, err := a.assemble(c, listeners)
	if err != nil {
		return nil, err
	}
	atStep("assembled")
	if err := a.link.Send(assembledMessage, nothing{}); err != nil {
		return nil, err
	}
	if err := a.adopt(ctx); err != nil {
		return nil, err
	}
	atStep("adopted")
	if err := a.link.Send(adoptedMessage, nothing{}); err != nil {
		return nil, err
	}
	atStep("ready")
	if err := a.link.Receive(goMessage, &nothing{}); err != nil {
		return nil, err
	}
	atStep("go")
	// One that has let go and ended since does not go on.
	if err := a.link.Send(takenMessage, nothing{}); err != nil && !errors.Is(err, handover.ErrEnded) {
		return nil, err
	}
	atStep("taken")
	a.begin(d)
	return d, nil
}

// receive learns what there is, and sees whether this process understands it.
func (a *arrival) receive(c Config) error {
	m := &a.manifest
	if err := a.link.Receive(manifestMessage, m); err != nil {
		return err
	}
	if err := m.check(c); err != nil {
		return err
	}
	var records [3][]json.RawMessage
	for i, n := range []int{m.Sessions, m.Endpoints, m.Monitors} {
		for range n {
			var record json.RawMessage
			if err := a.link.Receive(recordMessage, &record); err != nil {
				return err
			}
			records[i] = append(records[i], record)
		}
	}
	var errE, errM error
	a.endpoints, errE = registry.Decode(records[0], records[1])
	a.monitors, errM = monitor.Decode(records[2])
	if err := errors.Join(errE, errM); err != nil {
		return err
	}
	if a.endpoints.Live() != m.Live {
		return fmt.Errorf("%w: sockets of %d endpoints are to come, and %d have some", handover.ErrGarbled, m.Live, a.endpoints.Live())
	}
	return nil
}

// check says what the two daemons do not agree on.
func (m *manifest) check(c Config) error {
	if m.Protocol != upgradeProtocol {
		return fmt.Errorf("%w: it hands over by protocol %d, and this one takes %d", handover.ErrGarbled, m.Protocol, upgradeProtocol)
	}
	if absolute(m.StateDir) != absolute(c.StateDir) {
		return fmt.Errorf("the state directory is %q now and was %q: what is handed over is kept where it was; change --state-dir with a restart", c.StateDir, m.StateDir)
	}
	for what, n := range map[string]int{"sessions": m.Sessions, "endpoints": m.Endpoints, "monitors": m.Monitors, "live endpoints": m.Live} {
		if n < 0 || n > maxHanded {
			return fmt.Errorf("%w: there are %d %s", handover.ErrGarbled, n, what)
		}
	}
	return nil
}

func absolute(dir string) string {
	if dir == "" {
		return ""
	}
	full, err := filepath.Abs(dir)
	if err != nil {
		return dir
	}
	return full
}

// listeners are the control listeners that come. They stay where they are, whatever the configuration says by now.
func (a *arrival) listeners(c Config) (*controlListeners, error) {
	if err := a.link.Receive(stateFreeMessage, &nothing{}); err != nil {
		return nil, err
	}
	n := len(a.manifest.Listeners)
	files, err := a.link.ReceiveFiles(n + a.endpoints.Passed())
	if err != nil {
		return nil, err
	}
	files, a.passed = files[:n], files[n:]
	defer closeFiles(files)
	var given controlListeners
	named := given.named(c)
	came := map[string]bool{}
	for i, l := range a.manifest.Listeners {
		found := false
		for _, n := range named {
			if n.flag != l.Flag || came[l.Flag] {
				continue
			}
			if *n.listener, err = net.FileListener(files[i]); err != nil {
				return nil, fmt.Errorf("cannot take over the listener of --%s: %w", l.Flag, err)
			}
			found, came[l.Flag] = true, true
			given.unixPassed = given.unixPassed || l.Passed
			if n.value != l.Value {
				a.warnings = append(a.warnings, fmt.Sprintf("--%s is %q now and was %q: an upgrade keeps the listener on %s; change it with a restart",
					l.Flag, n.value, l.Value, (*n.listener).Addr()))
			}
		}
		if !found {
			return nil, fmt.Errorf("%w: a listener of --%s came", handover.ErrGarbled, l.Flag)
		}
	}
	for _, n := range named {
		if *n.listener == nil && n.value != "" {
			a.warnings = append(a.warnings, fmt.Sprintf("--%s is %q now and was off: an upgrade opens no listener; restart to have it", n.flag, n.value))
		}
	}
	c.GRPCListen, c.HTTPListen, c.Socket = "", "", "" // nothing is bound
	return listen(c, given)
}

// assemble makes the daemon, with all that comes but sockets.
func (a *arrival) assemble(c Config, listeners *controlListeners) (*daemon, error) {
	// Who hands over has just closed the state file in order. One that makes its reader hang all the same is noticed there.
	c.StateChecker = nil
	d, err := assemble(c, listeners)
	if err != nil {
		return nil, err
	}
	d.arrival = a
	if c.StateDir != "" {
		if err := d.openState(); err != nil {
			return nil, err
		}
		d.lookout.store, d.lookout.damaged = d.state.Health, strings.Join(d.stateReport.Warnings(), "; ")
		if d.stateReport.Lost != nil || d.lookout.damaged != "" {
			return nil, fmt.Errorf("the state file cannot be trusted: %s", d.lookout.damaged)
		}
	}
	d.info.Start, d.info.Warnings = rpc.StartUpgraded, d.warnings()
	if err := d.events.ContinueAt(a.manifest.Events); err != nil {
		return nil, err
	}
	a.arrivals = d.registry.Import(a.endpoints, a.passed)
	return d, nil
}

// adopt takes the sockets over. They are not served yet.
func (a *arrival) adopt(ctx context.Context) error {
	var ledgers json.RawMessage
	if err := a.link.Receive(ledgersMessage, &ledgers); err != nil {
		return err
	}
	if err := a.arrivals.RestoreLedgers(ledgers); err != nil {
		return err
	}
	all := make([]handedSockets, a.manifest.Live)
	count := 0
	for i := range all {
		one := &all[i]
		if err := a.link.Receive(socketsMessage, one); err != nil {
			return err
		}
		for len(one.Connections) < one.ConnectionCount {
			var some []echo.HandedConnection
			if err := a.link.Receive(connectionsMessage, &some); err != nil {
				return err
			}
			if len(some) == 0 || len(some) > one.ConnectionCount-len(one.Connections) {
				return fmt.Errorf("%w: %d connections came, and %d were to come", handover.ErrGarbled, len(some), one.ConnectionCount-len(one.Connections))
			}
			one.Connections = append(one.Connections, some...)
		}
		count += len(one.Connections)
		if one.HasSocket {
			count++
		}
	}
	files, err := a.link.ReceiveFiles(count)
	if err != nil {
		return err
	}
	next := func() *os.File {
		f := files[0]
		files = files[1:]
		return f
	}
	sockets := make([]registry.HandedSockets, len(all))
	for i, one := range all {
		sockets[i] = one.HandedSockets
		if one.HasSocket {
			sockets[i].Socket = next()
		}
		for j := range sockets[i].Connections {
			sockets[i].Connections[j].Socket = next()
		}
	}
	return tooFewFiles(a.arrivals.Adopt(ctx, sockets))
}

// begin serves what was taken over: the other process has let go.
func (a *arrival) begin(d *daemon) {
	a.arrivals.Resume()
	// A service manager hears only who is the daemon for it.
	_ = a.link.SetDeadline(time.Now().Add(toldPatience))
	if err := errors.Join(a.link.Send(resumedMessage, nothing{}), a.link.Receive(toldMessage, &nothing{})); err != nil {
		d.log.Warn("the process that handed over has ended before it knew that this one serves", "error", err)
	}
	_ = a.link.SetDeadline(time.Time{})
	a.arrivals.Begin()
	if d.listeners.unix != nil {
		d.listeners.ownSocketFile()
	}
	d.monitors.Begin(a.monitors)
	d.log.Info("taken over", "from", a.manifest.Version, "endpoints", a.endpoints.Len())
}

// serves tells the process that handed over that this one takes control calls, and ends the link.
func (a *arrival) serves(d *daemon) {
	if err := a.link.Send(servingMessage, nothing{}); err != nil {
		d.log.Warn("the process that handed over has ended before it knew that this one takes calls", "error", err)
	}
	_ = a.link.Close()
}
