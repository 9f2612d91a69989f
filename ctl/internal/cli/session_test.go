package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// sessionProcess is echoctl session in a process of its own, with a command of its own.
type sessionProcess struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  *os.File
	stdout *bufio.Reader
	stderr *lockedBuffer
}

// lockedBuffer is written by one goroutine and read by another.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startSession runs echoctl session with args; $ECHOCTL is echoctl for the command. What is not over after patience is killed.
func startSession(t *testing.T, echoctl, server string, args ...string) *sessionProcess {
	t.Helper()
	p := &sessionProcess{t: t, cmd: exec.Command(echoctl, append([]string{"session"}, args...)...), stderr: &lockedBuffer{}}
	p.cmd.Env = append(os.Environ(), "ECHOCTL_SERVER="+server, "ECHOCTL="+echoctl)
	p.cmd.Stderr = p.stderr
	in, stdin, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdin, p.cmd.Stdout, p.stdin, p.stdout = in, out, stdin, bufio.NewReader(stdout)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	out.Close()
	kill := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	t.Cleanup(func() {
		kill.Stop()
		stdin.Close()
		stdout.Close()
		_ = p.cmd.Process.Kill()
	})
	return p
}

// until reads what the command writes, to the line that begins with sign, and answers it as variables.
func (p *sessionProcess) until(sign string) map[string]string {
	p.t.Helper()
	found := map[string]string{}
	for {
		line, err := p.stdout.ReadString('\n')
		if err != nil {
			p.t.Fatalf("no %s comes: %v\n%s", sign, err, p.stderr)
		}
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		found[key] = value
		if strings.HasPrefix(line, sign) {
			return found
		}
	}
}

// wait waits for the end, and answers the exit code.
func (p *sessionProcess) wait() int {
	_ = p.cmd.Wait() // the code says it
	return p.cmd.ProcessState.ExitCode()
}

func onlyUnix(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("this runs commands of a POSIX shell")
	}
}

func TestSessionOfACommand(t *testing.T) {
	onlyUnix(t)
	s := at(t, shared.GRPC)
	echoctl := buildEchoctl(t)
	p := startSession(t, echoctl, shared.GRPC, "--name", "ci", "--tcp", "127.0.0.1:0", "--tcp", ":0", "--udp", "", "-l", "run=1", "--",
		"sh", "-c", `env | grep ^ECHO | sort; $ECHOCTL create udp --name inside -o name >&2; echo READY; read line; echo "$line"; exit 7`)
	env := p.until("READY")
	for variable, name := range map[string]string{"ECHO_TCP_1": "ci-tcp-1", "ECHO_TCP_2": "ci-tcp-2", "ECHO_UDP_1": "ci-udp-1"} {
		m := s.json("get", name)
		wantField(t, m, "session", `"ci"`)
		wantField(t, m, "labels", `{"run":"1"}`)
		port := fmt.Sprint(m["port"])
		for key, want := range map[string]string{"": "127.0.0.1:" + port, "_HOST": "127.0.0.1", "_PORT": port, "_NAME": name} {
			if env[variable+key] != want {
				t.Errorf("%s%s is %q, want %q", variable, key, env[variable+key], want)
			}
		}
	}
	if env["ECHOCTL_SESSION"] != "ci" || env["ECHOCTL_SERVER"] != shared.GRPC {
		t.Errorf("the command has %v", env)
	}
	wantField(t, s.json("get", "inside"), "session", `"ci"`)
	if _, err := p.stdin.WriteString("through\n"); err != nil {
		t.Fatal(err)
	}
	p.until("through")
	if code := p.wait(); code != 7 || p.stderr.String() != "inside\n" {
		t.Errorf("exit %d, want 7: %s", code, p.stderr)
	}
	for _, name := range []string{"ci-tcp-1", "ci-tcp-2", "ci-udp-1", "inside"} {
		if r := s.run("get", name); r.code != 1 {
			t.Errorf("%s is there after the session", name)
		}
	}
}

// TestSessionOfAKilledEchoctl kills echoctl itself, so that nobody can clean up but the daemon.
func TestSessionOfAKilledEchoctl(t *testing.T) {
	onlyUnix(t)
	s := at(t, shared.GRPC)
	p := startSession(t, buildEchoctl(t), shared.GRPC, "--name", "killed", "--tcp", "", "--", "sh", "-c", "echo READY; read line")
	p.until("READY")
	s.ok("get", "killed-tcp-1")
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); s.run("get", "killed-tcp-1").code == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("its endpoint is still there")
		}
	}
	p.stdin.Close() // the command, which has outlived echoctl, ends
	p.wait()
}

