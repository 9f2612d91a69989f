//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// capture takes down the packets between a client and its server at the client's end of the path, with the kernel's times:
// a second clock for the very rounds that the client times, so that what the machine did meanwhile is in both.
//
// The kernel takes the two times of a packet at these places (Linux 6.18; older ones differ little):
//
//   - A packet that leaves is shown to captures just before the driver gets it (dev_queue_xmit_nit), and is stamped for the
//     socket in the driver (skb_tx_timestamp, the first thing that those of the loopback and of veth do). So the capture's
//     time is earlier by what the capture itself takes: a filter, a copy of a packet, and room for the socket's stamp.
//   - A datagram that comes has one time, taken where the driver hands it over (netif_rx). Socket and capture are told the
//     same.
//   - A segment of TCP from the same machine still carries the time at which its sender wanted it to leave, so it gets none
//     there. The capture's is when it is copied, the socket's when IP hands the segment to TCP (ip_local_deliver_finish): a
//     little later.
//
// So the capture's round trips are longer over UDP, and a little longer or shorter over TCP, by about a microsecond, and by
// more only where an interrupt or another virtual machine on the same processor comes between.
//
// Over the loopback each packet passes twice, as it leaves and as it comes. The filter takes the request as it leaves and
// the reply as it comes.
//
// Packets are copied to a ring, so that nothing of the kernel's own is held until somebody reads: a queue of a thousand packets
// would have it take new memory for each. And nobody reads, or waits, before the turn is over: a packet wakes nobody.
type capture struct {
	fd     int
	ring   []byte
	server netip.AddrPort
}

const (
	// frameBytes of the ring are for one packet: what it has beyond that is cut off.
	frameBytes = 4096
	// framesOfRound are for the packets of a round; TCP has acknowledgements, too.
	framesOfRound = 4
	blockBytes    = 1 << 16
	// mostBlocks keep a ring from taking too much; a turn of more than 16 s at 1 ms runs out of them.
	mostBlocks = 4096
)

// newCapture begins a capture on a device of the network namespace of this thread, with room for so many rounds. It needs
// CAP_NET_RAW.
func newCapture(device, protocol string, server netip.AddrPort, rounds int) (_ *capture, err error) {
	// Without a protocol it takes nothing yet. Without its link header a packet begins with its IP header on every device.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open a packet socket: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	filter, err := captureFilter(protocol, server.Port())
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, filter); err != nil {
		return nil, fmt.Errorf("cannot attach the filter of a capture: %w", err)
	}
	// The ring has times without this, of when a packet is copied; the earlier ones are there only while a socket asks for
	// them.
	const stamps = unix.SOF_TIMESTAMPING_RX_SOFTWARE | unix.SOF_TIMESTAMPING_SOFTWARE
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stamps); err != nil {
		return nil, fmt.Errorf("cannot ask for the times of a capture: %w", err)
	}
	ring, err := newRing(fd, rounds)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = unix.Munmap(ring)
		}
	}()
	found, err := net.InterfaceByName(device)
	if err != nil {
		return nil, err
	}
	err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: found.Index})
	if err != nil {
		return nil, fmt.Errorf("cannot capture on %s: %w", device, err)
	}
	return &capture{fd: fd, ring: ring, server: server}, nil
}

// newRing is memory that the kernel puts packets into, one a frame, in their order.
func newRing(fd, rounds int) ([]byte, error) {
	const perBlock = blockBytes / frameBytes
	blocks := min((rounds*framesOfRound+perBlock-1)/perBlock+1, mostBlocks)
	request := unix.TpacketReq{
		Block_size: blockBytes, Block_nr: uint32(blocks), Frame_size: frameBytes, Frame_nr: uint32(blocks * perBlock),
	}
	// Version 2: that of version 3 has a timer.
	err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2)
	if err == nil {
		err = unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &request)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot make the ring of a capture, of %d KiB: %w", blocks*blockBytes>>10, err)
	}
	ring, err := unix.Mmap(fd, 0, blocks*blockBytes, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("cannot map the ring of a capture: %w", err)
	}
	return ring, nil
}

// networkOrder is a number whose bytes in this machine's order are those of n in the network's.
func networkOrder(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

// captureFilter takes what leaves for the port and what comes from it, over IPv4.
func captureFilter(protocol string, port uint16) (*unix.SockFprog, error) {
	const (
		protocolAt, fragmentAt, sourceAt, destinationAt = 9, 6, 0, 2
		laterFragment                                   = 0x1fff
	)
	number := uint32(unix.IPPROTO_UDP)
	if protocol == "tcp" {
		number = unix.IPPROTO_TCP
	}
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtProto},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: 12},
		bpf.LoadAbsolute{Off: protocolAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: number, SkipTrue: 10},
		bpf.LoadAbsolute{Off: fragmentAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: laterFragment, SkipTrue: 8},
		bpf.LoadMemShift{Off: 0}, // X: how long the IP header is
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 2},
		bpf.LoadIndirect{Off: sourceAt, Size: 2},
		bpf.Jump{Skip: 1},
		bpf.LoadIndirect{Off: destinationAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(port), SkipTrue: 1},
		bpf.RetConstant{Val: math.MaxInt32},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return nil, err
	}
	program := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		program[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}, nil
}

