package echotest

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// create makes an endpoint over gRPC.
func create(t *testing.T, c *Client, e *echov1.Endpoint) *echov1.Endpoint {
	t.Helper()
	made, err := c.Endpoints().CreateEndpoint(t.Context(), &echov1.CreateEndpointRequest{Endpoint: e})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// wantHealthy asks over REST.
func wantHealthy(t *testing.T, c *Client) {
	t.Helper()
	resp, err := c.HTTPClient().Get(c.URL + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("/readyz: %s", resp.Status)
	}
}

func TestDaemon(t *testing.T) {
	t.Parallel()
	d := StartDaemon(t, DaemonOptions{})
	made := create(t, &d.Client, &echov1.Endpoint{Protocol: echov1.Protocol_UDP})
	if answer := roundTrip(t, "udp", made.Address, "hello"); answer != "hello" {
		t.Errorf("%q", answer)
	}
	report, err := d.Probes().RunProbe(t.Context(), &echov1.RunProbeRequest{Probe: &echov1.Probe{
		Target: &echov1.ProbeTarget{Endpoint: made.Name},
	}})
	if err != nil || report.Sent == 0 {
		t.Errorf("%v, %v", report, err)
	}
	if _, err := d.Monitors().ListMonitors(t.Context(), &echov1.ListMonitorsRequest{}); err != nil {
		t.Error(err)
	}
	held, err := d.Sessions().Hold(t.Context(), &echov1.HoldRequest{Name: "ci"})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := held.Recv(); err != nil || first.GetSession().GetName() != "ci" {
		t.Errorf("%v, %v", first, err)
	}
	wantHealthy(t, &d.Client)
	socket, err := net.Dial("unix", d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	socket.Close()
	if !strings.Contains(d.Output(), "msg=ready") {
		t.Errorf("its log: %s", d.Output())
	}
	d.Stop()
	d.Stop()
	for _, address := range []string{d.GRPC, d.HTTP} {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			t.Errorf("%s is still there", address)
		}
	}
}

func TestDaemonIsStartedAgain(t *testing.T) {
	t.Parallel()
	o := DaemonOptions{StateDir: t.TempDir(), DefaultHost: "127.0.0.2"}
	d := StartDaemon(t, o)
	before := create(t, &d.Client, &echov1.Endpoint{Name: "kept", Protocol: echov1.Protocol_TCP})
	d.Stop()
	d = StartDaemon(t, o)
	after, err := d.Endpoints().GetEndpoint(t.Context(), &echov1.GetEndpointRequest{Name: "kept"})
	if err != nil || after.Address != before.Address || !strings.HasPrefix(after.Address, "127.0.0.2:") {
		t.Errorf("%v, %v; was %v", after, err, before)
	}
}

func TestDaemonRefusesProbesAsTold(t *testing.T) {
	t.Parallel()
	d := StartDaemon(t, DaemonOptions{ProbeAllow: []string{"127.0.0.0/8"}, ProbeDeny: []string{"127.0.0.3"}})
	for address, allowed := range map[string]bool{"127.0.0.1": true, "127.0.0.3": false, "192.0.2.1": false} {
		_, err := d.Probes().CreateProbe(t.Context(), &echov1.CreateProbeRequest{Probe: &echov1.Probe{
			Target: &echov1.ProbeTarget{Address: net.JoinHostPort(address, "9"), Protocol: echov1.Protocol_UDP},
		}})
		if (err == nil) != allowed {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestADaemonThatDoesNotStart(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	said, failed := do(func(t TB) {
		StartDaemon(t, DaemonOptions{StateDir: file})
		t.Logf("the test went on")
	})
	if !failed || strings.Contains(said, "went on") {
		t.Errorf("failed: %v: %s", failed, said)
	}
	wantSaid(t, said, "the daemon of the test does not start: ", file, "protocol=http")
}

func TestADaemonThatEndsTooSoon(t *testing.T) {
	t.Parallel()
	said, failed := do(func(t TB) {
		d := StartDaemon(t, DaemonOptions{})
		d.cancel()
		<-d.ended
	})
	if !failed {
		t.Error("and nobody has noticed")
	}
	wantSaid(t, said, "the daemon of the test ended before the test did", "msg=ready")
}

// TestTheLogIsForTestsThatFail looks at both kinds.
func TestTheLogIsForTestsThatFail(t *testing.T) {
	t.Parallel()
	if said, failed := do(func(t TB) { StartDaemon(t, DaemonOptions{}) }); failed || said != "" {
		t.Errorf("failed: %v: %s", failed, said)
	}
	said, _ := do(func(t TB) { StartDaemon(t, DaemonOptions{}); t.Errorf("for another reason") })
	wantSaid(t, said, "for another reason\n", "About the daemon of the test: It wrote:\n", "msg=stopping")
}

// TestAnOpenStreamHoldsUpNothing has a call under way when the test ends.
func TestAnOpenStreamHoldsUpNothing(t *testing.T) {
	t.Parallel()
	said, failed := do(func(t TB) {
		d := StartDaemon(t, DaemonOptions{})
		stream, err := d.Probes().StreamProbe(context.Background(), &echov1.StreamProbeRequest{Probe: &echov1.Probe{
			Target: &echov1.ProbeTarget{Address: UDP(t), Protocol: echov1.Protocol_UDP}, Count: new(uint32),
		}})
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil {
			t.Fatalf("%v", err)
		}
	})
	if failed || said != "" {
		t.Errorf("failed: %v: %s", failed, said)
	}
}
