package probe

import (
	"context"
	"time"
)

// carrier takes the rounds of one run to the target and back: as datagrams, over streams, or over a connection each.
// All of its methods are called from the run's goroutine; its own goroutines, if it has any, speak through its waiter.
// It tells the run what became of each round that it was given, once.
type carrier interface {
	// begin starts a round of a flow. It does not wait for the network.
	begin(seq uint32, flow int, t *trip)
	// room says whether another round of that flow may begin now.
	room(flow int) bool
	// expire gives up the rounds that have waited too long.
	expire(now time.Duration)
	// nextExpiry is when expire will have something to do at the earliest; never when nothing waits.
	nextExpiry() time.Duration
	// waiter is where its events come in.
	waiter() waiter
	// close ends the carrier's goroutines and sockets, and waits for them.
	close()
}

// drive lets rounds leave by the run's pacer until it is done and all are told of, ctx ends, or emit fails.
func drive(ctx context.Context, r *run, c carrier) error {
	w := c.waiter()
	defer w.stop()
	defer c.close()
	held := false // a round's time has come, and it had to wait for another
	for ctx.Err() == nil && r.emitErr == nil {
		// What has come by now goes before what is overdue: a reply that was in time must not be lost because we were
		// slow.
		now := r.now()
		w.drain(ctx)
		c.expire(now)
		done := r.done(now)
		if done && r.rounds.onWay == 0 {
			break
		}
		wake := c.nextExpiry()
		if !done {
			due := r.pacer.at(now)
			flow, free := nextFlow(r, c)
			switch {
			case due <= now && free:
				leave(r, c, flow, now, held)
				held = false
				continue
			case due <= now:
				held = true
			default: // Even where it could not leave now, so that it is known whether it is held when its time comes.
				wake = min(wake, due)
			}
		}
		if r.rounds.onWay > 0 && !r.stamped() {
			wake = min(wake, now+pauseWatch)
		}
		w.wait(ctx, wake)
	}
	return r.emitErr
}

// nextFlow answers the flow of the next round, and whether it may begin now. In an open loop flows take turns, in a closed
// one the next is one that waits for nothing.
func nextFlow(r *run, c carrier) (flow int, free bool) {
	if !r.rounds.room(r.plan.maxOutstanding()) || r.search != nil && !r.search.ready() {
		return 0, false
	}
	flow, free = r.rounds.next, true
	if r.plan.closed() {
		flow, free = r.rounds.idle()
	}
	return flow, free && c.room(flow)
}

func leave(r *run, c carrier, flow int, now time.Duration, held bool) {
	seq, behind := r.pacer.leave(now)
	late := behind
	if held && r.plan.closed() {
		late = 0 // to wait for the round before is what a closed loop is
	}
	c.begin(seq, flow, r.begin(seq, flow, late, behind))
}
