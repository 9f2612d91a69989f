package server

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// contractCase is one call and what the contract says of its answer. Cases of a table run in order against one daemon.
type contractCase struct {
	name    string
	call    string // service and method
	request string // JSON
	code    codes.Code
	reason  string            // of ErrorInfo
	field   string            // of the first violation
	says    string            // part of the message
	fields  map[string]string // JSON path -> JSON value that the (last) answer must have
	check   func(*testing.T, []proto.Message)
}

// TestContract runs one table over gRPC, over the unix socket and over REST: what is true of one is true of all.
func TestContract(t *testing.T) {
	transports := map[string]func(*testing.T, *testDaemon) transport{
		"grpc": func(t *testing.T, d *testDaemon) transport { return overGRPC{d.dial(t, d.GRPC)} },
		"unix": func(t *testing.T, d *testDaemon) transport { return overGRPC{d.dial(t, "unix:"+d.Socket)} },
		"rest": func(_ *testing.T, d *testDaemon) transport { return overREST{"http://" + d.HTTP} },
	}
	for name, connect := range transports {
		t.Run(name, func(t *testing.T) {
			taken, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer taken.Close()
			config := testConfig(t)
			config.ProbeDeny = []string{"198.51.100.0/24", "2001:db8::/32"}
			config.ProbeLimits = ProbeLimits{
				Probes: 4, Rate: 50_000, Sockets: 64, MemoryMiB: 64, Duration: time.Hour, TargetProbes: 2, TargetRate: 10, TargetMbps: 1,
			}
			d := startDaemon(t, config)
			calls := connect(t, d)
			for _, c := range slices.Concat(endpointCases(taken.Addr().String()), limitCases(), bulkCases(taken.Addr().String()), applyCases(taken.Addr().String()), leaseCases(), placeCases(), probeCases(taken.Addr().(*net.TCPAddr).AddrPort()), ledgerCases(), probeTargetCases(d), probeLimitCases(), monitorCases(), eventCases(), readinessCases(), upgradeCases()) {
				t.Run(c.name, func(t *testing.T) { c.run(t, calls) })
			}
		})
	}
}

func (c contractCase) run(t *testing.T, calls transport) {
	replies, err := calls.call(testContext(t), t, methodNamed(t, c.call), c.request)
	if got := status.Code(err); got != c.code {
		t.Fatalf("code %s, want %s: %v", got, c.code, err)
	}
	s := status.Convert(err)
	if strings.Contains(s.Message(), "rpc error") {
		t.Errorf("the message is not for people: %s", s.Message())
	}
	if !strings.Contains(s.Message(), c.says) {
		t.Errorf("message %q does not say %q", s.Message(), c.says)
	}
	var reason, field string
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
			if d.GetDomain() != "echod" {
				t.Errorf("domain %q, want echod", d.GetDomain())
			}
		case *errdetails.BadRequest:
			field = d.GetFieldViolations()[0].GetField()
		}
	}
	if reason != c.reason {
		t.Errorf("reason %q, want %q: %v", reason, c.reason, err)
	}
	if field != c.field {
		t.Errorf("violation of field %q, want %q: %v", field, c.field, err)
	}
	if len(replies) > 0 {
		compareFields(t, replies[len(replies)-1], c.fields)
	}
	if c.check != nil {
		c.check(t, replies)
	}
}

// compareFields compares some fields of a message, by their path in its JSON.
func compareFields(t *testing.T, reply proto.Message, want map[string]string) {
	t.Helper()
	for path, value := range want {
		if got := fieldText(reply, path); got != value {
			t.Errorf("%s = %s, want %s", path, got, value)
		}
	}
}

// fieldText answers a field as text; a path into a list counts from 0, and "#" is a list's or map's length.
func fieldText(m proto.Message, path string) string {
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return err.Error()
	}
	return jsonPath(text, path)
}

