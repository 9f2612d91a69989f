//go:build !unix

package main

import "os"

// upgradeSignals is nil: there is no signal for upgrades.
func upgradeSignals() <-chan os.Signal { return nil }
