package registry

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
)

// ErrNeedsReplace says that only a new socket will do, and that none was asked for.
var ErrNeedsReplace = errors.New("the endpoint needs a new socket")

// Action is what an apply does with one endpoint.
type Action uint8

// The actions.
const (
	ActionNone    Action = iota + 1 // it is as it should be
	ActionCreate                    // it was not there
	ActionUpdate                    // changed, and what serves it goes on
	ActionReplace                   // changed, with a new socket; its connections are cut
	ActionDelete                    // it is not wanted any more
)

// Wanted is an endpoint as it is to be.
type Wanted struct {
	Definition        // complete: what it leaves open is the default; it has a name
	ETag       string // if not empty, the etag that the endpoint must have
}

// ApplyOptions say how an apply is to be done.
type ApplyOptions struct {
	Prune        func(*Endpoint) bool // delete those for which it is true and which are not wanted; nil: none
	Replace      bool                 // give an endpoint a new socket where only that will do
	ValidateOnly bool                 // plan only; a replacement is planned whether Replace is set or not
}

// Change is what an apply does with one endpoint.
type Change struct {
	Name   string
	Action Action
	Before Definition // for an update or a replacement, with After: what it is, and what it becomes
	After  Definition
	Revive bool // it is Failed and serves again; part of an update
}

// Apply makes the endpoints be what is wanted, as one change: in the store, and for those who read. What is as it should be
// is left alone, and so is whether an endpoint is stopped: that is nobody's definition. One that has Failed is bound again. One
// with a ttl is renewed, whatever else is done with it. A listen that leaves the port open keeps the port that the endpoint has.
// The changes are answered in the order of what is wanted, then those that Prune deletes, by name.
//
// Sockets that are in nobody's way are bound first. Only then do those go whose ports are taken over, and if one of these
// cannot be bound, all comes back where it was; what cannot come back is Failed, and Problems.Lost says so.
//
// The error is a *Problems with what is wrong with each, or ErrNotStored, ErrClosing or the context's: nothing was changed.
func (r *Registry) Apply(ctx context.Context, wanted []Wanted, opt ApplyOptions) ([]Change, error) {
	if err := namesDiffer(wanted); err != nil {
		return nil, err
	}
	var unwanted []string
	if opt.Prune != nil {
		unwanted = r.unwanted(wanted, opt.Prune)
	}
	if opt.ValidateOnly {
		steps, err := r.plan(wanted, unwanted, opt, r.look)
		if err != nil {
			return nil, err
		}
		return changes(steps), nil
	}
	now := time.Now()
	names := make([]string, 0, len(wanted)+len(unwanted))
	defs := make(map[string]Definition, len(wanted))
	for _, w := range wanted {
		r.complete(&w.Definition)
		names, defs[w.Name] = append(names, w.Name), w.Definition
	}
	taken, err := r.takeAll(ctx, append(names, unwanted...), func(name string) *entry {
		if def, ok := defs[name]; ok {
			return newEntry(def, now)
		}
		return nil // somebody else has deleted what is unwanted
	})
	if err != nil {
		return nil, err
	}
	defer r.giveAll(taken)
	steps, err := r.plan(wanted, unwanted, opt, func(name string) *entry { return taken[name] })
	if err != nil {
		return nil, err
	}
	if err := r.perform(ctx, steps); err != nil {
		return nil, err
	}
	return changes(steps), nil
}

func namesDiffer(wanted []Wanted) error {
	bad := &Problems{}
	seen := make(map[string]bool, len(wanted))
	for i, w := range wanted {
		if seen[w.Name] {
			bad.add(i, "name", errNameTaken(w.Name))
		}
		seen[w.Name] = true
	}
	return bad.orNil()
}

// unwanted answers which endpoints an apply may delete.
func (r *Registry) unwanted(wanted []Wanted, prune func(*Endpoint) bool) []string {
	kept := make(map[string]bool, len(wanted))
	for _, w := range wanted {
		kept[w.Name] = true
	}
	return r.Matching(func(e *Endpoint) bool { return !kept[e.Name] && prune(e) })
}

// look answers an entry that may change under the caller's eyes, or nil.
func (r *Registry) look(name string) *entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.entries[name]
}

func changes(steps []*step) []Change {
	all := make([]Change, 0, len(steps))
	for _, s := range steps {
		all = append(all, s.Change)
	}
	return all
}

