package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// within runs f on a thread of its own in a network namespace; nil makes a new one. The thread ends with it.
func within(namespace *os.File, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		var err error
		if namespace == nil {
			err = unix.Unshare(unix.CLONE_NEWNET)
		} else {
			err = unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// newNamespace makes an empty network namespace, which is gone with the test.
func newNamespace(t *testing.T) *os.File {
	t.Helper()
	var made *os.File
	if err := within(nil, func() (err error) { made, err = os.Open("/proc/thread-self/ns/net"); return err }); err != nil {
		t.Skipf("making a network namespace needs root: %v", err)
	}
	t.Cleanup(func() { made.Close() })
	return made
}

func ip(t *testing.T, namespace *os.File, args ...string) {
	t.Helper()
	err := within(namespace, func() error {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %q: %w: %s", args, err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAClientWhoseHostIsGoneLosesItsSession holds sessions over a cable between two namespaces, and pulls it: no FIN comes, nor
// a reset. The daemon asks after a second instead of ten.
func TestAClientWhoseHostIsGoneLosesItsSession(t *testing.T) {
	needs(t, "ip")
	here, there := newNamespace(t), newNamespace(t)
	ip(t, here, "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), there.Fd()))
	for _, end := range []struct {
		namespace       *os.File
		device, address string
	}{{here, "near", "10.0.0.1/24"}, {there, "far", "10.0.0.2/24"}} {
		ip(t, end.namespace, "addr", "add", end.address, "dev", end.device)
		ip(t, end.namespace, "link", "set", end.device, "up")
	}
	c := testConfig(t)
	c.GRPCListen, c.HTTPListen, c.Insecure, c.silence = "10.0.0.1:0", "10.0.0.1:0", true, time.Second
	// It binds where it is started.
	d := startDaemonBy(t, c, func(run func()) {
		go func() {
			if err := within(here, func() error { run(); return nil }); err != nil {
				t.Error(err)
			}
		}()
	})
	client := echov1.NewEndpointServiceClient(d.dial(t, "unix:"+c.Socket))

	dial := func(ctx context.Context, address string) (conn net.Conn, err error) {
		err = within(there, func() error { conn, err = new(net.Dialer).DialContext(ctx, "tcp", address); return err })
		return conn, err
	}
	far, err := grpc.NewClient("passthrough:///"+d.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	stream, err := echov1.NewSessionServiceClient(far).Hold(testContext(t), &echov1.HoldRequest{Name: "over-grpc"})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	rest := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) },
	}}
	if _, _, err := holdOverREST(t, rest, d.HTTP, &echov1.HoldRequest{Name: "over-rest"}); err != nil {
		t.Fatal(err)
	}
	for _, session := range []string{"over-grpc", "over-rest"} {
		mustCreate(t, client, &echov1.Endpoint{Name: "in-" + session, Protocol: echov1.Protocol_TCP, Session: session})
	}
	ip(t, there, "link", "set", "far", "down")
	waitGone(t, client, "in-over-grpc")
	waitGone(t, client, "in-over-rest")
}
