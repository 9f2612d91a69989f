package registry

import (
	"fmt"
	"os"

	"github.com/echod/echod/daemon/echo"
)

// handedManaged is what one daemon tells the next of what the service manager has to do with the sockets of an endpoint.
type handedManaged struct {
	// Given is the socket that the manager has made for it.
	Given *handedGiven `json:"given,omitempty"`
	// Back is the socket that was kept over the last process, while it waits to be bound.
	Back *handedGiven `json:"back,omitempty"`
	// Kept is by what name the manager keeps a copy of what serves it.
	Kept string `json:"kept,omitempty"`
}

// handedGiven is a given. The JSON names are part of the format.
type handedGiven struct {
	Name       string        `json:"name"`
	Protocol   echo.Protocol `json:"protocol"`
	Listen     string        `json:"listen,omitempty"`
	Interface  string        `json:"interface,omitempty"`
	Connection bool          `json:"connection,omitempty"` // which comes with what serves the endpoint
	Forgotten  bool          `json:"forgotten,omitempty"`
	// Socket says that the socket comes.
	Socket bool `json:"socket,omitempty"`
}

// managedLocked is what the service manager has to do with an entry.
func (r *Registry) managedLocked(e *entry) handedManaged {
	m := handedManaged{Given: r.given[e.def.Name].handedOver(), Back: r.back[e.def.Name].handedOver()}
	if e.live != nil {
		m.Kept = r.kept[e.live]
	}
	return m
}

func (g *given) handedOver() *handedGiven {
	if g == nil {
		return nil
	}
	h := &handedGiven{
		Name: g.name, Protocol: g.protocol, Interface: g.device, Connection: g.connection, Forgotten: g.forgotten, Socket: g.handed.Socket != nil,
	}
	if !g.connection {
		h.Listen = g.address.String()
	}
	return h
}

// check says what no given can be.
func (h *handedGiven) check() error {
	switch {
	case h == nil || h.Connection && !h.Socket:
		return nil
	case h.Connection:
		return fmt.Errorf("the service manager's socket %q is one connection, and was to come as a socket", h.Name)
	}
	if _, err := echo.ParseListen(h.Listen); err != nil {
		return fmt.Errorf("the service manager's socket %q: %w", h.Name, err)
	}
	return nil
}

// arrived makes it a given again; next answers the sockets that came.
func (h *handedGiven) arrived(next func() *os.File) *given {
	// A connection comes with what serves the endpoint, and is in use.
	g := &given{name: h.Name, protocol: h.Protocol, device: h.Interface, connection: h.Connection, over: h.Connection, forgotten: h.Forgotten}
	if !h.Connection {
		g.address, _ = echo.ParseListen(h.Listen) // check has done so
	}
	if h.Socket {
		g.handed.Socket = next()
	}
	return g
}

// Passed answers the sockets that endpoints have from the service manager, in the order that Import takes them. They stay the
// registry's, and are open until Release.
func (f *Frozen) Passed() (sockets []*os.File) {
	r := f.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range f.entries {
		for _, g := range []*given{r.given[e.def.Name], r.back[e.def.Name]} {
			if g != nil && g.handed.Socket != nil {
				sockets = append(sockets, g.handed.Socket)
			}
		}
	}
	return sockets
}

// closePassedLocked closes them.
func (r *Registry) closePassedLocked() {
	for _, all := range []map[string]*given{r.given, r.back} {
		for name, g := range all {
			if !g.over { // else it is the engine's
				g.close()
			}
			delete(all, name)
		}
	}
}

// Passed is how many sockets of the service manager come.
func (h *Handed) Passed() (n int) {
	for _, e := range h.endpoints {
		for _, g := range []*handedGiven{e.Given, e.Back} {
			if g != nil && g.Socket {
				n++
			}
		}
	}
	return n
}

// manageLocked enters what the service manager has to do with an entry that has come.
func (a *Arrivals) manageLocked(e *entry, m handedManaged, next func() *os.File) {
	r := a.registry
	if m.Given != nil {
		r.given[e.def.Name] = m.Given.arrived(next)
	}
	if m.Back != nil {
		r.back[e.def.Name] = m.Back.arrived(next)
		if r.keeper != nil {
			r.keeper.Kept(m.Back.Name)
		}
	}
	if m.Kept != "" && r.keeper != nil {
		a.kept[e] = m.Kept
		r.keeper.Kept(m.Kept)
	}
}

// settleKept has the keeper keep on what it keeps of endpoints that serve, and give up what it keeps of others: those bind anew.
func (a *Arrivals) settleKept() {
	for e, name := range a.kept {
		if e.live != nil && e.reason == "" {
			a.registry.keptAs(e.live, name)
		} else {
			a.registry.keeper.Release(name)
		}
	}
}
