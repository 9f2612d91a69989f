package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestUnderSystemd has systemd itself run the daemon by the units of packaging/, with clients that use it: the test manager of
// the other tests is only as good as what it is known to do. Nobody is refused, and nothing is lost, by upgrades, crashes and
// restarts.
func TestUnderSystemd(t *testing.T) {
	files := worldDir(t)
	installBinary(t, files, binary)
	if out, err := exec.Command("go", "build", "-o", filepath.Join(files, "echoctl"), "github.com/echod/echod/ctl/echoctl").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// An address of this run alone.
	host := fmt.Sprintf("127.%d.%d.%d", 64+os.Getpid()>>16&63, os.Getpid()>>8&255, os.Getpid()&255)
	units := map[string]string{
		"echod.service.d/test.conf": "[Service]\nExecStart=\nExecStart=/srv/echod --grpc-listen=" + host + ":7007 --http-listen=" + host + ":7070\n" +
			"ExecReload=\nExecReload=+/srv/echoctl upgrade\n" +
			"StandardOutput=append:/srv/log\nStandardError=append:/srv/log\n",
		"echo.socket": "[Socket]\nListenStream=" + host + ":7\nListenDatagram=" + host + ":7\nFileDescriptorName=echo\nPassPacketInfo=yes\nService=echod.service\n",
		"test.target": "Requires=echod.socket echo.socket echod.service\nAfter=echod.socket echo.socket echod.service\n",
	}
	for _, name := range []string{"echod.service", "echod.socket"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "packaging", name))
		if err != nil {
			t.Fatal(err)
		}
		units[name] = string(text)
	}
	b := boot(t, files, units)
	b.await("echod.service", "StatusText", func(text string) bool { return text == "serving 2 endpoints" })
	url := "http://" + host + ":7070"
	create := func(protocol string) string {
		return fmt.Sprint(rest(t, url+"/v1/endpoints", `{"protocol": "`+protocol+`", "listen": "`+host+`:0"}`)["address"])
	}
	passed, bound := [2]string{host + ":7", host + ":7"}, [2]string{create("TCP"), create("UDP")} // TCP and UDP

	t.Run("upgrade", func(t *testing.T) {
		b.t = t
		size := loadSize{streams: 10, writes: 10 * time.Millisecond, datagrams: 5 * time.Millisecond, connects: 20 * time.Millisecond}
		loads := []*traffic{startLoad(t, passed[0], passed[1], size), startLoad(t, bound[0], bound[1], size)}
		for i := range 4 {
			before := b.main()
			if i%2 == 0 {
				b.systemctl("reload", "echod.service")
			} else {
				b.systemctl("kill", "-s", "USR2", "--kill-who=main", "echod.service")
			}
			b.awaitAnother(before)
			for _, l := range loads {
				if err := l.awaitMore(); err != nil {
					t.Fatalf("%v\n%s", err, b.log())
				}
			}
		}
		for _, l := range loads {
			l.end()
		}
		if now := b.show("echod.service", "ActiveState", "NRestarts", "NFileDescriptorStore"); now["ActiveState"] != "active" || now["NRestarts"] != "0" || now["NFileDescriptorStore"] != "2" {
			t.Errorf("%v\n%s", now, b.log())
		}
	})

	t.Run("kill and restart", func(t *testing.T) {
		b.t = t
		come := []*comers{startComers(t, passed[0]), startComers(t, bound[0])}
		for i := range 4 {
			before := b.main()
			if i%2 == 0 {
				b.systemctl("kill", "-s", "KILL", "--kill-who=main", "echod.service")
			} else {
				b.systemctl("restart", "echod.service")
			}
			b.awaitAnother(before)
			for i, c := range come {
				seen := c.answered.Load()
				for deadline := time.Now().Add(patience); c.answered.Load() == seen; time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatalf("nobody is answered\n%s", b.log())
					}
				}
				for network, address := range map[string]string{"tcp": [2]string{passed[0], bound[0]}[i], "udp": [2]string{passed[1], bound[1]}[i]} {
					if err := echoes(network, address); err != nil {
						t.Errorf("%s %s: %v\n%s", network, address, err, b.log())
					}
				}
			}
		}
		for _, c := range come {
			c.end()
		}
	})

	t.Run("a broken binary", func(t *testing.T) {
		b.t = t
		before := b.main()
		installBinary(t, files, "/bin/false")
		defer installBinary(t, files, binary)
		if out, err := b.try("reload", "echod.service"); err == nil {
			t.Errorf("a reload to a binary that does not start goes well: %s", out)
		}
		if now := b.show("echod.service", "MainPID", "ActiveState"); now["MainPID"] != before || now["ActiveState"] != "active" {
			t.Errorf("%v, was %s", now, before)
		}
	})

	t.Run("stop", func(t *testing.T) {
		b.t = t
		b.systemctl("stop", "echo.socket", "echod.socket", "echod.service")
		if now := b.show("echod.service", "Result", "ExecMainStatus", "NFileDescriptorStore"); now["Result"] != "success" || now["ExecMainStatus"] != "0" || now["NFileDescriptorStore"] != "0" {
			t.Errorf("%v\n%s", now, b.log())
		}
		for _, a := range []string{passed[0], bound[0]} {
			if conn, err := net.DialTimeout("tcp", a, patience); err == nil {
				conn.Close()
				t.Errorf("%s is taken still", a)
			}
		}
	})
	// The last, since it may do the same to a daemon that is only slow.
	t.Run("watchdog", func(t *testing.T) {
		b.t = t
		b.write("echod.service.d/watchdog.conf", "[Service]\nWatchdogSec=1s\n")
		b.systemctl("daemon-reload")
		b.systemctl("start", "echod.service")
		before := b.main()
		b.systemctl("kill", "-s", "STOP", "--kill-who=main", "echod.service")
		b.awaitAnother(before)
	})
}

// main is the process of the service.
func (b *booted) main() string {
	b.t.Helper()
	return b.show("echod.service", "MainPID")["MainPID"]
}

// awaitAnother waits until the service is served by another process.
func (b *booted) awaitAnother(before string) {
	b.t.Helper()
	b.await("echod.service", "MainPID", func(pid string) bool { return pid != before && pid != "0" })
	b.await("echod.service", "ActiveState", func(state string) bool { return state == "active" })
}

// installBinary puts a program at /srv/echod, as a package manager does.
func installBinary(t *testing.T, files, from string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	next := filepath.Join(files, "next")
	if err := errors.Join(os.WriteFile(next, text, 0o755), os.Rename(next, filepath.Join(files, "echod"))); err != nil {
		t.Fatal(err)
	}
}

// rest posts, which must go well.
func rest(t *testing.T, url, body string) map[string]any {
	t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := decode(resp)
	if err != nil || answer["status"] != http.StatusOK {
		t.Fatalf("%s %s: %v, %v", url, body, answer, err)
	}
	return answer
}
