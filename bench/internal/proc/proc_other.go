//go:build !linux

package proc

import (
	"errors"
	"time"
)

var errNotHere = errors.New("the cost of a process is read from Linux")

// GroupCPU needs Linux.
func GroupCPU(int) (time.Duration, error) { return 0, errNotHere }

// CPU needs Linux.
func CPU(int) (time.Duration, error) { return 0, errNotHere }

// Resident needs Linux.
func Resident(int) (int64, error) { return 0, errNotHere }
