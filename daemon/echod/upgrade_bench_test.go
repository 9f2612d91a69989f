//go:build linux

package main

import (
	"testing"
	"time"
)

// BenchmarkUpgrade upgrades a daemon under some load. Besides how long an upgrade takes in all, it tells how long a client
// waited at most; a machine with nothing to spare adds to that what it adds without an upgrade.
func BenchmarkUpgrade(b *testing.B) {
	u := startUpgradable(b)
	tcp, udp := u.create(`{"name": "tcp", "protocol": "TCP"}`), u.create(`{"name": "udp", "protocol": "UDP"}`)
	l := startLoad(b, tcp, udp, loadSize{streams: 20, writes: 10 * time.Millisecond, datagrams: time.Millisecond, connects: 20 * time.Millisecond})
	l.longest.Store(0)
	for b.Loop() {
		u.upgrade()
	}
	l.end()
	b.ReportMetric(float64(l.longest.Load())/float64(time.Millisecond), "max-stall-ms")
}
