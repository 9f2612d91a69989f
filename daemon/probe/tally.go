package probe

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Tally sums up a run. Its owner hands it to Run in a Plan and may ask for the report at any time, from any goroutine.
// The zero value is ready. It must not be copied.
type Tally struct {
	mu                    sync.Mutex
	running               bool
	began                 time.Time
	sum                   Report // without Elapsed, RTT, Connect and Errors, and without pointers
	numbered              bool
	duplicated, reordered uint32
	rtt, connect          times
	errors                map[Reason]ErrorCount
}

// Report answers what was measured so far, or in all. The answer is the caller's own.
func (t *Tally) Report() Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.sum
	r.Outstanding = r.Sent - r.Received - r.Lost - r.Corrupted - r.Late
	if t.running {
		r.Elapsed = time.Since(t.began)
	}
	if t.numbered {
		duplicated, reordered := t.duplicated, t.reordered
		r.Duplicated, r.Reordered = &duplicated, &reordered
	}
	r.RTT, r.Connect = t.rtt.distribution(), t.connect.distribution()
	for _, e := range t.errors {
		r.Errors = append(r.Errors, e)
	}
	slices.SortFunc(r.Errors, func(a, b ErrorCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason))
	})
	return r
}

// start clears the tally for a run of this plan.
func (t *Tally) start(plan Plan) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running, t.began = true, time.Now()
	t.sum = Report{PayloadBytes: plan.PayloadBytes}
	t.numbered = plan.numbered()
	t.duplicated, t.reordered = 0, 0
	t.rtt, t.connect = times{}, times{}
	t.errors = make(map[Reason]ErrorCount)
}

// stop ends the run: time stands still from now on.
func (t *Tally) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running = false
	t.sum.Elapsed = time.Since(t.began)
}

func (t *Tally) setAddress(a netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sum.Address = a
}

// begin counts a round as sent.
func (t *Tally) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sum.Sent++
}

// addReordered counts one overtaken reply.
func (t *Tally) addReordered() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reordered++
}

// add counts a sample. wasLost is why the round had been lost before; it matters to a Late sample alone.
func (t *Tally) add(s Sample, wasLost Reason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch s.Outcome {
	case Received:
		t.sum.Received++
		t.rtt.add(*s.RTT)
	case Lost:
		t.sum.Lost++
	case Corrupted:
		t.sum.Corrupted++
	case Late:
		t.sum.Late++
		t.sum.Lost--
		t.takeBack(wasLost)
	case Duplicated:
		t.duplicated++
	}
	if s.Connect != nil {
		t.connect.add(*s.Connect)
	}
	if s.Reason != NoReason {
		e := t.errors[s.Reason]
		t.errors[s.Reason] = ErrorCount{Reason: s.Reason, Count: e.Count + 1, Message: s.Err}
	}
}

func (t *Tally) takeBack(reason Reason) {
	e := t.errors[reason]
	if e.Count--; e.Count == 0 {
		delete(t.errors, reason)
		return
	}
	t.errors[reason] = e
}
