package probe

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"syscall"

	"github.com/echod/echod/daemon/internal/wire"
)

const (
	// leastTried is the smallest payload that a search tries: one with room for a sequence number.
	leastTried = wire.HeaderBytes
	// maxTries is how often a size is tried at most, unless the plan says more: enough where nine of ten rounds are lost.
	maxTries = 88
	// maxSilences is how often in a row nothing may come back, not even what did before, until a search gives up.
	maxSilences = 4
	// unlikely is how likely it may be that a size is taken for too big by chance, because all of its rounds were lost.
	unlikely = 1e-4
)

// pathSearch finds the largest payload that comes back: it chooses the size of each round, by the answers to those
// before. It is pure: no clock, no sockets.
//
// It knows a size that came back and sizes above it that did not, and tries one between them until none is left. A size
// is tried several times, until one of its rounds is answered; what a router says of its MTU only tells where to try next.
// Silence is the one answer that may be chance. So after it a size that came back before is tried: if that keeps silent,
// too, the path is what is broken, and the silence says nothing. In the end the smallest size that kept silent is tried
// again, as often as it takes to rule out chance, by what was lost of the sizes that do come back; and the size that came
// back has to do so after the one above it did not, for paths change.
type pathSearch struct {
	tries, headers, most int

	good    int       // the largest payload that came back; 0: none
	bad     []barrier // payloads that did not, each smaller than the one before
	hints   []int     // what to try first
	suspect int       // a payload that kept silent, of which it is not known why; 0: none
	silent  int       // how many of its rounds
	check   bool      // whether a smaller one comes back is to be seen next
	fresh   bool      // good came back after the last size was found to be too big

	block    sizeBlock
	begun    int // rounds
	silences int
	counts   map[int]sizeCount
	over     bool // no more rounds are needed, or they are of no use
	known    bool // and the limit is known
}

// sizeBlock is the rounds of one size, the last of which is not decided.
type sizeBlock struct {
	size       int
	check      bool // whether this size, which came back, still does
	want       int  // rounds, unless one is answered before
	begun      int
	onWay      int
	firstRound uint32 // 0: none yet
}

// barrier is a payload that did not come back.
type barrier struct {
	size int
	mtuAnswer
	sure bool // it cannot be chance
}

type sizeCount struct{ ended, lost int }

// less is without so many rounds that were lost.
func (c sizeCount) less(n int) sizeCount { return sizeCount{c.ended - n, c.lost - n} }

// mtuAnswer is what became of one round of a search.
type mtuAnswer struct {
	limit  MTULimit   // why it did not come back; 0: it did
	mtu    int        // what the router said; 0: nothing
	fits   int        // the payload for which there is said to be room; 0: not said
	router netip.Addr // invalid: not known
}

// newPathSearch begins a search for the payload of a packet with so many bytes of headers, from leastTried to most. Each
// size is tried so often before it is taken for silent. hint is the payload to try first; 0: there is none.
func newPathSearch(tries, headers, most, hint int) *pathSearch {
	s := &pathSearch{tries: tries, headers: headers, most: most, hints: []int{most}, counts: map[int]sizeCount{}}
	if hint > 0 && hint < most {
		s.hints = []int{hint, hint + 1}
	}
	s.next()
	return s
}

// ready says whether another round may leave now.
func (s *pathSearch) ready() bool { return !s.over && s.block.begun < s.block.want }

// begin answers the payload of a round that leaves. Rounds have rising numbers.
func (s *pathSearch) begin(seq uint32) int {
	if s.block.firstRound == 0 {
		s.block.firstRound = seq
	}
	s.block.begun++
	s.block.onWay++
	s.begun++
	return s.block.size
}

// answer takes in what became of a round of that size; it is called once for each.
func (s *pathSearch) answer(seq uint32, size int, a mtuAnswer) {
	c := s.counts[size]
	c.ended++
	if a.limit == LimitSilent {
		c.lost++
	}
	s.counts[size] = c
	if s.over || s.block.firstRound == 0 || seq < s.block.firstRound {
		return // its size has been decided without it
	}
	s.block.onWay--
	if a.limit == LimitSilent && (s.ready() || s.block.onWay > 0) {
		return
	}
	s.decide(a)
	s.next()
}

