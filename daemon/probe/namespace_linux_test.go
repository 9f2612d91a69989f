package probe

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/echod/echod/daemon/internal/netns/netnstest"
)

// station is a network namespace: interfaces, addresses, routes and ports like those of a host of its own. It is gone with
// the test.
type station struct{ *netnstest.Namespace }

// newStation makes an empty namespace. It skips the test where that is not allowed.
func newStation(t *testing.T) *station {
	t.Helper()
	return &station{netnstest.New(t)}
}

// do runs f in the namespace, on a thread locked to it. Sockets that f makes stay there; goroutines that it starts do not.
func (s *station) do(t *testing.T, f func()) {
	t.Helper()
	s.Do(t, f)
}

// ip runs commands of ip(8), a line each.
func (s *station) ip(t *testing.T, lines ...string) {
	t.Helper()
	s.IP(t, lines...)
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
	if err := s.Tool(t, rules, nil, "nft", "-f", "-"); err != nil {
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
		link := fmt.Sprintf("link add name port%d type veth peer name port netns /proc/self/fd/3", i+1)
		if err := router.TryIP(t, []*netnstest.Namespace{end.Namespace}, link); err != nil {
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
		link.at.AwaitLink(t, link.name)
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

// hasIPv6 says whether the tests have IPv6.
var hasIPv6 = netnstest.HasIPv6
