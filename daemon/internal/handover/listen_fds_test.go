//go:build linux

package handover_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/echod/echod/daemon/internal/handover"
	"github.com/echod/echod/daemon/internal/handover/managertest"
)

const childVariable = "HANDOVER_TEST_CHILD"

// TestMain is the child of the tests, too: a process that tells what it was given.
func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		tell()
		return
	}
	goleak.VerifyTestMain(m)
}

// seen is what a child tells.
type seen struct {
	Sockets  []string
	Peer     string // of the last one
	Warnings []string
	Notify   []string
	Watchdog string
	StoreMax int
	Error    string
	Left     []string // variables that a child of it would get
	Inherit  []string // sockets that a child of it would get
}

func tell() {
	m, err := handover.FromEnvironment()
	var s seen
	if err != nil {
		s.Error = err.Error()
	} else {
		s.Warnings, s.Notify, s.Watchdog, s.StoreMax = m.Warnings, m.Notifier.Environment(), m.Watchdog.String(), m.StoreMax
		for _, one := range m.Sockets {
			s.Sockets, s.Peer = append(s.Sockets, fmt.Sprint(one.Kind, " ", one)), one.Peer.String()
			if flags, err := unix.FcntlInt(one.File.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				s.Inherit = append(s.Inherit, one.Name)
			}
		}
	}
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if slices.Contains([]string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE"}, name) {
			s.Left = append(s.Left, variable)
		}
	}
	_ = json.NewEncoder(os.Stdout).Encode(s)
}

// child is a process that tells what it was given.
func child() *exec.Cmd {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childVariable+"=1")
	return c
}

func toldBy(t *testing.T, c *exec.Cmd) (s seen) {
	t.Helper()
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if len(s.Left) > 0 || len(s.Inherit) > 0 {
		t.Errorf("a child would get %q and the sockets %q", s.Left, s.Inherit)
	}
	return s
}

func TestSocketsThatWerePassed(t *testing.T) {
	m := managertest.Start(t)
	tcp4 := managertest.Listen(t, "tcp4", "127.0.0.1:0")
	all4 := managertest.Listen(t, "tcp4", "0.0.0.0:0")
	all6 := managertest.Listen(t, "tcp6", "[::]:0")
	both := managertest.Listen(t, "tcp", ":0")
	udp6 := managertest.ListenPacket(t, "udp6", "[::1]:0")
	control, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: t.TempDir() + "/c"})
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	peer, accepted := connection(t, tcp4)
	for _, one := range []struct {
		name   string
		socket interface{ File() (*os.File, error) }
	}{{"web", tcp4}, {"web", all4}, {"all6", all6}, {"x.socket", both}, {"udp", udp6}, {"echod-control", control}, {"connection", accepted}} {
		m.Pass(t, one.name, one.socket)
	}
	c := child()
	m.Prepare(c)
	got := toldBy(t, c)
	if got.Error != "" || len(got.Warnings) > 0 || len(got.Notify) != 1 {
		t.Errorf("error %q, warnings %q, notifier %q", got.Error, got.Warnings, got.Notify)
	}
	want := []string{
		fmt.Sprintf(`1 "web" (TCP %s)`, tcp4.Addr()), fmt.Sprintf(`1 "web" (TCP %s)`, all4.Addr()),
		fmt.Sprintf(`1 "all6" (TCP %s)`, all6.Addr()), fmt.Sprintf(`1 "x.socket" (TCP :%d)`, both.Addr().(*net.TCPAddr).Port),
		fmt.Sprintf(`2 "udp" (UDP %s)`, udp6.LocalAddr()), fmt.Sprintf(`1 "echod-control" (unix %s)`, control.Addr()),
		fmt.Sprintf(`3 "connection" (TCP %s)`, tcp4.Addr()),
	}
	if !slices.Equal(got.Sockets, want) {
		t.Errorf("got  %q\nwant %q", got.Sockets, want)
	}
	if got.Peer != peer.LocalAddr().String() {
		t.Errorf("the peer of the connection is %s, not %s", got.Peer, peer.LocalAddr())
	}
}

// connection is one that was accepted.
func connection(t *testing.T, l net.Listener) (peer, accepted *net.TCPConn) {
	t.Helper()
	dialed, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialed.Close() })
	taken, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	return dialed.(*net.TCPConn), taken.(*net.TCPConn)
}

