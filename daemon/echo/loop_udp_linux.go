package echo

import (
	"context"
	"encoding/binary"
	"net/netip"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchSize is how many datagrams one call reads or writes, and sendAtOnce how many bytes one call writes (or one
	// datagram). The calls are raw: told of a call that takes longer than 20 us, Go's scheduler gives the loop's
	// processor to another thread, which costs more than half as much again as the call. For it the calls must end soon,
	// since garbage collection waits for them.
	sendAtOnce = 128 << 10
	batchSize  = 32
	// trainsAtOnce is batchSize where the datagrams come in trains, for the same reason.
	trainsAtOnce = 4
	// bytesATurn bounds what one socket may do before others have their turn, with perBatch for what a batch costs
	// whatever is in it.
	bytesATurn = 1 << 20
	perBatch   = 128 << 10
	// slotStride keeps the buffers of a batch from falling on the same lines of the processor's cache, as a power of two
	// would.
	slotStride = udpReadBytes + 2112
	// nameBytes holds an IPv6 socket address.
	nameBytes = unix.SizeofSockaddrInet6
)

// loopUDP is a UDP endpoint that a loop serves.
type loopUDP struct {
	home     *loop
	guard    *guard
	ledgers  *ledgers
	counters *counters
	fd       int
	at       int32
	queued   bool // it has asked for another turn
	retry    timer
	backoff  time.Duration
	closed   bool
	finish   func(error)
	once     sync.Once

	open sync.Mutex // held over a look at the descriptor by others than the loop, and over its closing
	shut bool
}

// udpBatch is what one call reads into, and the next one writes from. It belongs to a loop.
type udpBatch struct {
	headers   [batchSize]mmsghdr
	datagrams [batchSize]int // that each message is answered with: more than one in a train
	vectors   [batchSize]unix.Iovec
	names     [batchSize][nameBytes]byte
	control   []byte
	payload   []byte
	used      int // headers from the first that are to be made ready before the next read
	size      int // headers that the next read may fill
	bytes     int // that the last one brought
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	length uint32
}

func newUDPBatch() *udpBatch {
	return &udpBatch{
		payload: make([]byte, batchSize*slotStride), control: make([]byte, batchSize*controlBytes),
		used: batchSize, size: batchSize,
	}
}

// resize chooses how many messages to read next, by what was read last: few trains have many bytes.
func (b *udpBatch) resize() {
	b.size = batchSize
	if b.bytes > trainsAtOnce*udpReadBytes/2 {
		b.size = trainsAtOnce
	}
}

// prepare makes the headers that were used ready to be read into.
func (b *udpBatch) prepare() {
	for i := range b.used {
		b.vectors[i].Base = &b.payload[i*slotStride]
		b.vectors[i].SetLen(udpReadBytes)
		h := &b.headers[i].Msghdr
		*h = unix.Msghdr{Name: &b.names[i][0], Namelen: nameBytes, Iov: &b.vectors[i], Control: &b.control[i*controlBytes]}
		h.SetIovlen(1)
		h.SetControllen(controlBytes)
	}
	b.used = 0
}

func (g *loops) bindUDP(ctx context.Context, a Address, spec Spec, guard *guard, l *ledgers, c *counters) (server, netip.AddrPort, error) {
	if err := ctx.Err(); err != nil {
		return nil, netip.AddrPort{}, err
	}
	if err := g.ensure(); err != nil {
		return nil, netip.AddrPort{}, err
	}
	fd, bound, err := bindSocket(a, unix.SOCK_DGRAM, spec, func(fd int) error {
		if isBroadcast(a.IP) {
			return errBroadcast
		}
		// Before the bind: there must be no datagram that came without its control messages.
		return prepareLoopUDP(fd, a)
	})
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	return g.newUDP(fd, guard, l, c), bound, nil
}

// prepareLoopUDP sets what the socket of a UDP endpoint needs.
func prepareLoopUDP(fd int, a Address) error {
	// Wishes: to serve does not need them.
	askReceiveBuffer(fd)
	_ = setOptions(fd, option{unix.SOL_SOCKET, unix.SO_SNDBUF, udpSocketBytes})
	_ = setOptions(fd, option{unix.IPPROTO_UDP, unix.UDP_GRO, 1}) // trains come and go whole
	return askControl(fd, isIPv6(fd), a.wildcard())
}

func (g *loops) newUDP(fd int, guard *guard, l *ledgers, c *counters) *loopUDP {
	guard.namespace = namespaceOf(fd)
	s := &loopUDP{fd: fd, home: g.assign(nil), guard: guard, ledgers: l, counters: c}
	s.retry.owner = s
	return s
}

func (s *loopUDP) start(finish func(error), paused bool) {
	s.finish = finish
	if paused {
		return
	}
	s.home.do(func() {
		if err := s.serve(); err != nil {
			s.end(err)
		}
	})
}

// serve has the home loop serve the socket. If it cannot, the socket is closed.
func (s *loopUDP) serve() error {
	if s.closed {
		return nil
	}
	if s.home.batch == nil {
		s.home.batch = newUDPBatch()
	}
	at, err := s.home.add(s.fd, s)
	if err != nil {
		s.closed = true
		s.abandon()
		return err
	}
	s.at = at
	return nil
}

// handle echoes what waits, for a while. No error ends it: one of reading is an earlier datagram's, or passes.
func (s *loopUDP) handle(events uint32) {
	if events == 0 {
		s.queued = false
	}
	if s.closed || s.retry.index > 0 { // a pause lasts, whatever comes meanwhile
		return
	}
	b := s.home.batch
	for left := bytesATurn; left > 0; left -= b.bytes + perBatch {
		n, errno := s.receive()
		switch {
		case errno == unix.EAGAIN:
			return
		case errno == unix.EINTR:
			continue
		case errno != 0:
			s.counters.count(errorRead, 1)
			s.backoff = min(max(2*s.backoff, firstPause), maxPause)
			s.home.timers.set(&s.retry, s.home.now+s.backoff)
			return
		}
		s.backoff = 0
		asked := b.size
		s.reply(n)
		if n < asked {
			return // whatever has come since is a new edge
		}
	}
	if !s.queued {
		s.queued = true
		s.home.later(s)
	}
}

// expire ends a pause.
func (s *loopUDP) expire() { s.handle(unix.EPOLLIN) }

// receive reads up to a batch of messages.
func (s *loopUDP) receive() (int, syscall.Errno) {
	b := s.home.batch
	b.prepare()
	n, errno := receiveBatch(s.fd, b.headers[:b.size])
	if errno != 0 {
		b.used = b.size // it may have written to some
		return 0, errno
	}
	b.used = n
	return n, 0
}

// reply sends a batch back, each message to where it came from, and counts those that it does not.
func (s *loopUDP) reply(n int) {
	b := s.home.batch
	b.bytes = 0
	send, datagrams := 0, 0
	for i := range n {
		h := &b.headers[i]
		b.bytes += int(h.length)
		came, answered, refused := s.prepare(h, i)
		datagrams += came
		if answered < came {
			s.counters.count(refused, uint64(came-answered))
		}
		if answered == 0 {
			continue
		}
		b.datagrams[i] = answered
		if send != i {
			b.headers[send], b.headers[i] = b.headers[i], b.headers[send]
			b.datagrams[send], b.datagrams[i] = b.datagrams[i], b.datagrams[send]
		}
		send++
	}
	s.counters.datagramsIn.Add(uint64(datagrams))
	s.counters.bytesIn.Add(uint64(b.bytes))
	s.counters.lastActivity.Store(s.home.clock())
	s.send(b.headers[:send], b.datagrams[:send])
	b.resize()
}

// prepare makes a message that was read the one to send. It answers how many datagrams it had, how many of them are
// answered, and why the others are not.
func (s *loopUDP) prepare(h *mmsghdr, i int) (came, answered int, refused event) {
	b := s.home.batch
	bytes := int(h.length)
	control := b.control[i*controlBytes:][:h.Controllen]
	size, seen, refused := answerControl(control, !s.guard.off.Load())
	if size <= 0 || size > bytes {
		size = bytes // not a train
	}
	came = max(1, (bytes+size-1)/max(size, 1))
	if refused == noEvent {
		answered, refused = s.guard.admit(sourceOf(&b.names[i]), came, size, bytes, s.home.now)
	}
	if message := b.payload[i*slotStride:][:bytes]; isProbe(message) {
		s.ledgers.note(message, size, answered, seen, s.home.start.Add(s.home.now), s.counters)
	}
	if answered < came {
		h.length = uint32(answered * size)
		if answered == 1 {
			uncouple(control)
		}
	}
	h.Iov.SetLen(int(h.length))
	return came, answered, refused
}

// sourceOf reads a socket address: the family (2 bytes of the host's order), the port in network order, and the address,
// which for IPv6 stands behind the flow label.
func sourceOf(name *[nameBytes]byte) netip.AddrPort {
	port := binary.BigEndian.Uint16(name[2:4])
	if binary.NativeEndian.Uint16(name[:2]) == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(name[4:8])), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(name[8:24])).Unmap(), port)
}

