package probe

import (
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// longestTime is where the histogram ends; longer times are counted as this long in the percentiles. Nothing that is
// counted waits longer than MaxTimeout, and a little.
const longestTime = 2 * MaxTimeout

// times sums up durations in memory that does not grow with how many there are. The zero value is ready.
type times struct {
	histogram *hdrhistogram.Histogram // nanoseconds; made with the first, for it takes a quarter of a megabyte
	count     uint32
	min, max  time.Duration
	mean      float64 // nanoseconds
	squares   float64 // of the distances from the mean (Welford)
}

func (t *times) add(d time.Duration) {
	d = max(d, 0)
	if t.histogram == nil {
		t.histogram = hdrhistogram.New(1, int64(longestTime), 3)
		t.min = d
	}
	t.count++
	t.min, t.max = min(t.min, d), max(t.max, d)
	delta := float64(d) - t.mean
	t.mean += delta / float64(t.count)
	t.squares += delta * (float64(d) - t.mean)
	// Cannot fail: the value is within the histogram's range.
	_ = t.histogram.RecordValue(int64(min(d, longestTime)))
}

// distribution answers nil when there is nothing to sum up.
func (t *times) distribution() *Distribution {
	if t.count == 0 {
		return nil
	}
	percentiles := t.histogram.ValueAtPercentiles([]float64{50, 90, 99, 99.9})
	at := func(percent float64) time.Duration {
		// A bucket answers its upper end, which must not lie outside of what was seen.
		return min(max(time.Duration(percentiles[percent]), t.min), t.max)
	}
	return &Distribution{
		Count:  t.count,
		Min:    t.min,
		Mean:   time.Duration(math.Round(t.mean)),
		P50:    at(50),
		P90:    at(90),
		P99:    at(99),
		P999:   at(99.9),
		Max:    t.max,
		StdDev: time.Duration(math.Round(math.Sqrt(t.squares / float64(t.count)))),
	}
}
