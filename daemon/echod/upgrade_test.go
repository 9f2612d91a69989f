//go:build linux

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
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echotest"
)

// upgradable is an echod at a path of its own, where other binaries can be put.
type upgradable struct {
	process
	t    testing.TB
	path string
	log  string // a file
	http *http.Client
	// flags are those that it was started with; ended says that the test has stopped it.
	flags []string
	ended bool
}

// Output is what all its processes have written.
func (u *upgradable) Output() string {
	text, err := os.ReadFile(u.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// startUpgradable starts echod from a place of its own. What it becomes by upgrades ends with the test.
func startUpgradable(t testing.TB, flags ...string) *upgradable {
	t.Helper()
	return startUpgradableBy(t, func(*exec.Cmd) {}, flags...)
}

// startUpgradableBy has somebody else prepare the first process.
func startUpgradableBy(t testing.TB, prepare func(*exec.Cmd), flags ...string) *upgradable {
	t.Helper()
	u := &upgradable{
		t: t, flags: flags, path: filepath.Join(worldDir(t), "echod"),
		// A connection each: one that is kept is closed when its process goes.
		http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * patience},
	}
	u.install(binary)
	log, err := os.Create(filepath.Join(worldDir(t), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	u.log = log.Name()
	u.process = process{echotest.StartProcess(t, echotest.ProcessOptions{
		// A file, since a pipe would end with the first process.
		Binary: u.path, Flags: flags, Dir: worldDir(t), Prepare: func(c *exec.Cmd) { c.Stdout, c.Stderr = log, log; prepare(c) },
	})}
	t.Cleanup(func() {
		u.stop()
		if strings.Contains(u.Output(), "DATA RACE") {
			t.Error(u.Output())
		}
	})
	return u
}

// install puts another binary in the place of the daemon's.
func (u *upgradable) install(from string) {
	u.t.Helper()
	next := u.path + ".next"
	if err := os.Link(from, next); err != nil {
		u.t.Fatal(err)
	}
	if err := os.Rename(next, u.path); err != nil {
		u.t.Fatal(err)
	}
	// Two names of one file are left alone by a rename.
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		u.t.Fatal(err)
	}
}

// installScript puts a script there.
func (u *upgradable) installScript(text string) {
	u.t.Helper()
	script := u.path + ".script"
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		u.t.Fatal(err)
	}
	u.install(script)
	if err := os.Remove(script); err != nil {
		u.t.Fatal(err)
	}
}

// stop ends the process that is the daemon by now, if it is not the first.
func (u *upgradable) stop() {
	if u.ended || !hasEnded(u.PID) { // Stop of the process does that
		return
	}
	u.Wait()
	info, err := u.get("/v1/info")
	if err != nil {
		u.t.Errorf("no daemon is left: %v\n%s", err, u.Output())
		return
	}
	pid := number(info["pid"])
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		u.t.Errorf("cannot stop process %d: %v", pid, err)
	}
	awaitEnd(u.t, pid)
	if u.t.Failed() {
		u.t.Log(u.Output())
	}
}

// hasEnded says whether a process is gone, or waits for nothing but to be asked how it ended.
func hasEnded(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

func awaitEnd(t testing.TB, pid int) {
	t.Helper()
	for deadline := time.Now().Add(patience); !hasEnded(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d does not end", pid)
		}
	}
}

func number(v any) int {
	n, _ := strconv.Atoi(fmt.Sprint(v))
	return n
}

func (u *upgradable) get(path string) (map[string]any, error) {
	resp, err := u.http.Get(u.URL + path)
	if err != nil {
		return nil, err
	}
	return decode(resp)
}

func decode(resp *http.Response) (map[string]any, error) {
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	answer := map[string]any{}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	if err := d.Decode(&answer); err != nil {
		return nil, fmt.Errorf("%w: %s", err, text)
	}
	answer["status"] = resp.StatusCode
	return answer, nil
}

func (u *upgradable) call(path, body string) map[string]any {
	u.t.Helper()
	resp, err := u.http.Post(u.URL+path, "application/json", strings.NewReader(body))
	if err != nil {
		u.t.Fatal(err)
	}
	answer, err := decode(resp)
	if err != nil {
		u.t.Fatal(err)
	}
	return answer
}

func (u *upgradable) create(body string) (address string) {
	u.t.Helper()
	e := u.call("/v1/endpoints", body)
	if e["address"] == nil {
		u.t.Fatalf("%s: %v", body, e)
	}
	return fmt.Sprint(e["address"])
}

func (u *upgradable) pid() int {
	u.t.Helper()
	info, err := u.get("/v1/info")
	if err != nil {
		u.t.Fatal(err)
	}
	return number(info["pid"])
}

