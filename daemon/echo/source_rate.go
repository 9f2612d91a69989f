package echo

import (
	"math"
	"net/netip"
	"sync/atomic"
	"time"
)

const (
	// burst is how much of its allowance a source may use at once after it was silent for as long.
	burst = time.Second
	// sweepEvery bounds how often a full table is looked through for sources that have their whole allowance again.
	sweepEvery = 100 * time.Millisecond
)

// sourceRates holds each source of a UDP endpoint to so many datagrams and bytes a second, as UDPOptions say. What a
// source has used is kept as the time by which it has it again (the generic cell rate algorithm, ITU-T I.371), so that
// nothing needs to be done as time passes.
type sourceRates struct {
	limit atomic.Pointer[sourceLimit] // nil: none; set by anybody

	// What follows is touched by the goroutine that reads the endpoint's socket alone.
	known  *sourceLimit // that the table is of
	table  map[netip.Addr]used
	others used // of those that have no place in the table
	swept  time.Duration
}

// sourceLimit is what one source may send a second; 0 is no limit.
type sourceLimit struct{ datagrams, bytes uint64 }

// used is when a source has its whole allowance again.
type used struct{ datagrams, bytes time.Duration }

func (r *sourceRates) set(o UDPOptions) {
	if o.MaxSourceDatagrams == 0 && o.MaxSourceBytes == 0 {
		r.limit.Store(nil)
		return
	}
	wanted := sourceLimit{uint64(o.MaxSourceDatagrams), o.MaxSourceBytes}
	if now := r.limit.Load(); now == nil || *now != wanted {
		r.limit.Store(&wanted)
	}
}

// take answers how many of some datagrams, of size bytes each but for the last, which is what is left of bytes, are within
// the limit of their source, and counts them in. Now is the time since any moment, the same for all calls.
func (r *sourceRates) take(from netip.Addr, datagrams, size, bytes int, now time.Duration) (taken int) {
	limit := r.limit.Load()
	if limit == nil {
		return datagrams
	}
	if limit != r.known {
		r.known, r.table, r.others = limit, make(map[netip.Addr]used), used{}
	}
	from = sourceKey(from)
	u, known := r.table[from]
	kept := known || r.room(now)
	if !kept {
		u = r.others
	}
	taken = min(datagrams, unused(u.datagrams, now, limit.datagrams))
	if left := unused(u.bytes, now, limit.bytes); taken < datagrams || bytes > left {
		taken = min(taken, left/max(size, 1))
		bytes = taken * size
	}
	if taken == 0 {
		return 0
	}
	u.datagrams = max(u.datagrams, now) + timeFor(taken, limit.datagrams)
	u.bytes = max(u.bytes, now) + timeFor(bytes, limit.bytes)
	if kept {
		r.table[from] = u
	} else {
		r.others = u
	}
	return taken
}

// room reports whether the table has a place for one more, and makes one if it can.
func (r *sourceRates) room(now time.Duration) bool {
	if len(r.table) < MaxTrackedSources {
		return true
	}
	if now-r.swept >= sweepEvery {
		r.swept = now
		for from, u := range r.table {
			if u.datagrams <= now && u.bytes <= now {
				delete(r.table, from) // it stands where one that is new would
			}
		}
		if len(r.table) == 0 {
			r.table = make(map[netip.Addr]used) // an empty map keeps its memory
		}
	}
	return len(r.table) < MaxTrackedSources
}

// unused is how much of a second's worth at a rate a source has not used that has it again at a time.
func unused(again, now time.Duration, rate uint64) int {
	if rate == 0 {
		return math.MaxInt
	}
	free := max(0, burst-max(0, again-now))
	return int(min(uint64(free)*min(rate, maxRate)/uint64(time.Second), math.MaxInt))
}

// maxRate is the highest that there is, as larger ones would not fit into the arithmetic: 8 GiB or datagrams a second.
const maxRate = 8 << 30

// timeFor is how long it takes to earn n at a rate a second.
func timeFor(n int, rate uint64) time.Duration {
	if rate == 0 {
		return 0
	}
	return time.Duration(uint64(n) * uint64(time.Second) / min(rate, maxRate))
}

// sourceKey is what of an address is one source: all of IPv4's, and of IPv6's the half that a network is given.
func sourceKey(from netip.Addr) netip.Addr {
	if from.Is4() {
		return from
	}
	const network = 64
	return netip.PrefixFrom(from.WithZone(""), network).Masked().Addr()
}
