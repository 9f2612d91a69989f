package server

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// applyCases describe a small lab again and again. They leave nothing behind. taken is an address that somebody else has.
func applyCases(taken string) []contractCase {
	const bad = codes.InvalidArgument
	const method = "EndpointService/ApplyEndpoints"
	apply := func(options string, endpoints ...string) string {
		return fmt.Sprintf(`{"endpoints": [%s]%s}`, strings.Join(endpoints, ", "), options)
	}
	const prune = `, "pruneFilter": "labels.lab = \"x\""`
	one := `{"name": "x-1", "protocol": "TCP", "labels": {"lab": "x"}}`
	two := `{"name": "x-2", "protocol": "UDP", "labels": {"lab": "x", "a.b/c": "d"}, "udp": {"maxSourceDatagrams": 5}}`
	// does wants one change after the other: "+x-1 ~x-2 =x-3 !x-4 -x-5".
	does := func(want string) func(*testing.T, []proto.Message) {
		return func(t *testing.T, replies []proto.Message) {
			sign := map[echov1.EndpointChange_Action]string{
				echov1.EndpointChange_CREATE: "+", echov1.EndpointChange_UPDATE: "~", echov1.EndpointChange_NONE: "=",
				echov1.EndpointChange_REPLACE: "!", echov1.EndpointChange_DELETE: "-",
			}
			var got []string
			for _, c := range replies[0].(*echov1.ApplyEndpointsResponse).GetChanges() {
				got = append(got, sign[c.GetAction()]+c.GetName())
			}
			if strings.Join(got, " ") != want {
				t.Errorf("it does %v, want %s", got, want)
			}
		}
	}
	is := func(name, of string, fields map[string]string) contractCase {
		return contractCase{name: name, call: "EndpointService/GetEndpoint", request: fmt.Sprintf(`{"name": %q}`, of), fields: fields}
	}
	none := func(name string) contractCase {
		return contractCase{name: "there is no " + name, call: "EndpointService/GetEndpoint", request: fmt.Sprintf(`{"name": %q}`, name), code: codes.NotFound, reason: "ENDPOINT_NOT_FOUND"}
	}
	return []contractCase{
		{name: "apply, planned", call: method, request: apply(`, "validateOnly": true`, one, two), check: does("+x-1 +x-2"), fields: map[string]string{"changes.0.fields.#": "0"}},
		none("x-1"),
		{name: "apply", call: method, request: apply("", one, two), check: does("+x-1 +x-2")},
		is("it is there", "x-2", map[string]string{"state": "SERVING", "udp.maxSourceDatagrams": "5"}),
		{name: "apply again", call: method, request: apply(prune, two, one), check: does("=x-2 =x-1")},
		{
			name: "apply, changed", call: method, request: apply("", `{"name": "x-1", "protocol": "TCP", "description": "new", "labels": {"lab": "x", "rack": "r1"}, "tcp": {"idleTimeout": "5s"}}`, two), check: does("~x-1 =x-2"),
			fields: map[string]string{
				"changes.0.fields.#": "3", "changes.0.fields.0.path": "description", "changes.0.fields.0.before": "", "changes.0.fields.0.after": `"new"`,
				"changes.0.fields.1.path": "labels.rack", "changes.0.fields.1.after": `"r1"`, "changes.0.fields.0.needsReplace": "false",
				"changes.0.fields.2.path": "tcp.idleTimeout", "changes.0.fields.2.before": `"600s"`, "changes.0.fields.2.after": `"5s"`, "changes.0.omittedFields": "0",
			},
		},
		{
			name: "what an applied endpoint lacks is the default", call: method, request: apply("", one, `{"name": "x-2", "protocol": "UDP", "labels": {"lab": "x"}}`), check: does("~x-1 ~x-2"),
			fields: map[string]string{"changes.1.fields.#": "2", "changes.1.fields.0.path": `labels."a.b/c"`, "changes.1.fields.0.before": `"d"`, "changes.1.fields.0.after": "", "changes.1.fields.1.path": "udp.maxSourceDatagrams"},
		},
		is("they are", "x-1", map[string]string{"description": "", "tcp.idleTimeout": "600s", "labels.rack": "absent"}),

		{name: "apply, needs a new socket", call: method, request: apply("", two, `{"name": "x-1", "protocol": "TCP", "listen": "127.0.0.2:0"}`), code: codes.FailedPrecondition, reason: "NEEDS_REPLACE", field: "endpoints[1].listen", says: "nothing was changed"},
		is("nothing of it is done", "x-2", map[string]string{"udp.maxSourceDatagrams": "0"}),
		{
			name: "apply, a replacement planned", call: method, request: apply(`, "validateOnly": true`, `{"name": "x-1", "protocol": "TCP", "listen": "127.0.0.2:0", "labels": {"lab": "x"}}`), check: does("!x-1"),
			fields: map[string]string{"changes.0.fields.#": "1", "changes.0.fields.0.path": "listen", "changes.0.fields.0.needsReplace": "true", "changes.0.fields.0.before": `"127.0.0.1:0"`, "changes.0.fields.0.after": `"127.0.0.2:0"`},
		},
		{name: "apply, replaced", call: method, request: apply(`, "replace": true`, `{"name": "x-1", "protocol": "TCP", "listen": "127.0.0.2:0", "labels": {"lab": "x"}}`), check: does("!x-1")},
		is("it has moved", "x-1", map[string]string{"host": "127.0.0.2", "state": "SERVING"}),

		{name: "apply, an etag of long ago", call: method, request: apply("", `{"name": "x-1", "protocol": "TCP", "etag": "old"}`), code: codes.Aborted, reason: "STALE_ETAG", field: "endpoints[0].etag"},
		{name: "apply, an etag of what is gone", call: method, request: apply("", `{"name": "x-9", "protocol": "TCP", "etag": "old"}`), code: codes.Aborted, reason: "STALE_ETAG", field: "endpoints[0].etag"},
		{name: "apply, a port in use", call: method, request: apply(prune, `{"name": "x-3", "protocol": "TCP"}`, `{"name": "x-4", "protocol": "TCP", "listen": "`+taken+`"}`), code: codes.FailedPrecondition, reason: "ADDRESS_IN_USE", field: "endpoints[1].listen", says: "1 of 2 endpoints cannot be had, and nothing was changed"},
		none("x-3"), none("x-4"),
		{name: "apply, a name twice", call: method, request: apply("", one, two, one), code: bad, reason: "BAD_VALUE", field: "endpoints[2].name", says: `"x-1" is the name of endpoints[0], too`},
		{name: "apply, a port twice", call: method, request: apply(`, "validateOnly": true`, `{"name": "p", "protocol": "TCP", "listen": ":7"}`, `{"name": "q", "protocol": "TCP", "listen": ":7"}`), code: codes.FailedPrecondition, reason: "ADDRESS_IN_USE", field: "endpoints[1].listen", says: "another endpoint of this request"},
		{name: "apply, no name and no protocol", call: method, request: apply("", `{"protocol": "TCP"}`, `{"name": "x-3"}`), code: bad, reason: "BAD_VALUE", field: "endpoints[0].name", says: `endpoints[1].protocol: is missing`},
		{name: "apply, sources that are none", call: method, request: apply("", `{"name": "x-3", "protocol": "TCP", "sources": {"allow": ["here"]}}`), code: bad, reason: "BAD_VALUE", field: "endpoints[0].sources.allow[0]"},
		{name: "apply, rules of the contract", call: method, request: apply("", one, `{"name": "x-3", "protocol": "TCP", "listen": "x"}`), code: bad, reason: "BAD_VALUE", field: "endpoints[1].listen"},
		{name: "apply, too many", call: method, request: apply("", strings.Split(strings.Repeat(`{};`, 10_000)+`{}`, ";")...), code: bad, reason: "BAD_VALUE", field: "endpoints", says: "at most 10000"},
		{name: "apply, a bad filter", call: method, request: apply(`, "pruneFilter": "colour = red"`, one), code: bad, reason: "BAD_VALUE", field: "prune_filter", says: "colour"},
		{name: "apply, a blank filter", call: method, request: apply(`, "pruneFilter": " "`, one), code: bad, reason: "BAD_VALUE", field: "prune_filter"},

		{name: "a stop is somebody's own act", call: "EndpointService/StopEndpoint", request: `{"name": "x-2"}`, fields: map[string]string{"state": "STOPPED"}},
		{name: "apply leaves what is stopped", call: method, request: apply("", `{"name": "x-2", "protocol": "UDP", "labels": {"lab": "x"}}`), check: does("=x-2")},
		{name: "and changes it without replace", call: method, request: apply("", `{"name": "x-2", "protocol": "TCP", "listen": "127.0.0.2:0", "labels": {"lab": "x"}}`), check: does("~x-2")},
		is("it is stopped still", "x-2", map[string]string{"state": "STOPPED", "protocol": "TCP", "listen": "127.0.0.2:0"}),

		{name: "apply and prune, planned", call: method, request: apply(prune+`, "validateOnly": true`, `{"name": "x-3", "protocol": "TCP", "labels": {"lab": "x"}}`), check: does("+x-3 -x-1 -x-2")},
		is("and not done", "x-1", map[string]string{"state": "SERVING"}),
		{name: "apply and prune", call: method, request: apply(prune, `{"name": "x-3", "protocol": "TCP", "labels": {"lab": "x"}}`), check: does("+x-3 -x-1 -x-2")},
		none("x-1"),
		{name: "apply nothing and prune", call: method, request: apply(prune), check: does("-x-3")},
		{name: "apply nothing", call: method, request: apply(""), check: does("")},
	}
}
