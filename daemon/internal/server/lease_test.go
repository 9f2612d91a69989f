package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/echod/echod/daemon/internal/store"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// leaseCases are about how long endpoints live; those of a session that is held are tests of their own.
func leaseCases() []contractCase {
	const bad = codes.InvalidArgument
	create := func(endpoint string) string { return fmt.Sprintf(`{"endpoint": %s}`, endpoint) }
	// expires checks that an endpoint has so long to live, give or take how slow the machine is.
	expires := func(ttl time.Duration) func(*testing.T, []proto.Message) {
		return func(t *testing.T, replies []proto.Message) {
			left := time.Until(replies[0].(*echov1.Endpoint).GetExpireTime().AsTime())
			if left > ttl || left < ttl-patience {
				t.Errorf("it expires in %v, want %v", left, ttl)
			}
		}
	}
	const ttlRange = "must be 0 (for ever) or 1s to 8760h"
	return []contractCase{
		{
			name: "a ttl", call: "EndpointService/CreateEndpoint", request: create(`{"name": "leased", "protocol": "TCP", "ttl": "3600s", "labels": {"lease": "1"}}`),
			fields: map[string]string{"ttl": "3600s", "session": ""}, check: expires(time.Hour),
		},
		{
			name: "no ttl", call: "EndpointService/CreateEndpoint", request: create(`{"name": "for-ever", "protocol": "UDP", "labels": {"lease": "1"}}`),
			fields: map[string]string{"ttl": "absent", "expireTime": "absent"},
		},
		{
			name: "a ttl of 0", call: "EndpointService/CreateEndpoint", request: create(`{"name": "zero", "protocol": "UDP", "ttl": "0s"}`),
			fields: map[string]string{"ttl": "absent", "expireTime": "absent"},
		},
		{name: "ttl too short", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "UDP", "ttl": "0.5s"}`), code: bad, reason: "BAD_VALUE", field: "endpoint.ttl", says: ttlRange},
		{name: "ttl negative", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "UDP", "ttl": "-1s"}`), code: bad, reason: "BAD_VALUE", field: "endpoint.ttl", says: ttlRange},
		{name: "ttl too long", call: "EndpointService/UpdateEndpoint", request: `{"name": "leased", "endpoint": {"ttl": "31536001s"}}`, code: bad, reason: "BAD_VALUE", field: "endpoint.ttl", says: ttlRange},
		{
			name: "renew", call: "EndpointService/RenewEndpoint", request: `{"name": "leased"}`,
			fields: map[string]string{"ttl": "3600s"}, check: expires(time.Hour),
		},
		{
			name: "renew with another ttl", call: "EndpointService/RenewEndpoint", request: `{"name": "leased", "ttl": "7200s"}`,
			fields: map[string]string{"ttl": "7200s"}, check: expires(2 * time.Hour),
		},
		{name: "renew what has no ttl", call: "EndpointService/RenewEndpoint", request: `{"name": "for-ever"}`, code: codes.FailedPrecondition, reason: "NO_TTL", says: `"for-ever"`},
		{name: "renew what is not there", call: "EndpointService/RenewEndpoint", request: `{"name": "nobody"}`, code: codes.NotFound, reason: "ENDPOINT_NOT_FOUND"},
		{name: "renew no name", call: "EndpointService/RenewEndpoint", request: `{"name": "A B"}`, code: bad, reason: "BAD_VALUE", field: "name"},
		{name: "renew for too short", call: "EndpointService/RenewEndpoint", request: `{"name": "leased", "ttl": "0s"}`, code: bad, reason: "BAD_VALUE", field: "ttl", says: "must be 1s to 8760h"},
		{
			name: "renew by filter", call: "EndpointService/RenewEndpoints", request: `{"filter": "labels.lease = \"1\"", "ttl": "1800s"}`,
			fields: map[string]string{"count": "1", "names.#": "1", "names.0": "leased"},
		},
		{name: "it is renewed", call: "EndpointService/GetEndpoint", request: `{"name": "leased"}`, fields: map[string]string{"ttl": "1800s"}, check: expires(30 * time.Minute)},
		{name: "what has no ttl is not", call: "EndpointService/GetEndpoint", request: `{"name": "for-ever"}`, fields: map[string]string{"ttl": "absent"}},
		{name: "renew all", call: "EndpointService/RenewEndpoints", request: `{"filter": "*"}`, fields: map[string]string{"count": "1", "names.0": "leased"}},
		{name: "renew none", call: "EndpointService/RenewEndpoints", request: `{"filter": "name = \"nobody\""}`, fields: map[string]string{"count": "0", "names.#": "0"}},
		{name: "renew unsaid which", call: "EndpointService/RenewEndpoints", request: `{}`, code: bad, reason: "BAD_VALUE", field: "filter", says: `"*" is all of them`},
		{name: "renew blank", call: "EndpointService/RenewEndpoints", request: `{"filter": " "}`, code: bad, reason: "BAD_VALUE", field: "filter", says: `"*" is all of them`},
		{name: "renew by no filter", call: "EndpointService/RenewEndpoints", request: `{"filter": "name ="}`, code: bad, reason: "BAD_VALUE", field: "filter"},
		{name: "renew all for too long", call: "EndpointService/RenewEndpoints", request: `{"filter": "*", "ttl": "31536001s"}`, code: bad, reason: "BAD_VALUE", field: "ttl"},
		{
			name: "take the ttl away", call: "EndpointService/UpdateEndpoint", request: `{"name": "leased", "endpoint": {}, "updateMask": "ttl"}`,
			fields: map[string]string{"ttl": "absent", "expireTime": "absent"},
		},
		{
			name: "give it one", call: "EndpointService/UpdateEndpoint", request: `{"name": "leased", "endpoint": {"ttl": "60s"}}`,
			fields: map[string]string{"ttl": "60s"}, check: expires(time.Minute),
		},

		{name: "in no such session", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "UDP", "session": "gone"}`), code: codes.FailedPrecondition, reason: "SESSION_NOT_FOUND", says: `"gone"`},
		{name: "in no session's name", call: "EndpointService/CreateEndpoint", request: create(`{"protocol": "UDP", "session": "No"}`), code: bad, reason: "BAD_VALUE", field: "endpoint.session"},
		{name: "into a session", call: "EndpointService/UpdateEndpoint", request: `{"name": "leased", "endpoint": {"session": "s"}}`, code: bad, reason: "BAD_VALUE", field: "endpoint.session", says: "stays in it"},
		{name: "hold no name", call: "SessionService/Hold", request: `{"name": "A B"}`, code: bad, reason: "BAD_VALUE", field: "name"},
		{name: "hold with too long a grace", call: "SessionService/Hold", request: `{"grace": "86401s"}`, code: bad, reason: "BAD_VALUE", field: "grace", says: "must be 0 to 24h"},
		{name: "hold with a negative grace", call: "SessionService/Hold", request: `{"grace": "-1s"}`, code: bad, reason: "BAD_VALUE", field: "grace"},
		{name: "hold again what has no name", call: "SessionService/Hold", request: `{"secret": "x"}`, code: bad, reason: "BAD_VALUE", field: "name", says: "is missing"},
		{name: "hold again with too long a secret", call: "SessionService/Hold", request: `{"name": "s", "secret": "` + strings.Repeat("x", 129) + `"}`, code: bad, reason: "BAD_VALUE", field: "secret"},
		{name: "end what is over", call: "SessionService/EndSession", request: `{"name": "gone", "secret": "x"}`, code: codes.NotFound, reason: "SESSION_NOT_FOUND", says: `"gone"`},
		{name: "end no name", call: "SessionService/EndSession", request: `{"name": "A B", "secret": "x"}`, code: bad, reason: "BAD_VALUE", field: "name"},
		{name: "hold again what is over", call: "SessionService/Hold", request: `{"name": "gone", "secret": "x"}`, code: codes.NotFound, reason: "SESSION_NOT_FOUND", says: `"gone"`},
	}
}

// holding is a held session, as one of the transports has it.
type holding struct {
	next  func() (*echov1.Session, error) // the next answer
	leave func()
}

// holder holds a session, and answers what it is told first.
type holder func(*testing.T, *echov1.HoldRequest) (*echov1.Session, holding, error)

// holders are the transports.
func holders(d *testDaemon) map[string]holder {
	return map[string]holder{
		"grpc": func(t *testing.T, req *echov1.HoldRequest) (*echov1.Session, holding, error) {
			return holdOverGRPC(t, d, d.GRPC, req)
		},
		"rest": func(t *testing.T, req *echov1.HoldRequest) (*echov1.Session, holding, error) {
			return holdOverREST(t, http.DefaultClient, d.HTTP, req)
		},
	}
}

func holdOverGRPC(t *testing.T, d *testDaemon, target string, req *echov1.HoldRequest) (*echov1.Session, holding, error) {
	ctx, leave := context.WithCancel(testContext(t))
	stream, err := echov1.NewSessionServiceClient(d.dial(t, target)).Hold(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	h := holding{leave: leave, next: func() (*echov1.Session, error) { m, err := stream.Recv(); return m.GetSession(), err }}
	first, err := h.next()
	return first, h, err
}

func holdOverREST(t *testing.T, client *http.Client, address string, req *echov1.HoldRequest) (*echov1.Session, holding, error) {
	ctx, leave := context.WithCancel(testContext(t))
	body, err := protojson.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	httpReq, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/v1/sessions:hold", strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	httpReq.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(httpReq)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		leave()
		resp.Body.Close()
		client.CloseIdleConnections()
	})
	lines := bufio.NewReader(resp.Body)
	method := methodNamed(t, "SessionService/Hold")
	h := holding{leave: leave, next: func() (*echov1.Session, error) {
		line, err := lines.ReadString('\n')
		if err != nil {
			return nil, err
		}
		all, err := readLines(t, method, strings.NewReader(line))
		if err != nil {
			return nil, err
		}
		return all[0].(*echov1.HoldResponse).GetSession(), nil
	}}
	first, err := h.next()
	return first, h, err
}

// reasonOf is the reason in an error's details.
func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// waitGone waits until there is no endpoint of that name.
func waitGone(t *testing.T, client echov1.EndpointServiceClient, name string) {
	t.Helper()
	for ctx := testContext(t); ; time.Sleep(2 * time.Millisecond) {
		if _, err := client.GetEndpoint(ctx, &echov1.GetEndpointRequest{Name: name}); status.Code(err) == codes.NotFound {
			return
		} else if err != nil {
			t.Fatalf("%s is still there: %v", name, err)
		}
	}
}

// TestASessionIsHeldAgainBeforeAStop breaks the stream of a session while the daemon says that it will stop and serves on: its
// endpoints are not to be lost to a client that is there.
func TestASessionIsHeldAgainBeforeAStop(t *testing.T) {
	c := testConfig(t)
	cut := make(chan struct{})
	c.StateDir, c.DrainDelay, c.CutDrain = t.TempDir(), time.Hour, cut
	d := startDaemon(t, c)
	endpoints := echov1.NewEndpointServiceClient(d.dial(t, d.GRPC))
	held := map[string]*echov1.HoldRequest{}
	var before []holding
	for transport, hold := range holders(d) {
		first, h, err := hold(t, &echov1.HoldRequest{Name: transport, Grace: durationpb.New(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		mustCreate(t, endpoints, &echov1.Endpoint{Name: "of-" + transport, Protocol: echov1.Protocol_TCP, Session: transport})
		held[transport], before = &echov1.HoldRequest{Name: transport, Secret: first.GetSecret()}, append(before, h)
	}
	serving := watchHealth(t, d, d.GRPC, "")
	for serving() == grpc_health_v1.HealthCheckResponse_SERVING {
		d.cancel()
	}
	for _, h := range before {
		h.leave()
	}
	for transport, hold := range holders(d) {
		now, _, err := hold(t, held[transport])
		if err != nil || now.GetName() != transport || now.GetEndpoints() != 1 {
			t.Errorf("%s: held again is %v, %v", transport, now, err)
		}
		if _, _, err := hold(t, &echov1.HoldRequest{Name: "new-" + transport}); status.Code(err) != codes.Unavailable || reasonOf(err) != "SHUTTING_DOWN" {
			t.Errorf("%s: a new one: %v", transport, err)
		}
	}
	close(cut)
	d.stop(t)
}

// TestASessionEndsWithItsClient holds sessions over each transport, and leaves.
func TestASessionEndsWithItsClient(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	client := echov1.NewEndpointServiceClient(d.dial(t, d.GRPC))
	sessions := echov1.NewSessionServiceClient(d.dial(t, d.GRPC))
	for name, hold := range holders(d) {
		t.Run(name, func(t *testing.T) {
			session, held, err := hold(t, &echov1.HoldRequest{Name: name})
			if err != nil || session.GetName() != name || session.GetSecret() == "" || session.GetCreateTime() == nil || session.GetGrace().AsDuration() != 0 {
				t.Fatalf("held: %v, %v", session, err)
			}
			e := mustCreate(t, client, &echov1.Endpoint{Name: "in-" + name, Protocol: echov1.Protocol_TCP, Session: name})
			if e.GetSession() != name {
				t.Errorf("its session is %q", e.GetSession())
			}
			// What a get answered, edited, can be sent back.
			e.Description = "edited"
			if now, err := client.UpdateEndpoint(testContext(t), &echov1.UpdateEndpointRequest{Name: e.GetName(), Endpoint: e}); err != nil || now.GetSession() != name {
				t.Errorf("edited: %v, %v", now, err)
			}
			all := &fieldmaskpb.FieldMask{Paths: []string{"*"}}
			if now, err := client.UpdateEndpoint(testContext(t), &echov1.UpdateEndpointRequest{
				Name: e.GetName(), Endpoint: &echov1.Endpoint{Protocol: echov1.Protocol_TCP, Listen: e.GetListen()}, UpdateMask: all,
			}); err != nil || now.GetSession() != name {
				t.Errorf("set back to its defaults: %v, %v", now, err)
			}
			// Nobody else may have its name, nor hold it without its secret.
			if _, _, err := hold(t, &echov1.HoldRequest{Name: name}); status.Code(err) != codes.AlreadyExists || reasonOf(err) != "SESSION_HELD" {
				t.Errorf("its name: %v", err)
			}
			if _, _, err := hold(t, &echov1.HoldRequest{Name: name, Secret: "x"}); status.Code(err) != codes.PermissionDenied || reasonOf(err) != "WRONG_SECRET" {
				t.Errorf("a wrong secret: %v", err)
			}
			again, heldAgain, err := hold(t, &echov1.HoldRequest{Name: name, Secret: session.GetSecret()})
			if err != nil || again.GetEndpoints() != 1 || !proto.Equal(again.GetCreateTime(), session.GetCreateTime()) {
				t.Fatalf("held again: %v, %v", again, err)
			}
			if _, err := held.next(); status.Code(err) != codes.Aborted || reasonOf(err) != "SESSION_TAKEN_OVER" {
				t.Errorf("who held it: %v", err)
			}
			held.leave()
			if err := echoes(e.GetAddress()); err != nil {
				t.Errorf("while it is held: %v", err)
			}
			heldAgain.leave()
			waitGone(t, client, e.GetName())
			if accepts(e.GetAddress()) {
				t.Error("its port is taken after its end")
			}
			ended, heldLast, err := hold(t, &echov1.HoldRequest{Name: name, Grace: durationOf("1h")})
			if err != nil {
				t.Fatal(err)
			}
			mustCreate(t, client, &echov1.Endpoint{Name: "in-" + name, Protocol: echov1.Protocol_UDP, Session: name})
			if _, err := sessions.EndSession(testContext(t), &echov1.EndSessionRequest{Name: name}); status.Code(err) != codes.PermissionDenied || reasonOf(err) != "WRONG_SECRET" {
				t.Errorf("ended without its secret: %v", err)
			}
			if _, err := sessions.EndSession(testContext(t), &echov1.EndSessionRequest{Name: name, Secret: ended.GetSecret()}); err != nil {
				t.Errorf("ended: %v", err)
			}
			if _, err := client.GetEndpoint(testContext(t), &echov1.GetEndpointRequest{Name: e.GetName()}); status.Code(err) != codes.NotFound {
				t.Errorf("its endpoint when it was ended: %v", err)
			}
			if _, err := heldLast.next(); !errors.Is(err, io.EOF) {
				t.Errorf("who held it: %v", err)
			}
			chosen, _, err := hold(t, &echov1.HoldRequest{Grace: durationOf("1h")})
			if err != nil || !strings.HasPrefix(chosen.GetName(), "session-") || chosen.GetGrace().AsDuration() != time.Hour {
				t.Errorf("named by the daemon: %v, %v", chosen, err)
			}
		})
	}
}

// TestASessionOutlivesARestart has a daemon with a state directory start anew: its sessions can be held again, and endpoints
// whose time was over meanwhile can be renewed.
func TestASessionOutlivesARestart(t *testing.T) {
	c := testConfig(t)
	c.StateDir = t.TempDir()
	d := startDaemon(t, c)
	client := echov1.NewEndpointServiceClient(d.dial(t, d.GRPC))
	session, held, err := holdOverGRPC(t, d, d.GRPC, &echov1.HoldRequest{Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	in := mustCreate(t, client, &echov1.Endpoint{Name: "in-session", Protocol: echov1.Protocol_TCP, Session: "s"})
	mustCreate(t, client, &echov1.Endpoint{Name: "leased", Protocol: echov1.Protocol_TCP, Ttl: durationOf("1h")})
	d.stop(t)
	if _, err := held.next(); status.Code(err) != codes.Unavailable || reasonOf(err) != "SHUTTING_DOWN" {
		t.Errorf("who holds a session when the daemon stops: %v", err)
	}
	endLeases(t, c.StateDir)

	before := time.Now()
	d = startDaemon(t, c)
	client = echov1.NewEndpointServiceClient(d.dial(t, d.GRPC))
	ctx := testContext(t)
	leased, err := client.GetEndpoint(ctx, &echov1.GetEndpointRequest{Name: "leased"})
	if err != nil {
		t.Fatal(err)
	}
	if at := leased.GetExpireTime().AsTime(); at.Before(before.Add(5*time.Second)) || at.After(time.Now().Add(5*time.Second)) {
		t.Errorf("what was over expires %v after the start, want 5 s", at.Sub(before))
	}
	if now, err := client.RenewEndpoint(ctx, &echov1.RenewEndpointRequest{Name: "leased"}); err != nil || time.Until(now.GetExpireTime().AsTime()) < time.Minute {
		t.Errorf("renewed: %v, %v", now, err)
	}
	again, held, err := holdOverGRPC(t, d, d.GRPC, &echov1.HoldRequest{Name: "s", Secret: session.GetSecret()})
	if err != nil || again.GetEndpoints() != 1 {
		t.Fatalf("held again: %v, %v", again, err)
	}
	if err := echoes(in.GetAddress()); err != nil {
		t.Errorf("its endpoint: %v", err)
	}
	held.leave()
	waitGone(t, client, "in-session")
}

// endLeases sets the expiry of what is in a state directory to an hour ago, as if the daemon had been down so long.
func endLeases(t *testing.T, dir string) {
	t.Helper()
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	puts := map[string][]byte{}
	err = s.Each("endpoint", func(key string, value []byte) error {
		record := map[string]any{}
		if err := json.Unmarshal(value, &record); err != nil {
			return err
		}
		if record["expireTime"] != nil {
			record["expireTime"] = time.Now().Add(-time.Hour)
			puts[key], err = json.Marshal(record)
		}
		return err
	})
	if err := errors.Join(err, s.Write("endpoint", puts, nil), s.Close()); err != nil || len(puts) != 1 {
		t.Fatalf("%d leases: %v", len(puts), err)
	}
}

func TestTooManySessions(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	ctx := testContext(t)
	// A connection takes 1,000 calls at once.
	clients := []echov1.SessionServiceClient{
		echov1.NewSessionServiceClient(d.dial(t, d.GRPC)), echov1.NewSessionServiceClient(d.dial(t, "unix:"+d.Socket)),
	}
	for i := range 1001 {
		stream, err := clients[i%2].Hold(ctx, &echov1.HoldRequest{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		if i < 1000 && err != nil {
			t.Fatalf("session %d: %v", i, err)
		}
		if i == 1000 && (status.Code(err) != codes.ResourceExhausted || reasonOf(err) != "TOO_MANY_SESSIONS") {
			t.Errorf("one more: %v", err)
		}
	}
}
