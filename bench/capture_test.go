//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// The ends of the made-up packets.
var (
	captureClient = netip.MustParseAddrPort("127.0.0.1:4000")
	captureServer = netip.MustParseAddrPort("127.0.0.1:7")
)

// numbered is a payload of 8 bytes as stamp_client.c sends it.
func numbered(numbers ...uint64) (payload []byte) {
	for _, n := range numbers {
		payload = binary.NativeEndian.AppendUint64(payload, n)
	}
	return payload
}

// datagram is a packet of UDP, with a longer IP header than most have.
func datagram(from, to netip.AddrPort, payload []byte) []byte {
	const ip, udp = 24, 8
	return packetOf(from, to, unix.IPPROTO_UDP, ip, udp, payload)
}

// segment is a packet of TCP, with options.
func segment(from, to netip.AddrPort, payload []byte) []byte {
	const ip, tcp = 20, 32
	p := packetOf(from, to, unix.IPPROTO_TCP, ip, tcp, payload)
	p[ip+12] = tcp / 4 << 4
	return p
}

func packetOf(from, to netip.AddrPort, protocol byte, ip, transport int, payload []byte) []byte {
	p := make([]byte, ip+transport, ip+transport+len(payload))
	p[0] = 4<<4 | byte(ip/4)
	p[9] = protocol
	copy(p[12:], from.Addr().AsSlice())
	copy(p[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(p[ip:], from.Port())
	binary.BigEndian.PutUint16(p[ip+2:], to.Port())
	p = append(p, payload...)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	return p
}

func TestMatchPackets(t *testing.T) {
	type seen struct {
		packet []byte
		micros int64
	}
	request := func(micros int64, numbers ...uint64) seen {
		return seen{datagram(captureClient, captureServer, numbered(numbers...)), micros}
	}
	reply := func(micros int64, numbers ...uint64) seen {
		return seen{datagram(captureServer, captureClient, numbered(numbers...)), micros}
	}
	stream := func(from, to netip.AddrPort, micros int64, payload []byte) seen {
		return seen{segment(from, to, payload), micros}
	}
	other := netip.MustParseAddrPort("127.0.0.1:4001")
	for _, test := range []struct {
		name string
		see  []seen
		want map[int]int64 // µs
	}{
		{"in order", []seen{request(10, 0), reply(13, 0), request(20, 1), reply(25, 1)}, map[int]int64{0: 3, 1: 5}},
		{"out of order", []seen{request(10, 0), request(11, 1), reply(13, 1), reply(14, 0)}, map[int]int64{0: 4, 1: 2}},
		{"no reply", []seen{request(10, 0)}, map[int]int64{}},
		{"no request", []seen{reply(10, 0)}, map[int]int64{}},
		{"twice", []seen{request(10, 0), request(11, 0), reply(13, 0), reply(19, 0)}, map[int]int64{0: 3}},
		{"of another flow", []seen{request(10, 0), {datagram(captureServer, other, numbered(0)), 12}}, map[int]int64{}},
		{"two in a segment", []seen{
			stream(captureClient, captureServer, 10, numbered(0)), stream(captureClient, captureServer, 12, numbered(1, 2)),
			stream(captureServer, captureClient, 13, nil), stream(captureServer, captureClient, 20, numbered(0, 1)),
			stream(captureServer, captureClient, 21, numbered(2)),
		}, map[int]int64{0: 10, 1: 8, 2: 9}},
		{"not whole payloads", []seen{
			request(10, 0), stream(captureServer, captureClient, 12, numbered(0)[:7]), stream(captureServer, captureClient, 13, numbered(0, 1)[:15]),
		}, map[int]int64{}},
		{"cut off", []seen{
			stream(captureClient, captureServer, 10, numbered(0, 1)), {segment(captureServer, captureClient, numbered(0, 1))[:52+8+3], 12},
		}, map[int]int64{0: 2}},
		{"padded", []seen{{append(datagram(captureClient, captureServer, numbered(0)), numbered(1)...), 10}, reply(11, 0), reply(12, 1)},
			map[int]int64{0: 1}},
		{"no packets of ours", []seen{{nil, 1}, {[]byte{0x45}, 1}, {make([]byte, 20), 1}, {datagram(captureClient, captureServer, nil)[:30], 1},
			{segment(captureClient, captureServer, nil)[:25], 1}, {segment(captureClient, captureServer, nil)[:45], 1}}, map[int]int64{}},
	} {
		m := matcher{size: 8, number: stampNumber, server: captureServer, left: map[flowRound]int64{}, trips: map[int]time.Duration{}}
		for _, s := range test.see {
			m.see(s.packet, s.micros*1000)
		}
		got := map[int]int64{}
		for number, took := range m.trips {
			got[number] = took.Microseconds()
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
}

func TestNumbersOfPayloads(t *testing.T) {
	ours := append([]byte("ECH1\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00\x01\x02"), "pattern"...)
	for _, test := range []struct {
		name    string
		number  func([]byte) (int, bool)
		payload []byte
		want    int
		ok      bool
	}{
		{"C", stampNumber, append(numbered(300), 1, 2), 300, true},
		{"C, a part", stampNumber, numbered(300)[:7], 0, false},
		{"C, another's", stampNumber, ours, 0, false},
		{"ours", ourNumber, ours, 0x101, true},
		{"ours, a part", ourNumber, ours[:15], 0, false},
		{"ours, another's", ourNumber, numbered(300, 2, 3), 0, false},
		{"ours, no round", ourNumber, append([]byte("ECH1"), make([]byte, 12)...), 0, false},
	} {
		number, ok := test.number(test.payload)
		if ok != test.ok || ok && number != test.want {
			t.Errorf("%s: got %d, %v", test.name, number, ok)
		}
	}
}

// echoSocket is a UDP server that answers with what it gets, n times.
func echoSocket(t *testing.T, n int) netip.AddrPort {
	server, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	t.Cleanup(func() {
		_ = server.Close()
		<-over
	})
	go func() {
		defer close(over)
		b := make([]byte, 100)
		for range n {
			got, from, err := server.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = server.WriteToUDPAddrPort(b[:got], from) // what is lost shows in the round trips
		}
	}()
	return server.LocalAddr().(*net.UDPAddr).AddrPort()
}

// exchange asks the server n times, and returns how long the round trips took in this process.
func exchange(t *testing.T, server netip.AddrPort, n int) (took []time.Duration) {
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(startWithin)); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		began := time.Now()
		if _, err := conn.Write(numbered(uint64(i))); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	return took
}

func captureOnLoopback(t *testing.T, server netip.AddrPort, rounds int) *capture {
	t.Helper()
	c, err := newCapture("lo", "udp", server, rounds)
	if errors.Is(err, os.ErrPermission) {
		t.Skipf("capturing needs root: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

// The capture has every round trip, between its request's leaving and its reply's coming: it took some time, and less than
// the process saw. What is not of the server's port is not taken.
func TestCaptureOnLoopback(t *testing.T) {
	const rounds = 50
	server, other := echoSocket(t, rounds), echoSocket(t, rounds)
	c := captureOnLoopback(t, server, rounds)
	exchange(t, other, rounds)
	took := exchange(t, server, rounds)
	trips, err := c.trips(8, stampNumber)
	if err != nil || len(trips) != rounds {
		t.Fatalf("got %d round trips of %d, %v", len(trips), rounds, err)
	}
	for number, trip := range trips {
		if trip <= 0 || trip > took[number] {
			t.Errorf("round trip %d: the capture says %v, the process %v", number, trip, took[number])
		}
	}
	statistics, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil || statistics.Packets != 0 {
		t.Errorf("%d packets came after it was read, %v", statistics.Packets, err)
	}
}

// A capture that has no room for all packets is none.
func TestCaptureTellsWhatItMissed(t *testing.T) {
	const rounds = 200
	server := echoSocket(t, rounds)
	c := captureOnLoopback(t, server, 1)
	exchange(t, server, rounds)
	trips, err := c.trips(8, stampNumber)
	if err == nil || !strings.Contains(err.Error(), "missed") || trips != nil {
		t.Errorf("got %d round trips, %v", len(trips), err)
	}
}

// A capture of a client's turn has what the client timed, over the loopback and a cable, over UDP and TCP.
func TestTurnsAreCaptured(t *testing.T) {
	captureOnLoopback(t, captureServer, 1)
	for _, program := range []string{"gcc", "ip"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	ctx := testContext(t)
	c, err := newCable(ctx)
	if err != nil {
		t.Skipf("no cable between network namespaces can be made here: %v", err)
	}
	c.close()
	clients := []ProbeCase{
		{Name: "lo", Protocol: "udp", Size: 64}, {Name: "lo", Protocol: "tcp", Size: 1200},
		{Name: "cable", Protocol: "udp", Size: 64, Cable: true}, {Name: "cable", Protocol: "tcp", Size: 64, Cable: true},
	}
	var programs []string
	for _, c := range clients {
		programs = append(programs, c.programs()...)
	}
	tools, err := build(ctx, t.TempDir(), programs)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		// On a slow machine all round trips of a turn over TCP may be one burst, of which there is nothing to compare: then again.
		for captured := 0; captured < 2; {
			all, err := runProbes(ctx, tools, c, settings{rounds: 1, trial: 50 * time.Millisecond, warm: 5 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			captured = 0
			for _, p := range all[:2] {
				if p.wrong != nil || p.unseen != nil {
					t.Fatalf("%s, %s: %s: %v, %v", c.Name, c.Protocol, p.name, p.wrong, p.unseen)
				}
				got, timed := len(p.turns[0].twice.client), len(p.turns[0].network)
				if c.Protocol == "udp" && got != timed {
					t.Errorf("%s, %s: %s: %d round trips captured of %d", c.Name, c.Protocol, p.name, got, timed)
				}
				if got > 0 {
					captured++
				}
			}
		}
	}
}

func TestCompare(t *testing.T) {
	r := roundTrips{numbered: map[int]float64{3: 5e-6, 4: 2e-6, 5: 9e-6}}
	r.compare(map[int]time.Duration{2: time.Microsecond, 3: 4 * time.Microsecond, 4: 4 * time.Microsecond})
	micros := func(values []float64) (rounded []int) {
		for _, v := range values {
			rounded = append(rounded, int(v*1e6+0.5))
		}
		return rounded
	}
	got := [][]int{micros(r.twice.client), micros(r.twice.capture), micros(r.twice.apart)}
	if diff := cmp.Diff([][]int{{2, 5}, {4, 4}, {1, 2}}, got); diff != "" {
		t.Error(diff)
	}
}

func TestCaptureTable(t *testing.T) {
	turn := func(client, capture, apart float64) roundTrips {
		return roundTrips{
			network: turnOf(client), application: append(turnOf(client), 1, 1),
			twice: twice{client: turnOf(client), capture: turnOf(capture), apart: turnOf(apart)},
		}
	}
	all := []*probed{
		{probeClient: probeClients[0], turns: []roundTrips{turn(20, 21, 1), {}, turn(10, 30, 20), turn(30, 50, 20)}},
		{probeClient: probeClients[1], turns: []roundTrips{turn(200, 201, 1), turn(300, 302, 2), turn(100, 103, 3)},
			blind: 2, unseen: errors.New("no room")},
		{probeClient: probeClients[2], turns: []roundTrips{{application: turnOf(9)}}},
		{probeClient: probeClients[3], missing: errors.New("not installed")},
	}
	all[1].turns[0].network = append(all[1].turns[0].network, 2) // of which the capture knows nothing
	table := captureTable(probeCases[0], all)
	want := [][]string{
		{"C, the kernel's time", "50.0 %", "100.0 %", "20 µs", "30 µs", "-20.0 µs [-20.0, -1.0]", "unclear",
			"20 µs", "30 µs", "-20.0 µs [-20.0, -1.0]", "unclear", "30 µs", "50 µs", "20 µs", "20 µs"},
		{"echod, network", "58.3 %", "85.7 %", "200 µs", "201 µs", "-2.0 µs [-3.0, -1.0]", "yes",
			"200 µs", "201 µs", "-2.0 µs [-3.0, -1.0]", "yes", "300 µs", "302 µs", "2 µs", "3 µs"},
	}
	if diff := cmp.Diff(want, table.Rows); diff != "" {
		t.Error(diff)
	}
	for _, row := range table.Rows {
		if len(row) != len(table.Header) {
			t.Errorf("%d cells for %d titles: %q", len(row), len(table.Header), row)
		}
	}
	said := "echod, network: within max(5 µs, 10 %) of the capture of the same packets: p50 yes (-2.0 µs [-3.0, -1.0], bound 20.1 µs)"
	if notes := strings.Join(table.Notes, "\n"); !strings.Contains(notes, said) {
		t.Errorf("no %q in:\n%s", said, notes)
	}
	if notes := strings.Join(probeTable(probeCases[0], all).Notes, "\n"); !strings.Contains(notes, "echod: no capture in 2 turns: no room") {
		t.Errorf("it does not say why there was no capture:\n%s", notes)
	}
	if rows := captureTable(probeCases[0], all[2:]).Rows; rows != nil {
		t.Errorf("nothing was captured, and there is %q", rows)
	}
}