func endpointCases(taken string) []contractCase {
	const bad = codes.InvalidArgument
	create := func(endpoint string) string { return fmt.Sprintf(`{"endpoint": %s}`, endpoint) }
	return []contractCase{
		{name: "list of none", call: "EndpointService/ListEndpoints", request: `{}`, fields: map[string]string{"endpoints.#": "0", "nextPageToken": ""}},
		{
			name: "create TCP", call: "EndpointService/CreateEndpoint",
			request: create(`{"name": "web-1", "protocol": "TCP", "labels": {"rack": "r1"}, "description": "first"}`),
			fields: map[string]string{
				"name": "web-1", "protocol": "TCP", "state": "SERVING", "host": "127.0.0.1", "listen": "127.0.0.1:0", "stateReason": "",
				"labels.rack": "r1", "description": "first", "tcp.idleTimeout": "600s", "tcp.maxConnections": "1024", "tcp.oneShot": "false",
				"tcp.stallTimeout": "300s", "tcp.maxBytes": "0", "tcp.socketBufferBytes": "0", "sources": "absent", "counters.bytesIn": "0",
			},
			check: func(t *testing.T, replies []proto.Message) {
				e := replies[0].(*echov1.Endpoint)
				if e.GetPort() == 0 || e.GetAddress() != fmt.Sprintf("127.0.0.1:%d", e.GetPort()) || e.GetUid() == "" || e.GetEtag() == "" ||
					e.GetCreateTime() == nil || e.GetUpdateTime() == nil {
					t.Errorf("what the daemon fills in is not all there: %v", e)
				}
			},
		},
		{
			name: "create UDP, named by the daemon", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "UDP", "listen": ":0"}`),
			fields: map[string]string{"protocol": "UDP", "listen": ":0", "state": "SERVING", "udp.loopGuard": "true", "udp.maxSourceDatagrams": "0", "udp.maxSourceBytes": "0", "sources": "absent", "tcp": "absent"},
			check: func(t *testing.T, replies []proto.Message) {
				if e := replies[0].(*echov1.Endpoint); !strings.HasPrefix(e.GetName(), "udp-") || e.GetTcp() != nil {
					t.Errorf("name %q, tcp %v", e.GetName(), e.GetTcp())
				}
			},
		},
		{
			name: "validate only", call: "EndpointService/CreateEndpoint", request: `{"endpoint": {"name": "dry", "protocol": "TCP"}, "validateOnly": true}`,
			fields: map[string]string{"name": "dry", "state": "STOPPED", "address": ""},
		},
		{name: "validate only keeps nothing", call: "EndpointService/GetEndpoint", request: `{"name": "dry"}`, code: codes.NotFound, reason: "ENDPOINT_NOT_FOUND", says: `"dry"`},
		{
			name: "name taken", call: "EndpointService/CreateEndpoint", request: create(`{"name": "web-1", "protocol": "TCP"}`),
			code: codes.AlreadyExists, reason: "ENDPOINT_EXISTS", says: `"web-1"`,
		},
		{name: "no endpoint", call: "EndpointService/CreateEndpoint", request: `{}`, code: bad, reason: "BAD_VALUE", field: "endpoint"},
		{name: "no protocol", call: "EndpointService/CreateEndpoint", request: create(`{"name": "x"}`), code: bad, reason: "BAD_VALUE", field: "endpoint", says: "protocol is missing"},
		{name: "unknown protocol", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": 7}`), code: bad, reason: "BAD_VALUE", field: "endpoint.protocol", says: "not 7"},
		{name: "name with a slash", call: "EndpointService/CreateEndpoint", request: create(`{"name": "a/b", "protocol": "TCP"}`), code: bad, reason: "BAD_VALUE", field: "endpoint.name", says: `not "a/b"`},
		{name: "name with a colon", call: "EndpointService/CreateEndpoint", request: create(`{"name": "web-1:start", "protocol": "TCP"}`), code: bad, reason: "BAD_VALUE", field: "endpoint.name"},
		{name: "name too long", call: "EndpointService/CreateEndpoint", request: create(`{"name": "` + strings.Repeat("a", 64) + `", "protocol": "TCP"}`), code: bad, reason: "BAD_VALUE", field: "endpoint.name"},
		{name: "port 70000", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "TCP", "listen": "127.0.0.1:70000"}`), code: bad, reason: "BAD_VALUE", field: "endpoint.listen", says: "127.0.0.1:70000"},
		{name: "listen on a name", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "TCP", "listen": "example.org:7"}`), code: bad, reason: "BAD_VALUE", field: "endpoint.listen"},
		{name: "listen on a multicast address", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "TCP", "listen": "224.0.0.1:0"}`), code: bad, reason: "BAD_VALUE", field: "endpoint.listen"},
		{name: "listen on a link-local address without its zone", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "TCP", "listen": "[fe80::1]:0"}`), code: bad, reason: "BAD_VALUE", field: "endpoint.listen"},
		{name: "listen without a port", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "TCP", "listen": "127.0.0.1"}`), code: bad, reason: "BAD_VALUE", field: "endpoint.listen"},
		{name: "listen that is not ours", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "TCP", "listen": "192.0.2.1:0"}`), code: codes.FailedPrecondition, reason: "ADDRESS_NOT_AVAILABLE", says: "192.0.2.1:0"},
		{name: "port in use", call: "EndpointService/CreateEndpoint", request: create(`{"name": "taken", "protocol": "TCP", "listen": "` + taken + `"}`), code: codes.FailedPrecondition, reason: "ADDRESS_IN_USE", says: taken},
		{name: "a create that failed leaves no name", call: "EndpointService/GetEndpoint", request: `{"name": "taken"}`, code: codes.NotFound, reason: "ENDPOINT_NOT_FOUND"},
		{name: "negative timeout", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "TCP", "tcp": {"idleTimeout": "-1s"}}`), code: bad, reason: "BAD_VALUE", field: "endpoint.tcp.idle_timeout", says: "not -1s"},
		{name: "limit too large", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "TCP", "tcp": {"maxConnections": 4000000000}}`), code: bad, reason: "BAD_VALUE", field: "endpoint.tcp.max_connections"},
		{name: "TCP options on UDP", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "UDP", "tcp": {}}`), code: bad, reason: "BAD_VALUE", field: "endpoint"},
		{name: "UDP options on TCP", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "TCP", "udp": {}}`), code: bad, reason: "BAD_VALUE", field: "endpoint"},
		{name: "label key", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "TCP", "labels": {"a b": "c"}}`), code: bad, reason: "BAD_VALUE", field: `endpoint.labels["a b"]`},
		{name: "label value", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "TCP", "labels": {"a": "\u0007"}}`), code: bad, reason: "BAD_VALUE", field: `endpoint.labels["a"]`},
		{
			name: "zero is not absent", call: "EndpointService/CreateEndpoint", request: create(`{"name": "zero", "protocol": "TCP", "tcp": {"idleTimeout": "0s", "maxConnections": 0}}`),
			fields: map[string]string{"tcp.idleTimeout": "0s", "tcp.maxConnections": "0"},
		},
		{name: "many violations are counted", call: "EndpointService/CreateEndpoint", request: create(`{"name": "A", "protocol": "TCP", "listen": "x", "tcp": {"idleTimeout": "-1s"}}`), code: bad, reason: "BAD_VALUE", field: "endpoint.name", says: "endpoint.tcp.idle_timeout"},

		{name: "list a page", call: "EndpointService/ListEndpoints", request: `{"pageSize": 2}`, fields: map[string]string{"endpoints.#": "2", "endpoints.0.protocol": "UDP", "endpoints.1.name": "web-1"}},
		{name: "list by filter", call: "EndpointService/ListEndpoints", request: `{"filter": "labels.rack = \"r1\" AND protocol = TCP AND state = SERVING"}`, fields: map[string]string{"endpoints.#": "1", "endpoints.0.name": "web-1"}},
		{name: "list by filter, none", call: "EndpointService/ListEndpoints", request: `{"filter": "NOT protocol = TCP AND NOT protocol = UDP"}`, fields: map[string]string{"endpoints.#": "0"}},
		{name: "bad filter", call: "EndpointService/ListEndpoints", request: `{"filter": "colour = red"}`, code: bad, reason: "BAD_VALUE", field: "filter", says: "colour"},
		{name: "bad page token", call: "EndpointService/ListEndpoints", request: `{"pageToken": "Zm9v"}`, code: bad, reason: "BAD_PAGE_TOKEN", field: "page_token"},
		{name: "negative page size", call: "EndpointService/ListEndpoints", request: `{"pageSize": -1}`, code: bad, reason: "BAD_VALUE", field: "page_size"},

		{
			name: "update what the mask names", call: "EndpointService/UpdateEndpoint",
			request: `{"name": "web-1", "endpoint": {"labels": {"rack": "r2"}, "description": "not asked for"}, "updateMask": "labels"}`,
			fields:  map[string]string{"labels.rack": "r2", "description": "first"},
		},
		{
			name: "update a nested field", call: "EndpointService/UpdateEndpoint", request: `{"name": "web-1", "endpoint": {"tcp": {"maxConnections": 7}}, "updateMask": "tcp.maxConnections"}`,
			fields: map[string]string{"tcp.maxConnections": "7", "tcp.idleTimeout": "600s"},
		},
		{
			name: "a path that the body lacks is set back", call: "EndpointService/UpdateEndpoint", request: `{"name": "web-1", "endpoint": {}, "updateMask": "tcp.maxConnections,description"}`,
			fields: map[string]string{"tcp.maxConnections": "1024", "description": ""},
		},
		{
			name: "without a mask, what is set changes and nothing beside it", call: "EndpointService/UpdateEndpoint", request: `{"name": "web-1", "endpoint": {"tcp": {"maxConnections": 8}}}`,
			fields: map[string]string{"tcp.maxConnections": "8", "tcp.idleTimeout": "600s", "labels.rack": "r2"},
		},
		{
			name: "and again", call: "EndpointService/UpdateEndpoint", request: `{"name": "web-1", "endpoint": {"tcp": {"idleTimeout": "7s"}}}`,
			fields: map[string]string{"tcp.maxConnections": "8", "tcp.idleTimeout": "7s"},
		},
		{name: "a path into a duration", call: "EndpointService/UpdateEndpoint", request: `{"name": "web-1", "endpoint": {}, "updateMask": "tcp.idleTimeout.seconds"}`, code: bad, reason: "BAD_VALUE", field: "update_mask"},
		{
			name: "a whole message that the body lacks is set back", call: "EndpointService/UpdateEndpoint", request: `{"name": "web-1", "endpoint": {}, "updateMask": "tcp"}`,
			fields: map[string]string{"tcp.maxConnections": "1024", "tcp.idleTimeout": "600s"},
		},
		{
			name: "output-only fields are ignored", call: "EndpointService/UpdateEndpoint",
			request: `{"name": "web-1", "endpoint": {"name": "web-1", "uid": "x", "state": "FAILED", "port": 1, "description": "back"}, "updateMask": "name,uid,state,port,description"}`,
			fields:  map[string]string{"state": "SERVING", "description": "back"},
		},
		{name: "unknown path", call: "EndpointService/UpdateEndpoint", request: `{"name": "web-1", "endpoint": {}, "updateMask": "lables"}`, code: bad, reason: "BAD_VALUE", field: "update_mask", says: "lables"},
		{name: "path into a scalar", call: "EndpointService/UpdateEndpoint", request: `{"name": "web-1", "endpoint": {}, "updateMask": "listen.port"}`, code: bad, reason: "BAD_VALUE", field: "update_mask"},
		{name: "another name", call: "EndpointService/UpdateEndpoint", request: `{"name": "web-1", "endpoint": {"name": "web-2"}, "updateMask": "name"}`, code: bad, reason: "BAD_VALUE", field: "endpoint.name"},
		{name: "stale etag", call: "EndpointService/UpdateEndpoint", request: `{"name": "web-1", "endpoint": {"etag": "old", "description": "x"}, "updateMask": "description"}`, code: codes.Aborted, reason: "STALE_ETAG"},
		{name: "listen needs a stop", call: "EndpointService/UpdateEndpoint", request: `{"name": "web-1", "endpoint": {"listen": "127.0.0.2:0"}, "updateMask": "listen"}`, code: codes.FailedPrecondition, reason: "NEEDS_STOP"},
		{name: "protocol needs a stop", call: "EndpointService/UpdateEndpoint", request: `{"name": "web-1", "endpoint": {"protocol": "UDP"}, "updateMask": "protocol"}`, code: codes.FailedPrecondition, reason: "NEEDS_STOP"},
		{name: "update validate only", call: "EndpointService/UpdateEndpoint", request: `{"name": "web-1", "endpoint": {"description": "dry"}, "updateMask": "description", "validateOnly": true}`, fields: map[string]string{"description": "dry"}},
		{name: "validate only changed nothing", call: "EndpointService/GetEndpoint", request: `{"name": "web-1"}`, fields: map[string]string{"description": "back"}},
		{name: "update none", call: "EndpointService/UpdateEndpoint", request: `{"name": "none", "endpoint": {"protocol": "TCP"}, "updateMask": "protocol"}`, code: codes.NotFound, reason: "ENDPOINT_NOT_FOUND"},
		{
			name: "allow missing creates", call: "EndpointService/UpdateEndpoint", request: `{"name": "made", "endpoint": {"protocol": "TCP", "labels": {"by": "patch"}}, "updateMask": "protocol,labels", "allowMissing": true}`,
			fields: map[string]string{"name": "made", "labels.by": "patch", "state": "SERVING", "tcp.maxConnections": "1024"},
		},
		{
			name: "and again changes nothing", call: "EndpointService/UpdateEndpoint", request: `{"name": "made", "endpoint": {"protocol": "TCP", "labels": {"by": "patch"}}, "updateMask": "protocol,labels", "allowMissing": true}`,
			fields: map[string]string{"name": "made", "labels.by": "patch"},
		},

		{name: "stop", call: "EndpointService/StopEndpoint", request: `{"name": "web-1"}`, fields: map[string]string{"state": "STOPPED", "host": "127.0.0.1"}},
		{name: "stop again", call: "EndpointService/StopEndpoint", request: `{"name": "web-1", "drainTimeout": "1s"}`, fields: map[string]string{"state": "STOPPED"}},
		{name: "stop, negative drain", call: "EndpointService/StopEndpoint", request: `{"name": "web-1", "drainTimeout": "-1s"}`, code: bad, reason: "BAD_VALUE", field: "drain_timeout"},
		{name: "protocol and listen while stopped", call: "EndpointService/UpdateEndpoint", request: `{"name": "web-1", "endpoint": {"protocol": "UDP", "listen": "127.0.0.2:0"}, "updateMask": "protocol,listen"}`, fields: map[string]string{"protocol": "UDP", "state": "STOPPED", "address": ""}},
		{name: "start", call: "EndpointService/StartEndpoint", request: `{"name": "web-1"}`, fields: map[string]string{"protocol": "UDP", "state": "SERVING", "host": "127.0.0.2"}},
		{name: "guard off while serving", call: "EndpointService/UpdateEndpoint", request: `{"name": "web-1", "endpoint": {"udp": {"loopGuard": false}}, "updateMask": "udp.loopGuard"}`, fields: map[string]string{"udp.loopGuard": "false", "state": "SERVING"}},
		{name: "and on again", call: "EndpointService/UpdateEndpoint", request: `{"name": "web-1", "endpoint": {}, "updateMask": "udp"}`, fields: map[string]string{"udp.loopGuard": "true"}},
		{name: "start again", call: "EndpointService/StartEndpoint", request: `{"name": "web-1"}`, fields: map[string]string{"state": "SERVING"}},
		{name: "start none", call: "EndpointService/StartEndpoint", request: `{"name": "none"}`, code: codes.NotFound, reason: "ENDPOINT_NOT_FOUND"},
		{name: "bad name in the path", call: "EndpointService/GetEndpoint", request: `{"name": "NO"}`, code: bad, reason: "BAD_VALUE", field: "name"},

		{name: "delete with a stale etag", call: "EndpointService/DeleteEndpoint", request: `{"name": "zero", "etag": "old"}`, code: codes.Aborted, reason: "STALE_ETAG"},
		{name: "delete", call: "EndpointService/DeleteEndpoint", request: `{"name": "zero", "drainTimeout": "1s"}`},
		{name: "delete again", call: "EndpointService/DeleteEndpoint", request: `{"name": "zero"}`, code: codes.NotFound, reason: "ENDPOINT_NOT_FOUND"},

		{name: "info", call: "DaemonService/GetInfo", request: `{}`, fields: map[string]string{"listeners.#": "3", "stateDirectory": "", "endpoints": "3"}},
	}
}

