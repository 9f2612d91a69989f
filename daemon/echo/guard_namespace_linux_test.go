package echo_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/echod/echod/daemon/echo"
)

// at is where a host with an address has an endpoint.
func at(address string, e *echo.Endpoint) string {
	return netip.AddrPortFrom(netip.MustParseAddr(address), e.Addr().Port()).String()
}

// isIPv6 reports whether an address, an address with a port, or a listen address is of IPv6.
func isIPv6(address string) bool { return strings.Count(address, ":") > 1 }

// expectEcho sends one datagram, and no other: a cable loses none, and its echo is to be counted.
func expectEcho(t *testing.T, conn *net.UDPConn) {
	t.Helper()
	setDeadline(t, conn)
	if err := tryRoundTrip(conn, "and now?"); err != nil {
		t.Fatalf("%v to %v: %v", conn.LocalAddr(), conn.RemoteAddr(), err)
	}
}

// expectSilence sends one datagram, which is dropped for a reason.
func expectSilence(t *testing.T, e *echo.Endpoint, conn *net.UDPConn, reason string) {
	t.Helper()
	before := e.Stats().Drops[reason]
	if _, err := conn.Write([]byte("anyone?")); err != nil {
		t.Fatal(err)
	}
	eventually(t, reason+" is counted for "+conn.RemoteAddr().String(), func() bool { return e.Stats().Drops[reason] == before+1 })
}

// comesTo waits until an endpoint's counters are right, and sees that they stay so.
func comesTo(t *testing.T, e *echo.Endpoint, right func(echo.Stats) bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !right(e.Stats()); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%v: %+v", e.Addr(), e.Stats())
		}
	}
	if s := settled(t, e); !right(s) {
		t.Fatalf("%v: %+v", e.Addr(), s)
	}
}

// Sources that are not a host's are not answered: the kernel takes most of them from no cable, and the rest are dropped
// here.
func TestSourcesThatAreNoHost(t *testing.T) {
	a, b := twoHosts(t)
	a.ipv4(t, "rp_filter", "0") // the kernel would drop all of them
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, where := range []string{"10.0.0.1:0", "0.0.0.0:0", ":0"} {
			e := a.open(t, newEngine, udpSpec(where))
			// That of a loopback is the kernel's to drop: it takes none from a cable unless route_localnet says so.
			for _, from := range []string{"224.0.0.5:4000", "255.255.255.255:4000", "0.0.0.0:4000", "127.0.0.1:4000"} {
				b.forge(t, from, at("10.0.0.1", e), 64, "ping")
			}
			expectEcho(t, b.dialUDP(t, "", at("10.0.0.1", e)))
			comesTo(t, e, func(s echo.Stats) bool {
				return s.DatagramsOut == 1 && s.Drops[echo.DropSourceNotUnicast] == s.DatagramsIn-1 && len(s.Errors) == 0
			})
		}
		if !hasIPv6() {
			return
		}
		for _, where := range []string{"[fd00::1]:0", "[::]:0", ":0"} {
			e := a.open(t, newEngine, udpSpec(where))
			for _, from := range []string{"[ff02::1]:4000", "[ff0e::1]:4000", "[::]:4000"} {
				b.forge(t, from, at("fd00::1", e), 64, "ping")
			}
			eventually(t, "the unspecified one is dropped", func() bool { return e.Stats().Drops[echo.DropSourceNotUnicast] > 0 })
			expectEcho(t, b.dialUDP(t, "", at("fd00::1", e)))
			comesTo(t, e, func(s echo.Stats) bool {
				return s.DatagramsOut == 1 && s.Drops[echo.DropSourceNotUnicast] == s.DatagramsIn-1 && len(s.Errors) == 0
			})
		}
	})
}

// The broadcast address of a network is not answered either: each of its hosts would get the answer.
func TestSourceIsSubnetBroadcast(t *testing.T) {
	a, b := twoHosts(t)
	a.ipv4(t, "rp_filter", "0") // the kernel would drop it
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, where := range []string{"10.0.0.1:0", "0.0.0.0:0", ":0"} {
			e := a.open(t, newEngine, udpSpec(where))
			b.forge(t, "10.0.0.255:4000", at("10.0.0.1", e), 64, "ping")
			expectEcho(t, b.dialUDP(t, "", at("10.0.0.1", e)))
			comesTo(t, e, func(s echo.Stats) bool {
				return s.DatagramsOut == 1 && s.Drops[echo.DropSourceNotUnicast] == s.DatagramsIn-1 && s.DatagramsIn == 2
			})
		}
	})
}

