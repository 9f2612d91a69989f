package probe

import (
	"errors"
	"net/netip"
)

// Check says whether Run would run a plan, as far as that can be said before its host's name is looked up: the error is
// ErrBadPlan, or that of Options.Permit where the host is an address. Plan.Admit is not asked.
func (p *Prober) Check(plan Plan) error {
	if err := plan.Validate(); err != nil {
		return err
	}
	address, ok := plan.Literal()
	if !ok || p.options.Permit == nil {
		return nil
	}
	return p.options.Permit(address, plan.Protocol)
}

// Literal answers the address that rounds go to where Plan.Address has no name that is to be looked up.
func (p Plan) Literal() (netip.AddrPort, bool) {
	a, err := netip.ParseAddrPort(p.Address)
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), err == nil
}

// refusal ends a run before its first round.
type refusal struct {
	error
	reason Reason
}

// permit asks whether the run may go to an address, and how fast.
func (r *run) permit(address netip.AddrPort) error {
	if permit := r.prober.options.Permit; permit != nil {
		if err := permit(address, r.plan.Protocol); err != nil {
			return refusal{err, ReasonTargetRefused}
		}
	}
	if admit := r.plan.Admit; admit != nil {
		maxRate, err := admit(address)
		if err != nil {
			return refusal{err, ReasonOverLimit}
		}
		r.pacer.bound(maxRate)
	}
	return nil
}

// refusalIn puts a refusal into the report of its run, and answers it as it came.
func refusalIn(report Report, err error) (Report, error) {
	var refused refusal
	if !errors.As(err, &refused) {
		return report, err
	}
	report.Errors = append(report.Errors, ErrorCount{Reason: refused.reason, Count: 1, Message: refused.Error()})
	return report, refused.error
}
