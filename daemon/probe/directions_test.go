package probe

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// ledgerOf is the ledger of a target to which these rounds came.
func ledgerOf(came ...uint32) Ledger {
	l := Ledger{FirstRound: 1, CompleteFor: time.Hour}
	for _, seq := range came {
		for int(seq-1)/8 >= len(l.Rounds) {
			l.Rounds = append(l.Rounds, 0)
		}
		l.Rounds[(seq-1)/8] |= 1 << ((seq - 1) % 8)
		l.Received++
		l.Highest = max(l.Highest, seq)
	}
	return l
}

// forget has a ledger know only of the rounds from first on, as one of many rounds does.
func (l Ledger) forget(first uint32) Ledger {
	l.Rounds = l.Rounds[(first-1)/8:]
	l.FirstRound = first
	return l
}

// roundsThat are a run's, of which these were lost.
func roundsThat(sent uint32, lost ...uint32) (*rounds, Report) {
	w := newRounds(1)
	for range sent {
		w.begin(0, 0, 64).state = answered
		w.flows[0].pending = nil
	}
	for _, seq := range lost {
		if t := w.get(seq); t != nil {
			t.state = given
		}
	}
	return &w, Report{Sent: sent, Lost: uint32(len(lost)), Received: sent - uint32(len(lost))}
}

func upTo(n uint32, but ...uint32) (all []uint32) {
	for seq := uint32(1); seq <= n; seq++ {
		if len(but) > 0 && but[0] == seq {
			but = but[1:]
			continue
		}
		all = append(all, seq)
	}
	return all
}

func TestMerge(t *testing.T) {
	for name, test := range map[string]struct {
		sent        uint32
		lost        []uint32
		ledger      Ledger
		received    int32 // more or less than what was not lost: corrupted, or on its way
		there, back uint32
		unknown     string
	}{
		"nothing lost":                {sent: 5, ledger: ledgerOf(upTo(5)...)},
		"there":                       {sent: 5, lost: []uint32{2, 4}, ledger: ledgerOf(1, 3, 5), there: 2},
		"back":                        {sent: 5, lost: []uint32{2, 4}, ledger: ledgerOf(upTo(5)...), back: 2},
		"both, the last there":        {sent: 20, lost: []uint32{1, 9, 20}, ledger: ledgerOf(upTo(19, 1)...), there: 2, back: 1},
		"a damaged one is not lost":   {sent: 5, lost: []uint32{2, 4}, received: -1, ledger: ledgerOf(2, 3, 5), there: 1, back: 1},
		"all lost back":               {sent: 3, lost: []uint32{1, 2, 3}, ledger: ledgerOf(1, 2, 3), back: 3},
		"the ledger forgot a few":     {sent: 40, lost: []uint32{2, 4, 30, 32}, ledger: ledgerOf(upTo(40, 4, 32)...).forget(25), there: 2, back: 2},
		"forgotten and not all known": {sent: 40, lost: []uint32{2}, received: -1, ledger: ledgerOf(upTo(40, 5)...).forget(25), there: 1},
		"the prober forgot":           {sent: windowRounds + 10, lost: []uint32{3, 4, 5, 20}, ledger: ledgerOf(upTo(windowRounds+10, 3, 20)...).forget(65), there: 2, back: 2},
		"it lacks what came back":     {sent: 5, lost: []uint32{2}, ledger: ledgerOf(4, 5), unknown: "has 2 rounds, and 4 were answered"},
		"it has what was not sent":    {sent: 5, ledger: ledgerOf(upTo(6)...), unknown: "it has round 6, and 5 were sent"},
		"it is empty":                 {sent: 5, ledger: Ledger{}, unknown: "it has no round"},
		"it counts less than it has":  {sent: 5, ledger: Ledger{Received: 1, FirstRound: 1, Highest: 2, Rounds: []byte{3}}, unknown: "its list has 2 rounds, and it counts 1"},
		"it counts more than it can":  {sent: 5, ledger: Ledger{Received: 3, FirstRound: 1, Highest: 2, Rounds: []byte{3}}, unknown: "counts 3"},
		"bits above the highest":      {sent: 5, ledger: Ledger{Received: 3, FirstRound: 1, Highest: 2, Rounds: []byte{7}}, unknown: "makes no sense"},
		"the highest has not come":    {sent: 5, ledger: Ledger{Received: 1, FirstRound: 1, Highest: 2, Rounds: []byte{1}}, unknown: "round 2 is not in its list"},
		"a list that is too short":    {sent: 50, ledger: Ledger{Received: 1, FirstRound: 1, Highest: 9, Rounds: []byte{1}}, unknown: "the rounds 1 to 9 has 1 bytes"},
		"a list that is too long":     {sent: 1 << 30, ledger: Ledger{Received: 1, FirstRound: 1, Highest: 1<<16 + 1, Rounds: make([]byte, 1<<13+1)}, unknown: "8193 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			var w *rounds
			var sum Report
			if test.sent <= windowRounds*2 {
				w, sum = roundsThat(test.sent, test.lost...)
			} else {
				w, sum = roundsThat(0)
				sum.Sent = test.sent
			}
			sum.Received += uint32(test.received)
			got := merge(sum, w, test.ledger)
			if test.unknown != "" {
				if !strings.Contains(got.Unknown, test.unknown) || got.LostThere != nil || got.LostBack != nil || got.Ledger != nil {
					t.Errorf("got %+v, want unknown: %s", got, test.unknown)
				}
				return
			}
			if got.Unknown != "" || *got.LostThere != test.there || *got.LostBack != test.back {
				t.Errorf("unknown %q, %d there, %d back, want %d, %d", got.Unknown, *got.LostThere, *got.LostBack, test.there, test.back)
			}
		})
	}
}

