//go:build linux

package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/echod/echod/daemon/echotest"
)

// faulty builds an echod that fails where ECHOD_UPGRADE_FAULT says when it takes over.
var faulty = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(binary), "echod-faulty")
	output, err := exec.Command("go", "build", "-tags", "upgradefault", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("cannot build an echod with faults: %w\n%s", err, output)
	}
	return path, nil
})

// TestABrokenBinaryChangesNothing tries to upgrade to what cannot take over. The daemon goes on, nobody notices, and then it is
// upgraded to one that can.
func TestABrokenBinaryChangesNothing(t *testing.T) {
	bad, err := faulty()
	if err != nil {
		t.Fatal(err)
	}
	fault := func(how string) string { return "ECHOD_UPGRADE_FAULT=" + how + " exec " + bad + ` "$@"` }
	for name, flags := range map[string][]string{"memory": nil, "state": {"--state-dir=" + t.TempDir()}} {
		t.Run(name, func(t *testing.T) {
			// A hang lasts as long as an upgrade may: nobody waits for that here.
			u := startUpgradable(t, append(flags, "--upgrade-timeout=3s")...)
			tcp, udp := u.create(`{"name": "tcp", "protocol": "TCP"}`), u.create(`{"name": "udp", "protocol": "UDP"}`)
			l := startLoad(t, tcp, udp, loadSize{streams: 5, writes: 10 * time.Millisecond, datagrams: 5 * time.Millisecond, connects: 50 * time.Millisecond})
			for _, c := range []struct{ script, want string }{
				{"exit 1", "exit status 1"},
				{"kill -9 $$", "killed"},
				{"exec sleep 3600", "did not say who it is in time"},
				{"exec " + binary + ` --nonsense "$@"`, "unknown flag: --nonsense"},
				{"exec " + binary + ` "$@" --state-dir=/nowhere`, "state directory"},
				{binary + ` "$@"`, "must exec it"}, // another process
				{fault("hello:hang"), "did not say who it is in time"},
				{fault("hello:kill"), "killed"},
				{fault("protocol:0"), "protocol 0 to 0"},
				{fault("checked:hang"), "did not check what it would take over in time"},
				{fault("checked:panic"), "exit status 2"},
				{fault("checked:kill"), "killed"},
				{fault("assembled:hang"), "did not open the state file in time"},
				{fault("assembled:kill"), "killed"},
				{fault("adopted:hang"), "did not take over the sockets in time"},
				{fault("adopted:exit"), "exit status 3"},
				{fault("adopted:kill"), "killed"},
				{fault("ready:panic"), "exit status 2"},
				{fault("ready:kill"), "killed"},
				{fault("ready:hang"), "did not take over the sockets in time"},
				{fault("go:kill"), "killed"},
				{fault("go:hang"), "did not take over the sockets in time"},
			} {
				u.installScript(c.script)
				failed := u.call("/v1/daemon:upgrade", "{}")
				if failed["status"] != http.StatusBadRequest || !strings.Contains(fmt.Sprint(failed), "UPGRADE_FAILED") || !strings.Contains(fmt.Sprint(failed["message"]), c.want) {
					t.Errorf("%s: %v, want %q", c.script, failed, c.want)
				}
				if pid := u.pid(); pid != u.PID {
					t.Fatalf("%s: process %d is the daemon", c.script, pid)
				}
				if children := childrenOf(t, u.PID); children != "" {
					t.Errorf("%s: processes are left: %s", c.script, children)
				}
				// It takes changes, and keeps them.
				u.create(`{"name": "e", "protocol": "TCP"}`)
				if deleted, err := u.delete("/v1/endpoints/e"); err != nil || deleted != http.StatusOK {
					t.Errorf("%s: delete answers %d, %v", c.script, deleted, err)
				}
				if t.Failed() {
					t.Fatalf("%s\n%s", c.script, u.Output())
				}
			}
			u.install(binary)
			if tried := u.call("/v1/daemon:upgrade", `{"validateOnly": true}`); tried["status"] != http.StatusOK || number(tried["endpoints"]) != 2 || u.pid() != u.PID {
				t.Errorf("validate only: %v", tried)
			}
			u.upgrade()
			l.end()
		})
	}
}