// step is one change of an apply, and what it takes.
type step struct {
	Change
	entry   *entry // nil in a plan of one that is not there
	address netip.AddrPort
	socket  *binding       // what it is to listen on from now on; nil: that does not change
	old     *echo.Endpoint // what serves it and is to end; nil: nothing is
	closed  bool           // old has ended to make room
	tuned   bool           // what serves it has the new options
}

// plan says what is to be done with each endpoint. find answers its entry, or nil.
func (r *Registry) plan(wanted []Wanted, unwanted []string, opt ApplyOptions, find func(name string) *entry) ([]*step, error) {
	bad := &Problems{}
	steps := make([]*step, 0, len(wanted)+len(unwanted))
	for i, w := range wanted {
		r.complete(&w.Definition)
		e := find(w.Name)
		now := r.copyOf(e)
		s := &step{entry: e}
		var field string
		err := spec(w.Definition, netip.AddrPort{}).Validate()
		switch {
		case err != nil:
			field = "listen"
		case now == nil || !now.announced:
			if field, err = s.create(w); err == nil {
				field, err = "session", r.join(e, w.Session, opt.ValidateOnly)
			}
		default:
			field, err = s.change(now, w, opt.Replace || opt.ValidateOnly)
		}
		if err != nil {
			bad.add(i, field, err)
		}
		if s.socket != nil {
			s.socket.index = i
		}
		steps = append(steps, s)
	}
	bad.addTwins(sockets(steps))
	for _, name := range unwanted {
		e := find(name)
		if now, err := r.Get(name); e != nil && err == nil && opt.Prune(&now) {
			steps = append(steps, &step{Change: Change{Name: name, Action: ActionDelete}, entry: e, old: r.copyOf(e).live})
		}
	}
	return steps, bad.orNil()
}

// copyOf answers an entry as it stands, for who does not have its turn.
func (r *Registry) copyOf(e *entry) *entry {
	if e == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := *e
	return &now
}

// create plans an endpoint that is not there. It answers the field that an error is about.
func (s *step) create(w Wanted) (string, error) {
	s.Change = Change{Name: w.Name, Action: ActionCreate, After: w.Definition}
	if w.ETag != "" {
		return "etag", fmt.Errorf("%w: %q is gone, and this was meant for it as it was with etag %s", ErrStale, w.Name, w.ETag)
	}
	s.socket = &binding{spec: spec(w.Definition, netip.AddrPort{})}
	return "", nil
}

// change plans what makes an endpoint the wanted one. It answers the field that an error is about.
func (s *step) change(now *entry, w Wanted, replace bool) (string, error) {
	def, field := w.Definition, ""
	s.address = now.address
	switch {
	case def.Protocol != now.def.Protocol:
		field = "protocol"
	case !now.keepsListen(def.Listen):
		field = "listen"
	case def.NetworkNamespace != now.def.NetworkNamespace:
		field = "network_namespace"
	case def.Interface != now.def.Interface:
		field = "interface"
	default:
		def.Listen = now.def.Listen // written otherwise, it is the same
	}
	if def.Session == "" {
		def.Session = now.def.Session // it stays in the one that it was created in
	}
	if field != "" {
		s.address = movedAddress(now, def)
	}
	s.Change = Change{Name: w.Name, Action: ActionNone, Before: now.def.clone(), After: def}
	if err := now.checkETag(w.ETag); err != nil {
		return "etag", err
	}
	if def.Session != now.def.Session {
		return "session", fmt.Errorf("%w: %q cannot become that of %q", ErrOtherSession, def.Session, w.Name)
	}
	if def.etag() != now.tag {
		s.Action = ActionUpdate
	}
	failed := now.live != nil && now.live.Err() != nil || now.state == Failed
	switch {
	case failed:
		s.Action, s.Revive, s.old = ActionUpdate, true, now.live
	case now.state == Serving && field != "":
		s.Action, s.old = ActionReplace, now.live
		if !replace {
			return field, fmt.Errorf("%w: %q serves %s on %s, and is to serve %s on %s; ask to replace it, which cuts its connections",
				ErrNeedsReplace, w.Name, now.def.Protocol, now.def.where(), def.Protocol, def.where())
		}
	default:
		return "", nil
	}
	s.socket = &binding{spec: spec(def, s.address)}
	return "", nil
}

// keepsListen says whether a listen means the socket that the entry has, or leaves open which port of it.
func (e *entry) keepsListen(listen string) bool {
	was, err := echo.ParseListen(e.def.Listen)
	if err != nil {
		return false
	}
	wanted, err := echo.ParseListen(listen)
	return err == nil && wanted.IP == was.IP && wanted.Port == 0 || e.sameListen(listen)
}

