package echo

import (
	"net/netip"
	"testing"
	"time"
)

// passed is how many of n single datagrams of size bytes are taken at a time.
func passed(r *sourceRates, from string, n, size int, now time.Duration) (taken int) {
	for range n {
		taken += r.take(netip.MustParseAddr(from), 1, size, size, now)
	}
	return taken
}

func ratesOf(o UDPOptions) *sourceRates {
	r := new(sourceRates)
	r.set(o)
	return r
}

func TestSourceRate(t *testing.T) {
	const one = "192.0.2.1"
	r := ratesOf(UDPOptions{MaxSourceDatagrams: 10})
	for _, step := range []struct {
		at   time.Duration
		from string
		want int
	}{
		{0, one, 10}, // a second's worth at once
		{0, "192.0.2.2", 10},
		{99 * time.Millisecond, one, 0},
		{100 * time.Millisecond, one, 1},
		{time.Second, one, 9},
		{time.Minute, one, 10}, // no more is saved up
	} {
		if got := passed(r, step.from, 100, 1, step.at); got != step.want {
			t.Errorf("%v, %s: %d passed, want %d", step.at, step.from, got, step.want)
		}
	}
}

// What alone is larger than a second's allowance never passes.
func TestSourceRateOfBytes(t *testing.T) {
	r := ratesOf(UDPOptions{MaxSourceBytes: 1000})
	for _, step := range []struct {
		at         time.Duration
		size, want int
	}{
		{0, 1001, 0},
		{0, 100, 10},
		{0, 1, 0},
		{0, 0, 100}, // nothing is within any limit
		{99 * time.Millisecond, 100, 0},
		{100 * time.Millisecond, 100, 1},
		{time.Minute, 1000, 1},
		{2 * time.Minute, 300, 3},
	} {
		if got := passed(r, "192.0.2.1", 100, step.size, step.at); got != step.want {
			t.Errorf("%v, %d bytes: %d passed, want %d", step.at, step.size, got, step.want)
		}
	}
}

func TestSourceRateOfBoth(t *testing.T) {
	r := ratesOf(UDPOptions{MaxSourceDatagrams: 10, MaxSourceBytes: 1000})
	if got := passed(r, "192.0.2.1", 100, 200, 0); got != 5 {
		t.Errorf("%d large ones passed, want 5", got)
	}
	if got := passed(r, "192.0.2.2", 100, 2, 0); got != 10 {
		t.Errorf("%d small ones passed, want 10", got)
	}
}

// Of a train passes what would pass of its datagrams one by one.
func TestSourceRateOfTrains(t *testing.T) {
	for _, test := range []struct {
		limit                        UDPOptions
		datagrams, size, bytes, want int
	}{
		{UDPOptions{MaxSourceDatagrams: 10}, 64, 100, 6400, 10},
		{UDPOptions{MaxSourceDatagrams: 10}, 10, 100, 950, 10},
		{UDPOptions{MaxSourceBytes: 1000}, 64, 100, 6400, 10},
		{UDPOptions{MaxSourceBytes: 1000}, 64, 300, 19200, 3},
		{UDPOptions{MaxSourceBytes: 1000}, 4, 300, 1000, 4}, // the last is shorter
		{UDPOptions{MaxSourceBytes: 1000}, 2, 1200, 2400, 0},
		{UDPOptions{MaxSourceDatagrams: 2, MaxSourceBytes: 1000}, 3, 400, 1200, 2},
		{UDPOptions{MaxSourceDatagrams: 1<<32 - 1, MaxSourceBytes: 1<<64 - 1}, 64, 1200, 64 * 1200, 64},
	} {
		r := ratesOf(test.limit)
		from := netip.MustParseAddr("192.0.2.1")
		if got := r.take(from, test.datagrams, test.size, test.bytes, 0); got != test.want {
			t.Errorf("%+v: %d passed", test, got)
		}
		whole := test.want == test.datagrams
		if again := r.take(from, test.datagrams, test.size, test.bytes, time.Minute); (again == test.datagrams) != whole {
			t.Errorf("%+v: %d passed a minute later", test, again)
		}
	}
}

func TestSourceIsANetworkOfIPv6(t *testing.T) {
	r := ratesOf(UDPOptions{MaxSourceDatagrams: 3})
	if got := passed(r, "2001:db8::1", 9, 1, 0) + passed(r, "2001:db8::ffff:1", 9, 1, 0); got != 3 {
		t.Errorf("%d passed from one network, want 3", got)
	}
	if got := passed(r, "2001:db8:0:1::1", 9, 1, 0); got != 3 {
		t.Errorf("%d passed from another network, want 3", got)
	}
}

// Forged sources cost no memory: those that have no place share one allowance, until others have been silent.
func TestSourceRateTableIsBounded(t *testing.T) {
	r := ratesOf(UDPOptions{MaxSourceDatagrams: 2})
	source := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range MaxTrackedSources {
		if r.take(source(i), 1, 1, 1, 0) == 0 {
			t.Fatalf("source %d was refused", i)
		}
	}
	taken := 0
	for i := range 10 * MaxTrackedSources {
		taken += r.take(source(MaxTrackedSources+i), 1, 1, 1, 0)
	}
	if taken != 2 || len(r.table) != MaxTrackedSources {
		t.Errorf("%d of those without a place were taken, want 2; the table has %d", taken, len(r.table))
	}
	if r.take(source(1), 1, 1, 1, 0) != 1 || r.take(source(1), 1, 1, 1, 0) != 0 {
		t.Error("one that has a place has its own allowance")
	}
	if r.take(source(1<<20), 1, 1, 1, 2*time.Second) != 1 || len(r.table) != 1 {
		t.Errorf("the table has %d after all were silent, want 1", len(r.table))
	}
}

// A changed rate counts from now on for all; the same one changes nothing.
func TestSourceRateIsSetAnew(t *testing.T) {
	r := ratesOf(UDPOptions{MaxSourceDatagrams: 2})
	first := passed(r, "192.0.2.1", 9, 1, 0)
	r.set(UDPOptions{MaxSourceDatagrams: 2})
	same := passed(r, "192.0.2.1", 9, 1, 0)
	r.set(UDPOptions{MaxSourceDatagrams: 3})
	other := passed(r, "192.0.2.1", 9, 1, 0)
	r.set(UDPOptions{})
	none := passed(r, "192.0.2.1", 9, 1, 0)
	if first != 2 || same != 0 || other != 3 || none != 9 {
		t.Errorf("passed %d, %d, %d, %d; want 2, 0, 3, 9", first, same, other, none)
	}
}
