package main

import (
	"fmt"
	"time"
)

// unknown stands for what was not measured. A failure is never printed as 0.
const unknown = "-"

// formatRate writes what is done a second: "96.1k/s".
func formatRate(perSecond float64) string {
	switch {
	case perSecond >= 1e6:
		return fmt.Sprintf("%.2fM/s", perSecond/1e6)
	case perSecond >= 1e4:
		return fmt.Sprintf("%.1fk/s", perSecond/1e3)
	default:
		return fmt.Sprintf("%.0f/s", perSecond)
	}
}

// formatBits writes bytes a second as "15.1 Gbit/s".
func formatBits(bytesPerSecond float64) string {
	return fmt.Sprintf("%.2f Gbit/s", bytesPerSecond*8/1e9)
}

// formatSeconds writes a duration with three digits: "9.14 µs".
func formatSeconds(seconds float64) string {
	switch {
	case seconds < 1e-6:
		return fmt.Sprintf("%.0f ns", seconds*1e9)
	case seconds < 1e-3:
		return fmt.Sprintf("%.3g µs", seconds*1e6)
	case seconds < 1:
		return fmt.Sprintf("%.3g ms", seconds*1e3)
	default:
		return fmt.Sprintf("%.3g s", seconds)
	}
}

func formatDuration(d time.Duration) string { return formatSeconds(d.Seconds()) }

func formatKiB(bytes float64) string { return fmt.Sprintf("%.2f KiB", bytes/1024) }

// formatRatio writes "0.95 [0.91-0.99]".
func formatRatio(values []float64) string {
	if len(values) == 0 {
		return unknown
	}
	return formatEstimate(estimate(values))
}

func formatEstimate(e Estimate) string {
	return fmt.Sprintf("%.2f [%.2f-%.2f]", e.Median, e.Low, e.High)
}
