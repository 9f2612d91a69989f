package runs

import (
	"context"
	"sync"
	"time"

	"github.com/echod/echod/daemon/probe"
)

// Aggregates is a run that is followed by what happened in each interval. However fast its rounds are and however slowly
// it is read, it holds one aggregate, and the run goes on: where reading is late, an interval is longer. It is safe for
// concurrent use, but for Next.
type Aggregates struct {
	handle *Handle
	tally  *probe.Tally // the run's own lets go of it at its end
	ticks  <-chan time.Time

	mu  sync.Mutex // guards sum
	sum *probe.Aggregator
}

// FollowAggregates starts a run as Start does; Next of the answer is told of it once an interval.
func (m *Manager) FollowAggregates(name string, target Target, plan probe.Plan, every time.Duration) (*Aggregates, error) {
	a := &Aggregates{tally: new(probe.Tally), ticks: time.Tick(every), sum: probe.NewAggregator()}
	plan.Tally = a.tally
	handle, err := m.start(&Handle{manager: m}, name, target, plan, a.take)
	if err != nil {
		return nil, err
	}
	a.handle = handle
	return a, nil
}

// Run answers the run as it stands.
func (a *Aggregates) Run() Run { return a.handle.Run() }

// Stop ends the run early, unless it has ended, and answers it with its report.
func (a *Aggregates) Stop() Run { return a.handle.Stop() }

// Next waits for the end of the interval and answers it; an interval in which nothing happened is answered, too. The last
// one ends with the run; after it ok is false. The error is ctx's, or what ended the run.
func (a *Aggregates) Next(ctx context.Context) (next probe.Aggregate, ok bool, err error) {
	select {
	case <-a.ticks:
		return a.next(), true, nil
	case <-a.handle.run.done:
		// Nothing is added any more.
		if next = a.next(); next.Empty() {
			return next, false, a.handle.run.err
		}
		return next, true, nil
	case <-ctx.Done():
		return next, false, context.Cause(ctx)
	}
}

func (a *Aggregates) next() probe.Aggregate {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sum.Take(a.tally)
}

// take is called by the probe for each sample.
func (a *Aggregates) take(s probe.Sample) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sum.Add(s)
	return nil
}
