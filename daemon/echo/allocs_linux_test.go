//go:build !race

package echo_test

import (
	"net"
	"testing"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/wire"
)

// An echo makes no garbage. The client's side is in the count, too.
func TestEchoesAllocateNothing(t *testing.T) {
	engine := echo.New(echo.Options{})
	defer closeEngine(t, engine)
	for _, s := range []echo.Spec{tcpSpec(echo.TCPOptions{}), udpSpec("127.0.0.1:0"), udpSpec(":0")} {
		e := listen(t, engine, s)
		network := "tcp"
		if s.Protocol == echo.UDP {
			network = "udp"
		}
		address := net.JoinHostPort("127.0.0.1", port(e))
		conn, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		setDeadline(t, conn)
		payload, answer := make([]byte, 64), make([]byte, 64)
		seq := uint32(0)
		once := func() {
			seq++
			wire.Fill(payload, 1, seq, 0) // over UDP it goes into a ledger
			if _, err := conn.Write(payload); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(answer); err != nil {
				t.Fatal(err)
			}
		}
		once()
		if n := testing.AllocsPerRun(2000, once); n > 0 {
			t.Errorf("%s at %s: %v allocations an echo", network, address, n)
		}
	}
}

func BenchmarkEcho(b *testing.B) {
	for _, network := range []string{"tcp", "udp"} {
		b.Run(network, func(b *testing.B) {
			engine := echo.New(echo.Options{})
			defer engine.Close(endedContext())
			s := tcpSpec(echo.TCPOptions{})
			if network == "udp" {
				s = udpSpec("127.0.0.1:0")
			}
			e, err := engine.Listen(b.Context(), s)
			if err != nil {
				b.Fatal(err)
			}
			conn, err := net.Dial(network, e.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			payload, answer := make([]byte, 64), make([]byte, 64)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := conn.Write(payload); err != nil {
					b.Fatal(err)
				}
				if _, err := conn.Read(answer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
