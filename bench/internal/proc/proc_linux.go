package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ticks a second in which /proc/PID/stat counts; Linux shows user space no other value (USER_HZ).
const ticks = 100

// GroupCPU is the CPU time, user and system, of the process pid, of the processes in the group that it leads, and of the
// children that it has waited for. The latter count in steps of 10 ms, the others in nanoseconds.
func GroupCPU(pid int) (time.Duration, error) {
	total, err := CPU(pid)
	if err != nil {
		return 0, fmt.Errorf("cannot read the CPU time of process %d: %w", pid, err)
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, path := range stats {
		id, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		group, reaped, ok := readStat(path)
		if !ok || group != pid {
			continue // another's, or it ended just now
		}
		if id == pid {
			total += reaped
		} else if used, err := CPU(id); err == nil {
			total += used
		}
	}
	return total, nil
}

// CPU is the CPU time, user and system, of the process pid: all its threads, those that ended included, none of its
// children. It reads one clock (clock_getcpuclockid(3)).
func CPU(pid int) (time.Duration, error) {
	const scheduled = 2 // CPUCLOCK_SCHED
	var at unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &at); err != nil {
		return 0, err
	}
	return time.Duration(at.Nano()), nil
}

// readStat reads the process group and the time of waited-for children from a /proc/PID/stat (proc(5)).
func readStat(path string) (group int, reaped time.Duration, ok bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, false
	}
	// The name, field 2, is in brackets and may hold anything; field 3 follows the last bracket.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 15 {
		return 0, 0, false
	}
	number := func(field int) int64 {
		n, _ := strconv.ParseInt(string(fields[field-3]), 10, 64) // the kernel writes numbers
		return n
	}
	return int(number(5)), time.Duration(number(16)+number(17)) * time.Second / ticks, true
}

// Resident is how much memory the process pid holds, in bytes: its resident set, shared pages included.
func Resident(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, fmt.Errorf("cannot read the memory of process %d: %w", pid, err)
	}
	fields := bytes.Fields(text) // proc(5): size, resident, ... in pages
	if len(fields) < 2 {
		return 0, fmt.Errorf("cannot read the memory of process %d: %q", pid, text)
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("cannot read the memory of process %d: %w", pid, err)
	}
	return pages * int64(os.Getpagesize()), nil
}
