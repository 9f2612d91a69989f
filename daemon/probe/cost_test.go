package probe

import (
	"math"
	"testing"
	"time"
	"unsafe"
)

func TestCost(t *testing.T) {
	plan := Plan{Protocol: UDP, Address: "127.0.0.1:7", Count: 5, Interval: 100 * time.Millisecond, Timeout: time.Second, PayloadBytes: 1000}
	for _, c := range []struct {
		name    string
		change  func(*Plan)
		rate    float64
		bits    float64
		sockets int
		length  time.Duration
	}{
		{"a few rounds", func(*Plan) {}, 10, 80_000, 1, 5 * time.Second},
		{"no bound", func(p *Plan) { p.Count = 0 }, 10, 80_000, 1, 0},
		{"a duration", func(p *Plan) { p.Count, p.Duration = 0, time.Minute }, 10, 80_000, 1, time.Minute},
		{"the shorter one", func(p *Plan) { p.Duration = time.Second }, 10, 80_000, 1, time.Second},
		{"flows share the rate", func(p *Plan) { p.Flows = 4 }, 10, 80_000, 4, 5 * 250 * time.Millisecond},
		{"poisson", func(p *Plan) { p.Pacing = Poisson }, 10, 80_000, 1, 5 * time.Second},
		{"closed loop", func(p *Plan) { p.Interval, p.Timeout = 0, 10*time.Millisecond }, 100, 800_000, 1, 50 * time.Millisecond},
		{"closed loop that is bound", func(p *Plan) { p.Interval, p.Timeout, p.MaxRate = 0, 10*time.Millisecond, 50 }, 50, 400_000, 1, 100 * time.Millisecond},
		{"closed loop of flows", func(p *Plan) { p.Interval, p.Flows = 0, 256 }, 256, 2_048_000, 256, 5 * time.Second / 256},
		{"sizes by turns", func(p *Plan) { p.Sizes = []int{100, 200, 600} }, 10, 24_000, 1, 5 * time.Second},
		{"a connection", func(p *Plan) { p.Protocol = TCP }, 10, 80_000, 1, 5 * time.Second},
		{"a connection a round", func(p *Plan) { p.Protocol, p.NewConnection = TCP, true }, 10, 80_000, 5, 5 * time.Second},
		{"and many rounds", func(p *Plan) { p.Protocol, p.NewConnection, p.Count = TCP, true, 0 }, 10, 80_000, 21, 0},
		{"that wait for a close", func(p *Plan) { p.Protocol, p.AwaitClose, p.Count = TCP, true, 0 }, 10, 80_000, 31, 0},
		{"one after the other", func(p *Plan) { p.Protocol, p.AwaitClose, p.Count, p.Interval = TCP, true, 0, 0 }, 1, 8000, 1, 0},
		{"as many as may be", func(p *Plan) { p.Protocol, p.NewConnection, p.Count, p.Interval = TCP, true, 0, time.Microsecond }, 1e6, 8e9, MaxOutstanding, 0},
		{"longer than time", func(p *Plan) { p.Count, p.Interval = MaxCount, MaxInterval }, 1.0 / 3600, 8000.0 / 3600, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := plan
			c.change(&p)
			if err := p.Validate(); err != nil {
				t.Fatal(err)
			}
			got := p.Cost()
			near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-9*b }
			if !near(got.RoundsPerSecond, c.rate) || !near(got.BitsPerSecond, c.bits) || got.Sockets != c.sockets || got.Length != c.length {
				t.Errorf("%+v; want %v rounds/s, %v bit/s, %d sockets, %v", got, c.rate, c.bits, c.sockets, c.length)
			}
		})
	}
}

func TestCostInMemory(t *testing.T) {
	if size := int64(unsafe.Sizeof(trip{})); size > tripBytes {
		t.Errorf("a trip takes %d bytes, and is counted as %d", size, tripBytes)
	}
	small := Plan{Protocol: UDP, Count: 5, Interval: time.Second, Timeout: time.Second, PayloadBytes: 64}
	few := small.Cost().MemoryBytes
	for name, change := range map[string]func(*Plan){
		"rounds":   func(p *Plan) { p.Count = 0 },
		"flows":    func(p *Plan) { p.Flows = 10 },
		"sizes":    func(p *Plan) { p.Sizes = []int{64, 65, 66} },
		"payloads": func(p *Plan) { p.Protocol, p.PayloadBytes = TCP, MaxPayloadTCP },
	} {
		large := small
		change(&large)
		if got := large.Cost().MemoryBytes; got < few+2*sumBytes || got > few+64<<20 {
			t.Errorf("more %s: %d bytes, and %d without", name, got, few)
		}
	}
}
