package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/echod/echod/daemon/internal/wire"
)

const (
	// receiveBuffer is what a socket asks for, in bytes. A usual default holds less than a hundred packets.
	receiveBuffer = 4 << 20
	// longestDatagram is more than any datagram has, so that a read never cuts one.
	longestDatagram = 1 << 16
	// recentRounds is how far back the reply to a payload without a number is looked for. It is small, because a
	// payload of one byte has but 256 values.
	recentRounds = 16
	// searchedRounds and searchedBytes bound the rounds on their way that a damaged reply is compared with, and searches how
	// many such replies are in one turn: whoever floods us with what is of no round must not hold up the schedule.
	searchedRounds = 1024
	searchedBytes  = 64 << 10
	searches       = 8
	// sentNumbers is how many datagrams of a socket may wait for the kernel's word that they have left.
	sentNumbers = 4096
	// writesAgain is how often a write is tried again that fails with what may be a report on a datagram before.
	writesAgain = 3
)

// arrival is what the reader of a socket tells: a datagram, an error, or when a datagram has left.
type arrival struct {
	from   *udpFlow
	socket int // which of the flow's sockets, counted from 1
	at     time.Duration
	when   stamp // of the packet, if the kernel tells

	seq       uint32 // of a payload that is right, byte for byte, but may have another size than was sent; of an error, the round that it is about, if it says
	sent      int64  // when that payload says that it was sent
	size      int    // of the payload of that round
	data      []byte // of a payload that is not; nil when seq is set
	elsewhere bool   // it came from another address than the one asked
	err       error

	left   bool   // the datagram with this number has left
	number uint32 // counted from 0, of those that the socket has sent
}

// udpSocket is the socket of a flow. The run's goroutine alone uses it.
type udpSocket interface {
	// write sends a datagram. It waits for room in the socket's buffer until the deadline.
	write(b []byte, deadline time.Time) error
	// local is where the flow comes from, as far as it is known.
	local() netip.AddrPort
	// countAnew has the kernel number the datagrams that leave from 0 again.
	countAnew()
	// close ends it, and what reads from it.
	close()
}

// udpSockets opens the sockets of a run, and waits for what comes to them.
type udpSockets interface {
	waiter
	// open makes the socket of a flow. What comes to it is told with the flow, and with which of its sockets it is.
	open(f *udpFlow, which int) (udpSocket, error)
}

// udpFlow is one flow of datagrams.
type udpFlow struct {
	number  int
	socket  udpSocket // nil: none yet, or the last one broke
	sockets int       // that it has had
	payload []byte    // of its last round
	last    uint32    // its last round; 0: none

	sent    uint32   // datagrams that its socket has sent
	numbers []uint32 // the round of each, at its number modulo sentNumbers; nil unless the kernel stamps
}

// datagrams carries rounds over UDP sockets, one a flow. Replies are matched by run and sequence number, in any order.
//
// What cannot be ours is counted and ignored: another run's replies, and what resembles no round that was sent.
type datagrams struct {
	run     *run
	sockets udpSockets
	flows   []udpFlow

	searched int // damaged replies whose rounds were searched for in this turn
}

func newDatagrams(ctx context.Context, r *run) *datagrams {
	d := &datagrams{run: r, flows: make([]udpFlow, r.plan.flows())}
	for i := range d.flows {
		d.flows[i].number = i
	}
	if r.stamped() {
		d.sockets = newStampedSockets(ctx, r, d.handle)
	} else {
		d.sockets = newConnections(ctx, r, d.handle)
	}
	return d
}

func (d *datagrams) waiter() waiter { return d.sockets }
func (d *datagrams) room(int) bool  { return true }

func (d *datagrams) close() {
	for i := range d.flows {
		d.flows[i].hangUp()
	}
}

// hangUp closes the socket, which ends its reader.
func (f *udpFlow) hangUp() {
	if f.socket != nil {
		f.socket.close()
		f.socket = nil
	}
}