// TestAScriptIsRunEachTime upgrades by way of a script, and then once more: to what lies where the script lay, not to what that had
// become.
func TestAScriptIsRunEachTime(t *testing.T) {
	u := startUpgradable(t)
	u.installScript("exec " + binary + ` "$@"`)
	u.upgrade()
	u.installScript("exit 7")
	if failed := u.call("/v1/daemon:upgrade", "{}"); !strings.Contains(fmt.Sprint(failed["message"]), "exit status 7") {
		t.Errorf("%v", failed)
	}
	u.install(binary)
	u.upgrade()
}

// TestAnUpgradeWithTooFewFiles has a limit of open files that leaves none for a second descriptor of each socket: it is refused in a
// few words, and works when the limit has been raised.
func TestAnUpgradeWithTooFewFiles(t *testing.T) {
	u := startUpgradable(t)
	var address string
	for i := range 50 {
		address = u.create(fmt.Sprintf(`{"name": "e-%d", "protocol": "TCP"}`, i))
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", u.PID))
	if err != nil {
		t.Fatal(err)
	}
	var was unix.Rlimit
	if err := unix.Prlimit(u.PID, unix.RLIMIT_NOFILE, nil, &was); err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: uint64(len(open)) + 20, Max: was.Max}
	if err := unix.Prlimit(u.PID, unix.RLIMIT_NOFILE, &few, nil); err != nil {
		t.Fatal(err)
	}
	failed := u.call("/v1/daemon:upgrade", "{}")
	message := fmt.Sprint(failed["message"])
	if failed["status"] != http.StatusBadRequest || !strings.Contains(message, "too many open files (and ") || !strings.Contains(message, fmt.Sprintf("and %d may be open: raise that limit", few.Cur)) ||
		len(message) > 500 {
		t.Errorf("%v", failed)
	}
	if err := greet(address); err != nil {
		t.Error(err)
	}
	if err := unix.Prlimit(u.PID, unix.RLIMIT_NOFILE, &was, nil); err != nil {
		t.Fatal(err)
	}
	u.upgrade()
	if err := greet(address); err != nil {
		t.Error(err)
	}
}

// childrenOf answers the processes that a process has started and that have not ended.
func childrenOf(t *testing.T, pid int) string {
	t.Helper()
	var found []string
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if err == nil && len(text) > 0 {
			found = append(found, string(text))
		}
	}
	return strings.Join(found, " ")
}

