package registry

import (
	"errors"
	"fmt"

	"github.com/echod/echod/daemon/echo"
)

// ErrNoLedger says that nothing is known of a run of probes.
var ErrNoLedger = errors.New("no such ledger")

// Ledger answers what the daemon's UDP endpoints saw of a run of probes, or ErrNoLedger and a ledger that has nothing but
// its CompleteFor.
func (r *Registry) Ledger(run uint64) (echo.Ledger, error) {
	l, ok := r.engine.Ledger(run)
	if !ok {
		return l, fmt.Errorf("%w: %016x; no datagram of that run has come to a UDP endpoint here in the last %.0f minutes, or %d other runs have since",
			ErrNoLedger, run, echo.LedgerAge.Minutes(), echo.MaxLedgers)
	}
	return l, nil
}
