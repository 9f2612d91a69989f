package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// never is later than any run lasts.
const never = time.Duration(1<<63 - 1)

// run is one call of Run. It belongs to the goroutine of that call: what others know comes to it as events.
type run struct {
	prober  *Prober
	plan    Plan
	address netip.AddrPort
	id      uint64 // tells this run's payloads from those of any other
	pacer   pacer
	tally   *Tally
	emit    func(Sample) error
	emitErr error // the first that emit answered; ends the run
	start   time.Time
}

func newRun(p *Prober, plan Plan, emit func(Sample) error) *run {
	tally := plan.Tally
	if tally == nil {
		tally = new(Tally)
	}
	tally.start(plan)
	return &run{
		prober: p,
		plan:   plan,
		id:     rand.Uint64(),
		pacer:  pacer{count: plan.Count, duration: plan.Duration, interval: plan.Interval},
		tally:  tally,
		emit:   emit,
	}
}

// do looks the name up and makes the rounds. Its error is emit's.
func (r *run) do(ctx context.Context) error {
	address, err := r.prober.lookup(ctx, r.plan.Address, r.plan.Timeout)
	r.start = time.Now()
	if err != nil {
		if ctx.Err() == nil {
			r.tally.begin()
			r.lost(1, nil, ReasonNameNotFound, fmt.Errorf("cannot look up %s: %s", r.plan.Address, inWords(err)))
		}
		return r.emitErr
	}
	r.address = address
	r.tally.setAddress(address)
	return r.rounds(ctx)
}

// now is the time since the run's start, by the monotonic clock.
func (r *run) now() time.Duration { return time.Since(r.start) }

// dial connects to the run's address, within the timeout.
func (r *run) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, r.plan.Timeout)
	defer cancel()
	conn, err := r.prober.options.DialContext(ctx, r.plan.Protocol.String(), r.address.String())
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, fmt.Errorf("no connection to %s within %v: %w", r.address, r.plan.Timeout, context.DeadlineExceeded)
	}
	return conn, err
}

// tell counts a sample and hands it to emit. After emit has failed it is not called again.
func (r *run) tell(s Sample, wasLost Reason) {
	r.tally.add(s, wasLost)
	if r.emit != nil && r.emitErr == nil {
		r.emitErr = r.emit(s)
	}
}

func (r *run) received(seq uint32, rtt time.Duration, connect *time.Duration) {
	r.tell(Sample{Seq: seq, Outcome: Received, RTT: &rtt, Connect: connect}, NoReason)
}

func (r *run) lost(seq uint32, connect *time.Duration, reason Reason, err error) {
	r.tell(Sample{Seq: seq, Outcome: Lost, Connect: connect, Reason: reason, Err: inWords(err)}, NoReason)
}

func (r *run) corrupted(seq uint32, connect *time.Duration, err error) {
	r.tell(Sample{Seq: seq, Outcome: Corrupted, Connect: connect, Reason: ReasonCorrupted, Err: inWords(err)}, NoReason)
}

func (r *run) late(seq uint32, rtt time.Duration, wasLost Reason) {
	r.tell(Sample{Seq: seq, Outcome: Late, RTT: &rtt}, wasLost)
}

// duplicated tells of a reply that came again; rtt is nil when it was not a right one.
func (r *run) duplicated(seq uint32, rtt *time.Duration) {
	r.tell(Sample{Seq: seq, Outcome: Duplicated, RTT: rtt}, NoReason)
}

// rounds makes the rounds the way that the plan's protocol and options ask for.
func (r *run) rounds(ctx context.Context) error {
	switch {
	case r.plan.Protocol == UDP:
		return drive(ctx, r, newDatagrams(ctx, r))
	case r.plan.NewConnection || r.plan.AwaitClose:
		return drive(ctx, r, newExchanges(ctx, r))
	default:
		return drive(ctx, r, newStreams(ctx, r))
	}
}