func (u *upgradable) delete(path string) (int, error) {
	req, err := http.NewRequest(http.MethodDelete, u.URL+path, nil)
	if err != nil {
		return 0, err
	}
	resp, err := u.http.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// TestOneUpgradeAtATime begins a second one while the first is under way, and stops the daemon meanwhile.
func TestOneUpgradeAtATime(t *testing.T) {
	u := startUpgradable(t)
	begun := filepath.Join(worldDir(t), "begun")
	u.installScript("echo > " + begun + "; exec sleep 3600")
	first := make(chan map[string]any, 1)
	go func() {
		resp, err := u.http.Post(u.URL+"/v1/daemon:upgrade", "application/json", strings.NewReader("{}"))
		if err != nil {
			first <- map[string]any{"message": err.Error()}
			return
		}
		answer, _ := decode(resp)
		first <- answer
	}()
	awaitFile(t, begun)
	second := u.call("/v1/daemon:upgrade", "{}")
	if second["status"] != http.StatusConflict || !strings.Contains(fmt.Sprint(second), "UPGRADE_RUNNING") {
		t.Errorf("the second: %v", second)
	}
	u.Signal(syscall.SIGTERM)
	if answer := <-first; !strings.Contains(fmt.Sprint(answer["message"]), "stopping") {
		t.Errorf("the first: %v", answer)
	}
	if code := u.Wait(); code != exitDone {
		t.Errorf("exit code %d\n%s", code, u.Output())
	}
	u.ended = true
}

// TestAStopThatComesTooLate stops a process that has let go, while the new one does not yet say that it has taken over, or that it
// serves: the new one is the daemon, and has all that it needs.
func TestAStopThatComesTooLate(t *testing.T) {
	for _, step := range []string{"go", "taken"} {
		t.Run(step, func(t *testing.T) { stopTooLate(t, step) })
	}
}

func stopTooLate(t *testing.T, step string) {
	bad, err := faulty()
	if err != nil {
		t.Fatal(err)
	}
	u := startUpgradable(t)
	address := u.create(`{"name": "e", "protocol": "TCP"}`)
	u.installScript("ECHOD_UPGRADE_FAULT=" + step + ":stop exec " + bad + ` "$@"`)
	u.Signal(syscall.SIGUSR2)
	var next int
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		next = number(strings.TrimSpace(childrenOf(t, u.PID)))
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", next)); err == nil && strings.Contains(string(text), ") T ") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the new process is not stopped\n%s", u.Output())
		}
	}
	u.Signal(syscall.SIGTERM)
	// One that drained would say so.
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline) && !strings.Contains(u.Output(), "msg=stopping"); {
		time.Sleep(5 * time.Millisecond)
	}
	if err := syscall.Kill(next, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if code := u.Wait(); code != exitDone {
		t.Errorf("exit code %d\n%s", code, u.Output())
	}
	if pid := u.pid(); pid != next {
		t.Errorf("process %d is the daemon, want %d", pid, next)
	}
	if _, err := os.Stat(u.Socket); err != nil {
		t.Errorf("the socket file: %v\n%s", err, u.Output())
	}
	if err := greet(address); err != nil {
		t.Error(err)
	}
}

func awaitFile(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not come", path)
		}
	}
}

// TestASignalUpgrades upgrades by the signal, to another binary each time and back, and looks at what is left of the old ones.
func TestASignalUpgrades(t *testing.T) {
	u := startUpgradable(t, "--state-dir="+t.TempDir())
	u.create(`{"name": "e", "protocol": "TCP"}`)
	ready := filepath.Join(filepath.Dir(u.Socket), "ready")
	pid, had := u.PID, 0
	for i := range 4 {
		if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if code := u.Wait(); code != exitDone {
				t.Fatalf("exit code %d\n%s", code, u.Output())
			}
		} else {
			awaitEnd(t, pid)
		}
		now := u.pid()
		if now == pid || now == 0 {
			t.Fatalf("process %d is the daemon, was %d\n%s", now, pid, u.Output())
		}
		pid = now
		if text, err := os.ReadFile(ready); err != nil || !strings.Contains(string(text), fmt.Sprintf(`"pid":%d`, pid)) {
			t.Errorf("the ready file says %s, %v; process %d is the daemon", text, err, pid)
		}
		if info, err := os.Stat(u.Socket); err != nil || info.Mode()&os.ModeSocket == 0 {
			t.Errorf("the socket file: %v, %v", info, err)
		}
		if have := files(t, pid); had != 0 && have != had {
			t.Errorf("process %d has %d descriptors, the one before had %d", pid, have, had)
		} else {
			had = have
		}
	}
	u.stop()
	u.ended = true
	for _, path := range []string{ready, u.Socket} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left behind: %v", path, err)
		}
	}
	// What was handed over four times is in the state directory.
	again := echotest.StartProcess(t, echotest.ProcessOptions{Binary: binary, Flags: []string{u.flags[0]}, Dir: worldDir(t)})
	resp, err := again.HTTPClient().Get(again.URL + "/v1/endpoints/e")
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := decode(resp); err != nil || answer["state"] != "SERVING" {
		t.Errorf("%v, %v", answer, err)
	}
}
