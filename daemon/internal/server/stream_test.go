package server

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// TestAFollowerThatLeavesEndsTheProbe reads the aggregates of a probe without end as they come, and then goes away, over
// gRPC and over REST.
func TestAFollowerThatLeavesEndsTheProbe(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	conn := d.dial(t, d.GRPC)
	probes := echov1.NewProbeServiceClient(conn)
	e := mustCreate(t, echov1.NewEndpointServiceClient(conn), &echov1.Endpoint{Protocol: echov1.Protocol_UDP})
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	const wanted = 3
	for name, follow := range map[string]func(*testing.T, context.Context, string){
		"grpc": func(t *testing.T, ctx context.Context, name string) {
			stream, err := probes.StreamProbe(ctx, &echov1.StreamProbeRequest{
				Probe:     &echov1.Probe{Name: name, Target: &echov1.ProbeTarget{Endpoint: e.GetName()}, Count: new(uint32), Interval: durationpb.New(0)},
				Aggregate: durationpb.New(10 * time.Millisecond),
			})
			if err != nil {
				t.Fatal(err)
			}
			for seen := 0; seen < wanted; {
				m, err := stream.Recv()
				if err != nil {
					t.Fatal(err)
				}
				if m.GetAggregate() != nil {
					seen++
				}
			}
		},
		"rest": func(t *testing.T, ctx context.Context, name string) {
			body := `{"name": "` + name + `", "target": {"endpoint": "` + e.GetName() + `"}, "count": 0, "interval": "0s"}`
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+d.HTTP+"/v1/probes:stream?aggregate=10ms", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			lines := bufio.NewReader(resp.Body)
			for seen := 0; seen < wanted; {
				line, err := lines.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				if strings.HasPrefix(line, `{"result":{"aggregate":{"until":`) {
					seen++
				} else if !strings.HasPrefix(line, `{"result":{"probe":`) {
					t.Fatalf("a line of the stream is %s", line)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, leave := context.WithCancel(testContext(t))
			defer leave()
			follow(t, ctx, name)
			leave()
			for patience := testContext(t); ; {
				p, err := probes.GetProbe(patience, &echov1.GetProbeRequest{Name: name})
				if err != nil {
					t.Fatal(err)
				}
				if p.GetState() == echov1.Probe_STOPPED {
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
}
