package probe

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"maps"
	"net"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/echod/echod/daemon/internal/wire"
)

// fate is what a scripted peer does with a round. The zero value answers it.
type fate struct {
	drop      bool          // no right reply
	copies    int           // besides the reply
	corrupt   bool          // the reply is damaged
	elsewhere bool          // a reply from another address goes first
	stale     bool          // a reply of another run to the same round goes first
	junk      bool          // something that is no reply at all goes first
	after     uint32        // the reply waits until the peer has seen this round
	late      bool          // the reply waits until the round has been given up
	delay     time.Duration // how long the reply takes; in memory only
}

// script is what a peer does with the rounds of a run, by their number; those that are not in it are answered.
type script map[uint32]fate

// scripted is a peer that keeps to a script.
type scripted struct {
	script    script
	mu        sync.Mutex
	seen      map[uint32]bool
	held      map[uint32][]func() // by the round that they wait for
	givenUp   map[uint32]bool
	late      map[uint32]func()
	elsewhere func(b []byte, to net.Addr)
}

func newScripted(s script) *scripted {
	return &scripted{
		script: s, seen: map[uint32]bool{}, held: map[uint32][]func(){}, givenUp: map[uint32]bool{}, late: map[uint32]func(){},
	}
}

// serve takes a datagram. What it answers goes out by reply, in its order.
func (p *scripted) serve(b []byte, from net.Addr, reply func([]byte)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b = bytes.Clone(b)
	run, seq, _ := wire.Parse(b)
	f := p.script[seq]
	if f.elsewhere && p.elsewhere != nil {
		p.elsewhere(b, from)
	}
	if f.stale {
		other := make([]byte, len(b))
		wire.Fill(other, run+1, seq, 0)
		reply(other)
	}
	if f.junk {
		reply(nil)
		reply([]byte("who is there?"))
		reply(bytes.Repeat([]byte{0xff}, len(b)))
	}
	if f.corrupt {
		b[len(b)-1] ^= 1
	}
	answer := func() {
		for range f.copies + 1 {
			reply(b)
		}
	}
	switch {
	case f.drop:
	case f.after > seq:
		p.held[f.after] = append(p.held[f.after], answer)
	case f.late && !p.givenUp[seq]:
		p.late[seq] = answer
	case f.delay > 0:
		time.AfterFunc(f.delay, answer)
	default:
		answer()
	}
	p.seen[seq] = true
	for _, answer := range p.held[seq] {
		answer()
	}
	delete(p.held, seq)
}

// told is what the run tells: replies that are to be late leave when their round is lost.
func (p *scripted) told(s Sample) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.Outcome != Lost {
		return
	}
	p.givenUp[s.Seq] = true
	if answer := p.late[s.Seq]; answer != nil {
		answer()
	}
}

// way is how datagrams get to a scripted peer and back.
type way struct {
	name string
	sees bool // replies from other addresses
	// start starts a run, if it takes real time; the answer waits for it.
	start func(t *testing.T, p *scripted, plan Plan) (wait func(t *testing.T) (Report, []Sample))
}

// waysOfUDP are all the ways of datagrams there are.
func waysOfUDP() []way {
	return []way{
		{"in memory", false, func(_ *testing.T, p *scripted, plan Plan) func(*testing.T) (Report, []Sample) {
			return func(t *testing.T) (Report, []Sample) { return runInMemory(t, p, plan) }
		}},
		{"connected sockets", false, func(t *testing.T, p *scripted, plan Plan) func(*testing.T) (Report, []Sample) {
			return startOverSockets(t, New(Options{DialContext: new(net.Dialer).DialContext}), p, plan)
		}},
		{"sockets", hasStamps, func(t *testing.T, p *scripted, plan Plan) func(*testing.T) (Report, []Sample) {
			return startOverSockets(t, New(Options{}), p, plan)
		}},
	}
}

