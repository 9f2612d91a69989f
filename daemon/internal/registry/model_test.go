package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
)

// modelled is what the model knows of an endpoint: all that a caller may rely on.
type modelled struct {
	def     Definition
	uid     string
	address netip.AddrPort // as bound or kept; none: the next start finds one
	serving bool
}

// model is a registry of plain maps. Its rules are those of the contract, one for each call.
type model map[string]modelled

// holder answers who holds an address, or "".
func (m model) holder(p echo.Protocol, address netip.AddrPort) string {
	for name, e := range m {
		if e.serving && e.def.Protocol == p && e.address == address {
			return name
		}
	}
	return ""
}

// machine runs the same calls against both.
type machine struct {
	t        *rapid.T
	r        *Registry
	store    *memory
	m        model
	sessions map[string]*Hold // that are open
	ports    []uint16         // that endpoints may ask for; nobody else has them

	drains  bool // the call that is under way lets connections finish
	expires bool // what goes in it has expired
	witness
	readers []*reader
}

var (
	modelNames    = []string{"a", "b", "c", "d", "e"}
	modelSessions = []string{"s", "t"}
	modelTTLs     = []time.Duration{0, time.Hour, 2 * time.Hour} // none is over by itself while the test lasts
)

// definition draws one. Addresses are few, so that endpoints are in each other's way.
func (s *machine) definition(name string) Definition {
	def := Definition{
		Name: name, Protocol: rapid.SampledFrom([]echo.Protocol{echo.TCP, echo.UDP}).Draw(s.t, "protocol"),
		Labels: map[string]string{"lab": rapid.SampledFrom([]string{"x", "y"}).Draw(s.t, "lab")},
		TTL:    rapid.SampledFrom(modelTTLs).Draw(s.t, "ttl"),
	}
	if rapid.IntRange(0, 2).Draw(s.t, "in a session at 0") == 0 {
		def.Session = rapid.SampledFrom(modelSessions).Draw(s.t, "session")
	}
	host := rapid.SampledFrom([]string{"127.0.0.1", "127.0.0.2"}).Draw(s.t, "host")
	def.Listen = fmt.Sprintf("%s:%d", host, rapid.SampledFrom(s.ports).Draw(s.t, "port"))
	return def
}

func (s *machine) definitions(most int) (defs []Definition) {
	names := rapid.SliceOfNDistinct(rapid.SampledFrom(modelNames), 1, most, rapid.ID[string]).Draw(s.t, "names")
	for _, name := range names {
		defs = append(defs, s.definition(name))
	}
	return defs
}

func (s *machine) lab() (func(*Endpoint) bool, func(modelled) bool) {
	lab := rapid.SampledFrom([]string{"x", "y"}).Draw(s.t, "lab of")
	return func(e *Endpoint) bool { return e.Labels["lab"] == lab }, func(e modelled) bool { return e.def.Labels["lab"] == lab }
}

// failing draws whether the store fails during a call.
func (s *machine) failing() bool {
	fail := rapid.IntRange(0, 5).Draw(s.t, "store fails at 0") == 0
	s.store.setFail(fail)
	return fail
}

// drain draws how long connections may take to finish. None are open, so that nothing waits for it.
func (s *machine) drain() time.Duration {
	s.drains = rapid.Bool().Draw(s.t, "drain")
	if s.drains {
		return patience
	}
	return 0
}

// open says whether an endpoint may be created in a session.
func (s *machine) open(session string) bool { return session == "" || s.sessions[session] != nil }

func bound(def Definition) netip.AddrPort { return netip.MustParseAddrPort(def.Listen) }

// createAll is the rule of a batch, and of a create, which is a batch of one.
func (m model) createAll(defs []Definition, open func(session string) bool) (model, bool) {
	next := maps.Clone(m)
	for _, def := range defs {
		if _, taken := next[def.Name]; taken || !open(def.Session) || next.holder(def.Protocol, bound(def)) != "" {
			return m, false
		}
		next[def.Name] = modelled{def: def, address: bound(def), serving: true}
	}
	return next, true
}

