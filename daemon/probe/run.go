package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/echod/echod/daemon/internal/netns"
)

// never is later than any run lasts.
const never = time.Duration(1<<63 - 1)

// run is one call of Run. It belongs to the goroutine of that call: what others know comes to it as events.
type run struct {
	prober  *Prober
	plan    Plan
	address netip.AddrPort
	from    *netns.Namespace // where sockets are made; nil: here
	id      uint64           // tells this run's payloads from those of any other
	pacer   pacer
	rounds  rounds
	search  *pathSearch // nil unless it chooses the sizes
	pauses  pauses
	tally   *Tally
	emit    func(Sample) error
	emitErr error // the first that emit answered; ends the run
	start   time.Time
	wall    wallClock
}

func newRun(p *Prober, plan Plan, emit func(Sample) error) *run {
	tally := plan.Tally
	if tally == nil {
		tally = new(Tally)
	}
	id := rand.Uint64()
	tally.start(plan, id)
	return &run{
		prober: p,
		plan:   plan,
		id:     id,
		pacer:  newPacer(plan),
		rounds: newRounds(plan.flows()),
		tally:  tally,
		emit:   emit,
	}
}

// do looks the name up and makes the rounds. Its error is emit's, or a refusal.
func (r *run) do(ctx context.Context) error {
	address, err := r.prober.lookup(ctx, r.plan.Address, r.plan.Timeout)
	r.begins()
	if err != nil {
		if ctx.Err() == nil {
			r.begin(1, 0, 0, 0)
			r.lost(1, nil, ReasonNameNotFound, fmt.Errorf("cannot look up %s: %s", r.plan.Address, inWords(err)))
		}
		return r.emitErr
	}
	if err := r.permit(address); err != nil {
		return err
	}
	r.address = address
	if err := r.enter(); err != nil {
		return err
	}
	defer r.leave()
	if err := r.checkSource(); err != nil {
		return err
	}
	if r.stamped() {
		defer keepStamping()()
		r.begins() // that takes a moment the first time
	}
	r.tally.reach(address, r.start)
	r.beginSearch()
	return r.carry(ctx)
}

// begins has the run's time count from now.
func (r *run) begins() {
	r.start = time.Now()
	r.wall.ahead = r.start.UnixNano()
}

// carry makes the rounds the way that the plan's protocol and options ask for.
func (r *run) carry(ctx context.Context) error {
	switch {
	case r.plan.Protocol == UDP:
		return drive(ctx, r, newDatagrams(ctx, r))
	case r.plan.newConnections():
		return drive(ctx, r, newExchanges(ctx, r))
	default:
		return drive(ctx, r, newStreams(ctx, r))
	}
}

// nanos is a time since the run's start as payloads have it: in nanoseconds since 1970, by the wall clock as it was at the
// start.
func (r *run) nanos(t time.Duration) int64 { return r.start.UnixNano() + int64(t) }

// now is the time since the run's start, by the monotonic clock.
func (r *run) now() time.Duration { return time.Since(r.start) }

// dial connects a flow to the run's address, within the timeout. What it took is without the making of a socket in another
// network namespace.
func (r *run) dial(ctx context.Context, flow int) (conn net.Conn, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.plan.Timeout)
	defer cancel()
	begun := time.Now()
	switch dial := r.prober.options.DialContext; {
	case dial != nil:
		conn, err = dial(ctx, r.plan.Protocol.String(), r.address.String())
	case r.from != nil:
		conn, begun, err = r.dialThere(ctx, flow)
	default:
		conn, err = r.dialer(flow).DialContext(ctx, r.plan.Protocol.String(), r.address.String())
	}
	took = max(time.Since(begun), 1)
	if c, ok := conn.(*net.TCPConn); ok && err == nil && r.source(flow).Port() != 0 {
		// Closed with a RST, whoever closes it. A FIN would leave it in TIME-WAIT (RFC 9293, 3.6.1), and its port could not be
		// bound for a minute: by the flow's next connection, or by the same probe made again.
		_ = c.SetLinger(0) // Should it fail, that is what happens.
	}
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, 0, noConnection(r)
	}
	return conn, took, r.aboutSource(flow, err)
}

// noConnection says that a connection was not made in time.
func noConnection(r *run) error {
	return fmt.Errorf("no connection to %s within %v: %w", r.address, r.plan.Timeout, context.DeadlineExceeded)
}