// movedAddress answers the address that an entry is to have when it listens elsewhere: where the definition leaves the port
// open, with the port that it has, if that was given by the same protocol; else none until it is bound.
func movedAddress(now *entry, def Definition) netip.AddrPort {
	wanted, err := echo.ParseListen(def.Listen)
	if err != nil || wanted.Port != 0 || now.address.Port() == 0 || def.Protocol != now.def.Protocol {
		return netip.AddrPort{}
	}
	ip := wanted.IP
	if !ip.IsValid() {
		ip = netip.IPv6Unspecified()
	}
	return netip.AddrPortFrom(ip, now.address.Port())
}

// perform does what is planned, or nothing. The caller has the turns of all entries.
func (r *Registry) perform(ctx context.Context, steps []*step) error {
	now := time.Now()
	err := r.bindNew(ctx, steps)
	if err == nil {
		err = tune(steps)
	}
	if err == nil {
		err = r.keepAll(steps, now)
	}
	if err != nil {
		return r.undo(ctx, steps, err)
	}
	closeOld(steps, func(s *step) bool { return !s.closed })
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range steps {
		r.commitLocked(s, now)
	}
	return nil
}

// bindNew binds the sockets that are wanted. Those whose address only our own old sockets hold come second, when these have
// been closed: nothing is cut before it is known that all others can be had.
func (r *Registry) bindNew(ctx context.Context, steps []*step) error {
	wanted := sockets(steps)
	if err := r.bindAll(ctx, wanted); err != nil {
		return err
	}
	old := oldSockets(steps)
	inTheWay := map[*step]bool{}
	var late []*binding
	bad := &Problems{}
	for _, b := range wanted {
		if b.err == nil {
			continue
		}
		blockers := old.blocking(b)
		if len(blockers) == 0 {
			bad.add(b.index, socketField(b.err), b.err)
		}
		for _, s := range blockers {
			inTheWay[s] = true
		}
		late = append(late, b)
	}
	if err := bad.orNil(); err != nil {
		return err
	}
	closeOld(steps, func(s *step) bool { return inTheWay[s] })
	if err := r.bindAll(ctx, late); err != nil {
		return err
	}
	for _, b := range late {
		if b.err != nil {
			bad.add(b.index, socketField(b.err), b.err)
		}
	}
	return bad.orNil()
}

// sockets are those that some steps want.
func sockets(steps []*step) (all []*binding) {
	for _, s := range steps {
		if s.socket != nil {
			all = append(all, s.socket)
		}
	}
	return all
}

// port is what two sockets may be in each other's way by.
type port struct {
	protocol  echo.Protocol
	number    uint16
	namespace namespace
}

// goingSockets are the sockets that are to go, and where they are.
type goingSockets struct {
	all []*step
	at  map[port][]*step
}

func oldSockets(steps []*step) goingSockets {
	g := goingSockets{at: map[port][]*step{}}
	for _, s := range steps {
		if s.old != nil {
			p := port{s.entry.def.Protocol, s.old.Addr().Port(), namespace(s.entry.def.NetworkNamespace)}
			g.all, g.at[p] = append(g.all, s), append(g.at[p], s)
		}
	}
	return g
}

// blocking answers which of them may be why a socket cannot be bound.
func (g goingSockets) blocking(b *binding) []*step {
	address, err := echo.ParseListen(b.spec.Listen)
	switch {
	case err != nil:
		return nil
	case errors.Is(b.err, echo.ErrAddressInUse):
		where, _ := b.spec.Place.(namespace)
		return slices.DeleteFunc(slices.Clone(g.at[port{b.spec.Protocol, address.Port, where}]), func(s *step) bool {
			had := s.old.Addr().Addr()
			return address.IP.IsValid() && !address.IP.IsUnspecified() && !had.IsUnspecified() && had != address.IP // they are apart
		})
	case errors.Is(b.err, echo.ErrTooManyFiles):
		return g.all
	default:
		return nil
	}
}

// closeOld cuts the old sockets of some steps.
func closeOld(steps []*step, which func(*step) bool) {
	var some []*step
	for _, s := range steps {
		if s.old != nil && which(s) {
			some = append(some, s)
		}
	}
	each(len(some), func(i int) {
		_ = some[i].old.Close(ended()) // it always answers nil
		some[i].closed = true
	})
}

// tune gives what goes on serving its new options.
func tune(steps []*step) error {
	bad := &Problems{}
	for i, s := range steps {
		if s.Action != ActionUpdate || s.socket != nil || s.entry.live == nil {
			continue
		}
		if err := s.entry.live.Update(spec(s.After, s.address)); err != nil {
			bad.add(i, "listen", err)
			continue
		}
		s.tuned = true
	}
	return bad.orNil()
}

