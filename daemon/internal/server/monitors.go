package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/echod/echod/daemon/internal/budget"
	"github.com/echod/echod/daemon/internal/monitor"
	"github.com/echod/echod/daemon/probe"
)

// budgeted makes the round trips of monitors within the budget that they share with named probes.
type budgeted struct {
	prober *probe.Prober
	budget *budget.Budget
}

// Run is Run of the prober. Its error is monitor.ErrBusy where other probes leave too little of the budget now; a plan that
// is above a limit at any time is an error of its own.
func (b budgeted) Run(ctx context.Context, plan probe.Plan, emit func(probe.Sample) error) (probe.Report, error) {
	if err := b.prober.Check(plan); err != nil {
		return probe.Report{}, err
	}
	share, plan, err := b.budget.Reserve(plan)
	if err != nil {
		return probe.Report{}, busy(err)
	}
	defer share.Release()
	report, err := b.prober.Run(ctx, plan, emit)
	return report, busy(err)
}

// busy marks the errors that pass when others have ended.
func busy(err error) error {
	if errors.Is(err, budget.ErrUsedUp) {
		return fmt.Errorf("%w: %w", monitor.ErrBusy, err)
	}
	return err
}
