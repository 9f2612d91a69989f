package server

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/echod/echod/daemon/internal/netns/netnstest"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// twoNamespaces makes two namespaces with a cable between them: 10.5.0.1 by "left" in the first, 10.5.0.2 by "right" in the second.
func twoNamespaces(t *testing.T) (a, b *netnstest.Namespace) {
	t.Helper()
	a, b = netnstest.New(t), netnstest.New(t)
	netnstest.Cable(t, a, "left", b, "right")
	a.IP(t, "addr add 10.5.0.1/24 dev left")
	b.IP(t, "addr add 10.5.0.2/24 dev right")
	if netnstest.HasIPv6() {
		a.IP(t, "addr add fe80::1/64 dev left nodad")
		b.IP(t, "addr add fe80::2/64 dev right nodad")
	}
	return a, b
}

// TestOneDaemonInEveryNamespace: a daemon that is in neither namespace serves one and probes it from the other.
func TestOneDaemonInEveryNamespace(t *testing.T) {
	a, b := twoNamespaces(t)
	for name, connect := range map[string]func(*testing.T, *testDaemon) transport{
		"grpc": func(t *testing.T, d *testDaemon) transport { return overGRPC{d.dial(t, d.GRPC)} },
		"rest": func(_ *testing.T, d *testDaemon) transport { return overREST{"http://" + d.HTTP} },
	} {
		t.Run(name, func(t *testing.T) {
			calls := connect(t, startDaemon(t, testConfig(t)))
			create := func(name, protocol, listen, more string) contractCase {
				return contractCase{
					name: "create " + name, call: "EndpointService/CreateEndpoint",
					request: fmt.Sprintf(`{"endpoint": {"name": %q, "protocol": %q, "listen": %q, "networkNamespace": %q%s}}`, name, protocol, listen, b.Path(), more),
					fields:  map[string]string{"state": "SERVING", "networkNamespace": b.Path()},
				}
			}
			probe := func(name, target, source string, more map[string]string) contractCase {
				c := contractCase{
					name: "probe " + name, call: "ProbeService/RunProbe",
					request: fmt.Sprintf(`{"probe": {"target": %s, "count": 3, "interval": "0.001s", "timeout": "60s"%s}}`, target, source),
					fields:  map[string]string{"received": "3", "lost": "0", "errors.#": "0"},
				}
				for path, want := range more {
					c.fields[path] = want
				}
				return c
			}
			fromA := fmt.Sprintf(`, "source": {"networkNamespace": %q}`, a.Path())
			cases := []contractCase{
				create("tcp", "TCP", "10.5.0.2:7000", ""),
				create("udp", "UDP", "10.5.0.2:7000", `, "interface": "right"`),
				create("all-tcp", "TCP", ":7001", ""),
				create("all-udp", "UDP", ":7001", ""),
				create("all-right", "UDP", ":7003", `, "interface": "right"`),
				create("all-lo", "TCP", ":7003", `, "interface": "lo"`),
				create("default", "UDP", "", ""), // the default host's loopback, there
				probe("TCP from the other one", `{"endpoint": "tcp"}`, fromA, map[string]string{"address": "10.5.0.2:7000"}),
				probe("UDP from the other one", `{"endpoint": "udp"}`, fromA, map[string]string{"directions.lostThere": "0", "directions.lostBack": "0", "directions.unknown": ""}),
				probe("by interface", `{"endpoint": "udp"}`, fmt.Sprintf(`, "source": {"networkNamespace": %q, "interface": "left"}`, a.Path()), nil),
				probe("TCP, new connections", `{"endpoint": "tcp"}`, fromA+`, "tcp": {"awaitClose": true}`, map[string]string{"connect.count": "3"}),
				probe("by address", `{"address": "10.5.0.2:7001", "protocol": "UDP"}`, fromA, nil),
				probe("where it is", `{"endpoint": "tcp"}`, "", map[string]string{"address": "10.5.0.2:7000"}),
				probe("all addresses, where they are", `{"endpoint": "all-tcp"}`, "", map[string]string{"address": "127.0.0.1:7001"}),
				probe("the same over UDP", `{"endpoint": "all-udp"}`, "", map[string]string{"address": "127.0.0.1:7001"}),
				probe("all of the loopback", `{"endpoint": "all-lo"}`, "", nil),
				probe("all of an interface, by address", `{"address": "10.5.0.2:7003", "protocol": "UDP"}`, fromA, nil),
				{
					name: "all of an interface, by name", call: "ProbeService/RunProbe", request: `{"probe": {"target": {"endpoint": "all-right"}}}`,
					code: codes.InvalidArgument, reason: "BAD_VALUE", field: "probe.target.endpoint", says: "to which loopback does not lead",
				},
				probe("the default host", `{"endpoint": "default"}`, "", nil),
				{
					name: "all addresses from elsewhere", call: "ProbeService/RunProbe", request: fmt.Sprintf(`{"probe": {"target": {"endpoint": "all-tcp"}%s}}`, fromA),
					code: codes.InvalidArgument, reason: "BAD_VALUE", field: "probe.source.network_namespace", says: "is not endpoint \"all-tcp\"",
				},
				{
					name: "a probe says where it comes from", call: "ProbeService/CreateProbe", request: `{"probe": {"name": "kept", "target": {"endpoint": "udp"}, "count": 1}}`,
					fields: map[string]string{"source.networkNamespace": b.Path(), "source.interface": "right"},
				},
				{name: "list by what it is", call: "EndpointService/ListEndpoints", request: `{}`, fields: map[string]string{"endpoints.#": "7", "endpoints.0.networkNamespace": b.Path()}},
			}
			if netnstest.HasIPv6() {
				cases = append(cases,
					create("link", "UDP", "[fe80::2%right]:7002", ""),
					probe("link-local from the other one", `{"address": "[fe80::2%left]:7002", "protocol": "UDP"}`, fromA, nil),
					probe("link-local where it is", `{"endpoint": "link"}`, "", map[string]string{"address": "[fe80::2%right]:7002"}),
					contractCase{
						name: "a zone from elsewhere", call: "ProbeService/RunProbe", request: fmt.Sprintf(`{"probe": {"target": {"endpoint": "link"}%s}}`, fromA),
						code: codes.InvalidArgument, reason: "BAD_VALUE", field: "probe.source.network_namespace",
					})
			}
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) { c.run(t, calls) })
			}
		})
	}
}