// runInMemory runs a plan in a time of its own, which is exact.
func runInMemory(t *testing.T, p *scripted, plan Plan) (r Report, samples []Sample) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		plan.Address = anyAddress
		prober := inMemory(func(_ int, c net.Conn) {
			replies := make(chan []byte, 1<<16) // in order, and the peer reads on meanwhile
			stop := make(chan struct{})
			defer close(stop)
			go func() {
				for {
					select {
					case b := <-replies:
						_, _ = c.Write(b)
					case <-stop:
						return
					}
				}
			}()
			b := make([]byte, 1<<16)
			for {
				n, err := c.Read(b)
				if err != nil {
					return
				}
				p.serve(b[:n], nil, func(b []byte) { replies <- bytes.Clone(b) })
			}
		})
		r, samples = runProber(t.Context(), t, prober, plan, p.told)
		time.Sleep(time.Hour) // Replies that take their time come to nobody.
	})
	return r, samples
}

// startOverSockets starts a run over loopback.
func startOverSockets(t *testing.T, prober *Prober, p *scripted, plan Plan) func(*testing.T) (Report, []Sample) {
	t.Helper()
	conn, other := listenUDP(t), listenUDP(t)
	p.elsewhere = func(b []byte, to net.Addr) { _, _ = other.WriteTo(b, to) }
	var serving, running sync.WaitGroup
	serving.Go(func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			p.serve(b[:n], from, func(b []byte) { _, _ = conn.WriteTo(b, from) })
		}
	})
	plan.Address = conn.LocalAddr().String()
	var r Report
	var samples []Sample
	var err error
	running.Go(func() {
		r, err = prober.Run(t.Context(), plan, func(s Sample) error {
			samples = append(samples, s)
			p.told(s)
			return nil
		})
		_ = conn.Close()
		serving.Wait()
	})
	t.Cleanup(running.Wait)
	return func(t *testing.T) (Report, []Sample) {
		t.Helper()
		if running.Wait(); err != nil {
			t.Fatal(err)
		}
		return r, samples
	}
}

func listenUDP(t *testing.T) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// answeredWithin is a timeout in which a busy machine answers the rounds that are answered, and for which a test can wait.
const answeredWithin = 4 * time.Second

// lostRounds is a script that drops rounds.
func lostRounds(seqs ...uint32) script {
	s := script{}
	for _, seq := range seqs {
		s[seq] = fate{drop: true}
	}
	return s
}

