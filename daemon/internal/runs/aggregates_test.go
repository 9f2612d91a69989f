package runs

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/echod/echod/daemon/probe"
)

// TestAggregatesAddUp follows more rounds than would wait as samples, and reads nothing of them until the run has ended.
func TestAggregatesAddUp(t *testing.T) {
	m, plan := newManager(t)
	plan.Count, plan.Interval = followAhead+2, 0
	a, err := m.FollowAggregates("fast", Target{}, plan, 10*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	if r, err := a.handle.Wait(ctx); err != nil || r.State != Done {
		t.Fatalf("%+v, %v", r, err)
	}
	var sent, received uint32
	for {
		next, ok, err := a.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		sent, received = sent+next.Sent, received+next.Received
	}
	if sent != plan.Count || received != plan.Count {
		t.Errorf("%d sent and %d received, want %d", sent, received, plan.Count)
	}
	if r := a.Stop(); r.Report.Received != plan.Count {
		t.Errorf("the report has %d received, want %d", r.Report.Received, plan.Count)
	}
}

// TestAggregatesComeWhenNothingHappens has a run wait for its second round, and its follower leave.
func TestAggregatesComeWhenNothingHappens(t *testing.T) {
	m, plan := newManager(t)
	plan.Interval = probe.MaxInterval
	a, err := m.FollowAggregates("slow", Target{}, plan, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	for empty := 0; empty < 2; {
		next, ok, err := a.Next(ctx)
		if err != nil || !ok {
			t.Fatalf("%v, %v", ok, err)
		}
		if next.Empty() && next.Until > 0 {
			empty++
		}
	}
	cancel()
	for err == nil { // a tick may be waiting
		_, _, err = a.Next(ctx)
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Next: %v, want that its context has ended", err)
	}
	if r := a.Stop(); r.State != Stopped || a.Run().UID != r.UID {
		t.Errorf("%+v", r)
	}
}

func TestAggregatesOfABadPlan(t *testing.T) {
	m, plan := newManager(t)
	plan.Timeout = 0
	if a, err := m.FollowAggregates("bad", Target{}, plan, time.Second); a != nil || !errors.Is(err, probe.ErrBadPlan) {
		t.Errorf("%v, %v", a, err)
	}
}
