package registry

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/netns/netnstest"
	"github.com/echod/echod/daemon/internal/netwatch"
)

// followed is watched by who follows the network, too. What has failed is retried when the network tells, and else not.
func followed(t *testing.T, store Store) (*Registry, *event.Watch) {
	t.Helper()
	log := event.New(event.Limits{Events: 1 << 10})
	network := netwatch.New()
	r := New(Config{Engine: echo.New(echo.Options{}), Store: store, Events: log, Network: network})
	r.heals.patience = func(int, error) time.Duration { return time.Hour }
	t.Cleanup(func() {
		if err := r.Close(ended()); err != nil {
			t.Error(err)
		}
		network.Close()
	})
	if err := r.Restore(context.Background()); err != nil {
		t.Fatal(err)
	}
	w, err := log.Watch(event.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return r, w
}

func (r *Registry) is(name string, state State) func() bool {
	return func() bool { now, err := r.Get(name); return err == nil && now.State == state }
}

// device makes an interface with an address.
func device(t *testing.T, n *netnstest.Namespace, name, address string) {
	t.Helper()
	if err := n.TryIP(t, nil, "link add "+name+" type veth peer name "+name+"-peer", "link set "+name+" up", "link set "+name+"-peer up", "addr add "+address+" dev "+name); err != nil {
		t.Skipf("no such link can be made here: %v", err)
	}
}

// TestAnAddressThatComes heals what waits for it: an IPv4 one, an IPv6 one when nobody else has been found to have it, and one
// with its interface.
func TestAnAddressThatComes(t *testing.T) {
	n, l := newNamespace(t), newLab(t)
	l.is(t, n)
	device(t, n, "d0", "10.0.0.1/24")
	store := &memory{records: map[string][]byte{}}
	waits := map[string]string{"four": "10.0.0.2:7000"}
	if netnstest.HasIPv6() {
		waits["six"] = "[fd00::2]:7000"
	}
	for name, listen := range waits {
		keepServing(t, store, Definition{Name: name, Listen: listen, NetworkNamespace: l.path}, listen)
	}
	keepServing(t, store, Definition{Name: "device", Listen: "10.0.0.1:7001", NetworkNamespace: l.path, Interface: "d1"}, "10.0.0.1:7001")
	r, _ := followed(t, store)
	for name := range waits {
		if now := mustGet(t, r, name); now.State != Failed || !strings.Contains(now.Reason, "no such address") {
			t.Errorf("%+v", now)
		}
	}
	n.IP(t, "addr add 10.0.0.2/24 dev d0")
	soon(t, "the IPv4 address heals", r.is("four", Serving))
	if netnstest.HasIPv6() {
		n.IP(t, "addr add fd00::2/64 dev d0") // tentative at first
		soon(t, "the IPv6 address heals", r.is("six", Serving))
	}
	n.IP(t, "link add d1 type veth peer name d1-peer")
	soon(t, "the interface heals", r.is("device", Serving))
	if !answers(t, n, mustGet(t, r, "four")) {
		t.Error("it does not answer")
	}
}

// TestANamespaceThatComes heals by its name alone.
func TestANamespaceThatComes(t *testing.T) {
	n, l := newNamespace(t), newLab(t)
	l.path = filepath.Join(filepath.Dir(l.path), "later", "lab") // nor is its folder there
	store := &memory{records: map[string][]byte{}}
	keepServing(t, store, Definition{Name: "a", Listen: "127.0.0.1:0", NetworkNamespace: l.path}, "127.0.0.1:7000")
	name := fmt.Sprintf("echod-heal-%d", os.Getpid())
	keepServing(t, store, Definition{Name: "named", Listen: "0.0.0.0:0", NetworkNamespace: name}, "0.0.0.0:7000")
	r, w := followed(t, store)
	wantTold(t, w, "existing a failed", "existing named failed")
	if err := os.Mkdir(filepath.Dir(l.path), 0o700); err != nil {
		t.Fatal(err)
	}
	l.is(t, n)
	soon(t, "it serves", r.is("a", Serving))
	wantTold(t, w, "state a serving")
	if now := mustGet(t, r, "a"); now.Address.Port() != 7000 || !answers(t, n, now) {
		t.Errorf("%+v", now)
	}
	if err := n.TryIP(t, nil, "netns add "+name); err != nil {
		t.Skipf("no namespace can be named here: %v", err)
	}
	defer n.IP(t, "netns del "+name)
	soon(t, "that of ip(8) serves", r.is("named", Serving))
}

// TestANamespaceMadeAnew: the socket of the old one would serve nobody who goes by the name.
func TestANamespaceMadeAnew(t *testing.T) {
	first, second, l := newNamespace(t), newNamespace(t), newLab(t)
	l.is(t, first)
	r, w := followed(t, &memory{records: map[string][]byte{}})
	made := mustCreate(t, r, inLab("a", l))
	l.is(t, nil)
	if !answers(t, first, made) {
		t.Error("it does not answer when its namespace has no name")
	}
	l.is(t, second)
	soon(t, "it serves where the name leads to", func() bool { return r.is("a", Serving)() && answers(t, second, mustGet(t, r, "a")) })
	now := mustGet(t, r, "a")
	if answers(t, first, now) || now.Address != made.Address || now.Stats.BytesIn < 2 {
		t.Errorf("%+v", now)
	}
	wantTold(t, w, "created a serving", "state a failed", "state a serving")
	mustApply(t, r, want(Definition{Name: "a", Protocol: echo.TCP, NetworkNamespace: l.path}), ApplyOptions{}, "=a")
}

// TestAnInterfaceMadeAnew: a socket is bound to its number, which never comes back.
func TestAnInterfaceMadeAnew(t *testing.T) {
	n, l := newNamespace(t), newLab(t)
	l.is(t, n)
	device(t, n, "d0", "10.0.0.1/24")
	r, w := followed(t, &memory{records: map[string][]byte{}})
	def := inLab("a", l)
	def.Listen, def.Interface = "0.0.0.0:0", "d0"
	made := mustCreate(t, r, def)
	plain := inLab("plain", l)
	plain.Listen = "10.0.0.1:0" // which is bound to no interface, and goes on
	mustCreate(t, r, plain)
	n.IP(t, "link del d0")
	soon(t, "what is bound to it has failed", r.is("a", Failed))
	if now := mustGet(t, r, "a"); now.Reason != "interface d0 is gone" || now.RetryTime.IsZero() {
		t.Errorf("%+v", now)
	}
	r.heal(r.entries["a"]) // in vain, and no news
	wantTold(t, w, "created a serving", "created plain serving", "state a failed")
	device(t, n, "d0", "10.0.0.1/24")
	soon(t, "it serves again", r.is("a", Serving))
	wantTold(t, w, "state a serving")
	if now := mustGet(t, r, "a"); now.Address != made.Address {
		t.Errorf("%+v", now)
	}
	if !answers(t, n, mustGet(t, r, "plain")) {
		t.Error("plain does not answer")
	}
	// At once deleted and made: there may be nothing to see but another number.
	n.IP(t, "link del d0", "link add d0 type veth peer name d0-peer")
	e := r.entries["a"]
	n.IP(t, "link set d0 up", "link set d0-peer up")
	soon(t, "it is bound to the new one", func() bool {
		seen, err := netwatch.Look(l.path, [2]string{"d0"})
		r.mu.Lock()
		defer r.mu.Unlock()
		return err == nil && e.state == Serving && e.seen == seen
	})
}

// TestALinkLocalAddressIsBoundToItsInterface, and made anew with it.
func TestALinkLocalAddressIsBoundToItsInterface(t *testing.T) {
	if !netnstest.HasIPv6() {
		t.Skip("there is no IPv6")
	}
	n, l := newNamespace(t), newLab(t)
	l.is(t, n)
	device(t, n, "d0", "fe80::7/64")
	def := inLab("a", l)
	def.Listen = "[fe80::7%d0]:7000"
	store := &memory{records: map[string][]byte{}}
	keepServing(t, store, def, "[fe80::7%d0]:7000")
	r, _ := followed(t, store)
	soon(t, "it serves when nobody else has the address", r.is("a", Serving))
	n.IP(t, "link del d0")
	soon(t, "it has failed", r.is("a", Failed))
	if now := mustGet(t, r, "a"); now.Reason != "interface d0 is gone" {
		t.Error(now.Reason)
	}
	device(t, n, "d0", "fe80::7/64")
	soon(t, "it serves again", r.is("a", Serving))
}
