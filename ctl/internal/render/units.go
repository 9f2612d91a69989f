package render

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// milliseconds writes a time as ping does, "0.071".
func milliseconds(d *durationpb.Duration) string {
	return strconv.FormatFloat(float64(d.AsDuration())/float64(time.Millisecond), 'f', 3, 64)
}

// span writes a duration as people type it: "10m", not "10m0s".
func span(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// age writes how long ago t was, in its largest unit. A clock ahead of ours makes an age of 0s.
func age(now time.Time, t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	d := max(now.Sub(t.AsTime()), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
}

// until writes in how long t is, in its two largest units: "in 9m58s", "in 2h30m"; what is due is "now".
func until(now time.Time, t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	d := (t.AsTime().Sub(now) + time.Second - 1).Truncate(time.Second) // what has 0.1 s left is not due yet
	switch {
	case d <= 0:
		return "now"
	case d < time.Hour:
		return "in " + span(d)
	case d < 24*time.Hour:
		return "in " + span(d.Truncate(time.Minute))
	default:
		days, hours := d/(24*time.Hour), d%(24*time.Hour)/time.Hour
		if hours == 0 {
			return fmt.Sprintf("in %dd", days)
		}
		return fmt.Sprintf("in %dd%dh", days, hours)
	}
}

// moment writes a time with its age, or what instead when there is none.
func moment(now time.Time, t *timestamppb.Timestamp, instead string) string {
	if t == nil {
		return instead
	}
	return fmt.Sprintf("%s (%s ago)", t.AsTime().UTC().Format(time.RFC3339), age(now, t))
}

func number[T uint32 | uint64](n T) string { return strconv.FormatUint(uint64(n), 10) }
