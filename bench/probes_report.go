//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
)

// The bound of what a probe may be off: so much, or so many parts of what C says, whichever is more.
const (
	offBySeconds = 5e-6
	offByPart    = 0.10
)

// view is one of the ways to time a round trip.
type view struct {
	title string
	turns [][]float64 // of each round, sorted; empty where it failed
	of    *probed
}

// views of all clients.
func views(all []*probed) (found []view) {
	for _, p := range all {
		if p.missing != nil {
			continue
		}
		network, application := view{title: p.network, of: p}, view{title: p.application, of: p}
		for _, turn := range p.turns {
			network.turns = append(network.turns, turn.network)
			application.turns = append(application.turns, turn.application)
		}
		if p.network != "" {
			found = append(found, network)
		}
		found = append(found, application)
	}
	return found
}

// values are a percentile of each turn that has one.
func (v view) values(percent int) (values []float64) {
	for _, turn := range v.turns {
		if value, ok := percentile(turn, percent); ok {
			values = append(values, value)
		}
	}
	return values
}

// judged is how far a percentile of a view is from that of the reference, paired by round.
type judged struct {
	off   Estimate
	bound float64
}

// judge answers false when no round has both.
func (v view) judge(reference view, percent int) (judged, bool) {
	var offs []float64
	for i := range min(len(v.turns), len(reference.turns)) {
		own, ok := percentile(v.turns[i], percent)
		theirs, alsoOK := percentile(reference.turns[i], percent)
		if ok && alsoOK {
			offs = append(offs, own-theirs)
		}
	}
	if len(offs) == 0 {
		return judged{}, false
	}
	c := median(slices.Sorted(slices.Values(reference.values(percent))))
	return judged{off: estimate(offs), bound: max(offBySeconds, offByPart*c)}, true
}

// within says whether it is within the bound: yes or no where the whole interval says the same, else that it is not known.
func (j judged) within() string {
	switch {
	case -j.bound <= j.off.Low && j.off.High <= j.bound:
		return "yes"
	case j.off.High < -j.bound || j.bound < j.off.Low:
		return "no"
	default:
		return "unclear"
	}
}

func (j judged) String() string {
	return fmt.Sprintf("%+.1f µs [%+.1f, %+.1f]", j.off.Median*1e6, j.off.Low*1e6, j.off.High*1e6)
}

// probeTable shows what a case came to: medians over the rounds, how far the clients are from C's kernel time, paired by
// round, whether that is within the bound, and how far from their time round trips left.
func probeTable(c ProbeCase, all []*probed) Table {
	table := Table{
		Title:  c.Name + ": " + c.Title,
		Header: []string{"timed by", "sent", "p50", "off by", "within", "p99", "off by", "within", "timer p50", "timer p99"},
	}
	shown := views(all)
	reference := view{} // that of C is missing where it has none
	for _, v := range shown {
		if v.of.name == stampClient && v.title == v.of.network {
			reference = v
		}
	}
	for _, v := range shown {
		row := []string{v.title, v.of.share()}
		for _, percent := range []int{50, 99} {
			off, within := unknown, unknown
			if j, ok := v.judge(reference, percent); ok && v.title != reference.title {
				off, within = j.String(), j.within()
			}
			row = append(row, formatMedian(v.values(percent)), off, within)
		}
		table.Rows = append(table.Rows, append(row, v.of.timer(50), v.of.timer(99)))
	}
	for _, v := range shown {
		if v.of.name == ours && v.title == v.of.network {
			table.Notes = append(table.Notes, verdict(v, reference, "C's kernel time"))
		}
	}
	table.Notes = append(table.Notes, fmt.Sprintf("%d rounds", rounds(all)))
	for _, p := range all {
		switch {
		case p.missing != nil:
			table.Notes = append(table.Notes, fmt.Sprintf("%s was not measured: %v", p.name, p.missing))
		case p.wrong != nil:
			table.Notes = append(table.Notes, fmt.Sprintf("%s failed: %v", p.name, p.wrong))
		}
		if p.blind > 0 {
			table.Notes = append(table.Notes, fmt.Sprintf("%s: no capture in %d turns: %v", p.name, p.blind, p.unseen))
		}
	}
	return table
}

