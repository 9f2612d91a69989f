package render

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

const (
	// maxBars is how many rows a histogram has at most; more buckets are drawn together.
	maxBars = 20
	// foldFrom is how many empty rows in a row are drawn as one.
	foldFrom = 4
	// plainWidth is how wide a histogram is where there is no terminal, leastBar its widest bar where there is little room.
	plainWidth = 80
	leastBar   = 8
	// longestBar is where rows end, for a daemon that sends nonsense; no round trip is that long.
	longestBar = 24 * time.Hour
)

// barEnds are ways to cut a decade, finest first, in tenths of it. The first is that of the daemon's buckets; each
// that follows has fewer ends, all of them in the one before it.
var barEnds = [][]time.Duration{
	{10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100},
	{10, 15, 25, 40, 60, 100},
	{10, 25, 60, 100},
	{10, 100},
}

// bar is one row of a histogram: so many times up to upper, above the row before it.
type bar struct {
	upper time.Duration
	count uint32
}

// histogramLines draws where the times of a distribution lie; nothing where there is only one, or no buckets to draw.
func histogramLines(what string, d *echov1.Distribution, o Options) []string {
	if d.GetCount() < 2 || len(d.GetBuckets()) == 0 {
		return nil
	}
	bars := barsOf(d.GetBuckets())
	if len(bars) == 0 {
		return nil
	}
	labels, counts, shares := []string{}, []string{}, []string{}
	digits := endDigits(bars)
	for _, b := range bars {
		labels = append(labels, strconv.FormatFloat(float64(b.upper)/float64(time.Millisecond), 'f', digits, 64)+" ms")
		counts = append(counts, number(b.count))
		shares = append(shares, shareText(b.count, d.GetCount()))
	}
	widest := func(texts []string) (n int) {
		for _, t := range texts {
			n = max(n, utf8.RuneCountInString(t))
		}
		return n
	}
	labelWidth, countWidth, shareWidth := widest(labels), widest(counts), widest(shares)
	width := o.Width
	if width <= 0 {
		width = plainWidth
	}
	// Two columns stay free at the left, two at each side of the count, and the last one: a full line may wrap.
	barWidth := max(width-2-labelWidth-2-2-countWidth-2-shareWidth-1, leastBar)
	most := slices.MaxFunc(bars, func(a, b bar) int { return int(int64(a.count) - int64(b.count)) }).count
	lines := []string{what + ", up to:"}
	for i := 0; i < len(bars); i++ {
		if empty := emptyFrom(bars[i:]); empty >= foldFrom {
			lines = append(lines, fmt.Sprintf("  %*s", labelWidth, "..."))
			i += empty - 1
			continue
		}
		drawn := drawBar(bars[i].count, most, barWidth, o.Unicode)
		fill := strings.Repeat(" ", barWidth-utf8.RuneCountInString(drawn))
		lines = append(lines, fmt.Sprintf("  %*s  %s%s  %*s  %*s", labelWidth, labels[i], drawn, fill, countWidth, counts[i], shareWidth, shares[i]))
	}
	return lines
}

// barsOf puts buckets together until there are few enough rows.
func barsOf(buckets []*echov1.Bucket) (bars []bar) {
	for _, ends := range barEnds {
		if bars = joined(buckets, ends); rowsOf(bars) <= maxBars {
			break
		}
	}
	return bars
}

// joined puts each bucket into the row that its upper end lies in; rows between the first and the last are all there.
func joined(buckets []*echov1.Bucket, ends []time.Duration) (bars []bar) {
	for _, b := range buckets {
		if b.GetCount() == 0 {
			continue
		}
		upper := rowEnd(min(b.GetUpper().AsDuration(), longestBar), ends)
		for len(bars) > 0 && bars[len(bars)-1].upper < upper {
			bars = append(bars, bar{upper: rowEnd(bars[len(bars)-1].upper+1, ends)})
		}
		if len(bars) == 0 {
			bars = append(bars, bar{upper: upper})
		}
		bars[len(bars)-1].count += b.GetCount()
	}
	return bars
}

// rowEnd is the end of the row that d lies in.
func rowEnd(d time.Duration, ends []time.Duration) time.Duration {
	decade := time.Duration(1)
	for decade < d/10 {
		decade *= 10
	}
	for ; ; decade *= 10 {
		for _, tenths := range ends {
			if end := decade * tenths / 10; end >= d {
				return end
			}
		}
	}
}

// rowsOf is how many rows are drawn, empty stretches folded.
func rowsOf(bars []bar) (rows int) {
	for i := 0; i < len(bars); i++ {
		if empty := emptyFrom(bars[i:]); empty >= foldFrom {
			i += empty - 1
		}
		rows++
	}
	return rows
}

// emptyFrom is how many rows at the beginning are empty.
func emptyFrom(bars []bar) int {
	n := slices.IndexFunc(bars, func(b bar) bool { return b.count > 0 })
	if n < 0 {
		return len(bars)
	}
	return n
}

// endDigits is how many digits it takes behind the point to write every row's end exactly, in milliseconds.
func endDigits(bars []bar) int {
	digits := 0
	for _, b := range bars {
		for unit := time.Millisecond; unit > 1 && b.upper%unit != 0; unit /= 10 {
			digits = max(digits, len(strconv.Itoa(int(time.Millisecond/unit))))
		}
	}
	return digits
}

// eighths are the blocks that fill so many eighths of a column.
var eighths = []rune("▏▎▍▌▋▊▉")

// drawBar draws a count; what there is of at all has a mark.
func drawBar(count, most uint32, width int, unicode bool) string {
	if count == 0 {
		return ""
	}
	if !unicode {
		return strings.Repeat("#", max(int(uint64(count)*uint64(width)/uint64(most)), 1))
	}
	parts := max(int(uint64(count)*uint64(width)*8/uint64(most)), 1)
	drawn := strings.Repeat("█", parts/8)
	if rest := parts % 8; rest > 0 {
		drawn += string(eighths[rest-1])
	}
	return drawn
}

// shareText is a part of a whole with one digit.
func shareText(part, whole uint32) string { return shareOf(float64(part) / float64(whole)) }

// shareOf writes a share, 0 to 1, with one digit, and never as 0 or 100 % what is neither.
func shareOf(share float64) string {
	switch {
	case share > 0 && share < 0.001:
		return "< 0.1 %"
	case share < 1 && share > 0.999:
		return "> 99.9 %"
	default:
		return strconv.FormatFloat(100*share, 'f', 1, 64) + " %"
	}
}