// apply is the rule of an apply: what serves must not be in the way of others, in the end.
func (m model) apply(defs []Definition, prune func(modelled) bool, replace bool, open func(session string) bool) (model, bool) {
	next := maps.Clone(m)
	if prune != nil {
		maps.DeleteFunc(next, func(name string, e modelled) bool {
			return prune(e) && !slices.ContainsFunc(defs, func(d Definition) bool { return d.Name == name })
		})
	}
	for _, def := range defs {
		e, there := next[def.Name]
		moves := e.def.Protocol != def.Protocol || e.def.Listen != def.Listen
		if there && e.serving && moves && !replace || !there && !open(def.Session) {
			return m, false
		}
		if there && def.Session == "" {
			def.Session = e.def.Session
		}
		if there && def.Session != e.def.Session {
			return m, false
		}
		switch {
		case !there:
			e = modelled{address: bound(def), serving: true}
		case moves && !e.serving:
			e.address = netip.AddrPort{}
		case moves:
			e.address = bound(def)
		}
		e.def = def
		next[def.Name] = e
	}
	held := map[string]bool{}
	for _, e := range next {
		where := fmt.Sprint(e.def.Protocol, e.address)
		if e.serving && held[where] {
			return m, false
		}
		held[where] = held[where] || e.serving
	}
	return next, true
}

// is holds a call's outcome against the model's.
func (s *machine) is(what string, next model, ok bool, err error, failed bool) {
	drains, expires := s.drains, s.expires
	s.drains, s.expires = false, false
	s.store.setFail(false)
	switch {
	case ok && failed && err != nil && errors.Is(err, ErrNotStored):
		return // nothing has changed
	case ok != (err == nil):
		s.t.Fatalf("%s: %v; the model says it works: %v", what, err, ok)
	}
	s.expect(next, drains, expires)
	s.m = next
}

func (s *machine) Create(*rapid.T) {
	def := s.definition(rapid.SampledFrom(modelNames).Draw(s.t, "name"))
	next, ok := s.m.createAll([]Definition{def}, s.open)
	failed := s.failing()
	_, err := s.r.Create(context.Background(), def, false)
	s.is("create", next, ok, err, failed)
}

func (s *machine) CreateAll(*rapid.T) {
	defs := s.definitions(3)
	next, ok := s.m.createAll(defs, s.open)
	failed := s.failing()
	_, err := s.r.CreateAll(context.Background(), defs, false)
	s.is("create all", next, ok, err, failed)
}

func (s *machine) Apply(*rapid.T) {
	defs := s.definitions(4)
	opt := ApplyOptions{Replace: rapid.IntRange(0, 3).Draw(s.t, "no replace at 0") > 0}
	var prune func(modelled) bool
	if rapid.Bool().Draw(s.t, "prune") {
		opt.Prune, prune = s.lab()
	}
	next, ok := s.m.apply(defs, prune, opt.Replace, s.open)
	failed := s.failing()
	_, err := s.r.Apply(context.Background(), want(defs...), opt)
	s.is("apply", next, ok, err, failed)
	if err != nil {
		return
	}
	// A second one writes nothing, but that what has a ttl is renewed.
	s.store.setFail(!slices.ContainsFunc(defs, func(d Definition) bool { return d.TTL > 0 }))
	changes, err := s.r.Apply(context.Background(), want(defs...), opt)
	s.store.setFail(false)
	if err != nil || slices.ContainsFunc(changes, func(c Change) bool { return c.Action != ActionNone }) {
		s.t.Fatalf("a second apply does %s, %v", done(changes), err)
	}
}

func (s *machine) Update(*rapid.T) {
	def := s.definition(rapid.SampledFrom(modelNames).Draw(s.t, "name"))
	e, ok := s.m[def.Name]
	moves := e.def.Protocol != def.Protocol || e.def.Listen != def.Listen
	ok = ok && (!e.serving || !moves)
	next := s.m
	if ok {
		if moves {
			e.address = netip.AddrPort{}
		}
		session := e.def.Session
		e.def = def
		e.def.Session = session
		next = maps.Clone(s.m)
		next[def.Name] = e
	}
	failed := s.failing()
	_, err := s.r.Update(context.Background(), def.Name, UpdateOptions{}, func(Definition) (Definition, error) { return def, nil })
	s.is("update", next, ok, err, failed)
}

func (s *machine) StopOrStart(*rapid.T) {
	name := rapid.SampledFrom(modelNames).Draw(s.t, "name")
	e, ok := s.m[name]
	next := maps.Clone(s.m)
	var err error
	failed := s.failing()
	if rapid.Bool().Draw(s.t, "stop") {
		e.serving = false
		_, err = s.r.Stop(context.Background(), name, s.drain())
	} else {
		if ok && !e.serving {
			e.address, e.serving = bound(e.def), true
			ok = s.m.holder(e.def.Protocol, e.address) == ""
		}
		_, err = s.r.Start(context.Background(), name)
	}
	if ok {
		next[name] = e
	}
	s.is("stop or start", next, ok, err, failed)
}

