package probe

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// path is what a search is made over in these tests.
type path struct {
	passes  int                                  // the largest payload that comes back
	beyond  func(size int) mtuAnswer             // what becomes of a larger one
	lose    func(seq uint32, size int) bool      // whether a round is lost by chance; nil: none is
	inOrder bool                                 // each round ends before the next begins; else a size's rounds end together
	seen    func(seq uint32, size int) mtuAnswer // instead of all that, if it is there
}

func silent(int) mtuAnswer { return mtuAnswer{limit: LimitSilent} }
func local(int) mtuAnswer  { return mtuAnswer{limit: LimitLocal} }

var aRouter = netip.MustParseAddr("10.0.0.1")

// reports answers as a router does whose next link has that MTU, over IPv4.
func reports(mtu int) func(int) mtuAnswer {
	return func(int) mtuAnswer {
		return mtuAnswer{limit: LimitReported, mtu: mtu, fits: max(mtu-28, 0), router: aRouter}
	}
}

func (p path) answer(seq uint32, size int) mtuAnswer {
	switch {
	case p.seen != nil:
		return p.seen(seq, size)
	case p.lose != nil && p.lose(seq, size):
		return mtuAnswer{limit: LimitSilent}
	case size <= p.passes:
		return mtuAnswer{}
	default:
		return p.beyond(size)
	}
}

// search makes a search over a path and answers how many rounds it took. It checks what holds of every search.
func (p path) search(t *testing.T, s *pathSearch) (rounds int) {
	t.Helper()
	type round struct {
		seq  uint32
		size int
	}
	var onWay []round
	seq := uint32(0)
	for !s.over {
		for s.ready() && (!p.inOrder || len(onWay) == 0) {
			seq++
			size := s.begin(seq)
			if size < leastTried || size > s.most {
				t.Fatalf("round %d has %d bytes", seq, size)
			}
			onWay = append(onWay, round{seq, size})
		}
		if len(onWay) == 0 {
			t.Fatalf("after %d rounds none is on its way, none may leave, and the search is not over: %+v", seq, s)
		}
		if int(seq) > mostSearched(s.tries)+max(s.tries, maxTries) {
			t.Fatalf("%d rounds and no end: %+v", seq, s)
		}
		for _, r := range onWay {
			s.answer(r.seq, r.size, p.answer(r.seq, r.size))
		}
		onWay = onWay[:0]
	}
	if s.ready() {
		t.Error("a round may leave after the end")
	}
	r := s.result()
	if r.TooBig != 0 && r.TooBig <= r.PayloadBytes || r.PayloadBytes > s.most || (r.MTU != 0) != (r.PayloadBytes != 0) {
		t.Errorf("%+v does not go together", r)
	}
	return int(seq)
}

