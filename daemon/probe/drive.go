package probe

import (
	"context"
	"time"
)

// carrier takes the rounds of one run to the target and back: as datagrams, over one stream, or over a connection each.
// All of its methods are called from the run's goroutine; its own goroutines speak through events alone, of type E.
// It tells the run what became of each round that it was given, once.
type carrier[E any] interface {
	// begin starts a round. It does not wait for the network.
	begin(seq uint32)
	// room says whether another round may begin now.
	room() bool
	// outstanding is how many rounds have begun and are not told of yet.
	outstanding() int
	// expire gives up the rounds that have waited too long.
	expire(now time.Duration)
	// nextExpiry is when expire will have something to do at the earliest; never when nothing waits.
	nextExpiry() time.Duration
	// events is what the carrier's goroutines have to say, and handle takes it in.
	events() <-chan E
	handle(E)
	// close ends the carrier's goroutines and sockets, and waits for them.
	close()
}

// drainAtOnce bounds the events of one turn, each of which may take a look at every round on its way.
const drainAtOnce = 32

// drive lets rounds leave by the run's pacer until it is done and all are told of, ctx ends, or emit fails.
func drive[E any](ctx context.Context, r *run, c carrier[E]) error {
	defer c.close()
	timer := time.NewTimer(never)
	defer timer.Stop()
	for ctx.Err() == nil && r.emitErr == nil {
		// What has come by now goes before what is overdue: a reply that was in time must not be lost because we were
		// slow. It goes once a turn, so that a peer which floods us cannot hold up the schedule.
		now := r.now()
		drain(ctx, r, c)
		c.expire(now)
		done := r.pacer.done(now)
		if done && c.outstanding() == 0 {
			break
		}
		wake := c.nextExpiry()
		if !done && c.room() {
			due := r.pacer.at(now)
			if due <= now {
				r.tally.begin()
				c.begin(r.pacer.leave(now))
				continue
			}
			wake = min(wake, due)
		}
		timer.Reset(wake - now)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case e := <-c.events():
			take(ctx, c, e)
		}
	}
	return r.emitErr
}

// drain handles the events that are there already.
func drain[E any](ctx context.Context, r *run, c carrier[E]) {
	for range min(len(c.events()), drainAtOnce) {
		if r.emitErr != nil {
			return
		}
		take(ctx, c, <-c.events())
	}
}

// take handles an event, unless ctx has ended: then it may tell of a connection that failed because it was closed.
func take[E any](ctx context.Context, c carrier[E], e E) {
	if ctx.Err() == nil {
		c.handle(e)
	}
}
