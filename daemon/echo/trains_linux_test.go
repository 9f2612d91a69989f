package echo_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/echod/echod/daemon/echo"
)

// trainConn is a client that sends trains (UDP_SEGMENT) of segments of so many bytes, and takes them if gro says so.
func trainConn(t *testing.T, e *echo.Endpoint, segment int, gro bool) *net.UDPConn {
	t.Helper()
	conn := dialUDP(t, e.Addr())
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var optErr error
	if err := raw.Control(func(fd uintptr) {
		optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, segment)
		if optErr == nil && gro {
			optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if optErr != nil {
		t.Skipf("this kernel knows no trains of datagrams: %v", optErr)
	}
	return conn
}

// readTrain reads datagrams until it has n bytes, and answers how many they were. A message that came as a train counts
// for as many as are in it.
func readTrain(t *testing.T, conn *net.UDPConn, n int) (got []byte, datagrams int) {
	t.Helper()
	b, oob := make([]byte, 1<<16), make([]byte, 128)
	for len(got) < n {
		read, oobRead, _, _, err := conn.ReadMsgUDPAddrPort(b, oob)
		if err != nil {
			t.Fatalf("after %d of %d bytes: %v", len(got), n, err)
		}
		got = append(got, b[:read]...)
		messages, err := unix.ParseSocketControlMessage(oob[:oobRead])
		if err != nil {
			t.Fatal(err)
		}
		segment := max(read, 1)
		for _, m := range messages {
			if m.Header.Level == unix.IPPROTO_UDP && m.Header.Type == unix.UDP_GRO {
				segment = int(binary.NativeEndian.Uint32(m.Data))
			}
		}
		datagrams += (read + segment - 1) / segment
	}
	return got, datagrams
}

// What comes as a train goes back whole, datagram by datagram, and is counted so; the last may be shorter.
func TestUDPTrains(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, where := range []string{"127.0.0.1:0", ":0"} {
			e := open(t, newEngine, udpSpec(where))
			var in uint64
			for _, test := range []struct{ segment, bytes int }{
				{1200, 1200 * 10}, {1200, 1200*10 + 1}, {1200, 1201}, {1200, 1200}, {1200, 7}, {1, 64}, {1000, 64000}, {1400, 65000},
			} {
				datagrams := (test.bytes + test.segment - 1) / test.segment
				for _, gro := range []bool{true, false} {
					conn := trainConn(t, e, test.segment, gro)
					payload := randomBytes(test.bytes)
					if _, err := conn.Write(payload); err != nil {
						t.Fatalf("%+v: %v", test, err)
					}
					got, n := readTrain(t, conn, test.bytes)
					if !bytes.Equal(got, payload) || n != datagrams {
						t.Errorf("%s, %+v, GRO %v: %d bytes in %d datagrams, want %d", where, test, gro, len(got), n, datagrams)
					}
					in += uint64(datagrams)
				}
			}
			eventually(t, "all is counted", func() bool {
				s := e.Stats()
				return s.DatagramsOut == in && s.DatagramsIn == in && s.BytesIn == s.BytesOut && len(s.Errors) == 0
			})
		}
	})
}

// A train that is refused counts for all that are in it.
func TestUDPTrainsAreCountedWhenRefused(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		s := udpSpec("127.0.0.1:0")
		s.Deny = prefixes(t, "127.0.0.0/8")
		e := open(t, newEngine, s)
		conn := trainConn(t, e, 100, false)
		if _, err := conn.Write(make([]byte, 1050)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "all are counted", func() bool {
			s := e.Stats()
			return s.Drops[echo.DropSourceDenied] == 11 && s.DatagramsIn == 11 && s.DatagramsOut == 0
		})
	})
}

