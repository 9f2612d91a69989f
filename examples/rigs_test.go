//go:build unix

// Package examples_test runs the rigs of this folder and of docs/rigs.md, each against a real daemon.
package examples_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echotest"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// patience bounds every wait of the tests; a machine may be slow.
const patience = 2 * time.Minute

// binaries is a folder with echod and echoctl.
var binaries string

func TestMain(m *testing.M) {
	os.Exit(echotest.Main(m, func(t echotest.TB) {
		var err error
		if binaries, err = os.MkdirTemp("", "rigs-"); err != nil {
			t.Fatalf("%v", err)
		}
		t.Cleanup(func() { os.RemoveAll(binaries) })
		if _, err := echotest.Build(binaries); err != nil {
			t.Fatalf("%v", err)
		}
		if out, err := exec.Command("go", "build", "-o", binaries+string(filepath.Separator), "../ctl/echoctl").CombinedOutput(); err != nil {
			t.Fatalf("cannot build echoctl: %v\n%s", err, out)
		}
	}))
}

// rig is one of the examples, and what runs it.
type rig struct {
	name     string
	command  []string
	programs []string // that must be installed
	says     string   // of each endpoint, after its address
}

var rigs = []rig{
	{"python", []string{"python3", "rig.py"}, []string{"python3"}, `: 3 sent, 3 received, rtt p50 [0-9.]+s\n  loss == 0%: met\n`},
	{"shell", []string{"sh", "rig.sh"}, []string{"sh", "curl"}, `: 3 sent, 3 received\n  loss == 0%: met\n`},
}

// forEachRig runs a test of every rig for which there is what it needs.
func forEachRig(t *testing.T, test func(*testing.T, rig)) {
	for _, r := range rigs {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			for _, program := range r.programs {
				need(t, program)
			}
			test(t, r)
		})
	}
}

func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed", program)
	}
}

// result is all that a command leaves.
type result struct {
	stdout, stderr string
	code           int
}

// run runs a command to its end, with a folder of its own for temporary files, which must be empty afterwards. Meanwhile is
// called while it runs, with its process group, unless it is nil.
func run(t *testing.T, meanwhile func(pid int), command ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	temporary := t.TempDir()
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(ctx, command[0], command[1:]...)
	c.Env = append(os.Environ(), "PATH="+binaries+":"+os.Getenv("PATH"), "TMPDIR="+temporary, "PYTHONDONTWRITEBYTECODE=1",
		"http_proxy=http://127.0.0.1:1") // which is for elsewhere
	c.Stdout, c.Stderr = &stdout, &stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.WaitDelay = patience // a daemon that is left over holds the output open
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if meanwhile != nil {
		meanwhile(c.Process.Pid)
	}
	err := c.Wait()
	if ctx.Err() != nil {
		t.Fatalf("%q does not end: %v\n%s%s", command, err, &stdout, &stderr)
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%q: %v\n%s%s", command, err, &stdout, &stderr)
	}
	left, err := os.ReadDir(temporary)
	if err != nil || len(left) > 0 {
		t.Errorf("%q leaves %v, %v", command, left, err)
	}
	return result{stdout.String(), stderr.String(), c.ProcessState.ExitCode()}
}

// want fails the test unless the command ended so, and its output has these forms.
func (r result) want(t *testing.T, code int, stdout, stderr string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	for _, one := range []struct{ name, got, want string }{{"stdout", r.stdout, stdout}, {"stderr", r.stderr, stderr}} {
		if !regexp.MustCompile(`^(?s:` + one.want + `)$`).MatchString(one.got) {
			t.Errorf("%s is\n%s\nwant\n%s", one.name, one.got, one.want)
		}
	}
}

// all is what a rig says when all is well.
func (r rig) all() string {
	return `TCP 127\.0\.0\.1:[0-9]+` + r.says + `UDP 127\.0\.0\.1:[0-9]+` + r.says + `a port that is none:.* BAD_VALUE endpoint\.listen\n`
}

func TestARigWithADaemonOfItsOwn(t *testing.T) {
	t.Parallel()
	forEachRig(t, func(t *testing.T, r rig) {
		run(t, nil, append(r.command, filepath.Join(binaries, "echod"))...).want(t, 0, r.all(), "")
	})
}

func TestARigAtADaemonThatRuns(t *testing.T) {
	t.Parallel()
	forEachRig(t, func(t *testing.T, r rig) {
		p := startProcess(t)
		run(t, nil, append(r.command, p.URL)...).want(t, 0, r.all(), "")
		wantEndpoints(t, p, 0)
	})
}

func TestARigWhoseDaemonDoesNotStart(t *testing.T) {
	t.Parallel()
	refuses := filepath.Join(t.TempDir(), "echod")
	if err := os.WriteFile(refuses, []byte("#!/bin/sh\necho I refuse >&2\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	forEachRig(t, func(t *testing.T, r rig) {
		run(t, nil, append(r.command, refuses)...).want(t, map[string]int{"python": 2, "shell": 1}[r.name], "", ".*(ended before it was ready|did not start).*I refuse\n")
	})
}

func TestARigWithoutADaemon(t *testing.T) {
	t.Parallel()
	forEachRig(t, func(t *testing.T, r rig) {
		run(t, nil, append(r.command, "http://127.0.0.1:1")...).want(t, map[string]int{"python": 2, "shell": 1}[r.name], "", "rig.*127.0.0.1.*\n")
	})
}

