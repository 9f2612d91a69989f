//go:build linux

package registry

import (
	"context"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/netwatch"
)

// keeper is a service manager's store, as far as names go.
type keeper struct {
	mu   sync.Mutex
	kept map[string]bool
}

func (k *keeper) Keep(endpoint string, _ *os.File) string {
	k.Kept("new-" + endpoint)
	return "new-" + endpoint
}

func (k *keeper) Kept(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept[name] = true
}

func (k *keeper) Release(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.kept, name)
}

func (k *keeper) names() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Sorted(maps.Keys(k.kept))
}

// handedTo hands all of a registry over to another one.
func handedTo(t *testing.T, from, to *Registry) {
	t.Helper()
	ctx := context.Background()
	f, err := from.Freeze(ctx)
	if err != nil {
		t.Fatal(err)
	}
	endpoints, err := f.Endpoints()
	if err != nil {
		t.Fatal(err)
	}
	h, err := Decode(nil, endpoints)
	if err != nil {
		t.Fatal(err)
	}
	passed := f.Passed()
	if h.Passed() != len(passed) {
		t.Fatalf("%d sockets were passed, and %d are to come", len(passed), h.Passed())
	}
	for i, socket := range passed { // as on the way to another process
		if passed[i], err = echo.Duplicate(socket); err != nil {
			t.Fatal(err)
		}
	}
	sockets, err := f.Pause(ctx)
	if err != nil {
		t.Fatal(err)
	}
	a := to.Import(h, passed)
	if err := a.Adopt(ctx, sockets); err != nil {
		t.Fatal(err)
	}
	f.Release()
	a.Resume()
	a.Begin()
}

// TestWhatWaitsToBeBoundIsHandedOver has a socket that was kept for an endpoint whose network namespace does not answer yet: it waits
// in the next process, too. That of an endpoint that has failed is given up, and that of one that serves is known.
func TestWhatWaitsToBeBoundIsHandedOver(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	store := &memory{records: map[string][]byte{}}
	keepServing(t, store, nowhere("waits"), l.Addr().String())
	keepServing(t, store, Definition{Name: "serves", Listen: "127.0.0.1:0"}, "")
	old := &keeper{kept: map[string]bool{"kept-waits": true}}
	from := New(Config{Engine: echo.New(echo.Options{}), Store: store, Keeper: old, Inherited: []Inherited{{
		Name: "kept-waits", KeptFor: "waits", Protocol: echo.TCP, Listen: l.Addr().String(), Handed: echo.Handed{Socket: socket},
	}}})
	withoutRetries(from)
	slow := func(footing) (netwatch.Sight, error) { return netwatch.Sight{}, errNoAnswer("it takes long") }
	lookingBy(from, slow)
	defer func() { _ = from.Close(ended()) }()
	if err := from.Restore(context.Background()); err != nil {
		t.Fatal(err)
	}
	if from.back["waits"] == nil || from.entries["serves"].live == nil {
		t.Fatalf("%v waits; %+v", from.back, from.entries["serves"])
	}
	mustCreate(t, from, tcp("failed"))
	from.mu.Lock() // its port is still bound: the next process cannot serve it, either
	from.failLocked(from.entries["failed"], echo.ErrAddressInUse)
	from.mu.Unlock()

	next := &keeper{kept: map[string]bool{}}
	to := New(Config{Engine: echo.New(echo.Options{}), Store: store, Keeper: next})
	withoutRetries(to)
	lookingBy(to, slow)
	defer func() { _ = to.Close(ended()) }()
	handedTo(t, from, to)
	if names := next.names(); !slices.Equal(names, []string{"kept-waits", "new-serves"}) {
		t.Errorf("the next process knows that %q are kept", names)
	}
	to.mu.Lock()
	back, e := to.back["waits"], to.entries["waits"]
	to.mu.Unlock()
	if back == nil || back.name != "kept-waits" || !back.is(e) {
		t.Fatalf("what waited is %+v", back)
	}
	if err := to.Delete(context.Background(), "serves", "", 0); err != nil {
		t.Fatal(err)
	}
	if names := next.names(); !slices.Equal(names, []string{"kept-waits"}) {
		t.Errorf("after a deletion %q are kept", names)
	}
}

// TestWhatWaitsToBeBoundIsGivenUp has sockets that were kept for endpoints whose network namespaces do not answer, and that are stopped
// or deleted before they could be bound: the manager is not to hold their ports, nor to give them to others of their names.
func TestWhatWaitsToBeBoundIsGivenUp(t *testing.T) {
	ctx := context.Background()
	for way, giveUp := range map[string]func(*Registry) error{
		"delete": func(r *Registry) error { return r.Delete(ctx, "waits", "", 0) },
		"stop": func(r *Registry) error {
			_, err := r.Stop(ctx, "waits", 0)
			return err
		},
		"purge": func(r *Registry) error {
			_, err := r.Purge(ctx, func(e *Endpoint) bool { return e.Name == "waits" }, 0)
			return err
		},
		"apply": func(r *Registry) error {
			_, err := r.Apply(ctx, nil, ApplyOptions{Prune: func(e *Endpoint) bool { return e.Name == "waits" }})
			return err
		},
	} {
		t.Run(way, func(t *testing.T) {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			socket, err := l.(*net.TCPListener).File()
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil { // only what was kept has the port
				t.Fatal(err)
			}
			store := &memory{records: map[string][]byte{}}
			keepServing(t, store, nowhere("waits"), l.Addr().String())
			k := &keeper{kept: map[string]bool{"kept-waits": true}}
			r := New(Config{Engine: echo.New(echo.Options{}), Store: store, Keeper: k, Inherited: []Inherited{{
				Name: "kept-waits", KeptFor: "waits", Protocol: echo.TCP, Listen: l.Addr().String(), Handed: echo.Handed{Socket: socket},
			}}})
			withoutRetries(r)
			lookingBy(r, func(footing) (netwatch.Sight, error) { return netwatch.Sight{}, errNoAnswer("it takes long") })
			defer func() { _ = r.Close(ended()) }()
			if err := r.Restore(ctx); err != nil {
				t.Fatal(err)
			}
			if err := giveUp(r); err != nil {
				t.Fatal(err)
			}
			if names := k.names(); len(names) > 0 {
				t.Errorf("%q are kept", names)
			}
			again, err := net.Listen("tcp4", l.Addr().String())
			if err != nil {
				t.Fatalf("its port is not free: %v", err)
			}
			_ = again.Close()
		})
	}
}
