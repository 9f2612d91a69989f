package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of the tests; a machine may be slow.
const patience = 30 * time.Second

// testDaemon is a daemon that runs in this process, on free ports.
type testDaemon struct {
	Ready
	cancel context.CancelFunc
	ended  chan error
}

// testConfig is a daemon of the test's own: nothing of it is where another could be.
func testConfig(t testing.TB) Config {
	dir := t.TempDir()
	return Config{
		GRPCListen: "127.0.0.1:0", HTTPListen: "127.0.0.1:0", Socket: filepath.Join(dir, "echod.sock"),
		DefaultHost: "127.0.0.1", ReadyFile: filepath.Join(dir, "ready"), DrainTimeout: patience,
		Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
}

// testWriter sends the daemon's log to the test's.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) { w.t.Logf("echod: %s", p); return len(p), nil }

// startDaemon runs a daemon until the test ends, or stop is called.
func startDaemon(t testing.TB, c Config) *testDaemon {
	t.Helper()
	return startDaemonBy(t, c, func(run func()) { go run() })
}

// startDaemonBy is startDaemon whose goroutine another starts.
func startDaemonBy(t testing.TB, c Config, start func(run func())) *testDaemon {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := &testDaemon{cancel: cancel, ended: make(chan error, 1)}
	start(func() { d.ended <- Run(ctx, c) })
	t.Cleanup(func() { d.stop(t) })
	deadline := time.After(patience)
	for {
		text, err := os.ReadFile(c.ReadyFile)
		if err == nil {
			if err := json.Unmarshal(text, &d.Ready); err != nil {
				t.Fatalf("the ready file is no JSON: %v: %s", err, text)
			}
			return d
		}
		select {
		case err := <-d.ended:
			d.ended <- nil
			t.Fatalf("the daemon ended before it was ready: %v", err)
		case <-deadline:
			t.Fatal("the daemon is not ready")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stop ends the daemon, and fails the test if it did not end well.
func (d *testDaemon) stop(t testing.TB) {
	t.Helper()
	d.cancel()
	select {
	case err := <-d.ended:
		d.ended <- nil // for a second stop
		if err != nil {
			t.Errorf("the daemon ended with: %v", err)
		}
	case <-time.After(2 * patience):
		t.Fatal("the daemon does not end")
	}
}

// dial connects to the daemon's gRPC listener.
func (d *testDaemon) dial(t testing.TB, target string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func durationOf(text string) *durationpb.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(err)
	}
	return durationpb.New(d)
}
