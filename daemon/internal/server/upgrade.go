package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/echod/echod/daemon/internal/handover"
	"github.com/echod/echod/daemon/internal/registry"
	"github.com/echod/echod/daemon/internal/rpc"
)

// Upgrade hands over to what lies where this daemon was started from.
func (d *daemon) upgrade(_ context.Context, validateOnly bool) (rpc.Upgraded, error) {
	if d.config.Executable == "" {
		return rpc.Upgraded{}, rpc.ErrCannotUpgrade
	}
	select {
	case d.upgrading <- struct{}{}:
	default:
		return rpc.Upgraded{}, fmt.Errorf("%w; wait for its end", rpc.ErrUpgradeRunning)
	}
	// A caller that leaves takes nothing back.
	ctx, cancel := context.WithTimeout(d.life, d.config.upgradeTimeout())
	defer cancel()
	d.log.Info("upgrading", "binary", d.config.Executable, "validateOnly", validateOnly)
	h := &handOver{daemon: d, ctx: ctx, doing: "be started"}
	defer func() {
		if h.taken {
			close(d.handedOver) // nobody upgrades us any more
		} else {
			<-d.upgrading
		}
	}()
	did, err := h.run(validateOnly)
	if h.taken {
		d.gone = err
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", rpc.ErrUpgradeFailed, err)
		d.log.Error("the upgrade has failed", "goesOn", !h.taken, "error", err)
		return did, err
	}
	d.log.Info("upgraded", "validateOnly", validateOnly, "pid", did.PID, "version", did.Version, "endpoints", did.Endpoints,
		"connections", did.Connections, "pause", did.Pause)
	return did, nil
}

// handOver is one upgrade, as the daemon that goes sees it.
type handOver struct {
	daemon    *daemon
	ctx       context.Context
	successor *handover.Successor
	doing     string      // what the successor is to do now
	uncut     func() bool // has the end of ctx cut nothing any more
	undo      []func()    // in reverse, when it comes to nothing
	frozen    *registry.Frozen
	taken     bool // the successor is the daemon
}

// run does it all. The error says why it came to nothing, or, if it was taken, what went wrong with the successor since.
func (h *handOver) run(validateOnly bool) (did rpc.Upgraded, err error) {
	d := h.daemon
	if h.successor, err = handover.StartSuccessor(d.config.Executable, d.managerEnvironment()); err != nil {
		return did, err
	}
	did = rpc.Upgraded{PID: h.successor.PID(), PreviousVersion: Version}
	deadline, _ := h.ctx.Deadline()
	// What is waited for at the link ends with the daemon, too.
	h.uncut = context.AfterFunc(h.ctx, func() { _ = h.successor.SetDeadline(time.Unix(1, 0)) })
	defer h.uncut()
	defer func() { err = h.end(err) }() // whatever happens
	if err = h.successor.SetDeadline(deadline); err != nil {
		return did, err
	}
	err = errNotDone // unless a panic makes it so, steps says what came of it
	err = h.steps(validateOnly, &did)
	return did, err
}

// errNotDone is what an upgrade ends with that a panic has ended.
var errNotDone = errors.New("a fault of this daemon, which its log tells of")

// end goes on here, unless the successor is the daemon by now: with a successor that is gone.
func (h *handOver) end(err error) error {
	if !h.taken {
		if err != nil {
			err = h.explain(err)
			h.successor.Kill()
		}
		h.goOn()
		if err == nil { // it was only tried
			h.awaitEnd()
		}
	}
	return errors.Join(err, h.successor.Close())
}

// awaitEnd lets a successor end that has only tried.
func (h *handOver) awaitEnd() {
	select {
	case <-h.successor.Ended():
	case <-h.ctx.Done():
		h.successor.Kill()
	}
}

// explain says why a successor did not take over, for who has to mend it.
func (h *handOver) explain(err error) error {
	who := fmt.Sprintf("the new echod (%s, process %d)", h.daemon.config.Executable, h.successor.PID())
	var refused *handover.Refused
	switch {
	case h.daemon.life.Err() != nil:
		return errors.New("this daemon is stopping")
	case errors.As(err, &refused):
		return fmt.Errorf("%s refuses: %w", who, err)
	case errors.Is(err, handover.ErrTooLate):
		return fmt.Errorf("%s did not %s in time and was killed (an upgrade may take %v, see --upgrade-timeout)", who, h.doing, h.daemon.config.upgradeTimeout())
	case errors.Is(err, handover.ErrEnded):
		select {
		case <-h.successor.Ended():
			return fmt.Errorf("%s was to %s and ended: %s; the log of this daemon has what it wrote", who, h.doing, h.successor.End())
		case <-time.After(time.Second):
			return fmt.Errorf("%s was to %s and hung up", who, h.doing)
		}
	case errors.Is(err, handover.ErrGarbled):
		return fmt.Errorf("%s was to %s: %w", who, h.doing, err)
	default:
		return err
	}
}