// TestTheControlPortIsRefusedFromEveryNamespace: wherever a probe leaves from, the daemon's own API is none of its targets.
func TestTheControlPortIsRefusedFromEveryNamespace(t *testing.T) {
	a, _ := twoNamespaces(t)
	d := startDaemon(t, testConfig(t))
	contractCase{
		call: "ProbeService/RunProbe", request: fmt.Sprintf(`{"probe": {"target": {"address": %q, "protocol": "TCP"}, "source": {"networkNamespace": %q}}}`, d.GRPC, a.Path()),
		code: codes.PermissionDenied, reason: "TARGET_REFUSED", says: "is this daemon's own control listener",
	}.run(t, overGRPC{d.dial(t, d.GRPC)})
}

// TestManyVisitsLeaveNoThreads: a thousand endpoints and probes come and go in other namespaces, and no thread is left there, nor
// many at all.
func TestManyVisitsLeaveNoThreads(t *testing.T) {
	a, b := twoNamespaces(t)
	d := startDaemon(t, testConfig(t))
	conn := d.dial(t, d.GRPC)
	endpoints, probes := echov1.NewEndpointServiceClient(conn), echov1.NewProbeServiceClient(conn)
	home := namespaceOf(t, "/proc/thread-self/ns/net")
	before := len(threads(t))
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			for i := range 84 { // twelve visits in a turn: a thousand in all
				name := fmt.Sprintf("e-%d-%d", w, i)
				protocol := echov1.Protocol(1 + i%2)
				e, err := endpoints.CreateEndpoint(t.Context(), &echov1.CreateEndpointRequest{Endpoint: &echov1.Endpoint{
					Name: name, Protocol: protocol, Listen: "10.5.0.2:0", NetworkNamespace: b.Path(),
				}})
				if err != nil {
					t.Error(err)
					return
				}
				r, err := probes.RunProbe(t.Context(), &echov1.RunProbeRequest{Probe: &echov1.Probe{
					Target: &echov1.ProbeTarget{Endpoint: e.GetName()}, Count: proto.Uint32(1), Timeout: durationOf("60s"),
					Source: &echov1.ProbeSource{NetworkNamespace: a.Path()},
				}})
				if err != nil || r.GetReceived() != 1 {
					t.Errorf("%v, %v", r, err)
				}
				if _, err := endpoints.DeleteEndpoint(t.Context(), &echov1.DeleteEndpointRequest{Name: name}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	workers.Wait()
	after := threads(t)
	if len(after) > before+40 {
		t.Errorf("%d threads, %d before", len(after), before)
	}
	for _, thread := range after {
		if at := namespaceOf(t, "/proc/self/task/"+thread+"/ns/net"); at != "" && at != home {
			t.Errorf("thread %s is left in %s", thread, at)
		}
	}
}

func threads(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// namespaceOf is empty for a thread that has ended.
func namespaceOf(t *testing.T, path string) string {
	t.Helper()
	at, err := os.Readlink(path)
	if err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
	return at
}

// TestANamespaceThatIsGoneAfterARestart: its endpoints are there as FAILED with the reason, and hold up no other.
func TestANamespaceThatIsGoneAfterARestart(t *testing.T) {
	_, b := twoNamespaces(t)
	config := testConfig(t)
	config.StateDir = t.TempDir()
	name := t.TempDir() + "/lab"
	if err := os.Symlink(b.Path(), name); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, config)
	client := echov1.NewEndpointServiceClient(d.dial(t, d.GRPC))
	made := mustCreate(t, client, &echov1.Endpoint{Name: "away", Protocol: echov1.Protocol_TCP, Listen: "10.5.0.2:0", NetworkNamespace: name})
	mustCreate(t, client, &echov1.Endpoint{Name: "home", Protocol: echov1.Protocol_TCP})
	d.stop(t)
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}

	d = startDaemon(t, config)
	client = echov1.NewEndpointServiceClient(d.dial(t, d.GRPC))
	away, err := client.GetEndpoint(t.Context(), &echov1.GetEndpointRequest{Name: "away"})
	want := fmt.Sprintf("cannot bind %s in network namespace %q: no network namespace can be opened at %q; ", made.GetAddress(), name, name)
	if err != nil || away.GetState() != echov1.Endpoint_FAILED || len(away.GetStateReason()) < len(want) || away.GetStateReason()[:len(want)] != want {
		t.Errorf("%v, %v; want the reason %s", away, err, want)
	}
	if home, err := client.GetEndpoint(t.Context(), &echov1.GetEndpointRequest{Name: "home"}); err != nil || home.GetState() != echov1.Endpoint_SERVING {
		t.Errorf("%v, %v", home, err)
	}
	if _, err := client.StartEndpoint(t.Context(), &echov1.StartEndpointRequest{Name: "away"}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("start: %v", err)
	}
	if err := os.Symlink(b.Path(), name); err != nil {
		t.Fatal(err)
	}
	back, err := client.StartEndpoint(t.Context(), &echov1.StartEndpointRequest{Name: "away"})
	if err != nil || back.GetState() != echov1.Endpoint_SERVING || back.GetAddress() != made.GetAddress() {
		t.Errorf("once it is back: %v, %v; was at %s", back, err, made.GetAddress())
	}
}
