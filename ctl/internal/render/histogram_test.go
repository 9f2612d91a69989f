package render

import (
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

func distributionOf(list []*echov1.Bucket) *echov1.Distribution {
	d := &echov1.Distribution{Buckets: list}
	for _, b := range list {
		d.Count += b.GetCount()
	}
	return d
}

func TestHistogram(t *testing.T) {
	for _, c := range []struct {
		name    string
		buckets []*echov1.Bucket
		options Options
		want    string
	}{
		{"none", nil, Options{}, ""},
		{"a single time", buckets(80, 1), Options{}, ""},
		{"counts of nothing", buckets(80, 0, 100, 0), Options{}, ""},
		{"all alike", buckets(80, 5), Options{Width: 40}, `
rtt, up to:
  0.08 ms  ################  5  100.0 %
`},
		{"a million, of which one is late", buckets(40, 999999, 1000, 1), Options{Width: 50, Unicode: true}, `
rtt, up to:
  0.04 ms  ████████████████████  999999  > 99.9 %
      ...
  1.00 ms  ▏                          1   < 0.1 %
`},
		{"three empty ones", buckets(10, 3, 12, 0, 15, 0, 20, 0, 25, 6), Options{Width: 40, Unicode: true}, `
rtt, up to:
  0.010 ms  ████████          3  33.3 %
  0.012 ms                    0   0.0 %
  0.015 ms                    0   0.0 %
  0.020 ms                    0   0.0 %
  0.025 ms  ████████████████  6  66.7 %
`},
		{"a terminal too narrow", buckets(80, 1, 100, 16), Options{Width: 20, Unicode: true}, `
rtt, up to:
  0.08 ms  ▌          1   5.9 %
  0.10 ms  ████████  16  94.1 %
`},
		{"times that are no round trips", []*echov1.Bucket{
			{Upper: durationpb.New(-5), Count: 1}, {Upper: durationpb.New(math.MaxInt64), Count: 1}, nil,
		}, Options{Width: 60}, `
rtt, up to:
          0.000001 ms  #########################  1  50.0 %
                  ...
  100000000.000000 ms  #########################  1  50.0 %
`},
	} {
		d := distributionOf(c.buckets)
		if d.Count == 0 {
			d.Count = 5
		}
		got := "\n" + strings.Join(histogramLines("rtt", d, c.options), "\n") + "\n"
		if c.want == "" {
			got = strings.TrimSpace(got)
		}
		if got != c.want {
			t.Errorf("%s:%s\nwant%s", c.name, got, c.want)
		}
	}
}

// TestHistogramPutsBucketsTogether draws a spread that has more buckets than rows.
func TestHistogramPutsBucketsTogether(t *testing.T) {
	var all []int64
	for decade := int64(10); decade <= 1000000; decade *= 10 {
		for _, tenths := range []int64{10, 12, 15, 20, 25, 30, 40, 50, 60, 80} {
			all = append(all, decade*tenths/10, 1)
		}
	}
	bars := barsOf(buckets(all...))
	if len(bars) > maxBars || len(bars) < maxBars/2 {
		t.Errorf("%d rows, want at most %d, and not many fewer", len(bars), maxBars)
	}
	var total uint32
	for _, b := range bars {
		total += b.count
	}
	if int(total) != len(all)/2 || bars[0].upper != 10*time.Microsecond || bars[len(bars)-1].upper != 10*time.Second {
		t.Errorf("%d times from %v to %v", total, bars[0].upper, bars[len(bars)-1].upper)
	}
}

// FuzzHistogram holds every histogram to its bounds: rows, width, and that each count is in it.
func FuzzHistogram(f *testing.F) {
	f.Add(int64(1), int64(50), int64(100000), uint32(5), uint32(0), uint16(80), true)
	f.Add(int64(-1), int64(0), int64(math.MaxInt64), uint32(math.MaxUint32), uint32(1), uint16(0), false)
	f.Fuzz(func(t *testing.T, a, b, c int64, few, many uint32, width uint16, unicode bool) {
		list := []*echov1.Bucket{
			{Upper: durationpb.New(time.Duration(a)), Count: few}, {Upper: durationpb.New(time.Duration(b)), Count: many},
			{Upper: durationpb.New(time.Duration(c)), Count: few},
		}
		d := &echov1.Distribution{Count: max(few, many), Buckets: list}
		lines := histogramLines("rtt", d, Options{Width: int(width), Unicode: unicode})
		if len(lines) > maxBars+1 {
			t.Errorf("%d rows", len(lines)-1)
		}
		for _, line := range lines {
			if room := int(width); room >= plainWidth && utf8.RuneCountInString(line) >= room {
				t.Errorf("a line of %d columns on a terminal of %d: %s", utf8.RuneCountInString(line), room, line)
			}
		}
	})
}

func TestShares(t *testing.T) {
	for share, want := range map[float64]string{
		0: "0.0 %", 1: "100.0 %", 0.5: "50.0 %", 0.0004: "< 0.1 %", 0.99999: "> 99.9 %", 0.001: "0.1 %", 0.999: "99.9 %",
	} {
		if got := shareOf(share); got != want {
			t.Errorf("shareOf(%v) = %s, want %s", share, got, want)
		}
	}
	for ratio, want := range map[float64]string{
		0: "0", 1: "100", 0.4507: "46", 0.0295: "3", 0.03: "3", 0.0021: "0.21", 0.00213: "0.22", 0.999: "100", 0.0999: "10",
		3e-8: "3e-06", -1: "0", 2: "100",
	} {
		if got := boundPercent(ratio); got != want {
			t.Errorf("boundPercent(%v) = %s, want %s", ratio, got, want)
		}
	}
}

func TestProgress(t *testing.T) {
	p := &Progress{}
	for i, want := range []string{
		"0.5 s: 5000 sent, 4990 received, 2 lost (0.04 %), p50/p99 0.041/0.098 ms, 10000/s",
		"1.0 s: 5003 sent, 4990 received, 1 lost (0.02 %), 6/s",
	} {
		if got := p.Add(aggregates()[i], 0); got != want {
			t.Errorf("after %d: %s\nwant %s", i+1, got, want)
		}
	}
	if got, want := p.Add(&echov1.Aggregate{Late: 5}, 20), "0.0 s: 5003 sent, 49"; got != want {
		t.Errorf("cut: %q, want %q", got, want)
	}
}

func TestPrecision(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.000 us", 35: "0.035 us", 1200: "1.2 us", 510 * time.Microsecond: "510.0 us", 3400 * time.Microsecond: "3.4 ms",
	} {
		if got := precision(d); got != want {
			t.Errorf("precision(%d) = %s, want %s", d, got, want)
		}
	}
}

func TestBitRate(t *testing.T) {
	for bits, want := range map[float64]string{
		0: "0.0 bit/s", 999: "999.0 bit/s", 1e3: "1.00 kbit/s", 1.5e6: "1.50 Mbit/s", 12.345e9: "12.35 Gbit/s",
	} {
		if got := bitRate(bits); got != want {
			t.Errorf("bitRate(%v) = %s, want %s", bits, got, want)
		}
	}
}
