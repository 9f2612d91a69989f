//go:build unix

package main

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestADamagedStateFile has a daemon find its state file damaged, then its copy, too, and then be told to begin anew.
func TestADamagedStateFile(t *testing.T) {
	dir := t.TempDir()
	start := func(flags ...string) process {
		return startProcess(t, append([]string{"--state-dir=" + dir}, flags...)...)
	}
	cut := func(name string) {
		if err := os.Truncate(filepath.Join(dir, name), 5000); err != nil {
			t.Fatal(err)
		}
	}
	p := start()
	p.post(t, "/v1/endpoints", `{"name": "kept", "protocol": "TCP"}`)
	p.Stop()

	cut("echod.db")
	p = start()
	if _, list := p.get(t, "/v1/endpoints"); !strings.Contains(list, `"kept"`) {
		t.Errorf("from the copy: %s", list)
	}
	if _, info := p.get(t, "/v1/info"); !strings.Contains(info, "good copy") || !strings.Contains(info, "echod.db.damaged-") {
		t.Errorf("info: %s", info)
	}
	p.Stop()

	cut("echod.db")
	cut("echod.db.good")
	for range 2 {
		p = start()
		if _, info := p.get(t, "/v1/info"); !strings.Contains(info, "the state is lost") || !strings.Contains(info, "--accept-data-loss") {
			t.Errorf("info: %s", info)
		}
		code, answer := p.post(t, "/v1/endpoints", `{"name": "new", "protocol": "TCP"}`)
		text, err := json.Marshal(answer)
		if err != nil || code != http.StatusServiceUnavailable || !strings.Contains(string(text), "STATE_LOST") || !strings.Contains(string(text), "accept-data-loss") {
			t.Errorf("create: %d %s, %v", code, text, err)
		}
		// That there are none, or not this one, would be wrong.
		for _, path := range []string{"/v1/endpoints", "/v1/endpoints/kept", "/v1/monitors", "/v1/endpoints:watch", "/v1/events:watch"} {
			if code, text := p.get(t, path); code != http.StatusServiceUnavailable || !strings.Contains(text, "STATE_LOST") || !strings.Contains(text, "accept-data-loss") {
				t.Errorf("%s: %d %s", path, code, text)
			}
		}
		code, answer = p.post(t, "/v1/probes:run", `{"target": {"endpoint": "kept"}, "count": 1}`)
		if text, err := json.Marshal(answer); err != nil || code != http.StatusServiceUnavailable || !strings.Contains(string(text), "STATE_LOST") {
			t.Errorf("a probe of one: %d %s, %v", code, text, err)
		}
		p.Stop()
	}

	p = start("--accept-data-loss")
	if code, answer := p.post(t, "/v1/endpoints", `{"name": "new", "protocol": "TCP"}`); code != http.StatusOK {
		t.Errorf("create: %d %v", code, answer)
	}
	p.Stop()
	if _, list := start("--accept-data-loss").get(t, "/v1/endpoints"); !strings.Contains(list, `"new"`) {
		t.Errorf("the flag threw away what is not lost: %s", list)
	}
	for name, want := range map[string]int{"echod.db.damaged-*": 2, "echod.db.good.damaged-*": 1} {
		if kept, err := filepath.Glob(filepath.Join(dir, name)); err != nil || len(kept) != want {
			t.Errorf("%s: %q, %v", name, kept, err)
		}
	}
}

// TestStateFilesAreCheckedInAProcessOfTheirOwn calls that process.
func TestStateFilesAreCheckedInAProcessOfTheirOwn(t *testing.T) {
	dir := t.TempDir()
	p := startProcess(t, "--state-dir="+dir)
	p.post(t, "/v1/endpoints", `{"name": "kept", "protocol": "TCP"}`)
	p.Stop()
	cmd := exec.CommandContext(t.Context(), binary, checkState, filepath.Join(dir, "echod.db"))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if out, err := cmd.Output(); err != nil || !strings.Contains(string(out), `"records":1`) {
		t.Errorf("%s, %v", out, err)
	}
	if err := exec.CommandContext(t.Context(), binary, checkState, dir).Run(); err == nil { // also without a parent
		t.Error("a directory is no state file")
	}
}

// TestTheStateDirectoryIsLockedFirst starts a second daemon over a file that it would take for damaged.
func TestTheStateDirectoryIsLockedFirst(t *testing.T) {
	dir := t.TempDir()
	startProcess(t, "--state-dir="+dir)
	if err := os.Truncate(filepath.Join(dir, "echod.db"), 0); err != nil { // a second one must not even look
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), binary, "--state-dir="+dir, "--socket=", "--http-listen=", "--grpc-listen=127.0.0.1:0", "--accept-data-loss").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "in use by another echod") {
		t.Errorf("%v: %s", err, out)
	}
	if kept, err := filepath.Glob(filepath.Join(dir, "*.damaged-*")); err != nil || len(kept) > 0 {
		t.Errorf("%q, %v", kept, err)
	}
}