// limitCases are about what an endpoint is limited to. They leave nothing behind.
func limitCases() []contractCase {
	const bad = codes.InvalidArgument
	create := func(endpoint string) string { return fmt.Sprintf(`{"endpoint": %s}`, endpoint) }
	update := func(name, endpoint, mask string) string {
		return fmt.Sprintf(`{"name": %q, "endpoint": %s, "updateMask": %q}`, name, endpoint, mask)
	}
	tooMany := `["10.0.0.0/8"` + strings.Repeat(`, "10.0.0.0/8"`, 256) + `]`
	return []contractCase{
		{
			name: "limits of TCP", call: "EndpointService/CreateEndpoint",
			request: create(`{"name": "limited", "protocol": "TCP", "tcp": {"stallTimeout": "40s", "maxBytes": "18446744073709551615", "socketBufferBytes": 4096},
				"sources": {"allow": ["127.0.0.0/8", "2001:DB8::/32", "10.0.0.1"], "deny": ["127.0.0.66"]}}`),
			fields: map[string]string{
				"tcp.stallTimeout": "40s", "tcp.maxBytes": "18446744073709551615", "tcp.socketBufferBytes": "4096", "tcp.idleTimeout": "600s",
				"sources.allow.#": "3", "sources.allow.1": "2001:db8::/32", "sources.allow.2": "10.0.0.1/32", "sources.deny.0": "127.0.0.66/32",
			},
		},
		{
			name: "limits of UDP", call: "EndpointService/CreateEndpoint",
			request: create(`{"name": "limited-udp", "protocol": "UDP", "udp": {"maxSourceDatagrams": 4294967295, "maxSourceBytes": 1000000}, "sources": {"deny": ["::1"]}}`),
			fields: map[string]string{
				"udp.maxSourceDatagrams": "4294967295", "udp.maxSourceBytes": "1000000", "udp.loopGuard": "true", "sources.allow.#": "0", "sources.deny.0": "::1/128",
			},
		},
		{
			name: "no limits", call: "EndpointService/CreateEndpoint",
			request: `{"endpoint": {"protocol": "TCP", "tcp": {"stallTimeout": "0s", "maxBytes": 0, "socketBufferBytes": 0}, "sources": {}}, "validateOnly": true}`,
			fields:  map[string]string{"tcp.stallTimeout": "0s", "tcp.maxBytes": "0", "tcp.socketBufferBytes": "0", "sources": "absent"},
		},
		{name: "negative stall timeout", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "TCP", "tcp": {"stallTimeout": "-1s"}}`), code: bad, reason: "BAD_VALUE", field: "endpoint.tcp.stall_timeout", says: "not -1s"},
		{name: "stall timeout too long", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "TCP", "tcp": {"stallTimeout": "31536001s"}}`), code: bad, reason: "BAD_VALUE", field: "endpoint.tcp.stall_timeout", says: "must be 0 (never) to 8760h"},
		{name: "socket buffer too small", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "TCP", "tcp": {"socketBufferBytes": 4095}}`), code: bad, reason: "BAD_VALUE", field: "endpoint.tcp.socket_buffer_bytes", says: "not 4095"},
		{name: "socket buffer too large", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "TCP", "tcp": {"socketBufferBytes": 67108865}}`), code: bad, reason: "BAD_VALUE", field: "endpoint.tcp.socket_buffer_bytes", says: "4096 to 67108864"},
		{name: "a source that is none", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "UDP", "sources": {"allow": ["10.0.0.0/8", "::/0", "example.org"]}}`), code: bad, reason: "BAD_VALUE", field: "endpoint.sources.allow[2]", says: `"example.org"`},
		{name: "bits behind a prefix", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "TCP", "sources": {"deny": ["10.0.0.1/8"]}}`), code: bad, reason: "BAD_VALUE", field: "endpoint.sources.deny[0]", says: "the prefix is 10.0.0.0/8"},
		{name: "too many allowed", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "TCP", "sources": {"allow": ` + tooMany + `}}`), code: bad, reason: "BAD_VALUE", field: "endpoint.sources.allow", says: "at most 256"},
		{name: "too many denied", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "TCP", "sources": {"deny": ` + tooMany + `}}`), code: bad, reason: "BAD_VALUE", field: "endpoint.sources.deny", says: "at most 256"},

		{
			name: "update one limit", call: "EndpointService/UpdateEndpoint", request: update("limited", `{"tcp": {"stallTimeout": "0s", "maxBytes": 7}}`, "tcp.stallTimeout"),
			fields: map[string]string{"tcp.stallTimeout": "0s", "tcp.maxBytes": "18446744073709551615", "tcp.socketBufferBytes": "4096"},
		},
		{
			name: "update more of them", call: "EndpointService/UpdateEndpoint", request: update("limited", `{"tcp": {"maxBytes": "1000", "socketBufferBytes": 67108864}}`, "tcp.maxBytes,tcp.socketBufferBytes"),
			fields: map[string]string{"tcp.stallTimeout": "0s", "tcp.maxBytes": "1000", "tcp.socketBufferBytes": "67108864", "state": "SERVING"},
		},
		{
			name: "limits that the body lacks are set back", call: "EndpointService/UpdateEndpoint", request: update("limited", `{}`, "tcp.stallTimeout,tcp.maxBytes,tcp.socketBufferBytes"),
			fields: map[string]string{"tcp.stallTimeout": "300s", "tcp.maxBytes": "0", "tcp.socketBufferBytes": "0", "sources.allow.#": "3"},
		},
		{
			name: "update one list of sources", call: "EndpointService/UpdateEndpoint", request: update("limited", `{"sources": {"deny": ["192.0.2.0/24", "192.0.2.7"]}}`, "sources.deny"),
			fields: map[string]string{"sources.allow.#": "3", "sources.deny.#": "2", "sources.deny.1": "192.0.2.7/32"},
		},
		{name: "update to a source that is none", call: "EndpointService/UpdateEndpoint", request: update("limited", `{"sources": {"deny": ["nobody"]}}`, "sources.deny"), code: bad, reason: "BAD_VALUE", field: "endpoint.sources.deny[0]", says: `"nobody"`},
		{name: "a path into a list", call: "EndpointService/UpdateEndpoint", request: update("limited", `{}`, "sources.deny.first"), code: bad, reason: "BAD_VALUE", field: "update_mask"},
		{
			name: "set one list back", call: "EndpointService/UpdateEndpoint", request: update("limited", `{}`, "sources.deny"),
			fields: map[string]string{"sources.allow.#": "3", "sources.deny.#": "0"},
		},
		{name: "set sources back", call: "EndpointService/UpdateEndpoint", request: update("limited", `{}`, "sources"), fields: map[string]string{"sources": "absent"}},
		{
			name: "update limits of UDP", call: "EndpointService/UpdateEndpoint", request: update("limited-udp", `{"udp": {"maxSourceBytes": "18446744073709551615"}}`, "udp.maxSourceBytes"),
			fields: map[string]string{"udp.maxSourceDatagrams": "4294967295", "udp.maxSourceBytes": "18446744073709551615"},
		},
		{
			name: "set limits of UDP back", call: "EndpointService/UpdateEndpoint", request: update("limited-udp", `{}`, "udp.maxSourceDatagrams,udp.maxSourceBytes"),
			fields: map[string]string{"udp.maxSourceDatagrams": "0", "udp.maxSourceBytes": "0", "sources.deny.#": "1"},
		},
		{name: "limits of TCP on UDP", call: "EndpointService/UpdateEndpoint", request: update("limited-udp", `{"tcp": {"maxBytes": 1}}`, "tcp.maxBytes"), code: bad, reason: "BAD_VALUE", field: "endpoint"},

		{name: "delete what was limited", call: "EndpointService/DeleteEndpoint", request: `{"name": "limited"}`},
		{name: "delete what was limited, UDP", call: "EndpointService/DeleteEndpoint", request: `{"name": "limited-udp"}`},
	}
}

