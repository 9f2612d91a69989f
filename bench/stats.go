package main

import (
	"math/rand/v2"
	"slices"
)

const (
	resamples = 2000
	// leastForInterval values have an interval worth the name.
	leastForInterval = 3
	// seed makes the intervals of the same numbers the same each time.
	seed = 862
)

// Estimate is a median and the 95 % interval of it, by bootstrap: the medians of many samples drawn with replacement from
// what was seen. Fewer than three values have no interval worth the name; it is then their range.
type Estimate struct {
	Median, Low, High float64
	N                 int
}

// estimate needs at least one value.
func estimate(values []float64) Estimate {
	sorted := slices.Sorted(slices.Values(values))
	e := Estimate{Median: median(sorted), Low: sorted[0], High: sorted[len(sorted)-1], N: len(sorted)}
	if len(sorted) < leastForInterval {
		return e
	}
	e.Low, e.High = interval(func(random *rand.Rand) float64 { return medianOfDraw(random, sorted) })
	return e
}

// estimateQuotient is the median of a divided by the median of b, where no value of a belongs to one of b. Both have at
// least one value, none of b is 0, and N is that of the fewer.
func estimateQuotient(a, b []float64) Estimate {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	e := Estimate{Median: median(a) / median(b), Low: a[0] / b[len(b)-1], High: a[len(a)-1] / b[0], N: min(len(a), len(b))}
	if e.N < leastForInterval {
		return e
	}
	e.Low, e.High = interval(func(random *rand.Rand) float64 { return medianOfDraw(random, a) / medianOfDraw(random, b) })
	return e
}

// interval is where 95 % of what draw returns lies.
func interval(draw func(*rand.Rand) float64) (low, high float64) {
	random := rand.New(rand.NewPCG(seed, seed))
	drawn := make([]float64, resamples)
	for i := range drawn {
		drawn[i] = draw(random)
	}
	slices.Sort(drawn)
	return drawn[resamples*25/1000], drawn[resamples*975/1000-1]
}

// medianOfDraw draws as many of values as there are, with replacement.
func medianOfDraw(random *rand.Rand, values []float64) float64 {
	sample := make([]float64, len(values))
	for i := range sample {
		sample[i] = values[random.IntN(len(values))]
	}
	slices.Sort(sample)
	return median(sample)
}

// median of sorted values, at least one.
func median(sorted []float64) float64 {
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}
