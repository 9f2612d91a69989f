//go:build linux

package server

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/handover"
	"github.com/echod/echod/daemon/internal/handover/managertest"
	"github.com/echod/echod/daemon/internal/registry"
)

// hanging is a way to our services by which no answer comes before it is closed.
type hanging struct {
	grpc.ClientConnInterface
	called, answer chan struct{}
}

func (h hanging) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	select {
	case h.called <- struct{}{}:
	default:
	}
	<-h.answer
	return nil
}

// TestAHangingDaemonGivesNoSignOfLife has a control call hang: the timer of the watchdog alone is no life.
func TestAHangingDaemonGivesNoSignOfLife(t *testing.T) {
	m := managertest.Start(t)
	t.Setenv("NOTIFY_SOCKET", m.Path())
	manager, err := handover.FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	manager.Watchdog = 30 * time.Millisecond
	engine := echo.New(echo.Options{})
	defer engine.Close(t.Context())
	c := testConfig(t)
	c.Manager = manager
	h := hanging{called: make(chan struct{}, 1), answer: make(chan struct{})}
	d := &daemon{config: c, log: c.Log, registry: registry.New(registry.Config{Engine: engine}), readiness: newReadiness(), channel: h}
	end := d.report()
	<-h.called
	// It has been asked, and several times could have been: nothing was said.
	time.Sleep(5 * manager.Watchdog)
	for _, one := range m.Messages() {
		if one.Has("WATCHDOG=1") {
			t.Error("it says that it lives, and hangs")
		}
	}
	close(h.answer)
	m.AwaitLine(t, "WATCHDOG=1")
	end()
}

// TestADaemonWithoutItsStateSaysSoEverywhere starts one whose state is lost: who waits for it to be ready is told that it is not.
func TestADaemonWithoutItsStateSaysSoEverywhere(t *testing.T) {
	m := managertest.Start(t)
	t.Setenv("NOTIFY_SOCKET", m.Path())
	manager, err := handover.FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	c := testConfig(t)
	c.Manager, c.StateDir, c.Log = manager, t.TempDir(), slog.New(slog.NewTextHandler(&log, nil))
	if err := os.WriteFile(filepath.Join(c.StateDir, "echod.db"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, c)
	m.Await(t, "the manager is told", func(messages []managertest.Message) bool {
		for _, one := range messages {
			if one.Has("READY=1") && strings.Contains(one.Text, "STATUS=serving 0 endpoints; state: ") && strings.Contains(one.Text, "the state is lost") {
				return true
			}
		}
		return false
	})
	file, err := os.ReadFile(c.ReadyFile)
	if err != nil || !strings.Contains(d.NotReady, "the state is lost") || !strings.Contains(string(file), `"notReady":"state: `) {
		t.Errorf("ready file: %s, %v", file, err)
	}
	d.stop(t)
	if text := log.String(); strings.Contains(text, "msg=ready") || !strings.Contains(text, `level=ERROR msg="takes calls, and is not ready"`) {
		t.Errorf("log: %s", text)
	}
}