// TestWhatCannotBeServed passes descriptors that nothing can be done with: each is told by its name, and what is with it is taken.
func TestWhatCannotBeServed(t *testing.T) {
	m := managertest.Start(t)
	raw := func(domain, kind, protocol int) *os.File {
		t.Helper()
		fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			t.Skipf("no such socket here: %v", err)
		}
		return os.NewFile(uintptr(fd), "raw")
	}
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	server := managertest.ListenPacket(t, "udp", "127.0.0.1:0")
	dialed, err := net.Dial("udp", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	bound := raw(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err := unix.Bind(int(bound.Fd()), &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	m.PassFile("a-file", file)
	m.PassFile("datagrams", raw(unix.AF_UNIX, unix.SOCK_DGRAM, 0))
	m.PassFile("pair", os.NewFile(uintptr(pair[0]), "pair"))
	m.PassFile("deaf", bound)
	m.PassFile("unbound", raw(unix.AF_INET6, unix.SOCK_DGRAM, 0))
	m.PassFile("netlink", raw(unix.AF_NETLINK, unix.SOCK_DGRAM, 0))
	m.Pass(t, "one-peer", dialed.(*net.UDPConn))
	good := managertest.Listen(t, "tcp", "127.0.0.1:0")
	m.Pass(t, "good", good)
	c := child()
	m.Prepare(c)
	got := toldBy(t, c)
	if len(got.Sockets) != 1 || !strings.Contains(got.Sockets[0], `"good"`) || got.Error != "" {
		t.Errorf("sockets %v, error %q", got.Sockets, got.Error)
	}
	want := []struct{ name, why string }{
		{`"a-file"`, "not a socket"}, {`"datagrams"`, "unix socket that does not listen"}, {`"pair"`, "unix socket that does not listen"},
		{`"deaf"`, "neither listens nor is connected"}, {`"unbound"`, "not bound"}, {`"netlink"`, "address family 16"}, {`"one-peer"`, "one peer"},
	}
	if len(got.Warnings) != len(want) {
		t.Fatalf("%d warnings: %q", len(got.Warnings), got.Warnings)
	}
	for i, w := range want {
		if !strings.Contains(got.Warnings[i], w.name) || !strings.Contains(got.Warnings[i], w.why) {
			t.Errorf("warning %q is not about %s: %s", got.Warnings[i], w.name, w.why)
		}
	}
}

func TestVariablesThatMakeNoSense(t *testing.T) {
	for _, one := range []struct {
		why     string
		env     []string
		foreign bool // LISTEN_PID is not that of the process
		err     string
		warning string
	}{
		{why: "nothing", foreign: true},
		{why: "a word for a number", env: []string{"LISTEN_FDS=abc"}, err: `LISTEN_FDS="abc"`},
		{why: "a negative number", env: []string{"LISTEN_FDS=-1"}, err: `LISTEN_FDS="-1"`},
		{why: "too many", env: []string{"LISTEN_FDS=32769"}, err: `LISTEN_FDS="32769": must be how many sockets were passed, 0 to 32768`},
		{why: "more than int has", env: []string{"LISTEN_FDS=99999999999999999999"}, err: "LISTEN_FDS="},
		{why: "none", env: []string{"LISTEN_FDS=0"}},
		{why: "no descriptor there", env: []string{"LISTEN_FDS=1"}, err: `descriptor 3 ("unknown") is not open`},
		{why: "no descriptor of many there", env: []string{"LISTEN_FDS=300"}, err: `is not open`},
		{why: "names for others", env: []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=a:b"}, err: "LISTEN_FDNAMES has 2 names"},
		{why: "of another process", foreign: true, env: []string{"LISTEN_PID=1", "LISTEN_FDS=1"}, warning: "passed to process 1"},
		{why: "of no process", foreign: true, env: []string{"LISTEN_PID=self", "LISTEN_FDS=1"}, err: `LISTEN_PID="self"`},
		{why: "of nobody", foreign: true, env: []string{"LISTEN_FDS=1"}, err: `LISTEN_PID=""`},
		{why: "a watchdog that is none", env: []string{"LISTEN_FDS=0", "WATCHDOG_USEC=soon"}, err: `WATCHDOG_USEC="soon"`},
		{why: "a watchdog without time", env: []string{"LISTEN_FDS=0", "WATCHDOG_USEC=0"}, err: `WATCHDOG_USEC="0"`},
		{why: "a place that is none", env: []string{"LISTEN_FDS=0", "NOTIFY_SOCKET=notify"}, err: `NOTIFY_SOCKET="notify"`},
		{why: "a manager that is gone", env: []string{"LISTEN_FDS=0", "NOTIFY_SOCKET=/nowhere/notify"}, warning: "NOTIFY_SOCKET=/nowhere/notify"},
		{why: "a store of some", env: []string{"LISTEN_FDS=0", "FDSTORE=some"}, err: `FDSTORE="some"`},
	} {
		c := child()
		c.Env = append(c.Env, one.env...)
		if !one.foreign {
			managertest.UnderOwnPID(c)
		}
		got := toldBy(t, c)
		switch {
		case (one.err == "") != (got.Error == "") || !strings.Contains(got.Error, one.err):
			t.Errorf("%s: error %q", one.why, got.Error)
		case (one.warning == "") != (len(got.Warnings) == 0) || !strings.Contains(strings.Join(got.Warnings, "\n"), one.warning):
			t.Errorf("%s: warnings %q", one.why, got.Warnings)
		}
	}
}

// TestTheToolOfSystemd has systemd's own tool pass sockets.
func TestTheToolOfSystemd(t *testing.T) {
	tool, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("systemd-socket-activate is not installed")
	}
	free := managertest.Listen(t, "tcp", "127.0.0.1:0")
	address := free.Addr().String()
	free.Close()
	c := exec.Command(tool, "--listen="+address, "--fdname=web", "--setenv="+childVariable+"=1", os.Args[0])
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { c.Process.Kill(); c.Wait() }()
	// It starts the process when somebody connects.
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			defer conn.Close()
			break
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
	var got seen
	if err := json.NewDecoder(io.LimitReader(stdout, 1<<20)).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Error != "" || len(got.Sockets) != 1 || got.Sockets[0] != fmt.Sprintf(`1 "web" (TCP %s)`, address) {
		t.Errorf("%+v", got)
	}
}
