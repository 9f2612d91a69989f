package registry

import (
	"fmt"
	"net/netip"

	"github.com/echod/echod/daemon/echo"
)

// step is one change of an apply, and what it takes.
type step struct {
	Change
	entry   *entry // nil in a plan of one that is not there
	address netip.AddrPort
	socket  *binding       // what it is to listen on from now on; nil: that does not change
	old     *echo.Endpoint // what serves it and is to end; nil: nothing is
	closed  bool           // old has ended to make room
	tuned   bool           // what serves it has the new options
}

// plan says what is to be done with each endpoint. find answers its entry, or nil.
func (r *Registry) plan(wanted []Wanted, unwanted []string, opt ApplyOptions, find func(name string) *entry) ([]*step, error) {
	bad := &Problems{}
	steps := make([]*step, 0, len(wanted)+len(unwanted))
	for i, w := range wanted {
		r.complete(&w.Definition)
		e := find(w.Name)
		now := r.copyOf(e)
		s := &step{entry: e}
		var field string
		err := spec(w.Definition, netip.AddrPort{}).Validate()
		switch {
		case err != nil:
			field = "listen"
		case now == nil || !now.announced:
			if field, err = s.create(w); err == nil {
				field, err = "session", r.join(e, w.Session, opt.ValidateOnly)
			}
		default:
			field, err = s.change(now, w, opt.Replace || opt.ValidateOnly)
		}
		if err != nil {
			bad.add(i, field, err)
		}
		if s.socket != nil {
			s.socket.index = i
		}
		steps = append(steps, s)
	}
	bad.addTwins(sockets(steps))
	for _, name := range unwanted {
		e := find(name)
		if now, err := r.Get(name); e != nil && err == nil && opt.Prune(&now) {
			steps = append(steps, &step{Change: Change{Name: name, Action: ActionDelete}, entry: e, old: r.copyOf(e).live})
		}
	}
	return steps, bad.orNil()
}

// create plans an endpoint that is not there. It answers the field that an error is about.
func (s *step) create(w Wanted) (string, error) {
	s.Change = Change{Name: w.Name, Action: ActionCreate, After: w.Definition}
	if w.ETag != "" {
		return "etag", fmt.Errorf("%w: %q is gone, and this was meant for it as it was with etag %s", ErrStale, w.Name, w.ETag)
	}
	s.socket = &binding{spec: spec(w.Definition, netip.AddrPort{})}
	return "", nil
}

// change plans what makes an endpoint the wanted one. It answers the field that an error is about.
func (s *step) change(now *entry, w Wanted, replace bool) (string, error) {
	def, field := w.Definition, ""
	s.address = now.address
	switch {
	case def.Protocol != now.def.Protocol:
		field = "protocol"
	case !now.keepsListen(def.Listen):
		field = "listen"
	case def.namespace() != now.def.namespace():
		field = "network_namespace"
	case def.Interface != now.def.Interface:
		field = "interface"
	default:
		def.Listen = now.def.Listen // written otherwise, it is the same
	}
	if def.Session == "" {
		def.Session = now.def.Session // it stays in the one that it was created in
	}
	if field != "" {
		s.address = movedAddress(now, def)
	}
	s.Change = Change{Name: w.Name, Action: ActionNone, Before: now.def.clone(), After: def}
	if err := now.checkETag(w.ETag); err != nil {
		return "etag", err
	}
	if def.Session != now.def.Session {
		return "session", fmt.Errorf("%w: %q cannot become that of %q", ErrOtherSession, def.Session, w.Name)
	}
	if def.etag() != now.tag {
		s.Action = ActionUpdate
	}
	failed := now.live != nil && now.live.Err() != nil || now.state == Failed
	switch {
	case failed:
		s.Action, s.Revive, s.old = ActionUpdate, true, now.live
	case now.state == Serving && field != "":
		s.Action, s.old = ActionReplace, now.live
		if !replace {
			return field, fmt.Errorf("%w: %q serves %s on %s, and is to serve %s on %s; ask to replace it, which cuts its connections",
				ErrNeedsReplace, w.Name, now.def.Protocol, now.def.where(), def.Protocol, def.where())
		}
	default:
		return "", nil
	}
	s.socket = &binding{spec: spec(def, s.address), optional: s.Revive && !s.redefines()}
	return "", nil
}

// keepsListen says whether a listen means the socket that the entry has, or leaves open which port of it.
func (e *entry) keepsListen(listen string) bool {
	was, err := echo.ParseListen(e.def.Listen)
	if err != nil {
		return false
	}
	wanted, err := echo.ParseListen(listen)
	return err == nil && wanted.IP == was.IP && wanted.Port == 0 || e.sameListen(listen)
}

// movedAddress answers the address that an entry is to have when it listens elsewhere: where the definition leaves the port
// open, with the port that it has, if that was given by the same protocol; else none until it is bound.
func movedAddress(now *entry, def Definition) netip.AddrPort {
	wanted, err := echo.ParseListen(def.Listen)
	if err != nil || wanted.Port != 0 || now.address.Port() == 0 || def.Protocol != now.def.Protocol {
		return netip.AddrPort{}
	}
	ip := wanted.IP
	if !ip.IsValid() {
		ip = netip.IPv6Unspecified()
	}
	return netip.AddrPortFrom(ip, now.address.Port())
}
