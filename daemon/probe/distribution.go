package probe

import (
	"cmp"
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// longestTime is where the histogram ends; longer times are counted as this long in the percentiles. Nothing that is
// counted waits longer than MaxTimeout, and a little.
const longestTime = 2 * MaxTimeout

// The precision of a histogram, in significant digits: a bucket is at most so much wide, in parts of its value. It takes
// a quarter of a megabyte for 0.1 %, and 34 KiB for 1 %, however many times it counts.
const (
	within01Percent = 3
	within1Percent  = 2
)

// times sums up durations in memory that does not grow with how many there are. The zero value is ready.
type times struct {
	digits    int                     // 0: within01Percent
	histogram *hdrhistogram.Histogram // nanoseconds; made with the first
	count     uint32
	min, max  time.Duration
	mean      float64 // nanoseconds
	squares   float64 // of the distances from the mean (Welford)
}

func (t *times) add(d time.Duration) {
	d = max(d, 0)
	if t.histogram == nil {
		t.histogram = hdrhistogram.New(1, int64(longestTime), cmp.Or(t.digits, within01Percent))
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
	percentiles := t.histogram.ValueAtPercentiles([]float64{50, 90, 95, 99, 99.9})
	at := func(percent float64) time.Duration {
		// A bucket answers its upper end, which must not lie outside of what was seen.
		return min(max(time.Duration(percentiles[percent]), t.min), t.max)
	}
	d := &Distribution{
		Count:  t.count,
		Min:    t.min,
		Mean:   time.Duration(math.Round(t.mean)),
		P50:    at(50),
		P90:    at(90),
		P95:    at(95),
		P99:    at(99),
		P999:   at(99.9),
		Max:    t.max,
		StdDev: time.Duration(math.Round(math.Sqrt(t.squares / float64(t.count)))),
	}
	if t.digits == 0 {
		d.Buckets = t.buckets()
	}
	return d
}

// longerThan answers how many are longer than d, but for those that share a bucket of the histogram with it.
func (t *times) longerThan(d time.Duration) (n uint32) {
	for _, bar := range t.histogram.Distribution() {
		if bar.From > int64(d) {
			n += uint32(bar.Count)
		}
	}
	return n
}

// bucketEnds are where the buckets of a decade end, in tenths of it: about equally far apart by ratio, and round.
var bucketEnds = [...]time.Duration{10, 12, 15, 20, 25, 30, 40, 50, 60, 80}

// buckets are the counts from the first bucket with a time in it to the last.
func (t *times) buckets() (out []Bucket) {
	for _, bar := range t.histogram.Distribution() {
		if bar.Count == 0 {
			continue
		}
		// A bar lies in the bucket of its middle, so that its width does not push it over an end that its times are not over.
		end := bucketEnd(min(max(time.Duration(bar.From+bar.To)/2, t.min), t.max))
		for len(out) > 0 && out[len(out)-1].Upper < end {
			out = append(out, Bucket{Upper: bucketEnd(out[len(out)-1].Upper + 1)})
		}
		if len(out) == 0 {
			out = append(out, Bucket{Upper: end})
		}
		out[len(out)-1].Count += uint32(bar.Count)
	}
	return out
}

// bucketEnd is where the bucket ends that d lies in.
func bucketEnd(d time.Duration) time.Duration {
	if d <= 1 {
		return 1
	}
	decade := time.Duration(1)
	for decade*10 < d {
		decade *= 10
	}
	for _, tenths := range bucketEnds {
		if end := decade * tenths / 10; end >= d {
			return end
		}
	}
	return decade * 10
}
