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
			eventually(t, "all is counted", func() bool { return e.Stats().DatagramsOut == in })
			if s := e.Stats(); s.DatagramsIn != in || s.BytesIn != s.BytesOut || len(s.Errors) != 0 {
				t.Errorf("%s: %+v, want %d datagrams", where, s, in)
			}
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
		eventually(t, "all are counted", func() bool { return e.Stats().Drops[echo.DropSourceDenied] == 11 })
		if s := e.Stats(); s.DatagramsIn != 11 || s.DatagramsOut != 0 {
			t.Errorf("%+v", s)
		}
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