// aboutSource names where a flow was to come from, if that is why it has no socket.
func (r *run) aboutSource(flow int, err error) error {
	source := r.source(flow)
	if err == nil || !source.IsValid() || !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
		return err
	}
	if source.Port() == 0 {
		return fmt.Errorf("cannot send from %s: %s", source.Addr(), inWords(err))
	}
	return fmt.Errorf("cannot send from %s: %s", source, inWords(err))
}

// dialer opens sockets where this process is, as the plan wants them.
func (r *run) dialer(flow int) *net.Dialer {
	d := &net.Dialer{Control: r.plan.mark}
	if source := r.source(flow); source.IsValid() && r.plan.Protocol == TCP {
		d.LocalAddr = net.TCPAddrFromAddrPort(source)
	} else if source.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(source)
	}
	return d
}

// source is where a flow is to come from; invalid when that is all the same.
func (r *run) source(flow int) netip.AddrPort {
	address, port := r.plan.Source.Addr().Unmap(), r.plan.Source.Port()
	if !address.IsValid() && port == 0 {
		return netip.AddrPort{}
	}
	if !address.IsValid() {
		address = netip.IPv6Unspecified()
		if r.address.Addr().Is4() {
			address = netip.IPv4Unspecified()
		}
	}
	if port != 0 {
		port += uint16(flow)
	}
	return netip.AddrPortFrom(address, port)
}

// done says whether no round leaves any more.
func (r *run) done(now time.Duration) bool {
	return r.pacer.done(now) || r.search != nil && r.search.over
}

// begin enters a round that is about to leave.
func (r *run) begin(seq uint32, flow int, late, behind time.Duration) *trip {
	size, now := r.plan.size(seq), r.now()
	if r.search != nil {
		size = r.search.begin(seq)
	}
	r.tally.begin(flow, seq, size, now, late, behind)
	return r.rounds.begin(now, flow, size)
}

// tell counts a sample and hands it to emit. After emit has failed it is not called again.
func (r *run) tell(s Sample, wasLost Reason, clock Clock, pause time.Duration) {
	t := r.rounds.get(s.Seq)
	s.Flow, s.Left, s.PayloadBytes, s.Paused = int(t.flow), t.left, int(t.size), pause > pauseLeast
	r.tally.add(s, wasLost, clock, pause)
	if t.state == waiting {
		r.rounds.end(s, clock, r.now(), t)
		r.rounds.inOrder(int(t.flow), r.tally)
	}
	if r.emit != nil && r.emitErr == nil {
		r.emitErr = r.emit(s)
	}
}

func (r *run) received(seq uint32, x replyTimes, connect *time.Duration) {
	s := Sample{Seq: seq, Outcome: Received, RTT: &x.network, ApplicationRTT: &x.application, Connect: connect}
	r.tell(s, NoReason, x.clock, x.pause)
	r.searched(seq, mtuAnswer{})
}

func (r *run) lost(seq uint32, connect *time.Duration, reason Reason, err error) {
	r.tell(Sample{Seq: seq, Outcome: Lost, Connect: connect, Reason: reason, Err: inWords(err)}, NoReason, UserClock, 0)
	r.searched(seq, r.failure(err))
}

func (r *run) corrupted(seq uint32, connect *time.Duration, err error) {
	r.tell(Sample{Seq: seq, Outcome: Corrupted, Connect: connect, Reason: ReasonCorrupted, Err: inWords(err)}, NoReason, UserClock, 0)
	r.searched(seq, r.failure(err))
}

func (r *run) late(seq uint32, x replyTimes) {
	t := r.rounds.get(seq)
	wasLost := t.givenFor()
	t.state = belated
	r.tell(Sample{Seq: seq, Outcome: Late, RTT: &x.network, ApplicationRTT: &x.application}, wasLost, x.clock, 0)
}

// duplicated tells of a reply that came again; x is nil when it was not a right one.
func (r *run) duplicated(seq uint32, x *replyTimes) {
	s := Sample{Seq: seq, Outcome: Duplicated}
	if x != nil {
		s.RTT, s.ApplicationRTT = &x.network, &x.application
	}
	r.tell(s, NoReason, UserClock, 0)
}

func (r *run) wrongAddress(seq uint32) {
	r.tell(Sample{Seq: seq, Outcome: WrongAddress}, NoReason, UserClock, 0)
}
