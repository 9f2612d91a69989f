package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/echod/echod/daemon/internal/wire"
)

// exchanges carries each round over a TCP connection of its own: connect, write, read everything back, close. A round
// that is overdue closes its connection, so none is ever late.
type exchanges struct {
	run    *run
	ctx    context.Context
	cancel context.CancelFunc
	rounds sync.WaitGroup
	in     *mailbox[exchanged]
}

// exchangeTimes are when the reply was read, how long it took, and when the kernel saw its last byte leave and come.
type exchangeTimes struct {
	at, took   time.Duration
	left, came stamp
}

// exchanged is what became of a round.
type exchanged struct {
	sample Sample
	source netip.AddrPort // invalid without a connection
	trip   exchangeTimes  // of a received one
}

func newExchanges(ctx context.Context, r *run) *exchanges {
	ctx, cancel := context.WithCancel(ctx)
	x := &exchanges{run: r, ctx: ctx, cancel: cancel}
	x.in = newMailbox(r, 64, x.handle)
	return x
}

func (x *exchanges) waiter() waiter            { return x.in }
func (x *exchanges) room(int) bool             { return true }
func (x *exchanges) expire(time.Duration)      {} // Each round minds its own deadline.
func (x *exchanges) nextExpiry() time.Duration { return never }

func (x *exchanges) close() {
	x.cancel()
	x.rounds.Wait()
}

func (x *exchanges) begin(seq uint32, flow int, t *trip) {
	size := int(t.size)
	x.rounds.Go(func() {
		e := x.exchange(seq, flow, size)
		select {
		case x.in.in <- e:
		case <-x.ctx.Done():
		}
	})
}

func (x *exchanges) handle(e exchanged) {
	t := x.run.rounds.get(e.sample.Seq)
	if e.source.IsValid() {
		x.run.tally.comeFrom(int(t.flow), e.source)
	}
	if e.sample.Outcome != Received {
		x.run.tell(e.sample, NoReason, UserClock, 0)
		return
	}
	times := x.run.times(e.trip.at, e.trip.took, e.trip.left, e.trip.came)
	e.sample.RTT, e.sample.ApplicationRTT = &times.network, &times.application
	x.run.tell(e.sample, NoReason, times.clock, times.pause)
}

// exchange makes one round and answers what became of it.
func (x *exchanges) exchange(seq uint32, flow, size int) (e exchanged) {
	e.sample = Sample{Seq: seq}
	conn, connect, err := x.run.dial(x.ctx, flow)
	if err != nil {
		e.sample = failedSample(e.sample, Lost, reasonOf(err), err)
		return e
	}
	e.sample.Connect, e.source = &connect, addrPort(conn.LocalAddr())
	defer closeWith(x.ctx, conn)()

	got := make([]byte, size)
	e.trip, err = x.roundTrip(conn, seq, got)
	switch {
	case err != nil:
		e.sample = failedSample(e.sample, Lost, reasonOf(err), err)
		return e
	case !wire.Matches(got, x.run.id, seq, x.run.nanos(e.trip.at-e.trip.took)):
		e.sample = failedSample(e.sample, Corrupted, ReasonCorrupted, wrongReply(len(got), len(got)))
		return e
	}
	e.sample.Outcome = Received
	if x.run.plan.AwaitClose {
		e.sample = x.awaitClose(e.sample, conn)
	}
	return e
}

// roundTrip writes the payload and reads as many bytes back, at the same time: with a payload larger than the buffers
// on the way, an echo server stops reading until it can write.
func (x *exchanges) roundTrip(conn net.Conn, seq uint32, got []byte) (trip exchangeTimes, err error) {
	payload := make([]byte, len(got))
	if err := conn.SetDeadline(time.Now().Add(x.run.plan.Timeout)); err != nil {
		return trip, err
	}
	in := x.run.timed(conn)
	var writing sync.WaitGroup
	defer writing.Wait()
	left := x.run.now()
	wire.Fill(payload, x.run.id, seq, x.run.nanos(left))
	writing.Go(func() { _, _ = conn.Write(payload) }) // Whatever stops a write stops the read, too, and is told there.
	n := 0
	for n < len(got) && err == nil {
		var more int
		more, trip.came, err = in.read(got[n:])
		n += more
	}
	trip.at = x.run.now()
	if n < len(got) {
		_ = conn.Close() // Ends the write.
		return trip, incomplete(n, len(got), x.run.plan.Timeout, err)
	}
	trip.took, trip.left = trip.at-left, in.leftAt(uint32(len(got)-1))
	return trip, nil
}

// closeWith closes conn when ctx ends, or when the function that it answers is called, which waits until it is closed.
func closeWith(ctx context.Context, conn net.Conn) func() {
	var closing sync.WaitGroup
	ended := make(chan struct{})
	closing.Go(func() {
		select {
		case <-ctx.Done():
		case <-ended:
		}
		_ = conn.Close() // Everything was read or given up: closing has nothing to tell.
	})
	return func() {
		close(ended)
		closing.Wait()
	}
}

// incomplete says why only n bytes of so many came back.
func incomplete(n, of int, timeout time.Duration, err error) error {
	switch reasonOf(err) {
	case ReasonTimeout:
		return fmt.Errorf("%d of %d bytes came back within %v: %w", n, of, timeout, err)
	case ReasonClosedEarly:
		return fmt.Errorf("the server closed after %d of %d bytes: %w", n, of, err)
	default:
		return fmt.Errorf("%d of %d bytes came back: %w", n, of, err)
	}
}

// awaitClose sends a FIN and waits for the server's. A server that does not close keeps the round received.
func (x *exchanges) awaitClose(s Sample, conn net.Conn) Sample {
	notClosed := func(err error) Sample {
		return failedSample(s, Received, ReasonNotClosed, fmt.Errorf("the server did not close after our FIN: %w", err))
	}
	c, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return notClosed(errors.New("the connection cannot be half closed"))
	}
	if err := conn.SetReadDeadline(time.Now().Add(x.run.plan.Timeout)); err != nil {
		return notClosed(err)
	}
	if err := c.CloseWrite(); err != nil {
		return notClosed(err)
	}
	n, err := conn.Read(make([]byte, 1))
	switch {
	case n > 0:
		return failedSample(s, Corrupted, ReasonCorrupted, errors.New("more bytes came back than were sent"))
	case errors.Is(err, io.EOF):
		return s
	default:
		return notClosed(err)
	}
}

// failedSample completes a sample of a round that did not go well.
func failedSample(s Sample, o Outcome, reason Reason, err error) Sample {
	s.Outcome, s.Reason, s.Err = o, reason, inWords(err)
	return s
}
