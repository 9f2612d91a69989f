//go:build linux

// Package torture_test runs a real echod under load while everything is done to it that a machine may do: it is killed at
// random instants and between two writes, its power is cut, its disk is full or flips bits, its ports are taken, its binary is
// replaced by good and bad ones. What clients were told has to be so afterwards.
//
// A run is a row of phases. In a safety phase faults come while clients change endpoints over gRPC and REST and others use
// them; after each fault all is compared with a model of what was acknowledged. In the liveness phase that follows there are
// no faults, and everything must come good within a bound.
//
// The faults, their order and parameters, and what clients ask for come from the seed alone, so a run can be repeated:
//
//	go test ./daemon/torture -run '^TestTorture$' -v -seed 42 -duration 10m
//
// What comes of them also depends on instants that no seed has, so a failure may need some repeats. It tells the seed, the
// commit and all faults so far, and leaves the history of what was asked and answered in a directory that it names.
package torture_test
