// Package health holds whether the daemon can do its work: a few named checks in a fixed order, each set by whoever knows,
// and the worst of them. It looks at nothing by itself, so that what it answers never waits for anything; server sets the
// checks, and rpc tells them.
package health

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// State is what comes of a check, or of all together. A greater one is worse.
type State uint8

// The states.
const (
	Ready    State = iota + 1 // all is as it should be
	Degraded                  // it does its work, and something is not as it should be
	NotReady                  // it does not do its work, or not all of it
)

// Check is one of the things that readiness depends on.
type Check struct {
	Name    string
	State   State
	Message string // why it is not Ready, and what to do; empty when it is
}

// Report is all checks as they were at one moment, in their order, and the worst of their states.
type Report struct {
	State  State
	Checks []Check
}

// Reason says why a report is not Ready: what each check says that is not, the worst first. It is empty for one that is.
func (r Report) Reason() string {
	var texts []string
	for state := NotReady; state > Ready; state-- {
		for _, c := range r.Checks {
			if c.State == state {
				texts = append(texts, c.Name+": "+c.Message)
			}
		}
	}
	return strings.Join(texts, "; ")
}

// Readiness is the checks of one daemon. It is safe for concurrent use, and no call of it waits. The zero Readiness is not
// ready; see [New].
type Readiness struct {
	mu      sync.Mutex // guards what follows
	checks  []Check
	changed chan struct{} // closed by the next change
}

// New takes the checks with what they are at first. There are no others, and this is their order.
func New(checks ...Check) *Readiness {
	return &Readiness{checks: slices.Clone(checks), changed: make(chan struct{})}
}

// Set says what comes of a check now. A name that New was not given is a mistake of the program, and panics.
func (r *Readiness) Set(name string, state State, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.checks, func(c Check) bool { return c.Name == name })
	if i < 0 {
		panic(fmt.Sprintf("health: there is no check %q", name))
	}
	if now := (Check{name, state, message}); r.checks[i] != now {
		r.checks[i] = now
		close(r.changed)
		r.changed = make(chan struct{})
	}
}

// Report answers what all checks say now.
func (r *Readiness) Report() Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	report := Report{State: Ready, Checks: slices.Clone(r.checks)}
	for _, c := range r.checks {
		report.State = max(report.State, c.State)
	}
	return report
}

// Changed is closed once a check says something else than at this call. Ask for it before [Readiness.Report], to miss nothing.
func (r *Readiness) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}