// close ends the capture.
func (c *capture) close() {
	_ = unix.Munmap(c.ring)
	_ = unix.Close(c.fd)
}

// trips reads what was captured: the round trips by their number from 0. A payload has size bytes, and number tells which
// round it is of. It fails when the ring had no room for a packet, for then it is not known which rounds lack one.
func (c *capture) trips(size int, number func(payload []byte) (int, bool)) (map[int]time.Duration, error) {
	statistics, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return nil, fmt.Errorf("cannot read how much a capture missed: %w", err)
	}
	if statistics.Drops > 0 {
		return nil, fmt.Errorf("the capture missed %d of %d packets", statistics.Drops, statistics.Packets)
	}
	m := matcher{size: size, number: number, server: c.server, left: map[flowRound]int64{}, trips: map[int]time.Duration{}}
	for at := 0; at < len(c.ring); at += frameBytes {
		packet, when, ok := readFrame(c.ring[at : at+frameBytes])
		if !ok {
			break
		}
		m.see(packet, when)
	}
	return m.trips, nil
}

// readFrame reads a packet from its IP header on, and when the kernel saw it, in ns; false if no packet has come to the
// frame. The frame begins with a struct tpacket2_hdr.
func readFrame(frame []byte) (packet []byte, when int64, ok bool) {
	const statusAt, capturedAt, packetAt, secondsAt, nanosAt = 0, 8, 14, 16, 20
	number := func(at int) int { return int(binary.NativeEndian.Uint32(frame[at:])) }
	if number(statusAt)&unix.TP_STATUS_USER == 0 {
		return nil, 0, false
	}
	when = int64(number(secondsAt))*int64(time.Second) + int64(number(nanosAt))
	begin := int(binary.NativeEndian.Uint16(frame[packetAt:]))
	return frame[begin : begin+number(capturedAt)], when, true
}

// flowRound is a round of a flow, which the client's port tells from others.
type flowRound struct {
	port   uint16
	number int
}

// matcher makes round trips of packets: from the first request of a round to its first reply, in the same flow.
type matcher struct {
	size   int
	number func(payload []byte) (int, bool)
	server netip.AddrPort
	left   map[flowRound]int64
	trips  map[int]time.Duration
}

// see takes a packet, from its IP header on, and when the kernel saw it, in ns. A segment of TCP may hold several
// payloads, as it does when a server was late to read. One that does not end with a payload tells nothing.
func (m *matcher) see(packet []byte, when int64) {
	p, ok := dissect(packet)
	if !ok || p.length%m.size != 0 {
		return
	}
	for at := 0; at < len(p.payload); at += m.size {
		number, ok := m.number(p.payload[at:])
		if !ok {
			continue
		}
		if p.destination == m.server {
			m.request(flowRound{p.source.Port(), number}, when)
		} else if p.source == m.server {
			m.reply(flowRound{p.destination.Port(), number}, when)
		}
	}
}

func (m *matcher) request(round flowRound, when int64) {
	if _, again := m.left[round]; !again {
		m.left[round] = when
	}
}

func (m *matcher) reply(round flowRound, when int64) {
	left, asked := m.left[round]
	if _, again := m.trips[round.number]; asked && !again {
		m.trips[round.number] = time.Duration(when - left)
	}
}

// dissected is a packet of UDP or TCP over IPv4.
type dissected struct {
	source, destination netip.AddrPort
	payload             []byte // as far as it was captured
	length              int    // of the whole payload
}

// dissect reads the headers of a packet that may have been cut off.
func dissect(packet []byte) (d dissected, ok bool) {
	const ipBytes, udpBytes, tcpBytes, tcpLengthAt = 20, 8, 20, 12
	if len(packet) < ipBytes {
		return d, false
	}
	ip, length := int(packet[0]&0xf)*4, int(binary.BigEndian.Uint16(packet[2:]))
	headers := ip + udpBytes
	if packet[9] == unix.IPPROTO_TCP {
		if len(packet) < ip+tcpBytes {
			return d, false
		}
		headers = ip + int(packet[ip+tcpLengthAt]>>4)*4
	}
	packet = packet[:min(len(packet), length)] // a short one is padded
	if len(packet) < headers {
		return d, false
	}
	end := func(address, port int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(packet[address:])), binary.BigEndian.Uint16(packet[port:]))
	}
	return dissected{source: end(12, ip), destination: end(16, ip+2), payload: packet[headers:], length: length - headers}, true
}

// The payloads of the clients that tell the kernel's times begin with the number of the round.

// stampNumber reads that of stamp_client.c: 8 bytes in this machine's order, from 0.
func stampNumber(payload []byte) (int, bool) {
	if len(payload) < 8 {
		return 0, false
	}
	number := int64(binary.NativeEndian.Uint64(payload))
	return int(number), number >= 0 && number <= math.MaxInt32
}

// ourNumber reads that of echod's probes: a magic, a number of the run, and 4 bytes in the network's order, from 1.
func ourNumber(payload []byte) (int, bool) {
	const magic, numberAt, size = "ECH1", 12, 16
	if len(payload) < size || string(payload[:len(magic)]) != magic {
		return 0, false
	}
	number := int(binary.BigEndian.Uint32(payload[numberAt:])) - 1
	return number, number >= 0
}
