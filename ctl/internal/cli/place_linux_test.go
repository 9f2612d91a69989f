package cli

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// newNamespace makes a network namespace with a loopback, and answers a path of it that is good as long as the test.
func newNamespace(t *testing.T) string {
	t.Helper()
	type made struct {
		file *os.File
		err  error
	}
	done := make(chan made)
	go func() {
		runtime.LockOSThread() // And never unlocked: the thread ends with its goroutine, and does not have to come back.
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- made{nil, err}
			return
		}
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			done <- made{nil, fmt.Errorf("%w: %s", err, out)}
			return
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		done <- made{file, err}
	}()
	n := <-done
	if n.err != nil {
		t.Skipf("no network namespace can be made here: %v", n.err)
	}
	t.Cleanup(func() { n.file.Close() })
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd())
}

// TestPlaces: an endpoint in another namespace is shown with it, and probed from there and from here, with a daemon and without.
func TestPlaces(t *testing.T) {
	n := newNamespace(t)
	s := at(t, shared.GRPC)
	s.newEndpoint("udp", "e-lab", "--netns", n, "--interface", "lo")
	described := strings.Join(strings.Fields(s.ok("get", "e-lab")), " ")
	if want := " Namespace: " + n + " Interface: lo "; !strings.Contains(described, want) {
		t.Errorf("get does not say %q: %s", want, described)
	}
	if out := s.ok("list", "-o", "wide", "--filter", `name = "e-lab"`); !strings.Contains(out, " "+n+" ") || !strings.Contains(out, " lo ") {
		t.Errorf("list -o wide does not say where it is: %s", out)
	}
	address, _ := s.json("get", "e-lab")["address"].(string)
	for _, args := range [][]string{
		{"e-lab"},
		{"udp://" + address, "--source-netns", n},
		{"udp://" + address, "--source-netns", n, "--source-interface", "lo", "--local"},
	} {
		m := s.json(append([]string{"probe", "-c", "2", "-i", "0", "-W", "60s"}, args...)...)
		wantField(t, m, "received", "2")
	}
	s.ok("monitor", "create", "e-lab", "--name", "e-lab", "--paused")
	s.ok("monitor", "rm", "e-lab")
}
