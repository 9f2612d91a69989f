package echo_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/echod/echod/daemon/echo"
)

func udpSpec(listen string) echo.Spec { return echo.Spec{Protocol: echo.UDP, Listen: listen} }

// dialUDP connects a socket to address: it takes answers from there alone.
func dialUDP(t *testing.T, address netip.AddrPort) *net.UDPConn {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// dialUDPFromLoopback connects another socket to where conn is connected, from a loopback address where that can be.
func dialUDPFromLoopback(t *testing.T, conn *net.UDPConn) *net.UDPConn {
	t.Helper()
	to := conn.RemoteAddr().(*net.UDPAddr)
	from := &net.UDPAddr{IP: net.IPv6loopback}
	if to.IP.To4() != nil {
		from.IP = net.IPv4(127, 0, 0, 1)
	}
	if to.Zone != "" {
		return conn // a link-local address is not reached from there
	}
	other, err := net.DialUDP("udp", from, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	return other
}

// exchange expects payload back. UDP may lose a datagram, so it asks a few times.
func exchange(conn *net.UDPConn, payload []byte) error {
	buf := make([]byte, 1<<16)
	for range 10 {
		if _, err := conn.Write(payload); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(patience / 10)); err != nil {
			return err
		}
		n, err := conn.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return err
		}
		if !bytes.Equal(buf[:n], payload) {
			return fmt.Errorf("sent %d bytes, got %d other ones", len(payload), n)
		}
		return nil
	}
	return errors.New("no answer")
}

func TestUDPSizes(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, listen := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0", ":0"} {
			t.Run(listen, func(t *testing.T) {
				address, _ := echo.ParseListen(listen)
				sizes := []int{0, 1, 1472, 1473, 9000, 65507}
				host := "127.0.0.1"
				if address.IP.Is6() {
					needIPv6(t)
					sizes = append(sizes, 65527)
					host = "::1"
				}
				e := open(t, newEngine, udpSpec(listen))
				conn := dialUDP(t, netip.AddrPortFrom(netip.MustParseAddr(host), e.Addr().Port()))
				total := uint64(0)
				for _, size := range sizes {
					total += uint64(size)
					err := exchange(conn, randomBytes(size))
					if errors.Is(err, syscall.EMSGSIZE) {
						t.Skipf("this system does not send %d bytes", size)
					}
					if err != nil {
						t.Fatalf("%d bytes: %v", size, err)
					}
				}
				eventually(t, "all is counted", func() bool {
					s := e.Stats()
					n := uint64(len(sizes))
					return s.DatagramsIn >= n && s.DatagramsOut >= n && s.BytesIn >= total && s.BytesOut >= total
				})
				if s := e.Stats(); len(s.Drops) != 0 || len(s.Errors) != 0 || s.LastActivity.IsZero() {
					t.Errorf("got %+v", s)
				}
			})
		}
	})
}

// A connected client sees only an answer from the very address that it asked.
func TestUDPAnswersFromTheAddressAsked(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only on Linux can a socket of all addresses choose where its answer comes from")
	}
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for listen, hosts := range map[string][]string{
			":0":        {"127.0.0.1", "127.0.0.2", "127.0.0.5", "::1"},
			"0.0.0.0:0": {"127.0.0.1", "127.0.0.2", "127.0.0.5"},
			"[::]:0":    {"::1"},
		} {
			for _, host := range append(hosts, localAddresses(t, listen)...) {
				t.Run(listen+" at "+host, func(t *testing.T) {
					ip := netip.MustParseAddr(host)
					if ip.Is6() {
						needIPv6(t)
					}
					e := open(t, newEngine, udpSpec(listen))
					conn := dialUDP(t, netip.AddrPortFrom(ip, e.Addr().Port()))
					if err := exchange(conn, []byte("who answers?")); err != nil {
						t.Error(err)
					}
					// Back to a client at the loopback address, another answer address would be the system's choice.
					if err := exchange(dialUDPFromLoopback(t, conn), []byte("and now?")); err != nil {
						t.Error(err)
					}
				})
			}
		}
	})
}

