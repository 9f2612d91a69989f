package probe

import (
	"bytes"
	"context"
	"io"
	"net"
	"reflect"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// inMemory answers a prober whose connections lead to serve and keep the bounds of what is written to them. Inside a
// synctest bubble its time is exact.
func inMemory(serve func(n int, c net.Conn)) *Prober {
	var n atomic.Int32
	return New(Options{DialContext: func(context.Context, string, string) (net.Conn, error) {
		number := int(n.Add(1))
		ours, theirs := net.Pipe()
		go func() {
			serve(number, theirs)
			_ = theirs.Close()
		}()
		return halfCloser{ours}, nil
	}})
}

// halfCloser is a connection with a FIN that its peer takes no notice of.
type halfCloser struct{ net.Conn }

func (halfCloser) CloseWrite() error { return nil }

// bubble runs a test in a time of its own, and lets its peers come to their end.
func bubble(t *testing.T, test func(t *testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		test(t)
		time.Sleep(24 * time.Hour)
	})
}

// each serves datagrams: answer gets each with its number, in a goroutine of its own, and may take its time.
func each(answer func(n int, b []byte, c net.Conn)) func(int, net.Conn) {
	return func(_ int, c net.Conn) {
		b := make([]byte, 1<<16)
		for n := 1; ; n++ {
			size, err := c.Read(b)
			if err != nil {
				return
			}
			go answer(n, bytes.Clone(b[:size]), c)
		}
	}
}

const anyAddress = "192.0.2.1:7" // RFC 5737: nobody's.

func timedPlan(protocol Protocol) Plan {
	return Plan{Protocol: protocol, Address: anyAddress, Count: 4, Interval: 100 * time.Millisecond,
		Timeout: time.Second, PayloadBytes: DefaultPayloadBytes}
}

// Whatever carries the rounds, they leave on time, and what takes 30 ms takes 30 ms.
func TestPace(t *testing.T) {
	for name, plan := range map[string]Plan{
		"udp":            {Protocol: UDP},
		"udp, unmarked":  {Protocol: UDP, PayloadBytes: 5},
		"tcp":            {Protocol: TCP},
		"tcp, a new one": {Protocol: TCP, NewConnection: true},
	} {
		for _, c := range []struct {
			count              uint32
			duration, interval time.Duration
			sent               uint32
			elapsed            time.Duration
		}{
			{count: 4, interval: 100 * time.Millisecond, sent: 4, elapsed: 330 * time.Millisecond},
			{count: 4, interval: 0, sent: 4, elapsed: 120 * time.Millisecond},
			{count: 1, interval: time.Hour, sent: 1, elapsed: 30 * time.Millisecond},
			{duration: time.Second, interval: 200 * time.Millisecond, sent: 5, elapsed: 830 * time.Millisecond},
			{duration: time.Second, interval: 300 * time.Millisecond, sent: 4, elapsed: 930 * time.Millisecond},
			{duration: 90 * time.Millisecond, interval: 0, sent: 3, elapsed: 90 * time.Millisecond},
			{duration: time.Second, count: 2, interval: 300 * time.Millisecond, sent: 2, elapsed: 330 * time.Millisecond},
			{duration: time.Second / 2, count: 9, interval: 300 * time.Millisecond, sent: 2, elapsed: 330 * time.Millisecond},
		} {
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					p := inMemory(each(func(_ int, b []byte, c net.Conn) {
						time.Sleep(30 * time.Millisecond)
						_, _ = c.Write(b)
					}))
					plan := plan
					plan.Address, plan.Timeout = anyAddress, time.Second
					plan.Count, plan.Duration, plan.Interval = c.count, c.duration, c.interval
					if plan.PayloadBytes == 0 {
						plan.PayloadBytes = DefaultPayloadBytes
					}
					r, _ := runProber(t.Context(), t, p, plan, nil)
					wantCounts(t, r, c.sent, c.sent, 0, 0, 0)
					if r.Elapsed != c.elapsed {
						t.Errorf("took %v, want %v", r.Elapsed, c.elapsed)
					}
					if r.RTT != nil && (r.RTT.Min != 30*time.Millisecond || r.RTT.Max != 30*time.Millisecond) {
						t.Errorf("RTT %+v, want 30ms", r.RTT)
					}
				})
			})
		}
	}
}