// TestKnownAnswers has peers do known things to known rounds, on every way: the report says exactly that, and the same on
// each of them.
func TestKnownAnswers(t *testing.T) {
	type rows struct{ bursts, longest uint32 }
	type counts struct{ sent, received, lost, corrupted, late uint32 }
	type besides struct{ duplicated, reordered, wrongAddress, ignored uint32 }
	cases := []struct {
		name     string
		script   script
		count    uint32
		flows    int
		interval time.Duration // 0: 1 ms
		sizes    []int
		counts   counts
		besides  besides
		rows     rows
		outcomes map[uint32][]Outcome // of the rounds of which more is to be said than received
		lost     []uint32             // of each outage, in order
		open     bool                 // the last of them
		perFlow  []counts
	}{
		{name: "all is well", count: 20, counts: counts{sent: 20, received: 20}},
		{
			name: "lost", script: lostRounds(3, 7, 8, 9), count: 20, counts: counts{sent: 20, received: 16, lost: 4},
			rows: rows{2, 3}, lost: []uint32{1, 3}, outcomes: map[uint32][]Outcome{3: {Lost}, 7: {Lost}, 8: {Lost}, 9: {Lost}},
		},
		{
			name: "lost to the end", script: lostRounds(8, 9, 10), count: 10, counts: counts{sent: 10, received: 7, lost: 3},
			rows: rows{1, 3}, lost: []uint32{3}, open: true, outcomes: map[uint32][]Outcome{8: {Lost}, 9: {Lost}, 10: {Lost}},
		},
		{
			name: "all lost", script: lostRounds(1, 2, 3, 4), count: 4, counts: counts{sent: 4, lost: 4},
			rows: rows{1, 4}, lost: []uint32{4}, open: true,
			outcomes: map[uint32][]Outcome{1: {Lost}, 2: {Lost}, 3: {Lost}, 4: {Lost}},
		},
		{
			name: "came again", script: script{4: {copies: 1}, 6: {copies: 3}}, count: 10, counts: counts{sent: 10, received: 10},
			besides:  besides{duplicated: 4},
			outcomes: map[uint32][]Outcome{4: {Received, Duplicated}, 6: {Received, Duplicated, Duplicated, Duplicated}},
		},
		{
			// 3 and 5 come after 7, in the order in which they left. 9 comes after 10.
			name: "reordered", script: script{3: {after: 7}, 5: {after: 7}, 9: {after: 10}}, count: 12,
			counts: counts{sent: 12, received: 12}, besides: besides{reordered: 3},
		},
		{
			name: "damaged", script: script{2: {corrupt: true}, 5: {corrupt: true}, 6: {drop: true}}, count: 8,
			counts: counts{sent: 8, received: 5, lost: 1, corrupted: 2}, rows: rows{1, 1}, lost: []uint32{1},
			outcomes: map[uint32][]Outcome{2: {Corrupted}, 5: {Corrupted}, 6: {Lost}},
		},
		{
			// The last rounds leave when the first have been given up.
			name: "late", script: script{1: {late: true}, 2: {late: true, copies: 1}, 4: {drop: true}}, count: 12, interval: answeredWithin / 8,
			counts: counts{sent: 12, received: 9, lost: 1, late: 2}, besides: besides{duplicated: 1, reordered: 2},
			rows: rows{2, 2}, lost: []uint32{2, 1},
			outcomes: map[uint32][]Outcome{1: {Lost, Late}, 2: {Lost, Late, Duplicated}, 4: {Lost}},
		},
		{
			name: "from elsewhere", script: script{2: {elsewhere: true}, 4: {elsewhere: true, drop: true}}, count: 6,
			counts: counts{sent: 6, received: 5, lost: 1}, besides: besides{wrongAddress: 2}, rows: rows{1, 1}, lost: []uint32{1},
			outcomes: map[uint32][]Outcome{2: {WrongAddress, Received}, 4: {WrongAddress, Lost}},
		},
		{
			name: "of another run, and of none", script: script{2: {stale: true}, 3: {stale: true, drop: true}, 5: {junk: true}}, count: 6,
			counts: counts{sent: 6, received: 5, lost: 1}, besides: besides{ignored: 5}, rows: rows{1, 1}, lost: []uint32{1},
			outcomes: map[uint32][]Outcome{3: {Lost}},
		},
		{
			// Flow 0 has the rounds 1, 4, 7, 10, flow 1 has 2, 5, 8, 11, flow 2 the rest. Among flows there is no order.
			name: "three flows", flows: 3, count: 12,
			script: script{
				2: {drop: true}, 5: {drop: true}, 3: {copies: 2}, 6: {corrupt: true}, 7: {drop: true}, 1: {after: 2}, 8: {after: 11}, 12: {drop: true},
			},
			counts: counts{sent: 12, received: 7, lost: 4, corrupted: 1}, besides: besides{duplicated: 2, reordered: 1},
			rows: rows{3, 2}, lost: []uint32{2, 1, 1}, open: true,
			outcomes: map[uint32][]Outcome{
				2: {Lost}, 5: {Lost}, 3: {Received, Duplicated, Duplicated}, 6: {Corrupted}, 7: {Lost}, 12: {Lost},
			},
			perFlow: []counts{{sent: 4, received: 3, lost: 1}, {sent: 4, received: 2, lost: 2}, {sent: 4, received: 2, lost: 1}},
		},
		{
			name: "sizes", sizes: []int{16, 100, 1400}, script: script{2: {drop: true}, 5: {drop: true}, 6: {corrupt: true}}, count: 9,
			counts: counts{sent: 9, received: 6, lost: 2, corrupted: 1}, rows: rows{2, 1}, lost: []uint32{1, 1},
			outcomes: map[uint32][]Outcome{2: {Lost}, 5: {Lost}, 6: {Corrupted}},
		},
	}
	ways := waysOfUDP()
	plans := make([]Plan, len(cases))
	waits := make([][]func(t *testing.T) (Report, []Sample), len(cases))
	for i, c := range cases { // All at once, for they wait for what is lost.
		plans[i] = Plan{
			Protocol: UDP, Count: c.count, Interval: cmp.Or(c.interval, time.Millisecond), Timeout: answeredWithin,
			PayloadBytes: 64, Flows: c.flows, Sizes: c.sizes,
		}
		for _, way := range ways {
			waits[i] = append(waits[i], way.start(t, newScripted(c.script), plans[i]))
		}
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for j, way := range ways {
				t.Run(way.name, func(t *testing.T) {
					plan := plans[i]
					r, samples := waits[i][j](t)
					referee(t, plan, r, samples)
					wantCounts(t, r, c.counts.sent, c.counts.received, c.counts.lost, c.counts.corrupted, c.counts.late)
					got := besides{*r.Duplicated, *r.Reordered, c.besides.wrongAddress, *r.Ignored}
					if way.sees {
						got.wrongAddress = *r.WrongAddress
					} else if r.WrongAddress != nil {
						t.Errorf("wrong addresses are told of and cannot be seen: %d", *r.WrongAddress)
					}
					if got != c.besides {
						t.Errorf("%+v, want %+v", got, c.besides)
					}
					if got := (rows{r.Loss.Bursts, r.Loss.LongestBurst}); got != c.rows {
						t.Errorf("%+v, want %+v", got, c.rows)
					}
					wantErrors(t, r, c.counts.lost, c.counts.corrupted)
					want := map[uint32][]Outcome{}
					for seq := range c.count {
						want[seq+1] = []Outcome{Received}
					}
					maps.Copy(want, c.outcomes)
					if !way.sees {
						for seq, o := range want {
							want[seq] = slices.DeleteFunc(slices.Clone(o), func(o Outcome) bool { return o == WrongAddress })
						}
					}
					if got := outcomes(samples); !reflect.DeepEqual(got, want) {
						t.Errorf("outcomes %v, want %v", got, want)
					}
					var lost []uint32
					open := false
					for _, o := range r.Outages {
						lost, open = append(lost, o.Lost), open || o.Open
					}
					if !slices.Equal(lost, c.lost) || open != c.open {
						t.Errorf("outages %+v, want %v lost, open %v", r.Outages, c.lost, c.open)
					}
					for i, want := range c.perFlow {
						if got := (counts{sent: r.Flows[i].Sent, received: r.Flows[i].Received, lost: r.Flows[i].Lost}); got != want {
							t.Errorf("flow %d: %+v, want %+v", i, got, want)
						}
					}
				})
			}
		})
	}
}