func TestPathSearch(t *testing.T) {
	const v4 = 28
	for _, c := range []struct {
		name       string
		most, hint int
		path       path
		want       PathMTU
		rounds     int // at most, if each ends before the next begins
	}{
		{
			"all that is to be tried", 1000, 1472, path{passes: 5000},
			PathMTU{PayloadBytes: 1000, MTU: 1028, Limit: LimitMaxPayload}, 2,
		},
		{
			"the least alone", leastTried, 1472, path{passes: 5000},
			PathMTU{PayloadBytes: 16, MTU: 44, Limit: LimitMaxPayload}, 1,
		},
		{
			"the interface", MaxPayloadUDP4, 1472, path{passes: 1472, beyond: local},
			PathMTU{PayloadBytes: 1472, MTU: 1500, Limit: LimitLocal, TooBig: 1473}, 4,
		},
		{
			"an interface whose MTU is not known", MaxPayloadUDP4, 0, path{passes: 1472, beyond: local},
			PathMTU{PayloadBytes: 1472, MTU: 1500, Limit: LimitLocal, TooBig: 1473}, 20,
		},
		{
			"a router", MaxPayloadUDP4, 1472, path{passes: 1372, beyond: reports(1400)},
			PathMTU{PayloadBytes: 1372, MTU: 1400, Limit: LimitReported, TooBig: 1373, ReportedMTU: 1400, Router: aRouter}, 5,
		},
		{
			"a router that says too little", MaxPayloadUDP4, 1472, path{passes: 1372, beyond: reports(1200)},
			PathMTU{PayloadBytes: 1372, MTU: 1400, Limit: LimitReported, TooBig: 1373, ReportedMTU: 1200, Router: aRouter}, 15,
		},
		{
			"a router that says too much", MaxPayloadUDP4, 1472, path{passes: 1372, beyond: reports(9000)},
			PathMTU{PayloadBytes: 1372, MTU: 1400, Limit: LimitReported, TooBig: 1373, ReportedMTU: 9000, Router: aRouter}, 15,
		},
		{
			"a router that names no MTU (RFC 792)", MaxPayloadUDP4, 1472, path{passes: 1372, beyond: reports(0)},
			PathMTU{PayloadBytes: 1372, MTU: 1400, Limit: LimitReported, TooBig: 1373, Router: aRouter}, 15,
		},
		{
			"a router that reports once", MaxPayloadUDP4, 1472, path{passes: 1372, beyond: func(size int) mtuAnswer {
				if size == 1472 {
					return reports(1400)(size)
				}
				return silent(size)
			}},
			PathMTU{PayloadBytes: 1372, MTU: 1400, Limit: LimitReported, TooBig: 1373, ReportedMTU: 1400, Router: aRouter}, 20,
		},
		{
			"a black hole", MaxPayloadUDP4, 1472, path{passes: 1272, beyond: silent},
			PathMTU{PayloadBytes: 1272, MTU: 1300, Limit: LimitSilent, TooBig: 1273}, 60,
		},
		{
			"a server that cuts", MaxPayloadUDP4, 1472, path{passes: 512, beyond: func(int) mtuAnswer {
				return mtuAnswer{limit: LimitTruncated, fits: 512}
			}},
			PathMTU{PayloadBytes: 512, MTU: 540, Limit: LimitTruncated, TooBig: 513}, 6,
		},
		{
			"a server that takes the least alone", MaxPayloadUDP4, 1472, path{passes: leastTried, beyond: silent},
			PathMTU{PayloadBytes: 16, MTU: 44, Limit: LimitSilent, TooBig: 17}, 70,
		},
		{
			"nobody", MaxPayloadUDP4, 1472, path{beyond: silent}, PathMTU{}, 12,
		},
		{
			"less than the least", MaxPayloadUDP4, 1472, path{beyond: reports(40)}, PathMTU{
				Limit: LimitReported, TooBig: leastTried, ReportedMTU: 40, Router: aRouter,
			}, 1,
		},
	} {
		for _, inOrder := range []bool{true, false} {
			c.path.inOrder = inOrder
			hint := min(c.hint, c.most)
			s := newPathSearch(3, v4, c.most, hint)
			rounds := c.path.search(t, s)
			if got := s.result(); got != c.want {
				t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
			}
			if inOrder && rounds > c.rounds {
				t.Errorf("%s took %d rounds, want at most %d", c.name, rounds, c.rounds)
			}
		}
	}
}

// What is lost by chance is not taken for too big, nor is what is too big taken for lost.
func TestPathSearchWithLoss(t *testing.T) {
	for _, percent := range []int{1, 5, 20, 36, 50} {
		for name, beyond := range map[string]func(int) mtuAnswer{"silent": silent, "reported": reports(1400), "local": local} {
			for seed := range uint64(100) {
				random := rand.New(rand.NewPCG(seed, uint64(percent)))
				passes := leastTried + random.IntN(1472-leastTried)
				p := path{passes: passes, beyond: beyond, inOrder: seed%2 == 0, lose: func(uint32, int) bool {
					return random.IntN(100) < percent
				}}
				s := newPathSearch(5, 28, MaxPayloadUDP4, 1472)
				p.search(t, s)
				want := map[string]MTULimit{"silent": LimitSilent, "reported": LimitReported, "local": LimitLocal}[name]
				if got := s.result(); got.PayloadBytes != passes || got.TooBig != passes+1 || got.Limit != want {
					t.Errorf("%d %% lost, %s, seed %d: %+v, want %d", percent, name, seed, got, passes)
				}
			}
		}
	}
}

