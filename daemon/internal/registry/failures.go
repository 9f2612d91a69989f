package registry

import (
	"maps"
	"slices"
)

// Failure is an endpoint that is meant to serve and does not.
type Failure struct {
	Name   string
	Reason string
}

// Failures answers how many endpoints are Failed, and the first of them by name, up to limit. It is called once Restore has
// returned.
func (r *Registry) Failures(limit int) (count int, first []Failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	failed := map[string]string{}
	for name, e := range r.entries {
		if e.announced && e.state == Failed {
			failed[name] = e.reason
		}
	}
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		if len(first) == limit {
			break
		}
		first = append(first, Failure{name, failed[name]})
	}
	return len(failed), first
}

// Beat returns once it has had what every call needs: the registry's lock, and a turn of the engine's loops. Whoever calls it
// now and then, and notes that it does not return, knows that endpoints cannot be reached. It touches no disk.
func (r *Registry) Beat() {
	_ = r.Len()
	r.engine.Beat()
}
