package probe

import (
	"context"
	"errors"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func lookupLoopback(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

func TestValidate(t *testing.T) {
	good := Plan{Protocol: UDP, Address: "127.0.0.1:7", Count: 5, Interval: DefaultInterval, Timeout: DefaultTimeout,
		PayloadBytes: DefaultPayloadBytes}
	for _, c := range []struct {
		name, want string // want: the start of the error, empty for none
		change     func(p *Plan)
	}{
		{"good", "", func(*Plan) {}},
		{"no bounds", "", func(p *Plan) { p.Count, p.Interval = 0, 0 }},
		{"an empty datagram", "", func(p *Plan) { p.PayloadBytes = 0 }},
		{"a name", "", func(p *Plan) { p.Address = "echo.example:7" }},
		{"a zone", "", func(p *Plan) { p.Address = "[fe80::1%eth0]:7" }},
		{"longest over IPv6", "", func(p *Plan) { p.Address, p.PayloadBytes = "[::1]:7", MaxPayloadUDP6 }},
		{"longest over TCP", "", func(p *Plan) { p.Protocol, p.PayloadBytes = TCP, MaxPayloadTCP }},
		{"await close", "", func(p *Plan) { p.Protocol, p.AwaitClose = TCP, true }},
		{"nothing", "protocol Protocol(0)", func(p *Plan) { *p = Plan{} }},
		{"protocol", "protocol Protocol(3)", func(p *Plan) { p.Protocol = 3 }},
		{"no address", `address ""`, func(p *Plan) { p.Address = "" }},
		{"no port", `address "127.0.0.1"`, func(p *Plan) { p.Address = "127.0.0.1" }},
		{"no host", `address ":7"`, func(p *Plan) { p.Address = ":7" }},
		{"port 0", `address "a:0"`, func(p *Plan) { p.Address = "a:0" }},
		{"port 65536", `address "a:65536"`, func(p *Plan) { p.Address = "a:65536" }},
		{"port echo", `address "a:echo"`, func(p *Plan) { p.Address = "a:echo" }},
		{"count", "count 100000001", func(p *Plan) { p.Count = MaxCount + 1 }},
		{"duration", "duration -1s", func(p *Plan) { p.Duration = -time.Second }},
		{"long duration", "duration 24h0m1s", func(p *Plan) { p.Duration = MaxDuration + time.Second }},
		{"interval", "interval -1ns", func(p *Plan) { p.Interval = -1 }},
		{"long interval", "interval 1h0m1s", func(p *Plan) { p.Interval = MaxInterval + time.Second }},
		{"at random without an interval", "pacing poisson: needs an interval", func(p *Plan) { p.Pacing, p.Interval = Poisson, 0 }},
		{"bound of a closed loop", "", func(p *Plan) { p.Interval, p.MaxRate = 0, minMaxRate }},
		{"bound that is none", "max_rate -1", func(p *Plan) { p.MaxRate = -1 }},
		{"bound that is no number", "max_rate NaN", func(p *Plan) { p.MaxRate = math.NaN() }},
		{"timeout", "timeout 0s", func(p *Plan) { p.Timeout = 0 }},
		{"long timeout", "timeout 5m1s", func(p *Plan) { p.Timeout = MaxTimeout + time.Second }},
		{"negative payload", "payload_size -1", func(p *Plan) { p.PayloadBytes = -1 }},
		{"long over IPv4", "payload_size 65508", func(p *Plan) { p.PayloadBytes = MaxPayloadUDP4 + 1 }},
		{"long over mapped IPv4", "payload_size 65508", func(p *Plan) {
			p.Address, p.PayloadBytes = "[::ffff:127.0.0.1]:7", MaxPayloadUDP4+1
		}},
		{"long over IPv6", "payload_size 65528", func(p *Plan) { p.Address, p.PayloadBytes = "[::1]:7", MaxPayloadUDP6+1 }},
		{"nothing over TCP", "payload_size 0", func(p *Plan) { p.Protocol, p.PayloadBytes = TCP, 0 }},
		{"long over TCP", "payload_size 1048577", func(p *Plan) { p.Protocol, p.PayloadBytes = TCP, MaxPayloadTCP+1 }},
		{"new connection over UDP", "new_connection", func(p *Plan) { p.NewConnection = true }},
		{"await close over UDP", "await_close", func(p *Plan) { p.AwaitClose = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan := good
			c.change(&plan)
			err := plan.Validate()
			switch {
			case c.want == "" && err != nil:
				t.Errorf("Validate: %v", err)
			case c.want != "" && !errors.Is(err, ErrBadPlan):
				t.Errorf("Validate = %v, want ErrBadPlan", err)
			case c.want != "" && !strings.HasPrefix(err.Error(), c.want):
				t.Errorf("Validate = %q, want it to begin with %q", err, c.want)
			}
		})
	}
}

func TestRunOfABadPlan(t *testing.T) {
	_, err := New(Options{}).Run(t.Context(), Plan{}, nil)
	if !errors.Is(err, ErrBadPlan) {
		t.Errorf("Run = %v", err)
	}
}

func TestNameNotFound(t *testing.T) {
	for name, lookup := range map[string]func(ctx context.Context, network, host string) ([]netip.Addr, error){
		"not there": func(_ context.Context, _, host string) ([]netip.Addr, error) {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		},
		"empty": func(context.Context, string, string) ([]netip.Addr, error) { return nil, nil },
		"never answers": func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				for _, protocol := range []Protocol{TCP, UDP} {
					p := New(Options{LookupNetIP: lookup})
					plan := timedPlan(protocol)
					plan.Address = "nobody.example:7"
					r, samples := runProber(t.Context(), t, p, plan, nil)
					wantCounts(t, r, 1, 0, 1, 0, 0)
					wantReason(t, r, ReasonNameNotFound, 1)
					if r.Address.IsValid() || !strings.Contains(samples[0].Err, "nobody.example:7") {
						t.Errorf("address %v, sample %+v", r.Address, samples[0])
					}
					if r.Elapsed > 6*time.Second {
						t.Errorf("the lookup took %v", r.Elapsed)
					}
				}
			})
		})
	}
}

