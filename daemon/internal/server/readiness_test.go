package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/health"
	"github.com/echod/echod/daemon/internal/registry"
	"github.com/echod/echod/daemon/internal/rpc"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

func readinessCases() []contractCase {
	return []contractCase{
		{
			name: "readiness", call: "DaemonService/GetReadiness", request: `{}`,
			fields: map[string]string{"state": "READY", "checks.#": "4"},
			check: func(t *testing.T, replies []proto.Message) {
				want := "restored READY, state READY, endpoints READY, draining READY"
				if got := checkTexts(replies[0].(*echov1.Readiness)); got != want {
					t.Errorf("checks %s, want %s", got, want)
				}
			},
		},
		{name: "what was before", call: "DaemonService/GetInfo", request: `{}`, fields: map[string]string{"start": "START_UNSPECIFIED"}},
	}
}

// checkTexts writes checks with their states and messages.
func checkTexts(r *echov1.Readiness) string {
	texts := make([]string, 0, len(r.GetChecks()))
	for _, c := range r.GetChecks() {
		text := c.GetName() + " " + c.GetState().String()
		if c.GetMessage() != "" {
			text += " (" + c.GetMessage() + ")"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

// fetch gets a page of REST.
func fetch(t *testing.T, method, url string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(testContext(t), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// watchHealth answers what comes next of a watch of grpc.health.v1.
func watchHealth(t *testing.T, d *testDaemon, target, service string) func() grpc_health_v1.HealthCheckResponse_ServingStatus {
	t.Helper()
	watch, err := grpc_health_v1.NewHealthClient(d.dial(t, target)).Watch(testContext(t), &grpc_health_v1.HealthCheckRequest{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	return func() grpc_health_v1.HealthCheckResponse_ServingStatus {
		resp, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetStatus()
	}
}

// until asks for readiness until it is in that state.
func until(t *testing.T, client echov1.DaemonServiceClient, want echov1.Readiness_State) *echov1.Readiness {
	t.Helper()
	ctx := testContext(t)
	for {
		now, err := client.GetReadiness(ctx, &echov1.GetReadinessRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if now.GetState() == want {
			return now
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestWhileItRestores holds a daemon in the middle of its start.
func TestWhileItRestores(t *testing.T) {
	c := testConfig(t)
	begun, release := make(chan Ready, 1), make(chan struct{})
	c.restoring = func(r Ready) { begun <- r; <-release }
	var where Ready
	checked := make(chan error, 1)
	d := startDaemonBy(t, c, func(run func()) {
		go run()
		where = <-begun
		d := &testDaemon{Ready: where}
		conn := d.dial(t, where.GRPC)
		daemon, ctx := echov1.NewDaemonServiceClient(conn), testContext(t)
		now, err := daemon.GetReadiness(ctx, &echov1.GetReadinessRequest{})
		if err != nil || now.GetState() != echov1.Readiness_NOT_READY || now.GetChecks()[0].GetState() != echov1.Readiness_NOT_READY {
			t.Errorf("readiness: %v, %v", now, err)
		}
		if code, text := fetch(t, http.MethodGet, "http://"+where.HTTP+"/healthz"); code != http.StatusOK || text != "ok\n" {
			t.Errorf("healthz: %d %s", code, text)
		}
		code, text := fetch(t, http.MethodGet, "http://"+where.HTTP+"/readyz?verbose")
		if want := "[-] restored: the daemon is starting and brings back what its state directory holds\n[+] state: ok\n[+] endpoints: ok\n[+] draining: ok\nnot ready\n"; code != http.StatusServiceUnavailable || text != want {
			t.Errorf("readyz: %d %s", code, text)
		}
		if code, text := fetch(t, http.MethodGet, "http://"+where.HTTP+"/v1/readiness"); code != http.StatusOK || !strings.Contains(text, `"NOT_READY"`) {
			t.Errorf("readiness over REST: %d %s", code, text)
		}
		// All else waits, for as long as its caller does.
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		if _, err := daemon.GetInfo(short, &echov1.GetInfoRequest{}); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("info: %v", err)
		}
		serving := watchHealth(t, d, where.GRPC, "echo.v1.EndpointService")
		if got := serving(); got != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
			t.Errorf("health: %v", got)
		}
		go func() {
			_, err := daemon.GetInfo(ctx, &echov1.GetInfoRequest{})
			checked <- err
		}()
		close(release)
		if got := serving(); got != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("health: %v", got)
		}
	})
	if err := <-checked; err != nil {
		t.Errorf("a call that waited: %v", err)
	}
	if d.GRPC != where.GRPC {
		t.Errorf("ready at %s, was at %s", d.GRPC, where.GRPC)
	}
}

// TestAStopWhileItRestores ends a daemon that was never ready.
func TestAStopWhileItRestores(t *testing.T) {
	c := testConfig(t)
	c.DrainDelay = time.Hour // nobody was told that it is ready, so nobody has to be told that it is not
	begun, release := make(chan Ready, 1), make(chan struct{})
	c.restoring = func(r Ready) { begun <- r; <-release }
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	d := &testDaemon{cancel: cancel, ended: make(chan error, 1)}
	go func() { d.ended <- Run(ctx, c) }()
	d.Ready = <-begun
	waiting := make(chan error, 1)
	conn := d.dial(t, d.GRPC)
	serving := watchHealth(t, d, d.GRPC, "")
	serving() // so that it is connected
	go func() {
		_, err := echov1.NewDaemonServiceClient(conn).GetInfo(testContext(t), &echov1.GetInfoRequest{})
		waiting <- err
	}()
	cancel()
	close(release)
	if err := <-waiting; status.Code(err) != codes.Unavailable {
		t.Errorf("a call that waited: %v", err)
	}
	d.stop(t)
}

// TestFailedEndpointsAreTold restarts a daemon whose port somebody has taken meanwhile.
func TestFailedEndpointsAreTold(t *testing.T) {
	for _, strict := range []bool{false, true} {
		t.Run(fmt.Sprint("strict ", strict), func(t *testing.T) {
			c := testConfig(t)
			c.StateDir, c.StrictReady = filepath.Join(t.TempDir(), "state"), strict
			d := startDaemon(t, c)
			e := mustCreate(t, echov1.NewEndpointServiceClient(d.dial(t, d.GRPC)), &echov1.Endpoint{Name: "lost", Protocol: echov1.Protocol_TCP})
			d.stop(t)
			thief, err := net.Listen("tcp", e.GetAddress())
			if err != nil {
				t.Fatal(err)
			}
			defer thief.Close()

			state, code, result, serving := echov1.Readiness_DEGRADED, http.StatusOK, "degraded", grpc_health_v1.HealthCheckResponse_SERVING
			mark := "!"
			if strict {
				state, code, result, serving = echov1.Readiness_NOT_READY, http.StatusServiceUnavailable, "not ready", grpc_health_v1.HealthCheckResponse_NOT_SERVING
				mark = "-"
			}
			d = startDaemon(t, c)
			conn := d.dial(t, d.GRPC)
			now := until(t, echov1.NewDaemonServiceClient(conn), state)
			reason := fmt.Sprintf("1 failed: lost (cannot bind %s: address already in use)", e.GetAddress())
			if want := fmt.Sprintf("restored READY, state READY, endpoints %s (%s), draining READY", state, reason); checkTexts(now) != want {
				t.Errorf("checks %s, want %s", checkTexts(now), want)
			}
			gotCode, text := fetch(t, http.MethodGet, "http://"+d.HTTP+"/readyz?verbose")
			want := "[+] restored: ok\n[+] state: ok\n[" + mark + "] endpoints: " + reason + "\n[+] draining: ok\n" + result + "\n"
			if gotCode != code || text != want {
				t.Errorf("readyz: %d\n%swant %d\n%s", gotCode, text, code, want)
			}
			if gotCode, _ := fetch(t, http.MethodHead, "http://"+d.HTTP+"/readyz"); gotCode != code {
				t.Errorf("head of readyz: %d, want %d", gotCode, code)
			}
			if got := watchHealth(t, d, d.GRPC, "")(); got != serving {
				t.Errorf("health: %v, want %v", got, serving)
			}
			w := watchGRPC(t, d, &echov1.WatchEventsRequest{Filter: "kind = daemon"})
			_, m := w.until(t, echov1.Event_EXISTING)
			if got := m.GetEvent().GetDaemon(); got.GetState().String() != state.String() || got.GetReason() != "endpoints: "+reason {
				t.Errorf("told %v", got)
			}
			thief.Close()
			if _, err := echov1.NewEndpointServiceClient(conn).StartEndpoint(testContext(t), &echov1.StartEndpointRequest{Name: "lost"}); err != nil {
				t.Fatal(err)
			}
			_, m = w.until(t, echov1.Event_STATE_CHANGED)
			if got := m.GetEvent().GetDaemon(); got.GetState() != echov1.DaemonEvent_READY || got.GetReason() != "" {
				t.Errorf("told %v", got)
			}
			until(t, echov1.NewDaemonServiceClient(conn), echov1.Readiness_READY)
		})
	}
}

// TestAStoreThatCannotBeWritten has the disk fail for a while, or hang.
func TestAStoreThatCannotBeWritten(t *testing.T) {
	c := testConfig(t)
	var broken atomic.Bool
	c.storeHealth = func() error {
		if broken.Load() {
			return errors.New("no space left on device")
		}
		return nil
	}
	d := startDaemon(t, c)
	serving := watchHealth(t, d, "unix:"+d.Socket, "")
	w := watchREST(t, d, "/v1/events:watch", &echov1.WatchEventsRequest{Filter: "kind = daemon"})
	w.until(t, echov1.Event_SYNCED)
	for _, step := range []struct {
		broken bool
		health grpc_health_v1.HealthCheckResponse_ServingStatus
		code   int
		event  *echov1.DaemonEvent
	}{
		{false, grpc_health_v1.HealthCheckResponse_SERVING, http.StatusOK, nil},
		{true, grpc_health_v1.HealthCheckResponse_NOT_SERVING, http.StatusServiceUnavailable, &echov1.DaemonEvent{
			State: echov1.DaemonEvent_NOT_READY, Reason: "state: cannot be written, so that nothing can be changed: no space left on device",
		}},
		{false, grpc_health_v1.HealthCheckResponse_SERVING, http.StatusOK, &echov1.DaemonEvent{State: echov1.DaemonEvent_READY}},
	} {
		broken.Store(step.broken)
		if got := serving(); got != step.health {
			t.Fatalf("health %v, want %v", got, step.health)
		}
		if code, text := fetch(t, http.MethodGet, "http://"+d.HTTP+"/readyz"); code != step.code {
			t.Errorf("readyz: %d %s, want %d", code, text, step.code)
		}
		if code, _ := fetch(t, http.MethodGet, "http://"+d.HTTP+"/healthz"); code != http.StatusOK {
			t.Errorf("healthz: %d; a disk is no reason to end a daemon", code)
		}
		if step.event.GetState() == 0 {
			continue
		}
		if _, m := w.until(t, echov1.Event_STATE_CHANGED); !proto.Equal(m.GetEvent().GetDaemon(), step.event) {
			t.Errorf("told %v, want %v", m.GetEvent().GetDaemon(), step.event)
		}
	}
}

// TestAStopIsToldBeforeItStops has a load balancer's time between the two, which ends as soon as somebody is in a hurry.
func TestAStopIsToldBeforeItStops(t *testing.T) {
	c := testConfig(t)
	cut := make(chan struct{})
	c.DrainDelay, c.DrainTimeout, c.CutDrain = time.Hour, time.Hour, cut
	d := startDaemon(t, c)
	conn, ctx := d.dial(t, d.GRPC), testContext(t)
	endpoints := echov1.NewEndpointServiceClient(conn)
	e := mustCreate(t, endpoints, &echov1.Endpoint{Name: "e", Protocol: echov1.Protocol_TCP})
	held, err := net.Dial("tcp", e.GetAddress())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	serving := watchHealth(t, d, d.GRPC, "")
	serving()
	w := watchGRPC(t, d, &echov1.WatchEventsRequest{ChangesOnly: true})
	w.until(t, echov1.Event_SYNCED)
	d.cancel()
	if got := serving(); got != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health: %v", got)
	}
	const reason = "the daemon is stopping: it begins nothing new, and what is open may finish"
	if _, m := w.until(t, echov1.Event_STATE_CHANGED); m.GetEvent().GetDaemon().GetState() != echov1.DaemonEvent_STOPPING || m.GetEvent().GetDaemon().GetReason() != reason {
		t.Errorf("told %v", m)
	}
	code, text := fetch(t, http.MethodGet, "http://"+d.HTTP+"/readyz?verbose")
	if code != http.StatusServiceUnavailable || !strings.HasSuffix(text, "[-] draining: "+reason+"\nnot ready\n") {
		t.Errorf("readyz: %d %s", code, text)
	}
	if code, _ := fetch(t, http.MethodGet, "http://"+d.HTTP+"/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d", code)
	}
	if err := errors.Join(echoes(e.GetAddress()), echoesOn(held)); err != nil {
		t.Errorf("an endpoint before it stops: %v", err)
	}
	if now, err := endpoints.GetEndpoint(ctx, &echov1.GetEndpointRequest{Name: "e"}); err != nil || now.GetState() != echov1.Endpoint_SERVING {
		t.Errorf("an endpoint before it stops: %v, %v", now, err)
	}
	_, err = endpoints.CreateEndpoint(ctx, &echov1.CreateEndpointRequest{Endpoint: &echov1.Endpoint{Protocol: echov1.Protocol_TCP}})
	if status.Code(err) != codes.Unavailable || reasonOf(err) != "SHUTTING_DOWN" {
		t.Errorf("create: %v", err)
	}
	close(cut)
	d.stop(t)
	if n, err := held.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes of a connection that should be cut", n)
	}
}

// fakeEndpoints are a registry of the test's.
type fakeEndpoints struct {
	hold  chan struct{} // a beat waits for it; nil: for nothing
	count int
}

func (f *fakeEndpoints) Beat() {
	if f.hold != nil {
		<-f.hold
	}
}

func (f *fakeEndpoints) Failures(int) (int, []registry.Failure) {
	return f.count, []registry.Failure{{Name: "a", Reason: "one"}, {Name: "b", Reason: "two"}, {Name: "c", Reason: "three"}}[:min(f.count, failuresShown)]
}

func TestFailureTexts(t *testing.T) {
	for count, want := range map[int]string{1: "1 failed: a (one)", 3: "3 failed: a (one), b (two), c (three)", 7: "7 failed: a (one), b (two), c (three), and 4 more"} {
		f := &fakeEndpoints{count: count}
		l := &lookout{readiness: newReadiness(), endpoints: f}
		l.count()
		if got := l.readiness.Report().Checks[2]; got != (health.Check{Name: checkEndpoints, State: health.Degraded, Message: want}) {
			t.Errorf("%d: %+v", count, got)
		}
		// Nothing is counted again before something was told.
		f.count = 0
		l.count()
		if got := l.readiness.Report().Checks[2].Message; got != want {
			t.Errorf("%d, again: %q", count, got)
		}
	}
}

func TestADamagedFileDegrades(t *testing.T) {
	l := &lookout{readiness: newReadiness(), damaged: "an older copy is in use", store: func() error { return nil }}
	l.look()
	if got := l.readiness.Report().Checks[1]; got.State != health.Degraded || got.Message != "an older copy is in use" {
		t.Errorf("%+v", got)
	}
	l.store = func() error { return errors.New("full") }
	l.look()
	if got := l.readiness.Report().Checks[1]; got.State != health.NotReady {
		t.Errorf("%+v", got)
	}
}

// TestADaemonThatIsStuckIsNotAlive holds the registry's lock, as it were.
func TestADaemonThatIsStuckIsNotAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		endpoints := &fakeEndpoints{}
		l := &lookout{readiness: newReadiness(), endpoints: endpoints}
		l.readiness.Set(checkRestored, health.Ready, "")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan struct{})
		endpoints.hold = make(chan struct{})
		go func() { l.run(ctx); close(ended) }()
		time.Sleep(stuckAfter)
		synctest.Wait()
		if err := l.pulse.alive(); err != nil {
			t.Errorf("after %v: %v", stuckAfter, err)
		}
		time.Sleep(2 * lookEvery)
		synctest.Wait()
		if err := l.pulse.alive(); err == nil || !strings.Contains(err.Error(), "stuck") {
			t.Errorf("stuck: %v", err)
		}
		if r := l.readiness.Report(); r.State != health.NotReady || !strings.HasPrefix(r.Reason(), "endpoints: the daemon is stuck") {
			t.Errorf("stuck: %+v", r)
		}
		close(endpoints.hold)
		time.Sleep(2 * lookEvery)
		synctest.Wait()
		if r, err := l.readiness.Report(), l.pulse.alive(); r.State != health.Ready || err != nil {
			t.Errorf("after it: %+v, %v", r, err)
		}
		cancel()
		<-ended
	})
}

// TestWhatComesAndGoesIsToldOnce flaps faster than anybody wants to be told.
func TestWhatComesAndGoesIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		events := event.New(event.Limits{Events: 100})
		readiness := newReadiness()
		h := &herald{
			readiness: readiness, health: grpchealth.NewServer(), services: []string{""}, events: events,
			log: slog.New(slog.NewTextHandler(&log, nil)),
		}
		readiness.Set(checkRestored, health.Ready, "")
		h.begin(rpc.StartCrashed)
		watch, err := events.Watch(event.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer watch.Close()
		told := func() (all []rpc.DaemonEvent) {
			for {
				e, ok, err := watch.Next()
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					return all
				}
				if s, is := e.Subject.(rpc.DaemonEvent); is {
					all = append(all, s)
				}
			}
		}
		expect := func(when string, want ...rpc.DaemonEvent) {
			t.Helper()
			if got := told(); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: told %v, want %v", when, got, want)
			}
		}
		expect("at first", rpc.DaemonEvent{State: rpc.DaemonReady, Start: rpc.StartCrashed})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { h.run(ctx); close(ended) }()
		for range 100 {
			readiness.Set(checkEndpoints, health.Degraded, "1 failed")
			time.Sleep(10 * time.Millisecond)
			readiness.Set(checkEndpoints, health.Ready, "")
			time.Sleep(20 * time.Millisecond)
		}
		synctest.Wait()
		if got := told(); len(got) > 4 {
			t.Errorf("within 3 s: told %v", got)
		}
		time.Sleep(tellEvery)
		synctest.Wait()
		told()
		readiness.Set(checkState, health.NotReady, "full")
		synctest.Wait()
		expect("at once", rpc.DaemonEvent{State: rpc.DaemonNotReady, Reason: "state: full"})
		readiness.Set(checkState, health.Ready, "")
		synctest.Wait()
		if resp, err := h.health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil || resp.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("health waits: %v, %v", resp, err)
		}
		expect("too soon")
		time.Sleep(tellEvery)
		synctest.Wait()
		expect("a second later", rpc.DaemonEvent{State: rpc.DaemonReady})
		readiness.Set(checkEndpoints, health.Degraded, "1 failed")
		h.end("bye")
		readiness.Set(checkEndpoints, health.Ready, "")
		time.Sleep(2 * tellEvery)
		synctest.Wait()
		expect("at the end", rpc.DaemonEvent{State: rpc.DaemonStopping, Reason: "bye"})
		cancel()
		<-ended
		for _, text := range []string{"degraded", "not ready", "ready again"} {
			if !strings.Contains(log.String(), text) {
				t.Errorf("the log does not say %q:\n%s", text, log.String())
			}
		}
	})
}
