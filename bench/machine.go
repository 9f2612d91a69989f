//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// describeMachine returns what numbers are worth nothing without, a line each.
func describeMachine(ctx context.Context, args []string, s settings) []string {
	version := func(name string, args ...string) string {
		if _, err := exec.LookPath(name); err != nil {
			return "none"
		}
		line, err := output(ctx, "", name, args...)
		if err != nil {
			return "unknown"
		}
		return line
	}
	return []string{
		"command:  " + strings.Join(append([]string{"go run ./bench"}, args...), " "),
		"date:     " + time.Now().UTC().Format("2006-01-02 15:04 MST"),
		fmt.Sprintf("machine:  %d x %s, %s, load average before %s", runtime.NumCPU(), processor(), memory(), loadAverage()),
		"kernel:   " + kernel(),
		"Go:       " + runtime.Version() + " " + runtime.GOARCH,
		"C:        " + version("gcc", "--version"),
		"Python:   " + version("python3", "--version"),
		fmt.Sprintf("method:   %s in alternating order, each turn %v after %v of warm-up, not pinned",
			s.describeRounds(), s.trial, s.warm),
		"ratios:   paired by round, median [95 % interval by bootstrap; the range if there are less than 3 rounds]",
	}
}

// describeRounds says how many rounds a case has.
func (s settings) describeRounds() string {
	if s.within == 0 {
		return fmt.Sprintf("%d rounds", s.rounds)
	}
	return fmt.Sprintf("%d rounds, and of echod and the C servers up to %d until the intervals of their rate ratios are "+
		"within %g %%,", s.rounds, s.maxRounds, s.within)
}

func processor() string { return field("/proc/cpuinfo", "model name", "unknown processor") }

func memory() string {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return "unknown memory"
	}
	return fmt.Sprintf("%.0f GiB", float64(info.Totalram)*float64(info.Unit)/(1<<30))
}

// field reads "name : value" from a file of /proc.
func field(path, name, otherwise string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return otherwise
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return otherwise
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	average, _, _ := strings.Cut(string(text), " ")
	return average
}

func kernel() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:])
}