// Nor can an endpoint be there: the kernel would bind it, and send the answers from another address.
func TestUDPOnTheBroadcastAddressOfANetwork(t *testing.T) {
	a, _ := twoHosts(t)
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		engine := newEngine()
		defer closeEngine(t, engine)
		a.do(t, func() {
			if _, err := engine.Listen(t.Context(), udpSpec("10.0.0.255:0")); !errors.Is(err, echo.ErrBadSpec) {
				t.Errorf("Listen = %v", err)
			}
		})
	})
}

// What is sent to everybody is not answered.
func TestDestinationsThatAreNoHost(t *testing.T) {
	a, b := twoHosts(t)
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for where, asked := range map[string][]string{
			"0.0.0.0:0": {"10.0.0.255", "255.255.255.255", "224.0.0.1"},
			"[::]:0":    {"ff02::1%right"},
			":0":        {"10.0.0.255", "255.255.255.255", "ff02::1%right"}, // Linux gives it no IPv4 multicast
		} {
			if isIPv6(where) && !hasIPv6() {
				continue
			}
			e := a.open(t, newEngine, udpSpec(where))
			sent := uint64(0)
			for _, to := range asked {
				// The address of the sender says which cable is meant.
				from, host := "10.0.0.2:0", "10.0.0.1"
				if isIPv6(to) {
					from, host = "[fd00::2]:0", "fd00::1"
				}
				if isIPv6(to) && !hasIPv6() {
					continue
				}
				conn := b.dialUDP(t, from, at(to, e))
				expectSilence(t, e, conn, echo.DropDestinationNotUnicast)
				expectEcho(t, b.dialUDP(t, from, at(host, e)))
				sent++
			}
			comesTo(t, e, func(s echo.Stats) bool {
				return s.DatagramsIn == 2*sent && s.DatagramsOut == sent && len(s.Errors) == 0
			})
		}
	})
}

// No service that answers anything is answered, unless the endpoint is told to.
func TestSourcesThatAreServices(t *testing.T) {
	ports := []int{7, 13, 17, 19, 53, 69, 123, 161, 389, 1900, 5353, 11211}
	a, b := twoHosts(t)
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, hosts := range [][2]string{{"10.0.0.1", "10.0.0.2"}, {"fd00::1", "fd00::2"}} {
			if isIPv6(hosts[0]) && !hasIPv6() {
				continue
			}
			e := a.open(t, newEngine, udpSpec(":0"))
			var services []*net.UDPConn
			for _, port := range ports {
				conn := b.dialUDP(t, net.JoinHostPort(hosts[1], fmt.Sprint(port)), at(hosts[0], e))
				services = append(services, conn)
				expectSilence(t, e, conn, echo.DropSourceIsService)
			}
			if s := e.Stats(); s.DatagramsOut != 0 {
				t.Errorf("%s: %+v", hosts[1], s)
			}
			spec := udpSpec(":0")
			spec.UDP.NoLoopGuard = true
			if err := e.Update(spec); err != nil {
				t.Fatal(err)
			}
			for _, conn := range services {
				expectEcho(t, conn)
			}
			comesTo(t, e, func(s echo.Stats) bool {
				n := uint64(len(ports))
				return s.DatagramsOut == n && s.Drops[echo.DropSourceIsService] == n && len(s.Errors) == 0
			})
		}
	})
}

// Two daemons on two hosts do not know of each other. What one forged datagram starts between them ends when its hops are
// spent.
func TestLoopOfTwoHosts(t *testing.T) {
	a, b := twoHosts(t)
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, where := range [][2]string{{"10.0.0.1:4000", "10.0.0.2:4000"}, {"[fd00::1]:4000", "[fd00::2]:4000"}} {
			if isIPv6(where[0]) && !hasIPv6() {
				continue
			}
			atA, atB := a.open(t, newEngine, udpSpec(where[0])), b.open(t, newEngine, udpSpec(where[1]))
			b.forge(t, where[1], where[0], 64, "ping")
			comesTo(t, atA, func(s echo.Stats) bool {
				o := atB.Stats()
				return s.DatagramsOut+o.DatagramsOut == 63 && s.Drops[echo.DropHopsSpent]+o.Drops[echo.DropHopsSpent] == 1
			})
		}
	})
}

// A host with several addresses on a cable answers from the one that was asked: a connected client sees no other.
func TestHostAnswersFromTheAddressAsked(t *testing.T) {
	a, b := twoHosts(t)
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		four, six := []string{"10.0.0.1", "10.0.0.3"}, []string{"fd00::1", "fd00::3", "fe80::1%right"}
		for where, asked := range map[string][]string{"0.0.0.0:0": four, "[::]:0": six, ":0": append(four, six...)} {
			if isIPv6(where) && !hasIPv6() {
				continue
			}
			e := a.open(t, newEngine, udpSpec(where))
			for _, address := range asked {
				if isIPv6(address) && !hasIPv6() {
					continue
				}
				expectEcho(t, b.dialUDP(t, "", at(address, e)))
			}
			if s := e.Stats(); len(s.Errors) != 0 || len(s.Drops) != 0 {
				t.Errorf("%s: %+v", where, s)
			}
		}
	})
}

