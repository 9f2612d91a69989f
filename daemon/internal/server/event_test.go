package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

func eventCases() []contractCase {
	const bad = codes.InvalidArgument
	return []contractCase{
		{name: "watch with a bad filter", call: "EventService/WatchEvents", request: `{"filter": "colour = 1"}`, code: bad, reason: "BAD_VALUE", field: "filter", says: "type, kind, name, state, labels.KEY"},
		{name: "watch endpoints with a bad filter", call: "EventService/WatchEndpoints", request: `{"filter": "kind = endpoint"}`, code: bad, reason: "BAD_VALUE", field: "filter"},
		{name: "watch with a long filter", call: "EventService/WatchEvents", request: `{"filter": "` + strings.Repeat("a", 4097) + `"}`, code: bad, reason: "BAD_VALUE", field: "filter"},
		{name: "watch with a token of nobody's", call: "EventService/WatchEvents", request: `{"resumeToken": "bm9uc2Vuc2U"}`, code: bad, reason: "BAD_RESUME_TOKEN", field: "resume_token", says: "watch without one"},
		{name: "watch endpoints with a token of nobody's", call: "EventService/WatchEndpoints", request: `{"resumeToken": "!"}`, code: bad, reason: "BAD_RESUME_TOKEN", field: "resume_token"},
		{name: "watch with a long token", call: "EventService/WatchEvents", request: `{"resumeToken": "` + strings.Repeat("a", 1025) + `"}`, code: bad, reason: "BAD_VALUE", field: "resume_token"},
		{name: "watch changes behind a token", call: "EventService/WatchEvents", request: `{"resumeToken": "a", "changesOnly": true}`, code: bad, reason: "BAD_VALUE", field: "changes_only"},
		{name: "watch too little traffic", call: "EventService/WatchEvents", request: `{"trafficOneIn": 1000001}`, code: bad, reason: "BAD_VALUE", field: "traffic_one_in"},
	}
}

// watching is a watch as its client sees it.
type watching struct {
	next  func() (*echov1.WatchEventsResponse, error)
	leave context.CancelFunc
}

// watchers begin a watch of everything, or of endpoints alone, over each transport.
var watchers = map[string]func(*testing.T, *testDaemon, *echov1.WatchEventsRequest) *watching{
	"grpc": watchGRPC,
	"rest": func(t *testing.T, d *testDaemon, req *echov1.WatchEventsRequest) *watching {
		return watchREST(t, d, "/v1/events:watch", req)
	},
}