// upgrade upgrades over REST and answers the new process. The old one has ended when it returns.
func (u *upgradable) upgrade() int {
	u.t.Helper()
	before := u.pid()
	done := u.call("/v1/daemon:upgrade", "{}")
	if done["status"] != http.StatusOK {
		u.t.Fatalf("upgrade: %v\n%s", done, u.Output())
	}
	pid := number(done["pid"])
	if pid == before || pid != u.pid() {
		u.t.Fatalf("process %d is the daemon, was %d, and the upgrade said %d", u.pid(), before, pid)
	}
	if before == u.PID {
		if code := u.Wait(); code != exitDone {
			u.t.Fatalf("the first process ended with %d\n%s", code, u.Output())
		}
	} else {
		awaitEnd(u.t, before)
	}
	return pid
}

// files is how many descriptors a process has, once no control connection is open any more.
func files(t testing.TB, pid int) int {
	t.Helper()
	last, same := -1, 0
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) != last {
			last, same = len(entries), 0
		} else if same++; same == 10 {
			return last
		}
	}
	t.Fatalf("the descriptors of process %d do not come to rest", pid)
	return 0
}

// TestUpgradeUnderLoad upgrades a daemon again and again while clients use it: nothing is refused, reset, lost or wrong.
func TestUpgradeUnderLoad(t *testing.T) {
	times, size := 10, loadSize{streams: 20, writes: 10 * time.Millisecond, datagrams: 2 * time.Millisecond, connects: 20 * time.Millisecond}
	if n, err := strconv.Atoi(os.Getenv("ECHOD_TEST_UPGRADES")); err == nil {
		times, size = n, loadSize{
			// What 200 streams write is not to take what the datagrams need.
			streams: 200, writes: 100 * time.Millisecond, datagrams: 200 * time.Microsecond, connects: 20 * time.Millisecond,
		}
	}
	for name, flags := range map[string][]string{"memory": nil, "state": {"--state-dir=" + t.TempDir()}} {
		t.Run(name, func(t *testing.T) {
			u := startUpgradable(t, flags...)
			tcp := u.create(`{"name": "tcp", "protocol": "TCP", "labels": {"rack": "r1"}}`)
			udp := u.create(`{"name": "udp", "protocol": "UDP"}`)
			was, err := u.get("/v1/endpoints/tcp")
			if err != nil {
				t.Fatal(err)
			}
			l, began := startLoad(t, tcp, udp, size), time.Now()
			first := 0
			for i := range times {
				pid := u.upgrade()
				if err := l.awaitMore(); err != nil {
					now, errGet := u.get("/v1/endpoints/tcp")
					t.Fatalf("upgrade %d: %v: %v, %v\n%s", i, err, now, errGet, u.Output())
				}
				if first == 0 {
					first = pid
				}
			}
			took := time.Since(began).Seconds()
			l.end()
			now, err := u.get("/v1/endpoints/tcp")
			if err != nil {
				t.Fatal(err)
			}
			for _, field := range []string{"uid", "createTime", "updateTime", "etag", "address", "state", "labels"} {
				if fmt.Sprint(now[field]) != fmt.Sprint(was[field]) {
					t.Errorf("%s is %v, was %v", field, now[field], was[field])
				}
			}
			stats, _ := now["counters"].(map[string]any)
			if got, want := fmt.Sprint(stats["bytesOut"]), fmt.Sprint(l.bytes.Load()+8*l.connects.Load()); got != want {
				t.Errorf("%s bytes were counted, %s were echoed", got, want)
			}
			if got, want := fmt.Sprint(stats["connectionsTotal"]), fmt.Sprint(uint64(size.streams)+l.connects.Load()); got != want {
				t.Errorf("%s connections were counted, %s there were", got, want)
			}
			t.Logf("%d upgrades, %d bytes, %d datagrams (%.0f/s), %d connections (%.0f/s); the longest stall took %v", times, l.bytes.Load(),
				l.datagrams.Load(), float64(l.datagrams.Load())/took, l.connects.Load(), float64(l.connects.Load())/took, time.Duration(l.longest.Load()).Round(time.Millisecond))
		})
	}
}

// TestUpgradeEachWay upgrades over each interface, and by the signal.
func TestUpgradeEachWay(t *testing.T) {
	u := startUpgradable(t)
	address := u.create(`{"name": "e", "protocol": "TCP"}`)
	peer, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if err := greet(address); err != nil {
		t.Fatal(err)
	}
	pid := u.upgrade()
	if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, pid)
	u.upgrade()
	_ = peer.SetDeadline(time.Now().Add(patience))
	if _, err := peer.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(peer, make([]byte, 1)); err != nil {
		t.Fatalf("%v\n%s", err, u.Output())
	}
}
