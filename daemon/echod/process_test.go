//go:build unix

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	ossignal "os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echotest"
)

// These tests run the real binary: what signals, kills and privileges do cannot be seen from inside.

const patience = 30 * time.Second

// binary is the echod of all tests, where another user can run it, too.
var binary string

func TestMain(m *testing.M) {
	os.Exit(echotest.Main(m, func(t echotest.TB) {
		var err error
		// Such as -race.
		if binary, err = echotest.Build(worldDir(t), strings.Fields(os.Getenv("ECHOD_TEST_BUILD_FLAGS"))...); err != nil {
			t.Fatalf("%v", err)
		}
	}))
}

// worldDir is a temporary directory that every user may enter and write to.
func worldDir(t echotest.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "echod-test-")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatalf("%v", err)
	}
	return dir
}

// startProcess runs echod with flags.
func startProcess(t *testing.T, flags ...string) process {
	t.Helper()
	return process{echotest.StartProcess(t, echotest.ProcessOptions{Binary: binary, Flags: flags})}
}

// process is a running echod.
type process struct{ *echotest.Process }

func (p process) post(t *testing.T, path, body string) (int, map[string]any) {
	t.Helper()
	resp, err := p.HTTPClient().Post(p.URL+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer map[string]any
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, answer
}

func (p process) get(t *testing.T, path string) (code int, text string) {
	t.Helper()
	resp, err := p.HTTPClient().Get(p.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestSignals(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		if ossignal.Ignored(signal) { // by who runs this test (nohup), and so by what it starts
			t.Logf("%v is ignored here: not tried", signal)
			continue
		}
		p := startProcess(t)
		p.Signal(signal)
		if code := p.Wait(); code != exitDone {
			t.Errorf("%v: exit code %d", signal, code)
		}
	}
}

// TestASecondSignalCuts has a peer who never goes: the daemon stops without it, in order.
func TestASecondSignalCuts(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	p := startProcess(t, "--drain-timeout=1h", "--ready-file="+ready)
	_, e := p.post(t, "/v1/endpoints", `{"protocol": "TCP"}`)
	peer, err := net.Dial("tcp", fmt.Sprint(e["address"]))
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if _, err := peer.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(peer, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGTERM)
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", fmt.Sprint(e["address"]))
		if err != nil {
			break // it drains: nothing new is accepted
		}
		conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("the first signal does nothing")
		}
	}
	if code, text := p.get(t, "/readyz"); code != http.StatusServiceUnavailable || text != "not ready\n" {
		t.Errorf("readyz while it drains: %d %s", code, text)
	}
	if code, text := p.get(t, "/healthz"); code != http.StatusOK || text != "ok\n" {
		t.Errorf("healthz while it drains: %d %s", code, text)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != exitDone || !strings.Contains(p.Output(), "second signal") {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(ready); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the ready file of a stop in order: %v", err)
	}
}

// TestAStopWaitsForItsDelay is for load balancers, that are to see it.
func TestAStopWaitsForItsDelay(t *testing.T) {
	p := startProcess(t, "--drain-delay=1h", "--drain-timeout=1h")
	_, e := p.post(t, "/v1/endpoints", `{"protocol": "TCP"}`)
	p.Signal(syscall.SIGTERM)
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if code, _ := p.get(t, "/readyz"); code == http.StatusServiceUnavailable {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the signal does nothing")
		}
	}
	peer, err := net.Dial("tcp", fmt.Sprint(e["address"]))
	if err != nil {
		t.Fatalf("an endpoint within the delay: %v", err)
	}
	defer peer.Close()
	if code, answer := p.post(t, "/v1/endpoints", `{"protocol": "TCP"}`); code != http.StatusServiceUnavailable || !strings.Contains(fmt.Sprint(answer), "SHUTTING_DOWN") {
		t.Errorf("create: %d %v", code, answer)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
}

// TestWhatWasBefore starts a daemon again and again, in one state directory.
func TestWhatWasBefore(t *testing.T) {
	state := t.TempDir()
	for i, want := range []string{"FIRST", "STOPPED", "CRASHED"} {
		p := startProcess(t, "--state-dir="+state)
		if _, text := p.get(t, "/v1/info"); !strings.Contains(text, `"start":"`+want+`"`) {
			t.Errorf("start %d: %s, want %s", i+1, text, want)
		}
		if i == 0 {
			p.Stop()
		} else {
			p.Kill()
		}
	}
}

// TestStrictReady has the daemon come back without one of its ports.
func TestStrictReady(t *testing.T) {
	state := t.TempDir()
	p := startProcess(t, "--state-dir="+state)
	_, e := p.post(t, "/v1/endpoints", `{"name": "lost", "protocol": "TCP"}`)
	p.Stop()
	thief, err := net.Listen("tcp", fmt.Sprint(e["address"]))
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	for _, flags := range [][]string{{"--strict-ready=false"}, {"--strict-ready"}} {
		p = startProcess(t, append(flags, "--state-dir="+state)...)
		want := map[string]int{"--strict-ready=false": http.StatusOK, "--strict-ready": http.StatusServiceUnavailable}[flags[0]]
		if code, text := p.get(t, "/readyz?verbose"); code != want || !strings.Contains(text, "endpoints: 1 failed: lost") {
			t.Errorf("%s: %d %s", flags[0], code, text)
		}
		p.Stop()
	}
}

// TestAKillLosesNothing kills the daemon right after it has acknowledged changes, and starts another in its place.
func TestAKillLosesNothing(t *testing.T) {
	o := echotest.ProcessOptions{Binary: binary, Flags: []string{"--state-dir=" + t.TempDir()}, Dir: worldDir(t)}
	p := process{echotest.StartProcess(t, o)}
	want := map[string]any{}
	for i := range 20 {
		_, e := p.post(t, "/v1/endpoints", fmt.Sprintf(`{"name": "e%d", "protocol": "TCP"}`, i))
		want[fmt.Sprint("e", i)] = e["address"]
	}
	p.post(t, "/v1/endpoints/e0:stop", `{}`)
	p.Kill()
	p = process{echotest.StartProcess(t, o)} // the socket file and the ready file are still there
	resp, err := p.HTTPClient().Get(p.URL + "/v1/endpoints")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct {
		Endpoints []struct{ Name, Address, State string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	if len(list.Endpoints) != len(want) {
		t.Errorf("%d endpoints came back of %d", len(list.Endpoints), len(want))
	}
	for _, e := range list.Endpoints {
		state := "SERVING"
		if e.Name == "e0" {
			state = "STOPPED"
		}
		if e.Address != want[e.Name] || e.State != state {
			t.Errorf("%s came back at %s as %s, was at %v", e.Name, e.Address, e.State, want[e.Name])
		}
	}
}

func TestAPrivilegedPortWithoutTheRight(t *testing.T) {
	var nobody *syscall.Credential
	if os.Geteuid() == 0 {
		nobody = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err != nil || strings.TrimSpace(string(text)) != "1024" {
		t.Skip("ports below 1024 need no privilege here")
	}
	p := process{echotest.StartProcess(t, echotest.ProcessOptions{
		Binary: binary, Dir: worldDir(t), Prepare: func(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Credential: nobody} },
	})}
	for _, protocol := range []string{"TCP", "UDP"} {
		code, answer := p.post(t, "/v1/endpoints", fmt.Sprintf(`{"protocol": %q, "listen": "127.0.0.1:7"}`, protocol))
		if code != http.StatusBadRequest || !strings.Contains(fmt.Sprint(answer), "PORT_NEEDS_PRIVILEGE") || !strings.Contains(fmt.Sprint(answer["message"]), "127.0.0.1:7") {
			t.Errorf("%s: %d %v", protocol, code, answer)
		}
	}
}

// TestALogThatNobodyReads closes the daemon's standard error, as a pipe to head does.
func TestALogThatNobodyReads(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := echotest.StartProcess(t, echotest.ProcessOptions{Binary: binary, Prepare: func(c *exec.Cmd) { c.Stderr = writer }})
	writer.Close()
	reader.Close()
	p.Stop() // which looks at the exit code
}

// TestAnOperatorIsHeardWhenDescriptorsRunOut has peers take all the descriptors that there are for them.
func TestAnOperatorIsHeardWhenDescriptorsRunOut(t *testing.T) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell to lower the limit with")
	}
	limited := filepath.Join(t.TempDir(), "limited")
	script := "#!" + shell + "\nulimit -n 64\nexec " + binary + " \"$@\"\n"
	if err := os.WriteFile(limited, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	p := process{echotest.StartProcess(t, echotest.ProcessOptions{Binary: limited})}
	_, e := p.post(t, "/v1/endpoints", `{"name": "crowded", "protocol": "TCP"}`)
	refused := false
	for range 200 {
		peer, err := net.Dial("tcp", fmt.Sprint(e["address"]))
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		_ = peer.SetDeadline(time.Now().Add(patience))
		if _, err := peer.Write([]byte("x")); err == nil {
			_, err = io.ReadFull(peer, make([]byte, 1))
			refused = refused || err != nil
		}
	}
	if !refused {
		t.Error("200 connections with 64 descriptors, and none was refused")
	}
	resp, err := p.HTTPClient().Get(p.URL + "/v1/endpoints/crowded")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(text), "max_sockets") {
		t.Errorf("%s, %v", text, err)
	}
	if code, answer := p.post(t, "/v1/endpoints/crowded:stop", `{}`); code != http.StatusOK {
		t.Errorf("stop: %d %v", code, answer)
	}
}
