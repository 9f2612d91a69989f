package cli

import (
	"strings"
	"testing"
)

func TestPathMTU(t *testing.T) {
	s := at(t, shared.GRPC)
	s.newEndpoint("udp", "mtu-1")
	s.newEndpoint("tcp", "mtu-2")
	search := func(flags ...string) []string {
		return append([]string{"probe", "mtu-1", "-i", "0", "-W", "60s"}, flags...)
	}
	const found = "path mtu 1028: 1000 bytes come back, more was not tried\n"
	for _, line := range []string{
		"probing mtu-1 (udp 127.0.0.1:", "): path mtu, up to 1000 bytes, 3 tries of a size\n16 bytes from ", "\n1000 bytes from ",
		"\n2 sent, 2 received, 0 lost", "\n" + found,
	} {
		if out := s.ok(search("--path-mtu=1000", "-v")...); !strings.Contains(out, line) {
			t.Errorf("%q is not in\n%s", line, out)
		}
	}
	s.run(search("--path-mtu=1000", "--expect", "path_mtu >= 1028 && path_mtu_payload == 1000", "-o", "name")...).want(t, 0, "probe-*\n", "")
	s.run(search("--path-mtu=1000", "--expect", "path_mtu >= 1500", "-o", "name")...).want(t, 3, "probe-*\n", "")
	s.run("probe", "udp://"+closedPort(t), "-i", "0", "-W", "60s", "--path-mtu").want(t, 3,
		"---*\n12 sent, *\npath mtu unknown: nothing came back\nerrors: refused *\n", "")

	s.run(search("--path-mtu=15")...).want(t, 1, "", "echoctl: *max_payload: must be 0 (what fits the interface) or 16 to 65507*\n")
	for _, size := range []string{"--size=64", "--sweep=64:128:8"} {
		s.run(search("--path-mtu", size)...).want(t, 2, "", "echoctl: --path-mtu chooses the sizes; leave --size and --sweep out*\n")
	}
	s.run("probe", "tcp://127.0.0.1:7", "--path-mtu").want(t, 2, "", "echoctl: --path-mtu is for udp*\n")
	s.run("probe", "mtu-2", "--path-mtu").want(t, 1, "", "echoctl: *path_mtu*: is for UDP only\n")
}
