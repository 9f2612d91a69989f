package netwatch

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/echod/echod/daemon/internal/netns"
	"github.com/echod/echod/daemon/internal/netns/netnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// told waits until the watch tells what is waited for; other changes may be told before.
func told(t *testing.T, w *Watch, what string, is func(Changes) bool) {
	t.Helper()
	patience := time.After(time.Minute)
	for {
		select {
		case <-w.Changed():
			if is(w.Take()) {
				return
			}
		case <-patience:
			t.Fatalf("%s is not told", what)
		}
	}
}

// silent fails when something is told that was not to be.
func silent(t *testing.T, w *Watch, what string) {
	t.Helper()
	select {
	case <-w.Changed():
		t.Errorf("%s: told %+v", what, w.Take())
	default:
	}
}

func names(c Changes) bool { return c.Names }

func newWatch(t *testing.T) *Watch {
	t.Helper()
	w := New()
	t.Cleanup(w.Close)
	return w
}

func TestLinksAndAddresses(t *testing.T) {
	n, other := netnstest.New(t), netnstest.New(t)
	in := func(c Changes) bool { return c.Links[n.Path()] && len(c.Links) == 1 }
	w := newWatch(t)
	silent(t, w, "before anything is followed")
	w.Follow([]string{n.Path()}, nil)
	told(t, w, "what is followed from now on", in)
	changes := []struct{ what, command string }{
		{"a new link", "link add d0 type veth peer name d1"}, {"a link that is up", "link set d0 up"},
		{"an IPv4 address", "addr add 10.0.0.1/24 dev d0"}, {"an address that goes", "addr del 10.0.0.1/24 dev d0"},
		{"a link that goes", "link del d0"},
	}
	if netnstest.HasIPv6() {
		changes = append(changes, struct{ what, command string }{"the loopback", "link set lo up"}, struct{ what, command string }{"an IPv6 address", "addr add fd00::1/64 dev lo nodad"})
	}
	for _, c := range changes {
		if err := n.TryIP(t, nil, c.command); err != nil {
			t.Skipf("there are no such links here: %v", err)
		}
		told(t, w, c.what, in)
	}
	// What is not followed, or not any more, is not told.
	other.IP(t, "link set lo up")
	w.Follow(nil, nil)
	w.Take()
	select {
	case <-w.Changed():
	default:
	}
	n.IP(t, "link set lo down")
	silent(t, w, "nothing is followed")
}

