package echo_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/netns/netnstest"
)

// host is a network namespace: interfaces, addresses, routes and ports like those of a host of its own. It has a loopback
// and one end of a cable to its peer.
type host struct {
	namespace *netnstest.Namespace
	device    string // its end of the cable
	index     int    // of the device
	mac       [6]byte
	peer      *host
}

// twoHosts makes two hosts with a cable between them, which is ready when it returns. The first has the addresses
// 10.0.0.1 and .3, fd00::1 and ::3 and fe80::1%left, the other 10.0.0.2 and .4, fd00::2 and ::4 and fe80::2%right. They
// are gone with the test.
func twoHosts(t *testing.T) (a, b *host) {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skipf("this needs iproute2: %v", err)
	}
	// Package net keeps what it knows of interfaces for all namespaces, so what they are called and numbered is fixed.
	a = &host{namespace: netnstest.New(t), device: "left", index: 71, mac: [6]byte{2, 0, 0, 0, 0, 1}}
	b = &host{namespace: netnstest.New(t), device: "right", index: 72, mac: [6]byte{2, 0, 0, 0, 0, 2}}
	a.peer, b.peer = b, a
	if err := a.ip(t, fmt.Sprintf("link add name left index 71 address %v type veth peer name right index 72 address %v netns %s",
		net.HardwareAddr(a.mac[:]), net.HardwareAddr(b.mac[:]), passedOn)); err != nil {
		t.Skipf("no cable between network namespaces can be made here: %v", err)
	}
	for _, h := range []*host{a, b} {
		// The loopback first: package net looks there whether there is IPv6, once for all namespaces.
		h.mustIP(t, "link set lo up")
		if hasIPv6() {
			h.mustIP(t, "link set "+h.device+" addrgenmode none") // the link-local address is to be known
		}
		h.mustIP(t, "link set "+h.device+" up")
	}
	for i, h := range []*host{a, b} {
		// The kernel may drop what is sent before it has seen that the cable is plugged in at both ends. While it is about
		// that, addresses wait.
		eventually(t, "the cable is ready", func() bool {
			var device *net.Interface
			h.do(t, func() { device, _ = net.InterfaceByName(h.device) })
			return device != nil && device.Flags&net.FlagRunning != 0
		})
		var lines []string
		for _, n := range []int{1 + i, 3 + i} {
			lines = append(lines, fmt.Sprintf("addr add 10.0.0.%d/24 dev %s", n, h.device))
			if hasIPv6() {
				lines = append(lines, fmt.Sprintf("addr add fd00::%d/64 dev %s nodad", n, h.device))
			}
		}
		if hasIPv6() {
			lines = append(lines, fmt.Sprintf("addr add fe80::%d/64 dev %s nodad", 1+i, h.device))
		}
		h.mustIP(t, lines...)
	}
	return a, b
}

// hasIPv6 reports whether the tests have IPv6.
var hasIPv6 = netnstest.HasIPv6

// do runs f in the namespace of h, on a thread locked to it. Sockets that f makes stay there, wherever they are used
// then; goroutines that it starts do not.
func (h *host) do(t *testing.T, f func()) {
	t.Helper()
	h.namespace.Do(t, f)
}

// passedOn is the namespace of the peer to a command of ip.
const passedOn = "/proc/self/fd/3"

// ip runs commands of ip(8) on h, a line each.
func (h *host) ip(t *testing.T, lines ...string) error {
	t.Helper()
	return h.namespace.TryIP(t, []*netnstest.Namespace{h.peer.namespace}, lines...)
}

func (h *host) mustIP(t *testing.T, lines ...string) {
	t.Helper()
	if err := h.ip(t, lines...); err != nil {
		t.Fatal(err)
	}
}

// ipv4 sets a switch of /proc/sys/net/ipv4/conf for all of h's interfaces.
func (h *host) ipv4(t *testing.T, name, value string) {
	t.Helper()
	h.do(t, func() {
		for _, which := range []string{"all", h.device} {
			if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+which+"/"+name, []byte(value), 0); err != nil {
				t.Skipf("the namespace cannot be set up: %v", err)
			}
		}
	})
}

