package server

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// TestOnlyAllowedTargets is a daemon of which the operator has said where probes may go to: its own endpoints are no
// exception.
func TestOnlyAllowedTargets(t *testing.T) {
	c := testConfig(t)
	c.ProbeAllow = []string{"127.0.0.2"}
	d := startDaemon(t, c)
	endpoints, probes := echov1.NewEndpointServiceClient(d.dial(t, d.GRPC)), echov1.NewProbeServiceClient(d.dial(t, d.GRPC))
	for host, code := range map[string]codes.Code{"127.0.0.2": codes.OK, "127.0.0.1": codes.PermissionDenied} {
		e := mustCreate(t, endpoints, &echov1.Endpoint{Protocol: echov1.Protocol_UDP, Listen: host + ":0"})
		report, err := probes.RunProbe(testContext(t), &echov1.RunProbeRequest{Probe: &echov1.Probe{
			Target: &echov1.ProbeTarget{Endpoint: e.GetName()}, Count: new(uint32(1)),
		}})
		if status.Code(err) != code || err == nil && report.GetReceived() != 1 {
			t.Errorf("%s: %v, %v", e.GetAddress(), report, err)
		}
		if err != nil && !strings.Contains(err.Error(), "is not in --probe-allow, which is 127.0.0.2/32") {
			t.Errorf("%v", err)
		}
	}
}

// TestSharesOfDescriptors leaves something for control calls, whatever endpoints and probes take.
func TestSharesOfDescriptors(t *testing.T) {
	for _, tc := range []struct{ files, asked, endpoints, probes int }{
		{files: 0, asked: 2048, endpoints: 0, probes: 2048},
		{files: 0, asked: 0, endpoints: 0, probes: 0},
		{files: 20000, asked: 2048, endpoints: 17696, probes: 2048},
		{files: 20000, asked: 0, endpoints: 19744, probes: 0},
		{files: 1024, asked: 2048, endpoints: 512, probes: 256},
		{files: 64, asked: 2048, endpoints: 16, probes: 16},
		{files: 2, asked: 1, endpoints: 1, probes: 1},
	} {
		if got := maxSockets(tc.asked, tc.files); got != tc.endpoints {
			t.Errorf("endpoints get %d of %d files, want %d", got, tc.files, tc.endpoints)
		}
		if got := probeSockets(tc.asked, tc.files); got != tc.probes {
			t.Errorf("probes that ask for %d get %d of %d files, want %d", tc.asked, got, tc.files, tc.probes)
		}
	}
}
