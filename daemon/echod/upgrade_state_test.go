//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestWhatGoesOver looks at all that is no socket before and after an upgrade, with a state directory and without.
func TestWhatGoesOver(t *testing.T) {
	for name, flags := range map[string][]string{"memory": nil, "state": {"--state-dir=" + t.TempDir()}} {
		t.Run(name, func(t *testing.T) {
			u := startUpgradable(t, flags...)
			u.create(`{"name": "leased", "protocol": "UDP", "ttl": "3600s", "description": "x"}`)
			address := u.create(`{"name": "stopped", "protocol": "TCP"}`)
			if err := greet(address); err != nil {
				t.Fatal(err)
			}
			u.call("/v1/endpoints/stopped:stop", "{}")
			u.call("/v1/monitors", `{"name": "m", "probe": {"target": {"endpoint": "leased"}, "count": 2, "interval": "10ms", "timeout": "30s"}, "interval": "3600s"}`)
			if run := u.call("/v1/monitors/m:run", "{}"); run["status"] != http.StatusOK {
				t.Fatalf("%v", run)
			}
			token := u.watch(t, "").token
			was := u.all(t)
			for i := range 2 {
				u.upgrade()
				// The watch goes on with what came behind its token, as long as that is kept: no event is handed over.
				next := u.watch(t, token)
				if i == 0 && (next.err != "" || next.first != "DAEMON") || i > 0 && !strings.Contains(next.err, "RESUME_TOKEN_EXPIRED") {
					t.Errorf("after upgrade %d the watch goes on with %+v", i, next)
				}
				now := u.all(t)
				for what := range was {
					if now[what] != was[what] {
						t.Errorf("%s is\n%s\nand was\n%s", what, now[what], was[what])
					}
				}
			}
			info, err := u.get("/v1/info")
			if err != nil || info["start"] != "UPGRADED" {
				t.Errorf("%v, %v", info, err)
			}
		})
	}
}

// TestADamageIsTold looks whether what was said of a damaged state file is said after an upgrade, too.
func TestADamageIsTold(t *testing.T) {
	dir := t.TempDir()
	p := startProcess(t, "--state-dir="+dir)
	p.post(t, "/v1/endpoints", `{"name": "kept", "protocol": "TCP"}`)
	p.Stop()
	if err := os.Truncate(filepath.Join(dir, "echod.db"), 5000); err != nil {
		t.Fatal(err)
	}
	u := startUpgradable(t, "--state-dir="+dir)
	told := func() (state, warnings string) {
		t.Helper()
		readiness, errR := u.get("/v1/readiness")
		info, errI := u.get("/v1/info")
		if err := errors.Join(errR, errI); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(readiness), fmt.Sprint(info["warnings"])
	}
	state, warnings := told()
	if !strings.Contains(state, "DEGRADED") || !strings.Contains(warnings, "good copy") {
		t.Fatalf("%s, %s", state, warnings)
	}
	for range 2 {
		u.upgrade()
		if s, w := told(); s != state || w != warnings {
			t.Errorf("after an upgrade: %s, %s\nbefore: %s, %s", s, w, state, warnings)
		}
	}
}

// TestAnUpgradeWithoutAStateDirectory has the directory be moved before an upgrade, which fails. Whatever is acknowledged from then
// on comes behind all that was before.
func TestAnUpgradeWithoutAStateDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	u := startUpgradable(t, "--state-dir="+dir)
	u.create(`{"name": "before", "protocol": "TCP"}`)
	if err := os.Rename(dir, dir+"-moved"); err != nil {
		t.Fatal(err)
	}
	if done := u.call("/v1/daemon:upgrade", "{}"); done["status"] != http.StatusBadRequest || !strings.Contains(fmt.Sprint(done), "UPGRADE_FAILED") {
		t.Errorf("the upgrade: %v", done)
	}
	if e := u.call("/v1/endpoints", `{"name": "meanwhile", "protocol": "TCP"}`); e["status"] != http.StatusServiceUnavailable || !strings.Contains(fmt.Sprint(e), "STATE_NOT_WRITABLE") {
		t.Errorf("a change without a directory: %v", e)
	}
	if err := os.Rename(dir+"-moved", dir); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); u.call("/v1/endpoints", `{"name": "behind", "protocol": "TCP"}`)["status"] != http.StatusOK; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("changes are refused still")
		}
	}
	u.upgrade()
	u.stop()
	u.ended = true
	p := startProcess(t, "--state-dir="+dir)
	_, list := p.get(t, "/v1/endpoints")
	for name, there := range map[string]bool{"before": true, "meanwhile": false, "behind": true} {
		if strings.Contains(list, `"`+name+`"`) != there {
			t.Errorf("after a restart %s is there: %v\n%s", name, !there, list)
		}
	}
}

// all answers everything that an upgrade leaves as it is, as text.
func (u *upgradable) all(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, path := range []string{"/v1/endpoints/leased", "/v1/endpoints/stopped", "/v1/monitors/m"} {
		got, err := u.get(path)
		if err != nil {
			t.Fatal(err)
		}
		// When the next run begins may be counted anew.
		delete(got, "nextRunTime")
		delete(got, "nextRun")
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		all[path] = string(text)
	}
	return all
}

// watched is how a watch began.
type watched struct{ first, token, err string }

// watch watches events until it has heard all that there is or, with a token, the first event.
func (u *upgradable) watch(t *testing.T, token string) (w watched) {
	t.Helper()
	query := url.Values{}
	if token != "" {
		query.Set("resumeToken", token)
	}
	resp, err := u.http.Get(u.URL + "/v1/events:watch?" + query.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		var one struct {
			Result struct {
				Event       map[string]any
				ResumeToken string
			}
			Error map[string]any
		}
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		if one.Error != nil {
			return watched{err: fmt.Sprint(one.Error)}
		}
		w.token = one.Result.ResumeToken
		switch e := one.Result.Event; {
		case token == "" && e["type"] == "SYNCED":
			return w
		case token != "" && e["type"] != "HEARTBEAT":
			for key := range e {
				if key == "daemon" || key == "endpoint" || key == "monitor" || key == "probe" {
					w.first = strings.ToUpper(key)
				}
			}
			return w
		}
	}
	t.Fatalf("the watch ended: %v", lines.Err())
	return w
}
