package registry

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echo"
)

// newFailed answers a registry whose endpoint "failed" could not be brought back, at an address that is free again. Nothing is
// tried again by itself.
func newFailed(t *testing.T) (r *Registry, address string) {
	t.Helper()
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	address = other.Addr().String()
	store := &memory{records: map[string][]byte{}}
	keepServing(t, store, at("failed", address), address)
	keepServing(t, store, at("stopped", address), address)
	store.records["stopped"] = bytes.ReplaceAll(store.records["stopped"], []byte(`"running":true`), []byte(`"running":false`))
	r = newRegistry(t, store)
	withoutRetries(r)
	if err := r.Restore(context.Background()); err != nil {
		t.Fatal(err)
	}
	if e, err := r.Get("failed"); err != nil || e.State != Failed {
		t.Fatalf("%+v, %v", e, err)
	}
	return r, address
}

// isClaimed says whether an error tells whose address it is.
func isClaimed(err error) bool {
	return errors.Is(err, echo.ErrAddressInUse) && strings.Contains(err.Error(), `endpoint "failed"`)
}

func TestTheAddressOfWhatHasFailedIsItsOwn(t *testing.T) {
	r, address := newFailed(t)
	ctx := context.Background()
	port := portOf(address)
	for _, listen := range []string{address, "0.0.0.0:" + port, ":" + port} {
		if e, err := r.Create(ctx, at("new", listen), false); !isClaimed(err) {
			t.Errorf("%s can be had: %+v, %v", listen, e, err)
		}
	}
	if e, err := r.Start(ctx, "stopped"); !isClaimed(err) {
		t.Errorf("what was stopped can be started: %+v, %v", e, err)
	}
	if _, err := r.Apply(ctx, []Wanted{{Definition: at("new", address)}}, ApplyOptions{}); !slices.Equal(where(err), []string{"0.listen"}) || !strings.Contains(err.Error(), `"failed"`) {
		t.Errorf("an apply can have it: %v", err)
	}
	if _, err := r.Create(ctx, at("near", "127.0.0.3:"+port), false); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Apply(ctx, []Wanted{{Definition: at("near", address)}}, ApplyOptions{Replace: true}); !slices.Equal(where(err), []string{"0.listen"}) || !strings.Contains(err.Error(), `"failed"`) {
		t.Errorf("what has its port elsewhere can be moved there: %v", err)
	}
	udp := at("udp", address)
	udp.Protocol = echo.UDP
	for _, apart := range []Definition{udp, at("other", "127.0.0.2:"+port)} {
		if _, err := r.Create(ctx, apart, false); err != nil {
			t.Errorf("%s: %v", apart.Name, err)
		}
	}

	if e, err := r.Start(ctx, "failed"); err != nil || e.State != Serving || e.Address.String() != address {
		t.Errorf("it does not come back: %+v, %v", e, err)
	}
	if _, err := r.Create(ctx, at("new", address), false); err == nil || isClaimed(err) {
		t.Errorf("what serves has not failed: %v", err)
	}
}

func TestAnAddressIsFreeOnceWhatHasFailedGivesItUp(t *testing.T) {
	ctx := context.Background()
	for how, giveUp := range map[string]func(*Registry) error{
		"stopped": func(r *Registry) error { _, err := r.Stop(ctx, "failed", 0); return err },
		"deleted": func(r *Registry) error { return r.Delete(ctx, "failed", "", 0) },
		"purged": func(r *Registry) error {
			_, err := r.Purge(ctx, func(e *Endpoint) bool { return e.Name == "failed" }, 0)
			return err
		},
		"moved": func(r *Registry) error {
			_, err := r.Apply(ctx, []Wanted{{Definition: at("failed", "127.0.0.1:0")}}, ApplyOptions{})
			if err == nil {
				_, err = r.Apply(ctx, []Wanted{{Definition: at("failed", "127.0.0.2:0")}}, ApplyOptions{Replace: true})
			}
			return err
		},
	} {
		r, address := newFailed(t)
		if err := giveUp(r); err != nil {
			t.Errorf("%s: %v", how, err)
		}
		if _, err := r.Create(ctx, at("new", address), false); err != nil {
			t.Errorf("%s: %v", how, err)
		}
		if n := len(r.heals.claims); n != 0 {
			t.Errorf("%s: %d claims are left", how, n)
		}
	}
}

