package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is a timeout that no test is meant to reach.
const patience = 60 * time.Second

// udpPeer serves datagrams on loopback until the test ends: serve gets each with its number, from 1, and answers with
// reply as often as it likes.
func udpPeer(t *testing.T, address string, serve func(n int, b []byte, reply func([]byte))) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Skipf("cannot listen on %s here: %v", address, err)
	}
	_ = conn.(*net.UDPConn).SetReadBuffer(1 << 20)
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 1<<16)
		for n := 1; ; n++ {
			size, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			serve(n, b[:size], func(r []byte) { _, _ = conn.WriteTo(r, from) })
		}
	})
	t.Cleanup(func() { _ = conn.Close(); wg.Wait() })
	return conn.LocalAddr().String()
}

func echoDatagram(_ int, b []byte, reply func([]byte)) { reply(b) }

// tcpPeer accepts on loopback until the test ends; serve gets each connection with its number, from 1, and it is closed
// when serve returns or the test ends.
func tcpPeer(t *testing.T, serve func(n int, c *net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			wg.Go(func() {
				serve(n, c.(*net.TCPConn))
				stop()
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); cancel(); wg.Wait() })
	return l.Addr().String()
}

func echoStream(_ int, c *net.TCPConn) { _, _ = io.Copy(c, c) }

