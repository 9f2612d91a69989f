package probe

import (
	"bytes"
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/wire"
)

// lossyWire is a cable between two hosts, network namespaces of their own, that does to packets what a test says. Each end
// is a TUN device; what one host sends comes out of the other when this process has had it.
type lossyWire struct {
	near, far *tunHost
	treat     func(p packetSeen, there bool) []time.Duration // when copies come out; none: it is lost

	mu   sync.Mutex
	seen []packetSeen  // what went in, there
	out  [2][]delivery // what came out, there and back
}

// packetSeen is a packet on the wire.
type packetSeen struct {
	seq  uint32 // of the probe's payload; 0: of none
	at   time.Time
	ip   []byte // the header
	size int    // of the whole packet
}

// delivery is a packet that came out of the wire, and how long it was in it.
type delivery struct {
	seq  uint32
	kept time.Duration
}

// tunHost is one end.
type tunHost struct {
	namespace *os.File
	device    *os.File
	address   string
}

// newWire makes two hosts, 10.9.0.1 and 10.9.0.2, with a wire between them. It is gone with the test.
func newWire(t *testing.T, treat func(p packetSeen, there bool) []time.Duration) *lossyWire {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skipf("this needs iproute2: %v", err)
	}
	w := &lossyWire{treat: treat}
	w.near, w.far = newTUNHost(t, "10.9.0.1", "10.9.0.2"), newTUNHost(t, "10.9.0.2", "10.9.0.1")
	var carrying sync.WaitGroup
	carrying.Go(func() { w.carry(w.near, w.far, true) })
	carrying.Go(func() { w.carry(w.far, w.near, false) })
	t.Cleanup(func() {
		_ = w.near.device.Close()
		_ = w.far.device.Close()
		carrying.Wait()
	})
	return w
}

func newTUNHost(t *testing.T, address, peer string) *tunHost {
	t.Helper()
	h := &tunHost{address: address}
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err == nil {
		err = unix.Unshare(unix.CLONE_NEWNET)
	}
	if err != nil {
		runtime.UnlockOSThread()
		t.Skipf("making a network namespace needs root: %v", err)
	}
	defer home.Close()
	defer func() {
		// Where it cannot, the thread ends with its goroutine.
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err == nil {
			runtime.UnlockOSThread()
		}
	}()
	if h.namespace, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.namespace.Close() })
	if h.device, err = openTUN("probe0"); err != nil {
		t.Skipf("a TUN device cannot be made here: %v", err)
	}
	t.Cleanup(func() { _ = h.device.Close() })
	command := exec.Command("ip", "-batch", "-")
	command.Stdin = strings.NewReader(fmt.Sprintf("link set lo up\naddr add %s peer %s dev probe0\nlink set probe0 up mtu 1500 txqueuelen 10000\n", address, peer))
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("ip: %v: %s", err, output)
	}
	return h
}

// openTUN makes a device that takes and gives IP packets, in the namespace of this thread.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	var request struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], name)
	request.flags = unix.IFF_TUN | unix.IFF_NO_PI
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return nil, errors.Join(errno, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// do runs f on a thread in the host's namespace, and waits. Sockets that f makes on its own goroutine are the host's.
func (h *tunHost) do(f func()) error {
	var err error
	var doing sync.WaitGroup
	doing.Go(func() {
		runtime.LockOSThread() // Never unlocked: the thread ends with the goroutine.
		if err = unix.Setns(int(h.namespace.Fd()), unix.CLONE_NEWNET); err == nil {
			f()
		}
	})
	doing.Wait()
	return err
}

// carry takes packets from one host to the other until a device is closed.
func (w *lossyWire) carry(from, to *tunHost, there bool) {
	waiting := make(chan outgoing, 1024)
	var sending sync.WaitGroup
	sending.Go(func() { w.send(waiting, to, there) })
	defer sending.Wait()
	defer close(waiting)
	b := make([]byte, 1<<16)
	for {
		n, err := from.device.Read(b)
		if err != nil {
			return
		}
		p, ok := parsePacket(b[:n])
		if !ok {
			continue // IPv6's talk about itself
		}
		w.mu.Lock()
		if there {
			w.seen = append(w.seen, p)
		}
		copies := w.treat(p, there)
		w.mu.Unlock()
		for _, delay := range copies {
			waiting <- outgoing{at: p.at.Add(delay), packet: bytes.Clone(b[:n]), seen: p}
		}
	}
}

// parsePacket reads an IPv4 packet; false of any other.
func parsePacket(b []byte) (p packetSeen, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return p, false
	}
	header := int(b[0]&15) * 4
	p = packetSeen{at: time.Now(), ip: bytes.Clone(b[:header]), size: len(b)}
	if b[9] == unix.IPPROTO_UDP && len(b) >= header+8 {
		_, p.seq, _ = wire.Parse(b[header+8:])
	}
	return p, true
}