// TestAnAddressChangesHandsInOneChange has an apply delete what has failed, and give its address to another.
func TestAnAddressChangesHandsInOneChange(t *testing.T) {
	r, address := newFailed(t)
	ctx := context.Background()
	wanted := []Wanted{{Definition: at("new", address)}, {Definition: at("bad", occupy(t))}}
	prune := ApplyOptions{Prune: func(e *Endpoint) bool { return e.Name == "failed" }}
	if _, err := r.Apply(ctx, wanted, prune); !slices.Equal(where(err), []string{"1.listen"}) {
		t.Errorf("%v", err)
	}
	if _, err := r.Create(ctx, at("new", address), false); !isClaimed(err) {
		t.Errorf("after an apply that has changed nothing: %v", err)
	}
	if _, err := r.Apply(ctx, wanted[:1], prune); err != nil {
		t.Errorf("%v", err)
	}
	if e, err := r.Get("new"); err != nil || e.State != Serving || e.Address.String() != address {
		t.Errorf("%+v, %v", e, err)
	}
}

// TestOneThatHasMovedKeepsItsNewAddress has an apply move an endpoint which keeps its port. What it fails at later is its own.
func TestOneThatHasMovedKeepsItsNewAddress(t *testing.T) {
	r, address := newFailed(t)
	ctx := context.Background()
	for _, listen := range []string{"127.0.0.2:" + portOf(address), "127.0.0.3:0"} {
		if _, err := r.Apply(ctx, []Wanted{{Definition: at("failed", listen)}}, ApplyOptions{Replace: true}); err != nil {
			t.Fatal(err)
		}
	}
	e, err := r.Get("failed")
	if err != nil || e.State != Serving || e.Address.String() != "127.0.0.3:"+portOf(address) {
		t.Fatalf("%+v, %v", e, err)
	}
	one := r.look("failed")
	r.end(ended(), one.live)
	r.mu.Lock()
	r.failLocked(one, errors.New("the system has taken its socket away"))
	r.mu.Unlock()
	if _, err := r.Create(ctx, at("new", e.Address.String()), false); !isClaimed(err) {
		t.Errorf("its address can be had: %v", err)
	}
}

// TestAnAddressIsClaimedByWhatIsMovedThere updates what has failed to an address that is somebody else's: nobody has it once that
// one has gone.
func TestAnAddressIsClaimedByWhatIsMovedThere(t *testing.T) {
	r, address := newFailed(t)
	ctx := context.Background()
	to := freeAddress(t)
	move := func(name string) {
		t.Helper()
		_, err := r.Update(ctx, name, UpdateOptions{}, func(def Definition) (Definition, error) {
			def.Listen = to
			return def, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	other, err := net.Listen("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	move("failed")
	if _, err := r.Start(ctx, "failed"); !errors.Is(err, echo.ErrAddressInUse) || isClaimed(err) {
		t.Fatalf("%v", err)
	}
	other.Close()
	if e, err := r.Create(ctx, at("new", to), false); !isClaimed(err) {
		t.Errorf("where it is to serve another does: %+v, %v", e, err)
	}
	if e, err := r.Create(ctx, at("elsewhere", address), false); err != nil {
		t.Errorf("where it was nobody can: %+v, %v", e, err)
	}
	// Of two that were moved there neither waits for the other.
	r.mu.Lock()
	e := newEntry(at("another", to), time.Now())
	e.announced, e.state = true, Failed
	r.entries["another"] = e
	r.retryLocked(e, e.created.Add(aLongTime))
	r.mu.Unlock()
	if e, err := r.Start(ctx, "failed"); err != nil || e.State != Serving {
		t.Errorf("it does not serve there: %+v, %v", e, err)
	}
}

// TestTwoThatClaimOneAddress has a state in which two are to serve at one address, of which only one can.
func TestTwoThatClaimOneAddress(t *testing.T) {
	address := freeAddress(t)
	store := &memory{records: map[string][]byte{}}
	keepServing(t, store, at("a", address), address)
	keepServing(t, store, at("b", address), address)
	r := newRegistry(t, store)
	if err := r.Restore(context.Background()); err != nil {
		t.Fatal(err)
	}
	if states := r.States(); states[Serving] != 1 || states[Failed] != 1 {
		t.Errorf("%v", states)
	}
}
