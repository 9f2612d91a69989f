// Package many measures what many endpoints of one engine cost: to create, to hold, and to change one of them. It owns no
// engine and listens only while it measures. The benchmark's echo server calls it.
package many

import (
	"context"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/echod/echod/bench/internal/proc"
	"github.com/echod/echod/daemon/echo"
)

const (
	// changes are made among the endpoints: one is added and removed again.
	changes = 1000
	// idleFor is how long doing nothing is watched: one second, so that the CPU time is a rate.
	idleFor = time.Second
)

// Cost is what was seen. Memory is this process's alone, not the kernel's.
type Cost struct {
	Count     int
	Create    time.Duration // all of them
	Grown     int64         // bytes of resident memory, as left by creating them
	Kept      int64         // bytes of resident memory after a garbage collection that gives back what is free
	IdleCPU   time.Duration // CPU time of one second without traffic
	AddP50    time.Duration
	AddP99    time.Duration
	RemoveP50 time.Duration
	RemoveP99 time.Duration
}

// Measure opens count endpoints of spec, whose port is to be 0. They stay open; closing the engine ends them.
func Measure(engine *echo.Engine, spec echo.Spec, count int) (Cost, error) {
	ctx := context.Background()
	// One before: what the first costs is the process's share, not an endpoint's.
	if _, err := engine.Listen(ctx, spec); err != nil {
		return Cost{}, err
	}
	debug.FreeOSMemory()
	self := os.Getpid()
	before, err := proc.Resident(self)
	if err != nil {
		return Cost{}, err
	}
	cost := Cost{Count: count}
	began := time.Now()
	for range count {
		if _, err := engine.Listen(ctx, spec); err != nil {
			return Cost{}, err
		}
	}
	cost.Create = time.Since(began)
	err = cost.measureHolding(engine, spec, self, before)
	return cost, err
}

// measureHolding measures what there is to see once the endpoints are open.
func (c *Cost) measureHolding(engine *echo.Engine, spec echo.Spec, self int, before int64) error {
	after, err := proc.Resident(self)
	if err != nil {
		return err
	}
	c.Grown = after - before
	debug.FreeOSMemory()
	if after, err = proc.Resident(self); err != nil {
		return err
	}
	c.Kept = after - before

	used, err := proc.CPU(self)
	if err != nil {
		return err
	}
	time.Sleep(idleFor)
	now, err := proc.CPU(self)
	if err != nil {
		return err
	}
	c.IdleCPU = now - used
	return c.measureChanges(engine, spec)
}

func (c *Cost) measureChanges(engine *echo.Engine, spec echo.Spec) error {
	cut, cancel := context.WithCancel(context.Background())
	cancel() // there is nothing to wait for
	var added, removed [changes]time.Duration
	for i := range changes {
		began := time.Now()
		endpoint, err := engine.Listen(context.Background(), spec)
		if err != nil {
			return err
		}
		opened := time.Now()
		if err := endpoint.Close(cut); err != nil {
			return err
		}
		added[i], removed[i] = opened.Sub(began), time.Since(opened)
	}
	slices.Sort(added[:])
	slices.Sort(removed[:])
	c.AddP50, c.AddP99 = added[changes/2], added[changes*99/100]
	c.RemoveP50, c.RemoveP99 = removed[changes/2], removed[changes*99/100]
	return nil
}
