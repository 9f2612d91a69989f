//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/echod/echod/daemon/echotest"
)

// TestAPortThatWasTakenMeanwhile kills the daemon, takes the port of one of its endpoints, and starts another in its place: that
// endpoint alone has failed, and serves again, at its port, when that is free. Who watches or waits is told.
func TestAPortThatWasTakenMeanwhile(t *testing.T) {
	echoctl := filepath.Join(t.TempDir(), "echoctl")
	if output, err := exec.Command("go", "build", "-o", echoctl, "github.com/echod/echod/ctl/echoctl").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	o := echotest.ProcessOptions{Binary: binary, Flags: []string{"--state-dir=" + t.TempDir()}, Dir: worldDir(t)}
	p := process{echotest.StartProcess(t, o)}
	addresses := map[string]string{}
	for _, name := range []string{"a", "b", "c"} {
		_, e := p.post(t, "/v1/endpoints", fmt.Sprintf(`{"name": %q, "protocol": "TCP"}`, name))
		addresses[name] = fmt.Sprint(e["address"])
	}
	p.Kill()
	thief, err := net.Listen("tcp", addresses["b"])
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	p = process{echotest.StartProcess(t, o)}
	resp, err := p.HTTPClient().Get(p.URL + "/v1/endpoints:watch")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := bufio.NewScanner(resp.Body)
	type endpoint struct{ Name, Address, State, StateReason, RetryTime string }
	var next func() (what string, e endpoint)
	next = func() (what string, e endpoint) {
		var line struct {
			Result struct {
				Event struct {
					Type     string
					Endpoint endpoint
				}
			}
		}
		if !events.Scan() {
			t.Fatalf("the watch ends: %v", events.Err())
		}
		if err := json.Unmarshal(events.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		if line.Result.Event.Type == "HEARTBEAT" {
			return next()
		}
		return line.Result.Event.Type, line.Result.Event.Endpoint
	}
	for _, name := range []string{"a", "b", "c"} {
		what, e := next()
		state, reason := "SERVING", ""
		if name == "b" {
			state, reason = "FAILED", "cannot bind "+addresses["b"]+": address already in use"
		}
		if what != "EXISTING" || e.Name != name || e.Address != addresses[name] || e.State != state || e.StateReason != reason || (e.RetryTime != "") != (name == "b") {
			t.Errorf("%s %+v, want %s: %s", what, e, state, reason)
		}
	}
	if what, _ := next(); what != "SYNCED" {
		t.Errorf("told %s", what)
	}

	wait := exec.Command(echoctl, "--server", "unix:"+p.Socket, "wait", "b", "--for", "state=SERVING", "--timeout", patience.String(), "-o", "name")
	var output strings.Builder
	wait.Stdout, wait.Stderr = &output, &output
	if err := wait.Start(); err != nil {
		t.Fatal(err)
	}
	thief.Close()
	if err := wait.Wait(); err != nil || output.String() != "b\n" {
		t.Errorf("echoctl wait: %v, %s", err, output.String())
	}
	if what, e := next(); what != "STATE_CHANGED" || e.State != "SERVING" || e.Address != addresses["b"] || e.StateReason != "" || e.RetryTime != "" {
		t.Errorf("%s %+v", what, e)
	}
	if !strings.Contains(p.Output(), `msg="an endpoint serves again" endpoint=b`) {
		t.Error("the log does not say that it serves again")
	}
}
