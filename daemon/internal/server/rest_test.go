package server

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// restCase is one HTTP request and what must come of it. What gRPC can say too is in contract_test.go.
type restCase struct {
	name, method, path, body string
	header                   map[string]string
	host                     string
	code                     int
	want                     map[string]string // JSON path -> value
	says                     string
}

func TestRESTIsStrict(t *testing.T) {
	c := testConfig(t)
	c.AllowHosts = []string{"lab.example"}
	d := startDaemon(t, c)
	base := "http://" + d.HTTP
	bad := func(field string) map[string]string {
		return map[string]string{"code": "3", "details.0.reason": "BAD_VALUE", "details.1.fieldViolations.0.field": field}
	}
	refused := func(reason string) map[string]string { return map[string]string{"details.0.reason": reason} }
	cases := []restCase{
		{name: "durations as people write them", method: "POST", path: "/v1/endpoints", body: `{"name":"a","protocol":"TCP","labels":{"idleTimeout":"10m"},"tcp":{"idleTimeout":"10m"}}`, code: 200, want: map[string]string{"tcp.idleTimeout": "600s", "labels.idleTimeout": "10m"}},
		{name: "in the query, too", method: "DELETE", path: "/v1/endpoints/a?drainTimeout=40ms", code: 200},
		{name: "snake case is taken", method: "POST", path: "/v1/endpoints?validate_only=true", body: `{"protocol":"TCP","tcp":{"idle_timeout":"1m30s"}}`, code: 200, want: map[string]string{"tcp.idleTimeout": "90s"}},
		{name: "charset", method: "POST", path: "/v1/endpoints", body: `{"name":"b","protocol":"TCP"}`, header: map[string]string{"Content-Type": "application/json; charset=utf-8"}, code: 200},
		{name: "limits as people write them", method: "POST", path: "/v1/endpoints", body: `{"name":"limited","protocol":"TCP","tcp":{"stallTimeout":"40ms","maxBytes":1000},"sources":{"allow":["127.0.0.1"],"deny":["::1"]}}`, code: 200, want: map[string]string{"tcp.stallTimeout": "0.040s", "tcp.maxBytes": "1000", "sources.allow.0": "127.0.0.1/32"}},
		{name: "an empty list in a patch empties that list", method: "PATCH", path: "/v1/endpoints/limited", body: `{"sources":{"allow":[]}}`, code: 200, want: map[string]string{"sources.allow.#": "0", "sources.deny.0": "::1/128"}},
		{name: "an empty object in a patch sets it back", method: "PATCH", path: "/v1/endpoints/limited", body: `{"sources":{}}`, code: 200, want: map[string]string{"sources": "absent", "tcp.maxBytes": "1000"}},
		{name: "a negative number of bytes", method: "PATCH", path: "/v1/endpoints/limited", body: `{"tcp":{"maxBytes":-1}}`, code: 400, says: "maxBytes"},
		{name: "patch without a mask takes the body's fields", method: "PATCH", path: "/v1/endpoints/b", body: `{"tcp":{"oneShot":true},"labels":{"k":"v"}}`, code: 200, want: map[string]string{"tcp.oneShot": "true", "tcp.idleTimeout": "600s", "labels.k": "v"}},
		{name: "mask in lowerCamelCase", method: "PATCH", path: "/v1/endpoints/b?updateMask=tcp.oneShot,labels", body: `{}`, code: 200, want: map[string]string{"tcp.oneShot": "false", "labels.k": "absent"}},
		{name: "an action without a body", method: "POST", path: "/v1/endpoints/b:stop", code: 200, want: map[string]string{"state": "STOPPED"}},
		{name: "an action with an empty one", method: "POST", path: "/v1/endpoints/b:start", body: `{}`, code: 200, want: map[string]string{"state": "SERVING"}},

		{name: "unknown field", method: "POST", path: "/v1/endpoints", body: `{"protocol":"TCP","nam":"x"}`, code: 400, want: bad("nam")},
		{name: "unknown nested field", method: "POST", path: "/v1/endpoints", body: `{"protocol":"TCP","tcp":{"idle":"1s"}}`, code: 400, want: bad("idle")},
		{name: "field twice", method: "POST", path: "/v1/endpoints", body: `{"protocol":"TCP","protocol":"UDP"}`, code: 400, want: bad("protocol")},
		{name: "wrong type", method: "POST", path: "/v1/endpoints", body: `{"protocol":"TCP","listen":7}`, code: 400, want: bad("listen")},
		{name: "unknown enum", method: "POST", path: "/v1/endpoints", body: `{"protocol":"SCTP"}`, code: 400, want: bad("protocol"), says: "SCTP"},
		{name: "no duration", method: "POST", path: "/v1/endpoints", body: `{"protocol":"TCP","tcp":{"idleTimeout":"fast"}}`, code: 400, want: bad("tcp.idleTimeout"), says: "40ms"},
		{name: "a number as duration", method: "POST", path: "/v1/endpoints", body: `{"protocol":"TCP","tcp":{"idleTimeout":5}}`, code: 400, want: bad("tcp.idleTimeout")},
		{name: "count of 10^10", method: "POST", path: "/v1/probes:run", body: `{"target":{"endpoint":"b"},"count":10000000000}`, code: 400, want: bad("count")},
		{name: "negative count", method: "POST", path: "/v1/probes:run", body: `{"target":{"endpoint":"b"},"count":-1}`, code: 400, want: bad("count")},
		{name: "half a document", method: "POST", path: "/v1/endpoints", body: `{"protocol":`, code: 400, want: bad("body")},
		{name: "two documents", method: "POST", path: "/v1/endpoints", body: `{"protocol":"TCP"}{}`, code: 400, want: bad("body")},
		{name: "a list", method: "POST", path: "/v1/endpoints", body: `[]`, code: 400, want: bad("body")},
		{name: "deep nesting", method: "POST", path: "/v1/endpoints", body: strings.Repeat(`{"tcp":`, 20000), code: 400},
		{name: "deepest nesting", method: "PATCH", path: "/v1/endpoints/b", body: strings.Repeat(`[`, 8<<20), code: 400},
		{name: "a body where there is none to be", method: "DELETE", path: "/v1/endpoints/b", body: `{"etag":"old"}`, code: 400, want: bad("body"), says: "drainTimeout, etag"},
		{name: "a body on a get", method: "GET", path: "/v1/endpoints/b", body: `{}`, code: 400, want: bad("body")},
		{name: "another name in the body", method: "POST", path: "/v1/endpoints/b:stop", body: `{"name":"other"}`, code: 400, want: bad("name"), says: "other"},
		{name: "the same name in the body", method: "POST", path: "/v1/endpoints/b:start", body: `{"name":"b"}`, code: 200},
		{name: "a patch of nothing", method: "PATCH", path: "/v1/endpoints/b", body: `{}`, code: 200, want: map[string]string{"name": "b"}},
		{name: "a mask of nothing", method: "PATCH", path: "/v1/endpoints/b?updateMask=", body: `{"description":"x"}`, code: 200, want: map[string]string{"description": "x"}},
		{name: "an etag of one that is gone", method: "PATCH", path: "/v1/endpoints/gone?allowMissing=true", body: `{"protocol":"TCP","etag":"zzz"}`, code: 409, want: refused("STALE_ETAG")},
		{name: "a query that is not UTF-8", method: "GET", path: "/v1/endpoints?filter=%ff", code: 400, want: bad("query")},
		{name: "a parameter that is not UTF-8", method: "GET", path: "/v1/endpoints?%ff=1", code: 400, want: bad("query")},
		{name: "a path that is not UTF-8", method: "GET", path: "/v1/%ff", code: 404, want: refused("PATH_NOT_FOUND")},
		{name: "an origin that is not UTF-8", method: "DELETE", path: "/v1/endpoints/b", header: map[string]string{"Origin": "http://\xff"}, code: 403, want: refused("CROSS_ORIGIN")},
		{name: "a path that is not clean", method: "GET", path: "//v1/endpoints", code: 404, want: refused("PATH_NOT_FOUND")},
		{name: "a filter that is nested deep", method: "GET", path: "/v1/endpoints?filter=" + strings.Repeat("(", 4000), code: 400, want: bad("filter")},
		{name: "a filter that is wrong deep down", method: "GET", path: "/v1/endpoints?filter=" + strings.Repeat("(", 60) + "x%3D", code: 400, want: bad("filter")},
		{name: "a label's key of a megabyte", method: "POST", path: "/v1/endpoints", body: `{"protocol":"TCP","labels":{"` + strings.Repeat("k", 1<<20) + `":"v"}}`, code: 400},
		{name: "wrong method on a page of ours", method: "POST", path: "/healthz", code: 405, want: map[string]string{"Allow": "GET"}},
		{name: "head of a list", method: "HEAD", path: "/v1/endpoints", code: 200},
		{name: "head of health", method: "HEAD", path: "/healthz", code: 200},
		{name: "unknown query parameter", method: "GET", path: "/v1/endpoints?fliter=x", code: 400, want: bad("fliter"), says: "filter, pageSize, pageToken"},
		{name: "unknown query parameter of an action", method: "POST", path: "/v1/endpoints/b:stop?drain=1s", code: 400, want: bad("drain")},
		{name: "a body's field in the query", method: "POST", path: "/v1/endpoints?endpoint.name=x", body: `{"protocol":"TCP"}`, code: 400, want: bad("endpoint.name")},
		{name: "query parameter twice", method: "GET", path: "/v1/endpoints?pageSize=1&pageSize=2", code: 400, want: bad("pageSize")},
		{name: "query parameter of a wrong type", method: "GET", path: "/v1/endpoints?pageSize=many", code: 400, want: bad("page_size")},
		{name: "no query string", method: "GET", path: "/v1/endpoints?%zz", code: 400, want: bad("query")},
		{name: "unknown mask path", method: "PATCH", path: "/v1/endpoints/b?updateMask=tcp.oneshot", body: `{}`, code: 400, want: bad("update_mask")},
		{name: "name with a slash", method: "GET", path: "/v1/endpoints/a/b", code: 404, want: refused("PATH_NOT_FOUND")},
		{name: "name with a colon", method: "DELETE", path: "/v1/endpoints/a:b", code: 400, want: bad("name")},
		{name: "wrong verb", method: "POST", path: "/v1/endpoints/b:jump", code: 405},
		{name: "a path that is not there", method: "GET", path: "/v1/nothing", code: 404, want: refused("PATH_NOT_FOUND"), says: "/openapi.json"},
		{name: "outside of the contract", method: "GET", path: "/favicon.ico", code: 404, want: refused("PATH_NOT_FOUND")},

		{name: "wrong method", method: "PUT", path: "/v1/endpoints/b", body: `{}`, code: 405, want: map[string]string{"details.0.reason": "METHOD_NOT_ALLOWED", "Allow": "DELETE, GET, PATCH"}},
		{name: "wrong method on a list", method: "DELETE", path: "/v1/endpoints", code: 405, want: map[string]string{"Allow": "GET, POST"}},
		{name: "get of an action", method: "GET", path: "/v1/endpoints/b:stop", code: 405, want: map[string]string{"Allow": "POST"}},
		{name: "method override header", method: "POST", path: "/v1/endpoints/b", header: map[string]string{"X-HTTP-Method-Override": "DELETE"}, code: 405},
		{name: "form post", method: "POST", path: "/v1/endpoints", body: "protocol=TCP", header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, code: 415, want: refused("NOT_JSON")},
		{name: "form post to a get", method: "POST", path: "/v1/info", body: "a=b", header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, code: 415, want: refused("NOT_JSON")},
		{name: "text", method: "POST", path: "/v1/endpoints", body: `{"protocol":"TCP"}`, header: map[string]string{"Content-Type": "text/plain"}, code: 415, want: refused("NOT_JSON")},
		{name: "no media type", method: "POST", path: "/v1/endpoints", body: `{"protocol":"TCP"}`, header: map[string]string{"Content-Type": ""}, code: 415, want: refused("NOT_JSON")},
		{name: "a body of 10 MB", method: "POST", path: "/v1/endpoints", body: strings.Repeat(" ", 10_000_000), code: 413, want: refused("BODY_TOO_LARGE")},

		{name: "host that is not ours", method: "GET", path: "/v1/info", host: "evil.example", code: 421, want: refused("HOST_NOT_ALLOWED")},
		{name: "host that looks like ours", method: "GET", path: "/healthz", host: "127.0.0.1.evil.example:80", code: 421, want: refused("HOST_NOT_ALLOWED")},
		{name: "host that was allowed", method: "GET", path: "/healthz", host: "Lab.Example:7070", code: 200},
		{name: "localhost", method: "GET", path: "/healthz", host: "localhost:7070", code: 200},
		{name: "another address", method: "GET", path: "/healthz", host: "[::1]:7070", code: 200},
		{name: "a page of somebody else's", method: "POST", path: "/v1/endpoints/b:stop", header: map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"}, code: 403, want: refused("CROSS_ORIGIN")},
		{name: "a caller's deadline is not taken", method: "GET", path: "/v1/info", header: map[string]string{"Grpc-Timeout": "1n"}, code: 200},

		{name: "healthz", method: "GET", path: "/healthz", code: 200, says: "ok"},
		{name: "readyz", method: "GET", path: "/readyz", code: 200, says: "ok"},
		{name: "readyz in words", method: "GET", path: "/readyz?verbose", code: 200, says: "[+] restored: ok\n[+] state: ok\n[+] endpoints: ok\n[+] draining: ok\nready\n"},
		{name: "readyz in true words", method: "GET", path: "/readyz?verbose=true", code: 200, says: "ready\n"},
		{name: "readyz in words of another kind", method: "GET", path: "/readyz?verbose=very", code: 400, says: "verbose takes no value"},
		{name: "readyz in words twice", method: "GET", path: "/readyz?verbose&verbose", code: 400, says: "verbose takes no value"},
		{name: "readyz with a parameter of another's", method: "GET", path: "/readyz?exclude=etcd", code: 400, says: "it takes verbose"},
		{name: "readyz with a bad query", method: "GET", path: "/readyz?%zz", code: 400, says: "cannot be read"},
		{name: "head of readiness", method: "HEAD", path: "/readyz?verbose", code: 200},
		{name: "readiness takes no parameters", method: "GET", path: "/v1/readiness?verbose", code: 400, says: "takes none"},
		{name: "openapi", method: "GET", path: "/openapi.json", code: 200, want: map[string]string{"openapi": "3.1.0"}},
		{name: "still serving after all that", method: "GET", path: "/v1/endpoints/b", code: 200, want: map[string]string{"state": "SERVING"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.run(t, base) })
	}
}

func (c restCase) run(t *testing.T, base string) {
	req, err := http.NewRequestWithContext(testContext(t), c.method, base+c.path, bytes.NewReader([]byte(c.body)))
	if err != nil {
		t.Fatal(err)
	}
	if c.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range c.header {
		req.Header.Set(name, value)
		if value == "" {
			req.Header.Del(name)
		}
	}
	req.Host = c.host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != c.code {
		t.Fatalf("HTTP status %d, want %d: %s", resp.StatusCode, c.code, text)
	}
	if !strings.Contains(string(text), c.says) {
		t.Errorf("the answer does not say %q: %s", c.says, text)
	}
	for path, want := range c.want {
		got := jsonPath(text, path)
		if path == "Allow" {
			got = resp.Header.Get("Allow")
		}
		if got != want {
			t.Errorf("%s = %s, want %s: %s", path, got, want, text)
		}
	}
	if c.code >= 400 {
		if kind := resp.Header.Get("Content-Type"); kind != "application/json" {
			t.Errorf("an error as %s: %s", kind, text)
		}
		if len(text) > 4096 {
			t.Errorf("an error of %d bytes", len(text))
		}
	}
}

// TestWhatWasGotCanBeSentBack edits what a GET answered and PATCHes it as a whole.
func TestWhatWasGotCanBeSentBack(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	base := "http://" + d.HTTP + "/v1/endpoints"
	do := func(method, url, body string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(testContext(t), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer http.DefaultClient.CloseIdleConnections()
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %s: %d %s", method, url, resp.StatusCode, text)
		}
		return string(text)
	}
	for _, protocol := range []string{"TCP", "UDP"} {
		got := do("POST", base, fmt.Sprintf(`{"protocol":%q,"labels":{"a":"b"},"description":"before"}`, protocol))
		name := jsonPath([]byte(got), "name")
		edited := strings.Replace(got, "before", "after", 1)
		after := do("PATCH", base+"/"+name, edited)
		if d := jsonPath([]byte(after), "description"); d != "after" {
			t.Errorf("description = %s, want after", d)
		}
		for _, kept := range []string{"address", "uid", "state", "labels.a", "createTime"} {
			if a, b := jsonPath([]byte(got), kept), jsonPath([]byte(after), kept); a != b {
				t.Errorf("%s was %s and is %s", kept, a, b)
			}
		}
	}
}
