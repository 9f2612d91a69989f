package budget

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/echod/echod/daemon/probe"
)

// aPlan takes 100 rounds and 51.2 kbit a second, and one socket.
func aPlan() probe.Plan {
	return probe.Plan{
		Protocol: probe.UDP, Address: "192.0.2.1:7", Count: 5, Interval: 10 * time.Millisecond, Timeout: time.Second, PayloadBytes: 64,
	}
}

func TestLimits(t *testing.T) {
	faster := func(p *probe.Plan) { p.Interval = 5 * time.Millisecond }
	for name, tc := range map[string]struct {
		limits       Limits
		change       func(*probe.Plan) // into one that is too large
		fit          int               // how many of aPlan fit
		says, tooBig string
	}{
		"probes": {
			limits: Limits{Probes: 2}, fit: 2,
			says: "2 of at most 2 probes at once are in use, and it takes 1; stop one, wait, or raise the daemon's --max-probes",
		},
		"rate": {
			limits: Limits{RoundsPerSecond: 150}, change: faster, fit: 1,
			says:   "100 of at most 150 rounds a second are in use, and it takes 100; stop one, wait, or raise the daemon's --max-probe-rate",
			tooBig: "it takes 200 rounds a second of at most 150; plan less, or raise the daemon's --max-probe-rate",
		},
		"sockets": {
			limits: Limits{Sockets: 3}, change: func(p *probe.Plan) { p.Flows = 4 }, fit: 3,
			says: "3 of at most 3 sockets", tooBig: "it takes 4 sockets of probes of at most 3; plan less, or raise the daemon's --max-probe-sockets",
		},
		"memory": {
			limits: Limits{MemoryBytes: 3 << 20}, change: func(p *probe.Plan) { p.Flows = 100 }, fit: 2,
			says: "of at most 3 MiB of memory for probes are in use, and it takes 1.2;", tooBig: "--max-probe-memory",
		},
		"duration": {
			limits: Limits{Duration: time.Minute, Probes: 1}, change: func(p *probe.Plan) { p.Duration = time.Hour; p.Count = 0 }, fit: 1,
			says: "--max-probes", tooBig: "a duration of 1h0m0s is more than 1m0s (--max-probe-duration)",
		},
		"probes of a target": {
			limits: Limits{TargetProbes: 1}, fit: 1,
			says: "1 of at most 1 probes at once to 192.0.2.1 are in use, and it takes 1; stop one, wait, or raise the daemon's --max-target-probes",
		},
		"rate of a target": {
			limits: Limits{TargetRoundsPerSecond: 199}, change: faster, fit: 1,
			says:   "100 of at most 199 rounds a second to 192.0.2.1",
			tooBig: "it takes 200 rounds a second to 192.0.2.1 of at most 199; plan less, or raise the daemon's --max-target-rate",
		},
		"bits of a target": {
			limits: Limits{TargetBitsPerSecond: 2e6}, change: func(p *probe.Plan) { p.PayloadBytes = 64000 }, fit: 39,
			says:   "2 of at most 2 Mbit/s of payload to 192.0.2.1 are in use, and it takes 0.1;",
			tooBig: "it takes 51.2 Mbit/s of payload to 192.0.2.1 of at most 2; plan less, or raise the daemon's --max-target-mbps",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := New(tc.limits)
			var shares []*Share
			for range tc.fit {
				share, _, err := b.Reserve(aPlan())
				if err != nil {
					t.Fatalf("after %d: %v", len(shares), err)
				}
				shares = append(shares, share)
			}
			if _, _, err := b.Reserve(aPlan()); !errors.Is(err, ErrUsedUp) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("one more: %v; want it to say %q", err, tc.says)
			}
			shares[0].Release()
			shares[0].Release()
			share, _, err := b.Reserve(aPlan())
			if err != nil {
				t.Errorf("after one was released: %v", err)
			}
			if _, _, err := b.Reserve(aPlan()); !errors.Is(err, ErrUsedUp) {
				t.Errorf("after one was released twice: %v", err)
			}
			for _, s := range append(shares, share) {
				s.Release()
			}
			if tc.change != nil {
				large := aPlan()
				tc.change(&large)
				if _, _, err := b.Reserve(large); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), tc.tooBig) {
					t.Errorf("too large: %v; want it to say %q", err, tc.tooBig)
				}
			}
			if b.used != (use{}) || len(b.targets) != 0 {
				t.Errorf("left in use: %+v, %v", b.used, b.targets)
			}
		})
	}
}

func TestNoLimits(t *testing.T) {
	b := New(Limits{})
	plan := aPlan()
	plan.Count, plan.Interval, plan.PayloadBytes, plan.Flows = 0, time.Nanosecond, 65507, 256
	for range 1000 {
		if _, got, err := b.Reserve(plan); err != nil || got.Duration != 0 {
			t.Fatalf("%+v, %v", got, err)
		}
	}
}