// decide draws the conclusions from the rounds of a block.
func (s *pathSearch) decide(a mtuAnswer) {
	b := s.block
	switch {
	case a.limit == 0 && b.check:
		s.silences, s.fresh = 0, true
		if s.silent >= s.enough(s.suspect) {
			s.refuse(s.suspect, mtuAnswer{limit: LimitSilent})
			s.fresh = true
		}
	case a.limit == 0:
		s.comeBack(b.size)
	case a.limit != LimitSilent:
		if b.check { // It came back before: the path has changed.
			s.good = 0
			s.silences++
		}
		s.refuse(b.size, a)
	case b.check || s.good == 0:
		s.silences++
		s.silent = 0
		s.counts[b.size] = s.counts[b.size].less(b.begun) // an outage is no measure of chance
	default:
		s.suspect = b.size
		s.silent += b.begun
		s.check = true
	}
}

func (s *pathSearch) comeBack(size int) {
	s.good, s.silences, s.fresh = size, 0, true
	for len(s.bad) > 0 && s.bad[len(s.bad)-1].size <= size { // They were lost by chance.
		s.bad = s.bad[:len(s.bad)-1]
	}
	s.suspect, s.silent = 0, 0
}

func (s *pathSearch) refuse(size int, a mtuAnswer) {
	again := s.lowest().size == size
	for len(s.bad) > 0 && s.lowest().size <= size {
		s.bad = s.bad[:len(s.bad)-1]
	}
	s.bad = append(s.bad, barrier{size, a, again || a.limit != LimitSilent})
	s.suspect, s.silent, s.fresh = 0, 0, false
	if a.fits > 0 {
		s.hints = []int{a.fits, a.fits + 1}
	}
}

// lowest is the smallest payload that did not come back, or what is above all that are to be tried.
func (s *pathSearch) lowest() barrier {
	if len(s.bad) == 0 {
		return barrier{size: s.most + 1, mtuAnswer: mtuAnswer{limit: LimitMaxPayload}, sure: true}
	}
	return s.bad[len(s.bad)-1]
}

// next begins the next block, or ends the search.
func (s *pathSearch) next() {
	low := s.lowest()
	atEdge := low.size == s.good+1 || low.size <= leastTried
	switch {
	case s.silences >= maxSilences || s.begun >= mostSearched(s.tries):
		s.over = true
	case atEdge && low.sure && s.good > 0 && !s.fresh:
		s.try(s.good, s.enough(s.good), true)
	case atEdge && low.sure:
		s.over, s.known = true, true
	case s.good == 0:
		s.try(leastTried, s.tries, false)
	case s.check:
		s.check = false
		s.try(s.good, s.enough(s.good), true)
	case s.suspect != 0:
		s.try(s.suspect, max(s.enough(s.suspect)-s.silent, 1), false)
	case atEdge:
		s.try(low.size, s.enough(low.size), false)
	default:
		s.try(s.between(low.size), s.tries, false)
	}
}

// between answers a payload larger than what came back and smaller than what did not.
func (s *pathSearch) between(bad int) int {
	for len(s.hints) > 0 {
		hint := s.hints[0]
		s.hints = s.hints[1:]
		if hint > s.good && hint < bad {
			return hint
		}
	}
	return (s.good + bad) / 2
}

func (s *pathSearch) try(size, want int, check bool) {
	s.block = sizeBlock{size: size, want: want, check: check}
}

// mostSearched bounds the rounds of a search, whatever the answers are, but for those of the last size.
func mostSearched(tries int) int { return 300 + 100*tries }

