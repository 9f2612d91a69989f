package runs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/budget"
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
	m := New(probe.New(probe.Options{}), budget.New(budget.Limits{Probes: 3}), nil)
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
	m, plan := newManager(t) // of three
	for i := range 3 {
		if _, err := m.Start(fmt.Sprint(i), Target{}, endless(plan)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Start("more", Target{}, plan); !errors.Is(err, budget.ErrUsedUp) {
		t.Errorf("Start: %v, want ErrUsedUp", err)
	}
	if _, err := m.Get("more"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	if _, err := m.Stop("1"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Start("0", Target{}, plan); !errors.Is(err, ErrExists) { // and takes nothing
		t.Errorf("Start of a name that is taken: %v", err)
	}
	h, err := m.Start("more", Target{}, plan)
	if err != nil {
		t.Fatalf("after one has ended: %v", err)
	}
	if _, err := h.Wait(testContext(t)); err != nil {
		t.Error(err)
	}
}

// TestRefusals are at once where the target is an address, and the run's own end where it has a name.
func TestRefusals(t *testing.T) {
	no := errors.New("not there")
	prober := probe.New(probe.Options{
		Permit: func(a netip.AddrPort, _ probe.Protocol) error {
			if a.Addr().String() == "192.0.2.1" {
				return no
			}
			return nil
		},
		LookupNetIP: func(_ context.Context, _, host string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr(strings.ReplaceAll(host, "-", "."))}, nil
		},
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			t.Error("something is dialled")
			return nil, no
		},
	})
	m := New(prober, budget.New(budget.Limits{TargetRoundsPerSecond: 1}), nil)
	defer m.Close()
	plan := probe.Plan{Protocol: probe.TCP, Address: "192.0.2.1:7", Interval: 100 * time.Millisecond, Timeout: time.Second, PayloadBytes: 1}
	if _, err := m.Start("literal", Target{}, plan); !errors.Is(err, no) {
		t.Errorf("an address: %v", err)
	}
	for host, want := range map[string]struct {
		err    error
		reason probe.Reason
	}{
		"192-0-2-1": {no, probe.ReasonTargetRefused},
		"192-0-2-2": {budget.ErrTooLarge, probe.ReasonOverLimit},
	} {
		plan.Address = host + ":7"
		h, err := m.Follow(host, Target{Address: plan.Address}, plan)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok, err := h.Next(testContext(t)); ok || !errors.Is(err, want.err) {
			t.Errorf("Next: %v, %v", ok, err)
		}
		ended, err := h.Wait(testContext(t))
		if !errors.Is(err, want.err) || ended.State != Stopped || ended.Report.Sent != 0 {
			t.Errorf("Wait: %+v, %v", ended, err)
		}
		kept, err := m.Get(host)
		if err != nil || kept.State != Stopped || len(kept.Report.Errors) != 1 || kept.Report.Errors[0].Reason != want.reason {
			t.Errorf("Get: %+v, %v", kept, err)
		}
	}
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
