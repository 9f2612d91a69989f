package probe

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// exactUpperBound is the one-sided bound of Clopper and Pearson by bisection over the binomial distribution, in numbers of
// 400 bits.
func exactUpperBound(lost, n int) float64 {
	number := func(x float64) *big.Float { return new(big.Float).SetPrec(400).SetFloat64(x) }
	power := func(x *big.Float, k int) *big.Float {
		out, square := number(1), number(0).Set(x)
		for ; k > 0; k >>= 1 {
			if k&1 == 1 {
				out.Mul(out, square)
			}
			square.Mul(square, square)
		}
		return out
	}
	atMost := func(p *big.Float) *big.Float {
		sum := number(0)
		q := number(0).Sub(number(1), p)
		for k := range lost + 1 {
			choose := number(0).SetInt(new(big.Int).Binomial(int64(n), int64(k)))
			sum.Add(sum, choose.Mul(choose, number(0).Mul(power(p, k), power(q, n-k))))
		}
		return sum
	}
	low, high := number(0), number(1)
	for range 60 {
		middle := number(0).Add(low, high)
		middle.Quo(middle, number(2))
		if atMost(middle).Cmp(number(0.05)) > 0 {
			low = middle
		} else {
			high = middle
		}
	}
	answer, _ := high.Float64()
	return answer
}

func TestUpperBound(t *testing.T) {
	// From tables, to four digits.
	for _, c := range []struct {
		lost, n uint32
		want    float64
	}{{0, 1, 0.95}, {0, 10, 0.2589}, {0, 100, 0.0295}, {1, 10, 0.3942}, {2, 20, 0.2826}, {10, 100, 0.1637}, {5, 10, 0.7776}} {
		if got := upperBound(c.lost, c.n); math.Abs(got-c.want) > 0.00005 {
			t.Errorf("%d of %d: %.5f, want %.4f", c.lost, c.n, got, c.want)
		}
	}
	for _, n := range []int{1, 2, 3, 10, 20, 100, 300} {
		for _, lost := range []int{0, 1, 2, n / 10, n / 2, n - 1} {
			if lost < 0 || lost >= n {
				continue
			}
			if got, want := upperBound(uint32(lost), uint32(n)), exactUpperBound(lost, n); math.Abs(got-want) > 1e-9 {
				t.Errorf("%d of %d: %.12f, want %.12f", lost, n, got, want)
			}
		}
	}
	for _, n := range []uint32{1, 7, 1_000_000, MaxCount} {
		if got := upperBound(n, n); got != 1 {
			t.Errorf("all of %d: %v", n, got)
		}
	}
}

// For many rounds it is near what the normal and the Poisson distribution say, and it grows with what is lost.
func TestUpperBoundOfMany(t *testing.T) {
	const n = 1_000_000
	if got, want := upperBound(n/2, n), 0.5+1.6449*math.Sqrt(0.25/n); math.Abs(got-want) > 1e-6 {
		t.Errorf("half of a million: %v, want about %v", got, want)
	}
	// 4.7439 is the mean of a Poisson distribution that is at most 1 with 5 %.
	if got, want := upperBound(1, MaxCount), 4.7439/float64(MaxCount); math.Abs(got-want) > want*1e-4 {
		t.Errorf("1 of a hundred million: %v, want %v", got, want)
	}
	if got, want := upperBound(0, MaxCount), 2.9957/float64(MaxCount); math.Abs(got-want) > want*1e-4 {
		t.Errorf("0 of a hundred million: %v, want %v", got, want)
	}
	last := 0.0
	for lost := uint32(0); lost <= n; lost += 9973 {
		got := upperBound(lost, n)
		if got <= last || got < float64(lost)/n || got > 1 {
			t.Errorf("%d of a million: %v after %v", lost, got, last)
		}
		last = got
	}
}

