package registry

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/echod/echod/daemon/echo"
)

// Inherited is a socket that exists already: a service manager has passed it to this process.
type Inherited struct {
	Name      string // as the manager has it
	KeptFor   string // the endpoint that it was given to a Keeper for; empty: it was not, the manager has made it
	Protocol  echo.Protocol
	Listen    string // where it is bound, as echo.ParseListen takes it; of a connection, its own end
	Interface string
	Handed    echo.Handed // a socket, or one connection
}

// Keeper has sockets outlive this process, so that a crash of it refuses nobody: what comes meanwhile waits in them, and the next
// process gets them as Inherited.
type Keeper interface {
	// Keep keeps a copy of an endpoint's socket and answers its name there; empty: it could not.
	Keep(endpoint string, socket *os.File) (name string)
	// Kept counts a copy that it has kept already, for another process.
	Kept(name string)
	// Release gives the copy up, and returns when it is closed.
	Release(name string)
}

// given is a socket that the service manager has made for an endpoint. It has it open as long as the endpoint is there, so that
// nobody can bind its address, and start takes it again.
type given struct {
	name       string // as the manager has it
	protocol   echo.Protocol
	address    echo.Address
	device     string
	handed     echo.Handed // ours, to be copied for each start
	connection bool        // it is one connection
	over       bool        // which is in use or has ended
	forgotten  bool        // the manager has passed it once, and not this time
}

// errNotPassed is why an endpoint does not serve whose socket has not come.
func (g *given) errNotPassed() error {
	return fmt.Errorf("the service manager has passed no socket %q on %s this time; pass it again, delete the endpoint, or start it to have the daemon bind the address itself",
		g.name, g.address)
}

// fits says whether a definition that had an address wants this socket.
func (g *given) fits(s echo.Spec) bool {
	return s.Place == nil && s.Interface == g.device && s.Protocol == g.protocol && sameAddress(s.Listen, g.address)
}

// sameAddress says whether a listen means an address; port 0 is another until it is bound.
func sameAddress(listen string, a echo.Address) bool {
	wanted, err := echo.ParseListen(listen)
	return err == nil && wanted == a
}

// inherit finds the endpoint of each socket that was passed, among those that the store has; expected says by which names of the
// manager these had theirs. It answers the endpoints that are new.
func (r *Registry) inherit(found []*entry, expected map[string]given) (created []*entry) {
	for _, in := range r.inherited {
		if in.KeptFor != "" {
			r.takeBack(in)
		}
	}
	for _, in := range r.inherited {
		if in.KeptFor != "" {
			continue
		}
		g := &given{name: in.Name, protocol: in.Protocol, device: in.Interface, handed: in.Handed, connection: len(in.Handed.Connections) > 0}
		g.address, _ = echo.ParseListen(in.Listen) // of a connection there may be none that can be listened on
		if name := r.nameOf(found, expected, g); name != "" {
			r.given[name] = g
			continue
		}
		e := r.entryOf(g, in.Listen)
		r.given[e.def.Name] = g
		created = append(created, e)
	}
	for name, g := range expected {
		if r.given[name] == nil {
			g.forgotten = true
			r.given[name] = &g
		}
	}
	r.inherited = nil
	return created
}

// nameOf answers which of the endpoints that the store has a socket is for: the one that had it before, or one that has the same
// name and address.
func (r *Registry) nameOf(found []*entry, expected map[string]given, g *given) string {
	for _, mustHave := range []bool{true, false} {
		for _, e := range found {
			name := e.def.Name
			had := expected[name].name == g.name
			if r.given[name] == nil && g.handed.Socket != nil && (had || !mustHave && name == labelOf(g.name)) && g.fits(spec(e.def, e.address)) {
				return name
			}
		}
	}
	return ""
}

// takeBack finds the endpoint that a socket was kept for.
func (r *Registry) takeBack(in Inherited) {
	e := r.look(in.KeptFor)
	kept := &given{name: in.Name, protocol: in.Protocol, device: in.Interface, handed: in.Handed}
	kept.address, _ = echo.ParseListen(in.Listen)
	var why string
	switch {
	case e == nil || e.state != Failed: // all that are meant to serve are Failed as yet
		why = "there is no such endpoint that is to serve"
	case r.back[in.KeptFor] != nil:
		why = "there is another one of it"
	case !kept.is(e):
		why = fmt.Sprintf("it is %s on %s, and the endpoint is %s on %s", in.Protocol, in.Listen, e.def.Protocol, spec(e.def, e.address).Listen)
	default:
		r.back[in.KeptFor] = kept
		return
	}
	r.discard(kept, in.KeptFor, why)
}

// is says whether a socket that was kept is that of an entry, wherever that is.
func (g *given) is(e *entry) bool {
	s := spec(e.def, e.address)
	return s.Interface == g.device && s.Protocol == g.protocol && sameAddress(s.Listen, g.address)
}

