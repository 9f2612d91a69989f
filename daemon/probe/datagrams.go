package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/echod/echod/daemon/internal/wire"
)

const (
	// receiveBuffer is what a socket asks for, in bytes. A usual default holds less than a hundred packets.
	receiveBuffer = 1 << 20
	// longestDatagram is more than any datagram has, so that a read never cuts one.
	longestDatagram = 1 << 16
	// recentRounds is how far back the reply to a payload without a number is looked for. It is small, because a
	// payload of one byte has but 256 values.
	recentRounds = 16
)

// datagram is what the reader of a socket tells: a datagram, or an error.
type datagram struct {
	from net.Conn
	at   time.Duration
	seq  uint32 // of a payload that is right, byte for byte
	data []byte // of one that is not; nil when seq is set
	err  error
}

// datagrams carries rounds over one connected UDP socket. It is connected so that an ICMP port unreachable comes back
// as an error of the socket, at once. (Not on Windows, where the sockets of package net keep such reports to
// themselves: there the rounds time out.) Replies are matched by run and sequence number, in any order.
//
// What cannot be ours is ignored: another run's replies, and what resembles no round that was sent.
type datagrams struct {
	run     *run
	ctx     context.Context
	cancel  context.CancelFunc
	readers sync.WaitGroup
	in      chan datagram

	conn    net.Conn // nil: none yet, or the last one broke
	payload []byte   // of the last round
	window  window
	oldest  uint32 // no round before this one is on its way
	onWay   int
	highest uint32 // the last round in order whose right reply has come
}

func newDatagrams(ctx context.Context, r *run) *datagrams {
	ctx, cancel := context.WithCancel(ctx)
	return &datagrams{
		run:     r,
		ctx:     ctx,
		cancel:  cancel,
		in:      make(chan datagram, 256),
		payload: make([]byte, r.plan.PayloadBytes),
		oldest:  1,
	}
}

func (d *datagrams) events() <-chan datagram { return d.in }
func (d *datagrams) outstanding() int        { return d.onWay }

// room also keeps the window from forgetting a round that is still on its way.
func (d *datagrams) room() bool {
	return d.onWay == 0 || d.onWay < d.run.plan.maxOutstanding() && d.window.last-d.oldest < windowRounds-1
}

func (d *datagrams) close() {
	d.cancel()
	d.hangUp()
	d.readers.Wait()
}

// hangUp closes the socket, which ends its reader.
func (d *datagrams) hangUp() {
	if d.conn != nil {
		_ = d.conn.Close() // Nothing was buffered that could fail.
		d.conn = nil
	}
}

func (d *datagrams) begin(seq uint32) {
	t := d.window.add()
	d.onWay++
	if err := d.send(seq, t); err != nil && d.ctx.Err() == nil {
		d.lose(seq, t, reasonOf(err), err)
	}
}

func (d *datagrams) send(seq uint32, t *trip) error {
	t.left = d.run.now()
	if err := d.open(); err != nil {
		return err
	}
	wire.Fill(d.payload, d.run.id, seq)
	err := d.write(t)
	if err != nil && reasonOf(err) == ReasonRefused {
		// A report on a datagram before this one, which the kernel hands to whoever comes first. Ours has not left.
		d.loseBefore(seq, d.run.now(), err)
		err = d.write(t)
	}
	return err
}

func (d *datagrams) write(t *trip) error {
	if err := d.conn.SetWriteDeadline(time.Now().Add(d.run.plan.Timeout)); err != nil {
		return err
	}
	t.left = d.run.now()
	_, err := d.conn.Write(d.payload)
	return err
}

// open makes the socket, when there is none.
func (d *datagrams) open() error {
	if d.conn != nil {
		return nil
	}
	conn, err := d.run.dial(d.ctx)
	if err != nil {
		return err
	}
	if c, ok := conn.(interface{ SetReadBuffer(int) error }); ok {
		_ = c.SetReadBuffer(receiveBuffer) // A wish: a socket with a smaller buffer works, too.
	}
	d.conn = conn
	d.readers.Go(func() { d.read(conn) })
	return nil
}

// read hands on what comes in until the socket fails or is closed.
func (d *datagrams) read(conn net.Conn) {
	buffer := make([]byte, longestDatagram)
	for {
		n, err := conn.Read(buffer)
		event := datagram{from: conn, at: d.run.now(), err: err}
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err == nil:
			event.seq, event.data = d.judge(buffer[:n])
		}
		select {
		case d.in <- event:
		case <-d.ctx.Done():
			return
		}
		if err != nil && !isReport(err) {
			return
		}
	}
}

// judge answers the number of the round to which b is the right reply, or else a copy of b.
func (d *datagrams) judge(b []byte) (uint32, []byte) {
	id, seq, ok := wire.Parse(b)
	if ok && seq != 0 && id == d.run.id && len(b) == d.run.plan.PayloadBytes && wire.Matches(b, id, seq) {
		return seq, nil
	}
	return 0, bytes.Clone(b)
}

// isReport says whether err tells of an ICMP message that came back: it is about a datagram, the socket is well.
func isReport(err error) bool {
	reason := reasonOf(err)
	return reason == ReasonRefused || reason == ReasonUnreachable
}

func (d *datagrams) handle(e datagram) {
	switch {
	case e.err != nil:
		d.failed(e)
	case e.seq != 0:
		d.replied(e.seq, e.at)
	case d.run.plan.numbered():
		d.wrong(e.data)
	default:
		d.unnumbered(e)
	}
}

