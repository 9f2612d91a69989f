package server

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// bulkCases are about many endpoints in one call. They leave nothing behind. taken is an address that somebody else has.
func bulkCases(taken string) []contractCase {
	const bad = codes.InvalidArgument
	create := func(endpoints ...string) string {
		return fmt.Sprintf(`{"requests": [{"endpoint": %s}]}`, strings.Join(endpoints, `}, {"endpoint": `))
	}
	none := func(name string) contractCase {
		return contractCase{name: "it left no " + name, call: "EndpointService/GetEndpoint", request: fmt.Sprintf(`{"name": %q}`, name), code: codes.NotFound, reason: "ENDPOINT_NOT_FOUND"}
	}
	count := func(name, filter, want string) contractCase {
		return contractCase{name: name, call: "EndpointService/PurgeEndpoints", request: fmt.Sprintf(`{"filter": %q}`, filter), fields: map[string]string{"count": want}}
	}
	return []contractCase{
		{
			name: "batch", call: "EndpointService/BatchCreateEndpoints",
			request: create(`{"name": "b-2", "protocol": "TCP", "labels": {"lab": "b"}}`, `{"protocol": "UDP", "labels": {"lab": "b"}}`, `{"name": "b-1", "protocol": "UDP", "labels": {"lab": "b"}}`),
			fields: map[string]string{
				"endpoints.#": "3", "endpoints.0.name": "b-2", "endpoints.0.state": "SERVING", "endpoints.0.tcp.maxConnections": "1024", "endpoints.2.name": "b-1", "endpoints.0.counters": "absent",
			},
			check: func(t *testing.T, replies []proto.Message) {
				for _, e := range replies[0].(*echov1.BatchCreateEndpointsResponse).GetEndpoints() {
					if e.GetPort() == 0 || e.GetUid() == "" || e.GetEtag() == "" || !strings.HasPrefix(e.GetName(), "b-") && !strings.HasPrefix(e.GetName(), "udp-") {
						t.Errorf("what the daemon fills in is not all there: %v", e)
					}
				}
			},
		},
		count("all of the batch are there", `labels.lab = "b" AND state = SERVING`, "3"),
		{
			name: "batch, checked only", call: "EndpointService/BatchCreateEndpoints", request: `{"requests": [{"endpoint": {"name": "b-dry", "protocol": "TCP"}}, {"endpoint": {"protocol": "TCP"}}], "validateOnly": true}`,
			fields: map[string]string{"endpoints.#": "2", "endpoints.0.name": "b-dry", "endpoints.0.state": "STOPPED", "endpoints.0.address": ""},
		},
		none("b-dry"),
		{
			name: "batch, names taken", call: "EndpointService/BatchCreateEndpoints",
			request: create(`{"name": "b-3", "protocol": "TCP"}`, `{"name": "b-1", "protocol": "TCP"}`, `{"name": "b-2", "protocol": "UDP"}`),
			code:    codes.AlreadyExists, reason: "ENDPOINT_EXISTS", field: "requests[1].endpoint.name", says: "2 of 3 endpoints cannot be had, and nothing was changed: requests[1].endpoint.name: ",
		},
		none("b-3"),
		{
			name: "batch, a name twice", call: "EndpointService/BatchCreateEndpoints",
			request: create(`{"name": "b-3", "protocol": "TCP"}`, `{"name": "b-4", "protocol": "TCP"}`, `{"name": "b-3", "protocol": "TCP"}`),
			code:    bad, reason: "BAD_VALUE", field: "requests[2].endpoint.name", says: `"b-3" is the name of requests[0].endpoint, too`,
		},
		{
			name: "batch, a port in use", call: "EndpointService/BatchCreateEndpoints",
			request: create(`{"name": "b-3", "protocol": "TCP"}`, `{"name": "b-4", "protocol": "TCP", "listen": "`+taken+`"}`, `{"name": "b-5", "protocol": "TCP", "listen": "192.0.2.1:0"}`),
			code:    codes.FailedPrecondition, reason: "ADDRESS_IN_USE", field: "requests[1].endpoint.listen", says: "requests[2].endpoint.listen: cannot bind 192.0.2.1:0",
		},
		none("b-3"), none("b-4"),
		{
			name: "batch, sources that are none", call: "EndpointService/BatchCreateEndpoints", request: create(`{"protocol": "TCP"}`, `{"protocol": "TCP", "sources": {"deny": ["10.0.0.1/8"]}}`),
			code: bad, reason: "BAD_VALUE", field: "requests[1].endpoint.sources.deny[0]", says: "the prefix is 10.0.0.0/8",
		},
		{
			name: "batch, a listen that no endpoint can have", call: "EndpointService/BatchCreateEndpoints", request: create(`{"protocol": "TCP"}`, `{"protocol": "TCP", "listen": "224.0.0.1:0"}`),
			code: bad, reason: "BAD_VALUE", field: "requests[1].endpoint.listen", says: "1 of 2",
		},
		{name: "batch, rules of the contract", call: "EndpointService/BatchCreateEndpoints", request: create(`{"protocol": "TCP"}`, `{"name": "NO", "protocol": "TCP"}`), code: bad, reason: "BAD_VALUE", field: "requests[1].endpoint.name", says: `not "NO"`},
		{name: "batch, no protocol", call: "EndpointService/BatchCreateEndpoints", request: create(`{"name": "b-3"}`), code: bad, reason: "BAD_VALUE", field: "requests[0].endpoint", says: "protocol is missing"},
		{name: "batch of none", call: "EndpointService/BatchCreateEndpoints", request: `{}`, code: bad, reason: "BAD_VALUE", field: "requests", says: "1 to 10000"},
		{name: "batch, too many", call: "EndpointService/BatchCreateEndpoints", request: create(strings.Split(strings.Repeat(`{"protocol": "TCP"};`, 10_000)+`{"protocol": "UDP"}`, ";")...), code: bad, reason: "BAD_VALUE", field: "requests", says: "1 to 10000"},
		{name: "batch, one of it checked only", call: "EndpointService/BatchCreateEndpoints", request: `{"requests": [{"endpoint": {"protocol": "TCP"}, "validateOnly": true}]}`, code: bad, reason: "BAD_VALUE", field: "requests[0].validate_only"},

		{name: "list, basic", call: "EndpointService/ListEndpoints", request: `{"filter": "labels.lab = \"b\"", "view": "BASIC", "pageSize": 10000}`, fields: map[string]string{"endpoints.#": "3", "endpoints.0.counters": "absent", "endpoints.0.labels.lab": "b"}},
		{name: "list, full", call: "EndpointService/ListEndpoints", request: `{"filter": "labels.lab = \"b\"", "view": "FULL"}`, fields: map[string]string{"endpoints.#": "3", "endpoints.0.counters.bytesIn": "0"}},
		{name: "list, no view", call: "EndpointService/ListEndpoints", request: `{"view": 7}`, code: bad, reason: "BAD_VALUE", field: "view"},

		{name: "purge without a filter", call: "EndpointService/PurgeEndpoints", request: `{"force": true}`, code: bad, reason: "BAD_VALUE", field: "filter", says: `"*" is all of them`},
		{name: "purge with a blank filter", call: "EndpointService/PurgeEndpoints", request: `{"filter": "  ", "force": true}`, code: bad, reason: "BAD_VALUE", field: "filter", says: `"*" is all of them`},
		{name: "purge with a bad filter", call: "EndpointService/PurgeEndpoints", request: `{"filter": "colour = red", "force": true}`, code: bad, reason: "BAD_VALUE", field: "filter", says: "colour"},
		{name: "purge, negative drain", call: "EndpointService/PurgeEndpoints", request: `{"filter": "*", "drainTimeout": "-1s"}`, code: bad, reason: "BAD_VALUE", field: "drain_timeout"},
		{name: "a list takes no star", call: "EndpointService/ListEndpoints", request: `{"filter": "*"}`, code: bad, reason: "BAD_VALUE", field: "filter"},
		{name: "purge that is not forced only says", call: "EndpointService/PurgeEndpoints", request: `{"filter": "labels.lab = \"b\" AND name = \"b-*\""}`, fields: map[string]string{"count": "2", "names.#": "2", "names.0": "b-1", "names.1": "b-2"}},
		count("and deletes nothing", `labels.lab = "b"`, "3"),
		{name: "purge", call: "EndpointService/PurgeEndpoints", request: `{"filter": "labels.lab = \"b\"", "force": true, "drainTimeout": "1s"}`, fields: map[string]string{"count": "3", "names.#": "3", "names.0": "b-1"}},
		none("b-1"),
		{name: "purge again", call: "EndpointService/PurgeEndpoints", request: `{"filter": "labels.lab = \"b\"", "force": true}`, fields: map[string]string{"count": "0", "names.#": "0"}},
	}
}
