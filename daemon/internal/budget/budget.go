// Package budget keeps account of what a daemon's probes take together, and refuses the one that would be too much: too
// many at once, too fast, too large, or too many towards one address. It counts what is planned, before anything is
// sent, and starts and sends nothing itself. A probe that would send as fast as answers come is allotted how fast it may.
// server makes the budget; runs and the monitors' runner reserve in it.
package budget

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/echod/echod/daemon/probe"
)

// What errors.Is finds in the errors of a budget. Their text says which limit, its value, what is in use, and which flag
// raises it.
var (
	// ErrTooLarge: the probe alone is above a limit, whenever it is started.
	ErrTooLarge = errors.New("the probe is above a limit")
	// ErrUsedUp: others that run now leave too little. It may be started once they have ended.
	ErrUsedUp = errors.New("probes that run take what there is")
)

// Limits are how much probes may take, together unless said otherwise. 0 is no limit.
type Limits struct {
	// Probes is how many may run at once.
	Probes int
	// RoundsPerSecond is how fast rounds may leave.
	RoundsPerSecond float64
	// Sockets is how many may be open at once.
	Sockets int
	// MemoryBytes is about how much memory they may take.
	MemoryBytes int64
	// Duration is for how long one of them may let rounds leave.
	Duration time.Duration
	// TargetProbes, TargetRoundsPerSecond and TargetBitsPerSecond (of payload) are for those towards one address,
	// whatever the port. Loopback addresses have none: nobody else is there.
	TargetProbes          int
	TargetRoundsPerSecond float64
	TargetBitsPerSecond   float64
}

// Budget keeps the account. It is safe for concurrent use.
type Budget struct {
	limits Limits

	mu      sync.Mutex // guards what follows and the fields of the shares
	used    use
	targets map[netip.Addr]use // of the addresses that shares have reached, without their zones
}

// use is how much is taken of what is limited.
type use struct {
	probes              int
	rate, bitsPerSecond float64
	sockets             int
	memory              int64
}

func (u use) plus(o use) use {
	return use{u.probes + o.probes, u.rate + o.rate, u.bitsPerSecond + o.bitsPerSecond, u.sockets + o.sockets, u.memory + o.memory}
}

func (u use) minus(o use) use {
	return use{u.probes - o.probes, u.rate - o.rate, u.bitsPerSecond - o.bitsPerSecond, u.sockets - o.sockets, u.memory - o.memory}
}

// atRate is the same for a probe whose rounds leave at another rate.
func (u use) atRate(rate float64) use {
	u.rate, u.bitsPerSecond = rate, u.bitsPerSecond*rate/u.rate
	return u
}

// New makes an account in which nothing is taken.
func New(l Limits) *Budget { return &Budget{limits: l, targets: map[netip.Addr]use{}} }

// Share is what one probe takes, from Reserve until Release.
type Share struct {
	budget  *Budget
	use     use
	least   float64 // rounds a second that a probe without an interval takes at least; 0: it has one
	maxRate float64 // that its rounds are held to, as Plan.MaxRate

	target   netip.Addr // what it counts towards; invalid: nothing yet
	released bool
}