// outgoing is a packet that is to come out at a time.
type outgoing struct {
	at     time.Time
	packet []byte
	seen   packetSeen
}

// queue is packets by when they come out, and those of the same time in the order in which they went in.
type queue []outgoing

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(outgoing)) }
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// send lets packets out when it is time.
func (w *lossyWire) send(waiting <-chan outgoing, to *tunHost, there bool) {
	var q queue
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		for len(q) > 0 && !time.Now().Before(q[0].at) {
			x := heap.Pop(&q).(outgoing)
			w.mu.Lock()
			way := back
			if there {
				way = 0
			}
			w.out[way] = append(w.out[way], delivery{x.seen.seq, time.Since(x.seen.at)})
			w.mu.Unlock()
			if _, err := to.device.Write(x.packet); err != nil {
				return
			}
		}
		if len(q) > 0 {
			timer.Reset(time.Until(q[0].at))
		} else {
			timer.Reset(time.Hour)
		}
		select {
		case x, more := <-waiting:
			if !more {
				return
			}
			heap.Push(&q, x)
		case <-timer.C:
		}
	}
}

// back is where what came out on the way back is in lossyWire.out.
const back = 1

// echoOn opens an endpoint of ours on a host.
func echoOn(t *testing.T, h *tunHost, protocol echo.Protocol) {
	t.Helper()
	engine := echo.New(echo.Options{})
	t.Cleanup(func() { _ = engine.Close(context.Background()) })
	var opened error
	if err := h.do(func() {
		_, opened = engine.Listen(t.Context(), echo.Spec{Protocol: protocol, Listen: h.address + ":7"})
	}); err != nil || opened != nil {
		t.Fatal(err, opened)
	}
}

// probeOver runs a plan from the near end of a wire, and answers what it and the wire saw.
func probeOver(t *testing.T, w *lossyWire, plan Plan) (r Report, samples []Sample) {
	t.Helper()
	plan.Address = w.far.address + ":7"
	if err := w.near.do(func() { r, samples = runProber(t.Context(), t, New(Options{}), plan, nil) }); err != nil {
		t.Fatal(err)
	}
	return r, samples
}

// What comes of a probe over a wire that loses, delays, repeats and reorders is what the wire did, to the packet.
func TestWireThatLosesDelaysAndReorders(t *testing.T) {
	const ms = time.Millisecond
	stamping(t)
	random := rand.New(rand.NewPCG(11, 12))
	// 5 % are lost each way, 2 % come twice, and each takes 10 to 15 ms.
	w := newWire(t, func(p packetSeen, _ bool) (copies []time.Duration) {
		if p.seq == 0 {
			return []time.Duration{0}
		}
		n := 1
		if x := random.Float64(); x < 0.05 || p.seq == 1000 { // While the last is waited for, all that comes again comes.
			n = 0
		} else if x < 0.07 {
			n = 2
		}
		for range n {
			copies = append(copies, 10*ms+time.Duration(random.Int64N(int64(5*ms))))
		}
		return copies
	})
	echoOn(t, w.far, echo.UDP)
	for _, flows := range []int{1, 4} {
		w.mu.Lock()
		w.seen, w.out = nil, [2][]delivery{}
		w.mu.Unlock()
		plan := Plan{Protocol: UDP, Count: 1000, Interval: ms, Timeout: answeredWithin / 2, PayloadBytes: 64, Flows: flows}
		r, samples := probeOver(t, w, plan)
		referee(t, plan, r, samples)
		w.mu.Lock()
		out, seen := w.out, len(w.seen)
		w.mu.Unlock()
		if seen != 1000 {
			t.Errorf("the wire saw %d packets, want 1000", seen)
		}
		kept, copies := map[uint32]time.Duration{}, map[uint32]int{}
		for _, d := range slices.Concat(out[0], out[back]) {
			kept[d.seq] += d.kept
			copies[d.seq]++
		}
		answers := map[uint32]uint32{}
		highest := make([]uint32, flows)
		var duplicated, reordered uint32
		for _, d := range out[back] {
			if answers[d.seq]++; answers[d.seq] > 1 {
				duplicated++
				continue
			}
			flow := int(d.seq-1) % flows
			if d.seq < highest[flow] {
				reordered++
			}
			highest[flow] = max(highest[flow], d.seq)
		}
		received := uint32(len(answers))
		wantCounts(t, r, 1000, received, 1000-received, 0, 0)
		if *r.Duplicated != duplicated || *r.Reordered != reordered || duplicated == 0 || reordered == 0 || received == 1000 {
			t.Errorf("duplicated %d, reordered %d, by the wire %d, %d", *r.Duplicated, *r.Reordered, duplicated, reordered)
		}
		if x := r.Timestamps; x.Clock != KernelClock || x.Missing != 0 {
			t.Errorf("timestamps %+v", x)
			for _, s := range samples {
				if s.RTT != nil && *s.RTT == *s.ApplicationRTT {
					t.Errorf("the kernel does not tell the time of round %d, which left at %v and took %v", s.Seq, s.Left, *s.RTT)
				}
			}
		}
		// A round takes what the wire kept it, both ways, and a little in the kernels and in the endpoint.
		var more []time.Duration
		for _, s := range samples {
			if s.Outcome != Received || copies[s.Seq] != 2 {
				continue // Of several copies it is not said which was answered.
			}
			over := *s.RTT - kept[s.Seq]
			if over < 0 {
				t.Errorf("round %d took %v, and the wire alone %v", s.Seq, *s.RTT, kept[s.Seq])
			}
			more = append(more, over)
		}
		slices.Sort(more)
		if best := more[len(more)/20]; best > ms {
			t.Errorf("rounds take at least %v more than the wire keeps them, and %v in the middle", best, more[len(more)/2])
		}
		t.Logf("%d flows: %d received, %d duplicated, %d reordered; beside the wire: %v in the middle", flows, received, duplicated, reordered, more[len(more)/2])
	}
}

