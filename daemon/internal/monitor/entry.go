package monitor

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/echod/echod/daemon/probe"
	"github.com/echod/echod/daemon/verdict"
)

// entry is one monitor.
type entry struct {
	def      Definition
	tag      string                // def's etag, kept since it is asked for at each reading
	expect   *verdict.Expectations // def's; nil: nothing is expected
	noExpect error                 // why def's cannot be understood
	uid      string
	spread   uint64 // a hash of uid, which decides about the entry's place in an interval
	created  time.Time
	updated  time.Time

	next  time.Duration // its next turn, an interval after the one before, since the epoch; only while it is not paused
	due   time.Duration // when it is to be looked at, since the epoch; only while it is queued
	dueAt time.Time     // the same for people
	place int           // in the queue, from 1; 0: not in it
	run   *flight       // asked for or under way; else nil
	owes  bool          // a turn has come that is neither among the runs nor the skipped
	came  time.Duration // when it came, since the epoch; only while it is owed

	refused int           // how often the daemon had too much to do since the last run
	hungry  time.Duration // when it was first refused, since the epoch; only while refused
	tried   uint64        // how many runs had ended when it was tried last
	missed  uint64        // turns skipped while it was refused, since the last run
	kept    int           // runs since a turn was missed
	told    bool          // that turns are skipped is in the log

	verdict  Verdict
	since    time.Time
	counters Counters
	history  []Run // oldest first
}

// flight is one run that has not ended.
type flight struct {
	done   chan struct{} // closed when it has ended; ended and err are written before
	ended  Run
	err    error              // why there is nothing in ended
	cancel context.CancelFunc // nil until it begins
	void   error              // not nil: why its outcome counts no more
	turn   bool               // a turn has come, and this is its run
	late   bool               // it began later than it should have
}

func newEntry(uid string, created time.Time) *entry {
	digest := sha256.Sum256([]byte(uid))
	return &entry{uid: uid, spread: binary.BigEndian.Uint64(digest[:]), created: created, updated: created, verdict: Unknown}
}

func (e *entry) queued() bool   { return e.place > 0 }
func (e *entry) underWay() bool { return e.run != nil && e.run.cancel != nil }
func (e *entry) asked() bool    { return e.run != nil && e.run.cancel == nil }

// first answers when an entry that begins at t has its first turn. Each later one is an interval after the one before.
func (e *entry) first(t time.Duration) time.Duration {
	return t + time.Duration(e.spread%uint64(min(e.def.Interval, firstWithin)))
}

// pass notes the turns that have come until t: one is owed, and the others, with what was owed before, are skipped.
func (e *entry) pass(t time.Duration) {
	if e.def.Paused || e.next > t {
		return
	}
	come := (t-e.next)/e.def.Interval + 1
	first := e.next
	e.next += come * e.def.Interval
	if e.owes {
		e.came = e.next - e.def.Interval
	} else {
		e.owes, e.came = true, first
		come--
	}
	e.skip(uint64(come))
}

// forgo gives up the turn that is owed, if there is one.
func (e *entry) forgo() {
	if e.owes {
		e.owes = false
		e.skip(1)
	}
}

func (e *entry) skip(turns uint64) {
	e.counters.Skipped += turns
	if e.refused > 0 {
		e.missed += turns
	}
}

// patience answers how long an entry waits that was refused before it is tried again.
func (e *entry) patience() time.Duration {
	most := max(retryFirst, min(e.def.Interval/8, retryMost))
	return min(retryFirst<<min(e.refused-1, 16), most)
}

// note keeps what came of a run. All but the newest are kept without what has many parts.
func (e *entry) note(r Run) {
	e.counters.Runs++
	e.refused = 0
	now := Met
	if !r.Met {
		e.counters.Failures++
		now = NotMet
	}
	if now != e.verdict {
		e.verdict, e.since = now, r.End
	}
	if n := len(e.history); n > 0 {
		e.history[n-1] = slim(e.history[n-1])
	}
	e.history = append(e.history, r)
	e.trim()
}

func (e *entry) trim() {
	if over := len(e.history) - e.def.HistoryLimit; over > 0 {
		e.history = slices.Clone(e.history[over:]) // what is cut off would be kept alive by the rest
	}
}

// slim leaves out of a run what there may be much of. It changes nothing that r shares with others.
func slim(r Run) Run {
	r.Report = Slim(r.Report)
	var unmet []verdict.Verdict
	for _, v := range r.Verdicts {
		if !v.Met {
			unmet = append(unmet, verdict.Verdict{Expect: cut(v.Expect)})
		}
	}
	r.Verdicts = slices.Clip(unmet)
	return r
}

// cut shortens a text to expectKept characters, the last of them a sign that there was more.
func cut(text string) string {
	chars := 0
	end := 0 // of what is kept when there is more
	for i := range text {
		if chars++; chars == expectKept {
			end = i
		}
	}
	if chars <= expectKept {
		return text
	}
	return text[:end] + "…"
}

// Slim answers a report without what there may be many of: buckets, outages, flows and sizes.
func Slim(r probe.Report) probe.Report {
	r.Outages, r.Flows, r.Sizes = nil, nil, nil
	r.RTT, r.ApplicationRTT, r.Connect, r.IPDV = unbucket(r.RTT), unbucket(r.ApplicationRTT), unbucket(r.Connect), unbucket(r.IPDV)
	if r.Schedule != nil {
		schedule := *r.Schedule
		schedule.Error = unbucket(schedule.Error)
		r.Schedule = &schedule
	}
	return r
}

func unbucket(d *probe.Distribution) *probe.Distribution {
	if d == nil {
		return nil
	}
	short := *d
	short.Buckets = nil
	return &short
}

// sameWork says whether two definitions probe and expect the same.
func (d Definition) sameWork(o Definition) bool {
	return string(d.Probe) == string(o.Probe) && slices.Equal(d.Expect, o.Expect)
}

// clone makes a copy that shares nothing.
func (d Definition) clone() Definition {
	d.Labels, d.Probe, d.Expect = maps.Clone(d.Labels), slices.Clone(d.Probe), slices.Clone(d.Expect)
	return d
}

// complete fills in what a definition leaves open.
func (d *Definition) complete() {
	if d.Interval == 0 {
		d.Interval = DefaultInterval
	}
	if d.HistoryLimit == 0 {
		d.HistoryLimit = DefaultHistoryLimit
	}
}

// etag is a digest of all that a caller can set.
func (d Definition) etag() (string, error) {
	text, err := json.Marshal(d) // maps are written in order of their keys
	if err != nil {
		return "", fmt.Errorf("cannot encode monitor %q: %w", d.Name, err)
	}
	digest := sha256.Sum256(text)
	return hex.EncodeToString(digest[:8]), nil
}

// queue is the entries that are due at some time, the earliest first; container/heap keeps it so.
type queue []*entry

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due < q[j].due }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i+1, j+1
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	e, _ := x.(*entry)
	*q = append(*q, e)
	e.place = len(*q)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	e.place = 0
	return e
}
