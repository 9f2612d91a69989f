//go:build linux

package handover_test

import (
	"bytes"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/echod/echod/daemon/internal/handover"
	"github.com/echod/echod/daemon/internal/handover/managertest"
)

// managed is what this process has of a manager, and what it logs.
func managed(t *testing.T, m *managertest.Manager, storeMax string) (*handover.Manager, *bytes.Buffer, *slog.Logger) {
	t.Helper()
	t.Setenv("NOTIFY_SOCKET", m.Path())
	t.Setenv("FDSTORE", storeMax)
	own, err := handover.FromEnvironment()
	if err != nil || len(own.Warnings) > 0 {
		t.Fatal(err, own.Warnings)
	}
	t.Cleanup(own.Close)
	var log bytes.Buffer
	return own, &log, slog.New(slog.NewTextHandler(&log, nil))
}

func TestTheStoreKeepsAndReleases(t *testing.T) {
	m := managertest.Start(t)
	own, log, logger := managed(t, m, "")
	store := own.NewStore(logger)
	l := managertest.Listen(t, "tcp4", "127.0.0.1:0")
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	first, second := store.Keep("web", file), store.Keep("web", file)
	file.Close()
	l.Close()
	if endpoint, ok := handover.KeptFor(first); !ok || endpoint != "web" || first == second {
		t.Errorf("kept as %q and %q", first, second)
	}
	store.Release(first)
	if stored := m.Stored(); len(stored) != 1 || stored[0] != second {
		t.Errorf("after the release of %q there is %q", first, stored)
	}
	if conn, err := net.Dial("tcp", l.Addr().String()); err != nil {
		t.Errorf("what is kept does not listen: %v", err)
	} else {
		conn.Close()
	}
	store.Release(second)
	// The manager has closed it when Release returns.
	if again, err := net.Listen("tcp4", l.Addr().String()); err != nil {
		t.Errorf("the port is not free: %v", err)
	} else {
		again.Close()
	}
	if log.Len() > 0 {
		t.Errorf("it logs %s", log)
	}
}

// TestNamesOfUnits has names that systemd gives to sockets of units, by default those of the units: none of them is in the store.
func TestNamesOfUnits(t *testing.T) {
	for _, name := range []string{"echod.socket", "echod.web.socket", "echod.web.a.socket", "echod.web.", "echod.web", "web.12345678", "echod.a.12345678.socket", "echod.a.1234"} {
		if endpoint, ok := handover.KeptFor(name); ok {
			t.Errorf("%q was kept for %q", name, endpoint)
		}
	}
}

func TestTheStoreIsFull(t *testing.T) {
	m := managertest.Start(t)
	own, log, logger := managed(t, m, "1")
	store := own.NewStore(logger)
	file, err := managertest.Listen(t, "tcp4", "127.0.0.1:0").File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	kept := store.Keep("one", file)
	if store.Keep("two", file) != "" || store.Keep("three", file) != "" || strings.Count(log.String(), "keeps no more") != 1 {
		t.Errorf("it logs %s", log)
	}
	store.Release(kept)
	if store.Keep("two", file) == "" {
		t.Error("there is no room after a release")
	}
}

// TestTheNamesOfTheStoreFitInOneVariable: a manager that has more of them can start nothing any more.
func TestTheNamesOfTheStoreFitInOneVariable(t *testing.T) {
	m := managertest.Start(t)
	own, log, logger := managed(t, m, "")
	store := own.NewStore(logger)
	name := strings.Repeat("x", 63)
	for range 2000 {
		store.Kept("echod." + name + ".00000000")
	}
	file, err := managertest.Listen(t, "tcp4", "127.0.0.1:0").File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if store.Keep(name, file) != "" || !strings.Contains(log.String(), "KiB of names") {
		t.Errorf("it logs %s", log)
	}
}

func TestNoStore(t *testing.T) {
	m := managertest.Start(t)
	own, _, logger := managed(t, m, "0")
	if own.NewStore(logger) != nil {
		t.Error("there is a store where the manager has none")
	}
	var none *handover.Store
	none.Kept("echod.web.00000000")
	if (&handover.Manager{}).NewStore(logger) != nil {
		t.Error("there is a store without a manager")
	}
}

// TestAManagerThatDoesNotRead holds the daemon up once, and not for each message again.
func TestAManagerThatDoesNotRead(t *testing.T) {
	path := t.TempDir() + "/notify"
	deaf, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	own, err := handover.FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	var failed, slow int
	for range 2000 { // the kernel has room for some
		before := time.Now()
		if own.Notifier.Alive() != nil {
			failed++
		}
		if time.Since(before) > time.Second {
			slow++
		}
		if failed == 20 {
			break
		}
	}
	if failed != 20 || slow == 0 || slow > 3 { // more than one on a machine that is slow itself
		t.Errorf("%d messages failed, of which %d took long", failed, slow)
	}
}

func TestANilNotifierSaysNothing(t *testing.T) {
	var none *handover.Notifier
	if none.Ready(1, "") != nil || none.Stopping(0, "") != nil || none.Status("") != nil || none.Alive() != nil || none.MainPID(1) != nil ||
		none.Close() != nil || none.Environment() != nil {
		t.Error("it has something to say")
	}
}

func TestTheNextProcessIsTold(t *testing.T) {
	m := managertest.Start(t)
	own, _, _ := managed(t, m, "")
	if err := own.Notifier.MainPID(4711); err != nil {
		t.Fatal(err)
	}
	m.AwaitLine(t, "MAINPID=4711")
	if err := own.Notifier.Status("one\nREADY=1"); err != nil {
		t.Fatal(err)
	}
	m.AwaitLine(t, "STATUS=one READY=1")
	if got := own.Notifier.Environment(); len(got) != 1 || got[0] != "NOTIFY_SOCKET="+m.Path() {
		t.Errorf("its environment is %q", got)
	}
}
