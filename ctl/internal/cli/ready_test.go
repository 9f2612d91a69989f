package cli

import (
	"context"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// notReady is a daemon that starts.
func notReady() *echov1.Readiness {
	return &echov1.Readiness{State: echov1.Readiness_NOT_READY, Checks: []*echov1.ReadinessCheck{
		{Name: "restored", State: echov1.Readiness_NOT_READY, Message: "it is starting"}, {Name: "state", State: echov1.Readiness_READY},
	}}
}

func TestReady(t *testing.T) {
	s := at(t, shared.GRPC)
	s.run("ready").want(t, 0, "Readiness: *\nRestored: READY\nState: READY\nEndpoints: *\nDraining: READY\n", "")
	wantField(t, s.json("ready", "--wait"), "state", `"READY"`)
	if out := s.ok("ready", "-o", "yaml"); !strings.Contains(out, "\nchecks:\n") {
		t.Errorf("readiness as YAML: %s", out)
	}
	at(t, closedPort(t)).run("ready").want(t, 4, "", "echoctl: cannot reach echod at *\n")
}

func TestReadyOfADaemonThatIsNot(t *testing.T) {
	f := &fake{readiness: func(context.Context) (*echov1.Readiness, error) { return notReady(), nil }}
	s := at(t, f.start(t))
	const table = "Readiness: NOT_READY\nRestored: NOT_READY: it is starting\nState: READY\n"
	s.run("ready").want(t, 1, table, "")
	s.run("ready", "-o", "name").want(t, 1, "NOT_READY\n", "")
	s.run("ready", "--wait", "--timeout", "2s").want(t, 1, table, "echoctl: not ready after 2s (--timeout)\n")
	at(t, (&fake{}).start(t)).run("ready", "--wait").want(t, 1, "", "echoctl: the daemon at * does not know this call; *\n")
}

// TestReadyWaitsForADaemonThatIsNotThere begins to wait before anybody listens.
func TestReadyWaitsForADaemonThatIsNotThere(t *testing.T) {
	address := closedPort(t)
	w := at(t, address).start("ready", "--wait", "--timeout", "0", "-o", "name")
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("somebody else has taken the port meanwhile: %v", err)
	}
	unavailable := true
	f := &fake{readiness: func(context.Context) (*echov1.Readiness, error) {
		if unavailable {
			unavailable = false
			return nil, failure(t, codes.Unavailable, "the daemon is stopping")
		}
		return &echov1.Readiness{State: echov1.Readiness_READY}, nil
	}}
	f.serve(t, l)
	w.ends().want(t, 0, "READY\n", "")
	at(t, closedPort(t)).run("ready", "--wait", "--timeout", "500ms").want(t, 4, "", "echoctl: cannot reach echod at *\n")
}

// TestReadyWithoutAnAnswer asks a daemon that hangs.
func TestReadyWithoutAnAnswer(t *testing.T) {
	f := &fake{readiness: func(ctx context.Context) (*echov1.Readiness, error) { <-ctx.Done(); return nil, ctx.Err() }}
	address := f.start(t)
	r := at(t, address).run("ready", "--wait", "--timeout", "1s")
	if r.code == 0 || !strings.Contains(r.stderr, address) {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
}
