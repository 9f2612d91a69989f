package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echotest"
	"github.com/echod/echod/daemon/internal/handover/managertest"
)

// These tests run the real binary as a service manager does.

// managed are the options of a daemon that a manager starts.
func managed(m *managertest.Manager, dir string, flags ...string) echotest.ProcessOptions {
	return echotest.ProcessOptions{Binary: binary, Dir: dir, Flags: flags, Prepare: m.Prepare}
}

func start(t *testing.T, o echotest.ProcessOptions) process {
	t.Helper()
	return process{echotest.StartProcess(t, o)}
}

// endpoint is one as REST answers it.
type endpoint struct {
	Name, Address, Listen, Protocol, State, StateReason, Inherited string
	Labels                                                         map[string]string
	Counters                                                       struct{ ConnectionsOpen, ConnectionsTotal any }
}

func (p process) endpoints(t *testing.T) map[string]endpoint {
	t.Helper()
	resp, err := p.HTTPClient().Get(p.URL + "/v1/endpoints")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct{ Endpoints []endpoint }
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	all := map[string]endpoint{}
	for _, e := range list.Endpoints {
		all[e.Name] = e
	}
	return all
}

func (p process) do(t *testing.T, method, path, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, p.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	resp, err := p.HTTPClient().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s %s %v", method, path, resp.Status, text, err)
	}
}

// echoes says whether an address echoes.
func echoes(network, address string) error {
	conn, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	return echoesOn(conn)
}

func echoesOn(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
		return fmt.Errorf("got %q: %w", got, errors.Join(err, errors.New("want it back")))
	}
	return nil
}

func TestInheritedSocketsAreEndpoints(t *testing.T) {
	m := managertest.Start(t)
	four := managertest.Listen(t, "tcp4", "127.0.0.1:0")
	six := managertest.Listen(t, "tcp6", "[::1]:0")
	all6 := managertest.Listen(t, "tcp6", "[::]:0")
	both := managertest.Listen(t, "tcp", ":0")
	udp := managertest.ListenPacket(t, "udp4", "127.0.0.1:0")
	udpBoth := managertest.ListenPacket(t, "udp", ":0")
	port := func(a net.Addr) string { _, port, _ := net.SplitHostPort(a.String()); return port }
	m.Pass(t, "Web.socket", four)
	m.Pass(t, "Web.socket", six)
	m.Pass(t, "all_6", all6)
	m.Pass(t, "...", both)
	m.Pass(t, "clock", udp)
	m.Pass(t, "clock-2", udpBoth)
	p := start(t, managed(m, worldDir(t)))
	want := map[string]endpoint{
		"web":       {Listen: four.Addr().String(), Inherited: "Web.socket", Protocol: "TCP"},
		"web-2":     {Listen: six.Addr().String(), Inherited: "Web.socket", Protocol: "TCP"},
		"all-6":     {Listen: "[::]:" + port(all6.Addr()), Inherited: "all_6", Protocol: "TCP"},
		"inherited": {Listen: ":" + port(both.Addr()), Inherited: "...", Protocol: "TCP"},
		"clock":     {Listen: udp.LocalAddr().String(), Inherited: "clock", Protocol: "UDP"},
		"clock-2":   {Listen: ":" + port(udpBoth.LocalAddr()), Inherited: "clock-2", Protocol: "UDP"},
	}
	got := p.endpoints(t)
	if len(got) != len(want) {
		t.Errorf("%d endpoints of %d: %v", len(got), len(want), got)
	}
	for name, w := range want {
		if g := got[name]; g.Listen != w.Listen || g.Inherited != w.Inherited || g.Protocol != w.Protocol || g.State != "SERVING" {
			t.Errorf("%s is %+v, want %+v", name, g, w)
		}
	}
	for _, one := range []struct{ network, address string }{
		{"tcp", four.Addr().String()}, {"tcp", six.Addr().String()}, {"tcp", "[::1]:" + port(all6.Addr())},
		{"tcp", "127.0.0.1:" + port(both.Addr())}, {"tcp", "[::1]:" + port(both.Addr())},
		{"udp", udp.LocalAddr().String()}, {"udp", "127.0.0.1:" + port(udpBoth.LocalAddr())}, {"udp", "[::1]:" + port(udpBoth.LocalAddr())},
	} {
		if err := echoes(one.network, one.address); err != nil {
			t.Errorf("%s %s: %v", one.network, one.address, err)
		}
	}
	if stored := m.Stored(); len(stored) > 0 {
		t.Errorf("what the manager has anyhow was given to its store: %q", stored)
	}
}

