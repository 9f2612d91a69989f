// Package many measures what many endpoints of one engine cost: to create, to hold, to change one of them, and to read the
// counters of all. It owns no engine and listens only while it measures. The benchmark's echo server calls it.
package many

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/echod/echod/bench/internal/proc"
	"github.com/echod/echod/daemon/echo"
)

const (
	// changes are made among the endpoints: one is added and removed again.
	changes = 1000
	// readings of all counters are made; an odd number has one in the middle.
	readings = 11
	// The ports that are tried, below those that Linux gives out by itself. Endpoints on port 0 would measure how the
	// kernel looks for a free one, which it does ever longer from some thousands on.
	firstPort, lastPort = 10000, 32767
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
	ReadAll   time.Duration // of the counters of all of them, one after the other; a median
}

// Measure opens count endpoints of spec, whose Listen is an address without a port, on ports from 10000 up, skipping
// those that are taken. They stay open; closing the engine ends them.
func Measure(engine *echo.Engine, spec echo.Spec, count int) (Cost, error) {
	m := &measurement{engine: engine, spec: spec, next: firstPort, self: os.Getpid(), cost: Cost{Count: count}}
	// One before: what the first costs is the process's share, not an endpoint's.
	first, err := m.open()
	if err != nil {
		return Cost{}, err
	}
	m.endpoints = slices.Repeat([]*echo.Endpoint{first}, count) // written to, so that it is resident before
	debug.FreeOSMemory()
	for _, step := range []func() error{m.create, m.idle, m.change, m.read} {
		if err := step(); err != nil {
			return Cost{}, err
		}
	}
	return m.cost, nil
}

type measurement struct {
	engine    *echo.Engine
	spec      echo.Spec
	next      int // port to try
	self      int
	endpoints []*echo.Endpoint
	cost      Cost
}

// open opens an endpoint on the next port that is free.
func (m *measurement) open() (*echo.Endpoint, error) {
	for m.next <= lastPort {
		spec := m.spec
		spec.Listen = net.JoinHostPort(m.spec.Listen, strconv.Itoa(m.next))
		m.next++
		endpoint, err := m.engine.Listen(context.Background(), spec)
		if !errors.Is(err, echo.ErrAddressInUse) {
			return endpoint, err
		}
	}
	return nil, fmt.Errorf("no port of %s from %d to %d is free", m.spec.Listen, firstPort, lastPort)
}

// create opens them all.
func (m *measurement) create() error {
	before, err := proc.Resident(m.self)
	if err != nil {
		return err
	}
	began := time.Now()
	for i := range m.endpoints {
		if m.endpoints[i], err = m.open(); err != nil {
			return err
		}
	}
	m.cost.Create = time.Since(began)
	grown, err := proc.Resident(m.self)
	if err != nil {
		return err
	}
	debug.FreeOSMemory()
	kept, err := proc.Resident(m.self)
	m.cost.Grown, m.cost.Kept = grown-before, kept-before
	return err
}

// idle watches them doing nothing.
func (m *measurement) idle() error {
	before, err := proc.CPU(m.self)
	if err != nil {
		return err
	}
	time.Sleep(idleFor)
	after, err := proc.CPU(m.self)
	m.cost.IdleCPU = after - before
	return err
}

// change adds one and removes it, again and again, on the same port.
func (m *measurement) change() error {
	cut, cancel := context.WithCancel(context.Background())
	cancel() // there is nothing to wait for
	var added, removed [changes]time.Duration
	for i := range changes {
		port := m.next
		began := time.Now()
		endpoint, err := m.open()
		if err != nil {
			return err
		}
		opened := time.Now()
		if err := endpoint.Close(cut); err != nil {
			return err
		}
		added[i], removed[i] = opened.Sub(began), time.Since(opened)
		m.next = port
	}
	slices.Sort(added[:])
	slices.Sort(removed[:])
	m.cost.AddP50, m.cost.AddP99 = added[changes/2], added[changes*99/100]
	m.cost.RemoveP50, m.cost.RemoveP99 = removed[changes/2], removed[changes*99/100]
	return nil
}

// read reads the counters of all, again and again. It is the last step, as what it allocates is garbage to the others.
func (m *measurement) read() error {
	var took [readings]time.Duration
	for i := range took {
		began := time.Now()
		for _, endpoint := range m.endpoints {
			_ = endpoint.Stats()
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took[:])
	m.cost.ReadAll = took[readings/2]
	return nil
}
