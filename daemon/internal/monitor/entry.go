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

	due   time.Duration // when the next run is due, since the epoch; only while it is queued
	place int           // in the queue, from 1; 0: not in it
	run   *flight       // asked for or under way; else nil

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
}

func newEntry(uid string, created time.Time) *entry {
	digest := sha256.Sum256([]byte(uid))
	return &entry{uid: uid, spread: binary.BigEndian.Uint64(digest[:]), created: created, updated: created, verdict: Unknown}
}

func (e *entry) queued() bool   { return e.place > 0 }
func (e *entry) underWay() bool { return e.run != nil && e.run.cancel != nil }
func (e *entry) asked() bool    { return e.run != nil && e.run.cancel == nil }

// phase is where in its interval an entry's runs are due.
func (e *entry) phase() time.Duration { return time.Duration(e.spread % uint64(e.def.Interval)) }

// turns answers how many of an entry's times have come until t; times are at the phase and each interval after it.
func (e *entry) turns(t time.Duration) uint64 {
	if t < e.phase() {
		return 0
	}
	return uint64((t-e.phase())/e.def.Interval) + 1
}

// after answers the first of an entry's times after t.
func (e *entry) after(t time.Duration) time.Duration {
	return e.phase() + time.Duration(e.turns(t))*e.def.Interval
}

// first answers when an entry that begins at t is due: at its next time, and at one of its own within firstWithin.
func (e *entry) first(t time.Duration) time.Duration {
	return min(e.after(t), t+time.Duration(e.spread%uint64(firstWithin)))
}

// note keeps what came of a run. All but the newest are kept without what has many parts.
func (e *entry) note(r Run) {
	e.counters.Runs++
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
	r.Verdicts = slices.DeleteFunc(slices.Clone(r.Verdicts), func(v verdict.Verdict) bool { return v.Met })
	return r
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
