package netns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/echod/echod/daemon/internal/netns/netnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// threadNamespace is the namespace of the thread that runs this.
func threadNamespace(t *testing.T) uint64 { return inodeOf(t, "/proc/thread-self/ns/net") }

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		t.Error(err)
	}
	return s.Ino
}

// TestInsideAndBack: what runs inside is inside, and nobody else ever is, before, meanwhile or after.
func TestInsideAndBack(t *testing.T) {
	n := netnstest.New(t)
	home, there := threadNamespace(t), inodeOf(t, n.Path())
	if home == there {
		t.Fatal("the namespace that was made is our own")
	}
	before := threads(t)
	failed := errors.New("what f answers")
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for range 250 {
				err := Do(n.Path(), func() error {
					if got := threadNamespace(t); got != there {
						t.Errorf("inside it is namespace %d, not %d", got, there)
					}
					return failed
				})
				if !errors.Is(err, failed) {
					t.Errorf("Do: %v", err)
				}
				if got := threadNamespace(t); got != home {
					t.Errorf("after it is namespace %d, not %d", got, home)
				}
			}
		})
	}
	workers.Wait()
	if after := threads(t); after > before+40 { // a few of them are the runtime's for its own ends
		t.Errorf("%d threads after 2000 visits, %d before", after, before)
	}
	for _, task := range entries(t, "/proc/self/task") {
		if got := inodeOf(t, "/proc/self/task/"+task+"/ns/net"); got != home && got != 0 { // 0: it has ended meanwhile
			t.Errorf("thread %s is left in namespace %d", task, got)
		}
	}
}

// TestProcessStays: while others are inside, the process's own files say where it is at home: the first thread never leaves.
func TestProcessStays(t *testing.T) {
	n := netnstest.New(t)
	home := threadNamespace(t)
	var visitors, looking sync.WaitGroup
	over := make(chan struct{})
	for range 8 {
		visitors.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				if err := Do(n.Path(), func() error { time.Sleep(20 * time.Microsecond); return nil }); err != nil {
					t.Errorf("Do: %v", err)
					return
				}
			}
		})
	}
	looking.Go(func() {
		defer close(over)
		for range 2000 {
			var got uint64
			if err := Do("/proc/self/ns/net", func() error { got = threadNamespace(t); return nil }); err != nil || got != home {
				t.Errorf("/proc/self/ns/net is namespace %d, not %d (%v)", got, home, err)
				return
			}
		}
	})
	looking.Wait()
	visitors.Wait()
}

func threads(t *testing.T) int { return len(entries(t, "/proc/self/task")) }

func entries(t *testing.T, folder string) (names []string) {
	t.Helper()
	found, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range found {
		names = append(names, e.Name())
	}
	return names
}