// TestAnInheritedSocketAndItsRecord restarts a daemon with the same sockets, without one, and with others.
func TestAnInheritedSocketAndItsRecord(t *testing.T) {
	m := managertest.Start(t)
	web := managertest.Listen(t, "tcp4", "127.0.0.1:0")
	m.Pass(t, "web", web)
	gone := managertest.Listen(t, "tcp4", "127.0.0.1:0")
	m.Pass(t, "gone", gone)
	o := managed(m, worldDir(t), "--state-dir="+t.TempDir())
	p := start(t, o)
	p.do(t, http.MethodPatch, "/v1/endpoints/web", `{"labels": {"a": "b"}}`)
	p.do(t, http.MethodPost, "/v1/endpoints", `{"name": "taken", "protocol": "TCP"}`)

	// What the manager has made is stopped and started again by the same socket.
	p.do(t, http.MethodPost, "/v1/endpoints/web:stop", `{}`)
	if e := p.endpoints(t)["web"]; e.State != "STOPPED" || e.Inherited != "web" {
		t.Errorf("after a stop: %+v", e)
	}
	p.do(t, http.MethodPost, "/v1/endpoints/web:start", `{}`)
	if err := echoes("tcp", web.Addr().String()); err != nil {
		t.Errorf("after a start: %v", err)
	}
	p.Kill()

	m.Withdraw("gone")
	gone.Close()
	other := managertest.Listen(t, "tcp4", "127.0.0.1:0")
	m.Pass(t, "taken", other)
	p = start(t, o)
	got := p.endpoints(t)
	if e := got["web"]; e.Labels["a"] != "b" || e.State != "SERVING" || e.Inherited != "web" {
		t.Errorf("web came back as %+v", e)
	}
	if e := got["gone"]; e.State != "FAILED" || !strings.Contains(e.StateReason, `no socket "gone"`) {
		t.Errorf("what was not passed this time is %+v", e)
	}
	if e := got["taken-2"]; e.Listen != other.Addr().String() || e.Inherited != "taken" || !strings.Contains(p.Output(), "taken-2") {
		t.Errorf("a socket whose name is taken is %+v", e)
	}
	if e := got["taken"]; e.State != "SERVING" || e.Inherited != "" {
		t.Errorf("the endpoint that has the name is %+v", e)
	}
	// It binds its address itself when it is told to.
	p.do(t, http.MethodPost, "/v1/endpoints/gone:start", `{}`)
	if e := p.endpoints(t)["gone"]; e.State != "SERVING" || e.Inherited != "" {
		t.Errorf("after a start: %+v", e)
	}
	// A deletion is for this process.
	p.do(t, http.MethodDelete, "/v1/endpoints/web", "")
	p.Stop()
	p = start(t, o)
	got = p.endpoints(t)
	if e := got["web"]; e.State != "SERVING" || len(e.Labels) > 0 {
		t.Errorf("what was deleted and is passed again is %+v", e)
	}
	if e := got["gone"]; e.State != "SERVING" || e.Inherited != "" {
		t.Errorf("what the daemon binds itself came back as %+v", e)
	}
}

// TestOneConnectionAsOfInetd starts a daemon for a connection that was accepted already (Accept=yes).
func TestOneConnectionAsOfInetd(t *testing.T) {
	m := managertest.Start(t)
	l := managertest.Listen(t, "tcp4", "127.0.0.1:0")
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	m.Pass(t, "connection", accepted.(*net.TCPConn))
	accepted.Close()
	p := start(t, managed(m, worldDir(t)))
	m.Withdraw("connection") // as systemd does: it is the daemon's alone
	if e := p.endpoints(t)["connection"]; e.State != "SERVING" || e.Inherited != "connection" || e.Listen != l.Addr().String() {
		t.Errorf("the connection is %+v", e)
	}
	if err := echoesOn(peer); err != nil {
		t.Error(err)
	}
	peer.Close()
	for deadline := time.Now().Add(patience); len(p.endpoints(t)) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the endpoint is there after its connection has ended")
		}
	}
}