// What a connection echoes is marked as its SYN was.
func TestTCPAnswersAreMarkedAsTheirConnections(t *testing.T) {
	const expedited = 0xb8 // RFC 3246
	a, b := twoHosts(t)
	for _, c := range []struct {
		where, host   string
		level, option int
		raw           string // the network of a socket that sees what comes to the client
		reportOption  int
	}{
		{"10.0.0.1:0", "10.0.0.1", unix.IPPROTO_IP, unix.IP_TOS, "ip4:tcp", unix.IP_RECVTOS},
		{":0", "10.0.0.1", unix.IPPROTO_IP, unix.IP_TOS, "ip4:tcp", unix.IP_RECVTOS},
		{"[fd00::1]:0", "fd00::1", unix.IPPROTO_IPV6, unix.IPV6_TCLASS, "ip6:tcp", unix.IPV6_RECVTCLASS},
		{":0", "fd00::1", unix.IPPROTO_IPV6, unix.IPV6_TCLASS, "ip6:tcp", unix.IPV6_RECVTCLASS},
	} {
		if c.raw == "ip6:tcp" && !hasIPv6() {
			continue
		}
		e := a.open(t, func() *echo.Engine { return echo.New(echo.Options{}) }, echo.Spec{Protocol: echo.TCP, Listen: c.where})
		for _, mark := range []int{expedited, 0} {
			var raw *net.IPConn
			b.do(t, func() {
				var err error
				if raw, err = net.ListenIP(c.raw, nil); err != nil {
					t.Fatal(err)
				}
			})
			defer raw.Close()
			setDeadline(t, raw)
			setOptions(t, raw, socketOption{c.level, c.reportOption, 1})
			conn := b.mustDialTCP(t, "", at(c.host, e), socketOption{c.level, c.option, mark})
			for range 3 {
				roundTrip(t, conn, "marked")
			}
			client := conn.LocalAddr().(*net.TCPAddr).Port
			for seen := 0; seen < 3*len("marked"); {
				payload, tos := segmentTo(t, raw, client)
				const ecn = 0x03 // is each packet's own
				if seen += payload; payload > 0 && tos&^ecn != mark {
					t.Errorf("%s at %s: marked %#x, want %#x", c.where, c.host, tos, mark)
				}
			}
		}
	}
}

// segmentTo reads the next TCP segment that came to a port: how much payload it has (RFC 9293), and its TOS or traffic
// class.
func segmentTo(t *testing.T, raw *net.IPConn, port int) (payload, tos int) {
	t.Helper()
	segment, oob := make([]byte, 1<<16), make([]byte, 128)
	for {
		n, controlLen, _, _, err := raw.ReadMsgIP(segment, oob)
		if err != nil {
			t.Fatal(err)
		}
		tcp := segment[:n]
		if raw.LocalAddr().(*net.IPAddr).IP.To4() != nil { // IPv6 leaves out its header
			tcp = tcp[int(tcp[0]&0x0f)*4:]
		}
		if int(binary.BigEndian.Uint16(tcp[2:])) != port {
			continue
		}
		messages, err := unix.ParseSocketControlMessage(oob[:controlLen])
		if err != nil || len(messages) != 1 {
			t.Fatalf("%d control messages, error %v", len(messages), err)
		}
		data := messages[0].Data
		if len(data) < 4 {
			return len(tcp) - int(tcp[12]>>4)*4, int(data[0]) // IP_TOS is a byte, IPV6_TCLASS an int
		}
		return len(tcp) - int(tcp[12]>>4)*4, int(binary.NativeEndian.Uint32(data))
	}
}