func probeCases(taken netip.AddrPort) []contractCase {
	const bad = codes.InvalidArgument
	probe := func(p string) string { return fmt.Sprintf(`{"probe": %s}`, p) }
	return []contractCase{
		{
			name: "run against UDP", call: "ProbeService/RunProbe", request: probe(`{"name": "first", "target": {"endpoint": "web-1"}, "count": 3, "interval": "0.001s"}`),
			fields: map[string]string{"probe": "first", "state": "DONE", "sent": "3", "received": "3", "lost": "0", "duplicated": "0", "target.protocol": "UDP", "payloadSize": "64", "rtt.count": "3", "errors.#": "0", "connect": "absent"},
		},
		{
			name: "run against TCP", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "made"}, "interval": "0.001s"}`),
			fields: map[string]string{"sent": "5", "received": "5", "duplicated": "absent", "reordered": "absent", "connect.count": "1"},
		},
		{
			name: "a new connection a round", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "made"}, "count": 4, "interval": "0s", "tcp": {"awaitClose": true}}`),
			fields: map[string]string{"received": "4", "connect.count": "4", "errors.#": "0"},
		},
		{
			name: "nobody listens", call: "ProbeService/RunProbe", request: probe(`{"target": {"address": "127.0.0.1:1", "protocol": "UDP"}, "count": 2, "interval": "0s", "timeout": "60s"}`),
			fields: map[string]string{"sent": "2", "received": "0", "lost": "2", "rtt": "absent", "errors.0.reason": "refused", "errors.0.count": "2"},
		},
		{
			name: "expectations that are met", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "web-1"}, "count": 2, "interval": "0s", "timeout": "60s", "expect": ["loss <= 0.1%", "p99 < 1h && reordered == 0"]}`),
			fields: map[string]string{"met": "true", "verdicts.#": "2", "verdicts.0.expect": "loss <= 0.1%", "verdicts.0.met": "true", "verdicts.0.seen.0.name": "loss", "verdicts.0.seen.0.value": "0%", "verdicts.0.message": "", "verdicts.1.met": "true", "verdicts.1.seen.1.name": "reordered", "verdicts.1.seen.1.value": "0"},
		},
		{
			name: "expectations that are not met", call: "ProbeService/RunProbe", request: probe(`{"name": "judged", "target": {"address": "127.0.0.1:1", "protocol": "UDP"}, "count": 2, "interval": "0s", "timeout": "60s", "expect": ["lost == 2", "lost == 0", "!(p99 > 2ms)"]}`),
			fields: map[string]string{"met": "false", "verdicts.0.met": "true", "verdicts.1.met": "false", "verdicts.1.seen.0.value": "2", "verdicts.1.message": "", "verdicts.2.met": "false", "verdicts.2.seen.0.name": "p99", "verdicts.2.seen.0.value": "", "verdicts.2.message": "p99 is not known: no round trip was received"},
		},
		{name: "verdicts are kept", call: "ProbeService/GetProbe", request: `{"name": "judged"}`, fields: map[string]string{"expect.#": "3", "expect.2": "!(p99 > 2ms)", "report.met": "false", "report.verdicts.#": "3"}},
		{name: "nothing expected", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "web-1"}, "count": 1}`), fields: map[string]string{"met": "absent", "verdicts.#": "0"}},
		{name: "an expectation of nothing known", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "web-1"}, "expect": ["lost == 0", "p98 < 2ms"]}`), code: bad, reason: "BAD_VALUE", field: "probe.expect[1]", says: `column 1: there is no name "p98"; did you mean "p90"?`},
		{name: "an expectation of mixed kinds", call: "ProbeService/StreamProbe", request: probe(`{"target": {"endpoint": "web-1"}, "expect": ["loss < 2ms"]}`), code: bad, reason: "BAD_VALUE", field: "probe.expect[0]", says: "column 6: < compares a number with a duration"},
		{name: "an expectation that is none", call: "ProbeService/CreateProbe", request: probe(`{"target": {"endpoint": "web-1"}, "expect": ["p99"]}`), code: bad, reason: "BAD_VALUE", field: "probe.expect[0]", says: "neither yes nor no"},
		{name: "an empty expectation", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "web-1"}, "expect": [""]}`), code: bad, reason: "BAD_VALUE", field: "probe.expect[0]"},
		{name: "an expectation too long", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "web-1"}, "expect": ["lost == 0` + strings.Repeat(" ", 492) + `"]}`), code: bad, reason: "BAD_VALUE", field: "probe.expect[0]", says: "500"},
		{name: "too many expectations", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "web-1"}, "expect": ["lost == 0"` + strings.Repeat(`, "lost == 0"`, 32) + `]}`), code: bad, reason: "BAD_VALUE", field: "probe.expect", says: "32"},
		{name: "no target", call: "ProbeService/RunProbe", request: probe(`{}`), code: bad, reason: "BAD_VALUE", field: "probe.target"},
		{name: "two targets", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "made", "address": "127.0.0.1:7", "protocol": "TCP"}}`), code: bad, reason: "BAD_VALUE", field: "probe.target"},
		{name: "an address without protocol", call: "ProbeService/RunProbe", request: probe(`{"target": {"address": "127.0.0.1:7"}}`), code: bad, reason: "BAD_VALUE", field: "probe.target"},
		{name: "an endpoint's other protocol", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "made", "protocol": "UDP"}}`), code: bad, reason: "BAD_VALUE", field: "probe.target.protocol"},
		{name: "no such endpoint", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "none"}}`), code: codes.NotFound, reason: "ENDPOINT_NOT_FOUND"},
		{name: "stop what is to be probed", call: "EndpointService/StopEndpoint", request: `{"name": "made"}`, fields: map[string]string{"state": "STOPPED"}},
		{name: "an endpoint that does not serve", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "made"}}`), code: codes.FailedPrecondition, reason: "NOT_SERVING", says: "STOPPED"},
		{name: "start it again", call: "EndpointService/StartEndpoint", request: `{"name": "made"}`, fields: map[string]string{"state": "SERVING"}},
		{
			name: "from a port that is taken", call: "ProbeService/RunProbe",
			request: probe(fmt.Sprintf(`{"name": "no-port", "target": {"endpoint": "made"}, "source": {"address": "127.0.0.1", "port": %d}}`, taken.Port())),
			code:    codes.FailedPrecondition, reason: "ADDRESS_IN_USE", says: "cannot send from " + taken.String() + ": address already in use; choose another source port",
		},
		{
			name: "it has sent nothing", call: "ProbeService/GetProbe", request: `{"name": "no-port"}`,
			fields: map[string]string{"state": "STOPPED", "report.sent": "0", "report.errors.#": "1", "report.errors.0.reason": "source_unavailable"},
		},
		{
			name: "from an address of another host", call: "ProbeService/StreamProbe", request: probe(`{"target": {"endpoint": "web-1"}, "source": {"address": "192.0.2.1"}}`),
			code: codes.FailedPrecondition, reason: "ADDRESS_NOT_AVAILABLE", says: "cannot send from 192.0.2.1: this host has no such address; choose",
		},
		{name: "count too large", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "made"}, "count": 4000000000}`), code: bad, reason: "BAD_VALUE", field: "probe.count"},
		{name: "negative interval", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "made"}, "interval": "-1s"}`), code: bad, reason: "BAD_VALUE", field: "probe.interval"},
		{name: "at random without an interval", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "made"}, "interval": "0s", "pacing": "POISSON"}`), code: bad, reason: "BAD_VALUE", field: "probe.pacing", says: "needs an interval"},
		{name: "no timeout", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "made"}, "timeout": "0s"}`), code: bad, reason: "BAD_VALUE", field: "probe.timeout"},
		{name: "a datagram too large", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "web-1"}, "payloadSize": 65508}`), code: bad, reason: "BAD_VALUE", field: "probe.payload_size", says: "65507"},
		{name: "a round of nothing over TCP", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "made"}, "payloadSize": 0}`), code: bad, reason: "BAD_VALUE", field: "probe.payload_size"},
		{name: "options of TCP for UDP", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "web-1"}, "tcp": {"newConnection": true}}`), code: bad, reason: "BAD_VALUE", field: "probe.tcp"},
		{name: "options of TCP for a UDP address", call: "ProbeService/RunProbe", request: probe(`{"target": {"address": "127.0.0.1:7", "protocol": "UDP"}, "tcp": {}}`), code: bad, reason: "BAD_VALUE", field: "probe"},
		{
			name: "search for the path MTU", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "web-1"}, "interval": "0s", "pathMtu": {"maxPayload": 1000}}`),
			fields: map[string]string{
				"state": "DONE", "sent": "2", "received": "2", "payloadSize": "0", "pathMtu.payload": "1000", "pathMtu.mtu": "1028",
				"pathMtu.limit": "MAX_PAYLOAD", "pathMtu.tooBig": "absent", "pathMtu.reportedMtu": "absent", "loss": "absent", "jitter": "absent",
			},
		},
		{
			name: "create a search", call: "ProbeService/CreateProbe", request: probe(`{"name": "search", "target": {"endpoint": "web-1"}, "pathMtu": {}}`),
			fields: map[string]string{"count": "3", "payloadSize": "absent", "pathMtu.maxPayload": "0"},
		},
		{name: "delete the search", call: "ProbeService/DeleteProbe", request: `{"name": "search"}`},
		{name: "a search over TCP", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "made"}, "pathMtu": {}}`), code: bad, reason: "BAD_VALUE", field: "probe.path_mtu", says: "UDP only"},
		{name: "a search of one size", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "web-1"}, "pathMtu": {}, "payloadSize": 64}`), code: bad, reason: "BAD_VALUE", field: "probe"},
		{name: "a search below the least", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "web-1"}, "pathMtu": {"maxPayload": 15}}`), code: bad, reason: "BAD_VALUE", field: "probe.path_mtu.max_payload", says: "16"},
		{name: "a search above what IPv4 takes", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "web-1"}, "pathMtu": {"maxPayload": 65508}}`), code: bad, reason: "BAD_VALUE", field: "probe.path_mtu.max_payload", says: "65507"},
		{name: "a search without tries", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "web-1"}, "pathMtu": {}, "count": 0}`), code: bad, reason: "BAD_VALUE", field: "probe.count", says: "1 to 100"},
		{name: "a search with flows", call: "ProbeService/RunProbe", request: probe(`{"target": {"endpoint": "web-1"}, "pathMtu": {}, "flows": 2}`), code: bad, reason: "BAD_VALUE", field: "probe.flows"},
		{
			name: "stream", call: "ProbeService/StreamProbe", request: probe(`{"name": "followed", "target": {"endpoint": "made"}, "count": 3, "interval": "0.001s", "expect": ["received == sent"]}`),
			fields: map[string]string{"report.received": "3", "report.state": "DONE", "report.met": "true"},
			check: func(t *testing.T, replies []proto.Message) {
				var kinds []string
				for _, r := range replies {
					m := r.(*echov1.StreamProbeResponse)
					switch {
					case m.GetProbe() != nil:
						kinds = append(kinds, "probe "+m.GetProbe().GetName())
					case m.GetSample() != nil:
						kinds = append(kinds, fmt.Sprintf("sample %d %s", m.GetSample().GetSeq(), m.GetSample().GetOutcome()))
					case m.GetReport() != nil:
						kinds = append(kinds, "report")
					}
				}
				want := []string{"probe followed", "sample 1 RECEIVED", "sample 2 RECEIVED", "sample 3 RECEIVED", "report"}
				if diff := cmp.Diff(want, kinds); diff != "" {
					t.Error(diff)
				}
			},
		},
		{
			name: "stream of many rounds", call: "ProbeService/StreamProbe", request: probe(`{"target": {"endpoint": "web-1"}, "count": 101, "interval": "0s", "timeout": "60s"}`),
			fields: map[string]string{"report.received": "101", "report.state": "DONE"}, check: addsUp(101, 0),
		},
		{
			name: "stream of each of many rounds", call: "ProbeService/StreamProbe",
			request: `{"probe": {"target": {"endpoint": "web-1"}, "count": 101, "interval": "0s", "timeout": "60s"}, "aggregate": "0s"}`,
			fields:  map[string]string{"report.received": "101"}, check: addsUp(0, 101),
		},
		{
			name: "stream of few rounds in aggregates", call: "ProbeService/StreamProbe",
			request: `{"probe": {"target": {"endpoint": "made"}, "count": 3, "interval": "0.001s", "timeout": "60s"}, "aggregate": "0.010s"}`,
			fields:  map[string]string{"report.received": "3"}, check: addsUp(3, 0),
		},
		{name: "stream in aggregates too short", call: "ProbeService/StreamProbe", request: `{"probe": {"target": {"endpoint": "made"}}, "aggregate": "0.009s"}`, code: bad, reason: "BAD_VALUE", field: "aggregate", says: "10ms"},
		{name: "stream of a bad probe", call: "ProbeService/StreamProbe", request: probe(`{}`), code: bad, reason: "BAD_VALUE", field: "probe.target"},
		{
			name: "create", call: "ProbeService/CreateProbe", request: probe(`{"name": "long", "target": {"endpoint": "made"}, "count": 0, "interval": "0.001s", "expect": ["elapsed > 1h"]}`),
			fields: map[string]string{"expect.0": "elapsed > 1h", "name": "long", "state": "RUNNING", "count": "0", "interval": "0.001s", "timeout": "1s", "payloadSize": "64"},
		},
		{name: "create of a name that runs", call: "ProbeService/CreateProbe", request: probe(`{"name": "long", "target": {"endpoint": "made"}}`), code: codes.AlreadyExists, reason: "PROBE_EXISTS"},
		{name: "get while it runs", call: "ProbeService/GetProbe", request: `{"name": "long"}`, fields: map[string]string{"state": "RUNNING", "endTime": "absent", "report.met": "false"}},
		{name: "list", call: "ProbeService/ListProbes", request: `{"pageSize": 1}`, fields: map[string]string{"probes.#": "1", "probes.0.name": "first"}},
		{name: "stop answers the report", call: "ProbeService/StopProbe", request: `{"name": "long"}`, fields: map[string]string{"probe": "long", "state": "STOPPED", "met": "false", "verdicts.0.expect": "elapsed > 1h"}},
		{name: "the report is kept", call: "ProbeService/GetProbe", request: `{"name": "long"}`, fields: map[string]string{"state": "STOPPED", "report.state": "STOPPED"}},
		{name: "stop again", call: "ProbeService/StopProbe", request: `{"name": "long"}`, fields: map[string]string{"state": "STOPPED"}},
		{name: "delete probe", call: "ProbeService/DeleteProbe", request: `{"name": "long"}`},
		{name: "delete probe again", call: "ProbeService/DeleteProbe", request: `{"name": "long"}`, code: codes.NotFound, reason: "PROBE_NOT_FOUND"},
		{name: "stop no probe", call: "ProbeService/StopProbe", request: `{"name": "none"}`, code: codes.NotFound, reason: "PROBE_NOT_FOUND"},
	}
}

// probeTargetCases are the targets that no probe may be sent to.
func probeTargetCases(d *testDaemon) []contractCase {
	run := func(protocol, address string) string {
		return fmt.Sprintf(`{"probe": {"target": {"address": %q, "protocol": %q}, "count": 1}}`, address, protocol)
	}
	_, grpcPort, _ := net.SplitHostPort(d.GRPC)
	_, httpPort, _ := net.SplitHostPort(d.HTTP)
	refused := func(name, call, request, says string) contractCase {
		return contractCase{name: name, call: "ProbeService/" + call, request: request, code: codes.PermissionDenied, reason: "TARGET_REFUSED", says: says}
	}
	return []contractCase{
		refused("the daemon's own gRPC port", "RunProbe", run("TCP", d.GRPC), d.GRPC+" is this daemon's own control listener"),
		refused("the daemon's own HTTP port", "RunProbe", run("TCP", d.HTTP), d.HTTP+" is this daemon's own control listener"),
		refused("its mapped address", "RunProbe", run("TCP", "[::ffff:127.0.0.1]:"+grpcPort), d.GRPC+" is this daemon's own control listener"),
		refused("its name", "RunProbe", run("TCP", "localhost:"+grpcPort), d.GRPC+" is this daemon's own control listener"),
		refused("its name, followed", "StreamProbe", run("TCP", "localhost:"+httpPort), d.HTTP+" is this daemon's own control listener"),
		{name: "its port over UDP is another", call: "ProbeService/RunProbe", request: run("UDP", d.GRPC), fields: map[string]string{"sent": "1"}},
		refused("every address", "RunProbe", run("TCP", "0.0.0.0:"+grpcPort), "0.0.0.0:"+grpcPort+" is no address of a host; say 127.0.0.1"),
		refused("every IPv6 address", "RunProbe", run("UDP", "[::]:7"), "[::]:7 is no address of a host"),
		refused("multicast", "RunProbe", run("UDP", "224.0.0.1:7"), "224.0.0.1:7 is a multicast address"),
		refused("broadcast", "CreateProbe", run("UDP", "255.255.255.255:7"), "is the broadcast address"),
		refused("broadcast of a network of this host", "RunProbe", run("UDP", "127.255.255.255:7"), "is the broadcast address of 127.0.0.0/8"),
		refused("metadata", "CreateProbe", run("TCP", "169.254.169.254:80"), "metadata service"),
		refused("metadata through NAT64", "StreamProbe", run("TCP", "[64:ff9b::a9fe:a9fe]:80"), "stands for 169.254.169.254"),
		refused("what the operator denies", "RunProbe", run("TCP", "198.51.100.7:7"), "198.51.100.7:7 is in 198.51.100.0/24 of --probe-deny"),
		refused(
			"a name, and the probe has one", "RunProbe",
			`{"probe": {"name": "refused", "target": {"address": "localhost:`+grpcPort+`", "protocol": "TCP"}}}`, "own control listener",
		),
		{
			name: "the probe says what became of it", call: "ProbeService/GetProbe", request: `{"name": "refused"}`,
			fields: map[string]string{
				"state": "STOPPED", "report.sent": "0", "report.address": "", "report.errors.#": "1", "report.errors.0.reason": "target_refused", "report.errors.0.count": "1",
			},
		},
	}
}

// probeLimitCases are probes that are too much for the daemon of TestContract.
func probeLimitCases() []contractCase {
	probe := func(text string, more string) string { return fmt.Sprintf(`{"probe": {%s%s}}`, text, more) }
	own, other := `"target": {"endpoint": "made"}`, `"target": {"address": "[100::1]:7", "protocol": "UDP"}, "count": 1, "timeout": "0.001s"`
	tooLarge := func(name, call, request, says string) contractCase {
		return contractCase{name: name, call: "ProbeService/" + call, request: request, code: codes.ResourceExhausted, reason: "PROBE_TOO_LARGE", says: says}
	}
	endless := func(n int) contractCase {
		return contractCase{
			name: fmt.Sprintf("probe %d of 4", n), call: "ProbeService/CreateProbe",
			request: probe(own, fmt.Sprintf(`, "name": "endless-%d", "count": 0`, n)), fields: map[string]string{"state": "RUNNING", "duration": "3600s"},
		}
	}
	return []contractCase{
		tooLarge("too fast", "RunProbe", probe(own, `, "rate": 100000`), "it takes 100000 rounds a second of at most 50000; plan less, or raise the daemon's --max-probe-rate"),
		tooLarge("too many sockets", "StreamProbe", probe(own, `, "flows": 65`), "--max-probe-sockets"),
		tooLarge("too much memory", "CreateProbe", probe(own, `, "flows": 40, "payloadSize": 1048576`), "MiB of memory for probes of at most 64; plan less, or raise the daemon's --max-probe-memory"),
		tooLarge("too long", "CreateProbe", probe(own, `, "duration": "3601s"`), "a duration of 1h0m1s is more than 1h0m0s (--max-probe-duration)"),
		tooLarge("too fast for one target", "RunProbe", probe(other, `, "rate": 20`), "20 rounds a second to 100::1 of at most 10; plan less, or raise the daemon's --max-target-rate"),
		tooLarge("too much for one target", "RunProbe", probe(other, `, "payloadSize": 60000`), "Mbit/s of payload to 100::1 of at most 1; plan less, or raise the daemon's --max-target-mbps"),
		{name: "within the limits of a target", call: "ProbeService/RunProbe", request: probe(other, ""), fields: map[string]string{"state": "DONE", "duration": "absent"}},
		endless(1), endless(2), endless(3), endless(4),
		{
			name: "too many", call: "ProbeService/RunProbe", request: probe(own, ""), code: codes.ResourceExhausted, reason: "TOO_MANY_PROBES",
			says: "4 of at most 4 probes at once are in use, and it takes 1; stop one, wait, or raise the daemon's --max-probes",
		},
		{name: "one is stopped", call: "ProbeService/StopProbe", request: `{"name": "endless-3"}`, fields: map[string]string{"state": "STOPPED"}},
		{name: "and there is room", call: "ProbeService/RunProbe", request: probe(own, `, "count": 1`), fields: map[string]string{"received": "1"}},
		{name: "delete endless-1", call: "ProbeService/DeleteProbe", request: `{"name": "endless-1"}`},
		{name: "delete endless-2", call: "ProbeService/DeleteProbe", request: `{"name": "endless-2"}`},
		{name: "delete endless-4", call: "ProbeService/DeleteProbe", request: `{"name": "endless-4"}`},
		{
			name: "the limits are told", call: "DaemonService/GetInfo", request: `{}`,
			fields: map[string]string{
				"probeLimits.probes": "4", "probeLimits.roundsPerSecond": "50000", "probeLimits.sockets": "64", "probeLimits.memoryMib": "64",
				"probeLimits.duration": "3600s", "probeLimits.targetProbes": "2", "probeLimits.targetRoundsPerSecond": "10", "probeLimits.targetMbps": "1",
				"probeLimits.allow.#": "0", "probeLimits.deny.#": "2", "probeLimits.deny.1": "2001:db8::/32",
			},
		},
	}
}

// addsUp wants a stream of so many rounds in aggregates, and of so many samples.
func addsUp(inAggregates, samples int) func(*testing.T, []proto.Message) {
	return func(t *testing.T, replies []proto.Message) {
		t.Helper()
		var sent, received, rtts, told int
		var until time.Duration
		for i, r := range replies {
			m := r.(*echov1.StreamProbeResponse)
			a := m.GetAggregate()
			switch {
			case (m.GetProbe() != nil) != (i == 0), (m.GetReport() != nil) != (i == len(replies)-1):
				t.Errorf("message %d of %d is %v", i+1, len(replies), m)
			case m.GetSample() != nil:
				told++
			case a != nil:
				sent, received, rtts = sent+int(a.GetSent()), received+int(a.GetReceived()), rtts+int(a.GetRtt().GetCount())
				if a.GetUntil().AsDuration() < until {
					t.Errorf("an aggregate until %v follows one until %v", a.GetUntil().AsDuration(), until)
				}
				until = a.GetUntil().AsDuration()
			}
		}
		if sent != inAggregates || received != inAggregates || rtts > received || told != samples {
			t.Errorf("%d sent and %d received in aggregates with %d times, %d samples; want %d and %d", sent, received, rtts, told, inAggregates, samples)
		}
	}
}
