package registry

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/netwatch"
)

// Delete stops an endpoint, giving open connections drain to finish, and forgets it. The error is ErrNotFound, ErrStale
// or ErrNotStored.
func (r *Registry) Delete(ctx context.Context, name, etag string, drain time.Duration) error {
	r.hurry(ctx, name, etag, drain)
	e, err := r.take(ctx, name)
	if err != nil {
		return err
	}
	defer e.release()
	if err := e.checkETag(etag); err != nil {
		return err
	}
	if err := r.write(nil, []string{name}); err != nil {
		return err
	}
	r.retire(e, drain)
	r.forget(e)
	return nil
}

// Start binds a stopped or failed endpoint again, where it was, at once. One that serves is answered as it is. The error is
// ErrNotFound, ErrNotStored, ErrNamespaceNotAvailable, or one of echo's; a stopped endpoint that cannot start stays stopped, and
// a failed one failed, with the reason of now.
func (r *Registry) Start(ctx context.Context, name string) (Endpoint, error) {
	e, err := r.take(ctx, name)
	if err != nil {
		return Endpoint{}, err
	}
	defer e.release()
	if !e.serves() {
		if err := r.bindsItself(e); err != nil {
			return Endpoint{}, err
		}
		if err := r.start(ctx, e); err != nil {
			r.stillFailed(e, err)
			return Endpoint{}, err
		}
	}
	return r.Get(name)
}

// start binds an entry where it was, and tells of it. The caller has the turn.
func (r *Registry) start(ctx context.Context, e *entry) error {
	if e.live != nil { // the engine gave it up
		r.letGo(e.live)
	}
	live, seen, err := r.bind(ctx, spec(e.def, e.address))
	if err != nil {
		return err
	}
	if !r.running(e) || e.address != live.Addr() { // else it is so kept
		if err := r.keep(e.record(live.Addr(), true)); err != nil {
			r.end(ended(), live)
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.live != nil { // the engine gave it up
		e.past = sum(e.past, e.live.Stats())
	}
	r.servesLocked(e, live, seen)
	r.tellLocked(event.StateChanged, e)
	return nil
}

// Stop gives an endpoint's port back and keeps the rest. Open connections have drain to finish by themselves; 0 cuts
// them at once, and so does a second Stop that allows less. The error is ErrNotFound or ErrNotStored.
func (r *Registry) Stop(ctx context.Context, name string, drain time.Duration) (Endpoint, error) {
	r.hurry(ctx, name, "", drain)
	e, err := r.take(ctx, name)
	if err != nil {
		return Endpoint{}, err
	}
	defer e.release()
	if r.stateOf(e) != Stopped {
		if err := r.keep(e.record(e.address, false)); err != nil {
			return Endpoint{}, err
		}
		r.retire(e, drain)
		r.tell(event.StateChanged, e)
	}
	return r.Get(name)
}

// hurry shortens a drain that is under way: whoever stops or deletes a draining endpoint means it no later than this. It
// returns when the drain has ended, or ctx has; a caller that leaves cuts nothing.
func (r *Registry) hurry(ctx context.Context, name, etag string, drain time.Duration) {
	live := r.draining(name, etag)
	if live == nil {
		return
	}
	patience, cancel := drainContext(drain)
	defer cancel()
	select {
	case <-live.Done():
	case <-ctx.Done():
	case <-patience.Done():
		// What it answers is told to the call that started the drain.
		_ = live.Close(ended())
	}
}

// draining answers what an endpoint is drained of, or nil.
func (r *Registry) draining(name, etag string) *echo.Endpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entries[name]; e != nil && e.state == Draining && e.checkETag(etag) == nil {
		return e.live
	}
	return nil
}

// retire ends what serves an entry. It tells when the entry drains; what comes of it is the caller's to tell: it is stopped,
// or gone, or serves again. The caller has the turn.
func (r *Registry) retire(e *entry, drain time.Duration) {
	live := e.live
	if live != nil {
		ctx, cancel := drainContext(r.drains(e, drain))
		defer cancel()
		r.end(ctx, live)
	}
	r.discardBack(e.def.Name)
	r.mu.Lock()
	defer r.mu.Unlock()
	if live != nil {
		e.past = sum(e.past, live.Stats())
	}
	e.live, e.state, e.reason = nil, Stopped, ""
	r.calmLocked(e)
}

// drains notes that an entry is on the way to Stopped, and answers how long it has: not at all when it is over anyhow. It is
// told when it may take a while.
func (r *Registry) drains(e *entry, drain time.Duration) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.overLocked(time.Now()) {
		drain = 0
	}
	served := e.state == Serving
	e.state, e.reason = Draining, ""
	if served && drain > 0 {
		r.tellLocked(event.StateChanged, e)
	}
	return drain
}

