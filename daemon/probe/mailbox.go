package probe

import (
	"context"
	"time"
)

// waiter is how a run waits for what comes of its rounds, and takes it in. The run's goroutine alone calls it.
type waiter interface {
	// drain takes in what has come already, up to a bound: a peer that floods us must not hold up the schedule.
	drain(ctx context.Context)
	// wait waits until something comes, and takes in what it is, until wake, or until ctx ends. It may return before.
	wait(ctx context.Context, wake time.Duration)
	// stop ends what belongs to it.
	stop()
}

// drainAtOnce bounds the events of one turn, each of which may take a look at every round on its way.
const drainAtOnce = 4

// mailbox waits for what a carrier's goroutines tell, as events of type E.
type mailbox[E any] struct {
	run    *run
	in     chan E
	handle func(E)
	alarm  alarm
	set    time.Duration // what the alarm is set to
}

func newMailbox[E any](r *run, size int, handle func(E)) *mailbox[E] {
	return &mailbox[E]{run: r, in: make(chan E, size), handle: handle, alarm: r.prober.newAlarm(), set: never}
}

func (m *mailbox[E]) drain(ctx context.Context) {
	for range min(len(m.in), drainAtOnce) {
		m.take(ctx, <-m.in)
	}
}

func (m *mailbox[E]) wait(ctx context.Context, wake time.Duration) {
	if wake != m.set {
		m.alarm.set(wake - m.run.now())
		m.set = wake
	}
	select {
	case <-ctx.Done():
	case <-m.alarm.rings():
		m.run.pauses.woke(wake, m.run.now())
		m.set = never
	case e := <-m.in:
		m.run.pauses.woke(wake, m.run.now())
		m.take(ctx, e)
	}
}

// take handles an event, unless the run has ended: then it may tell of a connection that failed because it was closed.
func (m *mailbox[E]) take(ctx context.Context, e E) {
	if ctx.Err() == nil && m.run.emitErr == nil {
		m.handle(e)
	}
}

func (m *mailbox[E]) stop() { m.alarm.stop() }
