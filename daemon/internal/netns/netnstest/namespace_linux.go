package netnstest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace. It lasts until the end of the test, or of the last socket in it.
type Namespace struct{ file *os.File }

// New makes an empty namespace: its loopback is down. It skips the test where that is not allowed.
func New(t testing.TB) *Namespace {
	t.Helper()
	runtime.LockOSThread()
	home, err := own()
	if err == nil {
		err = unix.Unshare(unix.CLONE_NEWNET)
	}
	if err != nil {
		runtime.UnlockOSThread()
		t.Skipf("making a network namespace needs root: %v", err)
	}
	defer goHome(t, home)
	made, err := own()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Close() })
	return &Namespace{made}
}

// own opens the network namespace of this thread.
func own() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }

// goHome brings a locked thread back to where it was, and unlocks it. Where it cannot, the thread ends with its goroutine.
func goHome(t testing.TB, home *os.File) {
	t.Helper()
	defer func() { _ = home.Close() }()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Errorf("cannot leave a network namespace: %v", err)
		return
	}
	runtime.UnlockOSThread()
}

// Path is a path of the namespace's file, for this process and its children, as long as the namespace lasts.
func (n *Namespace) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// Do runs f in the namespace, on a thread locked to it. Sockets that f makes stay there, wherever they are used then;
// goroutines that it starts do not.
func (n *Namespace) Do(t testing.TB, f func()) {
	t.Helper()
	runtime.LockOSThread()
	home, err := own()
	if err != nil {
		runtime.UnlockOSThread()
		t.Fatal(err)
	}
	defer goHome(t, home)
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	f()
}

// Tool runs a command in the namespace with that input. Other namespaces are its files from /proc/self/fd/3 on. It skips the
// test where there is no such command.
func (n *Namespace) Tool(t testing.TB, input string, others []*Namespace, name string, args ...string) error {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("this needs %s: %v", name, err)
	}
	command := exec.Command(name, args...)
	command.Stdin = strings.NewReader(input)
	for _, other := range others {
		command.ExtraFiles = append(command.ExtraFiles, other.file)
	}
	var output []byte
	var err error
	n.Do(t, func() { output, err = command.CombinedOutput() })
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, output)
	}
	return nil
}

// IP runs commands of ip(8), a line each.
func (n *Namespace) IP(t testing.TB, lines ...string) {
	t.Helper()
	if err := n.TryIP(t, nil, lines...); err != nil {
		t.Fatal(err)
	}
}

// TryIP is IP for what may not be possible here. Other namespaces are as those of Tool.
func (n *Namespace) TryIP(t testing.TB, others []*Namespace, lines ...string) error {
	t.Helper()
	return n.Tool(t, strings.Join(lines, "\n")+"\n", others, "ip", "-batch", "-")
}

// Cable connects two namespaces by interfaces of those names, which have no addresses yet, and switches the loopbacks on. It
// skips the test where no cable can be made, and returns when packets pass.
func Cable(t testing.TB, a *Namespace, nameA string, b *Namespace, nameB string) {
	t.Helper()
	if err := a.TryIP(t, []*Namespace{b}, fmt.Sprintf("link add name %s type veth peer name %s netns /proc/self/fd/3", nameA, nameB)); err != nil {
		t.Skipf("no cable between network namespaces can be made here: %v", err)
	}
	ends := []struct {
		at   *Namespace
		name string
	}{{a, nameA}, {b, nameB}}
	for _, end := range ends {
		if HasIPv6() {
			// The link-local address is to be known, and not to wait until the kernel has seen that nobody else has it.
			end.at.IP(t, "link set "+end.name+" addrgenmode none")
		}
		end.at.IP(t, "link set lo up", "link set "+end.name+" up")
	}
	for _, end := range ends {
		end.at.AwaitLink(t, end.name)
	}
}

// AwaitLink waits until the kernel has seen that a cable is plugged in at both ends: it may drop what is sent before.
func (n *Namespace) AwaitLink(t testing.TB, device string) {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		if up, err := n.running(t, device); err != nil || up {
			if err != nil {
				t.Fatal(err)
			}
			return
		}
		if time.Since(begun) > time.Minute {
			t.Fatalf("the link of %s does not come up", device)
		}
	}
}

// running asks the kernel and not package net, which would remember the namespace's interfaces for all.
func (n *Namespace) running(t testing.TB, device string) (up bool, err error) {
	n.Do(t, func() {
		var fd int
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		defer func() { _ = unix.Close(fd) }()
		var request *unix.Ifreq
		if request, err = unix.NewIfreq(device); err != nil {
			return
		}
		err = unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, request)
		up = request.Uint16()&unix.IFF_RUNNING != 0
	})
	return up, err
}

// HasIPv6 says whether this process has IPv6.
var HasIPv6 = sync.OnceValue(func() bool {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
})
