package server

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// monitorCases are about MonitorService. They leave only paused monitors and an endpoint behind.
func monitorCases() []contractCase {
	const bad = codes.InvalidArgument
	create := func(monitor string) string { return fmt.Sprintf(`{"monitor": %s}`, monitor) }
	update := func(name, monitor, mask string) string {
		return fmt.Sprintf(`{"name": %q, "monitor": %s, "updateMask": %q}`, name, monitor, mask)
	}
	const probe = `"probe": {"target": {"endpoint": "watched"}, "count": 2, "interval": "0.001s", "timeout": "60s"}`
	return []contractCase{
		{name: "an endpoint to watch", call: "EndpointService/CreateEndpoint", request: `{"endpoint": {"name": "watched", "protocol": "UDP"}}`},
		{name: "list of no monitors", call: "MonitorService/ListMonitors", request: `{}`, fields: map[string]string{"monitors.#": "0", "nextPageToken": ""}},
		{
			name: "create a monitor", call: "MonitorService/CreateMonitor",
			request: create(`{"name": "mon-1", ` + probe + `, "interval": "3600s", "labels": {"rack": "r1"}, "description": "first"}`),
			fields: map[string]string{
				"name": "mon-1", "interval": "3600s", "historyLimit": "10", "paused": "false", "state": "WAITING", "verdict": "UNKNOWN", "since": "absent",
				"labels.rack": "r1", "description": "first", "lastRun": "absent", "history.#": "0", "counters.runs": "0", "probe.count": "2",
				"probe.target.endpoint": "watched", "probe.payloadSize": "absent", "probe.report": "absent",
			},
			check: func(t *testing.T, replies []proto.Message) {
				m := replies[0].(*echov1.Monitor)
				if m.GetUid() == "" || m.GetEtag() == "" || m.GetCreateTime() == nil || m.GetUpdateTime() == nil || m.GetNextRunTime() == nil {
					t.Errorf("what the daemon fills in is not all there: %v", m)
				}
			},
		},
		// It runs only when it is asked to, so that all that follows is known.
		{name: "pause", call: "MonitorService/PauseMonitor", request: `{"name": "mon-1"}`, fields: map[string]string{"state": "PAUSED", "paused": "true", "nextRunTime": "absent"}},
		{name: "pause again", call: "MonitorService/PauseMonitor", request: `{"name": "mon-1"}`, fields: map[string]string{"state": "PAUSED"}},
		{
			name: "a monitor named by the daemon", call: "MonitorService/CreateMonitor",
			request: create(`{"probe": {"target": {"address": "127.0.0.1:1", "protocol": "TCP"}}, "paused": true}`),
			fields:  map[string]string{"interval": "60s", "paused": "true", "state": "PAUSED", "nextRunTime": "absent"},
			check: func(t *testing.T, replies []proto.Message) {
				if m := replies[0].(*echov1.Monitor); !strings.HasPrefix(m.GetName(), "monitor-") {
					t.Errorf("name %q", m.GetName())
				}
			},
		},
		{
			name: "a monitor of an endpoint that is not there", call: "MonitorService/CreateMonitor",
			request: create(`{"name": "mon-gone", "probe": {"target": {"endpoint": "never"}, "tcp": {"newConnection": true}, "payloadSize": 100000}, "paused": true}`),
			fields:  map[string]string{"name": "mon-gone", "verdict": "UNKNOWN"},
		},
		{
			name: "validate a monitor only", call: "MonitorService/CreateMonitor", request: `{"monitor": {"name": "mon-dry", ` + probe + `}, "validateOnly": true}`,
			fields: map[string]string{"name": "mon-dry", "nextRunTime": "absent"},
		},
		{name: "validate only kept no monitor", call: "MonitorService/GetMonitor", request: `{"name": "mon-dry"}`, code: codes.NotFound, reason: "MONITOR_NOT_FOUND", says: `"mon-dry"`},
		{name: "a monitor's name taken", call: "MonitorService/CreateMonitor", request: create(`{"name": "mon-1", ` + probe + `}`), code: codes.AlreadyExists, reason: "MONITOR_EXISTS", says: `"mon-1"`},
		{name: "no monitor", call: "MonitorService/CreateMonitor", request: `{}`, code: bad, reason: "BAD_VALUE", field: "monitor"},
		{name: "a monitor of nothing", call: "MonitorService/CreateMonitor", request: create(`{"name": "x"}`), code: bad, reason: "BAD_VALUE", field: "monitor", says: "probe is missing"},
		{name: "a monitor without a target", call: "MonitorService/CreateMonitor", request: create(`{"probe": {"count": 1}}`), code: bad, reason: "BAD_VALUE", field: "monitor.probe.target"},
		{name: "a target that is two", call: "MonitorService/CreateMonitor", request: create(`{"probe": {"target": {"endpoint": "a", "address": "h:1"}}}`), code: bad, reason: "BAD_VALUE", field: "monitor.probe.target"},
		{name: "a probe with a name", call: "MonitorService/CreateMonitor", request: create(`{"probe": {"name": "p", "target": {"endpoint": "a"}}}`), code: bad, reason: "BAD_VALUE", field: "monitor", says: "probe.name must be empty"},
		{name: "a probe that does not end", call: "MonitorService/CreateMonitor", request: create(`{"probe": {"target": {"endpoint": "a"}, "count": 0}}`), code: bad, reason: "BAD_VALUE", field: "monitor", says: "count or a duration"},
		{name: "a duration ends it", call: "MonitorService/CreateMonitor", request: `{"monitor": {"probe": {"target": {"endpoint": "a"}, "count": 0, "duration": "1s"}}, "validateOnly": true}`},
		{name: "an interval too short", call: "MonitorService/CreateMonitor", request: create(`{` + probe + `, "interval": "0.999s"}`), code: bad, reason: "BAD_VALUE", field: "monitor.interval", says: "1s to 24h, not 999ms"},
		{name: "an interval too long", call: "MonitorService/CreateMonitor", request: create(`{` + probe + `, "interval": "86401s"}`), code: bad, reason: "BAD_VALUE", field: "monitor.interval"},
		{name: "no history", call: "MonitorService/CreateMonitor", request: create(`{` + probe + `, "historyLimit": 0}`), code: bad, reason: "BAD_VALUE", field: "monitor.history_limit", says: "1 to 100, not 0"},
		{name: "too much history", call: "MonitorService/CreateMonitor", request: create(`{` + probe + `, "historyLimit": 101}`), code: bad, reason: "BAD_VALUE", field: "monitor.history_limit"},
		{name: "a monitor's label key", call: "MonitorService/CreateMonitor", request: create(`{` + probe + `, "labels": {"a b": "c"}}`), code: bad, reason: "BAD_VALUE", field: `monitor.labels["a b"]`},
		{name: "a probe's value", call: "MonitorService/CreateMonitor", request: create(`{"probe": {"target": {"endpoint": "a"}, "timeout": "-1s"}}`), code: bad, reason: "BAD_VALUE", field: "monitor.probe.timeout", says: "not -1s"},
		{name: "a payload too large for the endpoint", call: "MonitorService/CreateMonitor", request: create(`{"probe": {"target": {"endpoint": "watched"}, "payloadSize": 70000}}`), code: bad, reason: "BAD_VALUE", field: "monitor.probe.payload_size", says: "70000"},
		{name: "a payload too large for the protocol", call: "MonitorService/CreateMonitor", request: create(`{"probe": {"target": {"endpoint": "never", "protocol": "UDP"}, "payloadSize": 70000}}`), code: bad, reason: "BAD_VALUE", field: "monitor.probe.payload_size", says: "70000"},
		{name: "TCP options for an endpoint of UDP", call: "MonitorService/CreateMonitor", request: create(`{"probe": {"target": {"endpoint": "watched"}, "tcp": {}}}`), code: bad, reason: "BAD_VALUE", field: "monitor.probe.tcp"},

		{
			name: "run a monitor", call: "MonitorService/RunMonitor", request: `{"name": "mon-1"}`,
			fields: map[string]string{"met": "true", "failure": "", "report.probe": "mon-1", "report.received": "2", "report.state": "DONE", "report.target.protocol": "UDP", "report.met": "absent"},
		},
		{
			name: "get a monitor", call: "MonitorService/GetMonitor", request: `{"name": "mon-1"}`,
			fields: map[string]string{"verdict": "MET", "lastRun.met": "true", "history.0.report.sent": "2", "counters.failures": "0"},
			check: func(t *testing.T, replies []proto.Message) {
				m := replies[0].(*echov1.Monitor)
				if m.GetSince() == nil || m.GetCounters().GetRuns() == 0 || len(m.GetHistory()[0].GetReport().GetRtt().GetBuckets()) == 0 {
					t.Errorf("after a run: %v", m)
				}
			},
		},
		{
			name: "a monitor with expectations", call: "MonitorService/CreateMonitor",
			request: create(`{"name": "mon-expect", "paused": true, "probe": {"target": {"endpoint": "watched"}, "count": 1, "timeout": "60s", "expect": ["lost == 0", "received > 1"]}}`),
			fields:  map[string]string{"probe.expect.#": "2", "probe.expect.1": "received > 1"},
		},
		{
			name: "its run", call: "MonitorService/RunMonitor", request: `{"name": "mon-expect"}`,
			fields: map[string]string{"met": "false", "failure": "", "report.met": "false", "report.verdicts.#": "2", "report.verdicts.0.met": "true", "report.verdicts.1.met": "false", "report.verdicts.1.seen.0.value": "1"},
		},
		{
			name: "expectations are replaced", call: "MonitorService/UpdateMonitor", request: update("mon-expect", `{"probe": {"expect": ["lost == 0"]}}`, "probe.expect"),
			fields: map[string]string{"probe.expect.#": "1", "verdict": "UNKNOWN"},
		},
		{
			name: "and a run meets them", call: "MonitorService/RunMonitor", request: `{"name": "mon-expect"}`,
			fields: map[string]string{"met": "true", "report.met": "true", "report.verdicts.#": "1"},
		},
		{
			name: "older runs have the verdicts that were not met", call: "MonitorService/GetMonitor", request: `{"name": "mon-expect"}`,
			fields: map[string]string{"verdict": "MET", "history.1.report.met": "false", "history.1.report.verdicts.#": "1", "history.1.report.verdicts.0.expect": "received > 1", "history.1.report.rtt.buckets.#": "0"},
		},
		{name: "an expectation that is none", call: "MonitorService/CreateMonitor", request: create(`{"probe": {"target": {"endpoint": "never"}, "expect": ["lost == 0", "nonsense"]}}`), code: bad, reason: "BAD_VALUE", field: "monitor.probe.expect[1]", says: "nonsense"},
		{name: "an expectation that is empty", call: "MonitorService/UpdateMonitor", request: update("mon-expect", `{"probe": {"expect": [""]}}`, "probe.expect"), code: bad, reason: "BAD_VALUE", field: "monitor.probe.expect[0]"},

		{
			name: "run one whose endpoint is not there", call: "MonitorService/RunMonitor", request: `{"name": "mon-gone"}`,
			fields: map[string]string{"met": "false", "failure": `no such endpoint: "never"`, "report": "absent"},
		},
		{name: "run none", call: "MonitorService/RunMonitor", request: `{"name": "none"}`, code: codes.NotFound, reason: "MONITOR_NOT_FOUND"},

		{name: "list a page of monitors", call: "MonitorService/ListMonitors", request: `{"pageSize": 2}`, fields: map[string]string{"monitors.#": "2", "monitors.0.name": "mon-1", "monitors.0.history.#": "0", "monitors.0.lastRun.met": "true", "monitors.0.lastRun.report.rtt.buckets.#": "0"}},
		{name: "list monitors by filter", call: "MonitorService/ListMonitors", request: `{"filter": "labels.rack = \"r1\" AND verdict = MET AND endpoint = \"watched\" AND NOT state = RUNNING"}`, fields: map[string]string{"monitors.#": "1", "monitors.0.name": "mon-1"}},
		{name: "list monitors by address", call: "MonitorService/ListMonitors", request: `{"filter": "address = \"127.0.0.1:*\" state = PAUSED verdict = UNKNOWN"}`, fields: map[string]string{"monitors.#": "1"}},
		{name: "bad filter of monitors", call: "MonitorService/ListMonitors", request: `{"filter": "port = 7"}`, code: bad, reason: "BAD_VALUE", field: "filter", says: "verdict"},
		{name: "bad page token of monitors", call: "MonitorService/ListMonitors", request: `{"pageToken": "Zm9v"}`, code: bad, reason: "BAD_PAGE_TOKEN", field: "page_token"},
		{name: "negative page size of monitors", call: "MonitorService/ListMonitors", request: `{"pageSize": -1}`, code: bad, reason: "BAD_VALUE", field: "page_size"},

		{
			name: "update a monitor's labels", call: "MonitorService/UpdateMonitor", request: update("mon-1", `{"labels": {"rack": "r2"}, "description": "not asked for"}`, "labels"),
			fields: map[string]string{"labels.rack": "r2", "description": "first", "verdict": "MET"},
		},
		{
			name: "update a part of the probe", call: "MonitorService/UpdateMonitor", request: update("mon-1", `{"probe": {"count": 3}}`, "probe.count"),
			fields: map[string]string{"probe.count": "3", "probe.timeout": "60s", "probe.target.endpoint": "watched", "verdict": "UNKNOWN", "since": "absent", "history.0.met": "true"},
		},
		{
			name: "a rate takes the interval's place", call: "MonitorService/UpdateMonitor", request: `{"name": "mon-1", "monitor": {"probe": {"rate": 50}}}`,
			fields: map[string]string{"probe.rate": "50", "probe.interval": "absent", "probe.count": "3"},
		},
		{
			name: "and the interval the rate's", call: "MonitorService/UpdateMonitor", request: update("mon-1", `{"probe": {"interval": "0.002s"}}`, "probe.interval"),
			fields: map[string]string{"probe.rate": "absent", "probe.interval": "0.002s"},
		},
		{
			name: "a sweep takes the size's place", call: "MonitorService/UpdateMonitor", request: `{"name": "mon-1", "monitor": {"probe": {"payloadSweep": {"from": 64, "to": 128, "step": 64}}}}`,
			fields: map[string]string{"probe.payloadSweep.to": "128", "probe.payloadSize": "absent"},
		},
		{
			name: "and the size the sweep's", call: "MonitorService/UpdateMonitor", request: update("mon-1", `{"probe": {"payloadSize": 99}}`, "probe.payloadSize"),
			fields: map[string]string{"probe.payloadSweep": "absent", "probe.payloadSize": "99"},
		},
		{
			name: "a target is changed as a whole", call: "MonitorService/UpdateMonitor", request: `{"name": "mon-1", "monitor": {"probe": {"target": {"address": "127.0.0.1:1", "protocol": "UDP"}}}}`,
			fields: map[string]string{"probe.target.endpoint": "", "probe.target.address": "127.0.0.1:1", "probe.payloadSize": "99"},
		},
		{
			name: "a path that a monitor lacks is set back", call: "MonitorService/UpdateMonitor", request: update("mon-1", `{}`, "interval,historyLimit,probe.payloadSize,description"),
			fields: map[string]string{"interval": "60s", "historyLimit": "10", "probe.payloadSize": "absent", "description": ""},
		},
		{name: "the probe cannot be taken away", call: "MonitorService/UpdateMonitor", request: update("mon-1", `{}`, "probe"), code: bad, reason: "BAD_VALUE", field: "monitor", says: "probe is missing"},
		{name: "nor its target", call: "MonitorService/UpdateMonitor", request: update("mon-1", `{}`, "probe.target"), code: bad, reason: "BAD_VALUE", field: "monitor.probe.target"},
		{name: "a value out of range", call: "MonitorService/UpdateMonitor", request: update("mon-1", `{"historyLimit": 1000}`, "historyLimit"), code: bad, reason: "BAD_VALUE", field: "monitor.history_limit"},
		{name: "a probe's value out of range", call: "MonitorService/UpdateMonitor", request: update("mon-1", `{"probe": {"flows": 1000}}`, "probe.flows"), code: bad, reason: "BAD_VALUE", field: "monitor.probe.flows"},
		{
			name: "output-only fields of a monitor are ignored", call: "MonitorService/UpdateMonitor",
			request: update("mon-1", `{"name": "mon-1", "uid": "x", "state": "RUNNING", "verdict": "NOT_MET", "probe": {"uid": "y"}, "description": "back"}`, "name,uid,state,verdict,probe.uid,description"),
			fields:  map[string]string{"state": "PAUSED", "verdict": "UNKNOWN", "description": "back", "probe.uid": ""},
		},
		{name: "unknown path of a monitor", call: "MonitorService/UpdateMonitor", request: update("mon-1", `{}`, "probe.cuont"), code: bad, reason: "BAD_VALUE", field: "update_mask", says: "cuont"},
		{name: "another name for a monitor", call: "MonitorService/UpdateMonitor", request: update("mon-1", `{"name": "mon-2"}`, "name"), code: bad, reason: "BAD_VALUE", field: "monitor.name"},
		{name: "stale etag of a monitor", call: "MonitorService/UpdateMonitor", request: update("mon-1", `{"etag": "old", "description": "x"}`, "description"), code: codes.Aborted, reason: "STALE_ETAG"},
		{name: "update a monitor, validate only", call: "MonitorService/UpdateMonitor", request: `{"name": "mon-1", "monitor": {"description": "dry"}, "updateMask": "description", "validateOnly": true}`, fields: map[string]string{"description": "dry"}},
		{name: "it changed nothing", call: "MonitorService/GetMonitor", request: `{"name": "mon-1"}`, fields: map[string]string{"description": "back"}},
		{
			name: "a monitor of an endpoint to come", call: "MonitorService/CreateMonitor",
			request: create(`{"name": "mon-early", "paused": true, "probe": {"target": {"endpoint": "to-come"}, "tcp": {"newConnection": true}}}`),
		},
		{name: "which comes, and is another", call: "EndpointService/CreateEndpoint", request: `{"endpoint": {"name": "to-come", "protocol": "UDP"}}`},
		{name: "that is a run's to find out", call: "MonitorService/RunMonitor", request: `{"name": "mon-early"}`, fields: map[string]string{"met": "false", "failure": `probe.tcp: is for TCP, but endpoint "to-come" speaks UDP; leave it out`}},
		{name: "and keeps from no other change", call: "MonitorService/UpdateMonitor", request: update("mon-early", `{"description": "x"}`, "description"), fields: map[string]string{"description": "x"}},
		{name: "but from one of the probe", call: "MonitorService/UpdateMonitor", request: update("mon-early", `{"probe": {"count": 2}}`, "probe.count"), code: bad, reason: "BAD_VALUE", field: "monitor.probe.tcp"},
		{name: "update no monitor", call: "MonitorService/UpdateMonitor", request: update("none", `{"description": "x"}`, "description"), code: codes.NotFound, reason: "MONITOR_NOT_FOUND"},
		{
			name: "allow missing creates a monitor", call: "MonitorService/UpdateMonitor",
			request: `{"name": "mon-made", "monitor": {"probe": {"target": {"endpoint": "watched"}}, "paused": true}, "updateMask": "probe.target,paused", "allowMissing": true}`,
			fields:  map[string]string{"name": "mon-made", "state": "PAUSED", "probe.target.endpoint": "watched", "interval": "60s"},
		},
		{
			name: "and the same again changes nothing", call: "MonitorService/UpdateMonitor",
			request: `{"name": "mon-made", "monitor": {"probe": {"target": {"endpoint": "watched"}}, "paused": true}, "updateMask": "probe.target,paused", "allowMissing": true}`,
			fields:  map[string]string{"name": "mon-made", "state": "PAUSED"},
		},
		{name: "allow missing with an etag", call: "MonitorService/UpdateMonitor", request: `{"name": "none", "monitor": {"etag": "old", ` + probe + `}, "allowMissing": true}`, code: codes.Aborted, reason: "STALE_ETAG"},

		{name: "a run of what nobody answers", call: "MonitorService/RunMonitor", request: `{"name": "mon-1"}`, fields: map[string]string{"met": "false", "failure": "", "report.received": "0"}},
		{name: "its verdict", call: "MonitorService/GetMonitor", request: `{"name": "mon-1"}`, fields: map[string]string{"verdict": "NOT_MET", "state": "PAUSED", "counters.failures": "1"}},
		{name: "resume", call: "MonitorService/ResumeMonitor", request: `{"name": "mon-1"}`, fields: map[string]string{"paused": "false", "verdict": "NOT_MET"}},
		{name: "pause none", call: "MonitorService/PauseMonitor", request: `{"name": "none"}`, code: codes.NotFound, reason: "MONITOR_NOT_FOUND"},
		{name: "resume none", call: "MonitorService/ResumeMonitor", request: `{"name": "none"}`, code: codes.NotFound, reason: "MONITOR_NOT_FOUND"},
		{name: "bad name of a monitor in the path", call: "MonitorService/GetMonitor", request: `{"name": "NO"}`, code: bad, reason: "BAD_VALUE", field: "name"},

		{name: "delete a monitor with a stale etag", call: "MonitorService/DeleteMonitor", request: `{"name": "mon-1", "etag": "old"}`, code: codes.Aborted, reason: "STALE_ETAG"},
		{name: "delete a monitor", call: "MonitorService/DeleteMonitor", request: `{"name": "mon-1"}`},
		{name: "delete it again", call: "MonitorService/DeleteMonitor", request: `{"name": "mon-1"}`, code: codes.NotFound, reason: "MONITOR_NOT_FOUND"},
	}
}

