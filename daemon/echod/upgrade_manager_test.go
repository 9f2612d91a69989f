//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/echod/echod/daemon/internal/handover/managertest"
)

// lone makes a connection that the manager passes, and answers its other end.
func lone(t *testing.T, m *managertest.Manager) net.Conn {
	t.Helper()
	l := managertest.Listen(t, "tcp4", "127.0.0.1:0")
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	m.Pass(t, "connection", accepted.(*net.TCPConn))
	return peer
}

// is looks whether an endpoint has a state and a name of the manager.
func (u *upgradable) is(t *testing.T, when, name, state, inherited string) {
	t.Helper()
	if e := u.endpoints(t)[name]; e.State != state || e.Inherited != inherited {
		t.Errorf("%s, %s is %+v, want %s and %q\n%s", when, name, e, state, inherited, u.Output())
	}
}

// TestAManagerAndItsSocketsOverUpgrades upgrades a daemon twice that a service manager has started and keeps sockets of, and then
// uses what the manager has: all that it could do before, it can do since.
func TestAManagerAndItsSocketsOverUpgrades(t *testing.T) {
	m := managertest.Start(t)
	m.Watchdog(100 * time.Millisecond)
	web, still := managertest.Listen(t, "tcp4", "127.0.0.1:0"), managertest.Listen(t, "tcp4", "127.0.0.1:0")
	m.Pass(t, "Web.socket", web)
	m.Pass(t, "still", still)
	path := filepath.Join(worldDir(t), "control")
	control, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { control.Close() })
	m.Pass(t, "echod-control", control)
	peer := lone(t, m)

	state := t.TempDir()
	u := startUpgradableBy(t, m.Prepare, "--state-dir="+state)
	m.Withdraw("connection") // as systemd does: it is the daemon's alone
	tcp := u.create(`{"name": "tcp", "protocol": "TCP"}`)
	udp := u.create(`{"name": "udp", "protocol": "UDP"}`)
	gone := u.create(`{"name": "gone", "protocol": "TCP"}`)
	u.call("/v1/endpoints/still:stop", "{}")
	stored := m.Stored()
	if len(stored) != 3 {
		t.Fatalf("the manager keeps %q", stored)
	}
	if err := echoesOn(peer); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for range 2 {
		m.AwaitLine(t, "READY=1")
		m.Forget()
		pid = u.upgrade()
		// First the old one says who is the daemon, then the new one may speak.
		m.AwaitLine(t, "READY=1")
		m.Await(t, "the process that is the daemon", func(all []managertest.Message) bool {
			told := slices.IndexFunc(all, func(one managertest.Message) bool { return one.Text == fmt.Sprint("MAINPID=", pid) })
			spoke := slices.IndexFunc(all, func(one managertest.Message) bool { return int(one.PID) == pid })
			return told >= 0 && told < spoke && all[spoke].Has("READY=1")
		})
		m.Await(t, "that the new process lives", func(all []managertest.Message) bool {
			return slices.ContainsFunc(all, func(one managertest.Message) bool { return int(one.PID) == pid && one.Has("WATCHDOG=1") })
		})
		if now := m.Stored(); !slices.Equal(now, stored) {
			t.Errorf("after an upgrade the manager keeps %q, and kept %q", now, stored)
		}
		u.is(t, "after an upgrade", "web", "SERVING", "Web.socket")
		u.is(t, "after an upgrade", "still", "STOPPED", "still")
		u.is(t, "after an upgrade", "connection", "SERVING", "connection")
		u.is(t, "after an upgrade", "tcp", "SERVING", "")
		if err := echoesOn(peer); err != nil {
			t.Errorf("the connection after an upgrade: %v", err)
		}
	}

	// What the manager has bound cannot be bound again, and need not be.
	for _, one := range []struct{ name, inherited, address string }{{"web", "Web.socket", web.Addr().String()}, {"still", "still", still.Addr().String()}} {
		u.call("/v1/endpoints/"+one.name+":stop", "{}")
		u.is(t, "after a stop", one.name, "STOPPED", one.inherited)
		if started := u.call("/v1/endpoints/"+one.name+":start", "{}"); started["state"] != "SERVING" {
			t.Errorf("start: %v", started)
		}
		u.is(t, "after a start", one.name, "SERVING", one.inherited)
		if err := echoes("tcp", one.address); err != nil {
			t.Errorf("after a start: %v", err)
		}
	}
	// What is deleted is kept no more.
	if status, err := u.delete("/v1/endpoints/gone"); err != nil || status != http.StatusOK {
		t.Errorf("delete: %d, %v", status, err)
	}
	if now := m.Stored(); len(now) != 2 || slices.ContainsFunc(now, func(name string) bool { return strings.HasPrefix(name, "echod.gone.") }) {
		t.Errorf("after a deletion the manager keeps %q", now)
	}
	if l, err := net.Listen("tcp", gone); err != nil {
		t.Errorf("the port of what was deleted: %v", err)
	} else {
		l.Close()
	}
	// A connection that ends takes its endpoint along.
	peer.Close()
	for deadline := time.Now().Add(patience); u.endpoints(t)["connection"].Name != ""; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the endpoint is there after its connection has ended")
		}
	}

	// A kill refuses nobody: the sockets wait with the manager.
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, pid)
	u.ended = true
	waiting, err := net.Dial("tcp", tcp)
	if err != nil {
		t.Fatalf("after a kill: %v", err)
	}
	defer waiting.Close()
	sender, err := net.Dial("udp", udp)
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	if _, err := sender.Write([]byte("early")); err != nil {
		t.Fatalf("after a kill: %v", err)
	}
	p := start(t, managed(m, worldDir(t), "--state-dir="+state))
	if err := echoesOn(waiting); err != nil {
		t.Errorf("what came after a kill: %v", err)
	}
	_ = sender.SetReadDeadline(time.Now().Add(patience))
	if n, err := io.ReadFull(sender, make([]byte, 5)); err != nil {
		t.Errorf("a datagram after a kill: %d bytes, %v", n, err)
	}
	if got := p.endpoints(t); got["web"].Inherited != "Web.socket" || got["still"].State != "SERVING" || got["tcp"].Address != tcp || len(got) != 4 {
		t.Errorf("after a kill there are %v", got)
	}
	p.Stop()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the control socket of the manager: %v", err)
	}
}

