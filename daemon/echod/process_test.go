//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These tests run the real binary: what signals, kills and privileges do cannot be seen from inside.

const patience = 30 * time.Second

// buildBinary builds echod once for all tests, where another user can run it, too.
func buildBinary(t *testing.T) string {
	t.Helper()
	dir := worldDir(t)
	path := filepath.Join(dir, "echod")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// worldDir is a temporary directory that every user may enter and write to.
func worldDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "echod-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// process is a running echod.
type process struct {
	*exec.Cmd
	HTTP  string
	log   *bytes.Buffer
	ended chan error
}

func startProcess(t *testing.T, binary, dir string, as *syscall.Credential, flags ...string) *process {
	t.Helper()
	readyFile := filepath.Join(dir, "ready")
	os.Remove(readyFile) // of one that was killed
	flags = append([]string{"--grpc-listen=", "--http-listen=127.0.0.1:0", "--socket=" + filepath.Join(dir, "s"), "--ready-file=" + readyFile}, flags...)
	p := &process{Cmd: exec.Command(binary, flags...), log: &bytes.Buffer{}, ended: make(chan error, 1)}
	p.Stderr = p.log
	p.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.Wait() }()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.ended
		p.ended <- nil
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		var ready struct{ HTTP string }
		if text, err := os.ReadFile(readyFile); err == nil {
			if err := json.Unmarshal(text, &ready); err != nil {
				t.Fatal(err)
			}
			p.HTTP = ready.HTTP
			return p
		}
		select {
		case err := <-p.ended:
			p.ended <- err
			t.Fatalf("echod ended: %v\n%s", err, p.log)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("echod is not ready")
		}
	}
}

// wait answers the exit code, -1 for a signal.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case err := <-p.ended:
		p.ended <- err
		return p.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatal("echod does not end")
		return 0
	}
}

func (p *process) post(t *testing.T, path, body string) (int, map[string]any) {
	t.Helper()
	resp, err := http.Post("http://"+p.HTTP+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
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

func TestSignals(t *testing.T) {
	binary := buildBinary(t)
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		p := startProcess(t, binary, t.TempDir(), nil)
		if err := p.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if code := p.wait(t); code != exitDone {
			t.Errorf("%v: exit code %d\n%s", signal, code, p.log)
		}
	}
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	p := startProcess(t, buildBinary(t), t.TempDir(), nil, "--drain-timeout=1h")
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
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
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
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(t); code != exitFailed || !strings.Contains(p.log.String(), "second signal") {
		t.Errorf("exit code %d\n%s", code, p.log)
	}
}

// TestAKillLosesNothing kills the daemon right after it has acknowledged changes, and starts another in its place.
func TestAKillLosesNothing(t *testing.T) {
	binary, dir := buildBinary(t), t.TempDir()
	state := "--state-dir=" + filepath.Join(dir, "state")
	p := startProcess(t, binary, dir, nil, state)
	want := map[string]any{}
	for i := range 20 {
		_, e := p.post(t, "/v1/endpoints", fmt.Sprintf(`{"name": "e%d", "protocol": "TCP"}`, i))
		want[fmt.Sprint("e", i)] = e["address"]
	}
	p.post(t, "/v1/endpoints/e0:stop", `{}`)
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.wait(t)
	p = startProcess(t, binary, dir, nil, state) // the socket file and the ready file are still there
	resp, err := http.Get("http://" + p.HTTP + "/v1/endpoints")
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
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
	p := startProcess(t, buildBinary(t), worldDir(t), nobody)
	for _, protocol := range []string{"TCP", "UDP"} {
		code, answer := p.post(t, "/v1/endpoints", fmt.Sprintf(`{"protocol": %q, "listen": "127.0.0.1:7"}`, protocol))
		if code != http.StatusBadRequest || !strings.Contains(fmt.Sprint(answer), "PORT_NEEDS_PRIVILEGE") || !strings.Contains(fmt.Sprint(answer["message"]), "127.0.0.1:7") {
			t.Errorf("%s: %d %v", protocol, code, answer)
		}
	}
}

// TestALogThatNobodyReads closes the daemon's standard error, as a pipe to head does.
func TestALogThatNobodyReads(t *testing.T) {
	dir := t.TempDir()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(buildBinary(t), "--grpc-listen=", "--http-listen=", "--socket="+filepath.Join(dir, "s"), "--ready-file="+filepath.Join(dir, "ready"))
	command.Stderr = writer
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "ready")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("echod is not ready")
		}
	}
	reader.Close()
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err != nil {
		t.Errorf("echod ended with %v", err)
	}
}

// TestAnOperatorIsHeardWhenDescriptorsRunOut has peers take all the descriptors that there are for them.
func TestAnOperatorIsHeardWhenDescriptorsRunOut(t *testing.T) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell to lower the limit with")
	}
	dir := t.TempDir()
	limited := filepath.Join(dir, "limited")
	script := "#!" + shell + "\nulimit -n 64\nexec " + buildBinary(t) + " \"$@\"\n"
	if err := os.WriteFile(limited, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, limited, dir, nil)
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
	resp, err := http.Get("http://" + p.HTTP + "/v1/endpoints/crowded")
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