// wantErrors says that timeouts and damage are all that went wrong.
func wantErrors(t *testing.T, r Report, lost, corrupted uint32) {
	t.Helper()
	got := map[Reason]uint32{}
	for _, e := range r.Errors {
		got[e.Reason] = e.Count
	}
	want := map[Reason]uint32{}
	if lost > 0 {
		want[ReasonTimeout] = lost
	}
	if corrupted > 0 {
		want[ReasonCorrupted] = corrupted
	}
	if !maps.Equal(got, want) {
		t.Errorf("errors %v, want %v", got, want)
	}
}

// TestKnownTimes has replies take known times: what is told of times is exactly that.
func TestKnownTimes(t *testing.T) {
	const ms = time.Millisecond
	plan := Plan{Protocol: UDP, Count: 6, Interval: 100 * ms, Timeout: time.Second, PayloadBytes: 100}
	// Rounds leave at 0, 100, 200, 300, 400 and 500 ms.
	r, samples := runInMemory(t, newScripted(script{
		1: {delay: 20 * ms}, 2: {delay: 50 * ms}, 3: {drop: true}, 4: {delay: 30 * ms}, 5: {delay: 140 * ms}, 6: {delay: 10 * ms},
	}), plan)
	referee(t, plan, r, samples)
	wantCounts(t, r, 6, 5, 1, 0, 0)
	if *r.Reordered != 1 { // 6 comes at 510, 5 at 540.
		t.Errorf("reordered %d, want 1", *r.Reordered)
	}
	if r.RTT.Min != 10*ms || r.RTT.Max != 140*ms || r.RTT.Mean != 50*ms {
		t.Errorf("RTT %+v", *r.RTT)
	}
	// |50-20|, |140-30|, |10-140|: round 3 has none, and 4 does not follow 2.
	if r.IPDV.Count != 3 || r.IPDV.Min != 30*ms || r.IPDV.Max != 130*ms || r.IPDV.Mean != 90*ms {
		t.Errorf("IPDV %+v", *r.IPDV)
	}
	// By arrival: 20, 50, 30, 10, 140. D: 30, 20, 20, 130.
	// J: 30/16 = 1.875; + (20-1.875)/16 = 3.0078125; + (20-3.0078125)/16 = 4.06982421875; + (130-4.06982421875)/16 = 11.940460205078125.
	if *r.Jitter != 11940460 {
		t.Errorf("jitter %v, want 11.940460ms", *r.Jitter)
	}
	if want := []Outage{{Start: 200 * ms, Length: 100 * ms, Lost: 1}}; !slices.Equal(r.Outages, want) {
		t.Errorf("outages %+v, want %+v", r.Outages, want)
	}
	// From 0 until round 3 is given up, at 1.2 s.
	if want := (Throughput{Sent: 6 * 800 / 1.2, Received: 5 * 800 / 1.2}); *r.Throughput != want {
		t.Errorf("throughput %+v, want %+v", *r.Throughput, want)
	}
	if r.Schedule.Error.Max != 0 || r.Schedule.Late != 0 || r.Schedule.Moved != 0 || r.Schedule.Error.Count != 6 {
		t.Errorf("schedule %+v, %+v", *r.Schedule, r.Schedule.Error)
	}
	for i, s := range samples[:2] {
		if s.Left != time.Duration(i)*100*ms || s.PayloadBytes != 100 || s.Flow != 0 || s.Paused {
			t.Errorf("sample %+v", s)
		}
	}
	if r.Timestamps.Clock != UserClock || r.Timestamps.Missing != 0 || r.Timestamps.Paused != 0 {
		t.Errorf("timestamps %+v", r.Timestamps)
	}
}

