//go:build !upgradefault || !linux

package server

// atStep is where a test of upgrades has a process that takes over fail.
func atStep(string) {}

// ownProtocol is the protocol of upgrades that this process says it speaks.
func ownProtocol() int { return upgradeProtocol }