// TestADaemonForOneConnection has nothing else to do, and ends when that has.
func TestADaemonForOneConnection(t *testing.T) {
	m := managertest.Start(t)
	l := managertest.Listen(t, "tcp4", "127.0.0.1:0")
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	m.Pass(t, "connection", accepted.(*net.TCPConn))
	accepted.Close()
	p := start(t, managed(m, worldDir(t), "--grpc-listen=", "--http-listen=", "--socket="))
	m.Withdraw("connection") // as systemd does: it is the daemon's alone
	if err := echoesOn(peer); err != nil {
		t.Error(err)
	}
	if err := peer.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(peer); err != nil {
		t.Errorf("the end of the connection: %v", err)
	}
	if code := p.Wait(); code != exitDone {
		t.Errorf("exit code %d\n%s", code, p.Output())
	}
}

func TestControlListenersThatWerePassed(t *testing.T) {
	m := managertest.Start(t)
	grpc := managertest.Listen(t, "tcp4", "127.0.0.1:0")
	rest := managertest.Listen(t, "tcp4", "127.0.0.1:0")
	path := filepath.Join(worldDir(t), "control")
	control, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	control.SetUnlinkOnClose(false)
	m.Pass(t, "echod-grpc", grpc)
	m.Pass(t, "echod-http.socket", rest) // the name of its unit
	m.Pass(t, "echod-control", control)
	// What the flags say gives way.
	p := start(t, managed(m, worldDir(t), "--grpc-listen=127.0.0.1:1", "--http-listen=127.0.0.1:1", "--socket=/nowhere/echod.sock"))
	if p.URL != "http://"+rest.Addr().String() || p.GRPC != grpc.Addr().String() || p.Socket != path {
		t.Errorf("it takes calls on %s, %s and %s", p.URL, p.GRPC, p.Socket)
	}
	if got := p.endpoints(t); len(got) > 0 {
		t.Errorf("control listeners are endpoints: %v", got)
	}
	p.Stop()
	if _, err := net.Dial("unix", path); err != nil { // the manager's, and still there
		t.Errorf("after the daemon has ended: %v", err)
	}
}

func TestWhatIsPassedAndWrong(t *testing.T) {
	udp := managertest.ListenPacket(t, "udp", "127.0.0.1:0")
	open := managertest.Listen(t, "tcp4", "0.0.0.0:0")
	one, two := managertest.Listen(t, "tcp4", "127.0.0.1:0"), managertest.Listen(t, "tcp4", "127.0.0.1:0")
	for _, c := range []struct {
		why  string
		pass func(*managertest.Manager)
		says string
	}{
		{"a UDP socket for gRPC", func(m *managertest.Manager) { m.Pass(t, "echod-grpc", udp) }, `"echod-grpc" (UDP`},
		{"a TCP socket for the unix socket", func(m *managertest.Manager) { m.Pass(t, "echod-control", one) }, "is to be a listening unix socket"},
		{"two for REST", func(m *managertest.Manager) { m.Pass(t, "echod-http", one); m.Pass(t, "echod-http", two) }, "two sockets of the name echod-http"},
		{"control for everybody", func(m *managertest.Manager) { m.Pass(t, "echod-grpc", open) }, "--insecure"},
	} {
		m := managertest.Start(t)
		c.pass(m)
		command := exec.Command(binary, "--grpc-listen=", "--http-listen=", "--socket="+filepath.Join(worldDir(t), "s"))
		output, err := m.Run(t, command)
		if err == nil || command.ProcessState.ExitCode() != exitFailed || !strings.Contains(output, c.says) {
			t.Errorf("%s: %v: %s", c.why, err, output)
		}
	}
}

// TestNothingToDo passes a daemon without control listeners nothing that it could serve: it is not to stay and do nothing.
func TestNothingToDo(t *testing.T) {
	l := managertest.Listen(t, "tcp4", "127.0.0.1:0")
	over, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if err := errors.Join(over.(*net.TCPConn).SetLinger(0), over.Close()); err != nil { // it is reset
		t.Fatal(err)
	}
	if _, err := accepted.Read(make([]byte, 1)); err == nil {
		t.Fatal("the connection is not over")
	}
	control, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(worldDir(t), "u")})
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	for name, one := range map[string]struct {
		socket interface{ File() (*os.File, error) }
		says   string
	}{
		"connection":         {accepted.(*net.TCPConn), `"connection", is not taken: it neither listens nor is connected, or is not any more`},
		"other":              {control, "a unix socket for control is named echod-control"},
		"echod.web.00000000": {l, "was kept over the last process"},
	} {
		m := managertest.Start(t)
		m.Pass(t, name, one.socket)
		soon, cancel := context.WithTimeout(t.Context(), patience)
		command := exec.CommandContext(soon, binary, "--grpc-listen=", "--http-listen=", "--socket=")
		output, err := m.Run(t, command)
		cancel()
		if err == nil || command.ProcessState.ExitCode() != exitFailed || !strings.Contains(output, "nothing to listen on") || !strings.Contains(output, one.says) {
			t.Errorf("%s: %v: %s", name, err, output)
		}
	}
}