// closedPort answers an address on which nobody listens.
func closedPort(t *testing.T, network string) string {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket(network, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().String()
	}
	l, err := net.Listen(network, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// runPlan runs a plan, checks what holds of every run, and answers what was told.
func runPlan(t *testing.T, plan Plan) (Report, []Sample) {
	t.Helper()
	r, samples := runProber(t.Context(), t, New(Options{}), plan, nil)
	if r.Outstanding != 0 {
		t.Errorf("%d rounds are outstanding after a run that came to its end", r.Outstanding)
	}
	return r, samples
}

func runProber(ctx context.Context, t *testing.T, p *Prober, plan Plan, emit func(Sample)) (Report, []Sample) {
	t.Helper()
	var samples []Sample
	r, err := p.Run(ctx, plan, func(s Sample) error {
		samples = append(samples, s)
		if emit != nil {
			emit(s)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("Run: %v", err)
	}
	checkReport(t, r)
	checkSamples(t, r, samples)
	return r, samples
}

// checkReport checks what holds of every report of a run that has ended.
func checkReport(t *testing.T, r Report) {
	t.Helper()
	if r.Sent != r.Received+r.Lost+r.Corrupted+r.Late+r.Outstanding || r.Outstanding > r.Sent {
		t.Errorf("sent %d, but received %d, lost %d, corrupted %d, late %d, outstanding %d", r.Sent, r.Received, r.Lost, r.Corrupted, r.Late, r.Outstanding)
	}
	var failed uint32
	for i, e := range r.Errors {
		if e.Count == 0 || e.Message == "" || e.Reason == "" {
			t.Errorf("an empty error: %+v", e)
		}
		if i > 0 && e.Count > r.Errors[i-1].Count {
			t.Errorf("errors are not most frequent first: %+v", r.Errors)
		}
		if e.Reason != ReasonNotClosed {
			failed += e.Count
		}
	}
	if failed != r.Lost+r.Corrupted {
		t.Errorf("%d errors for lost %d and corrupted %d: %+v", failed, r.Lost, r.Corrupted, r.Errors)
	}
	if (r.RTT != nil) != (r.Received > 0) {
		t.Errorf("received %d, RTT %+v", r.Received, r.RTT)
	}
	if r.ApplicationRTT != nil && r.ApplicationRTT.Count != r.Received {
		t.Errorf("received %d, ApplicationRTT %+v", r.Received, r.ApplicationRTT)
	}
	if paused := r.Timestamps.Paused; r.RTT != nil && (r.RTT.Count > r.Received || r.RTT.Count < r.Received-paused) {
		t.Errorf("received %d, %d paused, RTT %+v", r.Received, paused, r.RTT)
	}
	if r.RTT != nil {
		checkDistribution(t, *r.RTT)
	}
	if r.Connect != nil {
		checkDistribution(t, *r.Connect)
	}
	if r.Elapsed < 0 {
		t.Errorf("elapsed %v", r.Elapsed)
	}
}

func checkDistribution(t *testing.T, d Distribution) {
	t.Helper()
	last := d.Min
	for _, next := range []time.Duration{d.P50, d.P90, d.P99, d.P999, d.Max} {
		if next < last {
			t.Errorf("not in order: %+v", d)
		}
		last = next
	}
	if d.Count == 0 || d.Mean < d.Min || d.Mean > d.Max || d.Min < 0 {
		t.Errorf("not a distribution: %+v", d)
	}
}

// checkSamples checks that the samples say what the report says.
func checkSamples(t *testing.T, r Report, samples []Sample) {
	t.Helper()
	now := map[uint32]Outcome{}
	count := map[Outcome]uint32{}
	for _, s := range samples {
		if s.Outcome == WrongAddress { // may come at any time
			count[WrongAddress]++
			continue
		}
		before, told := now[s.Seq]
		switch {
		case s.Seq == 0:
			t.Errorf("a sample without a number: %+v", s)
		case s.Outcome == Late && before != Lost, s.Outcome == Duplicated && !told:
			t.Errorf("%v of round %d after %v", s.Outcome, s.Seq, before)
		case s.Outcome != Late && s.Outcome != Duplicated && told:
			t.Errorf("round %d told of as %v, then %v", s.Seq, before, s.Outcome)
		}
		if right := s.Outcome == Received || s.Outcome == Late; right && s.RTT == nil || s.RTT != nil && *s.RTT < 0 {
			t.Errorf("RTT of %+v", s)
		}
		if failed := s.Outcome == Lost || s.Outcome == Corrupted; failed && (s.RTT != nil || s.Reason == "") {
			t.Errorf("a failed round with a round trip or without a reason: %+v", s)
		}
		if (s.Reason == "") != (s.Err == "") {
			t.Errorf("reason and words do not go together: %+v", s)
		}
		if s.Outcome != Duplicated {
			now[s.Seq] = s.Outcome
		} else {
			count[Duplicated]++
		}
	}
	for _, o := range now {
		count[o]++
	}
	if count[Received] != r.Received || count[Lost] != r.Lost || count[Corrupted] != r.Corrupted || count[Late] != r.Late {
		t.Errorf("samples say %v, the report %+v", count, r)
	}
	if r.Duplicated != nil && *r.Duplicated != count[Duplicated] {
		t.Errorf("samples say %d duplicated, the report %d", count[Duplicated], *r.Duplicated)
	}
	if r.WrongAddress != nil && *r.WrongAddress != count[WrongAddress] {
		t.Errorf("samples say %d from a wrong address, the report %d", count[WrongAddress], *r.WrongAddress)
	}
}

// wantCounts compares the five counters.
func wantCounts(t *testing.T, r Report, sent, received, lost, corrupted, late uint32) {
	t.Helper()
	got := [5]uint32{r.Sent, r.Received, r.Lost, r.Corrupted, r.Late}
	if want := [5]uint32{sent, received, lost, corrupted, late}; got != want {
		t.Errorf("sent, received, lost, corrupted, late = %v, want %v; errors %+v", got, want, r.Errors)
	}
}

// wantReason says that the one reason for all errors is this one.
func wantReason(t *testing.T, r Report, reason Reason, count uint32) {
	t.Helper()
	if len(r.Errors) != 1 || r.Errors[0].Reason != reason || r.Errors[0].Count != count {
		t.Errorf("errors = %+v, want %d %s alone", r.Errors, count, reason)
	}
}

func outcomes(samples []Sample) map[uint32][]Outcome {
	m := map[uint32][]Outcome{}
	for _, s := range samples {
		m[s.Seq] = append(m[s.Seq], s.Outcome)
	}
	return m
}

var errStop = errors.New("enough")