// TestANamespaceUnderANewName: what is followed is where the name leads to, and what has lost its name is let go.
func TestANamespaceUnderANewName(t *testing.T) {
	first, second := netnstest.New(t), netnstest.New(t)
	name := filepath.Join(t.TempDir(), "deep", "lab")
	w := newWatch(t)
	w.Follow([]string{name}, []string{name})
	told(t, w, "names that are followed from now on", names)
	w.Follow([]string{name}, []string{name})
	silent(t, w, "names that are followed already, of a namespace that is not there")
	if err := os.Mkdir(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	told(t, w, "the folder", names)
	w.Follow([]string{name}, []string{name})
	told(t, w, "names in a folder that is followed from now on", names)
	if err := os.Symlink(first.Path(), name); err != nil {
		t.Fatal(err)
	}
	told(t, w, "a new name", names)
	in := func(c Changes) bool { return c.Links[name] }
	for _, n := range []*netnstest.Namespace{first, second} {
		w.Follow([]string{name}, []string{name})
		told(t, w, "what is followed from now on", in)
		w.Follow([]string{name}, []string{name})
		n.IP(t, "link set lo up")
		told(t, w, "a link", in)
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		told(t, w, "a name that is gone", names)
		if err := os.Symlink(second.Path(), name); err != nil {
			t.Fatal(err)
		}
		told(t, w, "a name that is another's", names)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	w.Follow([]string{name}, []string{name})
	if len(w.links) != 0 {
		t.Error("a namespace without a name is held")
	}
}

// TestMounts: ip(8) makes the file first, which folders tell of, and then mounts a namespace on it, which they do not.
func TestMounts(t *testing.T) {
	home := netnstest.New(t)
	name := fmt.Sprintf("echod-watch-%d", os.Getpid())
	w := newWatch(t)
	w.Follow(nil, []string{name})
	if err := home.TryIP(t, nil, "netns add "+name); err != nil {
		t.Skipf("no namespace can be named here: %v", err)
	}
	removed := false
	defer func() {
		if !removed {
			home.IP(t, "netns del "+name)
		}
	}()
	there := func(c Changes) bool {
		_, err := netns.Identify(name)
		return c.Names && err == nil
	}
	told(t, w, "a namespace that can be entered", there)
	home.IP(t, "netns del "+name)
	removed = true
	told(t, w, "a namespace that is gone", func(c Changes) bool { return c.Names && !there(c) })
}

func TestLook(t *testing.T) {
	n := netnstest.New(t)
	look := func(interfaces ...string) Sight {
		t.Helper()
		seen, err := Look(n.Path(), [2]string(append(interfaces, "", "")[:2]))
		if err != nil {
			t.Fatal(err)
		}
		return seen
	}
	id, err := netns.Identify(n.Path())
	if err != nil {
		t.Fatal(err)
	}
	if got := look(); got != (Sight{Namespace: id}) {
		t.Errorf("%+v", got)
	}
	if got := look("lo", "d0"); got != (Sight{id, [2]uint32{1, 0}}) {
		t.Errorf("%+v", got)
	}
	if got := look("d0", "a name that is much too long for one"); got.Indexes != [2]uint32{} {
		t.Errorf("%+v", got)
	}
	if err := n.TryIP(t, nil, "link add d0 type veth peer name d1"); err != nil {
		t.Skip(err)
	}
	first := look("", "d0")
	n.IP(t, "link del d0", "link add d0 type veth peer name d1")
	if again := look("", "d0"); first.Indexes[1] == 0 || again.Indexes[1] == 0 || first == again {
		t.Errorf("%+v, %+v", first, again)
	}
	if here, err := Look("", [2]string{"lo"}); err != nil || here != (Sight{Indexes: [2]uint32{1}}) {
		t.Errorf("here: %+v, %v", here, err)
	}
	if _, err := Look("nowhere7", [2]string{}); err == nil {
		t.Error("there is no such namespace")
	}
}

// TestBounds: each namespace takes a descriptor, so there are few.
func TestBounds(t *testing.T) {
	n := netnstest.New(t)
	w := newWatch(t)
	folder := t.TempDir()
	var all []string
	for i := range MaxNamespaces + 10 {
		name := filepath.Join(folder, fmt.Sprint(i), "n")
		if err := os.Mkdir(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(n.Path(), name); err != nil {
			t.Fatal(err)
		}
		all = append(all, name)
	}
	w.Follow(all, all)
	if len(w.links) != MaxNamespaces || len(w.folders) != MaxFolders {
		t.Errorf("%d namespaces and %d folders are followed", len(w.links), len(w.folders))
	}
	w.Follow(all[:1], all[:1])
	if len(w.links) != 1 || len(w.folders) != 1 {
		t.Errorf("%d namespaces and %d folders are still followed", len(w.links), len(w.folders))
	}
}

// TestOverflow: what the kernel could not keep is a change, too, and the last one is not the end.
func TestOverflow(t *testing.T) {
	n := netnstest.New(t)
	var fd int
	var err error
	n.Do(t, func() { fd, err = linkSocket() })
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil { // which is the least that there is
		t.Fatal(err)
	}
	var flood []string
	for range 50 {
		flood = append(flood, "link set lo up", "link set lo down")
	}
	n.IP(t, flood...)
	file := os.NewFile(uintptr(fd), "netlink")
	w := newWatch(t)
	w.readers.Go(func() { read(file, func() { w.linksChanged("") }) })
	defer file.Close()
	told(t, w, "that there was too much", func(Changes) bool { return true })
}

func TestNilWatch(t *testing.T) {
	var w *Watch
	w.Follow([]string{""}, nil)
	if w.Changed() != nil {
		t.Error("it may tell")
	}
	w.Close()
}