// TestSocketStays: a socket that was made inside is there for good, also when the namespace has no name any more.
func TestSocketStays(t *testing.T) {
	n := netnstest.New(t)
	n.IP(t, "link set lo up")
	opened, err := Open(n.Path())
	if err != nil {
		t.Fatal(err)
	}
	var l net.Listener
	if err := opened.Do(func() error { l, err = net.Listen("tcp4", "127.0.0.1:0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := opened.Close(); err != nil {
		t.Fatal(err)
	}
	// From one that is as new: on the host somebody else may have that port.
	outside := netnstest.New(t)
	outside.IP(t, "link set lo up")
	if err := Do(outside.Path(), func() error {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err == nil {
			c.Close()
		}
		return err
	}); err == nil {
		t.Error("it can be reached from outside")
	}
	if err := Do(n.Path(), func() error {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err == nil {
			c.Close()
		}
		return err
	}); err != nil {
		t.Errorf("it cannot be reached from inside: %v", err)
	}
}

func TestOwnNamespace(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	caller := unix.Gettid()
	if err := Do("", func() error {
		if unix.Gettid() != caller {
			t.Error("the caller's own namespace was entered by another thread")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	var none *Namespace
	called := false
	if err := errors.Join(none.Do(func() error { called = true; return nil }), none.Close()); err != nil || !called {
		t.Errorf("%v, called: %v", err, called)
	}
}

// TestNamed finds a namespace that ip(8) has made.
func TestNamed(t *testing.T) {
	name := fmt.Sprintf("echod-test-%d", os.Getpid())
	home := netnstest.New(t) // skips where there are none
	if err := home.TryIP(t, nil, "netns add "+name); err != nil {
		t.Skipf("no namespace can be named here: %v", err)
	}
	defer home.IP(t, "netns del "+name)
	var inside uint64
	if err := Do(name, func() error { inside = threadNamespace(t); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := inodeOf(t, "/run/netns/"+name); inside != want {
		t.Errorf("inside it is namespace %d, not %d", inside, want)
	}
}

// TestIdentify: a namespace has one ID, by whatever name, and no other has it.
func TestIdentify(t *testing.T) {
	first, second := netnstest.New(t), netnstest.New(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(first.Path(), link); err != nil {
		t.Fatal(err)
	}
	ids := map[string]ID{}
	for _, name := range []string{"", first.Path(), link, second.Path(), "/proc/thread-self/ns/net"} {
		id, err := Identify(name)
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		ids[name] = id
	}
	if (ids[""] != ID{}) || ids[link] != ids[first.Path()] || ids[link].Inode != inodeOf(t, first.Path()) || ids[link] == ids[second.Path()] ||
		ids["/proc/thread-self/ns/net"] == ids[link] {
		t.Errorf("%+v", ids)
	}
	if id, err := Identify("nowhere7"); !errors.Is(err, ErrNotAvailable) {
		t.Errorf("%v, %v", id, err)
	}
}

// TestNothingElseIsOpened: whatever a client names is not opened unless it is a network namespace, and all that is not one is
// told of alike.
func TestNothingElseIsOpened(t *testing.T) {
	folder := t.TempDir()
	file := func(name string) string { return filepath.Join(folder, name) }
	if err := errors.Join(
		os.WriteFile(file("secret"), []byte("x"), 0o600),
		unix.Mkfifo(file("fifo"), 0o600),
		os.Symlink("loop", file("loop")),
		os.Symlink("/proc/self/ns/uts", file("other kind")),
	); err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for _, path := range []string{
		file("missing"), file("secret"), file("fifo"), file("loop"), file("other kind"), folder, file("secret") + "/below", "/dev/null",
		"/proc/self/ns/uts", "/proc/self/ns/mnt", "/proc/self/fd/0", "/", "/" + strings.Repeat("x", 300), "/nul\x00l",
	} {
		called := false
		err := Do(path, func() error { called = true; return nil })
		if !errors.Is(err, ErrNotAvailable) || called {
			t.Errorf("%q: %v, called: %v", path, err, called)
			continue
		}
		said[strings.Replace(err.Error(), fmt.Sprintf("%q", path), "PATH", 1)] = path
	}
	if len(said) != 1 {
		t.Errorf("errors tell files apart: %q", said)
	}
	for _, name := range []string{"nowhere", "..", ".", "../../proc/self/ns/net", "a/b", "net\x00"} {
		if err := Do(name, func() error { return nil }); !errors.Is(err, ErrNotAvailable) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestWithoutPrivilege says what is missing, in words that nobody takes for those of a port.
func TestWithoutPrivilege(t *testing.T) {
	n := &Namespace{name: "lab"}
	err := n.closed(unix.EPERM)
	if !errors.Is(err, ErrNotAvailable) || errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_SYS_ADMIN") {
		t.Error(err)
	}
	// Without the capability in fact, on a thread that is thrown away.
	other := netnstest.New(t)
	opened, err := Open(other.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	told := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		if err := dropCapabilities(); err != nil {
			told <- nil
			return
		}
		told <- opened.inside(func() error { return nil })
	}()
	if err := <-told; !errors.Is(err, ErrNotAvailable) || !strings.Contains(err.Error(), "CAP_SYS_ADMIN") {
		t.Errorf("without capabilities: %v", err)
	}
}

func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&header, &none[0])
}

// TestThreadThatCannotComeBack is thrown away: nobody runs on it again.
func TestThreadThatCannotComeBack(t *testing.T) {
	n := netnstest.New(t)
	home := threadNamespace(t)
	opened, err := Open(n.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	var lost int
	if err := opened.Do(func() error {
		lost = unix.Gettid()
		return dropCapabilities()
	}); err != nil {
		t.Fatal(err)
	}
	for range 200 { // whoever runs anywhere runs at home
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if unix.Gettid() == lost || threadNamespace(t) != home {
				t.Errorf("a goroutine runs on thread %d, in namespace %d", unix.Gettid(), threadNamespace(t))
			}
		}()
		<-done
	}
}

func TestTooManyFiles(t *testing.T) {
	n := netnstest.New(t)
	path := n.Path()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 0, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	err := Do(path, func() error { return nil })
	if restored := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); restored != nil {
		t.Fatal(restored)
	}
	if !errors.Is(err, unix.EMFILE) || errors.Is(err, ErrNotAvailable) {
		t.Errorf("without descriptors: %v", err)
	}
}
