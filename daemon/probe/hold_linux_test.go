package probe

import (
	"runtime"
	"sync"
	"testing"
	"time"
)

// A run waits with a processor in hand while its rounds are on their way, and lets go of it; one that may not, because another
// does, or because Go has but one processor, makes its rounds all the same. Memory is collected meanwhile.
func TestHolding(t *testing.T) {
	plan := udpPlan(udpPeer(t, "127.0.0.1:0", echoDatagram), 100)
	plan.Interval = time.Millisecond
	rounds := func(t *testing.T, plan Plan) (holding int) {
		t.Helper()
		ended := make(chan struct{})
		var collecting sync.WaitGroup
		collecting.Go(func() {
			for {
				select {
				case <-ended:
					return
				case <-time.After(5 * time.Millisecond):
					runtime.GC()
				}
			}
		})
		r, err := New(Options{}).Run(t.Context(), plan, func(Sample) error {
			if held.Load() {
				holding++
			}
			return nil
		})
		close(ended)
		collecting.Wait()
		if err != nil || r.Sent != plan.Count || r.Received != plan.Count {
			t.Fatalf("%v, %d sent and %d received of %d", err, r.Sent, r.Received, plan.Count)
		}
		return holding
	}
	t.Run("alone", func(t *testing.T) {
		if runtime.GOMAXPROCS(0) == 1 {
			t.Skip("there is but one processor")
		}
		if rounds(t, plan) == 0 {
			t.Error("no reply came while the run held")
		}
	})
	t.Run("closed loop", func(t *testing.T) {
		plan := plan
		plan.Interval = 0
		rounds(t, plan)
	})
	t.Run("seldom", func(t *testing.T) { // Each wait begins with a long one.
		plan := plan
		plan.Interval, plan.Count = 3*holdBefore, 10
		rounds(t, plan)
	})
	t.Run("failed", func(t *testing.T) {
		defer func() { _ = recover() }()
		_, _ = New(Options{}).Run(t.Context(), plan, func(Sample) error { panic("of the caller's") })
		t.Error("the panic was swallowed")
	})
	if held.Load() {
		t.Error("a run that has ended holds")
	}
	t.Run("beside another", func(t *testing.T) {
		if !hold() {
			t.Fatal("nobody else is there")
		}
		defer letGo()
		if hold() {
			t.Error("two hold")
		}
		rounds(t, plan)
	})
	t.Run("one processor", func(t *testing.T) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		if rounds(t, plan) != 0 {
			t.Error("the only processor was held")
		}
	})
}

// Others go first after each wait that was the runtime's, whatever is on its way, for a thread of theirs must wait in its place;
// else only now and then, in a time in which nothing is.
func TestGivingWay(t *testing.T) {
	h := newHolder()
	ms := time.Millisecond
	for i, c := range []struct {
		now, wake time.Duration
		onWay     int
		waited    bool
		want      bool
	}{
		{now: 1 * ms, wake: 1 * ms, onWay: 1, waited: true, want: true},
		{now: 2 * ms, wake: 3 * ms, want: false}, // it is not long ago
		{now: 2*ms + 1, wake: 2*ms + 2, onWay: 1, waited: true, want: true},
		{now: 20 * ms, wake: 21 * ms, onWay: 1, want: false}, // a reply may come
		{now: 20 * ms, wake: 20*ms + 1, want: false},         // a round leaves soon
		{now: 20 * ms, wake: 21 * ms, want: true},
	} {
		h.giveWay(c.now, c.wake, &rounds{onWay: c.onWay}, c.waited)
		if got := h.passed == c.now; got != c.want {
			t.Errorf("%d: it gave way: %t, want %t", i, got, c.want)
		}
	}
}
