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

// claims are the endpoints that have Failed, by where they are to serve again. The registry's lock guards them.
type claims map[port]map[*entry]bool

// put notes where an entry is to serve again. It may have claimed another address before.
func (c claims) put(e *entry) {
	c.drop(e)
	p := port{e.def.Protocol, e.address.Port(), e.def.namespace()}
	if p.number == 0 {
		return // it was never bound
	}
	if c[p] == nil {
		c[p] = map[*entry]bool{}
	}
	c[p][e], e.claims = true, p
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
	address, err := echo.ParseListen(s.Listen)
	if err != nil {
		return nil // the engine says so
	}
	where, _ := s.Place.(namespace)
	p := port{s.Protocol, address.Port, where}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.heals.held || r.ownsLocked(nameOfTag(s), p) {
		return nil
	}
	var by *entry
	for e := range r.heals.claims[p] {
		if !e.leaves && inTheWay(spec(e.def, e.address), s) && (by == nil || e.def.Name < by.def.Name) {
			by = e
		}
	}
	if by == nil {
		return nil
	}
	return &claimedError{s.Listen, by.def.Name}
}

// ownsLocked says whether an endpoint serves at a port, or did until it failed: it may be bound again there, whoever else claims that.
func (r *Registry) ownsLocked(name string, p port) bool {
	e := r.entries[name]
	if e == nil || !e.announced || e.state != Serving && e.state != Failed {
		return false
	}
	return p == port{e.def.Protocol, e.address.Port(), e.def.namespace()}
}

// inTheWay says whether two sockets at one port can not be bound at the same time.
func inTheWay(a, b echo.Spec) bool {
	if a.Interface != "" && b.Interface != "" && a.Interface != b.Interface {
		return false
	}
	one, errA := echo.ParseListen(a.Listen)
	other, errB := echo.ParseListen(b.Listen)
	return errA == nil && errB == nil && one.Overlaps(other)
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

// leave says of those that a change moves or deletes whether their addresses may be bound by others of it.
func (r *Registry) leave(steps []*step, may bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range steps {
		if s.Action == ActionDelete || s.socket != nil && s.address != s.entry.address {
			s.entry.leaves = may
		}
	}
}