// Reserve takes what a plan needs, and answers the plan as it may run: Duration is filled in where it could run for
// longer than is allowed, and MaxRate where it has no Interval: of each limit on rates it is allotted a quarter of what is
// left, but what it sends when nothing answers, and a round a second, in any case. Where the plan's address has a name, the share of the target is
// taken by the plan's Admit, which Reserve sets, once the name was looked up; that may lower the rate. The plan must have
// passed Validate. The error is ErrTooLarge or ErrUsedUp, and then nothing is taken.
func (b *Budget) Reserve(plan probe.Plan) (*Share, probe.Plan, error) {
	cost := plan.Cost()
	if most := b.limits.Duration; most > 0 && (cost.Length == 0 || cost.Length > most) {
		if plan.Duration > most {
			return nil, plan, fmt.Errorf("%w: a duration of %v is more than %v (--max-probe-duration)", ErrTooLarge, plan.Duration, most)
		}
		if plan.Duration == 0 {
			plan.Duration = most
		}
	}
	s := &Share{budget: b, use: use{1, cost.RoundsPerSecond, cost.BitsPerSecond, cost.Sockets, cost.MemoryBytes}}
	if plan.Interval == 0 {
		s.least, s.maxRate = max(cost.RoundsPerSecond, leastLoop), plan.MaxRate
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := s.allot(func(asked use) []limit { return b.limits.together(b.used, asked) }); err != nil {
		return nil, plan, err
	}
	if address, ok := plan.Literal(); ok {
		if err := s.reachLocked(address.Addr()); err != nil {
			return nil, plan, err
		}
	}
	b.used = b.used.plus(s.use)
	plan.MaxRate, plan.Admit = s.maxRate, s.reach
	return s, plan, nil
}

// allot takes as much of limits as the probe needs, and where it has no interval as much more as there is for it.
func (s *Share) allot(limits func(asked use) []limit) error {
	rate := s.maxRate
	for _, l := range limits(s.use) {
		if s.least == 0 || !l.perSecond || l.most == 0 || l.asked == 0 {
			continue
		}
		// In proportion: what is asked for at one rate, and what there is.
		most := max(s.use.rate*(l.most-l.used)/loopPart/l.asked, s.least)
		if rate == 0 || most < rate {
			rate = most
		}
	}
	taken := s.use
	if rate > 0 {
		taken = taken.atRate(rate)
	}
	if err := check(limits(taken)); err != nil {
		return err
	}
	s.use, s.maxRate = taken, rate
	return nil
}

// leastLoop is how many rounds a second a probe without an interval is allotted at the least, however long it waits for a
// reply: one that got less would do nothing that anybody waits for.
const leastLoop = 1

// loopPart says which part of what is left a probe without an interval gets: so there is always room for others.
const loopPart = 4

// reach takes the share of the target at an address, unless it has been taken, and answers the rate that is left to the
// probe; 0: as fast as it can.
func (s *Share) reach(address netip.AddrPort) (maxRate float64, err error) {
	b := s.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	before := s.use
	if err := s.reachLocked(address.Addr()); err != nil {
		return 0, err
	}
	b.used = b.used.minus(before).plus(s.use)
	return s.maxRate, nil
}

func (s *Share) reachLocked(addr netip.Addr) error {
	b := s.budget
	// A zone only says through which interface; all of them are one address here. Else each spelling had limits of its own.
	addr = addr.Unmap().WithZone("")
	if addr.IsLoopback() || addr == s.target {
		return nil
	}
	if err := s.allot(func(asked use) []limit { return b.limits.towards(addr, b.targets[addr], asked) }); err != nil {
		return err
	}
	b.targets[addr] = b.targets[addr].plus(s.use)
	s.target = addr
	return nil
}

// Release gives back what was taken. It may be called again, and then does nothing.
func (s *Share) Release() {
	b := s.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.released {
		return
	}
	s.released = true
	b.used = b.used.minus(s.use)
	if b.used.probes == 0 {
		b.used = use{} // sums of fractions do not come back to 0 by themselves
	}
	if !s.target.IsValid() {
		return
	}
	b.targets[s.target] = b.targets[s.target].minus(s.use)
	if b.targets[s.target].probes == 0 {
		delete(b.targets, s.target)
	}
}

// limit is one limit, with what is in use and what is asked for besides.
type limit struct {
	most, used, asked float64
	what, flag        string
	unit              float64 // what the flag counts in; 0: 1
	perSecond         bool    // it grows with the rate of rounds
}

func (l Limits) together(used, asked use) []limit {
	return []limit{
		{most: float64(l.Probes), used: float64(used.probes), asked: 1, what: "probes at once", flag: "--max-probes"},
		{most: l.RoundsPerSecond, used: used.rate, asked: asked.rate, what: "rounds a second", flag: "--max-probe-rate", perSecond: true},
		{most: float64(l.Sockets), used: float64(used.sockets), asked: float64(asked.sockets), what: "sockets of probes", flag: "--max-probe-sockets"},
		{most: float64(l.MemoryBytes), used: float64(used.memory), asked: float64(asked.memory), what: "MiB of memory for probes", flag: "--max-probe-memory", unit: 1 << 20},
	}
}

func (l Limits) towards(addr netip.Addr, used, asked use) []limit {
	to := " to " + addr.String()
	return []limit{
		{most: float64(l.TargetProbes), used: float64(used.probes), asked: 1, what: "probes at once" + to, flag: "--max-target-probes"},
		{most: l.TargetRoundsPerSecond, used: used.rate, asked: asked.rate, what: "rounds a second" + to, flag: "--max-target-rate", perSecond: true},
		{most: l.TargetBitsPerSecond, used: used.bitsPerSecond, asked: asked.bitsPerSecond, what: "Mbit/s of payload" + to, flag: "--max-target-mbps", unit: 1e6, perSecond: true},
	}
}

// slack is what sums of fractions may be off.
const slack = 1e-9

// check answers what is wrong by the first limit that would be exceeded.
func check(limits []limit) error {
	for _, l := range limits {
		most := l.most * (1 + slack)
		switch {
		case l.most == 0 || l.used+l.asked <= most:
		case l.asked > most:
			return fmt.Errorf("%w: it takes %s %s of at most %s; plan less, or raise the daemon's %s",
				ErrTooLarge, l.number(l.asked), l.what, l.number(l.most), l.flag)
		default:
			return fmt.Errorf("%w: %s of at most %s %s are in use, and it takes %s; stop one, wait, or raise the daemon's %s",
				ErrUsedUp, l.number(l.used), l.number(l.most), l.what, l.number(l.asked), l.flag)
		}
	}
	return nil
}

// number writes an amount in the unit of the flag, with a decimal where it has no whole number.
func (l limit) number(n float64) string {
	if l.unit != 0 {
		n /= l.unit
	}
	text := strconv.FormatFloat(n, 'f', 1, 64)
	if whole := len(text) - len(".0"); text[whole:] == ".0" {
		return text[:whole]
	}
	return text
}
