//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/echod/echod/bench/internal/load"
)

// What is compared of a sample; false where it was not measured.

func (s sample) rate() (float64, bool) {
	return float64(s.Echoes) / s.Elapsed.Seconds(), s.err == nil && s.Echoes > 0
}

func (s sample) bytesRate() (float64, bool) {
	return float64(s.Bytes) / s.Elapsed.Seconds(), s.err == nil && s.Bytes > 0
}

func (s sample) cpuPerEcho() (float64, bool) {
	if s.err != nil || s.CPU == nil || s.Echoes == 0 {
		return 0, false
	}
	return s.CPU.Seconds() / float64(s.Echoes), true
}

func (s sample) cpuPerMiB() (float64, bool) {
	if s.err != nil || s.CPU == nil || s.Bytes == 0 {
		return 0, false
	}
	return s.CPU.Seconds() / float64(s.Bytes) * (1 << 20), true
}

func (s sample) p50() (float64, bool) {
	if s.err != nil || s.P50 == nil {
		return 0, false
	}
	return s.P50.Seconds(), true
}

func (s sample) p99() (float64, bool) {
	if s.err != nil || s.P99 == nil {
		return 0, false
	}
	return s.P99.Seconds(), true
}

// column is one thing that a table shows of each server, and, if so, its ratio ours / theirs.
type column struct {
	title  string
	of     func(sample) (float64, bool)
	format func(float64) string
	ratio  bool
}

func columnsOf(kind load.Kind) []column {
	rate := column{"rate", sample.rate, formatRate, true}
	cpu := column{"CPU/echo", sample.cpuPerEcho, formatSeconds, true}
	switch kind {
	case load.Bulk:
		return []column{{"rate", sample.bytesRate, formatBits, true}, {"CPU/MiB", sample.cpuPerMiB, formatSeconds, true}}
	case load.Datagrams, load.Trains:
		return []column{rate, cpu}
	default:
		return []column{rate, cpu, {"p50", sample.p50, formatSeconds, false}, {"p99", sample.p99, formatSeconds, true}}
	}
}

// tableOf shows what a case came to: medians, and ratios paired by round.
func tableOf(c Case, all []*measured, s settings) Table {
	columns := columnsOf(c.Load.Kind)
	if c.Load.Kind == load.PingPong && c.Load.Depth > 1 {
		columns = columns[:2] // no round trips are timed
	}
	table := Table{Title: c.Name + ": " + c.Title, Header: []string{"server"}}
	for _, k := range columns {
		table.Header = append(table.Header, k.title)
		if k.ratio {
			table.Header = append(table.Header, ours+"/it")
		}
	}
	own := ownSamples(all)
	for _, m := range all {
		if m.missing != nil {
			table.Notes = append(table.Notes, fmt.Sprintf("%s was not measured: %v", m.server.Name, m.missing))
			continue
		}
		row := []string{m.server.Name}
		for _, k := range columns {
			row = append(row, k.median(m.samples))
			if k.ratio && m.server.Name == ours {
				row = append(row, unknown)
			} else if k.ratio {
				row = append(row, formatRatio(ratios(own, m.samples, k.of)))
			}
		}
		table.Rows = append(table.Rows, row)
		table.Notes = append(table.Notes, troubles(m)...)
	}
	if c.Load.Kind == load.Bulk {
		table.Notes = append(table.Notes, bestNote(c, all)...)
	}
	if s.within > 0 {
		table.Notes = append(table.Notes, roundsNote(c, all, s.within))
	}
	return table
}

func ownSamples(all []*measured) []sample {
	for _, m := range all {
		if m.server.Name == ours {
			return m.samples
		}
	}
	return nil
}

// ratios divides ours by theirs, round by round. Rounds that lack one of both, be it for a failure or as it had no turn, or
// that have nothing to divide by, count for neither.
func ratios(ours, theirs []sample, of func(sample) (float64, bool)) []float64 {
	var all []float64
	for i := range min(len(ours), len(theirs)) {
		a, okA := of(ours[i])
		b, okB := of(theirs[i])
		if okA && okB && b > 0 {
			all = append(all, a/b)
		}
	}
	return all
}

func (k column) median(samples []sample) string {
	values := valuesOf(samples, k.of)
	if len(values) == 0 {
		return unknown
	}
	return k.format(median(slices.Sorted(slices.Values(values))))
}

// valuesOf is what was measured in samples.
func valuesOf(samples []sample, of func(sample) (float64, bool)) []float64 {
	var values []float64
	for _, s := range samples {
		if value, ok := of(s); ok {
			values = append(values, value)
		}
	}
	return values
}

// troubles says which turns failed, and how many datagrams were lost in the others.
func troubles(m *measured) []string {
	var notes, reasons []string
	failed := 0
	var lost, echoes uint64
	for _, s := range m.samples {
		if s.err == nil {
			lost += s.Lost
			echoes += s.Echoes
			continue
		}
		failed++
		if !slices.Contains(reasons, s.err.Error()) {
			reasons = append(reasons, s.err.Error())
		}
	}
	if failed > 0 {
		notes = append(notes, fmt.Sprintf("%s failed in %d of %d rounds: %s",
			m.server.Name, failed, len(m.samples), strings.Join(reasons, "; ")))
	}
	if lost > 0 {
		notes = append(notes, fmt.Sprintf("%s: %d datagrams lost, %d echoed", m.server.Name, lost, echoes))
	}
	return notes
}

// failures are the errors of our own server: they, and not speed, are what the exit code tells.
func failures(c Case, all []*measured) []error {
	var found []error
	for _, m := range all {
		if m.server.Name != ours {
			continue
		}
		if m.missing != nil {
			found = append(found, fmt.Errorf("%s: %w", c.Name, m.missing))
		}
		for round, s := range m.samples {
			if s.err != nil {
				found = append(found, fmt.Errorf("%s, round %d: %w", c.Name, round+1, s.err))
			}
		}
	}
	return found
}
