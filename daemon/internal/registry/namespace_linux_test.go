package registry

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/netns/netnstest"
	"github.com/echod/echod/daemon/internal/netwatch"
)

// lab is a namespace under a name that can be taken away and given to another one.
type lab struct{ path string }

func newLab(t *testing.T) *lab { return &lab{filepath.Join(t.TempDir(), "lab")} }

// is has the name be that of a namespace; nil takes it away.
func (l *lab) is(t *testing.T, n *netnstest.Namespace) {
	t.Helper()
	if err := os.Remove(l.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if n == nil {
		return
	}
	if err := os.Symlink(n.Path(), l.path); err != nil {
		t.Fatal(err)
	}
}

func newNamespace(t *testing.T) *netnstest.Namespace {
	t.Helper()
	n := netnstest.New(t)
	n.IP(t, "link set lo up")
	return n
}

func inLab(name string, l *lab) Definition {
	def := tcp(name)
	def.NetworkNamespace = l.path
	return def
}

// answers says whether a TCP endpoint answers in a namespace.
func answers(t *testing.T, n *netnstest.Namespace, e Endpoint) (yes bool) {
	t.Helper()
	n.Do(t, func() {
		conn, err := net.Dial("tcp", e.Address.String())
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		n, err := conn.Read(make([]byte, 1))
		yes = n == 1 && err == nil
	})
	return yes
}

// TestANamespaceThatGoesAwayAndComesBack: what serves goes on when the name is gone; a restart needs it, and says so; a start
// by hand takes the namespace that has the name then.
func TestANamespaceThatGoesAwayAndComesBack(t *testing.T) {
	ctx, store, l := context.Background(), &memory{records: map[string][]byte{}}, newLab(t)
	first, second := newNamespace(t), newNamespace(t)
	l.is(t, first)
	r := newRegistry(t, store)
	e := mustCreate(t, r, inLab("a", l))
	if !answers(t, first, e) || answers(t, second, e) {
		t.Error("it does not answer where it was made")
	}
	l.is(t, nil)
	if !answers(t, first, e) {
		t.Error("it does not answer any more when the name is gone")
	}
	if _, err := r.Update(ctx, "a", UpdateOptions{}, func(d Definition) (Definition, error) { d.TCP.OneShot = true; return d, nil }); err != nil {
		t.Errorf("a change without a new socket: %v", err)
	}
	if err := r.Close(ended()); err != nil {
		t.Fatal(err)
	}

	again := newRegistry(t, store)
	if err := again.Restore(ctx); err != nil {
		t.Fatal(err)
	}
	failed, err := again.Get("a")
	if err != nil || failed.State != Failed || !strings.Contains(failed.Reason, "no network namespace can be opened at") || failed.NetworkNamespace != l.path {
		t.Errorf("restored as %+v, %v", failed, err)
	}
	if _, err := again.Start(ctx, "a"); !errors.Is(err, ErrNamespaceNotAvailable) {
		t.Errorf("start without it: %v", err)
	}
	l.is(t, second)
	started, err := again.Start(ctx, "a")
	if err != nil || started.State != Serving || started.Address != e.Address {
		t.Errorf("started as %+v, %v; was at %v", started, err, e.Address)
	}
	if answers(t, first, started) || !answers(t, second, started) {
		t.Error("it does not answer where the name leads to now")
	}
}

// TestNamespaceAndInterfaceNeedAStop: they are of the socket, and so is the port that was given.
func TestNamespaceAndInterfaceNeedAStop(t *testing.T) {
	ctx, r, l := context.Background(), newRegistry(t, nil), newLab(t)
	n := newNamespace(t)
	l.is(t, n)
	made := mustCreate(t, r, tcp("a"))
	changes := map[string]func(Definition) (Definition, error){
		"namespace": func(d Definition) (Definition, error) { d.NetworkNamespace = l.path; return d, nil },
		"interface": func(d Definition) (Definition, error) { d.Interface = "lo"; return d, nil },
	}
	for name, change := range changes {
		if _, err := r.Update(ctx, "a", UpdateOptions{}, change); !errors.Is(err, ErrNeedsStop) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s while it serves: %v", name, err)
		}
	}
	if now, err := r.Get("a"); err != nil || now.ETag != made.ETag {
		t.Errorf("%+v, %v", now, err)
	}
	if _, err := r.Stop(ctx, "a", 0); err != nil {
		t.Fatal(err)
	}
	for name, change := range changes {
		if now, err := r.Update(ctx, "a", UpdateOptions{}, change); err != nil || now.Address.IsValid() {
			t.Errorf("%s while it is stopped: %+v, %v", name, now, err)
		}
	}
	started, err := r.Start(ctx, "a")
	if err != nil || !answers(t, n, started) || started.Interface != "lo" || started.NetworkNamespace != l.path {
		t.Errorf("%+v, %v", started, err)
	}
}

