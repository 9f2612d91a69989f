package cli

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/grpc/metadata"
)

// TestWhereToConnect goes through the places in their order, each with all the weaker ones there, too.
func TestWhereToConnect(t *testing.T) {
	dir, err := os.MkdirTemp("", "echoctl-run")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, userSocket)
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	plain := t.TempDir()
	if err := os.WriteFile(filepath.Join(plain, userSocket), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, flag string
		env        map[string]string
		want       string
	}{
		{"flag", "a:1", map[string]string{"ECHOCTL_SERVER": "b:2", "XDG_RUNTIME_DIR": dir}, "a:1"},
		{"environment", "", map[string]string{"ECHOCTL_SERVER": "b:2", "XDG_RUNTIME_DIR": dir}, "b:2"},
		{"socket", "", map[string]string{"XDG_RUNTIME_DIR": dir}, "unix:" + path},
		{"no socket", "", map[string]string{"XDG_RUNTIME_DIR": t.TempDir()}, defaultServer},
		{"a file that is no socket", "", map[string]string{"XDG_RUNTIME_DIR": plain}, defaultServer},
		{"nothing", "", nil, defaultServer},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &app{env: Env{LookupEnv: func(key string) (string, bool) { v, ok := c.env[key]; return v, ok }}}
			a.options.server = c.flag
			if got, err := a.server(); err != nil || got.String() != c.want {
				t.Errorf("server = %v, %v, want %s", got, err, c.want)
			}
		})
	}
	root := &app{env: Env{Root: true, LookupEnv: func(string) (string, bool) { return dir, true }}}
	if got := root.socketPath(); got != rootSocket {
		t.Errorf("root's socket is %s, want %s", got, rootSocket)
	}
}

func TestEachWayToConnect(t *testing.T) {
	for _, server := range []string{shared.GRPC, "unix:" + shared.Socket} {
		if got := at(t, server).ok("info", "-o", "name"); !strings.Contains(got, shared.GRPC+"\n") {
			t.Errorf("info over %s: %s", server, got)
		}
	}
	// The flag is stronger than the environment.
	at(t, "127.0.0.1:1").ok("info", "--server", shared.GRPC)
}

// TestAuthorityOverASocket sees that a path is not sent as the name of a host.
func TestAuthorityOverASocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "echoctl-run") // short: a socket's path is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, userSocket)
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan []string, 1)
	f := &fake{list: func(ctx context.Context, _ *echov1.ListEndpointsRequest) (*echov1.ListEndpointsResponse, error) {
		headers, _ := metadata.FromIncomingContext(ctx)
		got <- headers.Get(":authority")
		return &echov1.ListEndpointsResponse{}, nil
	}}
	f.serve(t, listener)
	at(t, "unix:"+path).ok("list")
	if names := <-got; len(names) != 1 || names[0] != "localhost" {
		t.Errorf("the authority is %q, want localhost", names)
	}
}

// closedPort is an address that nobody listens on.
func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func TestNobodyThere(t *testing.T) {
	address := closedPort(t)
	at(t, address).run("list").want(t, 4, "", "echoctl: cannot reach echod at "+address+": connection refused. "+
		"Is it running? Start it with: echod. Another address: --server or ECHOCTL_SERVER.\n")
	at(t, "unix:/nowhere/echod.sock").run("list").want(t, 4, "",
		"echoctl: cannot reach echod at unix:/nowhere/echod.sock: no such file or directory. *\n")
	// No resolver is asked for a name that is none.
	at(t, "nowhere..invalid:7007").run("list").want(t, 4, "",
		"echoctl: cannot reach echod at nowhere..invalid:7007: * Is it running? *\n")
	// Many names, one message.
	at(t, address).run("delete", "a", "b", "c").want(t, 4, "", "echoctl: cannot reach echod at *\n")
	at(t, address).run("probe", "a").want(t, 4, "", "echoctl: cannot reach echod at *\n")
}

func TestNoGRPCServer(t *testing.T) {
	at(t, shared.HTTP).run("list").want(t, 4, "", "echoctl: "+shared.HTTP+
		" is no gRPC server: it answers in * Give the address that echod takes gRPC at (127.0.0.1:7007 *\n")

	// An echo endpoint sends the client's own words back.
	s := at(t, shared.GRPC)
	e := s.json("create", "tcp", "--name", "no-grpc")
	s.remove("no-grpc")
	address, _ := e["address"].(string)
	at(t, address).run("list").want(t, 4, "", "echoctl: "+address+" is no gRPC server: it does not answer in HTTP/2. *\n")
}

// TestNoGRPCInHTTP2 meets a server that speaks HTTP/2 and knows nothing of gRPC.
func TestNoGRPCInHTTP2(t *testing.T) {
	web := httptest.NewUnstartedServer(http.NotFoundHandler())
	web.Config.Protocols = new(http.Protocols)
	web.Config.Protocols.SetUnencryptedHTTP2(true)
	web.Start()
	defer web.Close()
	address := web.Listener.Addr().String()
	at(t, address).run("list").want(t, 4, "", "echoctl: "+address+" is no gRPC server: it answers in plain HTTP. *\n")
}

func TestSilentServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	address := listener.Addr().String()
	r := at(t, address).untilConnected("list")
	r.want(t, 4, "", "echoctl: cannot reach echod at "+address+
		": it takes connections, but had not answered as a gRPC server when time was up *. *\n")
}

// untilConnected runs a command with ever more time until it gets as far as a connection, however slow the machine.
func (s *shell) untilConnected(args ...string) result {
	s.t.Helper()
	for timeout := 100 * time.Millisecond; ; timeout *= 2 {
		r := s.run(append(args, "--call-timeout", timeout.String())...)
		if timeout > patience || !strings.Contains(r.stderr, "no connection yet") {
			return r
		}
	}
}

func TestDialReason(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	_, late := new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:1")
	_, refused := net.Dial("tcp", closedPort(t))
	for want, err := range map[string]error{
		"no answer within 5s": late,
		"connection refused":  refused,
		"no such host":        &net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}},
		"server misbehaving":  &net.DNSError{Err: "server misbehaving"},
		"unknown port":        &net.OpError{Op: "dial", Err: errors.New("unknown port")},
		"something else":      errors.New("something else"),
	} {
		if got := dialReason(err); got != want {
			t.Errorf("dialReason(%v) = %s, want %s", err, got, want)
		}
	}
}

func TestInterruptedCall(t *testing.T) {
	s := at(t, shared.GRPC)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.ctx = ctx
	s.run("list").want(t, 1, "", "echoctl: interrupted\n")
	s.run("probe", "tcp://127.0.0.1:7").want(t, 1, "", "echoctl: interrupted\n")
	s.run("delete", "a", "b", "c").want(t, 1, "", "echoctl: interrupted\n")
}
