package registry

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"

	"github.com/echod/echod/daemon/echo"
)

// TestTheSystemChoosesNoClaimedPort has two ports to choose from, of which one is that of an endpoint that has failed.
func TestTheSystemChoosesNoClaimedPort(t *testing.T) {
	n := newNamespace(t)
	const claimed, free = "127.0.0.1:40000", "127.0.0.1:40001"
	inside := func(name, listen string) Definition {
		def := at(name, listen)
		def.NetworkNamespace = n.Path()
		return def
	}
	var other net.Listener
	n.Do(t, func() {
		err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40001"), 0)
		if err == nil {
			other, err = net.Listen("tcp", claimed)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	defer other.Close()
	store := &memory{records: map[string][]byte{}}
	keepServing(t, store, inside("failed", claimed), claimed)
	r := newRegistry(t, store)
	withoutRetries(r)
	if err := r.Restore(context.Background()); err != nil {
		t.Fatal(err)
	}
	other.Close()
	ctx := context.Background()
	for range 10 {
		e, err := r.Create(ctx, inside("new", "127.0.0.1:0"), false)
		if err != nil || e.Address.String() != free {
			t.Fatalf("%v, %v", e.Address, err)
		}
		if _, err := r.Create(ctx, inside("another", "127.0.0.1:0"), false); !errors.Is(err, echo.ErrAddressInUse) {
			t.Fatalf("there is a port for two: %v", err)
		}
		if err := r.Delete(ctx, "new", "", 0); err != nil {
			t.Fatal(err)
		}
	}
	if e, err := r.Start(ctx, "failed"); err != nil || e.Address.String() != claimed {
		t.Errorf("%+v, %v", e, err)
	}
}

// TestRoomIsMadeByWhatGoesToAnotherNamespace has one apply move what has failed into a namespace, with the port that it has, and give
// its address to another.
func TestRoomIsMadeByWhatGoesToAnotherNamespace(t *testing.T) {
	n := newNamespace(t)
	address := freeAddress(t)
	other, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	store := &memory{records: map[string][]byte{}}
	keepServing(t, store, at("failed", "127.0.0.1:0"), address)
	r := newRegistry(t, store)
	withoutRetries(r)
	ctx := context.Background()
	if err := r.Restore(ctx); err != nil {
		t.Fatal(err)
	}
	other.Close()
	inside := at("failed", "127.0.0.1:0")
	inside.NetworkNamespace = n.Path()
	if _, err := r.Apply(ctx, []Wanted{{Definition: inside}, {Definition: at("new", address)}}, ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"failed", "new"} {
		if e, err := r.Get(name); err != nil || e.State != Serving || e.Address.String() != address {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
}