func TestSessionHandsOnSignals(t *testing.T) {
	onlyUnix(t)
	echoctl := buildEchoctl(t)
	const waits = "echo READY; while :; do sleep 0.01; done"
	for name, c := range map[string]struct {
		script string
		signal syscall.Signal
		code   int
	}{
		"one that it handles": {"trap 'exit 9' TERM; " + waits, syscall.SIGTERM, 9},
		"one that kills it":   {waits, syscall.SIGTERM, 128 + 15},
		"another":             {"trap 'exit 8' HUP; " + waits, syscall.SIGHUP, 8},
	} {
		t.Run(name, func(t *testing.T) {
			p := startSession(t, echoctl, shared.GRPC, "--", "sh", "-c", c.script)
			p.until("READY")
			for range 3 { // a second one does not end echoctl, either
				if err := p.cmd.Process.Signal(c.signal); err != nil {
					t.Fatal(err)
				}
			}
			if code := p.wait(); code != c.code {
				t.Errorf("exit %d, want %d: %s", code, c.code, p.stderr)
			}
		})
	}
}

// TestSessionIsNotKilledWhileItCleansUp signals without end: a hangup comes more than once.
func TestSessionIsNotKilledWhileItCleansUp(t *testing.T) {
	onlyUnix(t)
	p := startSession(t, buildEchoctl(t), shared.GRPC, "--name", "hung-up", "--tcp", "", "--", "sh", "-c", "trap 'exit 8' HUP; echo READY; while :; do sleep 0.01; done")
	p.until("READY")
	var signals sync.WaitGroup
	signals.Go(func() {
		for p.cmd.Process.Signal(syscall.SIGHUP) == nil {
			time.Sleep(100 * time.Microsecond)
		}
	})
	if code := p.wait(); code != 8 {
		t.Errorf("exit %d, want 8: %s", code, p.stderr)
	}
	signals.Wait()
	if r := at(t, shared.GRPC).run("get", "hung-up-tcp-1"); r.code != 1 {
		t.Error("its endpoint is there after the session")
	}
}

func TestSessionThatCannotBe(t *testing.T) {
	onlyUnix(t)
	s := at(t, shared.GRPC)
	s.newEndpoint("tcp", "here-tcp-2")
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.run("session", "--name", "A").want(t, 1, "", "echoctl: *name: must be *\n")
	s.run("session", "--", "/nonexistent/x").want(t, 127, "", "echoctl: cannot start /nonexistent/x: no such file or directory\n")
	s.run("session", "--", "nonexistent-x").want(t, 127, "", "echoctl: cannot start nonexistent-x: executable file not found in $PATH\n")
	s.run("session", "--", plain).want(t, 126, "", "echoctl: cannot start "+plain+": permission denied\n")
	s.run("session", "--name", "here", "--tcp", "", "--tcp", "", "--", "echo", "never").want(t, 1, "",
		"echoctl: the name is taken: \"here-tcp-2\"; *\nechoctl get here-tcp-2 shows it\n")
	if r := s.run("get", "here-tcp-1"); r.code != 1 {
		t.Error("what was created before is left behind")
	}
	at(t, "127.0.0.1:1").run("session").want(t, 4, "", "echoctl: cannot reach echod at 127.0.0.1:1: *\n")
	// A long name leaves no room for what stands behind it.
	s.run("session", "--name", strings.Repeat("x", 60), "--udp", "", "--", "sh", "-c", "echo $ECHO_UDP_1_NAME").want(t, 0, "udp-*\n", "")
}

func TestSessionWithoutACommand(t *testing.T) {
	s := at(t, shared.GRPC)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.ctx, s.stdout = ctx, &interrupting{stop: cancel}
	s.run("session", "--name", "alone", "--tcp", "").want(t, 0,
		"NAME PROTOCOL ADDRESS STATE AGE LABELS\nalone-tcp-1 TCP 127.0.0.1:* SERVING 0s -\n", "holding session alone until Ctrl-C\n")
	if r := at(t, shared.GRPC).run("get", "alone-tcp-1"); r.code != 1 {
		t.Error("its endpoint is there after Ctrl-C")
	}
}

// restartable is a daemon that comes back at the same address.
type restartable struct {
	t     *testing.T
	dir   string
	state string
	grpc  string
	cmd   *exec.Cmd
}

func (r *restartable) start() {
	r.t.Helper()
	ready := filepath.Join(r.dir, "ready")
	if err := os.RemoveAll(ready); err != nil {
		r.t.Fatal(err)
	}
	r.cmd = exec.Command(echod, "--grpc-listen", r.grpc, "--http-listen", "", "--socket", "", "--state-dir", r.state,
		"--ready-file", ready, "--log-level", "error")
	r.cmd.Stderr = os.Stderr
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		var d struct{ GRPC string }
		if text, err := os.ReadFile(ready); err == nil && json.Unmarshal(text, &d) == nil {
			r.grpc = d.GRPC
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatal("echod is not ready")
		}
	}
}

