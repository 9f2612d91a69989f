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
	// batchesATurn bounds what one socket may do before others have their turn.
	batchesATurn = 8
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
	counters *counters
	fd       int
	at       int32
	queued   bool // it has asked for another turn
	retry    timer
	pause    time.Duration
	closed   bool
	finish   func(error)
	once     sync.Once

	open sync.Mutex // held over a look at the descriptor by others than the loop, and over its closing
	shut bool
}

// udpBatch is what one call reads into, and the next one writes from. It belongs to a loop.
type udpBatch struct {
	headers [batchSize]mmsghdr
	vectors [batchSize]unix.Iovec
	names   [batchSize][nameBytes]byte
	control []byte
	payload []byte
	used    int // headers from the first that a read has written to
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	length uint32
}

func newUDPBatch() *udpBatch {
	return &udpBatch{
		payload: make([]byte, batchSize*slotStride), control: make([]byte, batchSize*controlBytes), used: batchSize,
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

func (g *loops) bindUDP(ctx context.Context, a Address, guard *guard, c *counters) (server, netip.AddrPort, error) {
	if err := ctx.Err(); err != nil {
		return nil, netip.AddrPort{}, err
	}
	if isBroadcast(a.IP) {
		return nil, netip.AddrPort{}, errBroadcast
	}
	if err := g.ensure(); err != nil {
		return nil, netip.AddrPort{}, err
	}
	s := &loopUDP{guard: guard, counters: c}
	fd, bound, err := bindSocket(a, unix.SOCK_DGRAM, func(fd int) error {
		// Wishes: smaller buffers lose datagrams sooner under load and are no reason not to serve.
		_ = setOptions(fd, option{unix.SOL_SOCKET, unix.SO_RCVBUF, udpSocketBytes})
		_ = setOptions(fd, option{unix.SOL_SOCKET, unix.SO_SNDBUF, udpSocketBytes})
		// Before the bind: there must be no datagram that came without its control messages.
		return askControl(fd, isIPv6(fd), a.wildcard())
	})
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	s.fd, s.home = fd, g.assign(nil)
	s.retry.call = func() { s.handle(unix.EPOLLIN) }
	return s, bound, nil
}

func (s *loopUDP) start(finish func(error)) {
	s.finish = finish
	s.home.do(func() {
		if s.closed {
			return
		}
		if s.home.batch == nil {
			s.home.batch = newUDPBatch()
		}
		at, err := s.home.add(s.fd, s)
		if err != nil {
			s.closed = true
			s.abandon()
			s.end(err)
			return
		}
		s.at = at
	})
}

// handle echoes what waits, for a while. No error ends it: one of reading is an earlier datagram's, or passes.
func (s *loopUDP) handle(events uint32) {
	if events == 0 {
		s.queued = false
	}
	if s.closed {
		return
	}
	for range batchesATurn {
		n, errno := s.receive()
		switch {
		case errno == unix.EAGAIN:
			return
		case errno == unix.EINTR:
			continue
		case errno != 0:
			s.counters.readErrors.Add(1)
			s.pause = min(max(2*s.pause, firstPause), maxPause)
			s.home.timers.set(&s.retry, s.home.now+s.pause)
			return
		}
		s.pause = 0
		s.reply(n)
		if n < batchSize {
			return // whatever has come since is a new edge
		}
	}
	if !s.queued {
		s.queued = true
		s.home.later(s)
	}
}

// receive reads up to a batch of datagrams.
func (s *loopUDP) receive() (int, syscall.Errno) {
	b := s.home.batch
	b.prepare()
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&b.headers[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		b.used = batchSize // it may have written to some
		return 0, errno
	}
	b.used = int(n)
	return int(n), 0
}

// reply sends a batch back, each datagram to where it came from, and counts those that it does not.
func (s *loopUDP) reply(n int) {
	b := s.home.batch
	var bytes uint64
	send := 0
	for i := range n {
		h := &b.headers[i]
		bytes += uint64(h.length)
		if !s.prepare(h, i) {
			continue
		}
		if send != i {
			b.headers[send], b.headers[i] = b.headers[i], b.headers[send]
		}
		send++
	}
	s.counters.datagramsIn.Add(uint64(n))
	s.counters.bytesIn.Add(bytes)
	s.counters.lastActivity.Store(s.home.start.UnixNano() + int64(s.home.now))
	s.send(b.headers[:send])
}

// prepare makes a datagram that was read the one to send, or counts why there is none.
func (s *loopUDP) prepare(h *mmsghdr, i int) bool {
	b := s.home.batch
	if reason := s.guard.refuse(sourceOf(&b.names[i]), s.counters); reason != nil {
		reason.Add(1)
		return false
	}
	control, reason := answerControl(b.control[i*controlBytes:][:h.Controllen], s.guard, s.counters)
	if reason != nil {
		reason.Add(1)
		return false
	}
	h.Iov.SetLen(int(h.length))
	h.SetControllen(len(control))
	return true
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

// send sends a batch. A datagram that cannot be sent is counted, and the others go on.
func (s *loopUDP) send(batch []mmsghdr) {
	for len(batch) > 0 {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&batch[0])), uintptr(atOnce(batch)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		sent := int(n)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			s.counters.writeErrors.Add(1)
			sent = 0
		}
		var bytes uint64
		for _, h := range batch[:sent] {
			bytes += uint64(h.length)
		}
		s.counters.datagramsOut.Add(uint64(sent))
		s.counters.bytesOut.Add(bytes)
		if errno != 0 {
			sent = 1 // the one that failed
		}
		batch = batch[sent:]
	}
}

func (s *loopUDP) update(_ TCPOptions, o UDPOptions) { s.guard.set(o) }

// stop closes the socket and returns when its port is free.
func (s *loopUDP) stop() {
	gone := make(chan struct{})
	s.home.do(func() {
		defer close(gone)
		if s.closed {
			return
		}
		s.closed = true
		s.home.timers.cancel(&s.retry)
		s.home.release(s.at)
		s.abandon()
	})
	<-gone
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