// An outage of the wire is told of with its start and its length, for each flow.
func TestWireWithAnOutage(t *testing.T) {
	const ms = time.Millisecond
	for _, flows := range []uint32{1, 2} {
		const first, last = 101, 150
		w := newWire(t, func(p packetSeen, there bool) []time.Duration {
			if there && p.seq >= first && p.seq <= last {
				return nil
			}
			return []time.Duration{0}
		})
		echoOn(t, w.far, echo.UDP)
		plan := Plan{Protocol: UDP, Count: 250, Interval: 2 * ms, Timeout: answeredWithin / 2, PayloadBytes: 64, Flows: int(flows)}
		r, samples := probeOver(t, w, plan)
		referee(t, plan, r, samples)
		wantCounts(t, r, 250, 200, 50, 0, 0)
		if len(r.Outages) != int(flows) {
			t.Fatalf("outages %+v", r.Outages)
		}
		left := map[uint32]time.Duration{}
		for _, s := range samples {
			left[s.Seq] = s.Left
		}
		for i, o := range r.Outages {
			begin, end := uint32(first+i), uint32(last+1+i)
			want := Outage{Flow: int(begin-1) % int(flows), Start: left[begin], Length: left[end] - left[begin], Lost: 50 / flows}
			if o != want {
				t.Errorf("outage %+v, want %+v", o, want)
			}
		}
	}
}

// What the wire sees of the packets is what the plan says of them; too large ones with the DF bit never leave.
func TestWireSeesThePackets(t *testing.T) {
	w := newWire(t, func(packetSeen, bool) []time.Duration { return []time.Duration{0} })
	echoOn(t, w.far, echo.UDP)
	plan := Plan{
		Protocol: UDP, Count: 3, Timeout: patience, PayloadBytes: 1472, DSCP: 46, TTL: 17, DontFragment: true,
	}
	r, _ := probeOver(t, w, plan)
	wantCounts(t, r, 3, 3, 0, 0, 0)
	w.mu.Lock()
	for _, p := range w.seen {
		if p.ip[1] != 46<<2 || p.ip[8] != 17 || p.ip[6]&0x40 == 0 || p.size != 1500 {
			t.Errorf("tos %#x, ttl %d, flags %#x, %d bytes", p.ip[1], p.ip[8], p.ip[6]>>5, p.size)
		}
	}
	seen := len(w.seen)
	w.mu.Unlock()

	plan.PayloadBytes = 1473
	r, _ = probeOver(t, w, plan)
	wantCounts(t, r, 3, 0, 3, 0, 0)
	wantReason(t, r, ReasonTooBig, 3)

	plan.DontFragment = false
	r, _ = probeOver(t, w, plan)
	wantCounts(t, r, 3, 3, 0, 0, 0)
	w.mu.Lock()
	defer w.mu.Unlock()
	if pieces := len(w.seen) - seen; pieces != 6 {
		t.Errorf("the wire saw %d packets of too large datagrams, want 2 pieces of each of 3, and none with the DF bit", pieces)
	}
	for _, p := range w.seen[seen:] {
		if p.ip[6]&0x40 != 0 {
			t.Errorf("a piece has the DF bit: %#x", binary.BigEndian.Uint16(p.ip[6:]))
		}
	}
}
