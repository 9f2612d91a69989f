package server

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/budget"
	"github.com/echod/echod/daemon/internal/targets"
)

// ProbeLimits are how much probes may take, in the units of the flags. 0 is no limit.
type ProbeLimits struct {
	Probes       int           // that run at once
	Rate         float64       // rounds a second, of all together
	Sockets      int           // of all together
	MemoryMiB    int           // of all together, about
	Duration     time.Duration // of one
	TargetProbes int           // that run at once towards one address
	TargetRate   float64       // rounds a second towards one address
	TargetMbps   float64       // megabits of payload a second towards one address
}

// check says which limit makes no sense.
func (l ProbeLimits) check() error {
	var errs []error
	for _, one := range []struct {
		flag  string
		value float64
	}{
		{"max-probes", float64(l.Probes)}, {"max-probe-rate", l.Rate}, {"max-probe-sockets", float64(l.Sockets)},
		{"max-probe-memory", float64(l.MemoryMiB)}, {"max-probe-duration", l.Duration.Seconds()},
		{"max-target-probes", float64(l.TargetProbes)}, {"max-target-rate", l.TargetRate}, {"max-target-mbps", l.TargetMbps},
	} {
		if !(one.value >= 0 && one.value <= math.MaxInt32) { // a number that is none is neither
			errs = append(errs, fmt.Errorf("--%s %v: must be 0 (no limit) to %d", one.flag, one.value, math.MaxInt32))
		}
	}
	return errors.Join(errs...)
}

// limits are what probes are held to. Of the descriptors that the process may have they get a quarter at most.
func (l ProbeLimits) limits() budget.Limits {
	return budget.Limits{
		Probes: l.Probes, RoundsPerSecond: l.Rate, Sockets: probeSockets(l.Sockets, fileLimit()), MemoryBytes: int64(l.MemoryMiB) << 20,
		Duration: l.Duration, TargetProbes: l.TargetProbes, TargetRoundsPerSecond: l.TargetRate, TargetBitsPerSecond: l.TargetMbps * 1e6,
	}
}

// keptFiles are the descriptors that are kept back from endpoints and probes, so that an operator can always list and
// delete: for control connections, the state file and the runtime.
const keptFiles = 256

// maxSockets is how many sockets endpoints may have, of so many open files, when probes may have so many; 0: no limit.
func maxSockets(forProbes, files int) int {
	if files == 0 {
		return 0
	}
	return max(files-min(keptFiles, files/2)-probeSockets(forProbes, files), 1)
}

// probeSockets is how many sockets probes get of so many open files when they may have so many; 0: no limit.
func probeSockets(asked, files int) int {
	if files == 0 || asked == 0 {
		return asked
	}
	return min(asked, max(files/4, 1))
}

// targets is where probes may go to. The error is that of a prefix which is none.
func (c Config) targets(l *controlListeners) (t targets.Config, err error) {
	var errAllow, errDeny error
	t.Allow, errAllow = parsePrefixes("probe-allow", c.ProbeAllow)
	t.Deny, errDeny = parsePrefixes("probe-deny", c.ProbeDeny)
	for _, one := range []net.Listener{l.grpc, l.http} {
		if one != nil {
			t.Control = append(t.Control, one.Addr().(*net.TCPAddr).AddrPort())
		}
	}
	return t, errors.Join(errAllow, errDeny)
}

// parsePrefixes reads the values of a flag, each an address or a prefix.
func parsePrefixes(flag string, texts []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	var errs []error
	for _, text := range texts {
		p, err := echo.ParseSource(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, errors.Join(errs...)
}