func (d *datagrams) begin(seq uint32, flow int, t *trip) {
	f := &d.flows[flow]
	f.last = seq
	if cap(f.payload) < int(t.size) {
		f.payload = make([]byte, max(int(t.size), d.run.plan.largest()))
	}
	f.payload = f.payload[:t.size]
	if err := d.send(seq, f, t); err != nil {
		d.run.lost(seq, nil, reasonOf(err), err)
	}
}

func (d *datagrams) send(seq uint32, f *udpFlow, t *trip) error {
	if err := d.open(f); err != nil {
		return err
	}
	err := d.write(seq, f, t)
	for i := 0; i < writesAgain && err != nil && isReport(err); i++ {
		// A report on a datagram before this one, which the kernel hands to whoever comes first. Ours has not left. Where
		// such reports come with the datagram that they are about, the reader has it, too.
		if !d.run.stamped() && reasonOf(err) == ReasonRefused {
			d.loseBefore(f, seq, d.run.now(), err)
		}
		err = d.write(seq, f, t)
	}
	if err != nil && reasonOf(err) == ReasonTooBig {
		return tooBigError{here: true}
	}
	if err != nil {
		return err
	}
	if f.numbers != nil {
		f.numbers[f.sent%sentNumbers] = seq
	}
	f.sent++
	return nil
}

func (d *datagrams) write(seq uint32, f *udpFlow, t *trip) error {
	deadline := time.Now().Add(d.run.plan.Timeout)
	t.left = d.run.now()
	wire.Fill(f.payload, d.run.id, seq, d.run.nanos(t.left))
	err := f.socket.write(f.payload, deadline)
	if err != nil && f.numbers != nil {
		// Kernels before 6.9 may have numbered the datagram that did not leave.
		f.socket.countAnew()
		f.sent = 0
	}
	return err
}

// open makes the flow's socket, when there is none.
func (d *datagrams) open(f *udpFlow) error {
	if f.socket != nil {
		return nil
	}
	socket, err := d.sockets.open(f, f.sockets+1)
	if err != nil {
		return err
	}
	f.socket, f.sent, f.numbers = socket, 0, nil
	f.sockets++
	if d.run.stamped() {
		f.numbers = make([]uint32, sentNumbers)
		d.run.tally.seeSenders()
	}
	d.run.tally.comeFrom(f.number, socket.local())
	return nil
}

// judge answers the number of the round to which b is the right reply if its size and when it says that it was sent are
// right, too, or else a copy of b.
func (r *run) judge(b []byte) (seq uint32, sent int64, wrong []byte) {
	id, seq, ok := wire.Parse(b)
	sent, _ = wire.Sent(b)
	if ok && seq != 0 && id == r.id && wire.Matches(b, id, seq, sent) {
		return seq, sent, nil
	}
	return 0, 0, bytes.Clone(b)
}

// addrPort answers the address of a TCP or UDP socket; invalid when it has none.
func addrPort(a net.Addr) netip.AddrPort {
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		p := a.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return netip.AddrPort{}
}

// isReport says whether err tells of an ICMP message that came back: it is about a datagram, the socket is well.
func isReport(err error) bool {
	switch reasonOf(err) {
	case ReasonRefused, ReasonUnreachable, ReasonTooBig:
		return true
	default:
		return false
	}
}

func (d *datagrams) handle(a arrival) {
	switch {
	case a.socket != a.from.sockets && (a.left || a.err != nil): // of a socket that broke; its rounds have been told of
	case a.left:
		d.stamp(a)
	case a.err != nil:
		d.failed(a)
	case a.elsewhere:
		d.fromElsewhere(a)
	case a.seq != 0:
		d.replied(a.seq, a)
	case d.run.plan.numbered():
		d.wrong(a.data)
	default:
		d.unnumbered(a)
	}
}