// TestTargetOfAName takes the share of a target once its name was looked up.
func TestTargetOfAName(t *testing.T) {
	b := New(Limits{TargetProbes: 1})
	plan := aPlan()
	plan.Address = "echo.example:7"
	first, admitted, err := b.Reserve(plan)
	if err != nil {
		t.Fatal(err)
	}
	target := netip.MustParseAddrPort("192.0.2.1:7")
	for range 2 { // once is enough
		if rate, err := admitted.Admit(target); rate != 0 || err != nil {
			t.Error(rate, err)
		}
	}
	second, other, err := b.Reserve(plan)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Admit(netip.MustParseAddrPort("192.0.2.1:8")); !errors.Is(err, ErrUsedUp) {
		t.Errorf("another port of the address: %v", err)
	}
	if _, _, err := b.Reserve(aPlan()); !errors.Is(err, ErrUsedUp) {
		t.Errorf("the address itself: %v", err)
	}
	if _, err := other.Admit(netip.MustParseAddrPort("192.0.2.2:7")); err != nil {
		t.Errorf("another address: %v", err)
	}
	first.Release()
	second.Release()
	if len(b.targets) != 0 {
		t.Errorf("left: %v", b.targets)
	}
	literal, admitted, err := b.Reserve(aPlan())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admitted.Admit(target); err != nil {
		t.Errorf("an address that was counted when it was reserved: %v", err)
	}
	literal.Release()
}

// TestLoopbackIsNobodyElse: benchmarks of one host are held to what they take together only.
func TestLoopbackIsNobodyElse(t *testing.T) {
	b := New(Limits{TargetProbes: 1, TargetRoundsPerSecond: 1, TargetBitsPerSecond: 1})
	for _, address := range []string{"127.0.0.1:7", "127.9.9.9:7", "[::1]:7", "[::ffff:127.0.0.1]:7"} {
		plan := aPlan()
		plan.Address, plan.Interval = address, 10*time.Microsecond
		for range 2 {
			if _, _, err := b.Reserve(plan); err != nil {
				t.Errorf("%s: %v", address, err)
			}
		}
	}
}

func TestDuration(t *testing.T) {
	b := New(Limits{Duration: time.Minute})
	for name, tc := range map[string]struct {
		change func(*probe.Plan)
		want   time.Duration
	}{
		"short":                   {func(*probe.Plan) {}, 0},
		"no bound":                {func(p *probe.Plan) { p.Count = 0 }, time.Minute},
		"no bound, closed loop":   {func(p *probe.Plan) { p.Count, p.Interval = 0, 0 }, time.Minute},
		"many rounds":             {func(p *probe.Plan) { p.Count, p.Interval = 7, 10*time.Second }, time.Minute},
		"many slow rounds":        {func(p *probe.Plan) { p.Count, p.Interval = 61, 0 }, time.Minute},
		"as many as there may be": {func(p *probe.Plan) { p.Count, p.Interval = probe.MaxCount, time.Hour }, time.Minute},
		"a duration":              {func(p *probe.Plan) { p.Count, p.Duration = 0, time.Second }, time.Second},
		"both":                    {func(p *probe.Plan) { p.Count, p.Duration = probe.MaxCount, time.Minute }, time.Minute},
	} {
		plan := aPlan()
		tc.change(&plan)
		if _, got, err := b.Reserve(plan); err != nil || got.Duration != tc.want {
			t.Errorf("%s: %v, %v; want %v", name, got.Duration, err, tc.want)
		}
	}
}

// TestLoops: a probe without an interval sends as fast as answers come, so how fast it may is allotted, and counted.
func TestLoops(t *testing.T) {
	near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-9*b }
	loop := func(p *probe.Plan) { p.Interval = 0 }
	for name, tc := range map[string]struct {
		limits Limits
		change func(*probe.Plan)
		rates  []float64 // of one after the other
	}{
		"no limits":               {Limits{}, loop, []float64{0, 0}},
		"of all":                  {Limits{RoundsPerSecond: 1600}, loop, []float64{400, 300, 225}},
		"of the target":           {Limits{TargetRoundsPerSecond: 1600}, loop, []float64{400, 300, 225}},
		"bits of the target":      {Limits{TargetBitsPerSecond: 512 * 1600}, loop, []float64{400, 300, 225}},
		"the tightest":            {Limits{RoundsPerSecond: 1e6, TargetRoundsPerSecond: 800, TargetBitsPerSecond: 512 * 1600}, loop, []float64{200, 150}},
		"no bits":                 {Limits{TargetBitsPerSecond: 1}, func(p *probe.Plan) { p.Interval, p.PayloadBytes = 0, 0 }, []float64{0, 0}},
		"at least without answer": {Limits{TargetRoundsPerSecond: 3}, loop, []float64{1, 1, 1}},
		"flows without answer":    {Limits{RoundsPerSecond: 12}, func(p *probe.Plan) { p.Interval, p.Flows = 0, 4 }, []float64{4, 4, 4}},
		"what the plan says":      {Limits{RoundsPerSecond: 1600}, func(p *probe.Plan) { p.Interval, p.MaxRate = 0, 320 }, []float64{320, 320, 240}},
		"an interval":             {Limits{RoundsPerSecond: 1600}, func(p *probe.Plan) {}, []float64{0, 0}},
		"loopback":                {Limits{TargetRoundsPerSecond: 1600}, func(p *probe.Plan) { p.Interval, p.Address = 0, "127.0.0.1:7" }, []float64{0, 0}},
	} {
		for _, named := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, a name: %v", name, named), func(t *testing.T) {
				b := New(tc.limits)
				var shares []*Share
				for i, want := range tc.rates {
					plan := aPlan()
					tc.change(&plan)
					address := netip.MustParseAddrPort(plan.Address)
					if named {
						plan.Address = "echo.example:7"
					}
					share, got, err := b.Reserve(plan)
					if err != nil {
						t.Fatalf("probe %d: %v", i, err)
					}
					rate, err := got.Admit(address)
					if err != nil || !near(rate, want) || !named && rate != got.MaxRate {
						t.Errorf("probe %d: %v and later %v rounds/s, want %v; %v", i, got.MaxRate, rate, want, err)
					}
					shares = append(shares, share)
				}
				sum := use{}
				for _, s := range shares {
					sum = sum.plus(s.use)
				}
				if !near(b.used.rate, sum.rate) || !near(b.used.bitsPerSecond+1, sum.bitsPerSecond+1) {
					t.Errorf("in use: %+v, want %+v", b.used, sum)
				}
				for _, s := range shares {
					s.Release()
				}
				if b.used != (use{}) || len(b.targets) != 0 {
					t.Errorf("left in use: %+v, %v", b.used, b.targets)
				}
			})
		}
	}
}

