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
	random := rand.New(rand.NewPCG(seed, seed))
	medians := make([]float64, resamples)
	sample := make([]float64, len(sorted))
	for i := range medians {
		for j := range sample {
			sample[j] = sorted[random.IntN(len(sorted))]
		}
		slices.Sort(sample)
		medians[i] = median(sample)
	}
	slices.Sort(medians)
	e.Low, e.High = medians[resamples*25/1000], medians[resamples*975/1000-1]
	return e
}

// median of sorted values, at least one.
func median(sorted []float64) float64 {
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}