// captureTable sets the times that a client had from the kernel beside those that a capture had of the same packets. Timed
// is the share of the round trips that came back of which the client had them, captured the share of those that the capture
// has, too. Of what both have it shows percentiles, in the median over the rounds, how far they are apart, paired by round,
// and whether that is within the bound; the percentile of the round trips of all rounds together; and how far apart the two
// are for a single round trip. It has no rows when nothing was captured.
func captureTable(c ProbeCase, all []*probed) Table {
	table := Table{
		Title: c.Name + ", the same packets: beside a capture of them",
		Header: []string{"timed by", "timed", "captured", "p50", "capture's", "off by", "within", "p99", "capture's", "off by", "within",
			"p99 of all", "capture's", "one trip off, p50", "p99"},
	}
	for _, p := range all {
		own, capture, apart := view{title: p.network, of: p}, view{of: p}, view{of: p}
		came, timed, had := 0, 0, 0
		for _, turn := range p.turns {
			own.turns = append(own.turns, turn.twice.client)
			capture.turns = append(capture.turns, turn.twice.capture)
			apart.turns = append(apart.turns, turn.twice.apart)
			came, timed, had = came+len(turn.application), timed+len(turn.network), had+len(turn.twice.client)
		}
		if had == 0 {
			continue
		}
		row := []string{own.title, formatShare(timed, came), formatShare(had, timed)}
		for _, percent := range []int{50, 99} {
			off, within := unknown, unknown
			if j, ok := own.judge(capture, percent); ok {
				off, within = j.String(), j.within()
			}
			row = append(row, formatMedian(own.values(percent)), formatMedian(capture.values(percent)), off, within)
		}
		row = append(row, own.together(99), capture.together(99), apart.together(50), apart.together(99))
		table.Rows = append(table.Rows, row)
		table.Notes = append(table.Notes, verdict(own, capture, "the capture of the same packets"))
	}
	return table
}

func formatShare(part, whole int) string {
	return fmt.Sprintf("%.1f %%", float64(part)/float64(whole)*100)
}

// together is a percentile of what all turns saw, as if they had been one.
func (v view) together(percent int) string {
	value, ok := percentile(slices.Sorted(slices.Values(slices.Concat(v.turns...))), percent)
	if !ok {
		return unknown
	}
	return formatSeconds(value)
}

// verdict says in words how near a view is to the reference.
func verdict(own, reference view, of string) string {
	said := own.title + ": within max(5 µs, 10 %) of " + of + ":"
	for _, percent := range []int{50, 99} {
		j, ok := own.judge(reference, percent)
		if !ok {
			said += fmt.Sprintf(" p%d unknown;", percent)
			continue
		}
		said += fmt.Sprintf(" p%d %s (%s, bound %s);", percent, j.within(), j, formatSeconds(j.bound))
	}
	return strings.TrimSuffix(said, ";")
}

func formatMedian(values []float64) string {
	if len(values) == 0 {
		return unknown
	}
	return formatSeconds(median(slices.Sorted(slices.Values(values))))
}

// share is how many of the round trips that were to be sent were.
func (p *probed) share() string {
	sent, asked := 0, 0
	for _, turn := range p.turns {
		sent, asked = sent+turn.sent, asked+p.asked
	}
	if asked == 0 {
		return unknown
	}
	return fmt.Sprintf("%.0f %%", float64(sent)/float64(asked)*100)
}

// timer is the median over the rounds of how far from their time round trips left.
func (p *probed) timer(percent int) string {
	v := view{}
	for _, turn := range p.turns {
		v.turns = append(v.turns, turn.timer)
	}
	return formatMedian(v.values(percent))
}

// rounds is how many turns the clients had.
func rounds(all []*probed) int {
	most := 0
	for _, p := range all {
		most = max(most, len(p.turns))
	}
	return most
}