// open opens an endpoint on h, of an engine of its own.
func (h *host) open(t *testing.T, newEngine maker, s echo.Spec) (e *echo.Endpoint) {
	t.Helper()
	h.do(t, func() { e = open(t, newEngine, s) })
	return e
}

// dialUDP connects a UDP socket of h, at an address of h or at whichever the kernel picks.
func (h *host) dialUDP(t *testing.T, from, to string) (conn *net.UDPConn) {
	t.Helper()
	var local *net.UDPAddr
	if from != "" {
		local = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from))
	}
	h.do(t, func() {
		var err error
		if conn, err = net.DialUDP("udp", local, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { conn.Close() })
	return conn
}

// dialTCP connects a TCP socket of h that was given options, at an address of h or at whichever the kernel picks.
func (h *host) dialTCP(t *testing.T, from, to string, options ...socketOption) (*net.TCPConn, error) {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error { return trySetOptions(raw, options) }}
	if from != "" {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))
	}
	var conn net.Conn
	var err error
	h.do(t, func() { conn, err = dialer.DialContext(patient(t), "tcp", to) })
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	setDeadline(t, conn)
	return conn.(*net.TCPConn), nil
}

func (h *host) mustDialTCP(t *testing.T, from, to string, options ...socketOption) *net.TCPConn {
	t.Helper()
	conn, err := h.dialTCP(t, from, to, options...)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

type socketOption struct{ level, name, value int }

func setOptions(t *testing.T, conn syscall.Conn, options ...socketOption) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := trySetOptions(raw, options); err != nil {
		t.Fatal(err)
	}
}

func trySetOptions(raw syscall.RawConn, options []socketOption) error {
	var err error
	controlErr := raw.Control(func(fd uintptr) {
		for _, o := range options {
			err = errors.Join(err, unix.SetsockoptInt(int(fd), o.level, o.name, o.value))
		}
	})
	return errors.Join(controlErr, err)
}

// forge puts a datagram with any source on the cable. The kernel of h has no say in it.
func (h *host) forge(t *testing.T, from, to string, hops byte, payload string) {
	t.Helper()
	protocol := uint16(unix.ETH_P_IP)
	source, destination := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	if destination.Addr().Is6() {
		protocol = unix.ETH_P_IPV6
	}
	there := &unix.SockaddrLinklayer{Protocol: protocol<<8 | protocol>>8, Ifindex: h.index, Halen: uint8(len(h.peer.mac))}
	copy(there.Addr[:], h.peer.mac[:])
	h.do(t, func() {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Skipf("forging a source needs root: %v", err)
		}
		defer unix.Close(fd)
		if err := unix.Sendto(fd, packet(source, destination, hops, payload), 0, there); err != nil {
			t.Fatal(err)
		}
	})
}

// packet makes a datagram (RFC 768) with its IPv4 (RFC 791) or IPv6 (RFC 8200) header.
func packet(from, to netip.AddrPort, hops byte, payload string) []byte {
	size := uint16(8 + len(payload))
	udp := binary.BigEndian.AppendUint16(nil, from.Port())
	udp = binary.BigEndian.AppendUint16(udp, to.Port())
	udp = binary.BigEndian.AppendUint16(udp, size)
	udp = append(append(udp, 0, 0), payload...) // no checksum: IPv4 does without
	addresses := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	if to.Addr().Is4() {
		header := binary.BigEndian.AppendUint16([]byte{0x45, 0}, 20+size)
		header = append(append(header, 0, 0, 0, 0, hops, unix.IPPROTO_UDP, 0, 0), addresses...)
		binary.BigEndian.PutUint16(header[10:], checksum(header))
		return append(header, udp...)
	}
	pseudo := append(binary.BigEndian.AppendUint16([]byte{0, unix.IPPROTO_UDP}, size), addresses...)
	binary.BigEndian.PutUint16(udp[6:], checksum(pseudo, udp))
	header := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, size)
	return append(append(append(header, unix.IPPROTO_UDP, hops), addresses...), udp...)
}

// checksum is that of RFC 1071. Every part but the last has an even number of bytes.
func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, part := range parts {
		for len(part) > 1 {
			sum += uint32(binary.BigEndian.Uint16(part))
			part = part[2:]
		}
		if len(part) > 0 {
			sum += uint32(part[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
