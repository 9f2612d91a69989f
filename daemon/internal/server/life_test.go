package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/echod/echod/daemon/internal/store"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// echoes sends a line over a new connection and says whether it came back.
func echoes(address string) error {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	return echoesOn(conn)
}

func echoesOn(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write([]byte("hello\n")); err != nil {
		return err
	}
	got := make([]byte, 6)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello\n" {
		return fmt.Errorf("got %q: %w", got, errors.Join(err, errors.New("want the line back")))
	}
	return nil
}

func mustCreate(t *testing.T, client echov1.EndpointServiceClient, e *echov1.Endpoint) *echov1.Endpoint {
	t.Helper()
	made, err := client.CreateEndpoint(testContext(t), &echov1.CreateEndpointRequest{Endpoint: e})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestARestartBringsEverythingBack(t *testing.T) {
	c := testConfig(t)
	c.StateDir = filepath.Join(t.TempDir(), "state")
	d := startDaemon(t, c)
	client := echov1.NewEndpointServiceClient(d.dial(t, d.GRPC))
	want := map[string]*echov1.Endpoint{}
	for _, e := range []*echov1.Endpoint{
		{Name: "tcp", Protocol: echov1.Protocol_TCP, Labels: map[string]string{"a": "b"}, Tcp: &echov1.TcpOptions{OneShot: true}},
		{Name: "udp", Protocol: echov1.Protocol_UDP, Listen: ":0", Description: "kept"},
		{Name: "stopped", Protocol: echov1.Protocol_TCP},
		{Name: "lost", Protocol: echov1.Protocol_TCP},
		{Name: "deleted", Protocol: echov1.Protocol_TCP},
	} {
		want[e.GetName()] = mustCreate(t, client, e)
	}
	ctx := testContext(t)
	if _, err := client.StopEndpoint(ctx, &echov1.StopEndpointRequest{Name: "stopped"}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.DeleteEndpoint(ctx, &echov1.DeleteEndpointRequest{Name: "deleted"}); err != nil {
		t.Fatal(err)
	}
	d.stop(t)
	// Somebody else takes a port while the daemon is down.
	thief, err := net.Listen("tcp", want["lost"].GetAddress())
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()

	d = startDaemon(t, c)
	client = echov1.NewEndpointServiceClient(d.dial(t, d.GRPC))
	list, err := client.ListEndpoints(ctx, &echov1.ListEndpointsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.GetEndpoints()) != 4 {
		t.Errorf("%d endpoints came back, want 4", len(list.GetEndpoints()))
	}
	states := map[string]echov1.Endpoint_State{
		"tcp": echov1.Endpoint_SERVING, "udp": echov1.Endpoint_SERVING, "stopped": echov1.Endpoint_STOPPED, "lost": echov1.Endpoint_FAILED,
	}
	for _, e := range list.GetEndpoints() {
		was := want[e.GetName()]
		if e.GetState() != states[e.GetName()] || e.GetAddress() != was.GetAddress() || e.GetUid() != was.GetUid() || e.GetEtag() != was.GetEtag() ||
			!e.GetCreateTime().AsTime().Equal(was.GetCreateTime().AsTime()) {
			t.Errorf("came back as %v\nwas %v", e, was)
		}
		if e.GetName() == "lost" && !strings.Contains(e.GetStateReason(), "in use") {
			t.Errorf("the reason is %q", e.GetStateReason())
		}
	}
	// What failed can be started once its port is free.
	thief.Close()
	if e, err := client.StartEndpoint(ctx, &echov1.StartEndpointRequest{Name: "lost"}); err != nil || e.GetAddress() != want["lost"].GetAddress() {
		t.Errorf("start: %v, %v", e, err)
	}
	if err := echoes(want["lost"].GetAddress()); err != nil {
		t.Error(err)
	}
}

func TestAStateDirectoryHasOneDaemon(t *testing.T) {
	c := testConfig(t)
	c.StateDir = t.TempDir()
	startDaemon(t, c)
	other := testConfig(t)
	other.StateDir = c.StateDir
	if err := Run(testContext(t), other); !errors.Is(err, store.ErrInUse) || !strings.Contains(err.Error(), c.StateDir) {
		t.Errorf("a second daemon on the same directory: %v", err)
	}
}

func TestConfigurationThatIsRefused(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	noSocket := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(noSocket, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		change func(*Config)
		says   string
	}{
		"gRPC open to the network":  {func(c *Config) { c.GRPCListen = ":0" }, "--insecure"},
		"REST open to the network":  {func(c *Config) { c.HTTPListen = "0.0.0.0:0" }, "--insecure"},
		"a name is no loopback":     {func(c *Config) { c.HTTPListen = "example.org:80" }, "--insecure"},
		"no port":                   {func(c *Config) { c.GRPCListen = "127.0.0.1" }, "HOST:PORT"},
		"nowhere to listen":         {func(c *Config) { c.GRPCListen, c.HTTPListen, c.Socket = "", "", "" }, "nothing to listen on"},
		"default host is a name":    {func(c *Config) { c.DefaultHost = "example.org" }, "--default-host"},
		"default host is multicast": {func(c *Config) { c.DefaultHost = "224.0.0.1" }, "--default-host"},
		"default host needs a zone": {func(c *Config) { c.DefaultHost = "fe80::1" }, "--default-host"},
		"allowed host is an URL":    {func(c *Config) { c.AllowHosts = []string{"http://x/"} }, "--http-allow-host"},
		"socket path too long":      {func(c *Config) { c.Socket = "/tmp/" + strings.Repeat("x", 200) }, "107"},
		"ready file is a folder":    {func(c *Config) { c.ReadyFile = filepath.Dir(c.ReadyFile) }, "--ready-file"},
		"negative drain delay":      {func(c *Config) { c.DrainDelay = -1 }, "--drain-delay"},
		"negative drain":            {func(c *Config) { c.DrainTimeout = -1 }, "--drain-timeout"},
		"allowed target is a name":  {func(c *Config) { c.ProbeAllow = []string{"10.0.0.0/8", "lab.example"} }, `--probe-allow: source "lab.example"`},
		"bits behind a denied one":  {func(c *Config) { c.ProbeDeny = []string{"10.0.0.1/8"} }, "--probe-deny"},
		"negative limit of probes":  {func(c *Config) { c.ProbeLimits.Probes = -1 }, "--max-probes -1: must be 0 (no limit) to 2147483647"},
		"a rate that is none":       {func(c *Config) { c.ProbeLimits.TargetRate = math.NaN() }, "--max-target-rate NaN"},
		"more than there is":        {func(c *Config) { c.ProbeLimits.TargetMbps = math.Inf(1) }, "--max-target-mbps +Inf"},
		"negative duration":         {func(c *Config) { c.ProbeLimits.Duration = -time.Second }, "--max-probe-duration"},
		"port in use":               {func(c *Config) { c.GRPCListen = taken.Addr().String() }, taken.Addr().String()},
		"socket is a file":          {func(c *Config) { c.Socket = noSocket }, "no socket"},
		"ready file without folder": {func(c *Config) { c.ReadyFile = "/nonexistent/ready" }, "--ready-file"},
		"state directory":           {func(c *Config) { c.StateDir = noSocket }, "state directory"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c := testConfig(t)
			tc.change(&c)
			err := Run(testContext(t), c)
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Run: %v; want an error that says %q", err, tc.says)
			}
		})
	}
	if text, _ := os.ReadFile(noSocket); string(text) != "precious" {
		t.Error("a file in the socket's place was touched")
	}
}

