package load

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	udpBatch = 64
	// trainBatch of trains are received at a time.
	trainBatch = 16
	// trainBytes is what the largest datagram over IPv4 carries.
	trainBytes = 65507
	// maxSegments a train may have in every kernel that knows trains (UDP_MAX_SEGMENTS was 64 before it was 128).
	maxSegments = 64
	// giveUpAfter is how long a flow may be silent before what it waits for is counted as lost and sent anew.
	giveUpAfter = 100 * time.Millisecond
)

// trainSegments is how many datagrams of size bytes make a train.
func trainSegments(size int) int { return max(1, min(trainBytes/size, maxSegments)) }

// flow is a connected UDP socket.
type flow struct {
	fd       int
	underWay int // datagrams sent and not yet back
	heard    time.Duration
}

// udpLoad is what the flows share.
type udpLoad struct {
	trial   *trial
	flows   []flow
	payload pattern
	train   int // datagrams in one message
	out     []message
	in      []message
	rooms   [][]byte // of in
	swept   time.Duration
}

// datagrams keeps the plan's flows full. Every byte is compared. What does not come back is counted as lost.
func datagrams(t *trial, train int) error {
	p, err := newPoller()
	if err != nil {
		return err
	}
	defer p.close()
	u := newUDPLoad(t, train)
	defer u.close()
	for i := range u.flows {
		if err := u.open(p, i); err != nil {
			return err
		}
	}
	return p.turns(t, func(i int) error { return u.ready(&u.flows[i]) }, u.sweep)
}

func newUDPLoad(t *trial, train int) *udpLoad {
	size, batch, room := t.plan.Size, udpBatch, t.plan.Size
	if train > 1 {
		batch, room = trainBatch, 64<<10
	}
	u := &udpLoad{trial: t, flows: make([]flow, t.plan.Conns), train: train, payload: newPattern(size, max(room, train*size))}
	for i := range u.flows {
		u.flows[i].fd = -1
	}
	u.out, _ = messagesOver(u.payload.bytes, min(udpBatch, t.plan.Depth), train*size)
	u.in, u.rooms = messagesOver(nil, batch, room)
	return u
}

func (u *udpLoad) close() {
	for _, f := range u.flows {
		if f.fd >= 0 {
			_ = unix.Close(f.fd)
		}
	}
}

// open makes flow i and sends its first datagrams.
func (u *udpLoad) open(p *poller, i int) error {
	f := &u.flows[i]
	fd, err := dial(u.trial.target, unix.SOCK_DGRAM, u.trial.plan.TOS)
	if err != nil {
		return err
	}
	f.fd = fd
	f.heard = u.trial.now()
	if u.train > 1 {
		if err := offload(fd, u.trial.plan.Size); err != nil {
			return err
		}
	}
	if err := p.add(fd, i); err != nil {
		return err
	}
	return u.fill(f)
}

// offload has the kernel cut what is sent into datagrams of size bytes and join what is received.
func offload(fd, size int) error {
	err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, size)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	}
	if err != nil {
		return fmt.Errorf("cannot switch on segmentation offload: %w", err)
	}
	return nil
}

// ready takes what came back to f and sends as much anew.
func (u *udpLoad) ready(f *flow) error {
	n, err := receiveBatch(f.fd, u.in)
	if err != nil || n == 0 {
		return err
	}
	size := u.trial.plan.Size
	echoes, bytes := 0, 0
	for i := range n {
		got := int(u.in[i].n)
		if got == 0 || got%size != 0 || got > len(u.rooms[i]) || !u.payload.matches(u.rooms[i][:got], 0) {
			return errNotOurs
		}
		echoes += got / size
		bytes += got
	}
	f.heard = u.trial.now()
	f.underWay = max(0, f.underWay-echoes) // below 0 when what was given up comes after all
	u.trial.came(f.heard, echoes, bytes)
	return u.fill(f)
}

// fill sends as many whole messages as Depth leaves room for.
func (u *udpLoad) fill(f *flow) error {
	for {
		room := (u.trial.plan.Depth - f.underWay) / u.train
		if room == 0 {
			return nil
		}
		n, err := sendBatch(f.fd, u.out[:min(room, len(u.out))])
		if err != nil || n == 0 {
			return err
		}
		f.underWay += n * u.train
	}
}

// sweep gives up what silent flows wait for and starts them anew.
func (u *udpLoad) sweep() error {
	now := u.trial.now()
	if now-u.swept < giveUpAfter/2 {
		return nil
	}
	u.swept = now
	for i := range u.flows {
		f := &u.flows[i]
		if now-f.heard < giveUpAfter {
			continue
		}
		u.trial.seen.Lost += uint64(f.underWay)
		f.underWay, f.heard = 0, now
		if err := u.fill(f); err != nil {
			return err
		}
	}
	return nil
}