func TestUDPLostAndLate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		// Rounds leave at 0, 100, 200, 300 ms. The reply to 1 comes at 1.1 s, to 2 never, to 3 in time, and to 4 at 1.2 s.
		delays := []time.Duration{1100 * time.Millisecond, time.Hour, 10 * time.Millisecond, 900 * time.Millisecond}
		r, samples := runProber(t.Context(), t, inMemory(each(func(n int, b []byte, c net.Conn) {
			time.Sleep(delays[n-1])
			_, _ = c.Write(b)
		})), timedPlan(UDP), nil)
		wantCounts(t, r, 4, 2, 1, 0, 1)
		wantReason(t, r, ReasonTimeout, 1)
		want := map[uint32][]Outcome{1: {Lost, Late}, 2: {Lost}, 3: {Received}, 4: {Received}}
		if got := outcomes(samples); !reflect.DeepEqual(got, want) {
			t.Errorf("outcomes %v, want %v", got, want)
		}
		i := slices.IndexFunc(samples, func(s Sample) bool { return s.Outcome == Late })
		if rtt := *samples[i].RTT; rtt != 1100*time.Millisecond {
			t.Errorf("the late reply took %v, want 1.1s", rtt)
		}
		if *r.Reordered != 1 {
			t.Errorf("reordered %d, want the late one", *r.Reordered)
		}
		if r.Elapsed != 1200*time.Millisecond {
			t.Errorf("took %v, want 1.2s", r.Elapsed)
		}
	})
}

// Without a number, a late reply is known by its bytes and does not end the round that is on its way.
func TestUDPLateWithoutNumber(t *testing.T) {
	for _, size := range []int{1, 8} {
		bubble(t, func(t *testing.T) {
			plan := timedPlan(UDP)
			plan.PayloadBytes = size
			r, samples := runProber(t.Context(), t, inMemory(each(func(n int, b []byte, c net.Conn) {
				if n == 1 {
					time.Sleep(1200 * time.Millisecond) // Round 2 is on its way then.
				}
				if n == 2 {
					time.Sleep(500 * time.Millisecond)
				}
				_, _ = c.Write(b)
			})), plan, nil)
			wantCounts(t, r, 4, 3, 0, 0, 1)
			if got := outcomes(samples)[1]; !reflect.DeepEqual(got, []Outcome{Lost, Late}) {
				t.Errorf("round 1 is %v", got)
			}
			if r.RTT.Max != 500*time.Millisecond {
				t.Errorf("RTT %+v, want 500ms for round 2", r.RTT)
			}
		})
	}
}

// The kernel may hand the report on one datagram to the write of the next, which has not left then.
func TestUDPRefusalTakenByAWrite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := inMemory(each(func(n int, b []byte, c net.Conn) {
			if n > 1 {
				_, _ = c.Write(b)
			}
		}))
		dial := p.options.DialContext
		p.options.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			return &refusedOnce{Conn: c}, err
		}
		r, samples := runProber(t.Context(), t, p, timedPlan(UDP), nil)
		wantCounts(t, r, 4, 3, 1, 0, 0)
		wantReason(t, r, ReasonRefused, 1)
		if samples[0].Seq != 1 || samples[0].Outcome != Lost || r.Elapsed != 300*time.Millisecond {
			t.Errorf("first sample %+v, elapsed %v", samples[0], r.Elapsed)
		}
	})
}

// refusedOnce fails the second write.
type refusedOnce struct {
	net.Conn
	writes int
}

func (c *refusedOnce) Write(b []byte) (int, error) {
	if c.writes++; c.writes == 2 {
		return 0, syscall.ECONNREFUSED
	}
	return c.Conn.Write(b)
}

// A reply whose number was changed into that of another round on its way does not cost that other round.
func TestUDPDamagedIntoAnotherNumber(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, samples := runProber(t.Context(), t, inMemory(each(func(n int, b []byte, c net.Conn) {
			time.Sleep(500 * time.Millisecond)
			if n == 2 {
				b[15] ^= 1
			}
			_, _ = c.Write(b)
		})), timedPlan(UDP), nil)
		wantCounts(t, r, 4, 3, 0, 1, 0)
		if got := outcomes(samples)[2]; !reflect.DeepEqual(got, []Outcome{Corrupted}) || *r.Duplicated != 0 {
			t.Errorf("round 2 is %v, duplicated %d", got, *r.Duplicated)
		}
	})
}

// A socket that fails for good is replaced.
func TestUDPSocketThatBreaks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := inMemory(func(n int, c net.Conn) {
			b := make([]byte, DefaultPayloadBytes)
			if _, err := c.Read(b); err == nil && n > 1 {
				_, _ = c.Write(b)
				_, _ = io.Copy(c, c)
			}
		})
		r, _ := runProber(t.Context(), t, p, timedPlan(UDP), nil)
		wantCounts(t, r, 4, 3, 1, 0, 0)
		wantReason(t, r, ReasonClosedEarly, 1)
	})
}

