package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
)

// Create binds a new endpoint and keeps it. An empty name is filled in. With validateOnly nothing is bound or kept, and
// the answer is what would be. The error is ErrExists, ErrNoSession, ErrNamespaceNotAvailable, one of echo's for an address that
// cannot be had, or ErrNotStored.
func (r *Registry) Create(ctx context.Context, def Definition, validateOnly bool) (Endpoint, error) {
	made, err := r.CreateAll(ctx, []Definition{def}, validateOnly)
	var problems *Problems
	if errors.As(err, &problems) {
		err = problems.List[0].Err
	}
	if err != nil {
		return Endpoint{}, err
	}
	return made[0], nil
}

// complete fills in what a definition leaves open.
func (r *Registry) complete(def *Definition) {
	if def.Listen == "" {
		def.Listen = net.JoinHostPort(r.defaultHost, "0")
	}
}

func errNameTaken(name string) error {
	return fmt.Errorf("%w: %q; choose another, or change that one with an update", ErrExists, name)
}

// randomName answers a name that is likely to be free.
func randomName(p echo.Protocol) string { return strings.ToLower(p.String()) + "-" + newUID()[:6] }

func newUID() string { return uuid.NewString() }

// newEntry makes the entry of an endpoint that is to be created. The caller has its turn.
func newEntry(def Definition, now time.Time) *entry {
	e := &entry{turn: make(chan struct{}, 1), uid: newUID(), created: now, updated: now, expires: def.expiry(now), state: Stopped}
	e.define(def)
	e.turn <- struct{}{}
	return e
}

// forget takes an entry out of the registry.
func (r *Registry) forget(e *entry) { r.forgetAs(e, event.Deleted) }

// forgetAs is forget of an entry whose end is told as something else than a deletion.
func (r *Registry) forgetAs(e *entry, what event.Type) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked(e, what)
}

func (r *Registry) forgetLocked(e *entry, what event.Type) {
	delete(r.entries, e.def.Name)
	e.gone = true
	r.forgetSocketLocked(e.def.Name)
	r.unscheduleLocked(&e.lease)
	r.calmLocked(e)
	if e.session != nil {
		delete(e.session.entries, e)
	}
	r.tellLocked(what, e)
}
