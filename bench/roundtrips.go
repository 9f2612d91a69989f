//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// roundTrips is what a client saw in one turn, in seconds. Each slice is sorted, and empty when the client does not tell.
type roundTrips struct {
	network     []float64 // as the kernel saw them
	application []float64 // as the client's process saw them
	timer       []float64 // how far from its time a round trip left
	sent        int
	numbered    map[int]float64 // as the kernel saw them, by their number from 0
	twice       twice
}

// twice is the round trips that both the client and a capture of the same packets have timed, in seconds. Each slice is
// sorted.
type twice struct {
	client  []float64 // by what the client's kernel told it
	capture []float64
	apart   []float64 // how far the two are apart, for each round trip
}

// compare finds the round trips that were captured, too.
func (r *roundTrips) compare(captured map[int]time.Duration) {
	for number, own := range r.numbered {
		if took, ok := captured[number]; ok {
			r.twice.client = append(r.twice.client, own)
			r.twice.capture = append(r.twice.capture, took.Seconds())
			r.twice.apart = append(r.twice.apart, math.Abs(own-took.Seconds()))
		}
	}
	slices.Sort(r.twice.client)
	slices.Sort(r.twice.capture)
	slices.Sort(r.twice.apart)
}

// parseClient reads what our own clients print: a line for each round trip that came back, and how many were sent. The
// first skip round trips are left out.
func parseClient(text string, skip int) (roundTrips, error) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	sent, found := strings.CutPrefix(lines[len(lines)-1], "sent ")
	if !found {
		return roundTrips{}, fmt.Errorf("the client ended with %q instead of how many it sent", lines[len(lines)-1])
	}
	count, err := strconv.Atoi(sent)
	if err != nil {
		return roundTrips{}, err
	}
	r := roundTrips{sent: max(count-skip, 0), numbered: map[int]float64{}}
	for _, line := range lines[:len(lines)-1] {
		if err := r.add(line, skip); err != nil {
			return roundTrips{}, fmt.Errorf("the client said %q: %w", line, err)
		}
	}
	return r.sorted()
}

func (r *roundTrips) add(line string, skip int) error {
	words := strings.Fields(line)
	if len(words) != 4 {
		return errors.New("want four numbers")
	}
	number, err := strconv.Atoi(words[0])
	if err != nil || number < skip {
		return err
	}
	for i, to := range []*[]float64{&r.network, &r.application, &r.timer} {
		word := words[i+1]
		if i == 0 && word == unknown {
			continue
		}
		nanos, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return err
		}
		seconds := float64(nanos) / 1e9
		switch to {
		case &r.network:
			r.numbered[number] = seconds
		case &r.timer:
			seconds = math.Abs(seconds)
		}
		*to = append(*to, seconds)
	}
	return nil
}

func (r roundTrips) sorted() (roundTrips, error) {
	if len(r.application) == 0 {
		return roundTrips{}, errors.New("nothing came back")
	}
	slices.Sort(r.network)
	slices.Sort(r.application)
	slices.Sort(r.timer)
	return r, nil
}

// irttAnswer is what we read of irtt's JSON. Its times are in ns.
type irttAnswer struct {
	Stats struct {
		Start struct{ Monotonic int64 } `json:"start_time"`
	}
	RoundTrips []struct {
		Timestamps struct {
			Client struct{ Send struct{ Monotonic int64 } }
		}
		Delay struct{ RTT int64 }
		Lost  string
	} `json:"round_trips"`
}

// parseIrtt reads irtt's JSON. The round trips of the first skip intervals are left out. irtt passes times over that it is
// late for, and its report does not say for which time a packet was: it counts for the nearest.
func parseIrtt(text string, skip int, interval time.Duration) (roundTrips, error) {
	var answer irttAnswer
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return roundTrips{}, fmt.Errorf("cannot read irtt's JSON: %w", err)
	}
	var r roundTrips
	for _, trip := range answer.RoundTrips {
		left := float64(trip.Timestamps.Client.Send.Monotonic - answer.Stats.Start.Monotonic)
		if left < float64(skip)*float64(interval) {
			continue
		}
		r.sent++
		if trip.Lost != "false" {
			continue
		}
		r.application = append(r.application, float64(trip.Delay.RTT)/1e9)
		r.timer = append(r.timer, math.Abs(math.Remainder(left, float64(interval)))/1e9)
	}
	return r.sorted()
}

// percentile of sorted values; false when there are none.
func percentile(sorted []float64, percent int) (float64, bool) {
	if len(sorted) == 0 {
		return 0, false
	}
	return sorted[(len(sorted)-1)*percent/100], true
}