func TestNameIsLookedUpOnce(t *testing.T) {
	address := tcpPeer(t, echoStream)
	_, port, _ := net.SplitHostPort(address)
	lookups := 0
	p := New(Options{LookupNetIP: func(_ context.Context, network, host string) ([]netip.Addr, error) {
		lookups++
		if network != "ip" || host != "here.example" {
			t.Errorf("lookup of %s %s", network, host)
		}
		return []netip.Addr{netip.IPv6Loopback(), netip.MustParseAddr("::ffff:127.0.0.1")}, nil
	}})
	plan := tcpPlan("here.example:"+port, 3)
	plan.NewConnection = true
	r, _ := runProber(t.Context(), t, p, plan, nil)
	wantCounts(t, r, 3, 3, 0, 0, 0)
	if lookups != 1 || r.Address.String() != address {
		t.Errorf("%d lookups, address %v", lookups, r.Address)
	}
}

func TestEndedDuringLookup(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := New(Options{LookupNetIP: func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	plan := timedPlan(UDP)
	plan.Address = "slow.example:7"
	r, _ := runProber(ctx, t, p, plan, nil)
	wantCounts(t, r, 0, 0, 0, 0, 0)
}

// What is on its way when a run is ended is outstanding, not lost.
func TestEndedEarly(t *testing.T) {
	for name, plan := range map[string]Plan{
		"udp":            {Protocol: UDP},
		"tcp":            {Protocol: TCP},
		"tcp, a new one": {Protocol: TCP, NewConnection: true},
	} {
		plan.Address, plan.Timeout, plan.Interval = anyAddress, time.Second, 10*time.Millisecond
		plan.PayloadBytes = DefaultPayloadBytes
		// The reply takes 25 ms, so there are always some on their way.
		slow := func() *Prober {
			return inMemory(each(func(_ int, b []byte, c net.Conn) {
				time.Sleep(25 * time.Millisecond)
				_, _ = c.Write(b)
			}))
		}
		t.Run(name+", by its context", func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 101*time.Millisecond)
				defer cancel()
				r, _ := runProber(ctx, t, slow(), plan, nil)
				wantCounts(t, r, 11, 8, 0, 0, 0) // Those of 0 to 70 ms are back.
				if r.Elapsed != 101*time.Millisecond {
					t.Errorf("took %v", r.Elapsed)
				}
			})
		})
		t.Run(name+", by emit", func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				told := 0
				r, err := slow().Run(t.Context(), plan, func(s Sample) error {
					if told++; told == 3 {
						return errStop
					}
					return nil
				})
				if !errors.Is(err, errStop) || told != 3 {
					t.Errorf("Run = %v after %d samples", err, told)
				}
				checkReport(t, r)
				wantCounts(t, r, 5, 3, 0, 0, 0)
			})
		})
	}
}