func TestCoverage(t *testing.T) {
	for _, c := range []struct {
		flows, paths int
		want         float64
	}{
		{0, 1, 0}, {1, 1, 1}, {256, 1, 1}, {1, 2, 0}, {2, 2, 0.5}, {3, 2, 0.75}, {10, 2, 1 - 2.0/1024}, {4, 4, 24.0 / 256},
		{3, 4, 0}, {5, 0, 0}, {5, -1, 0}, {6, 3, 540.0 / 729},
	} {
		if got := Coverage(c.flows, c.paths); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%d flows over %d paths: %v, want %v", c.flows, c.paths, got, c.want)
		}
	}
	// The coupon collector's, by inclusion and exclusion: the sum over k of (-1)^k C(m,k) (1-k/m)^n.
	for _, paths := range []int{2, 4, 8, 16} {
		for _, flows := range []int{16, 64, 78, 256} {
			sum := new(big.Rat)
			for k := range paths + 1 {
				share := big.NewRat(int64(paths-k), int64(paths))
				term := new(big.Rat).SetFrac(new(big.Int).Exp(share.Num(), big.NewInt(int64(flows)), nil), new(big.Int).Exp(share.Denom(), big.NewInt(int64(flows)), nil))
				term.Mul(term, new(big.Rat).SetInt(new(big.Int).Binomial(int64(paths), int64(k))))
				if k%2 == 1 {
					term.Neg(term)
				}
				sum.Add(sum, term)
			}
			want, _ := sum.Float64()
			if got := Coverage(flows, paths); math.Abs(got-want) > 1e-9 {
				t.Errorf("%d flows over %d paths: %v, want %v", flows, paths, got, want)
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	const trials = 20_000
	all := 0
	for range trials {
		taken := uint(0)
		for range 24 {
			taken |= 1 << random.IntN(8)
		}
		if taken == 1<<8-1 {
			all++
		}
	}
	if got, seen := Coverage(24, 8), float64(all)/trials; math.Abs(got-seen) > 0.02 {
		t.Errorf("24 flows over 8 paths: %v, seen %v", got, seen)
	}
}

// someFlows are reports of flows, and their round trips.
type someFlows struct {
	reports []FlowReport
	rtts    []times
}

// honest are flows that lose and take as long as one another, but for chance.
func honest(random *rand.Rand, flows, rounds int, loss float64, spread time.Duration) someFlows {
	f := someFlows{make([]FlowReport, flows), make([]times, flows)}
	for i := range f.reports {
		f.rtts[i].digits = within1Percent
		for range rounds {
			f.reports[i].Sent++
			if random.Float64() < loss {
				f.reports[i].Lost++
				continue
			}
			f.reports[i].Received++
			f.rtts[i].add(time.Millisecond + time.Duration(random.ExpFloat64()*float64(spread)))
		}
	}
	return f
}

// lose has flows lose so many rounds.
func (f someFlows) lose(lost uint32, flows ...int) {
	for _, i := range flows {
		f.reports[i].Lost, f.reports[i].Received = lost, f.reports[i].Sent-lost
		if f.reports[i].Received == 0 {
			f.rtts[i] = times{}
		}
	}
}

// slow has the round trips of a flow take longer.
func (f someFlows) slow(by time.Duration, i int) {
	f.rtts[i] = times{digits: within1Percent}
	for k := range f.reports[i].Received {
		f.rtts[i].add(time.Millisecond + by + time.Duration(k)*time.Microsecond)
	}
}

// marked are the flows that stand out.
func (f someFlows) marked() (loss, rtt []int) {
	for i := range f.reports {
		f.reports[i].RTT = f.rtts[i].distribution()
	}
	markOutliers(f.reports, func(flow int, than time.Duration) uint32 { return f.rtts[flow].longerThan(than) })
	for i, f := range f.reports {
		if f.LossOutlier {
			loss = append(loss, i)
		}
		if f.RTTOutlier {
			rtt = append(rtt, i)
		}
	}
	return loss, rtt
}

// Where no flow is worse than the others, chance makes one stand out in no more cases than it may: neither of loss nor of
// round trips, however few and however wide apart they are.
func TestOutliersAmongHonestFlows(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	const trials = 100
	for _, flows := range []int{4, 16, 64} {
		for _, rounds := range []int{1, 5, 20, 60} {
			for _, spread := range []time.Duration{10 * time.Microsecond, time.Millisecond} {
				for _, loss := range []float64{0, 0.01, 0.2} {
					if flows*rounds > 1000 {
						continue // It takes its time, and shows nothing more.
					}
					lossy, slow := 0, 0
					for range trials {
						l, s := honest(random, flows, rounds, loss, spread).marked()
						lossy, slow = lossy+min(len(l), 1), slow+min(len(s), 1)
					}
					// outlierChance is 1 % of either; with that, more than 6 of a hundred are seen in one of 20,000 cases.
					if lossy > 6 || slow > 6 {
						t.Errorf("%d flows, %d rounds, loss %v, spread %v: one stands out by loss in %d of %d trials, by RTT in %d",
							flows, rounds, loss, spread, lossy, trials, slow)
					}
				}
			}
		}
	}
}

func TestOutliers(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	all := make([]int, 16)
	for i := range all {
		all[i] = i
	}
	for _, c := range []struct {
		name      string
		flows     int
		change    func(f someFlows)
		loss, rtt []int
	}{
		{"one loses", 16, func(f someFlows) { f.lose(20, 5) }, []int{5}, nil},
		{"one loses all", 16, func(f someFlows) { f.lose(100, 3) }, []int{3}, nil},
		{"four lose half", 16, func(f someFlows) { f.lose(50, 1, 5, 9, 13) }, []int{1, 5, 9, 13}, nil},
		{"one is slow", 16, func(f someFlows) { f.slow(2*time.Millisecond, 7) }, nil, []int{7}},
		{"one is a little slow", 16, func(f someFlows) { f.slow(200*time.Microsecond, 7) }, nil, nil},
		{"one is slow and loses", 8, func(f someFlows) { f.lose(30, 0); f.slow(2*time.Millisecond, 0) }, []int{0}, []int{0}},
		{"one lost one", 16, func(f someFlows) { f.lose(1, 2) }, nil, nil},
		{"all lose all", 16, func(f someFlows) { f.lose(100, all...) }, nil, nil},
		{"all lose half", 16, func(f someFlows) { f.lose(50, all...) }, nil, nil},
		{"too few to say", 3, func(f someFlows) { f.lose(90, 1); f.slow(9*time.Millisecond, 0) }, nil, nil},
		{"nothing yet", 16, func(f someFlows) { clear(f.reports); clear(f.rtts) }, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			flows := honest(random, c.flows, 100, 0, 100*time.Microsecond)
			c.change(flows)
			if loss, rtt := flows.marked(); !slices.Equal(loss, c.loss) || !slices.Equal(rtt, c.rtt) {
				t.Errorf("marked for loss %v, for RTT %v, want %v, %v", loss, rtt, c.loss, c.rtt)
			}
		})
	}
}

// TestPoisson: the times between rounds are those of a Poisson process.
func TestPoisson(t *testing.T) {
	const n, interval = 200_000, time.Millisecond
	p := newPacer(Plan{Interval: interval, Pacing: Poisson})
	p.poisson = rand.New(rand.NewPCG(7, 8))
	var sum, squares float64
	longer := make([]int, 6)
	last := time.Duration(0)
	for i := range n {
		now := p.at(last)
		if _, late := p.leave(now); late != 0 {
			t.Fatalf("round %d is late by %v", i, late)
		}
		gap := float64(p.due-now) / float64(interval)
		sum, squares = sum+gap, squares+gap*gap
		for k := range longer {
			if gap > float64(k) {
				longer[k]++
			}
		}
		last = p.due
	}
	mean := sum / n
	deviation := math.Sqrt(squares/n - mean*mean)
	// The deviation of an exponential distribution is its mean; that of these means, 1/sqrt(n), is 0.0022.
	if math.Abs(mean-1) > 0.01 || math.Abs(deviation-1) > 0.02 {
		t.Errorf("the gaps' mean is %.4f, their deviation %.4f, want 1 interval", mean, deviation)
	}
	for k, count := range longer {
		want := math.Exp(-float64(k))
		if got := float64(count) / n; math.Abs(got-want) > 5*math.Sqrt(want*(1-want)/n)+1e-9 {
			t.Errorf("%.4f of the gaps are longer than %d intervals, want %.4f", got, k, want)
		}
	}
}

// Each run has a Poisson process of its own.
func TestPoissonIsNotTheSame(t *testing.T) {
	plan := Plan{Interval: time.Second, Pacing: Poisson}
	a, b := newPacer(plan), newPacer(plan)
	if a.gap() == b.gap() {
		t.Error("two runs have the same times")
	}
}

func TestPauses(t *testing.T) {
	const ms = time.Millisecond
	var p pauses
	p.woke(10*ms, 10*ms+pauseLeast) // on time
	p.woke(20*ms, 25*ms)
	p.woke(30*ms, 60*ms)
	for _, c := range []struct{ from, to, want time.Duration }{
		{0, 100 * ms, 35 * ms}, {0, 20 * ms, 0}, {22 * ms, 23 * ms, ms}, {24 * ms, 31 * ms, 2 * ms}, {60 * ms, 100 * ms, 0},
		{59 * ms, 100 * ms, ms}, {25 * ms, 30 * ms, 0},
	} {
		if got := p.within(c.from, c.to); got != c.want {
			t.Errorf("from %v to %v there are %v of pauses, want %v", c.from, c.to, got, c.want)
		}
	}
	for i := range 10 * maxPauses {
		p.woke(time.Duration(i)*time.Second, time.Duration(i)*time.Second+2*ms)
	}
	if len(p.last) != maxPauses || p.within(0, time.Hour) != 2*maxPauses*ms {
		t.Errorf("%d pauses are remembered, in all %v", len(p.last), p.within(0, time.Hour))
	}
}

func ExampleCoverage() {
	fmt.Printf("%.2f\n", Coverage(78, 16))
	// Output: 0.90
}