// enough is how many rounds of a size have to keep silent for it to be taken for too big.
func (s *pathSearch) enough(size int) int {
	ended, lost := 0, 0
	for other, c := range s.counts {
		if other <= s.good {
			ended += c.ended
			lost += c.lost
		}
	}
	if lost == 0 && s.lowest().size != size {
		return s.tries // it will be tried again, should the search end at it
	}
	share := float64(lost+1) / float64(ended+2) // Laplace's rule: what is expected of the next one
	return max(s.tries, min(int(math.Ceil(math.Log(unlikely)/math.Log(share))), maxTries))
}

// result is what is known so far.
func (s *pathSearch) result() PathMTU {
	var r PathMTU
	if s.silences >= maxSilences {
		return r // The path is dead: what came back before says nothing of it now.
	}
	if s.good > 0 {
		r.PayloadBytes, r.MTU = s.good, s.good+s.headers
	}
	low := s.lowest()
	if len(s.bad) > 0 {
		r.TooBig = low.size
	}
	if !s.known {
		return r
	}
	for _, bad := range s.bad {
		// Reports may be few, for routers limit their rate: one that names just this MTU speaks for what kept silent.
		if low.limit == LimitSilent && bad.mtu == r.MTU && bad.mtu > 0 {
			low = bad
		}
	}
	r.Limit = low.limit
	if r.Limit == LimitReported {
		r.ReportedMTU, r.Router = low.mtu, low.router
	}
	return r
}

// ipHeaders is the size of the headers before the payload of a datagram: of IPv4 (RFC 791, without options) or IPv6
// (RFC 8200), and of UDP (RFC 768).
func ipHeaders(a netip.Addr) int {
	if a.Is4() {
		return 20 + 8
	}
	return 40 + 8
}

// tooBigError says that a datagram was too big for its way.
type tooBigError struct {
	mtu    int        // the next hop's, if the router said so; else 0
	router netip.Addr // that said it; invalid: not known
	here   bool       // this host did not send it
}

func (e tooBigError) Error() string {
	text := syscall.EMSGSIZE.Error()
	switch {
	case e.here:
		return text + ", not sent"
	case e.router.IsValid():
		text += ", says " + e.router.String()
	}
	return text
}

func (tooBigError) Unwrap() error { return syscall.EMSGSIZE }

// wrongSizeError says that a reply is shorter or longer than what was sent.
type wrongSizeError struct{ got, want int }

func (e wrongSizeError) Error() string {
	return fmt.Sprintf("the reply has %d bytes instead of %d", e.got, e.want)
}

// failure is what a search makes of a round that did not come back, or not as it left.
func (r *run) failure(err error) mtuAnswer {
	headers := ipHeaders(r.address.Addr())
	var big tooBigError
	var size wrongSizeError
	switch {
	case errors.As(err, &big) && big.here:
		return mtuAnswer{limit: LimitLocal}
	case errors.As(err, &big):
		return mtuAnswer{limit: LimitReported, mtu: big.mtu, fits: max(big.mtu-headers, 0), router: big.router}
	case errors.As(err, &size) && size.got < size.want:
		return mtuAnswer{limit: LimitTruncated, fits: size.got}
	default:
		return mtuAnswer{limit: LimitSilent}
	}
}

// searched tells the search what became of a round, if this run is one.
func (r *run) searched(seq uint32, a mtuAnswer) {
	if r.search == nil {
		return
	}
	r.search.answer(seq, int(r.rounds.get(seq).size), a)
	r.tally.found(r.search.result())
}

// beginSearch has the sizes of rounds chosen by a search, if the plan wants one.
func (r *run) beginSearch() {
	if r.plan.PathMTU == nil {
		return
	}
	headers, most := ipHeaders(r.address.Addr()), maxPayloadUDP(r.address.Addr())
	if asked := r.plan.PathMTU.MaxPayload; asked > 0 {
		most = min(most, asked)
	}
	hint := 0
	if r.prober.options.DialContext == nil {
		hint = max(localMTU(r)-headers, 0)
	}
	r.search = newPathSearch(int(r.plan.Count), headers, most, hint)
	r.tally.found(r.search.result())
}