func (r *restartable) kill() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait() // that it was killed is no news
}

// TestSessionOutlivesItsDaemon kills the daemon while a command runs. With a state directory the session is held again when
// it is back; without, the command goes on without.
func TestSessionOutlivesItsDaemon(t *testing.T) {
	onlyUnix(t)
	echoctl := buildEchoctl(t)
	for name, c := range map[string]struct {
		state string
		says  string
	}{
		"kept":   {t.TempDir(), "session kept is held again"},
		"memory": {"", "its endpoints are gone"},
	} {
		t.Run(name, func(t *testing.T) {
			d := &restartable{t: t, dir: t.TempDir(), state: c.state, grpc: "127.0.0.1:0"}
			d.start()
			defer func() { d.kill() }()
			p := startSession(t, echoctl, d.grpc, "--name", name, "--tcp", "", "--", "sh", "-c", "echo READY; read line; echo DONE; exit 3")
			p.until("READY")
			d.kill()
			p.said("session " + name + " is not held any more: ")
			d.start()
			p.said(c.says)
			if r := at(t, d.grpc).run("get", name+"-tcp-1"); (r.code == 0) != (c.state != "") {
				t.Errorf("its endpoint: exit %d: %s", r.code, r.stderr)
			}
			if err := p.stdin.Close(); err != nil {
				t.Fatal(err)
			}
			p.until("DONE")
			if code := p.wait(); code != 3 {
				t.Errorf("exit %d, want 3: %s", code, p.stderr)
			}
			if out := at(t, d.grpc).ok("list", "-o", "name"); out != "" {
				t.Errorf("left behind: %s", out)
			}
		})
	}
}

// TestSessionOverWhatStandsBetween breaks the stream as a proxy may, whatever it calls that: the session is held again.
func TestSessionOverWhatStandsBetween(t *testing.T) {
	onlyUnix(t)
	held := make(chan *echov1.HoldRequest, 2)
	f := &fake{hold: func(r *echov1.HoldRequest, stream grpc.ServerStreamingServer[echov1.HoldResponse]) error {
		held <- r
		err := stream.Send(&echov1.HoldResponse{Session: &echov1.Session{Name: "s", Secret: "key"}})
		if err != nil || r.GetSecret() == "" {
			return status.Error(codes.Internal, "stream reset")
		}
		<-stream.Context().Done()
		return nil
	}}
	p := startSession(t, buildEchoctl(t), f.start(t), "--", "sh", "-c", "read line; exit 3")
	p.said("session s is held again")
	if err := p.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(); code != 3 || strings.Contains(p.stderr.String(), "cannot end") {
		t.Errorf("exit %d: %s", code, p.stderr)
	}
	if first, second := <-held, <-held; first.GetSecret() != "" || second.GetName() != "s" || second.GetSecret() != "key" {
		t.Errorf("asked for %v, then %v", first, second)
	}
}

// said waits until echoctl has said something.
func (p *sessionProcess) said(text string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(p.stderr.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("echoctl does not say %q but\n%s", text, p.stderr)
		}
	}
}

func TestReachable(t *testing.T) {
	for _, c := range []struct {
		host, listen string
		daemon       server
		want         string
	}{
		{"127.0.0.1", "", server{"tcp", "lab:7007"}, "127.0.0.1"},
		{"::", ":7", server{"tcp", "lab:7007"}, "lab"},
		{"0.0.0.0", "0.0.0.0:7", server{"tcp", "[::1]:7007"}, "::1"},
		{"::", ":7", server{"unix", "/x"}, "127.0.0.1"},
		{"::", "[::]:7", server{"unix", "/x"}, "::1"},
		{"0.0.0.0", "0.0.0.0:7", server{"unix", "/x"}, "127.0.0.1"},
	} {
		if got := reachable(&echov1.Endpoint{Host: c.host, Listen: c.listen}, c.daemon); got != c.want {
			t.Errorf("%v is reached at %s, want %s", c, got, c.want)
		}
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got := (server{"unix", "echod.sock"}).absolute(); got != "unix:"+filepath.Join(here, "echod.sock") {
		t.Errorf("a socket here is %s elsewhere", got)
	}
	if env := environ([]string{"A=b"}); !slices.Contains(env, "A=b") || len(env) != len(os.Environ())+1 {
		t.Errorf("the command's environment is %q", env)
	}
}