// A train that does not fit the way back as one goes back a datagram after the other, cut as it came.
func TestTrainsOverASmallerMTU(t *testing.T) {
	a, b := twoHosts(t)
	a.mustIP(t, "route add 10.0.0.2/32 dev left mtu 800")
	if hasIPv6() {
		a.mustIP(t, "route add fd00::2/128 dev left mtu 1280") // the least that IPv6 has (RFC 8200)
	}
	const segment, last, cars = 1400, 300, 10
	for where, hosts := range map[string][]string{
		"10.0.0.1:0": {"10.0.0.1"}, "[fd00::1]:0": {"fd00::1"}, ":0": {"10.0.0.1", "fd00::1"},
	} {
		for _, host := range hosts {
			if isIPv6(host) && !hasIPv6() {
				continue
			}
			e := a.open(t, func() *echo.Engine { return echo.New(echo.Options{}) }, udpSpec(where))
			conn := b.dialUDP(t, "", at(host, e))
			setDeadline(t, conn)
			setOptions(t, conn, socketOption{unix.IPPROTO_UDP, unix.UDP_SEGMENT, segment})
			train := randomBytes((cars-1)*segment + last)
			alone := []byte("one that is not in the train")
			missing := map[string]int{string(alone): 2}
			for rest := train; len(rest) > 0; rest = rest[min(segment, len(rest)):] {
				missing[string(rest[:min(segment, len(rest))])]++
			}
			for _, sent := range [][]byte{alone, train, alone} {
				if _, err := conn.Write(sent); err != nil {
					t.Fatal(err)
				}
			}
			buf := make([]byte, 1<<16)
			for n := range cars + 2 {
				size, err := conn.Read(buf)
				if err != nil {
					t.Fatalf("%s at %s: %d of %d came back: %v, %+v", where, host, n, cars+2, err, e.Stats())
				}
				got := string(buf[:size])
				if missing[got]--; missing[got] < 0 {
					t.Errorf("%s at %s: got %d bytes that were not sent, or sent once", where, host, size)
				}
			}
			bytes := uint64(len(train) + 2*len(alone))
			comesTo(t, e, func(s echo.Stats) bool {
				return s.DatagramsIn == cars+2 && s.DatagramsOut == cars+2 && s.BytesOut == bytes && len(s.Errors) == 0 && len(s.Drops) == 0
			})
		}
	}
}

// Whose connections and datagrams are taken may change at any time; a connection that was taken stays.
func TestSourcesAllowedAndDenied(t *testing.T) {
	a, b := twoHosts(t)
	const everybody = "10.0.0.2 10.0.0.4 fd00::2 fd00::4 fe80::2"
	steps := []struct{ allow, deny, taken string }{
		{"", "", everybody},
		{"10.0.0.0/24 fe80::/64", "", "10.0.0.2 10.0.0.4 fe80::2"},
		{"10.0.0.0/24 fd00::4", "10.0.0.4", "10.0.0.2 fd00::4"},
		{"", "10.0.0.2/31 fd00::2/127", "10.0.0.4 fd00::4 fe80::2"},
		{"0.0.0.0/0", "", "10.0.0.2 10.0.0.4"},
		{"::/0", "fe80::/10", "fd00::2 fd00::4"},
		{"192.0.2.0/24 2001:db8::/32", "", ""},
		{"", "", everybody},
	}
	asked := map[string]string{"10.0.0.2": "10.0.0.1", "10.0.0.4": "10.0.0.3"}
	if hasIPv6() {
		asked["fd00::2"], asked["fd00::4"], asked["fe80::2"] = "fd00::1", "fd00::3", "fe80::1%right"
	}
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, protocol := range []echo.Protocol{echo.TCP, echo.UDP} {
			spec := echo.Spec{Protocol: protocol, Listen: ":0"}
			e := a.open(t, newEngine, spec)
			var old *net.TCPConn
			if protocol == echo.TCP {
				old = b.mustDialTCP(t, "10.0.0.2:0", at("10.0.0.1", e))
				roundTrip(t, old, "taken")
			}
			for _, step := range steps {
				spec.Allow, spec.Deny = prefixes(t, step.allow), prefixes(t, step.deny)
				if err := e.Update(spec); err != nil {
					t.Fatal(err)
				}
				before := e.Stats().Drops[echo.DropSourceDenied]
				denied := uint64(0)
				for client, host := range asked {
					address := netip.MustParseAddr(client)
					if address.IsLinkLocalUnicast() {
						address = address.WithZone(b.device)
					}
					from := netip.AddrPortFrom(address, 0).String()
					taken := slices.Contains(strings.Fields(step.taken), client)
					if !taken {
						denied++
					}
					switch {
					case protocol == echo.TCP:
						conn, err := b.dialTCP(t, from, at(host, e))
						if err == nil {
							err = tryRoundTrip(conn, "who is it?")
						}
						if taken && err != nil || !taken && !errors.Is(err, io.EOF) && !isReset(err) {
							t.Errorf("TCP from %s with %+v: %v", client, step, err)
						}
					case taken:
						expectEcho(t, b.dialUDP(t, from, at(host, e)))
					default:
						expectSilence(t, e, b.dialUDP(t, from, at(host, e)), echo.DropSourceDenied)
					}
				}
				eventually(t, "all are counted", func() bool { return e.Stats().Drops[echo.DropSourceDenied] >= before+denied })
				if s := e.Stats(); s.Drops[echo.DropSourceDenied] != before+denied || len(s.Drops) > 1 || s.Errors[echo.ErrorWrite] != 0 {
					t.Errorf("%v with %+v: %+v, want %d more denied than %d", protocol, step, s, denied, before)
				}
				if old != nil {
					setDeadline(t, old)
					roundTrip(t, old, "still here")
				}
			}
		}
	})
}