// A round that is overdue before it could be written never is; those after it keep their places.
func TestStreamWithdrawsWhatIsOverdue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		// Connected at 0.5 s, the server reads from 1.45 s on: round 2, of 0.3 s, is overdue by then, round 3 is not.
		blocks := 0
		p := inMemory(func(_ int, c net.Conn) {
			time.Sleep(950 * time.Millisecond)
			for b := readBlock(c); b != nil; b = readBlock(c) {
				blocks++
				_, _ = c.Write(b)
			}
		})
		dial := p.options.DialContext
		p.options.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			time.Sleep(500 * time.Millisecond)
			return dial(ctx, network, address)
		}
		plan := timedPlan(TCP)
		plan.Count, plan.Interval = 6, 300*time.Millisecond
		r, samples := runProber(t.Context(), t, p, plan, nil)
		wantCounts(t, r, 6, 5, 1, 0, 0)
		wantReason(t, r, ReasonTimeout, 1)
		if blocks != 5 || !reflect.DeepEqual(outcomes(samples)[2], []Outcome{Lost}) {
			t.Errorf("%d blocks were written; round 2 is %v", blocks, outcomes(samples)[2])
		}
	})
}

// Replies to rounds that were given up are late, and those after them still find their place.
func TestStreamLostAndLate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		// The server is away until 1.15 s: rounds 1 and 2 (of 0 and 100 ms) are late, 3 and 4 in time.
		p := inMemory(func(_ int, c net.Conn) {
			b := make([]byte, 4*DefaultPayloadBytes)
			for i := range 4 {
				_, _ = io.ReadFull(c, b[i*DefaultPayloadBytes:][:DefaultPayloadBytes])
			}
			time.Sleep(850 * time.Millisecond)
			_, _ = c.Write(b)
			_, _ = c.Read(b)
		})
		r, samples := runProber(t.Context(), t, p, timedPlan(TCP), nil)
		wantCounts(t, r, 4, 2, 0, 0, 2)
		want := map[uint32][]Outcome{1: {Lost, Late}, 2: {Lost, Late}, 3: {Received}, 4: {Received}}
		if got := outcomes(samples); !reflect.DeepEqual(got, want) {
			t.Errorf("outcomes %v, want %v", got, want)
		}
		if len(r.Errors) != 0 || r.Duplicated != nil || r.Reordered != nil {
			t.Errorf("errors %+v, duplicated %v, reordered %v", r.Errors, r.Duplicated, r.Reordered)
		}
	})
}

// The server keeps its side open: the rounds are received, and told of when the second timeout has passed.
func TestTCPNotClosed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		plan := timedPlan(TCP)
		plan.AwaitClose = true
		p := inMemory(func(_ int, c net.Conn) { _, _ = io.Copy(c, c) })
		r, samples := runProber(t.Context(), t, p, plan, nil)
		wantCounts(t, r, 4, 4, 0, 0, 0)
		wantReason(t, r, ReasonNotClosed, 4)
		for _, s := range samples {
			if s.Outcome != Received || s.RTT == nil || s.Reason != ReasonNotClosed {
				t.Errorf("sample %+v", s)
			}
		}
		if r.Elapsed != 1300*time.Millisecond {
			t.Errorf("took %v, want 1.3s", r.Elapsed)
		}
	})
}

// The server closes its side without reading. That ends a round at once, although its write would wait on.
func TestTCPClosedDuringTheWrite(t *testing.T) {
	for _, newConnection := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			p := inMemory(func(int, net.Conn) { time.Sleep(time.Hour) })
			dial := p.options.DialContext
			p.options.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := dial(ctx, network, address)
				return closedForReads{c}, err
			}
			plan := timedPlan(TCP)
			plan.NewConnection = newConnection
			r, _ := runProber(t.Context(), t, p, plan, nil)
			wantCounts(t, r, 4, 0, 4, 0, 0)
			wantReason(t, r, ReasonClosedEarly, 4)
			if r.Elapsed != 301*time.Millisecond {
				t.Errorf("took %v, want 301ms", r.Elapsed)
			}
		})
	}
}

// closedForReads is a connection whose other side has sent a FIN, some time after the write began.
type closedForReads struct{ net.Conn }

func (closedForReads) Read([]byte) (int, error) {
	time.Sleep(time.Millisecond)
	return 0, io.EOF
}

