package probe

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// searchPlan searches for the path MTU, one round at a time; the test is skipped where that cannot be done.
func searchPlan(t *testing.T, address string) Plan {
	t.Helper()
	if !canMark {
		t.Skip("fragments cannot be forbidden on this system")
	}
	return Plan{Protocol: UDP, Address: address, Count: DefaultTries, Timeout: patience,
		PathMTU: &PathMTUSearch{}}
}

func wantMTU(t *testing.T, r Report, want PathMTU) {
	t.Helper()
	if r.PathMTU == nil || *r.PathMTU != want {
		t.Errorf("path MTU %+v, want %+v; errors %+v", r.PathMTU, want, r.Errors)
	}
	if r.PayloadBytes != 0 || r.Jitter != nil || r.IPDV != nil || r.Schedule != nil || r.Loss != nil ||
		len(r.Outages) != 0 || r.MoreOutages != 0 || r.Throughput != nil {
		t.Errorf("the rounds of a search were judged as if they were alike: %+v", r)
	}
}

func TestValidateOfASearch(t *testing.T) {
	good := searchPlan(t, "127.0.0.1:7")
	for _, c := range []struct {
		name, want string // want: the start of the error, empty for none
		change     func(p *Plan)
	}{
		{"good", "", func(*Plan) {}},
		{"for a time", "", func(p *Plan) { p.Duration = time.Hour }},
		{"the least", "", func(p *Plan) { p.PathMTU.MaxPayload = 16 }},
		{"the most", "", func(p *Plan) { p.PathMTU.MaxPayload = MaxPayloadUDP4 }},
		{"the most over IPv6", "", func(p *Plan) { p.Address, p.PathMTU.MaxPayload = "[::1]:7", MaxPayloadUDP6 }},
		{"over TCP", "path_mtu search", func(p *Plan) { p.Protocol = TCP }},
		{"no tries", "count 0", func(p *Plan) { p.Count = 0 }},
		{"many tries", "count 101", func(p *Plan) { p.Count = MaxTries + 1 }},
		{"flows", "flows 2", func(p *Plan) { p.Flows = 2 }},
		{"a size", "payload_size 64", func(p *Plan) { p.PayloadBytes = 64 }},
		{"sizes", "payload_sweep 2", func(p *Plan) { p.Sizes = []int{64, 65} }},
		{"less than the least", "max_payload 15", func(p *Plan) { p.PathMTU.MaxPayload = 15 }},
		{"a negative size", "max_payload -1", func(p *Plan) { p.PathMTU.MaxPayload = -1 }},
		{"more than the most", "max_payload 65508", func(p *Plan) { p.PathMTU.MaxPayload = MaxPayloadUDP4 + 1 }},
	} {
		plan := good
		plan.PathMTU = new(*good.PathMTU)
		c.change(&plan)
		err := plan.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// The loopback takes what a packet can have.
func TestSearchOverLoopback(t *testing.T) {
	var came atomic.Int32
	plan := searchPlan(t, udpPeer(t, "127.0.0.1:0", func(_ int, b []byte, reply func([]byte)) { came.Add(1); reply(b) }))
	r, _ := runPlan(t, plan)
	wantMTU(t, r, PathMTU{PayloadBytes: MaxPayloadUDP4, MTU: 65535, Limit: LimitMaxPayload})
	wantCounts(t, r, 2, 2, 0, 0, 0)
	if n := came.Load(); n != 2 { // To learn the interface's MTU nothing is sent.
		t.Errorf("%d datagrams came, want those of the rounds", n)
	}

	plan.PathMTU = &PathMTUSearch{MaxPayload: 1000}
	r, _ = runPlan(t, plan)
	wantMTU(t, r, PathMTU{PayloadBytes: 1000, MTU: 1028, Limit: LimitMaxPayload})
}

func TestSearchAgainstAServerThatCuts(t *testing.T) {
	plan := searchPlan(t, udpPeer(t, "127.0.0.1:0", func(_ int, b []byte, reply func([]byte)) { reply(b[:min(len(b), 512)]) }))
	r, samples := runPlan(t, plan)
	wantMTU(t, r, PathMTU{PayloadBytes: 512, MTU: 540, Limit: LimitTruncated, TooBig: 513})
	wantReason(t, r, ReasonCorrupted, r.Corrupted)
	if r.Corrupted == 0 || samples[1].PayloadBytes != MaxPayloadUDP4 {
		t.Errorf("corrupted %d, second sample %+v", r.Corrupted, samples[1])
	}
}

// Damage is no word on the size.
func TestSearchAgainstAServerThatDamages(t *testing.T) {
	plan := searchPlan(t, udpPeer(t, "127.0.0.1:0", func(n int, b []byte, reply func([]byte)) {
		if n%2 == 0 {
			b[15] ^= 1
			b[len(b)-1] ^= 1
		}
		reply(b)
	}))
	plan.PathMTU.MaxPayload = 2000
	r, _ := runPlan(t, plan)
	wantMTU(t, r, PathMTU{PayloadBytes: 2000, MTU: 2028, Limit: LimitMaxPayload})
	if r.Corrupted == 0 {
		t.Error("nothing was corrupted")
	}
}

func TestSearchWhereNobodyListens(t *testing.T) {
	r, _ := runPlan(t, searchPlan(t, closedPort(t, "udp")))
	wantMTU(t, r, PathMTU{})
	wantCounts(t, r, r.Sent, 0, r.Sent, 0, 0)
	wantReason(t, r, ReasonRefused, r.Sent)
}

// hole lets datagrams through up to a size, and takes a while for them.
func hole(passes int) *Prober {
	return inMemory(each(func(_ int, b []byte, c net.Conn) {
		time.Sleep(30 * time.Millisecond)
		if len(b) <= passes {
			_, _ = c.Write(b)
		}
	}))
}

// Tries of one size leave an interval apart, and do not wait for each other.
func TestPaceOfASearch(t *testing.T) {
	plan := searchPlan(t, anyAddress)
	plan.Interval, plan.Timeout, plan.PathMTU.MaxPayload = 200*time.Millisecond, time.Second, 100
	bubble(t, func(t *testing.T) {
		r, samples := runProber(t.Context(), t, hole(98), plan, nil)
		wantMTU(t, r, PathMTU{PayloadBytes: 98, MTU: 126, Limit: LimitSilent, TooBig: 99})
		var left []time.Duration
		var sizes []int
		for _, s := range samples[:5] {
			left, sizes = append(left, s.Left/time.Millisecond), append(sizes, s.PayloadBytes)
		}
		for i, want := range []struct{ left, size int }{{0, 16}, {200, 100}, {400, 100}, {600, 100}, {1600, 16}} {
			if int(left[i]) != want.left || sizes[i] != want.size {
				t.Errorf("rounds left after %d ms, with %d bytes; want round %d to be %v", left, sizes, i+1, want)
			}
		}
	})
}

func TestSearchOneAtATime(t *testing.T) {
	plan := searchPlan(t, anyAddress)
	plan.Timeout = time.Second
	bubble(t, func(t *testing.T) {
		r, _ := runProber(t.Context(), t, hole(1272), plan, nil)
		wantMTU(t, r, PathMTU{PayloadBytes: 1272, MTU: 1300, Limit: LimitSilent, TooBig: 1273})
	})
}

func TestSearchThatEndsEarly(t *testing.T) {
	plan := searchPlan(t, anyAddress)
	plan.Interval, plan.Timeout = 200*time.Millisecond, time.Second
	check := func(t *testing.T, r Report) {
		t.Helper()
		if m := r.PathMTU; m == nil || m.Limit != LimitUnknown || m.PayloadBytes < 16 || m.TooBig <= 1272 {
			t.Errorf("%+v", m)
		}
	}
	bubble(t, func(t *testing.T) {
		plan := plan
		plan.Duration = 5 * time.Second
		r, _ := runProber(t.Context(), t, hole(1272), plan, nil)
		check(t, r)
		if r.Elapsed > 7*time.Second || r.Outstanding != 0 {
			t.Errorf("took %v, outstanding %d", r.Elapsed, r.Outstanding)
		}
	})
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		r, _ := runProber(ctx, t, hole(1272), plan, nil)
		check(t, r)
	})
}

