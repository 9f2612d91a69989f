package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

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

// ip runs commands of ip(8) in a namespace, a line each. It skips the test where they cannot be run.
func ip(t *testing.T, namespace string, lines ...string) {
	t.Helper()
	cmd := exec.Command("nsenter", "--net="+namespace, "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("no links can be made here: %v: %s", err, out)
	}
}

// TestLabOfNamespaces takes a lab of five namespaces and fifty endpoints all the way: one file, one apply, a probe of each from
// another namespace, an export, and prunes.
func TestLabOfNamespaces(t *testing.T) {
	const racks, perRack = 5, 10
	var namespaces []string // the first has a cable to each of the others
	for range racks {
		namespaces = append(namespaces, newNamespace(t))
	}
	for rack := 1; rack < racks; rack++ {
		ip(t, namespaces[0], fmt.Sprintf("link add name to-%d type veth peer name to-0 netns %s", rack, namespaces[rack]),
			fmt.Sprintf("addr add 10.6.%d.1/24 dev to-%d", rack, rack), fmt.Sprintf("link set to-%d up", rack))
		ip(t, namespaces[rack], fmt.Sprintf("addr add 10.6.%d.2/24 dev to-0", rack), "link set to-0 up")
	}
	var endpoints, names []string
	for rack := range racks {
		host := fmt.Sprintf("10.6.%d.2", rack)
		if rack == 0 {
			host = "10.6.1.1"
		}
		for i := range perRack {
			names = append(names, fmt.Sprintf("e-%d-%d\n", rack, i))
			endpoints = append(endpoints, fmt.Sprintf("{name: e-%d-%d, protocol: %s, listen: '%s:%d', networkNamespace: %s, labels: {lab: a, rack: r%d}}",
				rack, i, []string{"TCP", "UDP"}[i%2], host, 7000+i, namespaces[rack], rack))
		}
	}
	s := at(t, ownDaemon(t).GRPC)
	file := s.lab(endpoints...)
	s.ok("create", "tcp", "--name", "other")
	s.run("apply", "-f", file, "-o", "name").want(t, 0, strings.Join(names, ""), "50 created\n")
	s.run("apply", "-f", file, "-o", "name").want(t, 0, "", "50 unchanged\n")
	s.run("diff", "-f", file).want(t, 0, "", "50 unchanged\n")

	for rack := range racks {
		from := namespaces[0]
		if rack == 0 {
			from = namespaces[1]
		}
		probe := func(i int, more ...string) result {
			return s.run(append([]string{"probe", fmt.Sprintf("e-%d-%d", rack, i), "--source-netns", from, "-c", "1", "-o", "json"}, more...)...)
		}
		for begun := time.Now(); probe(1, "-W", "0.1").code != 0; { // until the kernel has seen that the cable is plugged in
			if time.Since(begun) > time.Minute {
				t.Fatalf("rack %d cannot be reached", rack)
			}
		}
		for i := range perRack {
			if r := probe(i, "-W", "60s"); r.code != 0 {
				t.Errorf("e-%d-%d does not answer: %s%s", rack, i, r.stdout, r.stderr)
			}
		}
	}

	exported := filepath.Join(t.TempDir(), "exported.yaml")
	write(t, exported, s.ok("export", "--selector", "lab=a"))
	s.run("diff", "-f", exported, "--prune", "--selector", "lab=a").want(t, 0, "", "50 unchanged\n")
	rack0 := s.lab(endpoints[:perRack]...)
	some := func(from, to int) string { return strings.Join(names[from:to], "") }
	s.run("apply", "-f", rack0, "--prune", "--selector", "rack=r1", "-o", "name").want(t, 0, some(10, 20), "10 deleted, 10 unchanged\n")
	s.run("apply", "-f", rack0, "--prune", "--selector", "lab=a", "-o", "name").want(t, 0, some(20, 50), "30 deleted, 10 unchanged\n")
	s.run("apply", "-f", exported, "-o", "name").want(t, 0, some(10, 50), "40 created, 10 unchanged\n")
	s.run("apply", "-f", s.lab(), "--prune", "--selector", "lab=a", "-o", "name").want(t, 0, some(0, 50), "50 deleted\n")
	s.run("list", "-o", "name").want(t, 0, "other\n", "")
}
