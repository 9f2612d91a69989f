package registry

import (
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

	"pgregory.net/rapid"

	"github.com/echod/echod/daemon/echo"
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
	t     *rapid.T
	r     *Registry
	store *memory
	m     model
	ports []uint16 // that endpoints may ask for; nobody else has them
}

var modelNames = []string{"a", "b", "c", "d", "e"}

// definition draws one. Addresses are few, so that endpoints are in each other's way.
func (s *machine) definition(name string) Definition {
	def := Definition{
		Name: name, Protocol: rapid.SampledFrom([]echo.Protocol{echo.TCP, echo.UDP}).Draw(s.t, "protocol"),
		Labels: map[string]string{"lab": rapid.SampledFrom([]string{"x", "y"}).Draw(s.t, "lab")},
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

func bound(def Definition) netip.AddrPort { return netip.MustParseAddrPort(def.Listen) }

// createAll is the rule of a batch, and of a create, which is a batch of one.
func (m model) createAll(defs []Definition) (model, bool) {
	next := maps.Clone(m)
	for _, def := range defs {
		if _, taken := next[def.Name]; taken || next.holder(def.Protocol, bound(def)) != "" {
			return m, false
		}
		next[def.Name] = modelled{def: def, address: bound(def), serving: true}
	}
	return next, true
}

// apply is the rule of an apply: what serves must not be in the way of others, in the end.
func (m model) apply(defs []Definition, prune func(modelled) bool, replace bool) (model, bool) {
	next := maps.Clone(m)
	if prune != nil {
		maps.DeleteFunc(next, func(name string, e modelled) bool {
			return prune(e) && !slices.ContainsFunc(defs, func(d Definition) bool { return d.Name == name })
		})
	}
	for _, def := range defs {
		e, there := next[def.Name]
		moves := e.def.Protocol != def.Protocol || e.def.Listen != def.Listen
		if there && e.serving && moves && !replace {
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
	s.store.setFail(false)
	switch {
	case ok && failed && err != nil && errors.Is(err, ErrNotStored):
		return // nothing has changed
	case ok != (err == nil):
		s.t.Fatalf("%s: %v; the model says it works: %v", what, err, ok)
	}
	s.m = next
}

func (s *machine) Create(*rapid.T) {
	def := s.definition(rapid.SampledFrom(modelNames).Draw(s.t, "name"))
	next, ok := s.m.createAll([]Definition{def})
	failed := s.failing()
	_, err := s.r.Create(context.Background(), def, false)
	s.is("create", next, ok, err, failed)
}

func (s *machine) CreateAll(*rapid.T) {
	defs := s.definitions(3)
	next, ok := s.m.createAll(defs)
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
	next, ok := s.m.apply(defs, prune, opt.Replace)
	failed := s.failing()
	_, err := s.r.Apply(context.Background(), want(defs...), opt)
	s.is("apply", next, ok, err, failed)
	if err != nil {
		return
	}
	s.store.setFail(true) // a second one writes nothing
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
		e.def = def
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
		_, err = s.r.Stop(context.Background(), name, 0)
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
	s.is("delete", next, ok, s.r.Delete(context.Background(), name, "", 0), failed)
}

func (s *machine) Purge(*rapid.T) {
	match, matches := s.lab()
	next := maps.Clone(s.m)
	maps.DeleteFunc(next, func(_ string, e modelled) bool { return matches(e) })
	failed := s.failing()
	names, err := s.r.Purge(context.Background(), match, 0)
	if err == nil && len(names) != len(s.m)-len(next) {
		s.t.Fatalf("purged %v; the model has %d of %d left", names, len(next), len(s.m))
	}
	s.is("purge", next, true, err, failed)
}

// check holds everything that can be seen against the model, what serves and what is kept included.
func (s *machine) check() {
	found, _ := s.r.List("", 100, nil)
	if len(found) != len(s.m) || len(s.store.records) != len(s.m) {
		s.t.Fatalf("%d endpoints and %d records; the model has %d", len(found), len(s.store.records), len(s.m))
	}
	for _, e := range found {
		known, ok := s.m[e.Name]
		state := Stopped
		if known.serving {
			state = Serving
		}
		if !ok || e.etag() != known.def.etag() || e.State != state || e.Address != known.address {
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

// TestModel runs random calls against a registry with loopback sockets and against plain maps.
func TestModel(t *testing.T) {
	ports := quietPorts(t, 3)
	rapid.Check(t, func(t *rapid.T) {
		store := &memory{records: map[string][]byte{}}
		r := New(Config{Engine: echo.New(echo.Options{}), Store: store})
		defer func() {
			if err := r.Close(ended()); err != nil {
				t.Error(err)
			}
		}()
		s := &machine{t: t, r: r, store: store, m: model{}, ports: ports}
		t.Repeat(map[string]func(*rapid.T){
			"create": s.Create, "createAll": s.CreateAll, "apply": s.Apply, "apply2": s.Apply, "update": s.Update,
			"stopOrStart": s.StopOrStart, "delete": s.Delete, "purge": s.Purge,
			"": func(*rapid.T) { s.check() },
		})
	})
}
