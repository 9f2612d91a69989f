package server

import (
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
)

// placeCases are about network namespaces and interfaces that cannot be had. They leave nothing behind.
func placeCases() []contractCase {
	const bad, failed = codes.InvalidArgument, codes.FailedPrecondition
	create := func(fields string) string {
		return fmt.Sprintf(`{"endpoint": {"name": "placed", "protocol": "TCP", %s}}`, fields)
	}
	probe := func(fields string) string {
		return fmt.Sprintf(`{"probe": {"target": {"address": "127.0.0.1:1", "protocol": "UDP"}, "count": 1, %s}}`, fields)
	}
	cases := []contractCase{
		{name: "no such namespace", call: "EndpointService/CreateEndpoint", request: create(`"networkNamespace": "nowhere7"`), code: failed, reason: "NAMESPACE_NOT_AVAILABLE", says: `cannot bind 127.0.0.1:0 in network namespace "nowhere7": `},
		{name: "no file", call: "EndpointService/CreateEndpoint", request: create(`"networkNamespace": "/nowhere7/net"`), code: failed, reason: "NAMESPACE_NOT_AVAILABLE"},
		{name: "a file that is no namespace", call: "EndpointService/CreateEndpoint", request: create(`"networkNamespace": "/etc/passwd"`), code: failed, reason: "NAMESPACE_NOT_AVAILABLE"},
		{name: "no such interface", call: "EndpointService/CreateEndpoint", request: create(`"interface": "nowhere7"`), code: failed, reason: "INTERFACE_NOT_AVAILABLE", says: "cannot bind 127.0.0.1:0 on nowhere7: "},
		{name: "nothing of them is left", call: "EndpointService/GetEndpoint", request: `{"name": "placed"}`, code: codes.NotFound, reason: "ENDPOINT_NOT_FOUND"},
		{name: "checked only", call: "EndpointService/CreateEndpoint", request: `{"endpoint": {"protocol": "TCP", "networkNamespace": "nowhere7", "interface": "eth7"}, "validateOnly": true}`, fields: map[string]string{"networkNamespace": "nowhere7", "interface": "eth7"}},

		{name: "an endpoint here", call: "EndpointService/CreateEndpoint", request: create(`"labels": {"at": "home"}`), fields: map[string]string{"networkNamespace": "", "interface": ""}},
		{name: "namespace needs a stop", call: "EndpointService/UpdateEndpoint", request: `{"name": "placed", "endpoint": {"networkNamespace": "nowhere7"}, "updateMask": "networkNamespace"}`, code: failed, reason: "NEEDS_STOP", says: "network namespace"},
		{name: "interface needs a stop", call: "EndpointService/UpdateEndpoint", request: `{"name": "placed", "endpoint": {"interface": "nowhere7"}, "updateMask": "interface"}`, code: failed, reason: "NEEDS_STOP", says: "interface"},
		{name: "a probe of it from elsewhere", call: "ProbeService/RunProbe", request: `{"probe": {"target": {"endpoint": "placed"}, "source": {"networkNamespace": "nowhere7"}}}`, code: bad, reason: "BAD_VALUE", field: "probe.source.network_namespace", says: "is in the daemon's own; probe an address of it"},
		{name: "stop it", call: "EndpointService/StopEndpoint", request: `{"name": "placed"}`},
		{name: "change both", call: "EndpointService/UpdateEndpoint", request: `{"name": "placed", "endpoint": {"networkNamespace": "nowhere7", "interface": "eth7"}, "updateMask": "networkNamespace,interface"}`, fields: map[string]string{"networkNamespace": "nowhere7", "interface": "eth7", "address": "", "state": "STOPPED"}},
		{name: "which cannot start", call: "EndpointService/StartEndpoint", request: `{"name": "placed"}`, code: failed, reason: "NAMESPACE_NOT_AVAILABLE"},
		{name: "neither again", call: "EndpointService/UpdateEndpoint", request: `{"name": "placed", "endpoint": {}, "updateMask": "networkNamespace,interface"}`, fields: map[string]string{"networkNamespace": "", "interface": "", "labels.at": "home"}},
		{name: "and then starts", call: "EndpointService/StartEndpoint", request: `{"name": "placed"}`, fields: map[string]string{"state": "SERVING"}},
		{name: "and is gone", call: "EndpointService/DeleteEndpoint", request: `{"name": "placed"}`},

		{name: "a probe from no namespace", call: "ProbeService/RunProbe", request: probe(`"source": {"networkNamespace": "nowhere7"}`), code: failed, reason: "NAMESPACE_NOT_AVAILABLE", says: `cannot send from network namespace "nowhere7": `},
		{name: "a probe from no file", call: "ProbeService/RunProbe", request: probe(`"source": {"networkNamespace": "/etc/passwd"}`), code: failed, reason: "NAMESPACE_NOT_AVAILABLE"},
		{name: "a probe by no interface", call: "ProbeService/RunProbe", request: probe(`"source": {"interface": "nowhere7"}`), code: failed, reason: "INTERFACE_NOT_AVAILABLE", says: "cannot send by interface nowhere7: "},
		{name: "a stream of it", call: "ProbeService/StreamProbe", request: probe(`"source": {"interface": "nowhere7"}`), code: failed, reason: "INTERFACE_NOT_AVAILABLE"},
		{name: "one that is followed later", call: "ProbeService/CreateProbe", request: probe(`"name": "placed", "source": {"networkNamespace": "nowhere7", "interface": "eth7"}`), fields: map[string]string{"source.networkNamespace": "nowhere7", "source.interface": "eth7", "source.address": "", "source.port": "0"}},
		{name: "and ends by itself", call: "ProbeService/StopProbe", request: `{"name": "placed"}`, fields: map[string]string{"sent": "0", "errors.0.reason": "source_unavailable"}},
		{name: "a monitor of it", call: "MonitorService/CreateMonitor", request: `{"monitor": {"name": "placed", "paused": true, "probe": {"target": {"address": "127.0.0.1:1", "protocol": "UDP"}, "source": {"networkNamespace": "nowhere7", "interface": "eth7"}}}}`, fields: map[string]string{"probe.source.networkNamespace": "nowhere7", "probe.source.interface": "eth7"}},
		{name: "is deleted", call: "MonitorService/DeleteMonitor", request: `{"name": "placed"}`},
	}
	long := strings.Repeat("x", 256)
	for _, name := range []string{"a/b", ".", "..", `new\nline`, "/", long, "/" + long} {
		cases = append(cases,
			contractCase{name: "a namespace that is none: " + name[:min(len(name), 8)], call: "EndpointService/CreateEndpoint", request: create(fmt.Sprintf(`"networkNamespace": "%s"`, name)), code: bad, reason: "BAD_VALUE", field: "endpoint.network_namespace"},
			contractCase{name: "and of a probe: " + name[:min(len(name), 8)], call: "ProbeService/RunProbe", request: probe(fmt.Sprintf(`"source": {"networkNamespace": "%s"}`, name)), code: bad, reason: "BAD_VALUE", field: "probe.source.network_namespace"})
	}
	for _, name := range []string{"a/b", ".", "..", "a b", `a\tb`, "eth0:1", "sixteenletters16"} {
		cases = append(cases,
			contractCase{name: "an interface that is none: " + name, call: "EndpointService/CreateEndpoint", request: create(fmt.Sprintf(`"interface": "%s"`, name)), code: bad, reason: "BAD_VALUE", field: "endpoint.interface"},
			contractCase{name: "and of a probe: " + name, call: "ProbeService/RunProbe", request: probe(fmt.Sprintf(`"source": {"interface": "%s"}`, name)), code: bad, reason: "BAD_VALUE", field: "probe.source.interface"})
	}
	return cases
}