func TestInsecureIsSaid(t *testing.T) {
	c := testConfig(t)
	c.HTTPListen, c.Insecure = ":0", true
	d := startDaemon(t, c)
	info, err := echov1.NewDaemonServiceClient(d.dial(t, d.GRPC)).GetInfo(testContext(t), &echov1.GetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(info.GetWarnings(), "\n"), "--insecure") {
		t.Errorf("warnings: %q", info.GetWarnings())
	}
}

func TestListenersCanBeSwitchedOff(t *testing.T) {
	c := testConfig(t)
	c.GRPCListen, c.HTTPListen = "", ""
	d := startDaemon(t, c)
	if d.GRPC != "" || d.HTTP != "" {
		t.Errorf("ready file: %+v", d.Ready)
	}
	info, err := echov1.NewDaemonServiceClient(d.dial(t, "unix:"+d.Socket)).GetInfo(testContext(t), &echov1.GetInfoRequest{})
	if err != nil || len(info.GetListeners()) != 1 {
		t.Errorf("info: %v, %v", info, err)
	}
}

func TestASocketLeftBehindIsReplacedAndALiveOneIsNot(t *testing.T) {
	c := testConfig(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.Socket})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close() // as after a kill -9
	startDaemon(t, c)
	if info, err := os.Stat(c.Socket); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode of the socket: %v, %v", info.Mode(), err)
	}
	other := testConfig(t)
	other.Socket = c.Socket
	if err := Run(testContext(t), other); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second daemon on a live socket: %v", err)
	}
}

