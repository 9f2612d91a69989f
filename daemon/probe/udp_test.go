package probe

import (
	"bytes"
	"context"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/echod/echod/daemon/internal/wire"
)

func udpPlan(address string, count uint32) Plan {
	return Plan{Protocol: UDP, Address: address, Count: count, Interval: time.Millisecond, Timeout: patience,
		PayloadBytes: DefaultPayloadBytes}
}

func TestUDPSizes(t *testing.T) {
	address := udpPeer(t, "127.0.0.1:0", echoDatagram)
	for _, size := range []int{0, 1, 15, 16, 64, 1472, MaxPayloadUDP4} {
		plan := udpPlan(address, 5)
		plan.PayloadBytes, plan.Interval = size, 0 // One at a time: the largest would not fit a buffer together.
		r, _ := runPlan(t, plan)
		wantCounts(t, r, 5, 5, 0, 0, 0)
		if r.PayloadBytes != size || r.Address.String() != address {
			t.Errorf("report of %d bytes to %v, want %d to %s", r.PayloadBytes, r.Address, size, address)
		}
		if known := size >= wire.HeaderBytes; (r.Duplicated != nil) != known || (r.Reordered != nil) != known {
			t.Errorf("%d bytes: duplicated %v, reordered %v", size, r.Duplicated, r.Reordered)
		}
		if r.Connect != nil {
			t.Errorf("a time to connect over UDP: %+v", r.Connect)
		}
	}
}

func TestUDPOverIPv6(t *testing.T) {
	plan := udpPlan(udpPeer(t, "[::1]:0", echoDatagram), 2)
	for _, size := range []int{64, MaxPayloadUDP6} {
		plan.PayloadBytes, plan.Interval = size, 0
		r, _ := runPlan(t, plan)
		wantCounts(t, r, 2, 2, 0, 0, 0)
	}
}

func TestUDPTooLongForTheAddressIsLost(t *testing.T) {
	p := New(Options{LookupNetIP: lookupLoopback})
	plan := Plan{Protocol: UDP, Address: "there:9", Count: 1, Timeout: patience, PayloadBytes: MaxPayloadUDP6}
	r, _ := runProber(t.Context(), t, p, plan, nil)
	wantCounts(t, r, 1, 0, 1, 0, 0)
	wantReason(t, r, ReasonTooBig, 1)
}

func TestUDPDuplicated(t *testing.T) {
	plan := udpPlan(udpPeer(t, "127.0.0.1:0", func(n int, b []byte, reply func([]byte)) {
		if n == 3 {
			reply(b)
			damaged := bytes.Clone(b)
			damaged[40] ^= 1
			reply(damaged)
		}
		reply(b)
	}), 5)
	r, samples := runPlan(t, plan)
	wantCounts(t, r, 5, 5, 0, 0, 0)
	if *r.Duplicated != 2 || *r.Reordered != 0 {
		t.Errorf("duplicated %d, reordered %d", *r.Duplicated, *r.Reordered)
	}
	if got := outcomes(samples)[3]; !reflect.DeepEqual(got, []Outcome{Received, Duplicated, Duplicated}) {
		t.Errorf("round 3 is %v", got)
	}
}

func TestUDPReordered(t *testing.T) {
	var held []byte
	plan := udpPlan(udpPeer(t, "127.0.0.1:0", func(n int, b []byte, reply func([]byte)) {
		switch n {
		case 2:
			held = bytes.Clone(b)
		case 4:
			reply(b)
			reply(held)
		default:
			reply(b)
		}
	}), 6)
	r, _ := runPlan(t, plan)
	wantCounts(t, r, 6, 6, 0, 0, 0)
	if *r.Reordered != 1 || *r.Duplicated != 0 {
		t.Errorf("reordered %d, duplicated %d, want 1, 0", *r.Reordered, *r.Duplicated)
	}
}

func TestUDPCorrupted(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"pattern":        func(b []byte) []byte { b[len(b)-1] ^= 0x80; return b },
		"magic":          func(b []byte) []byte { b[0] ^= 1; return b },
		"run":            func(b []byte) []byte { b[5] ^= 1; return b },
		"sequence":       func(b []byte) []byte { b[12] ^= 0xff; return b },
		"other sequence": func(b []byte) []byte { b[15] ^= 1; return b },
		"cut":            func(b []byte) []byte { return b[:40] },
		"longer":         func(b []byte) []byte { return append(b, 0) },
		"whole pattern":  func(b []byte) []byte { clear(b[16:]); return b },
	} {
		t.Run(name, func(t *testing.T) {
			plan := udpPlan(udpPeer(t, "127.0.0.1:0", func(n int, b []byte, reply func([]byte)) {
				if n == 2 {
					b = damage(bytes.Clone(b))
				}
				reply(b)
			}), 4)
			r, samples := runPlan(t, plan)
			wantCounts(t, r, 4, 3, 0, 1, 0)
			wantReason(t, r, ReasonCorrupted, 1)
			if got := outcomes(samples)[2]; !reflect.DeepEqual(got, []Outcome{Corrupted}) {
				t.Errorf("round 2 is %v", got)
			}
		})
	}
}