// TestLoopsLeaveRoom: they get less and less, and are refused only where there is not even room without answers.
func TestLoopsLeaveRoom(t *testing.T) {
	b := New(Limits{TargetRoundsPerSecond: 100})
	plan := aPlan()
	plan.Interval = 0
	var shares []*Share
	total := 0.0
	for {
		share, got, err := b.Reserve(plan)
		if err != nil {
			if !errors.Is(err, ErrUsedUp) || !strings.Contains(err.Error(), "and it takes 1;") {
				t.Errorf("one more: %v", err)
			}
			break
		}
		total += got.MaxRate
		shares = append(shares, share)
	}
	if len(shares) < 4 || total > 100 {
		t.Errorf("%d probes have %v rounds/s", len(shares), total)
	}
	plan.Address = "echo.example:7"
	late, got, err := b.Reserve(plan)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := got.Admit(netip.MustParseAddrPort("192.0.2.1:7")); !errors.Is(err, ErrUsedUp) {
		t.Errorf("one more, by its name: %v", err)
	}
	for _, s := range append(shares, late) {
		s.Release()
	}
	if b.used != (use{}) || len(b.targets) != 0 {
		t.Errorf("left in use: %+v, %v", b.used, b.targets)
	}
}

// TestSpellingsOfATarget: one address has one account, however it is written.
func TestSpellingsOfATarget(t *testing.T) {
	for _, spellings := range [][]string{
		{"[fd77::2]:7", "[fd77::2%aa]:7", "[fd77::2%bb]:8", "[FD77:0::2]:7"},
		{"[fe80::1%eth0]:7", "[fe80::1%eth1]:7"},
		{"192.0.2.1:7", "[::ffff:192.0.2.1]:7", "[::ffff:192.0.2.1%aa]:7"},
	} {
		b := New(Limits{TargetProbes: 1})
		for i, address := range spellings {
			plan := aPlan()
			plan.Address = address
			if _, _, err := b.Reserve(plan); (err == nil) != (i == 0) || err != nil && !errors.Is(err, ErrUsedUp) {
				t.Errorf("%s: %v", address, err)
			}
		}
		plan := aPlan()
		plan.Address = "echo.example:7"
		_, named, err := b.Reserve(plan)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := named.Admit(netip.MustParseAddrPort(spellings[1])); !errors.Is(err, ErrUsedUp) {
			t.Errorf("%s by its name: %v", spellings[1], err)
		}
	}
}

func TestFractionsAddUp(t *testing.T) {
	b := New(Limits{RoundsPerSecond: 1})
	plan := aPlan()
	plan.Interval = 10 * time.Second // 0.1 a second
	var shares []*Share
	for range 10 {
		share, _, err := b.Reserve(plan)
		if err != nil {
			t.Fatalf("after %d: %v", len(shares), err)
		}
		shares = append(shares, share)
	}
	if _, _, err := b.Reserve(plan); !errors.Is(err, ErrUsedUp) {
		t.Errorf("an eleventh: %v", err)
	}
	for _, s := range shares {
		s.Release()
	}
}

// TestManyAtOnce is for the race detector, and for the sum.
func TestManyAtOnce(t *testing.T) {
	b := New(Limits{Probes: 50})
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if share, plan, err := b.Reserve(aPlan()); err == nil {
				if _, err := plan.Admit(netip.MustParseAddrPort("192.0.2.1:7")); err != nil {
					t.Error(err)
				}
				share.Release()
			}
		})
	}
	all.Wait()
	if b.used != (use{}) || len(b.targets) != 0 {
		t.Errorf("left in use: %+v, %v", b.used, b.targets)
	}
}
