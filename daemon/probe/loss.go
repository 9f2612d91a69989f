package probe

import (
	"math"
	"slices"
	"time"
)

// row is the rounds of a flow since the last one that was answered.
type row struct {
	start   time.Duration // when the first of them left
	givenUp time.Duration // when the last of them was given up
	lost    uint32        // 0: there is none
}

// inTime says whether the round had a reply in time, if only a wrong one: the path is there.
func (t trip) inTime() bool { return t.state == damaged || t.state == answered }

// maxOutages is how many outages a report has.
const maxOutages = 100

// outages are the longest outages so far. The zero value is none.
type outages struct {
	longest []Outage
	more    uint32 // how many there were besides
}

func (o *outages) add(x Outage) {
	if len(o.longest) < maxOutages {
		o.longest = append(o.longest, x)
		return
	}
	o.more++
	shortest := 0
	for i := range o.longest {
		if o.longest[i].Length < o.longest[shortest].Length {
			shortest = i
		}
	}
	if x.Length > o.longest[shortest].Length {
		o.longest = append(slices.Delete(o.longest, shortest, shortest+1), x)
	}
}

// confidence is that of upperBound.
const confidence = 0.95

// upperBound is the share of lost rounds that n rounds of which so many were lost are compatible with, at the most, with 95 %
// confidence: the one-sided bound of Clopper and Pearson (1934), if rounds are lost independently of one another.
func upperBound(lost, n uint32) float64 {
	switch {
	case lost >= n:
		return 1
	case lost == 0: // what the search below would find
		return 1 - math.Pow(1-confidence, 1/float64(n))
	}
	// The share with which so few are lost in just 5 % of all cases. More are lost the larger it is.
	low, high := float64(lost)/float64(n), 1.0
	for range 60 {
		middle := (low + high) / 2
		if atMost(lost, n, middle) > 1-confidence {
			low = middle
		} else {
			high = middle
		}
	}
	return high
}

// atMost is how likely it is that at most k of n rounds are lost when each is with probability p, k/n < p < 1: the
// binomial distribution. Its terms are summed up from the largest, the k-th, as far down as they matter.
func atMost(k, n uint32, p float64) float64 {
	term, sum := binomial(k, n, p), 0.0
	for i := k; ; i-- {
		sum += term
		if i == 0 || term <= sum*1e-12 {
			return min(sum, 1)
		}
		term *= float64(i) / float64(n-i+1) * (1 - p) / p
	}
}

// atLeast is how likely it is that at least k of n rounds are lost when each is with probability p, 0 < p < k/n.
func atLeast(k, n uint32, p float64) float64 {
	term, sum := binomial(k, n, p), 0.0
	for i := k; ; i++ {
		sum += term
		if i == n || term <= sum*1e-12 {
			return min(sum, 1)
		}
		term *= float64(n-i) / float64(i+1) * p / (1 - p)
	}
}

// binomial is how likely it is that k of n rounds are lost, when each is with probability p, 0 < p < 1.
func binomial(k, n uint32, p float64) float64 {
	lgamma := func(x uint32) float64 { v, _ := math.Lgamma(float64(x) + 1); return v }
	return math.Exp(lgamma(n) - lgamma(k) - lgamma(n-k) + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
}

// jitter is the interarrival jitter of RFC 3550, 6.4.1, of round trips. The zero value is ready.
type jitter struct {
	n     uint32
	last  time.Duration
	value float64 // nanoseconds
}

func (j *jitter) add(rtt time.Duration) {
	if j.n++; j.n > 1 {
		j.value += (float64((rtt - j.last).Abs()) - j.value) / 16
	}
	j.last = rtt
}