func TestTheManagerIsTold(t *testing.T) {
	m := managertest.Start(t)
	m.Watchdog(100 * time.Millisecond)
	p := start(t, managed(m, worldDir(t)))
	ready := m.AwaitLine(t, "READY=1")
	if int(ready.PID) != p.PID || !ready.Has(fmt.Sprint("MAINPID=", p.PID)) || !ready.Has("STATUS=serving 0 endpoints") {
		t.Errorf("process %d says %+v", p.PID, ready)
	}
	m.AwaitLine(t, "WATCHDOG=1")
	p.do(t, http.MethodPost, "/v1/endpoints", `{"name": "e", "protocol": "TCP"}`)
	m.AwaitLine(t, "STATUS=serving 1 endpoint")

	p.Signal(syscall.SIGTERM)
	stopping := m.AwaitLine(t, "STOPPING=1")
	if !strings.Contains(stopping.Text, "STATUS=stopping") || !strings.Contains(stopping.Text, "EXTEND_TIMEOUT_USEC=") {
		t.Errorf("it says %q", stopping.Text)
	}
	if code := p.Wait(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	var order []string
	for _, one := range m.Messages() {
		for _, line := range []string{"READY=1", "STOPPING=1"} {
			if one.Has(line) {
				order = append(order, line)
			}
		}
	}
	if !slices.Equal(order, []string{"READY=1", "STOPPING=1"}) {
		t.Errorf("it told %q", order)
	}
}

// TestReadyIsTrue has the manager call the daemon the moment that it says it is ready.
func TestReadyIsTrue(t *testing.T) {
	m := managertest.Start(t)
	rest := managertest.Listen(t, "tcp4", "127.0.0.1:0")
	m.Pass(t, "echod-http", rest)
	answered := make(chan error, 1)
	go func() {
		m.AwaitLine(t, "READY=1")
		resp, err := http.Get("http://" + rest.Addr().String() + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				err = errors.New(resp.Status)
			}
		}
		answered <- err
	}()
	start(t, managed(m, worldDir(t)))
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// comers connect 50 times a second, whoever is there: each must be let in. One that a process which is killed has accepted is cut.
type comers struct {
	connects, answered, cut atomic.Int64

	stop  chan struct{}
	group sync.WaitGroup
}

func startComers(t *testing.T, address string) *comers {
	c := &comers{stop: make(chan struct{})}
	c.group.Go(func() {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-c.stop:
				return
			case <-ticker.C:
			}
			c.group.Go(func() {
				conn, err := net.DialTimeout("tcp", address, patience)
				if err != nil {
					t.Errorf("connection %d: %v", c.connects.Load(), err)
					return
				}
				defer conn.Close()
				c.connects.Add(1)
				if echoesOn(conn) == nil {
					c.answered.Add(1)
				} else {
					c.cut.Add(1)
				}
			})
		}
	})
	return c
}

func (c *comers) end() {
	close(c.stop)
	c.group.Wait()
}

// TestAKillRefusesNobody kills a daemon again and again while others connect and send: its sockets wait with the manager.
func TestAKillRefusesNobody(t *testing.T) {
	m := managertest.Start(t)
	o := managed(m, worldDir(t), "--state-dir="+t.TempDir())
	p := start(t, o)
	for _, body := range []string{`{"name": "tcp", "protocol": "TCP"}`, `{"name": "both", "protocol": "TCP", "listen": ":0"}`, `{"name": "udp", "protocol": "UDP"}`} {
		p.do(t, http.MethodPost, "/v1/endpoints", body)
	}
	want := p.endpoints(t)
	if stored := m.Stored(); len(stored) != 3 {
		t.Fatalf("the manager keeps %q", stored)
	}

	come := startComers(t, want["tcp"].Address)
	sender, err := net.Dial("udp", want["udp"].Address)
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	if err := echoesOn(sender); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		before := come.connects.Load()
		p.Kill()
		// What is sent to nobody is answered by the next.
		const datagrams = 50
		for i := range datagrams {
			if _, err := fmt.Fprintf(sender, "%d-%02d", round, i); err != nil {
				t.Fatal(err)
			}
		}
		for deadline := time.Now().Add(patience); come.connects.Load() < before+5; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("nobody connects while there is no daemon")
			}
		}
		p = start(t, o)
		_ = sender.SetReadDeadline(time.Now().Add(patience))
		for i := range datagrams {
			got := make([]byte, 64)
			n, err := sender.Read(got)
			if err != nil || string(got[:n]) != fmt.Sprintf("%d-%02d", round, i) {
				t.Fatalf("round %d: datagram %d came back as %q, %v", round, i, got[:n], err)
			}
		}
		for name, w := range want {
			if g := p.endpoints(t)[name]; g.Address != w.Address || g.State != "SERVING" || g.Inherited != "" {
				t.Errorf("round %d: %s was at %s and is %+v", round, name, w.Address, g)
			}
		}
		if stored := m.Stored(); len(stored) != 3 {
			t.Errorf("round %d: the manager keeps %q", round, stored)
		}
	}
	come.end()
	if err := echoes("tcp", want["tcp"].Address); err != nil {
		t.Error(err)
	}
	t.Logf("%d connections, of which a kill cut %d", come.connects.Load(), come.cut.Load())
}

