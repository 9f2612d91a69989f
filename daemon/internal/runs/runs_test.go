package runs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// newManager is a manager and a plan that its runs may use, against a real endpoint.
func newManager(t *testing.T) (*Manager, probe.Plan) {
	t.Helper()
	engine := echo.New(echo.Options{})
	endpoint, err := engine.Listen(context.Background(), echo.Spec{Protocol: echo.UDP, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	m := New(probe.New(probe.Options{}))
	t.Cleanup(func() {
		m.Close()
		if err := engine.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m, probe.Plan{
		Protocol: probe.UDP, Address: endpoint.Addr().String(), Count: 3, Interval: time.Millisecond, Timeout: patience, PayloadBytes: 64,
	}
}

func endless(p probe.Plan) probe.Plan { p.Count = 0; return p }

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestARunIsKeptWithItsReport(t *testing.T) {
	m, plan := newManager(t)
	h, err := m.Start("", Target{Endpoint: "e"}, endless(plan))
	if err != nil {
		t.Fatal(err)
	}
	started := h.Run()
	if started.Name == "" || started.UID == "" || started.Report.Address.String() != plan.Address || started.Report.PayloadBytes != 64 || started.State != Running || !started.EndTime.IsZero() {
		t.Errorf("started: %+v", started)
	}
	h.Stop()
	if h, err = m.Start(started.Name, Target{Endpoint: "e"}, plan); err != nil {
		t.Fatal(err)
	}
	done, err := h.Wait(testContext(t))
	if err != nil || done.State != Done || done.Report.Received != 3 || done.EndTime.IsZero() {
		t.Errorf("done: %+v, %v", done, err)
	}
	if again, err := m.Get(started.Name); err != nil || again.Report.Received != 3 || again.Target.Endpoint != "e" {
		t.Errorf("kept: %+v, %v", again, err)
	}
	if err := m.Delete(started.Name); err != nil {
		t.Error(err)
	}
	if _, err := m.Get(started.Name); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
}

func TestNamesOfRunningProbesAreTaken(t *testing.T) {
	m, plan := newManager(t)
	if _, err := m.Start("same", Target{}, endless(plan)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Start("same", Target{}, plan); !errors.Is(err, ErrExists) {
		t.Errorf("second of the name: %v", err)
	}
	stopped, err := m.Stop("same")
	if err != nil || stopped.State != Stopped {
		t.Errorf("stopped: %+v, %v", stopped, err)
	}
	second, err := m.Start("same", Target{}, plan)
	if err != nil || second.Run().UID == stopped.UID {
		t.Errorf("after the first has ended: %+v, %v", second, err)
	}
}

func TestAWaiterThatLeavesStopsTheRun(t *testing.T) {
	m, plan := newManager(t)
	h, err := m.Start("left", Target{}, endless(plan))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r, err := h.Wait(ctx)
	if !errors.Is(err, context.Canceled) || r.State != Stopped {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestAFollowerGetsEverySample(t *testing.T) {
	m, plan := newManager(t)
	plan.Count = 50
	f, err := m.Follow("followed", Target{}, plan)
	if err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	for n := uint32(1); ; n++ {
		s, ok, err := f.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			if n != 51 {
				t.Errorf("%d samples, want 50", n-1)
			}
			break
		}
		if s.Seq != n {
			t.Errorf("sample %d is of round %d", n, s.Seq)
		}
	}
	if r := f.Stop(); r.State != Done || r.Report.Received != 50 {
		t.Errorf("%+v", r)
	}
}

func TestAFollowerThatDoesNotReadIsTold(t *testing.T) {
	m, plan := newManager(t)
	plan.Count, plan.Interval = followAhead+2, 0
	f, err := m.Follow("slow", Target{}, plan)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Wait(testContext(t)); !errors.Is(err, ErrTooSlow) { // it ends by itself, with nobody reading
		t.Errorf("Wait: %v, want ErrTooSlow", err)
	}
	samples := 0
	for {
		_, ok, err := f.Next(testContext(t))
		if ok {
			samples++
			continue
		}
		if !errors.Is(err, ErrTooSlow) {
			t.Errorf("after %d samples: %v, want ErrTooSlow", samples, err)
		}
		break
	}
	if samples != followAhead {
		t.Errorf("%d samples were kept, want %d", samples, followAhead)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	m, plan := newManager(t)
	f, err := m.Follow("one", Target{}, endless(plan))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Start("two", Target{}, endless(plan)); err != nil {
		t.Fatal(err)
	}
	m.Close()
	if r := f.Stop(); r.State != Stopped {
		t.Errorf("a followed run: %+v", r)
	}
	if r, err := m.Get("two"); err != nil || r.State != Stopped {
		t.Errorf("another: %+v, %v", r, err)
	}
	if _, err := m.Start("three", Target{}, plan); !errors.Is(err, ErrClosed) {
		t.Errorf("a start after Close: %v", err)
	}
}

func TestABadPlanStartsNothing(t *testing.T) {
	m, plan := newManager(t)
	plan.Timeout = 0
	if _, err := m.Start("bad", Target{}, plan); !errors.Is(err, probe.ErrBadPlan) {
		t.Errorf("Start: %v", err)
	}
	if _, err := m.Get("bad"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
}

func TestHowManyMayRun(t *testing.T) {
	m, plan := newManager(t)
	for i := range maxRunning {
		m.runs[fmt.Sprint(i)] = &run{name: fmt.Sprint(i), cancel: func() {}}
	}
	if _, err := m.Start("more", Target{}, plan); !errors.Is(err, ErrTooMany) {
		t.Errorf("Start: %v, want ErrTooMany", err)
	}
	clear(m.runs)
}

func TestWhatEndedIsKeptForAWhile(t *testing.T) {
	m, _ := newManager(t)
	now := time.Now()
	for i := range keepCount + 5 {
		name := fmt.Sprintf("p%03d", i)
		m.runs[name] = &run{name: name, ended: now.Add(time.Duration(i) * time.Nanosecond).Add(-time.Minute)}
	}
	m.runs["old"] = &run{name: "old", ended: now.Add(-keepTime - time.Second)}
	found, more := m.List("", keepCount)
	if len(found) != keepCount || more || found[0].Name != "p005" {
		t.Errorf("%d runs are kept from %s, more: %v; want the last %d", len(found), found[0].Name, more, keepCount)
	}
	if page, more := m.List("p010", 2); len(page) != 2 || !more || page[0].Name != "p011" {
		t.Errorf("a page: %v, %v", page, more)
	}
}

func TestAPortThatIsClosedIsAResult(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	m, plan := newManager(t)
	plan.Protocol, plan.Address = probe.TCP, address
	h, err := m.Start("closed", Target{}, plan)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := h.Wait(testContext(t)); err != nil || r.State != Done || r.Report.Lost != 3 || r.Report.RTT != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestAHandleIsOfOneRun takes the name of a run that has ended for another, and lets the first be forgotten.
func TestAHandleIsOfOneRun(t *testing.T) {
	m, plan := newManager(t)
	first, err := m.Start("same", Target{}, plan)
	if err != nil {
		t.Fatal(err)
	}
	done, err := first.Wait(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	second, err := m.Start("same", Target{}, endless(plan))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := first.Wait(testContext(t)); err != nil || again.UID != done.UID {
		t.Errorf("the first run's handle answers %+v, %v", again, err)
	}
	first.Stop()
	if second.Run().State != Running {
		t.Error("stopping the first stopped the second")
	}
}
