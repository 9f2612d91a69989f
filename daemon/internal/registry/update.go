package registry

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
)

// UpdateOptions say how an update is to be done.
type UpdateOptions struct {
	ETag         string // if not empty, the etag that the endpoint must have
	ValidateOnly bool   // change nothing, answer what would be
}

// Update changes the definition of an endpoint to what change makes of the present one. Labels, description, limits and
// timeouts take effect at once and drop no connection; one that changes the ttl sets the expiry anew, from now. The error is ErrNotFound, ErrStale, ErrNeedsStop,
// ErrNotStored, or change's own.
func (r *Registry) Update(ctx context.Context, name string, opt UpdateOptions, change func(Definition) (Definition, error)) (Endpoint, error) {
	e, err := r.take(ctx, name)
	if err != nil {
		return Endpoint{}, err
	}
	defer e.release()
	// The turn is ours: nobody else writes these fields.
	if err := e.checkETag(opt.ETag); err != nil {
		return Endpoint{}, err
	}
	def, err := change(e.def.clone())
	if err != nil {
		return Endpoint{}, err
	}
	def.Name, def.Session = e.def.Name, e.def.Session // which never change
	r.complete(&def)
	address, err := e.admit(def)
	if err != nil {
		return Endpoint{}, err
	}
	now, expires := time.Now(), e.expires
	if def.TTL != e.def.TTL {
		expires = e.expiry(def, now)
	}
	if opt.ValidateOnly || e.tag == def.etag() {
		wanted := r.copyOf(e)
		wanted.define(def)
		wanted.address, wanted.expires = address, expires
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.snapshotLocked(wanted), nil
	}
	before := e.record(e.address, r.running(e))
	changed := before
	changed.Definition, changed.Address, changed.UpdateTime, changed.ExpireTime = def, address, now, expires
	if err := r.keep(changed); err != nil {
		return Endpoint{}, err
	}
	if e.serves() {
		if err := e.live.Update(spec(def, e.address)); err != nil {
			return Endpoint{}, errors.Join(err, r.keep(before))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e.define(def)
	e.address, e.updated = address, now
	if !expires.Equal(e.expires) {
		r.leaseLocked(e, expires)
	}
	r.tellLocked(event.Updated, e)
	r.soonLocked(e)
	return r.snapshotLocked(e), nil
}

// admit says whether an entry may become def as it stands, and which address it would keep.
func (e *entry) admit(def Definition) (netip.AddrPort, error) {
	if err := spec(def, netip.AddrPort{}).Validate(); err != nil {
		return e.address, err
	}
	samePlace := def.namespace() == e.def.namespace() && def.Interface == e.def.Interface
	if def.Protocol == e.def.Protocol && samePlace && e.sameListen(def.Listen) {
		return e.address, nil
	}
	if e.serves() {
		return e.address, fmt.Errorf("%w: %q serves %s on %s, and protocol, listen, network namespace and interface need a new socket",
			ErrNeedsStop, def.Name, e.def.Protocol, e.def.Listen)
	}
	return netip.AddrPort{}, nil // the next start finds a new one
}

// sameListen says whether a listen means the socket that the entry has: written otherwise, or with the port that it got
// for port 0.
func (e *entry) sameListen(listen string) bool {
	was, err := echo.ParseListen(e.def.Listen)
	if err != nil {
		return false
	}
	wanted, err := echo.ParseListen(listen)
	return err == nil && wanted.IP == was.IP && (wanted.Port == was.Port || wanted.Port == e.address.Port() && wanted.Port != 0)
}
