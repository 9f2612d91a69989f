package registry

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/netwatch"
)

// lookEvery is how often all that serves is looked at, whatever the network tells: it may be that not all of it is followed.
const lookEvery = time.Minute

// followLocked has what is to be followed thought over. The first time starts the goroutine that follows.
func (r *Registry) followLocked() {
	if r.network == nil || r.closing || r.heals.held {
		return
	}
	if !r.heals.watched {
		r.heals.watched = true
		r.heals.wg.Go(r.watchNetwork)
	}
	nudge(r.heals.moved)
}

// watchNetwork looks, when something of the network has changed, whether what serves has lost what it stands on, and retries
// what has Failed, until the registry is closed. However much changes, it rests for most of the time.
func (r *Registry) watchNetwork() {
	ctx := r.heals.end
	every := time.NewTicker(lookEvery)
	defer every.Stop()
	for ctx.Err() == nil {
		all := false
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			all = true
		case <-r.heals.moved:
		case <-r.network.Changed():
		}
		begun := time.Now()
		r.follow() // first, so that nothing is missed from here on
		changed := r.network.Take()
		r.lookAround(ctx, changed, all)
		r.retryWhere(changed)
		rest := time.NewTimer(max(healPause, 10*time.Since(begun)))
		select {
		case <-ctx.Done():
		case <-rest.C:
		}
		rest.Stop()
	}
}

// follow says what is to be followed: the links and addresses of namespaces in which an entry has Failed or is bound to an
// interface, and the names of all.
func (r *Registry) follow() {
	links, names := r.toFollow()
	// One that does not answer would hold us up.
	hangs := func(name string, _ bool) bool { return r.looks.hangs(namespace(name)) }
	maps.DeleteFunc(links, hangs)
	maps.DeleteFunc(names, hangs)
	r.network.Follow(slices.Sorted(maps.Keys(links)), slices.Sorted(maps.Keys(names)))
}

func (r *Registry) toFollow() (links, names map[string]bool) {
	links, names = map[string]bool{}, map[string]bool{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.entries {
		f := footingOf(spec(e.def, e.address))
		where := string(f.namespace)
		switch {
		case e.state == Failed, e.state == Serving && f.isBound():
			links[where] = true
		case e.state != Serving:
			continue
		}
		if where != "" {
			names[where] = true
		}
	}
	return links, names
}

// retryWhere retries what has Failed where something has changed.
func (r *Registry) retryWhere(changed netwatch.Changes) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for _, e := range r.entries {
		if where := e.def.namespace(); e.state == Failed && e.announced && (changed.Links[string(where)] || where != "" && changed.Names) {
			r.retryLocked(e, now)
		}
	}
}

// standing is an entry that serves, and what it was made on.
type standing struct {
	*entry
	seen netwatch.Sight
}

// lookAround finds what has lost what it stands on, where something has changed, or everywhere.
func (r *Registry) lookAround(ctx context.Context, changed netwatch.Changes, all bool) {
	on := r.standingWhere(changed, all)
	footings := slices.Collect(maps.Keys(on))
	each(len(footings), func(i int) {
		f := footings[i]
		now, err := r.looks.at(ctx, f)
		if err != nil {
			return // what serves there goes on, whether the namespace has a name or not
		}
		for _, s := range on[f] {
			r.compare(ctx, f, s, now)
		}
	})
}

// standingWhere answers what serves and may have lost what it stands on.
func (r *Registry) standingWhere(changed netwatch.Changes, all bool) map[footing][]standing {
	on := map[footing][]standing{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.entries {
		if e.state != Serving || e.live == nil {
			continue
		}
		f := footingOf(spec(e.def, e.address))
		if all && !f.isPlain() || f.namespace != "" && changed.Names || f.isBound() && changed.Links[string(f.namespace)] {
			on[f] = append(on[f], standing{e, e.seen})
		}
	}
	return on
}

// compare ends what serves and does not stand on what its names mean now, and has it serve there.
func (r *Registry) compare(ctx context.Context, f footing, s standing, now netwatch.Sight) {
	e := s.entry
	if s.seen == (netwatch.Sight{}) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if e.seen == s.seen {
			e.seen = now // nobody has looked when it was made
		}
		return
	}
	why, until := f.lost(s.seen, now)
	if why == nil {
		return
	}
	soon, cancel := context.WithTimeout(ctx, turnPatience)
	defer cancel()
	select {
	case e.turn <- struct{}{}:
		defer e.release()
	case <-soon.Done():
		return // who changes it may do so for long; the next look finds it again
	}
	live := r.lose(s, why, until)
	if live == nil {
		return
	}
	r.end(ended(), live)
	r.part(e, live)
	r.logFailure(e.def.Name, why)
	if until == nil {
		r.restart(ctx, e)
	}
}

// lose notes that an entry has lost what it stands on, and answers what is to be closed; nil: nothing, since it is not as it was
// seen any more. The caller has the turn.
func (r *Registry) lose(s standing, why, until error) *echo.Endpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := s.entry
	if r.closing || e.gone || e.state != Serving || e.seen != s.seen || e.live == nil {
		return nil
	}
	r.failLocked(e, why)
	e.lost = until
	r.tellLocked(event.StateChanged, e)
	return e.live
}

// part takes from an entry what has served it and is closed, and keeps what that has counted. The caller has the turn.
func (r *Registry) part(e *entry, live *echo.Endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.past, e.live = sum(e.past, live.Stats()), nil
}