// Whatever a ledger says, the directions are those of the rounds that were lost.
func FuzzMerge(f *testing.F) {
	f.Add(uint32(5), uint32(0b101), uint32(3), uint32(5), uint32(1), []byte{0b11111})
	f.Add(uint32(30), uint32(1), uint32(20), uint32(30), uint32(9), []byte{255, 255, 63})
	f.Fuzz(func(t *testing.T, sent, lost, received, highest, first uint32, list []byte) {
		sent %= 1 << 10
		var gone []uint32
		for seq := uint32(1); seq <= min(sent, 32); seq++ {
			if lost>>(seq-1)&1 != 0 {
				gone = append(gone, seq)
			}
		}
		w, sum := roundsThat(sent, gone...)
		sum.Received = uint32(bits.OnesCount32(received)) % (sum.Received + 1)
		d := merge(sum, w, Ledger{Received: received, Highest: highest, FirstRound: first, Rounds: list})
		if (d.Unknown == "") != (d.LostThere != nil) || d.LostThere != nil && *d.LostThere+*d.LostBack != sum.Lost {
			t.Errorf("%+v of %d lost", d, sum.Lost)
		}
	})
}

func TestDirectionsAreAskedFor(t *testing.T) {
	address := udpPeer(t, "127.0.0.1:0", func(n int, b []byte, reply func([]byte)) {
		if n%3 != 2 { // of each run
			reply(b)
		}
	})
	plan := udpPlan(address, 3)
	plan.Timeout = 50 * time.Millisecond
	asked := uint64(0)
	answer := func(l Ledger, err error) func(context.Context, uint64) (Ledger, error) {
		return func(ctx context.Context, run uint64) (Ledger, error) {
			if _, bounded := ctx.Deadline(); !bounded || ctx.Err() != nil {
				t.Errorf("it may take for ever: %v, %v", bounded, ctx.Err())
			}
			asked = run
			return l, err
		}
	}
	for name, test := range map[string]struct {
		ledger  func(context.Context, uint64) (Ledger, error)
		size    int
		unknown string
	}{
		"it has one":     {answer(ledgerOf(1, 2, 3), nil), 64, ""},
		"it fails":       {answer(Ledger{}, errors.New("cannot ask it: no route")), 64, "cannot ask it: no route"},
		"it has none":    {answer(Ledger{CompleteFor: time.Hour}, fmt.Errorf("there: %w", ErrNoLedger)), 64, "has seen nothing of this probe, and 2 rounds were answered"},
		"nobody asks":    {nil, 64, "the target's ledger was not asked for: say where its API is (--ledger HOST:PORT)"},
		"without number": {answer(ledgerOf(1), nil), 15, "less than 16 bytes"},
	} {
		plan.Ledger, plan.PayloadBytes, asked = test.ledger, test.size, 0
		r, _ := runPlan(t, plan)
		d := r.Directions
		switch {
		case d == nil || !strings.Contains(d.Unknown, test.unknown) || (d.Unknown == "") != (test.unknown == ""):
			t.Errorf("%s: %+v", name, d)
		case d.Unknown == "" && (asked != r.Run || *d.LostThere != 0 || *d.LostBack != r.Lost):
			t.Errorf("%s: run %x is asked for, not %x, and %+v", name, asked, r.Run, d)
		}
	}
}

