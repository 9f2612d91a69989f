package render

import (
	"fmt"
	"math"
	"strconv"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// Progress is a probe that is followed by aggregates, as one line that changes. The zero value is ready.
type Progress struct {
	sent, received, lost uint64
	until                time.Duration
}

// Add counts an aggregate and answers the line: all so far, then the round trips and the rate of the interval. The line
// is at most width columns; 0 cuts nothing. It holds no text of others.
func (p *Progress) Add(a *echov1.Aggregate, width int) string {
	p.sent += uint64(a.GetSent())
	p.received += uint64(a.GetReceived())
	// A round that was given up for lost in an interval before is late in this one.
	p.lost += uint64(a.GetLost())
	p.lost -= min(uint64(a.GetLate()), p.lost)
	took := a.GetUntil().AsDuration() - p.until
	p.until = a.GetUntil().AsDuration()

	line := seconds(p.until) + fmt.Sprintf(" s: %d sent, %d received, %d lost", p.sent, p.received, p.lost)
	if p.lost > 0 && p.sent > 0 {
		line += " (" + percent(p.lost, p.sent) + " %)"
	}
	if rtt := a.GetRtt(); rtt != nil {
		line += ", p50/p99 " + milliseconds(rtt.GetP50()) + "/" + milliseconds(rtt.GetP99()) + " ms"
	}
	if took > 0 {
		line += ", " + strconv.FormatFloat(math.Round(float64(a.GetSent())/took.Seconds()), 'f', 0, 64) + "/s"
	}
	if width > 0 && len(line) > width {
		line = line[:width]
	}
	return line
}

// aggregateLine writes what happened in one interval, as sampleLine does a round trip.
func aggregateLine(a *echov1.Aggregate) string {
	line := fmt.Sprintf("until=%s s: %d sent, %d received, %d lost", seconds(a.GetUntil().AsDuration()), a.GetSent(), a.GetReceived(), a.GetLost())
	for _, c := range []struct {
		count uint32
		what  string
	}{{a.GetCorrupted(), "corrupted"}, {a.GetLate(), "late"}, {a.GetDuplicated(), "duplicated"}} {
		if c.count > 0 {
			line += ", " + number(c.count) + " " + c.what
		}
	}
	if d := a.GetRtt(); d != nil {
		line += ", rtt min/p50/p99/max = " + milliseconds(d.GetMin()) + "/" + milliseconds(d.GetP50()) + "/" + milliseconds(d.GetP99()) + "/" + milliseconds(d.GetMax()) + " ms"
	}
	return line
}

// seconds writes a time with one digit, "0.8".
func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) }
