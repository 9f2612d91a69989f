package server

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// lab describes n endpoints, each with a port of its own on a loopback address that nobody else is likely to use.
func lab(tb testing.TB, n int) []*echov1.Endpoint {
	tb.Helper()
	if runtime.GOOS != "linux" {
		tb.Skip("all of 127.0.0.0/8 is the host only on Linux")
	}
	if limit := fileLimit(); limit < n+1000 {
		tb.Skipf("%d endpoints need more than the %d open files that this process may have", n, limit)
	}
	net := 1 + rand.IntN(250)
	all := make([]*echov1.Endpoint, 0, n)
	for i := range n {
		all = append(all, &echov1.Endpoint{
			Name: fmt.Sprintf("e-%05d", i), Protocol: []echov1.Protocol{echov1.Protocol_TCP, echov1.Protocol_UDP}[i%2],
			Listen: fmt.Sprintf("127.%d.%d.1:%d", net, i/1000, 21000+i%1000), Labels: map[string]string{"lab": "many", "rack": fmt.Sprint("r", i/100)},
		})
	}
	return all
}

func batchOf(endpoints []*echov1.Endpoint) *echov1.BatchCreateEndpointsRequest {
	req := &echov1.BatchCreateEndpointsRequest{}
	for _, e := range endpoints {
		req.Requests = append(req.Requests, &echov1.CreateEndpointRequest{Endpoint: e})
	}
	return req
}

// TestTenThousandEndpoints has them come, be listed, be applied again and go, each in one call of a client that takes 4 MiB,
// as gRPC clients do.
func TestTenThousandEndpoints(t *testing.T) {
	const n = 10_000
	wanted := lab(t, n)
	c := testConfig(t)
	c.StateDir = t.TempDir()
	d := startDaemon(t, c)
	client := echov1.NewEndpointServiceClient(d.dial(t, d.GRPC))
	ctx := context.Background()

	made, err := client.BatchCreateEndpoints(ctx, batchOf(wanted))
	if err != nil || len(made.GetEndpoints()) != n {
		t.Fatalf("%d endpoints, %v", len(made.GetEndpoints()), err)
	}
	for i, e := range made.GetEndpoints() {
		if e.GetName() != wanted[i].GetName() || e.GetAddress() != wanted[i].GetListen() || e.GetState() != echov1.Endpoint_SERVING || e.GetCounters() != nil {
			t.Fatalf("endpoint %d is %v", i, e)
		}
	}
	list, err := client.ListEndpoints(ctx, &echov1.ListEndpointsRequest{PageSize: n, View: echov1.ListEndpointsRequest_BASIC})
	if err != nil || len(list.GetEndpoints()) != n || list.GetNextPageToken() != "" || proto.Size(list) > 4<<20 {
		t.Fatalf("a basic list has %d endpoints in %d bytes: %v", len(list.GetEndpoints()), proto.Size(list), err)
	}
	applied, err := client.ApplyEndpoints(ctx, &echov1.ApplyEndpointsRequest{Endpoints: wanted, PruneFilter: `labels.lab = "many"`})
	if err != nil || len(applied.GetChanges()) != n || slices.ContainsFunc(applied.GetChanges(), func(c *echov1.EndpointChange) bool { return c.GetAction() != echov1.EndpointChange_NONE }) {
		t.Fatalf("a second description changes something: %v", err)
	}
	// The one that is taken is the last of a batch: all before it are given back.
	_, err = client.BatchCreateEndpoints(ctx, batchOf([]*echov1.Endpoint{{Protocol: echov1.Protocol_TCP}, {Protocol: echov1.Protocol_UDP, Listen: wanted[n-1].GetListen()}}))
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "requests[1].endpoint.listen") {
		t.Errorf("a batch with a port that is taken: %v", err)
	}
	purged, err := client.PurgeEndpoints(ctx, &echov1.PurgeEndpointsRequest{Filter: `labels.lab = "many"`, Force: true})
	if err != nil || purged.GetCount() != n || len(purged.GetNames()) != n {
		t.Errorf("%d purged, %v", purged.GetCount(), err)
	}
	again, err := client.BatchCreateEndpoints(ctx, batchOf(wanted[:100]))
	if err != nil || len(again.GetEndpoints()) != 100 {
		t.Errorf("their ports are not free: %v", err)
	}
}