// stamp notes when a datagram has left. The card tells besides the kernel, and after it.
func (d *datagrams) stamp(a arrival) {
	if a.from.numbers == nil || a.from.sent-a.number > sentNumbers {
		return
	}
	if t := d.run.rounds.get(a.from.numbers[a.number%sentNumbers]); t != nil {
		t.sent = a.when.or(t.sent)
	}
}

// failed takes in an error of the socket. Where it is not said which datagram it is about, it counts for every round of
// the flow that was on its way: where one finds the port closed the others do, and reports may be few, for kernels limit
// their rate and keep one a socket. Should a reply come none the less, the round becomes late.
func (d *datagrams) failed(a arrival) {
	if a.seq != 0 {
		if t := d.run.rounds.get(a.seq); t != nil && t.state == waiting {
			d.run.lost(a.seq, nil, reasonOf(a.err), a.err)
		}
		return
	}
	d.loseBefore(a.from, d.run.rounds.last+1, a.at, a.err)
	if !isReport(a.err) {
		a.from.hangUp()
	}
}

// loseBefore gives up the rounds of a flow before seq that are on their way and left before at.
func (d *datagrams) loseBefore(f *udpFlow, seq uint32, at time.Duration, err error) {
	for s := d.run.rounds.oldest; s < seq; s++ {
		if t := d.run.rounds.get(s); t.state == waiting && t.left <= at && int(t.flow) == f.number && d.mayBe(err, t) {
			d.run.lost(s, nil, reasonOf(err), err)
		}
	}
}

// mayBe says whether an error can be about a round: not when it is said to be too big for an MTU that it fits.
func (d *datagrams) mayBe(err error, t *trip) bool {
	var big tooBigError
	return !errors.As(err, &big) || int(t.size)+ipHeaders(d.run.address.Addr()) > big.mtu
}

// fromElsewhere takes in what came from another address than the one asked.
func (d *datagrams) fromElsewhere(a arrival) {
	seq := a.seq
	if seq == 0 && len(a.data) > 0 && a.from.last != 0 && bytes.Equal(a.data, a.from.payload) {
		seq = a.from.last
	}
	if t := d.run.rounds.get(seq); t == nil || int(t.size) != a.size {
		d.run.tally.ignore()
		return
	}
	d.run.wrongAddress(seq)
}

// replied takes in the right reply to a round. One to a round that is forgotten already (65,536 rounds ago) is ignored.
func (d *datagrams) replied(seq uint32, a arrival) {
	t := d.run.rounds.get(seq)
	if t == nil {
		d.run.tally.ignore()
		return
	}
	if a.size != int(t.size) || a.size >= wire.StampedBytes && a.sent != d.run.nanos(t.left) {
		d.wrongFor(seq, a.size)
		return
	}
	x := d.run.times(a.at, a.at-t.left, t.sent, a.when)
	if t.state == answered || t.state == damaged || t.state == belated {
		d.run.duplicated(seq, &x)
		return
	}
	d.run.tally.reply(int(t.flow), seq)
	if t.state == waiting && x.network > d.run.plan.Timeout {
		d.overdue(seq)
	}
	if t.state == given {
		d.run.late(seq, x)
		return
	}
	d.run.received(seq, x, nil)
}

// wrong takes in a datagram that is the right reply to no round. One for a round that was given up changes nothing:
// that round stays lost.
func (d *datagrams) wrong(b []byte) {
	seq := d.owner(b)
	if seq == 0 {
		d.run.tally.ignore()
		return
	}
	d.wrongFor(seq, len(b))
}

// wrongFor takes in a reply of so many bytes that is of this round, and wrong.
func (d *datagrams) wrongFor(seq uint32, size int) {
	switch d.run.rounds.get(seq).state {
	case waiting:
		d.damage(seq, size)
	case answered, damaged, belated:
		d.run.duplicated(seq, nil)
	case given:
		d.run.tally.ignore()
	}
}

