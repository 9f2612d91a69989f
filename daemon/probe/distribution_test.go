package probe

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestNothingHasNoDistribution(t *testing.T) {
	if d := new(times).distribution(); d != nil {
		t.Errorf("%+v", d)
	}
}

func TestOneTime(t *testing.T) {
	for _, d := range []time.Duration{0, 1, 12345, time.Second + 1, longestTime, longestTime + time.Hour} {
		var x times
		x.add(d)
		want := Distribution{Count: 1, Min: d, Mean: d, P50: d, P90: d, P95: d, P99: d, P999: d, Max: d,
			Buckets: []Bucket{{bucketEnd(d), 1}}}
		if got := *x.distribution(); !reflect.DeepEqual(got, want) {
			t.Errorf("of %v: %+v", d, got)
		}
	}
}

func TestAccuracy(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var x times
	var all []time.Duration
	var sum, squares float64
	for range 20_000 {
		d := time.Duration(math.Exp(random.NormFloat64()*3 + 12)) // From some ns to some s.
		x.add(d)
		all = append(all, d)
		sum += float64(d)
	}
	slices.Sort(all)
	mean := sum / float64(len(all))
	for _, d := range all {
		squares += (float64(d) - mean) * (float64(d) - mean)
	}
	exact := func(q float64) time.Duration { return all[int(math.Ceil(q*float64(len(all))))-1] }
	got := x.distribution()
	if got.Count != 20_000 || got.Min != all[0] || got.Max != all[len(all)-1] {
		t.Errorf("%+v, want min %v, max %v", got, all[0], all[len(all)-1])
	}
	for name, c := range map[string]struct {
		got, want time.Duration
		within    float64
	}{
		"p50":    {got.P50, exact(.5), .001},
		"p90":    {got.P90, exact(.9), .001},
		"p99":    {got.P99, exact(.99), .001},
		"p999":   {got.P999, exact(.999), .001},
		"mean":   {got.Mean, time.Duration(mean), 1e-9},
		"stddev": {got.StdDev, time.Duration(math.Sqrt(squares / float64(len(all)))), 1e-9},
	} {
		if off := math.Abs(float64(c.got - c.want)); off > c.within*float64(c.want)+1 {
			t.Errorf("%s = %v, want %v", name, c.got, c.want)
		}
	}
}

func TestBuckets(t *testing.T) {
	for d, want := range map[time.Duration]time.Duration{
		0: 1, 1: 1, 2: 2, 10: 10, 11: 12, 12: 12, 13: 15, 99: 100, 100: 100, 101: 120, 199_999: 200_000, 200_001: 250_000,
		800_001: time.Millisecond, time.Second: time.Second, time.Second + 1: 1200 * time.Millisecond,
	} {
		if got := bucketEnd(d); got != want {
			t.Errorf("%d ns lie in the bucket to %d, want %d", d, got, want)
		}
	}
	var x times
	for range 3 {
		x.add(90 * time.Microsecond)
	}
	x.add(130 * time.Microsecond)
	want := []Bucket{{100 * time.Microsecond, 3}, {120 * time.Microsecond, 0}, {150 * time.Microsecond, 1}}
	if got := x.distribution().Buckets; !reflect.DeepEqual(got, want) {
		t.Errorf("buckets %v, want %v", got, want)
	}
}