func (r *Registry) tell(what event.Type, e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tellLocked(what, e)
}

// Close drains every endpoint until ctx ends, then cuts; definitions stay as they are, so that a restart brings back
// what served. Nothing expires from here on.
func (r *Registry) Close(ctx context.Context) error {
	r.close()
	r.closeLeases()
	r.closeHeals()
	return r.engine.Close(ctx)
}

// close tells, once, that what serves drains.
func (r *Registry) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return
	}
	r.closing = true
	for _, name := range slices.Sorted(maps.Keys(r.entries)) {
		if e := r.entries[name]; e.state == Serving {
			r.tellLocked(event.StateChanged, e)
		}
	}
}

func (r *Registry) isClosing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closing
}

// bind has the engine listen, unless the daemon is stopping, and answers what it listens on, as it was just before. It takes
// no longer than ctx, or lookPatience.
func (r *Registry) bind(ctx context.Context, s echo.Spec) (*echo.Endpoint, netwatch.Sight, error) {
	if r.isClosing() {
		return nil, netwatch.Sight{}, ErrClosing
	}
	seen, err := r.lookBeforeBinding(ctx, s)
	if err != nil {
		return nil, seen, err
	}
	live, err := r.afterClaims(s, func() (*echo.Endpoint, error) { return r.listen(ctx, s) })
	if errors.Is(err, echo.ErrClosed) {
		return nil, seen, ErrClosing // it began to stop meanwhile
	}
	return live, seen, err
}

// spec says what the engine is to serve for a definition, at the address that it had, if any.
func spec(def Definition, had netip.AddrPort) echo.Spec {
	s := echo.Spec{Protocol: def.Protocol, Listen: withPort(def.Listen, had), Interface: def.Interface, Allow: def.Sources.Allow, Deny: def.Sources.Deny}
	if there := def.namespace(); there != "" {
		s.Place = there
	}
	s.Tag = tag{def.Name, def.Labels}
	s.TCP = echo.TCPOptions{
		OneShot:           def.TCP.OneShot,
		IdleTimeout:       def.TCP.IdleTimeout,
		StallTimeout:      def.TCP.StallTimeout,
		MaxConnections:    int(def.TCP.MaxConnections),
		MaxBytes:          def.TCP.MaxBytes,
		SocketBufferBytes: int(def.TCP.SocketBufferBytes),
	}
	s.UDP = echo.UDPOptions{
		NoLoopGuard:        def.UDP.NoLoopGuard,
		MaxSourceDatagrams: def.UDP.MaxSourceDatagrams,
		MaxSourceBytes:     def.UDP.MaxSourceBytes,
	}
	return s
}

// withPort is a listen with the port of an address, if that has one.
func withPort(listen string, had netip.AddrPort) string {
	if i := strings.LastIndexByte(listen, ':'); i >= 0 && had.Port() != 0 {
		return listen[:i+1] + strconv.Itoa(int(had.Port()))
	}
	return listen
}

func drainContext(drain time.Duration) (context.Context, context.CancelFunc) {
	if drain <= 0 {
		return ended(), func() {}
	}
	return context.WithTimeout(context.Background(), drain)
}

// ended is a context that is over: what is closed with it is cut at once.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