func (h *handOver) steps(validateOnly bool, did *rpc.Upgraded) error {
	if err := h.greet(did); err != nil {
		return err
	}
	m, err := h.hold()
	if err != nil {
		return err
	}
	m.ValidateOnly, did.Endpoints = validateOnly, m.Endpoints
	if validateOnly {
		h.goOn()
	}
	if err := h.tell(m); err != nil || validateOnly {
		return err
	}
	if err := h.giveState(m); err != nil {
		return err
	}
	return h.giveSockets(did)
}

// greet learns who the successor is.
func (h *handOver) greet(did *rpc.Upgraded) error {
	h.doing = "say who it is"
	var they hello
	if err := h.successor.Receive(helloMessage, &they); err != nil {
		return err
	}
	did.Version = they.Version
	switch {
	case they.PID != h.successor.PID():
		return fmt.Errorf("%s does not become echod, but starts it as another process (%d); a script must exec it", h.daemon.config.Executable, they.PID)
	case they.OldestProtocol > upgradeProtocol || they.Protocol < upgradeProtocol:
		return fmt.Errorf("the new echod has version %s, which hands over by protocol %d to %d, and this one, %s, by %d: stop this one and start the new one",
			they.Version, they.OldestProtocol, they.Protocol, Version, upgradeProtocol)
	}
	return nil
}

// hold has everything stay as it is, and answers what there is.
func (h *handOver) hold() (*manifest, error) {
	d := h.daemon
	ctx, cancel := context.WithTimeoutCause(h.ctx, changePatience, fmt.Errorf("waited for %v", changePatience))
	defer cancel()
	if err := d.barrier.Close(ctx); err != nil {
		return nil, fmt.Errorf("a change is under way: %w", err)
	}
	h.undo = append(h.undo, d.barrier.Open)
	if err := d.monitors.Freeze(ctx); err != nil {
		return nil, fmt.Errorf("a monitor is being changed: %w", err)
	}
	h.undo = append(h.undo, d.monitors.Thaw)
	var err error
	if h.frozen, err = d.registry.Freeze(ctx); err != nil {
		return nil, err
	}
	h.undo = append(h.undo, h.frozen.Thaw)
	m := &manifest{
		Protocol: upgradeProtocol, Version: Version, StateDir: d.config.StateDir, StateWarnings: d.stateWarnings, Executable: d.config.Executable,
		Live: h.frozen.Live(),
	}
	m.Listeners = d.handedListeners()
	m.Events = d.events.Hold()
	h.undo = append(h.undo, d.events.Go)
	sessions, errS := h.frozen.Sessions()
	endpoints, errE := h.frozen.Endpoints()
	monitors, errM := d.monitors.Export()
	m.Sessions, m.Endpoints, m.Monitors = len(sessions), len(endpoints), len(monitors)
	m.records = append(append(sessions, endpoints...), monitors...)
	return m, errors.Join(errS, errE, errM)
}

// goOn ends the holding.
func (h *handOver) goOn() {
	for i := len(h.undo) - 1; i >= 0; i-- {
		h.undo[i]()
	}
	h.undo = nil
}

// tell sends all that is known of everything, and hears that it was understood.
func (h *handOver) tell(m *manifest) error {
	h.doing = "check what it would take over"
	if err := h.successor.Put(manifestMessage, m); err != nil {
		return err
	}
	for _, record := range m.records {
		if err := h.successor.Put(recordMessage, record); err != nil {
			return err
		}
	}
	return errors.Join(h.successor.Flush(), h.successor.Receive(checkedMessage, &nothing{}))
}

// giveState lets go of the state file, and shares the control listeners.
func (h *handOver) giveState(m *manifest) error {
	d := h.daemon
	h.doing = "open the state file"
	h.undo = append(h.undo, d.state.reopen) // one that cannot be closed in order is not open any more, either
	if err := d.state.close(); err != nil {
		return fmt.Errorf("cannot close the state file: %w", err)
	}
	files, err := d.listenerFiles(m.Listeners)
	defer closeFiles(files)
	if err != nil {
		return err
	}
	return errors.Join(
		h.successor.Put(stateFreeMessage, nothing{}), h.successor.SendFiles(slices.Concat(files, h.frozen.Passed())),
		h.successor.Receive(assembledMessage, &nothing{}),
	)
}