// keepAll writes the records of all that changes.
func (r *Registry) keepAll(steps []*step, now time.Time) error {
	var puts []record
	var deletes []string
	for _, s := range steps {
		switch s.Action {
		case ActionNone:
			if s.After.TTL > 0 { // else it is left alone, its record too
				puts = append(puts, s.record(now, r.running(s.entry)))
			}
		case ActionDelete:
			deletes = append(deletes, s.Name)
		default:
			puts = append(puts, s.record(now, r.running(s.entry)))
		}
	}
	return r.write(puts, deletes)
}

// record is what the store is to keep of an endpoint that is there afterwards.
func (s *step) record(now time.Time, running bool) record {
	rec := s.entry.record(s.address, running)
	if s.redefines() {
		rec.Definition, rec.UpdateTime = s.After, now
	}
	if s.socket != nil {
		rec.Address, rec.Running = s.socket.live.Addr(), true
	}
	rec.ExpireTime = s.After.expiry(now)
	return rec
}

// redefines says whether an endpoint has another definition afterwards. One that is created was made with its own.
func (s *step) redefines() bool { return s.entry.tag != s.After.etag() }

// becomeLocked makes an entry what the step makes of it.
func (r *Registry) becomeLocked(s *step, now time.Time) {
	e := s.entry
	if s.redefines() {
		e.define(s.After)
		e.updated = now
	}
	e.address = s.address
	if s.socket != nil {
		r.servesLocked(e, s.socket.live)
	}
}

// commitLocked lets everybody see what has been done. The caller holds the registry's lock.
func (r *Registry) commitLocked(s *step, now time.Time) {
	e := s.entry
	if s.old != nil {
		e.past, e.live = sum(e.past, s.old.Stats()), nil
	}
	switch s.Action {
	case ActionNone:
		if s.After.TTL > 0 {
			r.leaseLocked(e, s.After.expiry(now))
			r.renewedLocked(e)
		}
	case ActionCreate:
		r.becomeLocked(s, now)
		e.expires = s.After.expiry(now)
		r.announceLocked(e)
	case ActionUpdate, ActionReplace:
		changed := s.redefines()
		r.becomeLocked(s, now)
		r.leaseLocked(e, s.After.expiry(now))
		if changed {
			r.tellLocked(event.Updated, e)
		}
		if s.Revive {
			r.tellLocked(event.StateChanged, e)
		}
	case ActionDelete:
		e.state, e.reason = Stopped, ""
		r.forgetLocked(e, event.Deleted)
	}
}

// undo takes back what perform has done until it failed, and answers why it did: with what could not be taken back.
func (r *Registry) undo(ctx context.Context, steps []*step, why error) error {
	var closed []*step
	for _, s := range steps {
		if s.closed {
			closed = append(closed, s)
		}
		if s.tuned {
			_ = s.entry.live.Update(spec(s.entry.def, s.entry.address)) // as it was; an error says that it has ended, and its state does, too
		}
	}
	unbind(sockets(steps))
	ctx = context.WithoutCancel(ctx) // a caller that has left does not keep its endpoints from coming back
	failed := make([]error, len(closed))
	each(len(closed), func(i int) { failed[i] = r.comeBack(ctx, closed[i]) })
	var lost []error
	for _, err := range failed {
		if err != nil {
			lost = append(lost, err)
		}
	}
	var problems *Problems
	switch {
	case len(lost) == 0:
		return why
	case errors.As(why, &problems):
		problems.Lost = lost
		return problems
	default:
		return fmt.Errorf("%w; and %w", why, errors.Join(lost...))
	}
}

// comeBack binds what had to make room for a change that failed. What was FAILED before is so again.
func (r *Registry) comeBack(ctx context.Context, s *step) error {
	e := s.entry
	var live *echo.Endpoint
	err := s.old.Err()
	if err == nil {
		live, err = r.bind(ctx, spec(e.def, e.address))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e.past, e.live = sum(e.past, s.old.Stats()), nil
	if err == nil {
		r.servesLocked(e, live)
		return nil
	}
	e.state, e.reason = Failed, err.Error()
	if s.Revive {
		return nil
	}
	r.log.Error("cannot bring back an endpoint", "endpoint", e.def.Name, "error", err)
	r.tellLocked(event.StateChanged, e)
	return fmt.Errorf("%q could not come back where it was and is FAILED: %w", e.def.Name, err)
}