// TestThePortIsFree looks whether what is stopped or deleted is with the manager no more when the call returns.
func TestThePortIsFree(t *testing.T) {
	m := managertest.Start(t)
	p := start(t, managed(m, worldDir(t), "--state-dir="+t.TempDir()))
	for _, protocol := range []string{"TCP", "UDP"} {
		p.do(t, http.MethodPost, "/v1/endpoints", fmt.Sprintf(`{"name": "e", "protocol": %q}`, protocol))
		address := p.endpoints(t)["e"].Address
		isFree := func(after string) {
			t.Helper()
			if stored := m.Stored(); len(stored) > 0 {
				t.Errorf("%s, after %s: the manager keeps %q", protocol, after, stored)
			}
			var err error
			if protocol == "TCP" {
				var l net.Listener
				if l, err = net.Listen("tcp", address); err == nil {
					l.Close()
				}
			} else {
				var c net.PacketConn
				if c, err = net.ListenPacket("udp", address); err == nil {
					c.Close()
				}
			}
			if err != nil {
				t.Errorf("%s, after %s: %v", protocol, after, err)
			}
		}
		p.do(t, http.MethodPost, "/v1/endpoints/e:stop", `{}`)
		isFree("a stop")
		p.do(t, http.MethodPost, "/v1/endpoints/e:start", `{}`)
		if stored := m.Stored(); len(stored) != 1 || !strings.HasPrefix(stored[0], "echod.e.") {
			t.Errorf("%s, after a start: the manager keeps %q", protocol, stored)
		}
		p.do(t, http.MethodDelete, "/v1/endpoints/e", "")
		isFree("a deletion")
	}
}

// TestSocketsInTheStoreThatAreNobodys starts a daemon with sockets that it has no use for.
func TestSocketsInTheStoreThatAreNobodys(t *testing.T) {
	m := managertest.Start(t)
	o := managed(m, worldDir(t), "--state-dir="+t.TempDir())
	p := start(t, o)
	p.do(t, http.MethodPost, "/v1/endpoints", `{"name": "moved", "protocol": "TCP"}`)
	own := m.Stored()
	p.Kill()
	for _, name := range []string{"echod.nobody.00000000", "echod.moved.00000000"} {
		file, err := managertest.Listen(t, "tcp4", "127.0.0.1:0").File()
		if err != nil {
			t.Fatal(err)
		}
		m.Put(name, file)
	}
	p = start(t, o)
	if got := p.endpoints(t); len(got) != 1 || got["moved"].State != "SERVING" {
		t.Errorf("there are %v", got)
	}
	if stored := m.Stored(); !slices.Equal(stored, own) {
		t.Errorf("the manager keeps %q, and kept %q", stored, own)
	}
	for _, says := range []string{"echod.nobody.00000000", "echod.moved.00000000"} {
		if !strings.Contains(p.Output(), says) {
			t.Errorf("the log does not tell of %s:\n%s", says, p.Output())
		}
	}
}

// TestInMemoryNothingIsKept looks whether an endpoint that ends with its process does.
func TestInMemoryNothingIsKept(t *testing.T) {
	m := managertest.Start(t)
	p := start(t, managed(m, worldDir(t)))
	p.do(t, http.MethodPost, "/v1/endpoints", `{"name": "e", "protocol": "TCP"}`)
	if stored := m.Stored(); len(stored) > 0 {
		t.Errorf("the manager keeps %q", stored)
	}
}