// Ending a run closes its connections, which no round may be told of as its own failure.
func TestEndedEarlyLosesNothing(t *testing.T) {
	silentTCP := tcpPeer(t, func(_ int, c *net.TCPConn) { waitForFIN(c) })
	silentUDP := udpPeer(t, "127.0.0.1:0", func(int, []byte, func([]byte)) {})
	for range 30 {
		alone := tcpPlan(silentTCP, 0)
		alone.NewConnection = true
		for _, plan := range []Plan{udpPlan(silentUDP, 0), tcpPlan(silentTCP, 0), alone} {
			plan.Tally = new(Tally)
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				defer cancel()
				for plan.Tally.Report().Sent < 5 {
					time.Sleep(time.Millisecond)
				}
			}()
			r, _ := runProber(ctx, t, New(Options{}), plan, nil)
			if r.Sent < 5 {
				t.Errorf("sent %d", r.Sent)
			}
			wantCounts(t, r, r.Sent, 0, 0, 0, 0)
		}
	}
}

func TestWithoutEmit(t *testing.T) {
	r, err := New(Options{}).Run(t.Context(), udpPlan(udpPeer(t, "127.0.0.1:0", echoDatagram), 3), nil)
	if err != nil {
		t.Fatal(err)
	}
	checkReport(t, r)
	wantCounts(t, r, 3, 3, 0, 0, 0)
}

// A caller's tally serves one run after the other, and is read meanwhile.
func TestTallyDuringTheRun(t *testing.T) {
	plan := udpPlan(udpPeer(t, "127.0.0.1:0", echoDatagram), 300)
	plan.Tally = new(Tally)
	if r := plan.Tally.Report(); r.Sent != 0 || r.Elapsed != 0 {
		t.Errorf("before: %+v", r)
	}
	for range 2 {
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if r := plan.Tally.Report(); r.Sent < r.Received+r.Lost+r.Corrupted+r.Late {
					t.Errorf("more ended than sent: %+v", r)
				}
				time.Sleep(time.Millisecond)
			}
		}()
		r, _ := runPlan(t, plan)
		close(stop)
		<-stopped
		wantCounts(t, r, 300, 300, 0, 0, 0)
		if after := plan.Tally.Report(); after.Elapsed != r.Elapsed || after.Received != r.Received {
			t.Errorf("after: %+v, want %+v", after, r)
		}
	}
}

func TestErrorsMostFrequentFirst(t *testing.T) {
	var tally Tally
	tally.start(timedPlan(TCP), 1)
	for i, reason := range []Reason{
		ReasonReset, ReasonRefused, ReasonTimeout, ReasonRefused, ReasonTimeout, ReasonRefused,
	} {
		tally.begin(0, uint32(i+1), 64, 0, 0, 0)
		tally.add(Sample{Seq: uint32(i + 1), Outcome: Lost, Reason: reason, Err: string(reason)}, NoReason, UserClock, 0)
	}
	tally.stop()
	r := tally.Report()
	checkReport(t, r)
	want := []ErrorCount{{ReasonRefused, 3, "refused"}, {ReasonTimeout, 2, "timeout"}, {ReasonReset, 1, "reset"}}
	if !slices.Equal(r.Errors, want) {
		t.Errorf("errors %+v, want %+v", r.Errors, want)
	}
}
