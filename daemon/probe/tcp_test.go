package probe

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

func tcpPlan(address string, count uint32) Plan {
	return Plan{Protocol: TCP, Address: address, Count: count, Interval: time.Millisecond, Timeout: patience,
		PayloadBytes: DefaultPayloadBytes}
}

// readBlock reads one payload of the default size; nil when the client has gone.
func readBlock(c net.Conn) []byte {
	b := make([]byte, DefaultPayloadBytes)
	if _, err := io.ReadFull(c, b); err != nil {
		return nil
	}
	return b
}

func waitForFIN(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// resetConn closes with a RST.
func resetConn(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() }

// wayOfTCP is one in which rounds go over TCP.
type wayOfTCP struct {
	newConnection bool
	dial          func(ctx context.Context, network, address string) (net.Conn, error) // nil: the prober's own
}

func (w wayOfTCP) run(t *testing.T, plan Plan) (Report, []Sample) {
	t.Helper()
	plan.NewConnection = w.newConnection
	r, samples := runProber(t.Context(), t, New(Options{DialContext: w.dial}), plan, nil)
	if r.Outstanding != 0 {
		t.Errorf("%d rounds are outstanding after a run that came to its end", r.Outstanding)
	}
	return r, samples
}

// waysOfTCP are all of them. Who dials for himself has connections of package net, as others have without the kernel's times.
func waysOfTCP(t *testing.T, test func(t *testing.T, way wayOfTCP)) {
	t.Run("one connection", func(t *testing.T) { test(t, wayOfTCP{}) })
	t.Run("one connection of package net", func(t *testing.T) { test(t, wayOfTCP{dial: new(net.Dialer).DialContext}) })
	t.Run("new connections", func(t *testing.T) { test(t, wayOfTCP{newConnection: true}) })
}

func TestTCPSizes(t *testing.T) {
	address := tcpPeer(t, echoStream)
	waysOfTCP(t, func(t *testing.T, way wayOfTCP) {
		for _, size := range []int{1, 64, MaxPayloadTCP} {
			plan := tcpPlan(address, 4)
			plan.PayloadBytes = size
			r, samples := way.run(t, plan)
			wantCounts(t, r, 4, 4, 0, 0, 0)
			connects := uint32(1)
			if way.newConnection {
				connects = 4
			}
			if r.Connect == nil || r.Connect.Count != connects || samples[0].Connect == nil {
				t.Errorf("connect %+v, want %d; first sample %+v", r.Connect, connects, samples[0])
			}
			if r.Duplicated != nil || r.Reordered != nil {
				t.Error("duplicated or reordered over TCP")
			}
		}
	})
}

func TestTCPRefused(t *testing.T) {
	address := closedPort(t, "tcp")
	waysOfTCP(t, func(t *testing.T, way wayOfTCP) {
		plan := tcpPlan(address, 3)
		r, _ := way.run(t, plan)
		wantCounts(t, r, 3, 0, 3, 0, 0)
		wantReason(t, r, ReasonRefused, 3)
		if r.Connect != nil {
			t.Errorf("a time to connect to nobody: %+v", r.Connect)
		}
	})
}

func TestTCPReset(t *testing.T) {
	waysOfTCP(t, func(t *testing.T, way wayOfTCP) {
		plan := tcpPlan(tcpPeer(t, func(_ int, c *net.TCPConn) {
			readBlock(c)
			resetConn(c)
		}), 3)
		plan.Interval = 0
		r, _ := way.run(t, plan)
		wantCounts(t, r, 3, 0, 3, 0, 0)
		wantReason(t, r, ReasonReset, 3)
		if r.Connect.Count != 3 {
			t.Errorf("%d connections, want 3", r.Connect.Count)
		}
	})
}

func TestTCPClosedEarly(t *testing.T) {
	waysOfTCP(t, func(t *testing.T, way wayOfTCP) {
		plan := tcpPlan(tcpPeer(t, func(_ int, c *net.TCPConn) {
			_, _ = c.Write(readBlock(c)[:40])
			_ = c.CloseWrite()
			waitForFIN(c)
		}), 2)
		plan.Interval = 0
		r, _ := way.run(t, plan)
		wantCounts(t, r, 2, 0, 2, 0, 0)
		wantReason(t, r, ReasonClosedEarly, 2)
	})
}

func TestTCPNeverAnswers(t *testing.T) {
	waysOfTCP(t, func(t *testing.T, way wayOfTCP) {
		plan := tcpPlan(tcpPeer(t, func(_ int, c *net.TCPConn) { waitForFIN(c) }), 3)
		plan.Timeout = 100 * time.Millisecond
		r, _ := way.run(t, plan)
		wantCounts(t, r, 3, 0, 3, 0, 0)
		wantReason(t, r, ReasonTimeout, 3)
	})
}

// The server neither reads nor writes: a mebibyte does not fit the buffers on the way, so the write is what waits.
func TestTCPNeverReads(t *testing.T) {
	waysOfTCP(t, func(t *testing.T, way wayOfTCP) {
		done := make(chan struct{})
		defer close(done)
		plan := tcpPlan(tcpPeer(t, func(_ int, c *net.TCPConn) {
			_ = c.SetReadBuffer(4096)
			<-done
		}), 8)
		plan.Timeout, plan.PayloadBytes = 100*time.Millisecond, MaxPayloadTCP
		r, _ := way.run(t, plan)
		wantCounts(t, r, 8, 0, 8, 0, 0)
		wantReason(t, r, ReasonTimeout, 8)
	})
}

func TestTCPCorrupted(t *testing.T) {
	waysOfTCP(t, func(t *testing.T, way wayOfTCP) {
		plan := tcpPlan(tcpPeer(t, func(n int, c *net.TCPConn) {
			for i := n; ; i++ {
				b := readBlock(c)
				if b == nil {
					return
				}
				if i == 2 {
					b[DefaultPayloadBytes-1] ^= 1
				}
				_, _ = c.Write(b)
			}
		}), 4)
		plan.Interval = 0
		r, _ := way.run(t, plan)
		wantCounts(t, r, 4, 3, 0, 1, 0)
		wantReason(t, r, ReasonCorrupted, 1)
	})
}

// What a server says unasked is taken for replies, and wrong ones: short of a payload, just one, and many.
func TestTCPBanner(t *testing.T) {
	for _, size := range []int{20, DefaultPayloadBytes, 10*DefaultPayloadBytes + 1} {
		waysOfTCP(t, func(t *testing.T, way wayOfTCP) {
			plan := tcpPlan(tcpPeer(t, func(n int, c *net.TCPConn) {
				_, _ = c.Write(bytes.Repeat([]byte{'!'}, size))
				echoStream(n, c)
			}), 5)
			r, _ := way.run(t, plan)
			wantCounts(t, r, 5, 0, 0, 5, 0)
			wantReason(t, r, ReasonCorrupted, 5)
		})
	}
}

func TestTCPMoreThanWasSent(t *testing.T) {
	plan := tcpPlan(tcpPeer(t, func(_ int, c *net.TCPConn) {
		for b := readBlock(c); b != nil; b = readBlock(c) {
			_, _ = c.Write(append(b, b...))
		}
	}), 4)
	plan.Interval = 0
	r, _ := runPlan(t, plan)
	wantCounts(t, r, 4, 1, 0, 3, 0)
}

// A connection that ends between two rounds costs none: the next one connects again.
func TestTCPConnectsAgain(t *testing.T) {
	for name, end := range map[string]func(c *net.TCPConn){
		"FIN": func(c *net.TCPConn) { _ = c.CloseWrite(); waitForFIN(c) },
		"RST": func(c *net.TCPConn) { time.Sleep(10 * time.Millisecond); resetConn(c) },
	} {
		t.Run(name, func(t *testing.T) {
			plan := tcpPlan(tcpPeer(t, func(_ int, c *net.TCPConn) {
				_, _ = c.Write(readBlock(c))
				end(c)
			}), 3)
			plan.Interval = 0
			plan.Count = 0
			var ended uint32
			p := New(Options{})
			r, err := p.Run(t.Context(), plan, func(s Sample) error {
				if s.Connect != nil {
					ended++
				}
				if ended == 3 {
					return errStop
				}
				return nil
			})
			if !errors.Is(err, errStop) {
				t.Fatal(err)
			}
			checkReport(t, r)
			if r.Connect.Count != 3 || r.Received < 3 {
				t.Errorf("connect %+v, received %d", r.Connect, r.Received)
			}
		})
	}
}

func TestTCPAwaitClose(t *testing.T) {
	for name, c := range map[string]struct {
		serve    func(n int, c *net.TCPConn)
		received uint32
		reason   Reason
	}{
		"closes after our FIN": {echoStream, 3, ""},
		"one shot": {func(_ int, c *net.TCPConn) {
			_, _ = c.Write(readBlock(c))
			_ = c.CloseWrite()
			waitForFIN(c)
		}, 3, ""},
		"resets": {func(_ int, c *net.TCPConn) {
			_, _ = c.Write(readBlock(c))
			waitForFIN(c)
			resetConn(c)
		}, 3, ReasonNotClosed},
		"sends more": {func(_ int, c *net.TCPConn) {
			_, _ = c.Write(readBlock(c))
			waitForFIN(c)
			_, _ = c.Write([]byte("bye"))
		}, 0, ReasonCorrupted},
	} {
		t.Run(name, func(t *testing.T) {
			plan := tcpPlan(tcpPeer(t, c.serve), 3)
			plan.AwaitClose = true
			r, _ := runPlan(t, plan)
			wantCounts(t, r, 3, c.received, 0, 3-c.received, 0)
			if c.reason != "" {
				wantReason(t, r, c.reason, 3)
			} else if len(r.Errors) != 0 {
				t.Errorf("errors %+v", r.Errors)
			}
			if r.Connect.Count != 3 {
				t.Errorf("%d connections, want 3: await_close implies new_connection", r.Connect.Count)
			}
		})
	}
}
