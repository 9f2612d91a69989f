package probe

import (
	"context"
	"time"
)

// carrier takes the rounds of one run to the target and back: as datagrams, over streams, or over a connection each.
// All of its methods are called from the run's goroutine; its own goroutines speak through events alone, of type E.
// It tells the run what became of each round that it was given, once.
type carrier[E any] interface {
	// begin starts a round of a flow. It does not wait for the network.
	begin(seq uint32, flow int, t *trip)
	// room says whether another round of that flow may begin now.
	room(flow int) bool
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
const drainAtOnce = 4

// drive lets rounds leave by the run's pacer until it is done and all are told of, ctx ends, or emit fails.
func drive[E any](ctx context.Context, r *run, c carrier[E]) error {
	defer c.close()
	alarm := r.prober.newAlarm()
	defer alarm.stop()
	set := never  // what the alarm is set to
	held := false // a round's time has come, and it had to wait for another
	for ctx.Err() == nil && r.emitErr == nil {
		// What has come by now goes before what is overdue: a reply that was in time must not be lost because we were
		// slow. It goes once a turn, so that a peer which floods us cannot hold up the schedule.
		now := r.now()
		drain(ctx, r, c)
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
		if wake != set {
			alarm.set(wake - r.now())
			set = wake
		}
		select {
		case <-ctx.Done():
		case <-alarm.rings():
			r.pauses.woke(wake, r.now())
			set = never
		case e := <-c.events():
			r.pauses.woke(wake, r.now())
			take(ctx, c, e)
		}
	}
	return r.emitErr
}

// nextFlow answers the flow of the next round, and whether it may begin now. In an open loop flows take turns, in a closed
// one the next is one that waits for nothing.
func nextFlow[E any](r *run, c carrier[E]) (flow int, free bool) {
	if !r.rounds.room(r.plan.maxOutstanding()) || r.search != nil && !r.search.ready() {
		return 0, false
	}
	flow, free = r.rounds.next, true
	if r.plan.closed() {
		flow, free = r.rounds.idle()
	}
	return flow, free && c.room(flow)
}

func leave[E any](r *run, c carrier[E], flow int, now time.Duration, held bool) {
	seq, late := r.pacer.leave(now)
	if held && r.plan.closed() {
		late = 0 // to wait for the round before is what a closed loop is
	}
	c.begin(seq, flow, r.begin(seq, flow, late))
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