// owner answers the round whose damaged reply b is, 0 when it is of none. The header says so, unless it is what was
// damaged: then the bytes as a whole do.
func (d *datagrams) owner(b []byte) uint32 {
	id, seq, ok := wire.Parse(b)
	rounds := &d.run.rounds
	claimed := ok && id == d.run.id && rounds.get(seq) != nil
	if claimed && (len(b) != int(rounds.get(seq).size) || wire.Resembles(b, id, seq)) {
		return seq
	}
	most := uint32(min(searchedRounds, max(searchedBytes/max(len(b), 1), 16)))
	if d.searched++; d.searched > searches {
		most = 0
	}
	for s := rounds.oldest; s <= rounds.last && s-rounds.oldest < most; s++ {
		t := rounds.get(s)
		if t.state == waiting && int(t.size) == len(b) && wire.Resembles(b, d.run.id, s) {
			return s
		}
	}
	if claimed {
		return seq
	}
	return 0
}

// tellingBytes is how long a payload without a number must be for one that is not at all like the round's to be no damaged
// copy of it, but something else: the reply of an earlier run from the same port.
const tellingBytes = 8

// unnumbered takes in a reply that has no room for a number. It belongs to the round of its flow that is on its way,
// unless its bytes are those of a round shortly before. (Empty ones are all alike: they belong to the round on its way.)
func (d *datagrams) unnumbered(a arrival) {
	f := a.from
	if f.last == 0 {
		d.run.tally.ignore()
		return
	}
	current := d.run.rounds.get(f.last)
	if current.state == waiting && bytes.Equal(a.data, f.payload) {
		d.replied(f.last, a)
		return
	}
	for seq, i := f.last, 0; i < recentRounds && seq > 0; seq-- {
		t := d.run.rounds.get(seq)
		if t == nil {
			break
		}
		if int(t.flow) != f.number {
			continue
		}
		i++
		if len(a.data) != int(t.size) || !wire.Matches(a.data, d.run.id, seq, 0) {
			continue
		}
		if t.state == given && len(a.data) > 0 {
			d.replied(seq, a)
			return
		}
		if len(a.data) > 0 {
			d.run.tally.ignore() // Came again, which is not counted for these.
			return
		}
	}
	alike := a.size != int(current.size) || a.size < tellingBytes || wire.Resembles(a.data, d.run.id, f.last)
	if current.state == waiting && alike {
		d.damage(f.last, a.size)
		return
	}
	d.run.tally.ignore()
}

func (d *datagrams) damage(seq uint32, size int) {
	d.run.corrupted(seq, nil, wrongReply(size, int(d.run.rounds.get(seq).size)))
}

// wrongReply says what is wrong with a reply of so many bytes.
func wrongReply(got, want int) error {
	if got != want {
		return wrongSizeError{got, want}
	}
	return errors.New("the reply's bytes are not what was sent")
}

func (d *datagrams) overdue(seq uint32) {
	d.run.lost(seq, nil, ReasonTimeout, noReply(d.run.plan.Timeout))
}

func noReply(timeout time.Duration) error { return fmt.Errorf("no reply within %v", timeout) }

// expire relies on rounds leaving in order: the oldest is due first. It is called once a turn.
func (d *datagrams) expire(now time.Duration) {
	d.searched = 0
	rounds := &d.run.rounds
	for t := rounds.first(); t != nil && now-t.left >= d.wait(); t = rounds.first() {
		d.overdue(rounds.oldest)
	}
}

func (d *datagrams) nextExpiry() time.Duration {
	if t := d.run.rounds.first(); t != nil {
		return t.left + d.wait()
	}
	return never
}

// readGrace is how much longer than the timeout a round is waited for where the kernel tells when its reply came: a reply
// that was in time is not to be lost because this process was slow to read it.
const readGrace = 20 * time.Millisecond

func (d *datagrams) wait() time.Duration {
	if d.run.stamped() {
		return d.run.plan.Timeout + readGrace
	}
	return d.run.plan.Timeout
}