// TestTheSameAddressInManyNamespaces leaves nothing behind where one of them is not there.
func TestTheSameAddressInManyNamespaces(t *testing.T) {
	r := newRegistry(t, nil)
	home := mustCreate(t, r, tcp("home"))
	for _, name := range []string{"a", "b", "c"} {
		n := newNamespace(t)
		def := tcp(name)
		def.Listen, def.NetworkNamespace = home.Address.String(), n.Path()
		if e := mustCreate(t, r, def); !answers(t, n, e) || e.Address != home.Address {
			t.Errorf("%s: %+v", name, e)
		}
		def.Name += "-again"
		want := `cannot bind ` + def.Listen + ` in network namespace "` + n.Path() + `": address already in use`
		if _, err := r.Create(context.Background(), def, false); !errors.Is(err, echo.ErrAddressInUse) || err.Error() != want {
			t.Errorf("the same again: %v; want %s", err, want)
		}
	}
	for name, def := range map[string]Definition{"no namespace": {NetworkNamespace: "nowhere7"}, "no interface": {Interface: "nowhere7"}} {
		def.Name, def.Protocol = "bad", echo.UDP
		_, err := r.Create(context.Background(), def, false)
		if !errors.Is(err, ErrNamespaceNotAvailable) && !errors.Is(err, echo.ErrInterfaceNotAvailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r.Len() != 4 {
		t.Errorf("%d endpoints, want 4", r.Len())
	}
}

// TestANamespaceThatIsGoneIsHandedOver: what serves goes on in the next process when the name of its namespace is gone, and moves
// to the namespace that has the name later, even if it has it when that process begins.
func TestANamespaceThatIsGoneIsHandedOver(t *testing.T) {
	for name, buffer := range map[string]uint32{"the system's buffers": 0, "a buffer of its own": 65536} {
		t.Run(name, func(t *testing.T) {
			l, first, second := newLab(t), newNamespace(t), newNamespace(t)
			l.is(t, first)
			from, _ := followed(t, nil)
			def := inLab("a", l)
			def.TCP.SocketBufferBytes = buffer
			e := mustCreate(t, from, def)
			l.is(t, nil)
			to := newRegistry(t, nil) // which hears nothing of the network
			handedTo(t, from, to)
			if now, err := to.Get("a"); err != nil || now.State != Serving || !answers(t, first, e) {
				t.Fatalf("it was handed over as %+v, %v", now, err)
			}
			l.is(t, second)
			network := netwatch.New()
			t.Cleanup(network.Close)
			last := New(Config{Engine: echo.New(echo.Options{}), Network: network})
			t.Cleanup(func() { _ = last.Close(ended()) })
			handedTo(t, to, last)
			for deadline := time.Now().Add(10 * time.Second); !answers(t, second, e); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("it does not serve where the name leads to now: %+v", mustGet(t, last, "a"))
				}
			}
		})
	}
}
