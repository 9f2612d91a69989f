package probe

import (
	"errors"
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

// station is a network namespace: interfaces, addresses, routes and ports like those of a host of its own. It is gone with
// the test.
type station struct{ namespace *os.File }

// newStation makes an empty namespace. It skips the test where that is not allowed.
func newStation(t *testing.T) *station {
	t.Helper()
	runtime.LockOSThread()
	home, err := ownNamespace()
	if err == nil {
		err = unix.Unshare(unix.CLONE_NEWNET)
	}
	if err != nil {
		runtime.UnlockOSThread()
		t.Skipf("making a network namespace needs root: %v", err)
	}
	defer goHome(t, home)
	made, err := ownNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Close() })
	return &station{made}
}

// ownNamespace opens the network namespace of this thread.
func ownNamespace() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }

// goHome brings a locked thread back to where it was, and unlocks it. Where it cannot, the thread ends with its goroutine.
func goHome(t *testing.T, home *os.File) {
	t.Helper()
	defer home.Close()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Errorf("cannot leave a network namespace: %v", err)
		return
	}
	runtime.UnlockOSThread()
}

// do runs f in the namespace, on a thread locked to it. Sockets that f makes stay there; goroutines that it starts do not.
func (s *station) do(t *testing.T, f func()) {
	t.Helper()
	runtime.LockOSThread()
	home, err := ownNamespace()
	if err != nil {
		runtime.UnlockOSThread()
		t.Fatal(err)
	}
	defer goHome(t, home)
	if err := unix.Setns(int(s.namespace.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	f()
}

// tool runs a command in the namespace with that input; other namespaces are its files from /proc/self/fd/3 on.
func (s *station) tool(t *testing.T, input string, others []*station, name string, args ...string) error {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("this needs %s: %v", name, err)
	}
	command := exec.Command(name, args...)
	command.Stdin = strings.NewReader(input)
	for _, other := range others {
		command.ExtraFiles = append(command.ExtraFiles, other.namespace)
	}
	var output []byte
	var err error
	s.do(t, func() { output, err = command.CombinedOutput() })
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, output)
	}
	return nil
}

// ip runs commands of ip(8), a line each.
func (s *station) ip(t *testing.T, lines ...string) {
	t.Helper()
	if err := s.tool(t, strings.Join(lines, "\n")+"\n", nil, "ip", "-batch", "-"); err != nil {
		t.Fatal(err)
	}
}

// nft sets the rules of nft(8) for what the station forwards and sends.
func (s *station) nft(t *testing.T, forward, output string) {
	t.Helper()
	rules := fmt.Sprintf(`flush ruleset
table inet path {
	chain forward {
		type filter hook forward priority 0; policy accept;
		%s
	}
	chain output {
		type filter hook output priority 0; policy accept;
		%s
	}
}
`, forward, output)
	if err := s.tool(t, rules, nil, "nft", "-f", "-"); err != nil {
		t.Skipf("packets cannot be dropped here: %v", err)
	}
}

// threeStations makes a client, a router and a server in a row. The client is 10.1.0.1 and fd01::1, the router 10.1.0.2 and
// fd01::2 towards it and 10.2.0.2 and fd02::2 towards the server, which is 10.2.0.1 and fd02::1. The second link has that
// MTU, the first 1500.
func threeStations(t *testing.T, mtu int) (client, router, server *station) {
	t.Helper()
	client, router, server = newStation(t), newStation(t), newStation(t)
	for i, end := range []*station{client, server} {
		link := fmt.Sprintf("link add name port%d type veth peer name port netns /proc/self/fd/3\n", i+1)
		if err := router.tool(t, link, []*station{end}, "ip", "-batch", "-"); err != nil {
			t.Skipf("no cable between network namespaces can be made here: %v", err)
		}
	}
	// IPv6 is switched on by itself in a new namespace, where there is any.
	router.do(t, func() {
		for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Skipf("no router can be made here: %v", err)
			}
		}
	})
	six := hasIPv6()
	for i, end := range []*station{client, server} {
		n, size := i+1, 1500
		if end == server {
			size = mtu
		}
		router.ip(t, stationLines(fmt.Sprintf("port%d", n), size, n, 2, six)...)
		end.ip(t, stationLines("port", size, n, 1, six)...)
		end.ip(t, fmt.Sprintf("route add default via 10.%d.0.2", n))
		if six {
			end.ip(t, fmt.Sprintf("route add ::/0 via fd0%d::2", n))
		}
	}
	for _, link := range []struct {
		at   *station
		name string
	}{{client, "port"}, {router, "port1"}, {router, "port2"}, {server, "port"}} {
		link.at.awaitLink(t, link.name)
	}
	return client, router, server
}

// stationLines set up one end of a link in the network of that number.
func stationLines(device string, mtu, network, host int, six bool) []string {
	lines := []string{"link set lo up"}
	if six {
		// An address that the kernel makes waits until it has seen that nobody else has it.
		lines = append(lines, fmt.Sprintf("link set %s addrgenmode none", device))
	}
	lines = append(lines,
		fmt.Sprintf("link set %s mtu %d up", device, mtu),
		fmt.Sprintf("addr add 10.%d.0.%d/24 dev %s", network, host, device))
	if six {
		lines = append(lines, fmt.Sprintf("addr add fd0%d::%d/64 dev %s nodad", network, host, device),
			fmt.Sprintf("addr add fe80::%d/64 dev %s nodad", host, device))
	}
	return lines
}

// awaitLink waits until the kernel has seen that a cable is plugged in at both ends: it may drop what is sent before.
func (s *station) awaitLink(t *testing.T, device string) {
	t.Helper()
	s.do(t, func() {
		for {
			link, err := net.InterfaceByName(device)
			if err != nil {
				t.Fatal(err)
			}
			if link.Flags&net.FlagRunning != 0 {
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// hasIPv6 says whether the tests have IPv6.
var hasIPv6 = sync.OnceValue(func() bool {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
})
