package probe

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/echod/echod/daemon/internal/netns/netnstest"
)

// neighbours makes two stations with a cable between them: 10.3.0.1, fd03::1 and fe80::1 by the interface "near" of the first,
// 10.3.0.2, fd03::2 and fe80::2 by "far" of the other.
func neighbours(t *testing.T) (a, b *station) {
	t.Helper()
	a, b = newStation(t), newStation(t)
	netnstest.Cable(t, a.Namespace, "near", b.Namespace, "far")
	for i, end := range []struct {
		at   *station
		name string
	}{{a, "near"}, {b, "far"}} {
		end.at.ip(t, fmt.Sprintf("addr add 10.3.0.%d/24 dev %s", i+1, end.name))
		if hasIPv6() {
			end.at.ip(t, fmt.Sprintf("addr add fd03::%d/64 dev %s nodad", i+1, end.name), fmt.Sprintf("addr add fe80::%d/64 dev %s nodad", i+1, end.name))
		}
	}
	return a, b
}

// serveIn has a station echo over TCP and UDP on every address, and answers the ports.
func serveIn(t *testing.T, s *station) map[Protocol]uint16 {
	t.Helper()
	ports := map[Protocol]uint16{}
	s.do(t, func() {
		address := netip.MustParseAddrPort(udpPeer(t, ":0", echoDatagram))
		ports[UDP] = address.Port()
		l, err := net.Listen("tcp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		ports[TCP] = uint16(l.Addr().(*net.TCPAddr).Port)
		var serving sync.WaitGroup
		serving.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				serving.Go(func() {
					echoStream(0, c.(*net.TCPConn))
					_ = c.Close()
				})
			}
		})
		t.Cleanup(func() {
			_ = l.Close()
			serving.Wait()
		})
	})
	return ports
}