// giveSockets is the part in which nothing is echoed.
func (h *handOver) giveSockets(did *rpc.Upgraded) error {
	d := h.daemon
	h.doing = "take over the sockets"
	ctx, cancel := context.WithTimeout(h.ctx, stillPatience)
	defer cancel()
	deadline, _ := ctx.Deadline()
	if err := h.successor.SetDeadline(deadline); err != nil {
		return err
	}
	d.listeners.rest()
	h.undo = append(h.undo, d.listeners.resume)
	began := time.Now()
	all, err := h.frozen.Pause(ctx)
	if err != nil {
		return tooFewFiles(err)
	}
	defer func() { // if it comes to nothing
		for _, s := range all {
			s.CloseFiles()
		}
	}()
	ledgers, err := h.frozen.Ledgers()
	if err != nil {
		return err
	}
	if err := h.successor.Put(ledgersMessage, ledgers); err != nil {
		return err
	}
	files, err := h.putSockets(all)
	if err != nil {
		return err
	}
	for _, s := range all {
		did.Connections += len(s.Connections)
	}
	if err := errors.Join(h.successor.SendFiles(files), h.successor.Receive(adoptedMessage, &nothing{})); err != nil {
		return err
	}
	if err := h.letGo(); err != nil {
		return err
	}
	for _, s := range all {
		s.CloseFiles()
	}
	all = nil
	h.frozen.Release()
	d.tellMainPID(h.successor.PID())
	return h.awaitServing(began, did)
}

// tooFewFiles adds what to do to an error of too many open files.
func tooFewFiles(err error) error {
	if !errors.Is(err, syscall.EMFILE) {
		return err
	}
	return fmt.Errorf("%w; an upgrade needs as many files again as endpoints have sockets and connections, and %d may be open: raise that limit (ulimit -n, LimitNOFILE)",
		err, fileLimit())
}

// putSockets tells of the sockets, and answers their descriptors in order.
func (h *handOver) putSockets(all []registry.HandedSockets) ([]*os.File, error) {
	var files []*os.File
	for _, s := range all {
		connections := s.Connections
		if s.Socket != nil {
			files = append(files, s.Socket)
		}
		told := handedSockets{HandedSockets: s, HasSocket: s.Socket != nil, ConnectionCount: len(connections)}
		told.Connections = nil
		if err := h.successor.Put(socketsMessage, told); err != nil {
			return nil, err
		}
		for len(connections) > 0 {
			some := connections[:min(len(connections), connectionsAtATime)]
			connections = connections[len(some):]
			if err := h.successor.Put(connectionsMessage, some); err != nil {
				return nil, err
			}
			for _, c := range some {
				files = append(files, c.Socket)
			}
		}
	}
	return files, nil
}

// letGo makes the successor the daemon. Without its word it is none: then it is ended before anything goes on here, since both
// would write into the same connections. A stop from here on does not end one that may have taken over: its word is waited for.
func (h *handOver) letGo() error {
	if !h.uncut() {
		return context.Cause(h.ctx)
	}
	err := errors.Join(h.successor.Send(goMessage, nothing{}), h.successor.Receive(takenMessage, &nothing{}))
	if err == nil {
		h.taken = true
		return nil
	}
	h.successor.Kill()
	_ = h.successor.SetDeadline(time.Now().Add(time.Second)) // all that it said is here
	if h.successor.Receive(takenMessage, &nothing{}) == nil {
		h.taken = true
		return fmt.Errorf("the new echod (process %d) had taken over and hung: %w", h.successor.PID(), err)
	}
	return err
}

// awaitServing sees how the successor begins.
func (h *handOver) awaitServing(began time.Time, did *rpc.Upgraded) error {
	if err := h.successor.SetDeadline(time.Now().Add(defaultUpgradeTimeout)); err != nil {
		return err
	}
	if err := h.successor.Receive(resumedMessage, &nothing{}); err != nil {
		return fmt.Errorf("the new echod (process %d) has taken over and does not echo: %w", h.successor.PID(), err)
	}
	did.Pause = time.Since(began)
	if err := h.successor.Send(toldMessage, nothing{}); err != nil {
		return fmt.Errorf("the new echod (process %d) has taken over and ended: %w", h.successor.PID(), err)
	}
	if err := h.successor.Receive(servingMessage, &nothing{}); err != nil {
		return fmt.Errorf("the new echod (process %d) has taken over and takes no control calls: %w", h.successor.PID(), err)
	}
	return nil
}

// leave ends this process when another one is the daemon: what is open to clients ends, and what the other has stays.
func (d *daemon) leave() error {
	if d.listeners.unix != nil {
		d.listeners.keepSocketFile()
	}
	d.monitors.Close()
	d.runs.Close()
	d.stopping(rpc.ErrUpgraded)
	return errors.Join(d.gone, d.stopControl())
}