// callREST calls a daemon's REST API, which must answer 200.
func callREST(t *testing.T, d *testDaemon, method, path, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(testContext(t), method, "http://"+d.HTTP+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %d %s %v", method, path, resp.StatusCode, text, err)
	}
	return string(text)
}

// TestMonitorThatWasGotCanBeSentBack edits what a GET answered, its history included, and PATCHes it as a whole.
func TestMonitorThatWasGotCanBeSentBack(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	callREST(t, d, "POST", "/v1/monitors", `{"name":"m","probe":{"target":{"address":"127.0.0.1:1","protocol":"UDP"},"count":1},"interval":"1h","description":"before"}`)
	callREST(t, d, "POST", "/v1/monitors/m:run", `{}`)
	got := callREST(t, d, "GET", "/v1/monitors/m", "")
	after := []byte(callREST(t, d, "PATCH", "/v1/monitors/m", strings.Replace(got, "before", "after", 1)))
	if text := jsonPath(after, "description"); text != "after" {
		t.Errorf("description = %s, want after", text)
	}
	for _, kept := range []string{"uid", "state", "verdict", "since", "interval", "probe.target.address", "probe.count", "createTime", "history.0.startTime"} {
		if a, b := jsonPath([]byte(got), kept), jsonPath(after, kept); a != b {
			t.Errorf("%s was %s and is %s", kept, a, b)
		}
	}
}