func (s *machine) Delete(*rapid.T) {
	name := rapid.SampledFrom(modelNames).Draw(s.t, "name")
	_, ok := s.m[name]
	next := maps.Clone(s.m)
	delete(next, name)
	failed := s.failing()
	s.is("delete", next, ok, s.r.Delete(context.Background(), name, "", s.drain()), failed)
}

func (s *machine) Purge(*rapid.T) {
	match, matches := s.lab()
	next := maps.Clone(s.m)
	maps.DeleteFunc(next, func(_ string, e modelled) bool { return matches(e) })
	failed := s.failing()
	names, err := s.r.Purge(context.Background(), match, s.drain())
	if err == nil && len(names) != len(s.m)-len(next) {
		s.t.Fatalf("purged %v; the model has %d of %d left", names, len(next), len(s.m))
	}
	s.is("purge", next, true, err, failed)
}

func (s *machine) Renew(*rapid.T) {
	name := rapid.SampledFrom(modelNames).Draw(s.t, "name")
	ttl := rapid.SampledFrom(modelTTLs).Draw(s.t, "new ttl")
	e, ok := s.m[name]
	ok = ok && (ttl > 0 || e.def.TTL > 0)
	next := maps.Clone(s.m)
	if ok {
		next[name] = e.renewed(ttl)
	}
	failed := s.failing()
	_, err := s.r.Renew(context.Background(), name, ttl)
	s.is("renew", next, ok, err, failed)
}

func (s *machine) RenewAll(*rapid.T) {
	match, matches := s.lab()
	ttl := rapid.SampledFrom(modelTTLs).Draw(s.t, "new ttl")
	next := maps.Clone(s.m)
	for name, e := range s.m {
		if matches(e) && e.def.TTL > 0 {
			next[name] = e.renewed(ttl)
		}
	}
	failed := s.failing()
	_, err := s.r.RenewAll(context.Background(), match, ttl)
	s.is("renew all", next, true, err, failed)
}

func (e modelled) renewed(ttl time.Duration) modelled {
	e.def.TTL = cmp.Or(ttl, e.def.TTL)
	return e
}

// Expire has the time of some be over, perhaps while one of them is being changed, and waits until they are gone.
func (s *machine) Expire(*rapid.T) {
	next := maps.Clone(s.m)
	var names []string
	for _, name := range modelNames {
		if s.m[name].def.TTL > 0 && rapid.Bool().Draw(s.t, name+" expires") {
			names = append(names, name)
			delete(next, name)
		}
	}
	if len(names) == 0 {
		s.t.Skip("nothing expires")
	}
	if rapid.Bool().Draw(s.t, "while one is being changed") {
		e, err := s.r.take(context.Background(), names[0])
		if err != nil {
			s.t.Fatal(err)
		}
		s.endTime(names)
		e.release()
	} else {
		s.endTime(names)
	}
	for _, name := range names {
		s.await(name)
	}
	s.expires = true
	s.is("expire", next, true, nil, false)
}

// endTime does what waiting would.
func (s *machine) endTime(names []string) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	for _, name := range names {
		s.r.leaseLocked(s.r.entries[name], time.Now())
	}
}

func (s *machine) OpenSession(*rapid.T) {
	name := rapid.SampledFrom(modelSessions).Draw(s.t, "session")
	ok := s.sessions[name] == nil
	failed := s.failing()
	hold, err := s.r.OpenSession(name, 0)
	s.is("open session", s.m, ok, err, failed)
	if err == nil {
		s.sessions[name] = hold
	}
}

// EndSession ends a session, or has its client leave.
func (s *machine) EndSession(*rapid.T) {
	name := rapid.SampledFrom(modelSessions).Draw(s.t, "session")
	hold := s.sessions[name]
	if hold == nil {
		s.t.Skip("it is not open")
	}
	next := maps.Clone(s.m)
	maps.DeleteFunc(next, func(_ string, e modelled) bool { return e.def.Session == name })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	if rapid.Bool().Draw(s.t, "leaves") {
		hold.Release()
		select {
		case <-hold.session.over:
		case <-ctx.Done():
			err = ctx.Err()
		}
	} else {
		err = s.r.EndSession(ctx, name, hold.Secret)
	}
	delete(s.sessions, name)
	s.expires = true
	s.is("end session", next, true, err, false)
}

