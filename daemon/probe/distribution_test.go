package probe

import (
	"math"
	"math/rand/v2"
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
		want := Distribution{Count: 1, Min: d, Mean: d, P50: d, P90: d, P99: d, P999: d, Max: d}
		if got := *x.distribution(); got != want {
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