// between puts a proxy between rigs and a daemon: what comes to a path goes to intercept instead, which may have the daemon
// answer it, too.
func between(t *testing.T, p *echotest.Process, path string, intercept func(w http.ResponseWriter, r *http.Request, daemon http.Handler)) string {
	t.Helper()
	to, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	daemon := httputil.NewSingleHostReverseProxy(to)
	daemon.Transport = p.HTTPClient().Transport
	mux := http.NewServeMux()
	mux.Handle("/", daemon)
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { intercept(w, r, daemon) })
	proxy := httptest.NewServer(mux)
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// TestARigThatIsEnded has CI end a rig that waits for a probe: what it has created goes all the same.
func TestARigThatIsEnded(t *testing.T) {
	t.Parallel()
	forEachRig(t, func(t *testing.T, r rig) {
		p := startProcess(t)
		probing := make(chan struct{}, 1)
		at := between(t, p, "POST /v1/probes:run", func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
			_, _ = io.Copy(io.Discard, r.Body) // only then it is seen that the client goes
			probing <- struct{}{}
			<-r.Context().Done()
		})
		got := run(t, func(pid int) {
			select {
			case <-probing:
			case <-time.After(patience):
				t.Error("it does not probe")
			}
			wantEndpoints(t, p, 1)
			if err := syscall.Kill(-pid, syscall.SIGTERM); err != nil {
				t.Error(err)
			}
		}, append(r.command, at)...)
		if got.code != 143 {
			t.Errorf("%+v", got)
		}
		wantEndpoints(t, p, 0)
	})
}

// TestARigThatLosesAnAnswer has the daemon create an endpoint, and the rig not hear of it.
func TestARigThatLosesAnAnswer(t *testing.T) {
	t.Parallel()
	forEachRig(t, func(t *testing.T, r rig) {
		p := startProcess(t)
		at := between(t, p, "POST /v1/endpoints", func(_ http.ResponseWriter, r *http.Request, daemon http.Handler) {
			daemon.ServeHTTP(httptest.NewRecorder(), r)
			wantEndpoints(t, p, 1)
			panic(http.ErrAbortHandler)
		})
		if got := run(t, nil, append(r.command, at)...); got.code == 0 || !strings.Contains(got.stderr, "rig") {
			t.Errorf("%+v", got)
		}
		wantEndpoints(t, p, 0)
	})
}

// TestPythonCleansUpAfterAnException uses the class as a reader would, and raises in the middle.
func TestPythonCleansUpAfterAnException(t *testing.T) {
	t.Parallel()
	need(t, "python3")
	p := startProcess(t)
	script := `
from rig import Echod
with Echod(url="` + p.URL + `") as echod:
    for name in "a", "b":
        print(echod.create("TCP", name=name)["state"])
    echod.delete("b")
    raise RuntimeError("in the middle")
`
	run(t, nil, "python3", "-c", script).want(t, 1, "SERVING\nSERVING\n", ".*RuntimeError: in the middle\n")
	wantEndpoints(t, p, 0)
}

// TestPythonTellsOfADaemonThatDied kills it in the middle.
func TestPythonTellsOfADaemonThatDied(t *testing.T) {
	t.Parallel()
	need(t, "python3")
	script := `
from rig import Echod
with Echod(binary="` + filepath.Join(binaries, "echod") + `") as echod:
    echod._process.kill()
    echod._process.wait()
`
	run(t, nil, "python3", "-c", script).want(t, 1, "", ".*EchodError: the daemon ended by itself, with exit code -9:.*msg=listening.*")
}

// TestPage runs what docs/rigs.md has for the shell, and looks for its Go in the test of this folder.
func TestPage(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"sh", "curl"} {
		need(t, program)
	}
	page, err := os.ReadFile("../docs/rigs.md")
	if err != nil {
		t.Fatal(err)
	}
	ours, err := os.ReadFile("rig_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```(sh|go|python)\n(.*?)^```$").FindAllStringSubmatch(string(page), -1)
	seen := map[string]int{}
	for _, block := range blocks {
		seen[block[1]]++
		switch language, text := block[1], block[2]; language {
		case "sh":
			if got := run(t, nil, "sh", "-c", text); got.code != 0 || got.stdout == "" {
				t.Errorf("%s\n%+v", text, got)
			}
		case "python":
			need(t, "python3")
			if got := run(t, nil, "python3", "-c", text); got.code != 0 || got.stdout == "" {
				t.Errorf("%s\n%+v", text, got)
			}
		case "go":
			if !strings.Contains(string(ours), text) {
				t.Errorf("examples/rig_test.go does not have\n%s", text)
			}
		}
	}
	if seen["sh"] == 0 || seen["go"] == 0 || seen["python"] == 0 {
		t.Errorf("docs/rigs.md has %v", seen)
	}
}

func startProcess(t *testing.T) *echotest.Process {
	t.Helper()
	return echotest.StartProcess(t, echotest.ProcessOptions{Binary: filepath.Join(binaries, "echod")})
}

// wantEndpoints fails the test unless the daemon has so many.
func wantEndpoints(t *testing.T, p *echotest.Process, n int) {
	t.Helper()
	list, err := p.Endpoints().ListEndpoints(t.Context(), &echov1.ListEndpointsRequest{})
	if err != nil || len(list.Endpoints) != n {
		t.Errorf("%v, %v; want %d endpoints", list, err, n)
	}
}
