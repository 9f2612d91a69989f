package server

import (
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// upgradeCases are what a daemon answers that cannot upgrade, as on other systems than Linux. Upgrades need processes of their
// own: the tests of package main do them over each interface.
func upgradeCases() []contractCase {
	const call = "DaemonService.UpgradeDaemon"
	return []contractCase{
		{name: "upgrade where there is none", call: call, request: `{}`, code: codes.Unimplemented, reason: "UPGRADE_NOT_POSSIBLE", says: "start the new one"},
		{name: "try an upgrade where there is none", call: call, request: `{"validateOnly": true}`, code: codes.Unimplemented, reason: "UPGRADE_NOT_POSSIBLE"},
	}
}

// TestAnUpgradeThatFailsIsToldOnEachInterface has no binary to upgrade to.
func TestAnUpgradeThatFailsIsToldOnEachInterface(t *testing.T) {
	config := testConfig(t)
	config.Executable = "/nowhere/echod"
	d := startDaemon(t, config)
	for name, calls := range map[string]transport{
		"grpc": overGRPC{d.dial(t, d.GRPC)}, "unix": overGRPC{d.dial(t, "unix:"+d.Socket)}, "rest": overREST{"http://" + d.HTTP},
	} {
		for _, request := range []string{`{}`, `{"validateOnly": true}`} {
			_, err := calls.call(testContext(t), t, methodNamed(t, "DaemonService.UpgradeDaemon"), request)
			s := status.Convert(err)
			if s.Code() != codes.FailedPrecondition || !strings.Contains(s.Message(), config.Executable) {
				t.Errorf("%s %s: %v", name, request, err)
			}
			reason := ""
			for _, detail := range s.Details() {
				if info, ok := detail.(*errdetails.ErrorInfo); ok {
					reason = info.GetReason()
				}
			}
			if reason != "UPGRADE_FAILED" {
				t.Errorf("%s %s: reason %q", name, request, reason)
			}
		}
	}
	// It takes changes as before.
	if _, err := (overREST{"http://" + d.HTTP}).call(testContext(t), t, methodNamed(t, "EndpointService.CreateEndpoint"), `{"endpoint": {"name": "e", "protocol": "TCP"}}`); err != nil {
		t.Error(err)
	}
}
