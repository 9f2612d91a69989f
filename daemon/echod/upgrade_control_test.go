//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// echoctl is the command line client of all tests that use it.
var echoctl = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(binary), "echoctl")
	output, err := exec.Command("go", "build", "-o", path, "github.com/echod/echod/ctl/echoctl").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("cannot build echoctl: %w\n%s", err, output)
	}
	return path, nil
})

// client is an echoctl that runs.
type client struct {
	t        *testing.T
	command  *exec.Cmd
	mu       sync.Mutex // guards text
	text     bytes.Buffer
	standard io.WriteCloser // its input
}

// Write takes what it writes.
func (c *client) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Write(p)
}

func (c *client) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// await waits until it has written something.
func (c *client) await(text string) {
	c.t.Helper()
	c.awaitTimes(text, 1)
}

// awaitTimes waits until it has written something so many times.
func (c *client) awaitTimes(text string, n int) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); strings.Count(c.String(), text) < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("echoctl does not write %q, but\n%s", text, c)
		}
	}
}

// echoctl starts one that calls this daemon.
func (u *upgradable) echoctl(t *testing.T, args ...string) *client {
	t.Helper()
	path, err := echoctl()
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, command: exec.Command(path, append([]string{"--server", "unix:" + u.Socket}, args...)...)}
	c.command.Stdout, c.command.Stderr = c, c
	if c.standard, err = c.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.command.ProcessState == nil {
			_ = c.command.Process.Kill()
			_ = c.command.Wait()
		}
	})
	return c
}

// TestUpgradeOverEachInterface tries an upgrade and does one over gRPC and the unix socket, as the other tests do over REST.
func TestUpgradeOverEachInterface(t *testing.T) {
	u := startUpgradable(t)
	u.create(`{"name": "e", "protocol": "TCP"}`)
	for name, target := range map[string]string{"grpc": u.GRPC, "unix": "unix:" + u.Socket} {
		conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		daemon := echov1.NewDaemonServiceClient(conn)
		before := u.pid()
		tried, err := daemon.UpgradeDaemon(t.Context(), &echov1.UpgradeDaemonRequest{ValidateOnly: true})
		if err != nil || tried.GetEndpoints() != 1 || int(tried.GetPid()) == before || u.pid() != before {
			t.Errorf("%s: tried: %v, %v", name, tried, err)
		}
		done, err := daemon.UpgradeDaemon(t.Context(), &echov1.UpgradeDaemonRequest{})
		if err != nil || done.GetEndpoints() != 1 || done.GetPause().AsDuration() <= 0 || int(done.GetPid()) != u.pid() || u.pid() == before {
			t.Errorf("%s: done: %v, %v; process %d is the daemon, was %d", name, done, err, u.pid(), before)
		}
		awaitGone(t, u, before)
	}
}

// awaitGone waits for the end of a process that was the daemon.
func awaitGone(t *testing.T, u *upgradable, pid int) {
	t.Helper()
	if pid == u.PID {
		if code := u.Wait(); code != exitDone {
			t.Errorf("exit code %d\n%s", code, u.Output())
		}
		return
	}
	awaitEnd(t, pid)
}

// TestAChangeThatComesInTheMoment creates endpoints while nothing may change: they are refused with the word to try again, which
// echoctl does, and reading goes on. The moment lasts as long as an upgrade may.
func TestAChangeThatComesInTheMoment(t *testing.T) {
	bad, err := faulty()
	if err != nil {
		t.Fatal(err)
	}
	u := startUpgradable(t, "--upgrade-timeout=3s")
	u.create(`{"name": "e", "protocol": "TCP"}`)
	u.installScript("ECHOD_UPGRADE_FAULT=assembled:hang exec " + bad + ` "$@"`)
	upgraded := make(chan string, 1)
	go func() {
		resp, err := u.http.Post(u.URL+"/v1/daemon:upgrade", "application/json", strings.NewReader("{}"))
		if err != nil {
			upgraded <- err.Error()
			return
		}
		answer, _ := decode(resp)
		upgraded <- fmt.Sprint(answer["message"])
	}()
	for i := 0; ; i++ {
		answer := u.call("/v1/endpoints", fmt.Sprintf(`{"name": "early-%d", "protocol": "TCP"}`, i))
		if answer["status"] == http.StatusOK {
			continue // it was not yet there
		}
		if text := fmt.Sprint(answer); answer["status"] != http.StatusServiceUnavailable || !strings.Contains(text, "UPGRADING") || !strings.Contains(text, "retryDelay") {
			t.Fatalf("create: %v", answer)
		}
		break
	}
	if e, err := u.get("/v1/endpoints/e"); err != nil || e["state"] != "SERVING" {
		t.Errorf("reading: %v, %v", e, err)
	}
	late := u.echoctl(t, "create", "tcp", "--name", "late", "-o", "name")
	if err := late.command.Wait(); err != nil || strings.TrimSpace(late.String()) != "late" {
		t.Errorf("echoctl create: %v, %s", err, late)
	}
	if says := <-upgraded; !strings.Contains(says, "an upgrade may take 3s") {
		t.Errorf("the upgrade says %q", says)
	}
	if u.pid() != u.PID {
		t.Error("another process is the daemon")
	}
}