// TestMonitorsGoOnAfterARestart has an endpoint that comes and goes beneath a monitor, and a daemon that is started again.
func TestMonitorsGoOnAfterARestart(t *testing.T) {
	c := testConfig(t)
	c.StateDir = t.TempDir()
	d := startDaemon(t, c)
	callREST(t, d, "POST", "/v1/endpoints", `{"name":"w","protocol":"TCP"}`)
	made := callREST(t, d, "POST", "/v1/monitors", `{"name":"m","probe":{"target":{"endpoint":"w"},"count":1,"timeout":"60s"},"interval":"1s","labels":{"a":"b"}}`)
	callREST(t, d, "POST", "/v1/endpoints/w:stop", `{}`)
	stopped := callREST(t, d, "POST", "/v1/monitors/m:run", `{}`)
	if failure := jsonPath([]byte(stopped), "failure"); !strings.Contains(failure, "STOPPED") {
		t.Errorf("a run to a stopped endpoint: %s", stopped)
	}
	callREST(t, d, "POST", "/v1/endpoints/w:start", `{}`)
	d.stop(t)

	d = startDaemon(t, c)
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		back := []byte(callREST(t, d, "GET", "/v1/monitors/m", ""))
		for _, kept := range []string{"uid", "etag", "createTime", "labels.a"} {
			if a, b := jsonPath([]byte(made), kept), jsonPath(back, kept); a != b {
				t.Fatalf("%s was %s and is %s", kept, a, b)
			}
		}
		if jsonPath(back, "verdict") == "MET" {
			break // it ran by itself
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not run: %s", back)
		}
	}
}