// TestSourceNamespace: rounds of each kind leave from another namespace, of a run that is itself at home.
func TestSourceNamespace(t *testing.T) {
	stamping(t)
	a, b := neighbours(t)
	ports := serveIn(t, b)
	home, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for target, source := range map[string]string{"10.3.0.2": "10.3.0.1", "fd03::2": "fd03::1", "fe80::2%near": "fe80::1"} {
		if strings.Contains(target, ":") && !hasIPv6() {
			continue
		}
		for name, change := range map[string]func(*Plan){
			"udp":            func(p *Plan) { p.Protocol = UDP },
			"udp flows":      func(p *Plan) { p.Protocol, p.Flows, p.DSCP, p.TTL, p.DontFragment = UDP, 3, 46, 9, true },
			"udp from":       func(p *Plan) { p.Protocol, p.Source = UDP, sourceOn(source, 40700) },
			"udp interface":  func(p *Plan) { p.Protocol, p.SourceInterface = UDP, "near" },
			"tcp":            func(p *Plan) { p.Protocol, p.DSCP = TCP, 46 },
			"tcp flows":      func(p *Plan) { p.Protocol, p.Flows = TCP, 3 },
			"tcp from":       func(p *Plan) { p.Protocol, p.Source = TCP, sourceOn(source, 40700) },
			"tcp interface":  func(p *Plan) { p.Protocol, p.SourceInterface = TCP, "near" },
			"tcp new":        func(p *Plan) { p.Protocol, p.NewConnection, p.TTL = TCP, true, 9 },
			"tcp new from":   func(p *Plan) { p.Protocol, p.NewConnection, p.Source = TCP, true, sourceOn(source, 0) },
			"tcp await":      func(p *Plan) { p.Protocol, p.AwaitClose = TCP, true },
			"tcp new device": func(p *Plan) { p.Protocol, p.NewConnection, p.SourceInterface = TCP, true, "near" },
		} {
			t.Run(target+" "+name, func(t *testing.T) {
				plan := Plan{Count: 6, Interval: time.Millisecond, Timeout: patience, PayloadBytes: DefaultPayloadBytes, Flows: 2, SourceNamespace: a.Path()}
				change(&plan)
				plan.Address = net.JoinHostPort(target, fmt.Sprint(ports[plan.Protocol]))
				r, _ := runPlan(t, plan)
				wantCounts(t, r, 6, 6, 0, 0, 0)
				if len(r.Flows) < 2 {
					t.Fatalf("%d flows", len(r.Flows))
				}
				for i, f := range r.Flows {
					if want := netip.MustParseAddr(source); f.Source.Addr() != want {
						t.Errorf("flow %d comes from %v, want %v", i, f.Source, want)
					}
				}
				// The system's clock may be set in any one run; then times are this process's.
				for again := 0; r.Timestamps.Clock != KernelClock; again++ {
					if again == 20 {
						t.Fatalf("the times are of %+v", r.Timestamps)
					}
					r, _ = runPlan(t, plan)
				}
			})
		}
	}
	t.Run("path MTU", func(t *testing.T) {
		a.ip(t, "link set near mtu 1300")
		defer a.ip(t, "link set near mtu 1500")
		for _, device := range []string{"", "near"} {
			plan := searchPlan(t, fmt.Sprintf("10.3.0.2:%d", ports[UDP]))
			plan.SourceNamespace, plan.SourceInterface = a.Path(), device
			r, _ := runPlan(t, plan)
			wantMTU(t, r, PathMTU{PayloadBytes: 1272, MTU: 1300, Limit: LimitLocal, TooBig: 1273})
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		for _, plan := range []Plan{tcpPlan("10.3.0.2:9", 2), udpPlan("10.3.0.2:9", 2), tcpPlan("127.0.0.1:9", 2)} {
			for _, plan.NewConnection = range []bool{false, plan.Protocol == TCP} {
				plan.SourceNamespace = a.Path()
				r, _ := runPlan(t, plan)
				wantReason(t, r, ReasonRefused, 2)
			}
		}
	})
	t.Run("broadcast", func(t *testing.T) { // which package targets cannot know of
		for _, address := range []string{"10.3.0.255", "255.255.255.255"} {
			plan := udpPlan(net.JoinHostPort(address, fmt.Sprint(ports[UDP])), 2)
			plan.SourceNamespace, plan.SourceInterface = a.Path(), "near"
			r, _ := runPlan(t, plan)
			wantReason(t, r, ReasonUnreachable, 2)
		}
	})
	t.Run("nobody answers", func(t *testing.T) {
		a.nft(t, "", "tcp dport 9 drop")
		plan := tcpPlan("10.3.0.2:9", 2)
		plan.Timeout, plan.NewConnection, plan.SourceNamespace = 20*time.Millisecond, true, a.Path()
		r, _ := runPlan(t, plan)
		wantReason(t, r, ReasonTimeout, 2)
	})
	if now, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || now != home {
		t.Errorf("in %s afterwards, %v; was in %s", now, err, home)
	}
}

func sourceOn(address string, port uint16) netip.AddrPort {
	a := netip.MustParseAddr(address)
	if a.IsLinkLocalUnicast() {
		a = a.WithZone("near")
	}
	return netip.AddrPortFrom(a, port)
}

// TestSourceNamespaceGoesAway: a run keeps the namespace that it began with.
func TestSourceNamespaceGoesAway(t *testing.T) {
	a, b := neighbours(t)
	ports := serveIn(t, b)
	for _, protocol := range []Protocol{UDP, TCP} {
		name := t.TempDir() + "/lab"
		if err := os.Symlink(a.Path(), name); err != nil {
			t.Fatal(err)
		}
		plan := Plan{
			Protocol: protocol, Address: fmt.Sprintf("10.3.0.2:%d", ports[protocol]), Count: 4, Interval: time.Millisecond, Timeout: patience,
			PayloadBytes: DefaultPayloadBytes, SourceNamespace: name, NewConnection: protocol == TCP,
		}
		r, _ := runProber(t.Context(), t, New(Options{}), plan, func(s Sample) {
			if s.Seq == 1 {
				if err := os.Remove(name); err != nil {
					t.Error(err)
				}
			}
		})
		wantCounts(t, r, 4, 4, 0, 0, 0)
		if _, err := New(Options{}).Run(t.Context(), plan, nil); !errors.Is(err, ErrSourceNamespace) {
			t.Errorf("once it is gone: %v", err)
		}
	}
}

// TestSourcePlaceThatCannotBeHad ends a run before its first round.
func TestSourcePlaceThatCannotBeHad(t *testing.T) {
	a, _ := neighbours(t)
	for name, c := range map[string]struct {
		namespace, device, source string
		want                      error
		says                      string
	}{
		"no such namespace":           {"nowhere", "", "", ErrSourceNamespace, `cannot send from network namespace "nowhere": there is no network namespace "nowhere";`},
		"no such file":                {"/nowhere", "", "", ErrSourceNamespace, `cannot send from network namespace "/nowhere": no network namespace can be opened at "/nowhere";`},
		"no such interface":           {"", "nowhere7", "", ErrSourceInterface, "cannot send by interface nowhere7: there is no interface of that name; choose"},
		"an interface of elsewhere":   {a.Path(), "far", "", ErrSourceInterface, "cannot send by interface far in network namespace \"/proc/"},
		"an address of elsewhere":     {a.Path(), "", "10.3.0.2", ErrSourceNotAvailable, "cannot send from 10.3.0.2: this host has no such address"},
		"a zone of elsewhere":         {a.Path(), "", "fe80::1%far", ErrSourceNotAvailable, "cannot send from fe80::1%far: this host has no such address"},
		"another interface's address": {"", "much-too-long-for-one", "", ErrBadPlan, "source.interface \"much-too-long-for-one\": must be"},
	} {
		for _, protocol := range []Protocol{UDP, TCP} {
			t.Run(name+", "+protocol.String(), func(t *testing.T) {
				plan := Plan{Protocol: protocol, Address: "10.3.0.2:7", Count: 1, Timeout: patience, PayloadBytes: 64, SourceNamespace: c.namespace, SourceInterface: c.device}
				if c.source != "" {
					address := netip.MustParseAddr(c.source)
					if address.Is6() {
						if !hasIPv6() {
							t.Skip("there is no IPv6 here")
						}
						plan.Address = "[fd03::2]:7"
					}
					plan.Source = netip.AddrPortFrom(address, 0)
				}
				report, err := New(Options{}).Run(t.Context(), plan, func(s Sample) error { t.Errorf("a round: %+v", s); return nil })
				if !errors.Is(err, c.want) || !strings.HasPrefix(err.Error(), c.says) {
					t.Fatalf("Run: %v; want %v, saying %q", err, c.want, c.says)
				}
				if errors.Is(c.want, ErrBadPlan) {
					return
				}
				if !errors.Is(err, ErrSource) || report.Sent != 0 || len(report.Errors) != 1 || report.Errors[0].Reason != ReasonSourceUnavailable {
					t.Errorf("%v, %+v", err, report)
				}
			})
		}
	}
}

// TestSourceInterface: of two cables to hosts of the same address, rounds take the one that they are told to.
func TestSourceInterface(t *testing.T) {
	client := newStation(t)
	for i, name := range []string{"one", "two"} {
		server := newStation(t)
		netnstest.Cable(t, client.Namespace, name, server.Namespace, "port")
		client.ip(t, fmt.Sprintf("addr add 10.4.0.%d/24 dev %s", 1+i, name))
		server.ip(t, "addr add 10.4.0.9/24 dev port")
		ports := serveIn(t, server)
		for _, protocol := range []Protocol{UDP, TCP} {
			for _, fresh := range []bool{false, protocol == TCP} {
				plan := Plan{
					Protocol: protocol, Address: fmt.Sprintf("10.4.0.9:%d", ports[protocol]), Count: 2, Interval: time.Millisecond, Timeout: patience,
					PayloadBytes: DefaultPayloadBytes, Flows: 2, SourceInterface: name, SourceNamespace: client.Path(), NewConnection: fresh,
				}
				r, _ := runPlan(t, plan)
				wantCounts(t, r, 2, 2, 0, 0, 0)
				if want := fmt.Sprintf("10.4.0.%d", 1+i); r.Flows[0].Source.Addr().String() != want {
					t.Errorf("%s by %s comes from %v, want %s", protocol, name, r.Flows[0].Source, want)
				}
				if fresh {
					continue // such rounds have goroutines of their own, which are not where this thread is
				}
				plan.SourceNamespace = ""
				client.do(t, func() {
					r, _ := runPlan(t, plan)
					wantCounts(t, r, 2, 2, 0, 0, 0)
				})
			}
		}
	}
}
