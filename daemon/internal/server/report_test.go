//go:build linux

package server

import (
	"context"
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
	d := &daemon{config: c, log: c.Log, registry: registry.New(registry.Config{Engine: engine}), channel: h}
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