// TestKnownOutages: an outage is from when its first round left until the next one left that was answered, or until its
// last round was given up.
func TestKnownOutages(t *testing.T) {
	const ms = time.Millisecond
	plan := Plan{Protocol: UDP, Count: 60, Interval: 10 * ms, Timeout: 200 * ms, PayloadBytes: 64, Flows: 2}
	// Flow 0 leaves at 0, 20, 40 ..., flow 1 at 10, 30, 50 ...
	s := script{}
	for seq := uint32(11); seq <= 30; seq += 2 {
		s[seq] = fate{drop: true} // Flow 0, from 100 ms on, 10 rounds.
	}
	s[20] = fate{drop: true}               // Flow 1, at 190 ms.
	s[22] = fate{corrupt: true}            // Flow 1: the path is there.
	s[58], s[60] = fate{drop: true}, s[20] // Flow 1, from 570 ms on.
	s[40] = fate{delay: 250 * ms}          // Flow 1, at 390 ms: in time it has no reply.
	r, samples := runInMemory(t, newScripted(s), plan)
	referee(t, plan, r, samples)
	want := []Outage{
		{Flow: 0, Start: 100 * ms, Length: 200 * ms, Lost: 10},
		{Flow: 1, Start: 190 * ms, Length: 20 * ms, Lost: 1},
		{Flow: 1, Start: 390 * ms, Length: 20 * ms, Lost: 1},
		{Flow: 1, Start: 570 * ms, Length: 220 * ms, Lost: 2, Open: true},
	}
	if !slices.Equal(r.Outages, want) {
		t.Errorf("outages %+v, want %+v", r.Outages, want)
	}
	if r.Loss.Bursts != 4 || r.Loss.LongestBurst != 10 {
		t.Errorf("loss %+v", *r.Loss)
	}
	wantCounts(t, r, 60, 45, 13, 1, 1)
}