func watchGRPC(t *testing.T, d *testDaemon, req *echov1.WatchEventsRequest) *watching {
	t.Helper()
	ctx, leave := context.WithCancel(testContext(t))
	stream, err := echov1.NewEventServiceClient(d.dial(t, d.GRPC)).WatchEvents(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return &watching{stream.Recv, leave}
}

func watchREST(t *testing.T, d *testDaemon, path string, req *echov1.WatchEventsRequest) *watching {
	t.Helper()
	ctx, leave := context.WithCancel(testContext(t))
	query := url.Values{}
	for name, value := range map[string]string{"filter": req.GetFilter(), "resumeToken": req.GetResumeToken()} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if req.GetChangesOnly() {
		query.Set("changesOnly", "true")
	}
	if oneIn := req.GetTrafficOneIn(); oneIn > 0 {
		query.Set("trafficOneIn", strconv.FormatUint(uint64(oneIn), 10))
	}
	httpReq, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.HTTP+path+"?"+query.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	resp, err := http.DefaultClient.Do(httpReq)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	lines := bufio.NewReader(resp.Body)
	return &watching{func() (*echov1.WatchEventsResponse, error) {
		text, err := lines.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		var line struct{ Result, Error json.RawMessage }
		if err := json.Unmarshal(text, &line); err != nil {
			return nil, fmt.Errorf("%w: %s", err, text)
		}
		if line.Error != nil {
			return nil, readStatus(t, 0, line.Error)
		}
		m := &echov1.WatchEventsResponse{}
		return m, protojson.Unmarshal(line.Result, m)
	}, leave}
}

// until reads until an event of that type has come, and answers the events, "TYPE NAME" each, and the last message.
func (w *watching) until(t *testing.T, last echov1.Event_Type, names ...string) (all []string, m *echov1.WatchEventsResponse) {
	t.Helper()
	for {
		m, err := w.next()
		if err != nil {
			t.Fatalf("after %q: %v", all, err)
		}
		e := m.GetEvent()
		if e.GetType() == echov1.Event_HEARTBEAT {
			continue
		}
		name := e.GetEndpoint().GetName() + e.GetMonitor().GetName() + e.GetProbe().GetName()
		if e.GetDaemon() != nil {
			name = e.GetDaemon().GetState().String()
		}
		all = append(all, strings.TrimSpace(e.GetType().String()+" "+name))
		if e.GetType() == last && (len(names) == 0 || slices.Contains(names, name)) {
			return all, m
		}
	}
}

func TestAWatchTellsWhatHappensAndGoesOn(t *testing.T) {
	for name, watch := range watchers {
		t.Run(name, func(t *testing.T) {
			d := startDaemon(t, testConfig(t))
			endpoints := echov1.NewEndpointServiceClient(d.dial(t, d.GRPC))
			mustCreate(t, endpoints, &echov1.Endpoint{Name: "b", Protocol: echov1.Protocol_TCP})
			mustCreate(t, endpoints, &echov1.Endpoint{Name: "a", Protocol: echov1.Protocol_UDP})
			w := watch(t, d, &echov1.WatchEventsRequest{})
			all, m := w.until(t, echov1.Event_SYNCED)
			if want := []string{"EXISTING READY", "EXISTING a", "EXISTING b", "SYNCED"}; !slices.Equal(all, want) {
				t.Errorf("told %q, want %q", all, want)
			}
			if m.GetResumeToken() == "" {
				t.Error("no token")
			}
			ctx := testContext(t)
			e, err := endpoints.StopEndpoint(ctx, &echov1.StopEndpointRequest{Name: "a"})
			if err != nil {
				t.Fatal(err)
			}
			all, m = w.until(t, echov1.Event_STATE_CHANGED)
			if got := m.GetEvent().GetEndpoint(); got.GetState() != echov1.Endpoint_STOPPED || got.GetEtag() != e.GetEtag() || got.Counters != nil || len(all) != 1 {
				t.Errorf("told %q, of %v", all, got)
			}
			w.leave()
			if _, err := endpoints.DeleteEndpoint(ctx, &echov1.DeleteEndpointRequest{Name: "a"}); err != nil {
				t.Fatal(err)
			}
			mustCreate(t, endpoints, &echov1.Endpoint{Name: "c", Protocol: echov1.Protocol_TCP})
			w = watch(t, d, &echov1.WatchEventsRequest{ResumeToken: m.GetResumeToken()})
			mustCreate(t, endpoints, &echov1.Endpoint{Name: "d", Protocol: echov1.Protocol_TCP})
			all, next := w.until(t, echov1.Event_CREATED, "d")
			if want := []string{"DELETED a", "CREATED c", "CREATED d"}; !slices.Equal(all, want) || next.GetEvent().GetRevision() != m.GetEvent().GetRevision()+3 {
				t.Errorf("resumed, told %q to revision %d, want %q", all, next.GetEvent().GetRevision(), want)
			}
			w.leave()
			// The daemon that comes next knows nothing of that.
			d.stop(t)
			d = startDaemon(t, testConfig(t))
			w = watch(t, d, &echov1.WatchEventsRequest{ResumeToken: next.GetResumeToken()})
			if _, err := w.next(); status.Code(err) != codes.OutOfRange || reasonOf(err) != "RESUME_TOKEN_EXPIRED" {
				t.Errorf("a token of another life: %v", err)
			}
			w.leave()
		})
	}
}

// TestProbesAndMonitorsAreWatched tells of what is no endpoint.
func TestProbesAndMonitorsAreWatched(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	conn := d.dial(t, d.GRPC)
	mustCreate(t, echov1.NewEndpointServiceClient(conn), &echov1.Endpoint{Name: "e", Protocol: echov1.Protocol_UDP})
	target := &echov1.ProbeTarget{Endpoint: "e"}
	w := watchREST(t, d, "/v1/events:watch", &echov1.WatchEventsRequest{Filter: "kind = probe OR kind = monitor", ChangesOnly: true})
	w.until(t, echov1.Event_SYNCED)
	ctx := testContext(t)
	if _, err := echov1.NewProbeServiceClient(conn).RunProbe(ctx, &echov1.RunProbeRequest{Probe: &echov1.Probe{
		Name: "p", Target: target, Count: new(uint32(1)), Timeout: durationOf("30s"), Expect: []string{"loss == 0%"},
	}}); err != nil {
		t.Fatal(err)
	}
	all, m := w.until(t, echov1.Event_STATE_CHANGED)
	if report := m.GetEvent().GetProbe().GetReport(); len(all) != 2 || report.GetReceived() != 1 || len(report.GetVerdicts()) != 1 || !report.GetVerdicts()[0].GetMet() {
		t.Errorf("told %q, with %v", all, report)
	}
	monitors := echov1.NewMonitorServiceClient(conn)
	if _, err := monitors.CreateMonitor(ctx, &echov1.CreateMonitorRequest{Monitor: &echov1.Monitor{
		Name: "m", Probe: &echov1.Probe{Target: target, Count: new(uint32(1)), Timeout: durationOf("30s")}, Interval: durationOf("24h"),
	}}); err != nil {
		t.Fatal(err)
	}
	if _, err := monitors.RunMonitor(ctx, &echov1.RunMonitorRequest{Name: "m"}); err != nil {
		t.Fatal(err)
	}
	all, m = w.until(t, echov1.Event_STATE_CHANGED)
	if want := []string{"CREATED m", "RUN_ENDED m", "STATE_CHANGED m"}; !slices.Equal(all, want) || m.GetEvent().GetMonitor().GetVerdict() != echov1.Monitor_MET {
		t.Errorf("told %q, want %q; then %v", all, want, m)
	}
	w.leave()
}

func TestAWatchOfEndpointsIsAView(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	conn := d.dial(t, d.GRPC)
	endpoints := echov1.NewEndpointServiceClient(conn)
	mustCreate(t, endpoints, &echov1.Endpoint{Name: "a", Protocol: echov1.Protocol_TCP, Labels: map[string]string{"rack": "r1"}})
	mustCreate(t, endpoints, &echov1.Endpoint{Name: "b", Protocol: echov1.Protocol_TCP, Labels: map[string]string{"rack": "r2"}})
	w := watchREST(t, d, "/v1/endpoints:watch", &echov1.WatchEventsRequest{Filter: `labels.rack = "r1"`})
	ctx, leave := context.WithCancel(testContext(t))
	defer leave()
	stream, err := echov1.NewEventServiceClient(conn).WatchEndpoints(ctx, &echov1.WatchEndpointsRequest{Filter: `labels.rack = "r1"`})
	if err != nil {
		t.Fatal(err)
	}
	over := map[string]*watching{"rest": w, "grpc": {stream.Recv, leave}}
	for name, w := range over {
		if all, _ := w.until(t, echov1.Event_SYNCED); !slices.Equal(all, []string{"EXISTING a", "SYNCED"}) {
			t.Errorf("%s: told %q", name, all)
		}
	}
	for name, rack := range map[string]string{"a": "r2", "b": "r1"} {
		if _, err := endpoints.UpdateEndpoint(ctx, &echov1.UpdateEndpointRequest{Name: name, Endpoint: &echov1.Endpoint{Labels: map[string]string{"rack": rack}}}); err != nil {
			t.Fatal(err)
		}
	}
	mustCreate(t, endpoints, &echov1.Endpoint{Name: "last", Protocol: echov1.Protocol_TCP, Labels: map[string]string{"rack": "r1"}})
	for name, w := range over {
		all, _ := w.until(t, echov1.Event_CREATED)
		if slices.Sort(all); !slices.Equal(all, []string{"CREATED last", "DELETED a", "UPDATED b"}) {
			t.Errorf("%s: told %q", name, all)
		}
		w.leave()
	}
}

// TestARESTWatchOutlivesEveryTimeout has timeouts of a second, and a watch that is silent for five and then told of something.
func TestARESTWatchOutlivesEveryTimeout(t *testing.T) {
	t.Parallel()
	config := testConfig(t)
	config.httpTimes = httpTimes{header: time.Second, idle: time.Second, body: time.Second, write: time.Second}
	d := startDaemon(t, config)
	w := watchREST(t, d, "/v1/events:watch", &echov1.WatchEventsRequest{Filter: "kind = endpoint"})
	w.until(t, echov1.Event_SYNCED)
	<-time.After(5 * time.Second)
	mustCreate(t, echov1.NewEndpointServiceClient(d.dial(t, d.GRPC)), &echov1.Endpoint{Name: "a", Protocol: echov1.Protocol_TCP})
	if all, _ := w.until(t, echov1.Event_CREATED); !slices.Equal(all, []string{"CREATED a"}) {
		t.Errorf("told %q", all)
	}
	w.leave()
}

func TestAStopEndsWatches(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	mustCreate(t, echov1.NewEndpointServiceClient(d.dial(t, d.GRPC)), &echov1.Endpoint{Name: "a", Protocol: echov1.Protocol_TCP})
	open := map[string]*watching{}
	for name, watch := range watchers {
		open[name] = watch(t, d, &echov1.WatchEventsRequest{ChangesOnly: true})
		open[name].until(t, echov1.Event_SYNCED)
	}
	d.stop(t)
	for name, w := range open {
		if all, m := w.until(t, echov1.Event_STATE_CHANGED, "a"); !slices.Equal(all, []string{"STATE_CHANGED STOPPING", "STATE_CHANGED a"}) || m.GetEvent().GetEndpoint().GetState() != echov1.Endpoint_DRAINING {
			t.Errorf("%s: told %q", name, all)
		}
		if _, err := w.next(); status.Code(err) != codes.Unavailable || reasonOf(err) != "SHUTTING_DOWN" {
			t.Errorf("%s: ended with %v", name, err)
		}
		w.leave()
	}
}

func TestThereIsAnEndToWatches(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	ctx, leave := context.WithCancel(testContext(t))
	defer leave()
	const each = maxWatches / 4 // of a connection: gRPC has a bound of its own there
	var streams []grpc.ServerStreamingClient[echov1.WatchEventsResponse]
	for range 4 {
		events := echov1.NewEventServiceClient(d.dial(t, d.GRPC))
		for range each {
			stream, err := events.WatchEndpoints(ctx, &echov1.WatchEndpointsRequest{ChangesOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			streams = append(streams, stream)
		}
	}
	for _, stream := range streams {
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	for name, watch := range watchers {
		w := watch(t, d, &echov1.WatchEventsRequest{})
		if _, err := w.next(); status.Code(err) != codes.ResourceExhausted || reasonOf(err) != "TOO_MANY_WATCHES" {
			t.Errorf("%s: one more: %v", name, err)
		}
		w.leave()
	}
	leave()
	for {
		w := watchGRPC(t, d, &echov1.WatchEventsRequest{})
		_, err := w.next()
		w.leave()
		if err == nil {
			return // those that left are counted no more
		}
		if status.Code(err) != codes.ResourceExhausted {
			t.Fatal(err)
		}
	}
}

func TestAStreamHasNoHead(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	for path, want := range map[string]int{"/v1/events:watch": 405, "/v1/endpoints:watch": 405, "/v1/endpoints": 200} {
		resp, err := http.Head("http://" + d.HTTP + path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != want || want == 405 && resp.Header.Get("Allow") != "GET" {
			t.Errorf("HEAD %s: %d, Allow: %q", path, resp.StatusCode, resp.Header.Get("Allow"))
		}
	}
}