// runs is how often the monitor m has run.
func (u *upgradable) runs(t *testing.T) int {
	t.Helper()
	m, err := u.get("/v1/monitors/m")
	if err != nil {
		t.Fatal(err)
	}
	counters, _ := m["counters"].(map[string]any)
	return number(counters["runs"])
}

// TestClientsGoOnOverAnUpgrade has a session held and events watched by echoctl, a monitor, and a probe under way.
func TestClientsGoOnOverAnUpgrade(t *testing.T) {
	u := startUpgradable(t)
	session := u.echoctl(t, "session", "--name", "s", "--grace", "1s", "--tcp", "127.0.0.1:0", "--", "cat")
	for deadline := time.Now().Add(patience); u.endpoints(t)["s-tcp-1"].State != "SERVING"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the session has no endpoint: %s", session)
		}
	}
	watch := u.echoctl(t, "watch", "--kind", "endpoint", "-o", "json")
	watch.await("SYNCED")
	u.create(`{"name": "first", "protocol": "UDP"}`)
	watch.await(`"first"`)
	probe := u.call("/v1/probes", `{"target": {"endpoint": "first"}, "count": 100000, "interval": "10ms"}`)
	if probe["status"] != http.StatusOK {
		t.Fatalf("a probe: %v", probe)
	}
	until := probe["name"]
	u.call("/v1/monitors", `{"name": "m", "probe": {"target": {"endpoint": "first"}, "count": 1, "timeout": "30s"}, "interval": "1s"}`)
	runs := 0

	for i := range 2 {
		// A watch is resumed as it has read all that there is.
		last := fmt.Sprintf("before-%d", i)
		u.create(fmt.Sprintf(`{"name": %q, "protocol": "TCP"}`, last))
		watch.await(`"` + last + `"`)
		u.upgrade()
		next := fmt.Sprintf("after-%d", i)
		u.create(fmt.Sprintf(`{"name": %q, "protocol": "TCP"}`, next))
		watch.await(`"` + next + `"`)
		session.awaitTimes("held again", i+1)
		// Its counters go on, and it does.
		before := u.runs(t)
		if before < runs {
			t.Errorf("a monitor has run %d times, and had %d", before, runs)
		}
		for deadline := time.Now().Add(patience); runs <= before; time.Sleep(20 * time.Millisecond) {
			if runs = u.runs(t); time.Now().After(deadline) {
				t.Fatalf("the monitor does not run, after %d times", runs)
			}
		}
	}
	for _, name := range []string{"first", "before-0", "after-0", "before-1", "after-1"} {
		if n := strings.Count(watch.String(), `"name":"`+name+`"`) + strings.Count(watch.String(), `"name": "`+name+`"`); n != 1 {
			t.Errorf("%s was told %d times:\n%s", name, n, watch)
		}
	}
	if strings.Contains(watch.String(), "beginning anew") {
		t.Errorf("the watch was not resumed:\n%s", watch)
	}
	if answer, err := u.get(fmt.Sprint("/v1/probes/", until)); err != nil || answer["status"] != http.StatusNotFound {
		t.Errorf("a probe that ran is %v, %v", answer, err)
	}

	// It ends as always, and its endpoint with it.
	if e := u.endpoints(t)["s-tcp-1"]; e.State != "SERVING" {
		t.Errorf("the endpoint of the session is %+v", e)
	}
	session.standard.Close()
	if err := session.command.Wait(); err != nil {
		t.Errorf("echoctl session: %v\n%s", err, session)
	}
	if e, there := u.endpoints(t)["s-tcp-1"]; there {
		t.Errorf("after the session there is %+v", e)
	}
	_ = watch.command.Process.Signal(syscall.SIGINT)
}