// TestAStopDrains holds a connection, streams of each kind and a waiting call open while the daemon stops.
func TestAStopDrains(t *testing.T) {
	c := testConfig(t)
	d := startDaemon(t, c)
	conn := d.dial(t, d.GRPC)
	endpoints, probes := echov1.NewEndpointServiceClient(conn), echov1.NewProbeServiceClient(conn)
	e := mustCreate(t, endpoints, &echov1.Endpoint{Protocol: echov1.Protocol_TCP})
	peer, err := net.Dial("tcp", e.GetAddress())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if err := echoesOn(peer); err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	var zero uint32
	endless := &echov1.Probe{Target: &echov1.ProbeTarget{Endpoint: e.GetName()}, Count: &zero}

	followed, err := probes.StreamProbe(ctx, &echov1.StreamProbeRequest{Probe: endless})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := followed.Recv(); err != nil {
		t.Fatal(err)
	}
	rest, err := http.Post("http://"+d.HTTP+"/v1/probes:stream", "application/json", strings.NewReader(`{"target":{"endpoint":"`+e.GetName()+`"},"count":0}`))
	if err != nil {
		t.Fatal(err)
	}
	defer rest.Body.Close()
	lines := bufio.NewReader(rest.Body)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	watch, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := watch.Recv(); err != nil || resp.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("health: %v, %v", resp, err)
	}
	reflected, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := reflected.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	if resp, err := reflected.Recv(); err != nil || len(resp.GetListServicesResponse().GetService()) < 4 {
		t.Fatalf("reflection: %v, %v", resp, err)
	}

	if resp, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "echo.v1.EndpointService"}); err != nil || resp.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health of a service: %v, %v", resp, err)
	}

	d.cancel()
	if resp, err := watch.Recv(); err != nil || resp.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health while stopping: %v, %v", resp, err)
	}
	for name, next := range map[string]func() (bool, error){
		"grpc": func() (bool, error) { m, err := followed.Recv(); return m.GetReport() != nil, err },
		"rest": func() (bool, error) {
			line, err := lines.ReadString('\n')
			return strings.Contains(line, `"report"`) && strings.Contains(line, `"STOPPED"`), err
		},
	} {
		for {
			last, err := next()
			if err != nil {
				t.Errorf("the %s stream ended without its report: %v", name, err)
			}
			if last || err != nil {
				break
			}
		}
	}
	// The open connection still echoes, nothing new is accepted, and calls are answered.
	if err := echoesOn(peer); err != nil {
		t.Errorf("an open connection while draining: %v", err)
	}
	if err := waitRefused(ctx, e.GetAddress()); err != nil {
		t.Error(err)
	}
	if resp, err := http.Get("http://" + d.HTTP + "/readyz"); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("readyz while draining: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	if _, err := endpoints.CreateEndpoint(ctx, &echov1.CreateEndpointRequest{Endpoint: &echov1.Endpoint{Protocol: echov1.Protocol_TCP}}); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("create while draining: %v", err)
	}
	if now, err := endpoints.GetEndpoint(ctx, &echov1.GetEndpointRequest{Name: e.GetName()}); err != nil || now.GetState() != echov1.Endpoint_DRAINING {
		t.Errorf("an endpoint while draining: %v, %v", now.GetState(), err)
	}
	peer.Close()
	d.stop(t)
	for _, file := range []string{c.ReadyFile, c.Socket} {
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left behind", filepath.Base(file))
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func waitRefused(ctx context.Context, address string) error {
	for accepts(address) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s still takes connections", address)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

func accepts(address string) bool {
	conn, err := net.Dial("tcp", address)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// TestADrainHasAnEnd stops a daemon whose peer never goes.
func TestADrainHasAnEnd(t *testing.T) {
	c := testConfig(t)
	c.DrainTimeout = 10 * time.Millisecond
	d := startDaemon(t, c)
	e := mustCreate(t, echov1.NewEndpointServiceClient(d.dial(t, d.GRPC)), &echov1.Endpoint{Protocol: echov1.Protocol_TCP})
	peer, err := net.Dial("tcp", e.GetAddress())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if err := echoesOn(peer); err != nil {
		t.Fatal(err)
	}
	d.stop(t)
	_ = peer.SetDeadline(time.Now().Add(patience))
	if n, err := peer.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes from a connection that should be cut", n)
	}
}

func TestAStopWithADrainIsCutByAStopWithoutOne(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	client := echov1.NewEndpointServiceClient(d.dial(t, d.GRPC))
	e := mustCreate(t, client, &echov1.Endpoint{Name: "held", Protocol: echov1.Protocol_TCP})
	peer, err := net.Dial("tcp", e.GetAddress())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if err := echoesOn(peer); err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	first := make(chan error, 1)
	go func() {
		_, err := client.StopEndpoint(ctx, &echov1.StopEndpointRequest{Name: "held", DrainTimeout: durationOf("1h")})
		first <- err
	}()
	for {
		now, err := client.GetEndpoint(ctx, &echov1.GetEndpointRequest{Name: "held"})
		if err != nil {
			t.Fatal(err)
		}
		if now.GetState() == echov1.Endpoint_DRAINING {
			break
		}
	}
	if err := echoesOn(peer); err != nil {
		t.Errorf("while draining: %v", err)
	}
	if _, err := client.StopEndpoint(ctx, &echov1.StopEndpointRequest{Name: "held"}); err != nil {
		t.Error(err)
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
}

// TestUpdatesDropNoConnection changes what may change while a connection is open.
func TestUpdatesDropNoConnection(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	client := echov1.NewEndpointServiceClient(d.dial(t, d.GRPC))
	e := mustCreate(t, client, &echov1.Endpoint{Name: "kept", Protocol: echov1.Protocol_TCP})
	peer, err := net.Dial("tcp", e.GetAddress())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if err := echoesOn(peer); err != nil {
		t.Fatal(err)
	}
	one := uint32(1)
	ctx := testContext(t)
	for _, change := range []*echov1.Endpoint{
		{Labels: map[string]string{"a": "b"}}, {Description: "changed"}, {Tcp: &echov1.TcpOptions{MaxConnections: &one, IdleTimeout: durationOf("1h")}},
	} {
		if _, err := client.UpdateEndpoint(ctx, &echov1.UpdateEndpointRequest{Name: "kept", Endpoint: change}); err != nil {
			t.Fatal(err)
		}
		if err := echoesOn(peer); err != nil {
			t.Fatalf("after %v: %v", change, err)
		}
	}
	// The limit holds from now on.
	if err := echoes(e.GetAddress()); err == nil {
		t.Error("a second connection is served over the limit of 1")
	}
	now, err := client.GetEndpoint(ctx, &echov1.GetEndpointRequest{Name: "kept"})
	if err != nil || now.GetCounters().GetDrops()["max_connections"] == 0 || now.GetCounters().GetConnectionsOpen() != 1 {
		t.Errorf("counters: %v, %v", now.GetCounters(), err)
	}
}

// TestChurnLeavesNothing creates and deletes from many clients at once: no socket, goroutine or name stays.
func TestChurnLeavesNothing(t *testing.T) {
	const clients, rounds = 50, 20
	d := startDaemon(t, testConfig(t))
	client := echov1.NewEndpointServiceClient(d.dial(t, d.GRPC))
	ctx := testContext(t)
	churn := func(n, rounds int) error {
		for i := range rounds {
			protocol := echov1.Protocol(1 + i%2)
			e, err := client.CreateEndpoint(ctx, &echov1.CreateEndpointRequest{Endpoint: &echov1.Endpoint{Name: fmt.Sprintf("c%d-%d", n, i), Protocol: protocol}})
			if err != nil {
				return err
			}
			// Everybody wants this one; who loses must leave no port behind.
			_, err = client.CreateEndpoint(ctx, &echov1.CreateEndpointRequest{Endpoint: &echov1.Endpoint{Name: "shared", Protocol: protocol}})
			if code := status.Code(err); code != codes.OK && code != codes.AlreadyExists {
				return err
			}
			if _, err := client.DeleteEndpoint(ctx, &echov1.DeleteEndpointRequest{Name: e.GetName()}); err != nil {
				return err
			}
		}
		return nil
	}
	if err := churn(-1, 2); err != nil { // whatever is made once is there before we count
		t.Fatal(err)
	}
	before := openFiles(t)
	goroutines := runtime.NumGoroutine()
	var group sync.WaitGroup
	for n := range clients {
		group.Go(func() {
			if err := churn(n, rounds); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	list, err := client.ListEndpoints(ctx, &echov1.ListEndpointsRequest{})
	if err != nil || len(list.GetEndpoints()) != 1 {
		t.Errorf("left: %v, %v; want only the shared one", list.GetEndpoints(), err)
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d files are open, %d were before", after, before)
	}
	deadline := time.Now().Add(patience)
	for runtime.NumGoroutine() > goroutines && time.Now().Before(deadline) {
		runtime.Gosched() // a handler that has answered may not have returned yet
	}
	if now := runtime.NumGoroutine(); now > goroutines {
		t.Errorf("%d goroutines run, %d did before", now, goroutines)
	}
}

// openFiles counts this process's descriptors; where the system does not tell, it is always the same.
func openFiles(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Log("descriptors are not counted on this system")
		return 0
	}
	return len(names)
}

// TestPagesFitEveryClient fills labels as far as they go: a page must still fit the 4 MiB that clients take by default.
func TestPagesFitEveryClient(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	client := echov1.NewEndpointServiceClient(d.dial(t, d.GRPC))
	labels := map[string]string{}
	for i := range 64 {
		labels[fmt.Sprintf("%s%02d", strings.Repeat("k", 61), i)] = strings.Repeat("v", 255)
	}
	const count = 200 // of about 21 KiB each
	for i := range count {
		mustCreate(t, client, &echov1.Endpoint{Name: fmt.Sprintf("e%03d", i), Protocol: echov1.Protocol_UDP, Labels: labels})
	}
	seen, pages, token := 0, 0, ""
	for first := true; first || token != ""; first = false {
		page, err := client.ListEndpoints(testContext(t), &echov1.ListEndpointsRequest{PageSize: 1000, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.GetEndpoints() {
			if want := fmt.Sprintf("e%03d", seen); e.GetName() != want {
				t.Fatalf("%s comes where %s should", e.GetName(), want)
			}
			seen++
		}
		pages++
		token = page.GetNextPageToken()
	}
	if seen != count || pages < 2 {
		t.Errorf("%d endpoints on %d pages", seen, pages)
	}
}

func TestReadyFiles(t *testing.T) {
	c := testConfig(t)
	// One of a daemon that crashed is gone before another is ready.
	if err := os.WriteFile(c.ReadyFile, []byte(`{"pid": 1, "grpc": "127.0.0.1:1"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := clearReadyFile(c.ReadyFile); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.ReadyFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old ready file: %v", err)
	}
	d := startDaemon(t, c)
	// Another daemon's in its place is not ours to remove, nor is one that is gone an error.
	if err := os.WriteFile(c.ReadyFile, []byte(`{"pid": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	d.stop(t)
	if _, err := os.Stat(c.ReadyFile); err != nil {
		t.Errorf("another daemon's ready file: %v", err)
	}
	c = testConfig(t)
	d = startDaemon(t, c)
	if err := os.Remove(c.ReadyFile); err != nil {
		t.Fatal(err)
	}
	d.stop(t)
}
