package registry

import (
	"fmt"
	"net/netip"

	"github.com/echod/echod/daemon/echo"
)

// An endpoint that has Failed is to serve again where it was, by itself and soon, so nobody else is to bind that address meanwhile.
// Otherwise two would be meant to serve there, and after each start it might be the other one.

// port is what two sockets may be in each other's way by. The zero port is none.
type port struct {
	protocol  echo.Protocol
	number    uint16
	namespace namespace
}

// port is where an entry is bound, or was.
func (e *entry) port() port { return port{e.def.Protocol, e.address.Port(), e.def.namespace()} }

// spot is where a socket of one protocol is in one namespace.
type spot struct {
	address echo.Address
	device  string // the interface; empty: any
}

// spotOf is the spot of a spec that is valid.
func spotOf(s echo.Spec) (spot, error) {
	address, err := echo.ParseListen(s.Listen)
	return spot{address, s.Interface}, err
}

// inTheWayOf says whether two sockets at one port cannot be bound at the same time.
func (s spot) inTheWayOf(o spot) bool {
	return (s.device == "" || o.device == "" || s.device == o.device) && s.address.Overlaps(o.address)
}

// claims are the endpoints that have Failed, by where they are to serve again. The registry's lock guards them.
type claims map[port]map[*entry]spot

// put notes where an entry is to serve again: where it was, or where it is to be from now on. It may have claimed another address before.
func (c claims) put(e *entry) {
	c.drop(e)
	s := spec(e.def, e.address)
	where, err := spotOf(s)
	p := port{s.Protocol, where.address.Port, e.def.namespace()}
	if err != nil || p.number == 0 {
		return // it was never bound, and any port will do
	}
	if c[p] == nil {
		c[p] = map[*entry]spot{}
	}
	c[p][e], e.claims = where, p
}

// drop has an entry claim nothing.
func (c claims) drop(e *entry) {
	delete(c[e.claims], e)
	if len(c[e.claims]) == 0 {
		delete(c, e.claims)
	}
	e.claims = port{}
}

// claimedError says that an address is another endpoint's. It is an echo.ErrAddressInUse.
type claimedError struct{ listen, by string }

func (e *claimedError) Error() string {
	return fmt.Sprintf("cannot bind %s: it is the address of endpoint %q, which has failed and is to serve there again (to have it free, stop or delete that one)", e.listen, e.by)
}

func (e *claimedError) Is(target error) bool { return target == echo.ErrAddressInUse }

// checkClaims answers a *claimedError if a spec is not to be bound by the endpoint that it is of, since it is the address of another.
// A spec that leaves the port open can be bound.
func (r *Registry) checkClaims(s echo.Spec) error {
	wanted, err := spotOf(s)
	if err != nil {
		return nil // the engine says so
	}
	in, _ := s.Place.(namespace)
	p := port{s.Protocol, wanted.address.Port, in}
	r.mu.Lock()
	defer r.mu.Unlock()
	self := r.entries[nameOfTag(s)]
	if r.heals.held || self.ownsLocked(p, wanted) {
		return nil
	}
	var by *entry
	for e, where := range r.heals.claims[p] {
		if !e.leaves && !e.equalsLocked(self) && where.inTheWayOf(wanted) && (by == nil || e.def.Name < by.def.Name) {
			by = e
		}
	}
	if by == nil {
		return nil
	}
	return &claimedError{s.Listen, by.def.Name}
}

// ownsLocked says whether an endpoint serves at a spot, or did until it failed: it may be bound again there, whoever else claims that.
func (e *entry) ownsLocked(p port, where spot) bool {
	if e == nil || !e.announced || e.state != Serving && e.state != Failed || p != e.port() {
		return false
	}
	own, err := spotOf(spec(e.def, e.address))
	return err == nil && own == where
}

// equalsLocked says whether the claim of an endpoint keeps another from nothing: it is its own, or both have been moved to that port
// while they had Failed, and neither was bound there. Each would wait for the other for ever.
func (e *entry) equalsLocked(other *entry) bool {
	return e == other || other != nil && other.announced && other.claims == e.claims && e.address.Port() == 0
}

// maxChosen is how many ports the system may choose that are somebody's already, until none is found.
const maxChosen = 64

// afterClaims binds by listen what checkClaims allows. Where the system chooses the port, it is not that of an endpoint that has
// Failed.
func (r *Registry) afterClaims(s echo.Spec, listen func() (*echo.Endpoint, error)) (*echo.Endpoint, error) {
	if err := r.checkClaims(s); err != nil {
		return nil, err
	}
	address, err := echo.ParseListen(s.Listen)
	if err != nil || address.Port != 0 {
		return listen()
	}
	var claimed []*echo.Endpoint // held until another port was chosen
	defer func() {
		for _, live := range claimed {
			r.end(ended(), live)
		}
	}()
	for {
		live, err := listen()
		if err != nil {
			return nil, err
		}
		err = r.checkClaims(boundTo(s, live.Addr()))
		if err == nil {
			return live, nil
		}
		if claimed = append(claimed, live); len(claimed) == maxChosen {
			return nil, err
		}
	}
}

// boundTo is a spec with the port of an address.
func boundTo(s echo.Spec, bound netip.AddrPort) echo.Spec {
	s.Listen = withPort(s.Listen, bound)
	return s
}

// leave says of those that a change moves or deletes that their addresses may be bound by others of it, until stay.
func (r *Registry) leave(steps []*step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range steps {
		s.entry.leaves = s.Action == ActionDelete || s.moves()
	}
}

// stay ends what leave says, whatever has become of the change.
func (r *Registry) stay(steps []*step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range steps {
		s.entry.leaves = false
	}
}

// moves says whether an endpoint is to listen elsewhere than where it does, or did until it failed.
func (s *step) moves() bool {
	if s.socket == nil {
		return false
	}
	was, will := spec(s.entry.def, s.entry.address), s.socket.spec
	return was.Protocol != will.Protocol || was.Listen != will.Listen || was.Interface != will.Interface || was.Place != will.Place
}
