package probe

import (
	"cmp"
	"math"
	"slices"
	"time"
)

const (
	// outlierFlows is how many flows it takes to say that one stands out.
	outlierFlows = 4
	// outlierScore is how many deviations from the median a flow stands out with: the usual 3.5 of the modified z-score
	// (Iglewicz and Hoaglin, 1993).
	outlierScore = 3.5
	// outlierLeast is by what part of the median a flow's round-trip time must differ, at the least: where all flows are alike to
	// the microsecond, a microsecond is no finding.
	outlierLeast = 0.25
	// outlierChance is how unlikely what a flow shows must be, if it is as the others are, for all flows taken together.
	outlierChance = 0.01
)

// markOutliers finds the flows that stand out: a bad member of an ECMP group or a link aggregate takes some of the flows.
// longer answers how many of a flow's round trips are longer than a time.
func markOutliers(flows []FlowReport, longer func(flow int, than time.Duration) uint32) {
	if len(flows) < outlierFlows {
		return
	}
	markSlow(flows, longer)
	markLossy(flows)
}

// markSlow finds the flows whose median round trip is much longer than the median of all flows, and more of whose round
// trips are longer than that than chance has it: the medians of a few round trips lie wide apart.
func markSlow(flows []FlowReport, longer func(flow int, than time.Duration) uint32) {
	var medians []float64
	for _, f := range flows {
		if f.RTT != nil {
			medians = append(medians, float64(f.RTT.P50))
		}
	}
	if len(medians) < outlierFlows {
		return
	}
	middle := median(medians)
	for i := range medians {
		medians[i] = math.Abs(medians[i] - middle)
	}
	// 1.4826 makes the median deviation of a normal distribution its standard deviation.
	deviation := 1.4826 * median(medians)
	limit := time.Duration(middle + max(outlierScore*deviation, outlierLeast*middle))
	for i, f := range flows {
		if f.RTT == nil || f.RTT.P50 <= limit {
			continue
		}
		// Of a flow like the others, half are longer (the sign test).
		n := longer(i, time.Duration(middle))
		flows[i].RTTOutlier = 2*n > f.RTT.Count && atLeast(n, f.RTT.Count, 0.5) <= outlierChance/float64(len(flows))
	}
}

// failed counts the rounds of a flow that have ended without a right reply in time.
func (f FlowReport) failed() uint32 { return f.Lost + f.Corrupted + f.Late }

// ended counts the rounds of a flow that have ended.
func (f FlowReport) ended() uint32 { return f.Received + f.failed() }

// markLossy finds the flows more of whose rounds failed than chance has it if all flows were alike: those that are worst are taken
// out until the rest is alike.
func markLossy(flows []FlowReport) {
	order := make([]int, len(flows))
	for i := range order {
		order[i] = i
	}
	share := func(f FlowReport) float64 { return float64(f.failed()) / float64(max(f.ended(), 1)) }
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(share(flows[b]), share(flows[a])) })
	for at, i := range order[:len(order)/2] {
		var failed, ended uint32
		for _, other := range order[at+1:] {
			failed += flows[other].failed()
			ended += flows[other].ended()
		}
		f := &flows[i]
		if f.failed() == 0 || ended == 0 {
			return
		}
		// The others' share is at least what one more failed round of theirs would make it, so that none is not never.
		p := min(float64(failed+1)/float64(ended+1), 1-1e-9)
		if share(*f) <= p || atLeast(f.failed(), f.ended(), p) > outlierChance/float64(len(flows)) {
			return
		}
		f.LossOutlier = true
	}
}

// median of at least one value; it sorts them.
func median(values []float64) float64 {
	slices.Sort(values)
	half := len(values) / 2
	if len(values)%2 == 1 {
		return values[half]
	}
	return (values[half-1] + values[half]) / 2
}
