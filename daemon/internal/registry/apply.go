package registry

import (
	"context"
	"errors"
	"time"
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
	// Failure is why it is Failed, for ActionNone: it is as it should be, and could not be bound this time, either. nil: it is not.
	Failure error
}

// Apply makes the endpoints be what is wanted, as one change: in the store, and for those who read. What is as it should be
// is left alone, and so is whether an endpoint is stopped: that is nobody's definition. One that has Failed is bound again; one
// that is as it should be and cannot be bound stays Failed, and is tried again by itself. One
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