// localAddresses returns the other addresses of this host that an endpoint listening there serves, link-local ones
// included.
func localAddresses(t *testing.T, listen string) []string {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, i := range interfaces {
		addresses, err := i.Addrs()
		if err != nil || i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		for _, a := range addresses {
			prefix, err := netip.ParsePrefix(a.String())
			if err != nil {
				continue
			}
			ip := prefix.Addr()
			if ip.Is6() && ip.IsLinkLocalUnicast() {
				ip = ip.WithZone(i.Name)
			}
			if served, _ := echo.ParseListen(listen); !served.IP.IsValid() || served.IP.Is4() == ip.Is4() {
				found = append(found, ip.String())
			}
		}
	}
	return found
}

func TestUDPSurvivesClientsThatDoNotWait(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, udpSpec("127.0.0.1:0"))
		for range 1000 {
			conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(e.Addr()))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte("gone before you answer")); err != nil {
				t.Fatal(err)
			}
			conn.Close()
		}
		// The port of one of them may be the next one's: its answer must not be.
		eventually(t, "all are answered", func() bool {
			s := e.Stats()
			return s.DatagramsOut+s.Errors[echo.ErrorWrite]+s.Drops[echo.DropReceiveBufferFull] >= 1000
		})
		if err := exchange(dialUDP(t, e.Addr()), []byte("still here")); err != nil {
			t.Error(err)
		}
	})
}

func TestUDPDropsBroadcast(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells a datagram's destination here")
	}
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, listen := range []string{":0", "0.0.0.0:0"} {
			e := open(t, newEngine, udpSpec(listen))
			conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			everyone := netip.AddrPortFrom(netip.MustParseAddr("127.255.255.255"), e.Addr().Port())
			eventually(t, "the datagram is dropped", func() bool {
				if _, err := conn.WriteTo([]byte("anyone?"), net.UDPAddrFromAddrPort(everyone)); err != nil {
					t.Fatal(err)
				}
				return e.Stats().Drops[echo.DropDestinationNotUnicast] > 0
			})
			if s := e.Stats(); s.DatagramsOut != 0 || len(s.Errors) != 0 {
				t.Errorf("got %+v, want no answer", s)
			}
		}
	})
}

func TestUDPDropsSourcePortZero(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		raw, err := net.Dial("ip4:udp", "127.0.0.1")
		if err != nil {
			t.Skipf("raw sockets need privilege: %v", err)
		}
		defer raw.Close()
		e := open(t, newEngine, udpSpec("127.0.0.1:0"))
		port := e.Addr().Port()
		// RFC 768: source port, destination port, length, checksum (0 for none).
		datagram := []byte{0, 0, byte(port >> 8), byte(port), 0, 12, 0, 0, 'e', 'c', 'h', 'o'}
		eventually(t, "the datagram is dropped", func() bool {
			if _, err := raw.Write(datagram); err != nil {
				t.Fatal(err)
			}
			return e.Stats().Drops[echo.DropSourcePortZero] > 0
		})
		if s := e.Stats(); s.DatagramsOut != 0 || len(s.Errors) != 0 {
			t.Errorf("got %+v, want no answer", s)
		}
	})
}

// The kernel would bind the broadcast address of loopback's network, and answer from another address.
func TestUDPOnABroadcastAddress(t *testing.T) {
	engine := echo.New(echo.Options{})
	defer engine.Close(t.Context())
	_, err := engine.Listen(t.Context(), udpSpec("127.255.255.255:0"))
	if !errors.Is(err, echo.ErrBadSpec) || !strings.Contains(err.Error(), "broadcast") {
		t.Errorf("Listen = %v", err)
	}
}

// A flood to one endpoint leaves others their turns.
func TestUDPFloodStarvesNobody(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		engine := newEngine()
		defer closeEngine(t, engine)
		flooded, quiet := listen(t, engine, udpSpec("127.0.0.1:0")), listen(t, engine, udpSpec("127.0.0.1:0"))
		stop := make(chan struct{})
		var floods sync.WaitGroup
		defer floods.Wait()
		defer close(stop)
		for range 2 {
			conn := dialUDP(t, flooded.Addr())
			floods.Go(func() {
				for payload := make([]byte, 1200); ; {
					select {
					case <-stop:
						return
					default:
						_, _ = conn.Write(payload) // whatever becomes of it
					}
				}
			})
		}
		conn := dialUDP(t, quiet.Addr())
		for range 200 {
			if err := exchange(conn, []byte("a turn, please")); err != nil {
				t.Fatal(err)
			}
		}
	})
}
