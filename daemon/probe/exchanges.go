package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/echod/echod/daemon/internal/wire"
)

// maxExchangeBytes bounds the payloads that are on their way over connections of their own, each of which is in memory
// twice: as sent and as read.
const maxExchangeBytes = 64 << 20

// exchanges carries each round over a TCP connection of its own: connect, write, read everything back, close. A round
// that is overdue closes its connection, so none is ever late.
type exchanges struct {
	run    *run
	ctx    context.Context
	cancel context.CancelFunc
	rounds sync.WaitGroup
	in     chan Sample
	onWay  int
	most   int
}

func newExchanges(ctx context.Context, r *run) *exchanges {
	ctx, cancel := context.WithCancel(ctx)
	return &exchanges{
		run:    r,
		ctx:    ctx,
		cancel: cancel,
		in:     make(chan Sample, 64),
		most:   min(r.plan.maxOutstanding(), max(1, maxExchangeBytes/r.plan.PayloadBytes)),
	}
}

func (x *exchanges) events() <-chan Sample     { return x.in }
func (x *exchanges) outstanding() int          { return x.onWay }
func (x *exchanges) room() bool                { return x.onWay < x.most }
func (x *exchanges) expire(time.Duration)      {} // Each round minds its own deadline.
func (x *exchanges) nextExpiry() time.Duration { return never }

func (x *exchanges) close() {
	x.cancel()
	x.rounds.Wait()
}

func (x *exchanges) begin(seq uint32) {
	x.onWay++
	x.rounds.Go(func() {
		sample := x.exchange(seq)
		select {
		case x.in <- sample:
		case <-x.ctx.Done():
		}
	})
}

func (x *exchanges) handle(s Sample) {
	x.onWay--
	x.run.tell(s, NoReason)
}

// exchange makes one round and answers what became of it.
func (x *exchanges) exchange(seq uint32) Sample {
	s := Sample{Seq: seq}
	begun := time.Now()
	conn, err := x.run.dial(x.ctx)
	if err != nil {
		return failedSample(s, Lost, reasonOf(err), err)
	}
	connect := time.Since(begun)
	s.Connect = &connect
	defer closeWith(x.ctx, conn)()

	got := make([]byte, x.run.plan.PayloadBytes)
	rtt, err := x.roundTrip(conn, seq, got)
	switch {
	case err != nil:
		return failedSample(s, Lost, reasonOf(err), err)
	case !wire.Matches(got, x.run.id, seq):
		return failedSample(s, Corrupted, ReasonCorrupted, wrongReply(len(got), len(got)))
	}
	s.Outcome, s.RTT = Received, &rtt
	if x.run.plan.AwaitClose {
		return x.awaitClose(s, conn)
	}
	return s
}

// roundTrip writes the payload and reads as many bytes back, at the same time: with a payload larger than the buffers
// on the way, an echo server stops reading until it can write.
func (x *exchanges) roundTrip(conn net.Conn, seq uint32, got []byte) (time.Duration, error) {
	payload := make([]byte, len(got))
	wire.Fill(payload, x.run.id, seq)
	if err := conn.SetDeadline(time.Now().Add(x.run.plan.Timeout)); err != nil {
		return 0, err
	}
	var writing sync.WaitGroup
	defer writing.Wait()
	left := time.Now()
	writing.Go(func() { _, _ = conn.Write(payload) }) // Whatever stops a write stops the read, too, and is told there.
	n, err := io.ReadFull(conn, got)
	rtt := time.Since(left)
	if err != nil {
		_ = conn.Close() // Ends the write.
		return 0, incomplete(n, len(got), x.run.plan.Timeout, err)
	}
	return rtt, nil
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
		s.RTT = nil
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