// discard gives up a socket that was kept.
func (r *Registry) discard(g *given, endpoint, why string) {
	r.log.Warn("a socket that was kept over the last process is not used", "socket", g.name, "endpoint", endpoint, "reason", why)
	g.close()
	if r.keeper != nil {
		r.keeper.Release(g.name)
	}
}

// discardBack gives up what was kept for an endpoint that is not to serve any more and that nobody has bound since.
func (r *Registry) discardBack(name string) {
	if back, _ := r.socketsOf(name); back != nil {
		r.discard(back, name, "the endpoint is not to serve any more")
	}
}

// close closes our copies.
func (g *given) close() {
	if g.handed.Socket != nil {
		_ = g.handed.Socket.Close()
	}
	for _, c := range g.handed.Connections {
		_ = c.Socket.Close()
	}
}

// entryOf makes the endpoint of a socket that has none. Its name is the manager's made a label; a name that is taken gets a number.
func (r *Registry) entryOf(g *given, listen string) *entry {
	label := labelOf(g.name)
	name := label
	for i := 2; r.look(name) != nil; i++ {
		name = label + "-" + strconv.Itoa(i)
	}
	if other := r.given[label]; name != label && (other == nil || other.name != g.name) {
		r.log.Warn("the name of a passed socket is that of an endpoint elsewhere", "socket", g.name, "listen", listen, "endpoint", name)
	}
	def := Definition{Name: name, Protocol: g.protocol, Listen: listen, Interface: g.device}
	if g.protocol == echo.TCP {
		def.TCP = TCPOptions{IdleTimeout: DefaultIdleTimeout, StallTimeout: DefaultStallTimeout, MaxConnections: DefaultMaxConnections}
	}
	e := newEntry(def, time.Now())
	e.release()
	e.announced, e.state = true, Failed // until it serves
	r.reserve(name, e)
	return e
}

// maxLabel leaves room for a number behind a name of 63 characters (RFC 1123).
const maxLabel = 56

// labelOf makes the name that a manager has for a socket one of an endpoint: "Web.socket" is web.
func labelOf(name string) string {
	label := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			return c
		}
		return '-'
	}, strings.ToLower(strings.TrimSuffix(name, ".socket")))
	label = strings.Trim(label[:min(len(label), maxLabel)], "-")
	if label == "" {
		return "inherited"
	}
	return label
}

// keepCreated writes the records of endpoints that have come with their sockets. That of a connection ends with it. Where it cannot
// they serve nevertheless: their sockets come again, and so do they.
func (r *Registry) keepCreated(created []*entry) {
	records := make([]record, 0, len(created))
	for _, e := range created {
		records = append(records, e.record(e.address, true))
	}
	if err := r.write(records, nil); err != nil {
		r.log.Error("cannot keep the endpoints of passed sockets; they are there for as long as their sockets are passed", "error", err)
	}
}

// listen has the engine serve a spec by the socket that there is for it, or by one that it binds.
func (r *Registry) listen(ctx context.Context, s echo.Spec) (*echo.Endpoint, error) {
	name := nameOfTag(s)
	back, g := r.socketsOf(name)
	if back != nil {
		live, err := r.adopt(ctx, s, back.handed)
		if err == nil {
			r.keptAs(live, back.name)
			return live, nil
		}
		r.discard(back, name, err.Error())
	}
	if g != nil && g.fits(s) {
		return r.adoptGiven(ctx, s, g)
	}
	if g != nil && g.connection {
		return nil, fmt.Errorf("%w: it was one connection, and what it is served by cannot change", ErrNotServing)
	}
	live, err := r.engine.Listen(ctx, s)
	if err == nil {
		r.keepSocket(name, live)
	}
	return live, err
}

// socketsOf answers what was kept for an endpoint, which is there once, and what the service manager has made for it; nil: nothing.
func (r *Registry) socketsOf(name string) (back, g *given) {
	r.mu.Lock()
	defer r.mu.Unlock()
	back, g = r.back[name], r.given[name]
	delete(r.back, name)
	return back, g
}

func nameOfTag(s echo.Spec) string {
	whose, _ := s.Tag.(tag)
	return whose.name
}

// adoptGiven serves a socket of the service manager.
func (r *Registry) adoptGiven(ctx context.Context, s echo.Spec, g *given) (*echo.Endpoint, error) {
	if g.forgotten {
		return nil, g.errNotPassed()
	}
	if !g.connection {
		// The manager has it open: what it holds is not ours to end, and another start needs it again.
		socket, err := echo.Duplicate(g.handed.Socket)
		if err != nil {
			return nil, fmt.Errorf("cannot serve the socket %q of the service manager: %w", g.name, err)
		}
		return r.adopt(ctx, s, echo.Handed{Socket: socket})
	}
	if r.useUp(g) {
		return nil, fmt.Errorf("%w: it was one connection, which has ended", ErrNotServing)
	}
	return r.adopt(ctx, s, g.handed)
}