func TestDirectionsWhereNothingCame(t *testing.T) {
	none := func(context.Context, uint64) (Ledger, error) { return Ledger{CompleteFor: time.Hour}, ErrNoLedger }
	plan := udpPlan(closedPort(t, "udp"), 3)
	plan.Ledger = none
	r, _ := runPlan(t, plan)
	if d := r.Directions; d == nil || d.Unknown != "" || *d.LostThere != 3 || *d.LostBack != 0 || d.Ledger != nil {
		t.Errorf("nothing reached the target: %+v", d)
	}
	plan = Plan{Protocol: TCP, Address: tcpPeer(t, echoStream), Count: 1, Timeout: patience, PayloadBytes: 64, Ledger: none}
	if r, _ := runPlan(t, plan); r.Directions != nil {
		t.Errorf("over TCP: %+v", r.Directions)
	}
	p := New(Options{LookupNetIP: func(context.Context, string, string) ([]netip.Addr, error) {
		return nil, &net.DNSError{IsNotFound: true}
	}})
	plan = Plan{Protocol: UDP, Address: "nowhere:7", Count: 1, Timeout: patience, PayloadBytes: 64, Ledger: none}
	if r, _ := runProber(t.Context(), t, p, plan, nil); r.Directions == nil || r.Directions.Unknown != "nothing was sent" {
		t.Errorf("a name that is not found: %+v", r.Directions)
	}
}

// A ledger is believed only if it was kept since the run's start, and so is the lack of one.
func TestDirectionsOfALedgerThatIsIncomplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const age = 30 * time.Second
		whole := ledgerOf(1, 2, 4)
		for name, test := range map[string]struct {
			kept    time.Duration // of the answer, which takes a second
			err     error
			there   uint32
			unknown string
		}{
			"kept since the start":              {kept: age + time.Second, there: 1},
			"restarted, or displaced, mid-run":  {kept: age, unknown: "has kept ledgers for 30s only, and the probe began 31s ago: it was restarted, had to make room"},
			"by a daemon that does not say":     {unknown: "has kept ledgers for 0s only"},
			"nothing came since the start":      {kept: age + time.Second, err: ErrNoLedger, there: 2},
			"restarted, or displaced, and none": {kept: age, err: ErrNoLedger, unknown: "has kept ledgers for 30s only"},
			"none, by one that does not say":    {err: ErrNoLedger, unknown: "has kept ledgers for 0s only"},
		} {
			r := newRun(New(Options{}), Plan{Protocol: UDP, PayloadBytes: 64, Ledger: func(context.Context, uint64) (Ledger, error) {
				time.Sleep(time.Second)
				l := whole
				if test.err != nil {
					l = Ledger{}
				}
				l.CompleteFor = test.kept
				return l, test.err
			}}, nil)
			w, sum := roundsThat(4, 3, 4)
			r.rounds = *w
			sum.Address, sum.Start = netip.MustParseAddrPort("127.0.0.1:7"), time.Now().Add(-age)
			if test.err != nil {
				sum.Received = 0
			}
			d := r.directions(t.Context(), sum)
			switch {
			case test.unknown != "":
				if !strings.Contains(d.Unknown, test.unknown) || d.LostThere != nil || d.LostBack != nil || d.Ledger != nil {
					t.Errorf("%s: %+v, want unknown: %s", name, d, test.unknown)
				}
			case d.Unknown != "" || *d.LostThere != test.there || *d.LostBack != 2-test.there:
				t.Errorf("%s: %+v", name, d)
			}
		}
	})
}

// A target's API that does not answer holds up a report for no longer than it may, even one of a run that was stopped.
func TestDirectionsDoNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r := newRun(New(Options{}), Plan{Protocol: UDP, PayloadBytes: 64, Ledger: func(ctx context.Context, _ uint64) (Ledger, error) {
			<-ctx.Done()
			return Ledger{}, ctx.Err()
		}}, nil)
		began := time.Now()
		d := r.directions(ctx, Report{Address: netip.MustParseAddrPort("127.0.0.1:7")})
		if took := time.Since(began); took != ledgerWait || d.Unknown == "" {
			t.Errorf("after %v: %+v", took, d)
		}
	})
}