// TestTheManagersControlSocketStays stops a daemon after an upgrade whose control socket the manager has made.
func TestTheManagersControlSocketStays(t *testing.T) {
	m := managertest.Start(t)
	path := filepath.Join(worldDir(t), "control")
	control, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { control.Close() })
	m.Pass(t, "echod-control", control)
	u := startUpgradableBy(t, m.Prepare)
	u.upgrade()
	u.stop()
	u.ended = true
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// TestADaemonForOneConnectionIsUpgraded has nothing else to do, and nobody can ask for it but by a signal.
func TestADaemonForOneConnectionIsUpgraded(t *testing.T) {
	m := managertest.Start(t)
	peer := lone(t, m)
	u := startUpgradableBy(t, m.Prepare, "--grpc-listen=", "--http-listen=", "--socket=")
	m.Withdraw("connection")
	if err := echoesOn(peer); err != nil {
		t.Fatal(err)
	}
	u.ended = true // it ends by itself
	u.Signal(syscall.SIGUSR2)
	if code := u.Wait(); code != exitDone {
		t.Fatalf("exit code %d\n%s", code, u.Output())
	}
	var pid int
	m.Await(t, "the process that is the daemon", func(all []managertest.Message) bool {
		last := all[len(all)-1]
		pid = int(last.PID)
		return last.Has("READY=1") && pid != u.PID
	})
	if err := echoesOn(peer); err != nil {
		t.Errorf("after an upgrade: %v\n%s", err, u.Output())
	}
	if slices.ContainsFunc(m.Messages(), func(one managertest.Message) bool { return one.Has("STOPPING=1") }) {
		t.Errorf("somebody has stopped: %v", m.Messages())
	}
	peer.Close()
	awaitEnd(t, pid)
	if strings.Contains(u.Output(), "level=ERROR") {
		t.Error(u.Output())
	}
}