// The longest outages are kept, and the rest counted.
func TestManyOutages(t *testing.T) {
	const ms = time.Millisecond
	plan := Plan{Protocol: UDP, Count: 1000, Interval: ms, Timeout: 200 * ms, PayloadBytes: 64}
	s := script{}
	for seq := uint32(2); seq <= 900; seq += 3 {
		s[seq] = fate{drop: true} // 300 of one round
	}
	for seq := uint32(950); seq < 960; seq++ {
		s[seq] = fate{drop: true} // and one of 10
	}
	r, samples := runInMemory(t, newScripted(s), plan)
	referee(t, plan, r, samples)
	if len(r.Outages) != maxOutages || r.MoreOutages != 301-maxOutages || r.Outages[maxOutages-1].Lost != 10 {
		t.Errorf("%d outages and %d more, the last %+v", len(r.Outages), r.MoreOutages, r.Outages[len(r.Outages)-1])
	}
}

// Without a number, nothing is said of order and of what came again, whatever the peer does.
func TestKnownWithoutNumber(t *testing.T) {
	for _, size := range []int{0, 1, 15} {
		for _, way := range waysOfUDP() {
			t.Run(way.name, func(t *testing.T) {
				n := uint32(0)
				p := newScripted(nil)
				p.script = script{0: {copies: 2}} // 0 is what a payload without a number says
				plan := Plan{Protocol: UDP, Count: 6, Timeout: patience, PayloadBytes: size, Interval: time.Millisecond}
				r, samples := way.start(t, p, plan)(t)
				for _, s := range samples {
					n++
					if s.Outcome != Received || s.Seq != n {
						t.Errorf("sample %+v", s)
					}
				}
				wantCounts(t, r, 6, 6, 0, 0, 0)
				if r.Duplicated != nil || r.Reordered != nil {
					t.Errorf("duplicated %v, reordered %v", r.Duplicated, r.Reordered)
				}
			})
		}
	}
}

// Replies to an earlier run from the same port are none of this one's.
func TestReplyOfAnEarlierRun(t *testing.T) {
	peer := listenUDP(t)
	var before [][]byte // what came in the first run
	first := true
	var serving sync.WaitGroup
	var mu sync.Mutex
	serving.Go(func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := peer.ReadFrom(b)
			if err != nil {
				return
			}
			mu.Lock()
			if first {
				before = append(before, bytes.Clone(b[:n]))
			} else {
				_, _ = peer.WriteTo(before[binary.BigEndian.Uint32(b[12:])-1], from)
			}
			mu.Unlock()
			_, _ = peer.WriteTo(b[:n], from)
		}
	})
	defer serving.Wait()
	defer peer.Close()
	plan := udpPlan(peer.LocalAddr().String(), 20)
	plan.Source = peer.LocalAddr().(*net.UDPAddr).AddrPort()
	source := listenUDP(t)
	plan.Source = source.LocalAddr().(*net.UDPAddr).AddrPort()
	source.Close()
	r, samples := runPlan(t, plan)
	referee(t, plan, r, samples)
	wantCounts(t, r, 20, 20, 0, 0, 0)
	mu.Lock()
	first = false
	mu.Unlock()
	again, samples := runPlan(t, plan)
	referee(t, plan, again, samples)
	wantCounts(t, again, 20, 20, 0, 0, 0)
	if *again.Ignored != 20 || *again.Duplicated != 0 || again.Run == r.Run {
		t.Errorf("ignored %d, duplicated %d, want 20 and 0", *again.Ignored, *again.Duplicated)
	}
}
