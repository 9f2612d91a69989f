package registry

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// CreateAll creates endpoints as one change: all of them or none, and nobody sees one before all are there. Empty names
// are filled in. With validateOnly nothing is bound or kept, and the answer is what would be. The endpoints are answered in
// the order of their definitions.
//
// The error is a *Problems with what is wrong with each definition, or ErrNotStored, ErrClosing or the context's.
func (r *Registry) CreateAll(ctx context.Context, defs []Definition, validateOnly bool) ([]Endpoint, error) {
	bad := &Problems{}
	now := time.Now()
	entries := make([]*entry, 0, len(defs))
	sockets := make([]*binding, 0, len(defs))
	for i, def := range defs {
		r.complete(&def)
		b := &binding{index: i, spec: spec(def, netip.AddrPort{})}
		if err := b.spec.Validate(); err != nil {
			bad.add(i, "listen", err)
		}
		entries, sockets = append(entries, newEntry(def, now)), append(sockets, b)
	}
	bad.addTwins(sockets)
	if err := bad.orNil(); err != nil {
		return nil, err
	}
	if err := r.reserveAll(entries, validateOnly); err != nil {
		return nil, err
	}
	if !validateOnly {
		defer r.giveAll(byName(entries))
		for i, e := range entries {
			sockets[i].spec = spec(e.def, netip.AddrPort{}) // with the name that was chosen
		}
		if err := r.serveAll(ctx, entries, sockets); err != nil {
			return nil, err
		}
	}
	made := make([]Endpoint, 0, len(entries))
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		made = append(made, r.snapshotLocked(e))
	}
	return made, nil
}

func byName(entries []*entry) map[string]*entry {
	all := make(map[string]*entry, len(entries))
	for _, e := range entries {
		all[e.def.Name] = e
	}
	return all
}

// reserveAll takes the names of all entries, and chooses those that are empty, or takes none.
func (r *Registry) reserveAll(entries []*entry, validateOnly bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	bad := &Problems{}
	taken := make(map[string]bool, len(entries))
	for i, e := range entries {
		name := e.def.Name
		if name != "" && (r.entries[name] != nil || taken[name]) {
			bad.add(i, "name", errNameTaken(name))
		}
		taken[name] = true
		if err := r.joinLocked(e, e.def.Session, true); err != nil {
			bad.add(i, "session", err)
		}
	}
	if err := bad.orNil(); err != nil {
		return err
	}
	for _, e := range entries {
		for e.def.Name == "" {
			if name := randomName(e.def.Protocol); r.entries[name] == nil && !taken[name] {
				e.def.Name, taken[name] = name, true
				e.define(e.def)
			}
		}
	}
	if !validateOnly {
		for _, e := range entries {
			r.entries[e.def.Name] = e
			_ = r.joinLocked(e, e.def.Session, false) // which it can, as was just seen
		}
	}
	return nil
}

// serveAll binds and keeps entries whose names are reserved, and shows them when all is done. If it fails they are as they
// were.
func (r *Registry) serveAll(ctx context.Context, entries []*entry, sockets []*binding) error {
	records := make([]record, 0, len(entries))
	err := r.bindAll(ctx, sockets)
	if err == nil {
		bad := &Problems{}
		for _, s := range sockets {
			if s.err != nil {
				bad.add(s.index, socketField(s.err), s.err)
			}
		}
		err = bad.orNil()
	}
	if err == nil {
		now := time.Now()
		for i, e := range entries {
			rec := e.record(sockets[i].live.Addr(), true)
			rec.ExpireTime = rec.expiry(now)
			records = append(records, rec)
		}
		err = r.write(records, nil)
	}
	if err != nil {
		r.unbind(sockets)
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, e := range entries {
		e.expires = records[i].ExpireTime
		r.servesLocked(e, sockets[i].live, sockets[i].seen)
		r.announceLocked(e)
	}
	return nil
}

// Purge deletes the endpoints for which match is true, all at the same time, giving open connections drain to finish, and
// answers their names in order. In the store it is one change. What somebody else deletes meanwhile, or changes so that it
// matches no more, is none of them. The error is ErrNotStored or, before anything is deleted, the context's.
func (r *Registry) Purge(ctx context.Context, match func(*Endpoint) bool, drain time.Duration) ([]string, error) {
	names := r.Matching(match)
	parallel(len(names), drain, func(i int) { r.hurry(ctx, names[i], "", drain) })
	taken, err := r.takeAll(ctx, names, nil)
	if err != nil {
		return nil, err
	}
	defer r.giveAll(taken)
	var going []*entry
	var deleted []string
	for _, name := range names {
		if now, err := r.Get(name); err == nil && taken[name] != nil && match(&now) {
			going, deleted = append(going, taken[name]), append(deleted, name)
		}
	}
	if err := r.write(nil, deleted); err != nil {
		return nil, err
	}
	parallel(len(going), drain, func(i int) {
		r.retire(going[i], drain)
		r.forget(going[i])
	})
	return deleted, nil
}

// parallel calls fn with 0 to n-1 and waits for all. What drains does so at the same time, however many there are; what does
// not is done in a moment, some at a time.
func parallel(n int, drain time.Duration, fn func(i int)) {
	if drain <= 0 {
		each(n, fn)
		return
	}
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { fn(i) })
	}
	group.Wait()
}