// failed takes in an error of the socket. Which datagram it is about is not said, so it counts for every round that was
// on its way: where one finds the port closed the others do, and reports may be few, for kernels limit their rate and
// keep one a socket. Should a reply come none the less, the round becomes late.
func (d *datagrams) failed(e datagram) {
	d.loseBefore(d.window.last+1, e.at, e.err)
	if !isReport(e.err) && e.from == d.conn {
		d.hangUp()
	}
}

// loseBefore gives up the rounds before seq that are on their way and left before at.
func (d *datagrams) loseBefore(seq uint32, at time.Duration, err error) {
	for s := d.oldest; s < seq; s++ {
		if t := d.window.get(s); t.state == waiting && t.left <= at {
			d.lose(s, t, reasonOf(err), err)
		}
	}
}

func (d *datagrams) lose(seq uint32, t *trip, reason Reason, err error) {
	t.giveUp(reason)
	d.onWay--
	d.run.lost(seq, nil, reason, err)
}

// replied takes in the right reply to a round. One to a round that is forgotten already (65,536 rounds ago) is ignored.
func (d *datagrams) replied(seq uint32, at time.Duration) {
	t := d.window.get(seq)
	if t == nil {
		return
	}
	rtt := at - t.left
	if t.state == answered || t.state == damaged {
		d.run.duplicated(seq, &rtt)
		return
	}
	if seq < d.highest {
		d.run.tally.addReordered()
	}
	d.highest = max(d.highest, seq)
	if t.state == waiting && rtt > d.run.plan.Timeout {
		d.overdue(seq, t)
	}
	if t.state == given {
		t.state = answered
		d.run.late(seq, rtt, t.givenFor())
		return
	}
	t.state = answered
	d.onWay--
	d.run.received(seq, rtt, nil)
}

// wrong takes in a datagram that is the right reply to no round. One for a round that was given up changes nothing:
// that round stays lost.
func (d *datagrams) wrong(b []byte) {
	seq := d.owner(b)
	if seq == 0 {
		return
	}
	switch t := d.window.get(seq); t.state {
	case waiting:
		d.damage(seq, t, b)
	case answered, damaged:
		d.run.duplicated(seq, nil)
	case given:
	}
}

// owner answers the round whose damaged reply b is, 0 when it is of none. The header says so, unless it is what was
// damaged: then the bytes as a whole do.
func (d *datagrams) owner(b []byte) uint32 {
	id, seq, ok := wire.Parse(b)
	claimed := ok && id == d.run.id && d.window.get(seq) != nil
	size := d.run.plan.PayloadBytes
	if claimed && (len(b) != size || wire.Resembles(b, id, seq)) {
		return seq
	}
	if len(b) == size {
		for s := d.oldest; s <= d.window.last; s++ {
			if d.window.get(s).state == waiting && wire.Resembles(b, d.run.id, s) {
				return s
			}
		}
	}
	if claimed {
		return seq
	}
	return 0
}

// unnumbered takes in a reply that has no room for a number. It belongs to the round that is on its way, unless its
// bytes are those of a round shortly before. (Empty ones are all alike: they belong to the round on its way.)
func (d *datagrams) unnumbered(e datagram) {
	last := d.window.last
	if last == 0 {
		return
	}
	current := d.window.get(last)
	if current.state == waiting && bytes.Equal(e.data, d.payload) {
		d.replied(last, e.at)
		return
	}
	if len(e.data) == len(d.payload) {
		for i := range min(last, recentRounds) {
			seq := last - i
			if !wire.Matches(e.data, d.run.id, seq) {
				continue
			}
			if d.window.get(seq).state == given {
				d.replied(seq, e.at)
				return
			}
			if len(e.data) > 0 {
				return // Came again, which is not counted for these.
			}
		}
	}
	if current.state == waiting {
		d.damage(last, current, e.data)
	}
}

func (d *datagrams) damage(seq uint32, t *trip, b []byte) {
	t.state = damaged
	d.onWay--
	d.run.corrupted(seq, nil, wrongReply(len(b), d.run.plan.PayloadBytes))
}

// wrongReply says what is wrong with a reply of so many bytes.
func wrongReply(got, want int) error {
	if got != want {
		return fmt.Errorf("the reply has %d bytes instead of %d", got, want)
	}
	return errors.New("the reply's bytes are not what was sent")
}

func (d *datagrams) overdue(seq uint32, t *trip) {
	d.lose(seq, t, ReasonTimeout, noReply(d.run.plan.Timeout))
}

func noReply(timeout time.Duration) error { return fmt.Errorf("no reply within %v", timeout) }

// expire relies on rounds leaving in order: the oldest is due first.
func (d *datagrams) expire(now time.Duration) {
	for t := d.first(); t != nil && now-t.left >= d.run.plan.Timeout; t = d.first() {
		d.overdue(d.oldest, t)
	}
}

func (d *datagrams) nextExpiry() time.Duration {
	if t := d.first(); t != nil {
		return t.left + d.run.plan.Timeout
	}
	return never
}

// first is the oldest round that is on its way, nil when there is none; oldest is its number then.
func (d *datagrams) first() *trip {
	for ; d.oldest <= d.window.last; d.oldest++ {
		if t := d.window.get(d.oldest); t.state == waiting {
			return t
		}
	}
	return nil
}