// Rounds keep leaving while a connection is being made, and go down it when it is there.
func TestStreamSlowToConnect(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := inMemory(func(_ int, c net.Conn) { _, _ = io.Copy(c, c) })
		dial := p.options.DialContext
		p.options.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			if network != "tcp" || address != anyAddress {
				t.Errorf("dials %s %s", network, address)
			}
			time.Sleep(250 * time.Millisecond)
			return dial(ctx, network, address)
		}
		r, samples := runProber(t.Context(), t, p, timedPlan(TCP), nil)
		wantCounts(t, r, 4, 4, 0, 0, 0)
		if r.Connect.Count != 1 || r.Connect.Max != 250*time.Millisecond || samples[0].Connect == nil {
			t.Errorf("connect %+v, first sample %+v", r.Connect, samples[0])
		}
		if r.RTT.Max != 0 || r.Elapsed != 300*time.Millisecond {
			t.Errorf("RTT %v, elapsed %v, want 0s, 300ms", r.RTT.Max, r.Elapsed)
		}
	})
}

// Nobody answers the SYN: the rounds begun meanwhile are lost when the connect is given up.
func TestTCPConnectTimeout(t *testing.T) {
	for _, newConnection := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			p := New(Options{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}})
			plan := timedPlan(TCP)
			plan.NewConnection = newConnection
			r, _ := runProber(t.Context(), t, p, plan, nil)
			wantCounts(t, r, 4, 0, 4, 0, 0)
			wantReason(t, r, ReasonTimeout, 4)
			if r.Connect != nil || r.Elapsed > 1300*time.Millisecond {
				t.Errorf("connect %+v, elapsed %v", r.Connect, r.Elapsed)
			}
		})
	}
}

// A server that never reads: a round that cannot be written within the timeout is lost, and the next connects again.
func TestStreamThatCannotBeWritten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := inMemory(func(n int, c net.Conn) {
			if n == 1 {
				time.Sleep(1050 * time.Millisecond)
				return
			}
			_, _ = io.Copy(c, c)
		})
		plan := timedPlan(TCP)
		plan.Count, plan.Interval = 3, 600*time.Millisecond
		r, _ := runProber(t.Context(), t, p, plan, nil)
		wantCounts(t, r, 3, 1, 2, 0, 0)
		wantReason(t, r, ReasonTimeout, 2)
		if r.Connect.Count != 2 {
			t.Errorf("%d connections, want 2", r.Connect.Count)
		}
	})
}

// With as many on their way as may be, the next round waits; ending early takes back what is on its way.
func TestBound(t *testing.T) {
	for name, plan := range map[string]Plan{
		"udp":            {Protocol: UDP},
		"tcp":            {Protocol: TCP},
		"tcp, a new one": {Protocol: TCP, NewConnection: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				plan, most := plan, uint32(MaxOutstanding)
				if plan.Protocol == UDP {
					most = windowRounds - 1
				}
				plan.Address, plan.Timeout, plan.Interval = anyAddress, time.Minute, time.Microsecond
				plan.PayloadBytes, plan.Tally = DefaultPayloadBytes, new(Tally)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				go func() {
					time.Sleep(9 * time.Second)
					if r := plan.Tally.Report(); r.Sent != most || r.Lost != 0 || r.Elapsed != 9*time.Second {
						t.Errorf("after 9 s: %+v", r)
					}
				}()
				silent := inMemory(func(_ int, c net.Conn) { _, _ = io.Copy(io.Discard, c) })
				r, _ := runProber(ctx, t, silent, plan, nil)
				wantCounts(t, r, most, 0, 0, 0, 0)
			})
		})
	}
}

// The memory of a connection whose server never answers is bounded, too.
func TestStreamGivenUpWhenNeverAnswered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := inMemory(func(_ int, c net.Conn) {
			_, _ = io.Copy(io.Discard, c)
		})
		plan := timedPlan(TCP)
		plan.Count, plan.Interval, plan.Timeout = maxUnanswered+1, time.Millisecond, 10*time.Millisecond
		r, _ := runProber(t.Context(), t, p, plan, nil)
		wantCounts(t, r, maxUnanswered+1, 0, maxUnanswered+1, 0, 0)
		if r.Connect.Count != 2 {
			t.Errorf("%d connections, want 2", r.Connect.Count)
		}
	})
}

func TestPacerAfterADelay(t *testing.T) {
	const ms = time.Millisecond
	p := pacer{interval: 10 * ms}
	p.leave(0)
	p.leave(95 * ms) // 85 ms late: the schedule stands.
	if at := p.at(95 * ms); at != 20*ms {
		t.Errorf("the third round leaves at %v, want 20ms", at)
	}
	p.leave(300 * ms) // 280 ms late: it moves.
	if at := p.at(300 * ms); at != 310*ms {
		t.Errorf("the fourth round leaves at %v, want 310ms", at)
	}
}