func TestUDPCorruptedWithoutNumber(t *testing.T) {
	for _, size := range []int{0, 1, 15} {
		plan := udpPlan(udpPeer(t, "127.0.0.1:0", func(n int, b []byte, reply func([]byte)) {
			if n == 2 {
				b = append(bytes.Clone(b), 'x')
			}
			reply(b)
		}), 3)
		plan.PayloadBytes = size
		r, _ := runPlan(t, plan)
		wantCounts(t, r, 3, 2, 0, 1, 0)
	}
}

// A reply of the round before, or of another run, is not the present round's, and not a damaged one either.
func TestUDPStale(t *testing.T) {
	for _, size := range []int{8, 16, 64} {
		var before []byte
		plan := udpPlan(udpPeer(t, "127.0.0.1:0", func(n int, b []byte, reply func([]byte)) {
			if n > 1 && size < wire.HeaderBytes {
				reply(before)
			}
			before = bytes.Clone(b)
			if size >= wire.HeaderBytes {
				other := make([]byte, size)
				wire.Fill(other, 4711, uint32(n), 0)
				reply(other)
				reply([]byte("hello"))
				reply(nil)
			}
			reply(b)
		}), 4)
		plan.PayloadBytes = size
		r, _ := runPlan(t, plan)
		wantCounts(t, r, 4, 4, 0, 0, 0)
		if size >= wire.HeaderBytes && *r.Duplicated != 0 {
			t.Errorf("%d bytes: duplicated %d", size, *r.Duplicated)
		}
	}
}

// The timeout is a minute: a test that ends has not waited for it.
func TestUDPRefusedAtOnce(t *testing.T) {
	for _, interval := range []time.Duration{0, 5 * time.Millisecond} {
		plan := udpPlan(closedPort(t, "udp"), 5)
		plan.Interval = interval
		r, _ := runPlan(t, plan)
		wantCounts(t, r, 5, 0, 5, 0, 0)
		wantReason(t, r, ReasonRefused, 5)
		if r.Elapsed >= patience {
			t.Errorf("took %v", r.Elapsed)
		}
	}
}

func TestUDPManyOnTheirWay(t *testing.T) {
	plan := udpPlan(udpPeer(t, "127.0.0.1:0", echoDatagram), 3000)
	plan.Interval = time.Nanosecond
	plan.Timeout = 10 * time.Second
	r, _ := runPlan(t, plan)
	if r.Sent != 3000 || r.Received == 0 || r.Corrupted != 0 {
		t.Errorf("%+v", r)
	}
}

func TestRoundsAreForgotten(t *testing.T) {
	w := newRounds(1)
	add := func() { w.begin(0, 0, 64) }
	for range windowRounds + 10 {
		add()
	}
	if len(w.trips) != windowRounds {
		t.Errorf("%d rounds are remembered", len(w.trips))
	}
	if w.get(0) != nil || w.get(10) != nil || w.get(11) == nil || w.get(w.last) == nil || w.get(w.last+1) != nil {
		t.Error("what is remembered is not the last 65,536 rounds")
	}
	w.end(Sample{Outcome: Lost, Reason: ReasonRefused}, UserClock, 0, w.get(11))
	if add(); w.get(11) != nil || w.get(w.last).state != waiting {
		t.Error("a new round has the past of an old one")
	}
}

// A peer that floods us with what is no reply must not hold up the schedule.
func TestUDPFlood(t *testing.T) {
	junk := make([]byte, 1400)
	var flood sync.Once
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	peer := udpPeer(t, "127.0.0.1:0", func(_ int, _ []byte, reply func([]byte)) {
		flood.Do(func() {
			wg.Go(func() {
				for t.Context().Err() == nil {
					reply(junk)
				}
			})
		})
	})
	plan := udpPlan(peer, 100)
	plan.PayloadBytes, plan.Timeout = len(junk), 200*time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, err := New(Options{}).Run(ctx, plan, nil)
	if err != nil || ctx.Err() != nil {
		t.Fatalf("the run does not end by itself: %v, %+v", err, r)
	}
	checkReport(t, r)
	wantCounts(t, r, 100, 0, 100, 0, 0)
}
