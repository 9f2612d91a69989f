package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/netwatch"
)

// recordKind is what the store calls our records.
const recordKind = "endpoint"

// record is what the store keeps of an endpoint.
type record struct {
	Definition
	UID     string         `json:"uid"`
	Address netip.AddrPort `json:"address"` // as last bound, so that a port 0 that was given stays given
	Running bool           `json:"running"`
	// Inherited is what the service manager calls its socket; it is expected to pass it again. Empty: the daemon binds it.
	Inherited  string    `json:"inherited,omitempty"`
	CreateTime time.Time `json:"createTime"`
	UpdateTime time.Time `json:"updateTime"`
	ExpireTime time.Time `json:"expireTime,omitzero"` // by the wall clock
}

func (e *entry) record(address netip.AddrPort, running bool) record {
	return record{
		Definition: e.def, UID: e.uid, Address: address, Running: running, CreateTime: e.created, UpdateTime: e.updated,
		ExpireTime: e.expires,
	}
}

// withSockets is records with what their sockets are. Those of endpoints that are one connection are not kept.
func (r *Registry) withSockets(records []record) []record {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.given) == 0 {
		return records
	}
	kept := make([]record, 0, len(records))
	for _, rec := range records {
		if !r.isConnectionLocked(rec.Name) {
			rec.Inherited = r.inheritedLocked(rec.Definition, rec.Address)
			kept = append(kept, rec)
		}
	}
	return kept
}

// keep writes a record, if there is a store.
func (r *Registry) keep(rec record) error { return r.write([]record{rec}, nil) }

// write puts and deletes records as one change, if there is a store.
func (r *Registry) write(puts []record, deletes []string) error {
	if r.store == nil || len(puts)+len(deletes) == 0 {
		return nil
	}
	values := make(map[string][]byte, len(puts))
	for _, rec := range r.withSockets(puts) {
		value, err := json.Marshal(rec)
		if err != nil {
			return fmt.Errorf("cannot encode endpoint %q: %w", rec.Name, err)
		}
		values[rec.Name] = value
	}
	if err := r.store.Write(recordKind, values, deletes); err != nil {
		return fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	return nil
}

// Restore brings back what the store holds; it is called once, before anything that creates or changes. An endpoint that cannot be bound
// is there as Failed, with the reason, and is tried again by itself; so is one whose network namespace does not answer within
// lookPatience. It holds up no other. What has a lease, or a session, lives five seconds from when this returns at least. The error
// is about the store: a record that cannot be read is never skipped in silence.
func (r *Registry) Restore(ctx context.Context) error {
	found, expected, err := r.readStore()
	if err != nil {
		return err
	}
	r.admitAll(found)
	created := r.inherit(found, expected)
	found = append(found, created...)
	var meant []*entry // to serve
	for _, e := range found {
		if e.state == Failed {
			meant = append(meant, e)
		}
	}
	slow := r.lookAhead(ctx, meant)
	each(len(meant), func(i int) { r.revive(ctx, meant[i], slow) })
	r.keepCreated(created)
	r.watchConnections(created)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.beginLeasesLocked()
	r.beginHealsLocked()
	for _, e := range found {
		r.events.Found(r.eventLocked(event.Existing, e))
	}
	return nil
}

// readStore makes the entries that the store has. Those whose sockets a service manager passes are expected to get them.
func (r *Registry) readStore() (found []*entry, expected map[string]given, err error) {
	expected = map[string]given{}
	if r.store == nil {
		return nil, expected, nil
	}
	if err := r.restoreSessions(); err != nil {
		return nil, nil, err
	}
	err = r.store.Each(recordKind, func(key string, value []byte) error {
		var rec record
		if err := json.Unmarshal(value, &rec); err != nil {
			return fmt.Errorf("cannot understand endpoint %q in the state file: %w", key, err)
		}
		e := &entry{
			turn: make(chan struct{}, 1), announced: true, uid: rec.UID, address: rec.Address,
			state: Stopped, created: rec.CreateTime, updated: rec.UpdateTime, expires: rec.ExpireTime,
		}
		e.define(rec.Definition)
		if rec.Running {
			e.state = Failed // until it serves
		}
		found = append(found, e)
		if rec.Inherited != "" {
			g := given{name: rec.Inherited, protocol: rec.Protocol, device: rec.Interface}
			g.address, _ = echo.ParseListen(rec.Listen) // it was good when it was written
			expected[rec.Name] = g
		}
		return nil
	})
	return found, expected, err
}

// admitAll takes in what was found. What is meant to serve nobody retries until it was tried.
func (r *Registry) admitAll(found []*entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heals.held = true
	for _, e := range found {
		r.entries[e.def.Name] = e
		r.rejoinLocked(e)
	}
}

// revive binds a restored endpoint, or notes why it cannot. What is slow is not waited for again.
func (r *Registry) revive(ctx context.Context, e *entry, slow map[footing]error) {
	s := spec(e.def, e.address)
	var live *echo.Endpoint
	var seen netwatch.Sight
	err := slow[footingOf(s)]
	if err != nil {
		err = cannotBind(s, err)
	} else {
		live, seen, err = r.bind(ctx, s)
	}
	if err != nil {
		r.log.Error("cannot bring back an endpoint; it is tried again", "endpoint", e.def.Name, "error", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.failLocked(e, err)
	} else {
		r.servesLocked(e, live, seen)
	}
}

// clone makes a copy that shares nothing.
func (d Definition) clone() Definition {
	d.Labels = maps.Clone(d.Labels)
	d.Sources = Sources{Allow: slices.Clone(d.Sources.Allow), Deny: slices.Clone(d.Sources.Deny)}
	return d
}

// What an endpoint takes in the log of events besides its texts, about.
const (
	endpointBytes = 512
	labelBytes    = 32 // besides its texts
	prefixBytes   = 32
)

// bytes is about how much memory the texts and lists of a definition take.
func (d Definition) bytes() int {
	n := len(d.Name) + len(d.Listen) + len(d.NetworkNamespace) + len(d.Interface) + len(d.Description) + len(d.Session) + prefixBytes*(len(d.Sources.Allow)+len(d.Sources.Deny))
	for key, value := range d.Labels {
		n += len(key) + len(value) + labelBytes
	}
	return n
}

// etag is a digest of all that a caller can set.
func (d Definition) etag() string {
	if len(d.Labels) == 0 {
		d.Labels = nil
	}
	text, err := json.Marshal(d) // maps are written in order of their keys
	if err != nil {
		panic("registry: a definition of plain strings and numbers cannot be encoded: " + err.Error())
	}
	digest := sha256.Sum256(text)
	return hex.EncodeToString(digest[:8])
}
