package load

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/echod/echod/bench/internal/proc"
)

const (
	// waitFor bounds a wait for readiness, so that the end of the trial is seen.
	waitFor = 20 * time.Millisecond
	// patience is how long nothing at all may come back before the trial is given up.
	patience = 3 * time.Second
)

// Run does what p says, which takes p.Warm + p.For and the time to open the connections.
func Run(p Plan) (Result, error) {
	target, err := netip.ParseAddrPort(p.Target)
	if err != nil || !target.Addr().Is4() {
		return Result{}, fmt.Errorf("target %q is not an IPv4 address and port", p.Target)
	}
	if p.Conns < 1 || p.Depth < 1 || p.Size < 1 {
		return Result{}, fmt.Errorf("connections %d, depth %d and size %d must be 1 and up", p.Conns, p.Depth, p.Size)
	}
	t := &trial{plan: p, target: target, base: time.Now()}
	switch p.Kind {
	case PingPong:
		err = pingPong(t)
	case Bulk:
		err = bulk(t)
	case Connect:
		err = connect(t)
	case Datagrams:
		err = datagrams(t, 1)
	case Trains:
		err = datagrams(t, trainSegments(p.Size))
	default:
		err = fmt.Errorf("unknown kind of load %q", p.Kind)
	}
	if err != nil {
		return Result{}, err
	}
	return t.result()
}

// trial is the course of one run: it warms up, measures, and is over.
type trial struct {
	plan   Plan
	target netip.AddrPort
	base   time.Time

	begun     time.Duration // since base; when the load began
	measuring bool
	started   time.Duration // when measuring began
	ended     time.Duration
	progress  time.Duration // when last something came back
	cpu       time.Duration // the server's when measuring began, then what it used
	seen      Result
	trips     []uint32 // nanoseconds
}

// now is the time since the trial was made, by the monotonic clock.
func (t *trial) now() time.Duration { return time.Since(t.base) }

// begin starts the warm-up: the connections are open.
func (t *trial) begin() {
	t.begun = t.now()
	t.progress = t.begun
	t.trips = make([]uint32, 0, 1<<20)
}

// goesOn is asked once a turn. It reports whether there is time left, and turns from warming up to measuring.
func (t *trial) goesOn() (bool, error) {
	now := t.now()
	if now-t.progress > patience {
		return false, fmt.Errorf("nothing came back for %v", patience)
	}
	var err error
	switch {
	case !t.measuring && now-t.begun >= t.plan.Warm:
		t.measuring = true
		t.seen = Result{}
		t.trips = t.trips[:0]
		t.cpu, err = t.serverCPU()
		t.started = t.now()
	case t.measuring && now-t.started >= t.plan.For:
		t.ended = now
		var used time.Duration
		used, err = t.serverCPU()
		t.cpu = used - t.cpu
		return false, err
	}
	return err == nil, err
}

// came counts what came back.
func (t *trial) came(now time.Duration, echoes, bytes int) {
	t.progress = now
	t.seen.Echoes += uint64(echoes)
	t.seen.Bytes += uint64(bytes)
}

// trip notes a round trip. What does not fit in what begin made is of no use for a p99 any more and is left out.
func (t *trial) trip(d time.Duration) {
	if len(t.trips) < cap(t.trips) {
		t.trips = append(t.trips, uint32(min(d, time.Duration(1<<32-1))))
	}
}

func (t *trial) serverCPU() (time.Duration, error) {
	if t.plan.ServerPID == 0 {
		return 0, nil
	}
	return proc.GroupCPU(t.plan.ServerPID)
}

func (t *trial) result() (Result, error) {
	r := t.seen
	if r.Bytes == 0 {
		return Result{}, fmt.Errorf("nothing came back in %v", t.plan.For)
	}
	r.Elapsed = t.ended - t.started
	if t.plan.ServerPID != 0 {
		r.CPU = &t.cpu
	}
	if len(t.trips) > 0 {
		slices.Sort(t.trips)
		r.P50, r.P99 = quantile(t.trips, 0.50), quantile(t.trips, 0.99)
	}
	return r, nil
}

// quantile is the smallest trip that no less than the share q of all took.
func quantile(sorted []uint32, q float64) *time.Duration {
	i := min(int(q*float64(len(sorted))), len(sorted)-1)
	d := time.Duration(sorted[i])
	return &d
}
