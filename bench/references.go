//go:build linux

package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// The references of a case are the servers in C that it names: what echod is to come near to. Their ratios decide whether
// a case goes on.

// references are those of all that have a ratio to ours. Who has none after the first rounds fails at them, and more
// rounds would change nothing.
func references(c Case, all []*measured) []*measured {
	var found []*measured
	for _, m := range all {
		if strings.HasPrefix(m.server.Name, "c-") && len(ratios(ownSamples(all), m.samples, c.rate())) > 0 {
			found = append(found, m)
		}
	}
	return found
}

// rate is what the case compares first.
func (c Case) rate() func(sample) (float64, bool) { return columnsOf(c.Load.Kind)[0].of }

// width is half of the widest interval of the references' rate ratios, in percent of the median, and whose it is.
type width struct {
	percent float64 // infinite if there are too few ratios for an interval
	of      string  // empty if there is no reference
}

func widestOf(c Case, all []*measured) width {
	var widest width
	for _, m := range references(c, all) {
		percent := math.Inf(1)
		if e := estimate(ratios(ownSamples(all), m.samples, c.rate())); e.N >= leastForInterval {
			percent = (e.High - e.Low) / 2 / e.Median * 100
		}
		if widest.of == "" || percent > widest.percent {
			widest = width{percent, m.server.Name}
		}
	}
	return widest
}

// roundsNote says how many rounds there were, and what they came to.
func roundsNote(c Case, all []*measured, within float64) string {
	rounds := 0
	for _, m := range all {
		rounds = max(rounds, len(m.samples))
	}
	switch widest := widestOf(c, all); {
	case widest.of == "":
		return fmt.Sprintf("%d rounds; no ratio to a C server to go on for", rounds)
	case math.IsInf(widest.percent, 1):
		return fmt.Sprintf("%d rounds; too few ratios for an interval: %s", rounds, widest.of)
	case widest.percent <= within:
		return fmt.Sprintf("%d rounds; intervals of the C servers' rate ratios within %.1f %%", rounds, widest.percent)
	default:
		return fmt.Sprintf("%d rounds; widest interval %.1f %%: %s", rounds, widest.percent, widest.of)
	}
}

// bestNote compares ours to the C server that was fastest. It is chosen when all is seen, which flatters it a little: of
// several that are equal, it is the one that was lucky.
func bestNote(c Case, all []*measured) []string {
	var best *measured
	fastest := 0.0
	for _, m := range references(c, all) {
		rate := median(slices.Sorted(slices.Values(valuesOf(m.samples, c.rate()))))
		if rate > fastest {
			best, fastest = m, rate
		}
	}
	if best == nil {
		return nil
	}
	columns, own := columnsOf(c.Load.Kind), ownSamples(all)
	return []string{fmt.Sprintf("best of C: %s, %s/it %s, CPU %s", best.server.Name, ours,
		formatRatio(ratios(own, best.samples, columns[0].of)), formatRatio(ratios(own, best.samples, columns[1].of)))}
}
