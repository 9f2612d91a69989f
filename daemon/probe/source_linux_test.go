package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ownSource is an address that nothing else on this host is likely to use, with the first of so many ports that are free.
func ownSource(t *testing.T, flows int) netip.AddrPort {
	t.Helper()
	address := netip.MustParseAddr("127.91.7.3")
	for range 100 {
		l, err := net.Listen("tcp", netip.AddrPortFrom(address, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		first := l.Addr().(*net.TCPAddr).AddrPort()
		l.Close()
		if int(first.Port())+flows > 65535 {
			continue
		}
		free := 0
		for i := range flows {
			c, err := net.Listen("tcp", netip.AddrPortFrom(address, first.Port()+uint16(i)).String())
			if err != nil {
				break
			}
			c.Close()
			free++
		}
		if free == flows {
			return first
		}
	}
	t.Skip("there are no ports in a row that are free")
	return netip.AddrPort{}
}

// TestPortsAreFreeAgain: what is measured from certain ports can be measured again at once, and a flow whose connection
// broke has its port for the next one.
func TestPortsAreFreeAgain(t *testing.T) {
	for name, serve := range map[string]func(int, *net.TCPConn){
		"the prober closes": echoStream,
		"the peer closes": func(_ int, c *net.TCPConn) {
			if b := readBlock(c); b != nil {
				_, _ = c.Write(b)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			address := tcpPeer(t, serve)
			plan := tcpPlan(address, 12)
			plan.Flows, plan.Source = 3, ownSource(t, 3)
			if name == "the peer closes" {
				plan.Interval = 0
			}
			for range 3 {
				r, _ := runPlan(t, plan)
				if name == "the prober closes" {
					wantCounts(t, r, 12, 12, 0, 0, 0)
				}
				for i, f := range r.Flows {
					if want := netip.AddrPortFrom(plan.Source.Addr(), plan.Source.Port()+uint16(i)); f.Source != want {
						t.Errorf("flow %d came from %v, want %v", i, f.Source, want)
					}
				}
				for _, e := range r.Errors {
					if e.Reason != ReasonClosedEarly && e.Reason != ReasonReset {
						t.Errorf("%+v", e)
					}
				}
			}
		})
	}
}

// TestSourceThatCannotBeHad ends a run before its first round: what is wrong here is not lost on the way.
func TestSourceThatCannotBeHad(t *testing.T) {
	source := ownSource(t, 4)
	second := netip.AddrPortFrom(source.Addr(), source.Port()+1)
	held, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(second))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	heldUDP, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(second))
	if err != nil {
		t.Skipf("%s is taken over UDP: %v", second, err)
	}
	defer heldUDP.Close()
	inUse := "address already in use; choose another source port, or wait until it is free"
	for name, c := range map[string]struct {
		target string
		source netip.AddrPort
		want   error
		says   string
	}{
		"a port of four": {"127.0.0.1", source, ErrSourceInUse, "cannot send from " + second.String() + ": " + inUse},
		// From the port that is held on: of all addresses, another process may hold the one before.
		"no address":     {"127.0.0.1", netip.AddrPortFrom(netip.Addr{}, second.Port()), ErrSourceInUse, fmt.Sprintf("cannot send from 0.0.0.0:%d: %s", second.Port(), inUse)},
		"another host's": {"127.0.0.1", netip.MustParseAddrPort("192.0.2.1:0"), ErrSourceNotAvailable, "cannot send from 192.0.2.1: this host has no such address; choose"},
		"no interface":   {"::1", netip.MustParseAddrPort("[fe80::1%nowhere0]:0"), ErrSourceNotAvailable, "cannot send from fe80::1%nowhere0: this host has no such address; choose"},
		"IPv6 to a name": {"four.example", netip.MustParseAddrPort("[::1]:0"), ErrSourceNotAvailable, "cannot send from ::1 to 127.0.0.1, which is of the other IP version; choose"},
	} {
		for _, protocol := range []Protocol{UDP, TCP} {
			t.Run(name+", "+protocol.String(), func(t *testing.T) {
				if c.target == "::1" {
					if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
						t.Skip("there is no IPv6 here")
					} else {
						l.Close()
					}
				}
				plan := Plan{Protocol: protocol, Address: net.JoinHostPort(c.target, "7"), Count: 4, Timeout: patience, PayloadBytes: 64}
				plan.Flows, plan.Source = 4, c.source
				p := New(Options{LookupNetIP: func(context.Context, string, string) ([]netip.Addr, error) {
					return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
				}})
				report, err := p.Run(t.Context(), plan, func(s Sample) error { t.Errorf("a round: %+v", s); return nil })
				if !errors.Is(err, ErrSource) || !errors.Is(err, c.want) || !strings.HasPrefix(err.Error(), c.says) {
					t.Errorf("Run: %v; want %v, saying %q", err, c.want, c.says)
				}
				if report.Sent != 0 || report.Address.IsValid() || len(report.Errors) != 1 ||
					report.Errors[0] != (ErrorCount{Reason: ReasonSourceUnavailable, Count: 1, Message: err.Error()}) {
					t.Errorf("%+v", report)
				}
			})
		}
	}
}

// TestSourceOfAnotherRun: two runs cannot come from the same ports, even over TCP to different targets; and the port is
// free once the first has ended.
func TestSourceOfAnotherRun(t *testing.T) {
	for _, protocol := range []Protocol{UDP, TCP} {
		address, other := udpPeer(t, "127.0.0.1:0", echoDatagram), udpPeer(t, "127.0.0.1:0", echoDatagram)
		if protocol == TCP {
			address, other = tcpPeer(t, echoStream), tcpPeer(t, echoStream)
		}
		plan := Plan{
			Protocol: protocol, Address: address, Count: 2, Interval: time.Millisecond, Timeout: patience, PayloadBytes: 64, Source: ownSource(t, 1),
		}
		again := plan
		again.Address = other
		_, err := New(Options{}).Run(t.Context(), plan, func(s Sample) error {
			if _, err := New(Options{}).Run(t.Context(), again, nil); !errors.Is(err, ErrSourceInUse) {
				t.Errorf("%s, while round %d is there: %v", protocol, s.Seq, err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		r, _ := runPlan(t, again)
		wantCounts(t, r, 2, 2, 0, 0, 0)
	}
}

func TestSourceFailed(t *testing.T) {
	source := netip.MustParseAddrPort("192.0.2.1:80")
	for errno, want := range map[syscall.Errno]struct {
		err  error
		says string
	}{
		syscall.EADDRINUSE:    {ErrSourceInUse, "cannot send from 192.0.2.1:80: address already in use; choose"},
		syscall.EADDRNOTAVAIL: {ErrSourceNotAvailable, "this host has no such address; choose"},
		syscall.EACCES:        {ErrSourceNeedsPrivilege, "cannot send from 192.0.2.1:80: permission denied; this port needs privilege; choose a source port from 1024 up"},
		syscall.ENOBUFS:       {ErrSource, "no buffer space available; choose another source"},
	} {
		if err := sourceFailed(source, &net.OpError{Op: "listen", Err: errno}); !errors.Is(err, ErrSource) || !errors.Is(err, want.err) || !strings.Contains(err.Error(), want.says) {
			t.Errorf("%v: %v", errno, err)
		}
	}
}