// Trains and single datagrams of many clients at once, more than a batch takes.
func TestUDPTrainsAmongOthers(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, udpSpec("127.0.0.1:0"))
		const clients, rounds = 16, 50
		type client struct {
			conn    *net.UDPConn
			payload []byte
		}
		var all []client
		for i := range clients {
			c := client{dialUDP(t, e.Addr()), randomBytes(100 + i)}
			if i%2 == 0 {
				c = client{trainConn(t, e, 500+i, i%4 == 0), randomBytes(20*(500+i) - 3*i)}
			}
			all = append(all, c)
		}
		for range rounds {
			for _, c := range all {
				if _, err := c.conn.Write(c.payload); err != nil {
					t.Fatal(err)
				}
			}
			for i, c := range all {
				if got, _ := readTrain(t, c.conn, len(c.payload)); !bytes.Equal(got, c.payload) {
					t.Fatalf("client %d: not what was sent", i)
				}
			}
		}
	})
}

// Of a train over its source's rate comes back what is within it.
func TestUDPTrainsOverTheRate(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, test := range []struct {
			limit echo.UDPOptions
			want  int
		}{
			{echo.UDPOptions{MaxSourceDatagrams: 1}, 1}, {echo.UDPOptions{MaxSourceDatagrams: 4}, 4}, {echo.UDPOptions{MaxSourceBytes: 350}, 3},
			{echo.UDPOptions{MaxSourceBytes: 49}, 0},
		} {
			s := udpSpec("127.0.0.1:0")
			s.UDP = test.limit
			e := open(t, newEngine, s)
			conn := trainConn(t, e, 100, false)
			payload := randomBytes(1050)
			if _, err := conn.Write(payload); err != nil {
				t.Fatal(err)
			}
			eventually(t, "all have come", func() bool {
				s := e.Stats()
				return s.DatagramsIn == 11 && s.BytesIn == 1050 && s.DatagramsOut+s.Drops[echo.DropSourceRate] == 11
			})
			if s := e.Stats(); int(s.DatagramsOut) < test.want || test.want == 0 && s.DatagramsOut != 0 {
				t.Errorf("%+v: %+v", test, s)
			}
			got, _ := readTrain(t, conn, test.want*100)
			if !bytes.Equal(got, payload[:test.want*100]) {
				t.Errorf("%+v: what came back is not the beginning of what was sent", test)
			}
		}
	})
}

// Refused and answered, trains and single datagrams, as they fall into batches.
func TestUDPTrainsAmongRefused(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		e := open(t, newEngine, udpSpec("127.0.0.1:0"))
		const ssdp = 1900 // a service that answers anything
		refused, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9), Port: ssdp}, net.UDPAddrFromAddrPort(e.Addr()))
		if err != nil {
			t.Skipf("port %d of 127.0.0.9 is not to be had: %v", ssdp, err)
		}
		defer refused.Close()
		single, train := dialUDP(t, e.Addr()), trainConn(t, e, 300, true)
		var in, dropped uint64
		for round := range 100 {
			var wantSingle, wantTrain []byte
			for i := range 9 {
				payload := randomBytes(1 + 300*i + round)
				conn := [...]*net.UDPConn{refused, single, train}[(i*7+round)%3]
				if _, err := conn.Write(payload); err != nil {
					t.Fatal(err)
				}
				in++
				switch conn {
				case refused:
					dropped++
				case single:
					wantSingle = append(wantSingle, payload...)
				default:
					wantTrain = append(wantTrain, payload...)
					in += uint64(len(payload)+299)/300 - 1
				}
			}
			if got, _ := readTrain(t, single, len(wantSingle)); !bytes.Equal(got, wantSingle) {
				t.Fatalf("round %d: single datagrams do not come back as they were sent", round)
			}
			if got, _ := readTrain(t, train, len(wantTrain)); !bytes.Equal(got, wantTrain) {
				t.Fatalf("round %d: trains do not come back as they were sent", round)
			}
		}
		eventually(t, "all is counted", func() bool {
			s := e.Stats()
			return s.DatagramsIn == in && s.DatagramsOut == in-dropped && s.Drops[echo.DropSourceIsService] == dropped && len(s.Errors) == 0
		})
	})
}