// What is found so far is told while the search goes on.
func TestTallyDuringASearch(t *testing.T) {
	plan := searchPlan(t, udpPeer(t, "127.0.0.1:0", echoDatagram))
	plan.Tally = new(Tally)
	largest := 0
	_, err := New(Options{}).Run(t.Context(), plan, func(Sample) error {
		found := plan.Tally.Report().PathMTU
		if found == nil || found.PayloadBytes < largest {
			t.Errorf("%+v after %d", found, largest)
			return nil
		}
		largest = found.PayloadBytes
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A report that does not bring back what it is about can only be about what is too big for the MTU that it names.
func TestTooBigReportWithoutItsDatagram(t *testing.T) {
	plan := timedPlan(UDP)
	plan.PayloadBytes, plan.Sizes = 0, []int{64, 1372, 1373}
	r := newRun(New(Options{}), plan, nil)
	r.address, r.start = netip.MustParseAddrPort(plan.Address), time.Now()
	d := newDatagrams(t.Context(), r)
	defer d.waiter().stop()
	defer d.close()
	for range 2 * len(plan.Sizes) {
		r.begin(r.rounds.last+1, 0, 0, 0)
	}
	d.failed(arrival{from: &d.flows[0], at: r.now(), err: tooBigError{mtu: 1400}})
	for seq := uint32(1); seq <= r.rounds.last; seq++ {
		if x := r.rounds.get(seq); (x.state == given) != (x.size == 1373) || x.state == given && x.givenFor() != ReasonTooBig {
			t.Errorf("round %d of %d bytes: state %d", seq, x.size, x.state)
		}
	}
	// One that names no MTU may be about each of them.
	d.failed(arrival{from: &d.flows[0], at: r.now(), err: tooBigError{}})
	if r.rounds.onWay != 0 {
		t.Errorf("%d rounds are on their way", r.rounds.onWay)
	}
}

// What comes back cut short is wrong whatever it is of: the header says whose reply it is, and the size that it is not all.
func TestUDPCutShort(t *testing.T) {
	plan := udpPlan(udpPeer(t, "127.0.0.1:0", func(_ int, b []byte, reply func([]byte)) { reply(b[:len(b)/2]) }), 4)
	plan.PayloadBytes, plan.Sizes = 0, []int{64, 128}
	r, samples := runPlan(t, plan)
	wantCounts(t, r, 4, 0, 0, 4, 0)
	if want := "the reply has 32 bytes instead of 64"; !slices.ContainsFunc(samples, func(s Sample) bool { return s.Err == want }) {
		t.Errorf("no sample says that %s: %+v", want, samples)
	}
}

// A search costs what it may try.
func TestCostOfASearch(t *testing.T) {
	plan := searchPlan(t, anyAddress)
	plan.Interval, plan.Timeout, plan.PathMTU.MaxPayload = 100*time.Millisecond, time.Second, 1000
	c := plan.Cost()
	if want := time.Duration(mostSearched(int(plan.Count))) * time.Second; c.RoundsPerSecond != 10 || c.BitsPerSecond != 80_000 ||
		c.Sockets != 1 || c.Length != want || c.MemoryBytes <= runBytes {
		t.Errorf("%+v, want a length of %v", c, want)
	}
	plan.PathMTU.MaxPayload = 0
	if c := plan.Cost(); c.BitsPerSecond != 10*MaxPayloadUDP4*8 {
		t.Errorf("%+v", c)
	}
}