// atOnce answers how many datagrams of a batch to send with one call.
func atOnce(batch []mmsghdr) int {
	bytes := 0
	for i := range batch {
		if bytes += int(batch[i].length); bytes > sendAtOnce {
			return max(i, 1)
		}
	}
	return len(batch)
}

// send sends a batch. What cannot be sent is counted, and the others go on.
func (s *loopUDP) send(batch []mmsghdr, datagrams []int) {
	for len(batch) > 0 {
		sent, errno := sendBatch(s.fd, batch[:atOnce(batch)])
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			// It is the first one's.
			if datagrams[0] > 1 {
				s.sendApart(&batch[0], datagrams[0])
			} else {
				s.ledgers.unsent(unsafe.Slice(batch[0].Iov.Base, batch[0].length))
				s.counters.count(notSent(errno), 1)
			}
			batch, datagrams = batch[1:], datagrams[1:]
			continue
		}
		for i := range sent {
			s.counters.datagramsOut.Add(uint64(datagrams[i]))
			s.counters.bytesOut.Add(uint64(batch[i].length))
		}
		batch, datagrams = batch[sent:], datagrams[sent:]
	}
}

// sendApart sends a train that cannot be sent as one, a datagram after the other: the way back may have a smaller MTU than
// the way here, or a device that does not do its part.
func (s *loopUDP) sendApart(train *mmsghdr, datagrams int) {
	segment := uncouple(unsafe.Slice(train.Control, train.Controllen))
	payload := unsafe.Slice(train.Iov.Base, train.length)
	for range datagrams {
		one := payload[:min(segment, len(payload))]
		payload = payload[len(one):]
		train.Iov.Base = unsafe.SliceData(one)
		train.Iov.SetLen(len(one))
		train.length = uint32(len(one))
		s.send(unsafe.Slice(train, 1), single[:])
	}
}

// single is how many datagrams a message is that is no train.
var single = [...]int{1}

func (s *loopUDP) update(spec Spec) { s.guard.set(spec) }

// stop closes the socket and returns when its port is free.
func (s *loopUDP) stop() {
	s.home.await(func() {
		if s.closed {
			return
		}
		s.closed = true
		s.home.timers.cancel(&s.retry)
		s.home.remove(s.at, s.fd)
		s.abandon()
	})
	s.end(nil)
}

func (s *loopUDP) end(err error) { s.once.Do(func() { s.finish(err) }) }

// abandon gives back the socket.
func (s *loopUDP) abandon() {
	s.observe()
	s.open.Lock()
	defer s.open.Unlock()
	s.shut = true
	_ = unix.Close(s.fd)
	s.home.leave()
}

func (s *loopUDP) observe() {
	s.open.Lock()
	defer s.open.Unlock()
	if !s.shut {
		observeDrops(s.fd, s.counters)
	}
}

// cut has nothing left to end after stop.
func (s *loopUDP) cut() {}