// check holds everything that can be seen against the model, what serves, what is kept and what was told included.
func (s *machine) check() {
	found, _ := s.r.List("", 100, nil)
	if len(found) != len(s.m) || len(s.store.keys()) != len(s.m)+len(s.sessions) {
		s.t.Fatalf("%d endpoints and records %v; the model has %d and %d sessions", len(found), s.store.keys(), len(s.m), len(s.sessions))
	}
	s.checkTold(found)
	for _, e := range found {
		known, ok := s.m[e.Name]
		state := Stopped
		if known.serving {
			state = Serving
		}
		if !ok || e.etag() != known.def.etag() || e.State != state || e.Address != known.address || e.ExpireTime.IsZero() != (e.TTL == 0) {
			s.t.Fatalf("%s is %+v; the model has %+v", e.Name, e, known)
		}
		if known.uid != "" && known.uid != e.UID {
			s.t.Fatalf("%s is another endpoint", e.Name)
		}
		known.uid = e.UID
		s.m[e.Name] = known
		var kept record
		if err := json.Unmarshal(s.store.records[e.Name], &kept); err != nil || kept.etag() != e.ETag || kept.Running != known.serving || kept.Address != e.Address || kept.UID != e.UID {
			s.t.Fatalf("%s is kept as %s, %v", e.Name, s.store.records[e.Name], err)
		}
		if known.serving && e.Protocol == echo.TCP {
			s.answers(e)
		}
	}
}

func (s *machine) answers(e Endpoint) {
	conn, err := net.Dial("tcp", e.Address.String())
	if err != nil {
		s.t.Fatalf("%s does not serve: %v", e.Name, err)
	}
	defer conn.Close()
	if err := (peer{conn}).echo(); err != nil {
		s.t.Fatalf("%s does not answer: %v", e.Name, err)
	}
}

// quietPorts finds ports that nobody has, below those that the system gives away by itself.
func quietPorts(t *testing.T, n int) (ports []uint16) {
	t.Helper()
	for range 1000 {
		port := uint16(20_000 + rand.IntN(12_000))
		if len(ports) < n && !slices.Contains(ports, port) && isQuiet(port) {
			ports = append(ports, port)
		}
	}
	if len(ports) < n {
		t.Fatal("there are no ports to be had")
	}
	return ports
}

func isQuiet(port uint16) bool {
	for _, host := range []string{"127.0.0.1", "127.0.0.2"} {
		address := fmt.Sprintf("%s:%d", host, port)
		udp, err := net.ListenPacket("udp", address)
		if err != nil {
			return false
		}
		udp.Close()
		if !isFree(address) {
			return false
		}
	}
	return true
}

// TestModel runs random calls against a registry with loopback sockets and against plain maps, and reads what it tells: all
// the time, and by watches that break, are slow and go on.
func TestModel(t *testing.T) {
	ports := quietPorts(t, 3)
	rapid.Check(t, func(t *rapid.T) {
		store := &memory{records: map[string][]byte{}}
		log := event.New(event.Limits{Events: modelKept})
		r := New(Config{Engine: echo.New(echo.Options{}), Store: store, Events: log})
		defer func() {
			if err := r.Close(ended()); err != nil {
				t.Error(err)
			}
		}()
		s := &machine{t: t, r: r, store: store, m: model{}, sessions: map[string]*Hold{}, ports: ports, witness: newWitness(t, log)}
		s.Watch(t)
		s.Watch(t)
		t.Repeat(map[string]func(*rapid.T){
			"create": s.Create, "createAll": s.CreateAll, "apply": s.Apply, "apply2": s.Apply, "update": s.Update,
			"stopOrStart": s.StopOrStart, "delete": s.Delete, "purge": s.Purge, "renew": s.Renew, "renewAll": s.RenewAll,
			"expire": s.Expire, "openSession": s.OpenSession, "endSession": s.EndSession,
			"watch": s.Watch, "read": s.Read, "catchUp": s.CatchUp, "breakAndResume": s.BreakAndResume, "leave": s.Leave,
			"": func(*rapid.T) { s.check() },
		})
	})
}