// BenchmarkBatchCreate creates 10,000 endpoints with ports of their own in one call over gRPC, kept on disk, and purges them.
func BenchmarkBatchCreate(b *testing.B) {
	wanted := lab(b, 10_000)
	c := testConfig(b)
	c.StateDir = b.TempDir()
	d := startDaemon(b, c)
	client := echov1.NewEndpointServiceClient(d.dial(b, d.GRPC))
	for b.Loop() {
		if _, err := client.BatchCreateEndpoints(context.Background(), batchOf(wanted)); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if _, err := client.PurgeEndpoints(context.Background(), &echov1.PurgeEndpointsRequest{Filter: "*", Force: true}); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// TestAListGoesOnWhileThingsChange reads a list page by page in the basic view, and creates and deletes between the pages.
func TestAListGoesOnWhileThingsChange(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	for name, calls := range map[string]transport{"grpc": overGRPC{d.dial(t, d.GRPC)}, "rest": overREST{"http://" + d.HTTP}} {
		t.Run(name, func(t *testing.T) {
			call := func(method, request string) (proto.Message, error) {
				replies, err := calls.call(testContext(t), t, methodNamed(t, "EndpointService/"+method), request)
				if err != nil {
					return nil, err
				}
				return replies[0], nil
			}
			must := func(method, request string) proto.Message {
				t.Helper()
				reply, err := call(method, request)
				if err != nil {
					t.Fatal(err)
				}
				return reply
			}
			must("BatchCreateEndpoints", `{"requests": [{"endpoint": {"name": "a", "protocol": "TCP"}}, {"endpoint": {"name": "b", "protocol": "TCP"}}, {"endpoint": {"name": "c", "protocol": "TCP"}}, {"endpoint": {"name": "e", "protocol": "TCP"}}]}`)
			defer must("PurgeEndpoints", `{"filter": "*", "force": true}`)
			const filter = `protocol = TCP`
			page := func(token string) *echov1.ListEndpointsResponse {
				t.Helper()
				return must("ListEndpoints", fmt.Sprintf(`{"view": "BASIC", "pageSize": 2, "filter": %q, "pageToken": %q}`, filter, token)).(*echov1.ListEndpointsResponse)
			}
			first := page("")
			must("DeleteEndpoint", `{"name": "b"}`) // the last of the page
			must("DeleteEndpoint", `{"name": "c"}`)
			must("CreateEndpoint", `{"endpoint": {"name": "d", "protocol": "TCP"}}`)
			must("CreateEndpoint", `{"endpoint": {"name": "a-1", "protocol": "TCP"}}`) // behind us
			second := page(first.GetNextPageToken())
			var names []string
			for _, e := range slices.Concat(first.GetEndpoints(), second.GetEndpoints()) {
				names = append(names, e.GetName())
			}
			if got := strings.Join(names, " "); got != "a b d e" || second.GetNextPageToken() != "" {
				t.Errorf("listed %s, and then %q", got, second.GetNextPageToken())
			}
			token := first.GetNextPageToken()
			last := token[len(token)-1]
			if last++; last > 'z' || last == '[' || last == ':' {
				last = 'B'
			}
			for what, request := range map[string]string{
				"another filter": fmt.Sprintf(`{"view": "BASIC", "filter": "protocol = UDP", "pageToken": %q}`, token),
				"no filter":      fmt.Sprintf(`{"view": "BASIC", "pageToken": %q}`, token),
				"tampered with":  fmt.Sprintf(`{"filter": %q, "pageToken": %q}`, filter, token[:len(token)-1]+string(last)),
				"cut":            fmt.Sprintf(`{"filter": %q, "pageToken": %q}`, filter, token[:len(token)-2]),
			} {
				if _, err := call("ListEndpoints", request); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "page_token") {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}