// The path is down for a while just when a size is tried.
func TestPathSearchOverOutages(t *testing.T) {
	for first := uint32(1); first < 60; first++ {
		for length := uint32(1); length <= 9; length++ {
			p := path{passes: 1272, beyond: silent, inOrder: true, lose: func(seq uint32, _ int) bool {
				return seq >= first && seq < first+length
			}}
			s := newPathSearch(3, 28, MaxPayloadUDP4, 1472)
			p.search(t, s)
			want := PathMTU{PayloadBytes: 1272, MTU: 1300, Limit: LimitSilent, TooBig: 1273}
			if got := s.result(); got != want {
				t.Errorf("down from round %d for %d: %+v", first, length, got)
			}
		}
	}
}

// The path goes down in the middle and stays so: what came back before is no finding.
func TestPathSearchThatLosesItsPath(t *testing.T) {
	p := path{passes: 1272, beyond: reports(0), inOrder: true, lose: func(seq uint32, _ int) bool { return seq > 6 }}
	s := newPathSearch(3, 28, MaxPayloadUDP4, 1472)
	rounds := p.search(t, s)
	got := s.result()
	if got != (PathMTU{}) {
		t.Errorf("%+v", got)
	}
	if rounds > 30 {
		t.Errorf("%d rounds", rounds)
	}
}

// The path gets narrower while it is searched, so that even what came back before does not.
func TestPathSearchOverAPathThatChanges(t *testing.T) {
	p := path{inOrder: true, seen: func(seq uint32, size int) mtuAnswer {
		switch {
		case seq < 8 && size <= 1400, size <= 500:
			return mtuAnswer{}
		case seq < 8:
			return silent(size)
		default:
			return reports(528)(size)
		}
	}}
	s := newPathSearch(3, 28, MaxPayloadUDP4, 1472)
	p.search(t, s)
	want := PathMTU{PayloadBytes: 500, MTU: 528, Limit: LimitReported, TooBig: 501, ReportedMTU: 528, Router: aRouter}
	if got := s.result(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Whatever is answered, a search ends, and what it says it has seen.
func FuzzPathSearch(f *testing.F) {
	f.Add([]byte{0}, uint8(3), uint16(1472), uint16(1472))
	f.Add([]byte{0, 1, 1, 1, 0, 2, 3, 4, 5}, uint8(1), uint16(65507), uint16(0))
	f.Add([]byte{1, 1, 1, 0, 1, 1, 1, 2}, uint8(100), uint16(9000), uint16(8972))
	f.Fuzz(func(t *testing.T, answers []byte, tries uint8, most, hint uint16) {
		if len(answers) == 0 {
			return
		}
		s := newPathSearch(1+int(tries)%int(MaxTries), 28, max(int(most), leastTried), int(hint))
		came, refused := map[int]bool{}, map[int]bool{}
		p := path{inOrder: most%2 == 0, seen: func(seq uint32, size int) mtuAnswer {
			b := answers[int(seq)%len(answers)]
			a := mtuAnswer{}
			switch b % 6 {
			case 1, 2:
				a = silent(size)
			case 3:
				a = local(size)
			case 4:
				a = reports(int(b) * 10)(size)
			case 5:
				a = mtuAnswer{limit: LimitTruncated, fits: size * int(b) / 256}
			}
			came[size] = came[size] || a.limit == 0
			refused[size] = refused[size] || a.limit != 0
			return a
		}}
		p.search(t, s)
		r := s.result()
		if r.PayloadBytes != 0 && !came[r.PayloadBytes] || r.TooBig != 0 && !refused[r.TooBig] {
			t.Errorf("%+v was not seen", r)
		}
		if r.Limit == LimitMaxPayload && r.PayloadBytes != s.most {
			t.Errorf("%+v of at most %d", r, s.most)
		}
	})
}
