package echo_test

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/echod/echod/daemon/echo"
)

// How datagrams were marked is told as they came, not as they are answered.
func TestLedgerTellsHopsAndDSCP(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, where := range []string{"127.0.0.1:0", ":0"} {
			engine := newEngine()
			defer closeEngine(t, engine)
			conn := dialUDP(t, listen(t, engine, udpSpec(where)).Addr())
			raw, err := conn.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			for i, mark := range []struct{ hops, tos int }{{200, 46<<2 | 1}, {17, 0}, {99, 10 << 2}} {
				var optErr error
				if err := raw.Control(func(fd uintptr) {
					optErr = errors.Join(
						unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, mark.hops),
						unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, mark.tos),
						ignoreNotIPv6(unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, mark.hops)),
						ignoreNotIPv6(unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_TCLASS, mark.tos)))
				}); err != nil || optErr != nil {
					t.Fatal(err, optErr)
				}
				sendRounds(t, conn, 64, 5, uint32(i+1))
			}
			got := ledgerOf(t, engine, 5)
			if got.Hops == nil || *got.Hops != (echo.Hops{Min: 17, Max: 200}) || !slices.Equal(got.DSCP, []uint8{0, 10, 46}) {
				t.Errorf("%s: hops %+v, DSCP %v", where, got.Hops, got.DSCP)
			}
		}
	})
}

// ignoreNotIPv6 passes over what a socket of IPv4 says to options of IPv6.
func ignoreNotIPv6(err error) error {
	if errors.Is(err, unix.ENOPROTOOPT) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}

// Each datagram of a train is one of its own, and those of a train that is answered in part are told apart.
func TestLedgerOfTrains(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, rate := range []uint32{0, 4} {
			engine := newEngine()
			defer closeEngine(t, engine)
			s := udpSpec("127.0.0.1:0")
			s.UDP.MaxSourceDatagrams = rate
			e := listen(t, engine, s)
			conn := trainConn(t, e, 100, true)
			setDeadline(t, conn)
			var train []byte
			for seq := range uint32(10) {
				train = append(train, round(100, 3, seq+1)...)
			}
			train = append(train, round(50, 3, 11)...)
			if _, err := conn.Write(train); err != nil {
				t.Fatal(err)
			}
			eventually(t, "all have come", func() bool {
				s := e.Stats()
				return s.DatagramsIn == 11 && s.DatagramsOut+s.Drops[echo.DropSourceRate] == 11
			})
			got := ledgerOf(t, engine, 3)
			if got.Received != 11 || got.Duplicated != 0 || got.Reordered != 0 || got.Unanswered != e.Stats().Drops[echo.DropSourceRate] {
				t.Errorf("at most %d a second: %+v, %+v", rate, got, e.Stats())
			}
		}
	})
}