// useUp notes that a connection is in use, and answers whether it was already.
func (r *Registry) useUp(g *given) (over bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	over, g.over = g.over, true
	return over
}

// adopt serves sockets that exist. When it fails, they are closed.
func (r *Registry) adopt(ctx context.Context, s echo.Spec, h echo.Handed) (*echo.Endpoint, error) {
	live, err := r.engine.Adopt(ctx, s, h)
	if err != nil {
		(&given{handed: h}).close()
		return nil, err
	}
	if err := live.Resume(); err != nil {
		return nil, errors.Join(err, live.Close(ended()))
	}
	return live, nil
}

// keepSocket has the keeper keep what an endpoint listens on.
func (r *Registry) keepSocket(name string, live *echo.Endpoint) {
	if r.keeper == nil || r.store == nil { // what is in memory only ends with this process
		return
	}
	socket, err := live.Socket()
	if err != nil {
		return // it has ended already, and there is nothing to keep
	}
	kept := r.keeper.Keep(name, socket)
	_ = socket.Close() // the keeper has its own
	if kept != "" {
		r.keptAs(live, kept)
	}
}

func (r *Registry) keptAs(live *echo.Endpoint, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept[live] = name
}

// end closes what serves, for good: the keeper gives it up first, as else its address would take connections that nobody serves.
func (r *Registry) end(ctx context.Context, live *echo.Endpoint) {
	r.letGo(live)
	_ = live.Close(ctx) // always nil
}

// letGo has the keeper give up the socket of what ends, or has ended.
func (r *Registry) letGo(live *echo.Endpoint) {
	if name, kept := r.notKept(live); kept {
		r.keeper.Release(name)
	}
}

func (r *Registry) notKept(live *echo.Endpoint) (name string, kept bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name, kept = r.kept[live]
	delete(r.kept, live)
	return name, kept
}

// bindsItself has an endpoint whose socket the service manager does not pass any more become one as all others. The caller has
// the turn.
func (r *Registry) bindsItself(e *entry) error {
	if !r.forgetForgotten(e.def.Name) {
		return nil
	}
	return r.keep(e.record(e.address, r.running(e)))
}

func (r *Registry) forgetForgotten(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.given[name]
	if g == nil || !g.forgotten {
		return false
	}
	delete(r.given, name)
	return true
}

// inheritedLocked is the name that the service manager has for the socket of a definition; empty: it has none.
func (r *Registry) inheritedLocked(def Definition, had netip.AddrPort) string {
	if g := r.given[def.Name]; g != nil && (g.over || g.fits(spec(def, had))) {
		return g.name
	}
	return ""
}

// isConnectionLocked says whether an endpoint is one connection, which is never kept.
func (r *Registry) isConnectionLocked(name string) bool {
	g := r.given[name]
	return g != nil && g.connection
}

// forgetSocketLocked closes the socket of an endpoint that is gone. The manager may pass it again to the next process.
func (r *Registry) forgetSocketLocked(name string) {
	g := r.given[name]
	if g == nil {
		return
	}
	if !g.over { // else it is the engine's
		g.close()
	}
	delete(r.given, name)
}

// watchConnections deletes the endpoints that are one connection, each when it ends, and notes the end of the last.
func (r *Registry) watchConnections(created []*entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range created {
		if !r.isConnectionLocked(e.def.Name) {
			continue
		}
		r.connections.left++
		live := e.live
		r.leases.wg.Go(func() {
			if live != nil {
				select {
				case <-live.Done():
				case <-r.leases.end.Done():
					return
				}
			}
			r.connectionEnded(e)
		})
	}
}

func (r *Registry) connectionEnded(e *entry) {
	if taken, err := r.take(r.leases.end, e.def.Name); err == nil {
		if taken == e {
			r.retire(e, 0)
			r.forget(e)
		}
		taken.release()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.connections.left--; r.connections.left == 0 {
		close(r.connections.over)
	}
}

// ConnectionsOver returns a channel that closes when the last connection that was passed as such has ended. It never does where
// there was none.
func (r *Registry) ConnectionsOver() <-chan struct{} { return r.connections.over }

// Listens says whether there is an endpoint that is more than one connection.
func (r *Registry) Listens() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.entries {
		if !r.isConnectionLocked(name) {
			return true
		}
	}
	return false
}

// States answers how many endpoints there are in each state.
func (r *Registry) States() map[State]int {
	states := map[State]int{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.entries {
		states[r.bareLocked(e).State]++
	}
	return states
}