// TestManyMonitorsInOneAnswer keeps a list of 1,000 that have run within what gRPC clients take.
func TestManyMonitorsInOneAnswer(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	monitors := echov1.NewMonitorServiceClient(d.dial(t, d.GRPC))
	callREST(t, d, "POST", "/v1/endpoints", `{"name":"w","protocol":"UDP"}`)
	const many = 1000
	for i := range many {
		name := fmt.Sprintf("m-%d", i)
		if _, err := monitors.CreateMonitor(testContext(t), &echov1.CreateMonitorRequest{Monitor: &echov1.Monitor{
			Name: name, Paused: true, Labels: map[string]string{"rack": "r1", "role": "web"},
			Probe: &echov1.Probe{Target: &echov1.ProbeTarget{Endpoint: "w"}, Count: proto.Uint32(8), Flows: proto.Uint32(4), Interval: durationOf("0s"), Timeout: durationOf("60s")},
		}}); err != nil {
			t.Fatal(err)
		}
		if _, err := monitors.RunMonitor(testContext(t), &echov1.RunMonitorRequest{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	page, err := monitors.ListMonitors(testContext(t), &echov1.ListMonitorsRequest{PageSize: many})
	if err != nil || len(page.GetMonitors()) != many || page.GetNextPageToken() != "" {
		t.Errorf("%d monitors in %d bytes, %v", len(page.GetMonitors()), proto.Size(page), err)
	}
	for _, m := range page.GetMonitors() {
		if m.GetVerdict() != echov1.Monitor_MET {
			t.Fatalf("a run failed: %v", m)
		}
	}
}

// TestMonitorsShareTheBudget of the daemon's probes: what passes skips a run, what does not fails it.
func TestMonitorsShareTheBudget(t *testing.T) {
	c := testConfig(t)
	c.ProbeLimits = ProbeLimits{Probes: 1, Rate: 1000}
	c.ProbeDeny = []string{"198.51.100.0/24"}
	d := startDaemon(t, c)
	callREST(t, d, "POST", "/v1/endpoints", `{"name":"w","protocol":"UDP"}`)
	for name, probe := range map[string]string{
		"m": `{"target":{"endpoint":"w"},"count":1,"timeout":"60s"}`, "fast": `{"target":{"endpoint":"w"},"rate":100000}`,
		"denied": `{"target":{"address":"198.51.100.1:7","protocol":"UDP"}}`,
	} {
		callREST(t, d, "POST", "/v1/monitors", fmt.Sprintf(`{"name":%q,"probe":%s,"paused":true}`, name, probe))
	}
	monitors := echov1.NewMonitorServiceClient(d.dial(t, d.GRPC))
	run := func(name string) (*echov1.MonitorRun, error) {
		return monitors.RunMonitor(testContext(t), &echov1.RunMonitorRequest{Name: name})
	}
	callREST(t, d, "POST", "/v1/probes", `{"name":"p","target":{"endpoint":"w"},"count":0}`)
	if _, err := run("m"); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "--max-probes") {
		t.Errorf("while another runs: %v", err)
	}
	got := []byte(callREST(t, d, "GET", "/v1/monitors/m", ""))
	if skipped, runs := jsonPath(got, "counters.skipped"), jsonPath(got, "counters.runs"); skipped != "1" || runs != "0" {
		t.Errorf("%s skipped and %s runs, want 1 and 0", skipped, runs)
	}
	callREST(t, d, "POST", "/v1/probes/p:stop", `{}`)
	for name, failure := range map[string]string{"m": "", "fast": "--max-probe-rate", "denied": "198.51.100.1"} {
		r, err := run(name)
		if err != nil || r.GetMet() != (failure == "") || !strings.Contains(r.GetFailure(), failure) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}
