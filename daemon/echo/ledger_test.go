package echo_test

import (
	"net"
	"slices"
	"testing"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/wire"
)

// round is the payload of one round of a probe.
func round(size int, run uint64, seq uint32) []byte {
	b := make([]byte, size)
	wire.Fill(b, run, seq, 0)
	return b
}

// sendRounds sends rounds and waits for each answer: what is answered is in the ledger.
func sendRounds(t *testing.T, conn *net.UDPConn, size int, run uint64, seqs ...uint32) {
	t.Helper()
	setDeadline(t, conn)
	answer := make([]byte, size)
	for _, seq := range seqs {
		if _, err := conn.Write(round(size, run, seq)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(answer); err != nil {
			t.Fatal(err)
		}
	}
}

func ledgerOf(t *testing.T, engine *echo.Engine, run uint64) echo.Ledger {
	t.Helper()
	l, ok := engine.Ledger(run)
	if !ok {
		t.Fatalf("no ledger of run %x", run)
	}
	return l
}

func TestLedger(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		for _, size := range []int{wire.HeaderBytes, 64, 1472} {
			engine := newEngine()
			defer closeEngine(t, engine)
			e := listen(t, engine, udpSpec("127.0.0.1:0"))
			const run = 1<<63 + 42
			conn := dialUDP(t, e.Addr())
			sendRounds(t, conn, size, run, 1, 2, 5, 4, 4, 70)
			got := ledgerOf(t, engine, run)
			if got.Received != 5 || got.Duplicated != 1 || got.Reordered != 1 || got.Unanswered != 0 || got.Highest != 70 || got.FirstRound != 1 ||
				!slices.Equal(got.Rounds, []byte{0b11011, 0, 0, 0, 0, 0, 0, 0, 1 << 5}) {
				t.Errorf("%d bytes: %+v", size, got)
			}
			if got.FirstSeen.IsZero() || got.LastSeen.Before(got.FirstSeen) {
				t.Errorf("seen from %v to %v", got.FirstSeen, got.LastSeen)
			}
			// It outlives the endpoint.
			if err := e.Close(endedContext()); err != nil {
				t.Fatal(err)
			}
			if after := ledgerOf(t, engine, run); after.Received != 5 {
				t.Errorf("after the endpoint's end: %+v", after)
			}
		}
	})
}

// What is no probe, or has no number, is in no ledger, and answered as ever.
func TestNoLedgerOfOthers(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		engine := newEngine()
		defer closeEngine(t, engine)
		conn := dialUDP(t, listen(t, engine, udpSpec("127.0.0.1:0")).Addr())
		damaged := round(64, 7, 1)
		damaged[3] ^= 1
		for _, payload := range [][]byte{nil, []byte("ECH"), []byte("ECH1"), round(wire.HeaderBytes-1, 7, 1), damaged, round(64, 7, 0)} {
			if err := exchange(conn, payload); err != nil {
				t.Fatal(err)
			}
		}
		if l, ok := engine.Ledger(7); ok {
			t.Errorf("there is one: %+v", l)
		}
		if l, ok := newEngine().Ledger(7); ok {
			t.Errorf("an engine without endpoints has one: %+v", l)
		}
	})
}

// One run may come to several endpoints; runs are told apart.
func TestLedgersOfSeveralEndpointsAndRuns(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		engine := newEngine()
		defer closeEngine(t, engine)
		a := dialUDP(t, listen(t, engine, udpSpec("127.0.0.1:0")).Addr())
		b := dialUDP(t, listen(t, engine, udpSpec("127.0.0.1:0")).Addr())
		sendRounds(t, a, 64, 8, 1, 3)
		sendRounds(t, b, 64, 16, 1)
		sendRounds(t, b, 64, 8, 2)
		if got := ledgerOf(t, engine, 8); got.Received != 3 || got.Reordered != 1 || !slices.Equal(got.Rounds, []byte{0b111}) {
			t.Errorf("the run that came to both: %+v", got)
		}
		if got := ledgerOf(t, engine, 16); got.Received != 1 {
			t.Errorf("the other run: %+v", got)
		}
	})
}

// What a limit refuses has come, and is not answered.
func TestLedgerCountsUnanswered(t *testing.T) {
	forEachEngine(t, func(t *testing.T, newEngine maker) {
		engine := newEngine()
		defer closeEngine(t, engine)
		s := udpSpec("127.0.0.1:0")
		s.Deny = prefixes(t, "127.0.0.2/32")
		e := listen(t, engine, s)
		denied, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)}, net.UDPAddrFromAddrPort(e.Addr()))
		if err != nil {
			t.Skipf("127.0.0.2 is not to be had: %v", err)
		}
		defer denied.Close()
		for seq := range uint32(3) {
			if _, err := denied.Write(round(64, 9, seq+1)); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "all have come", func() bool { return e.Stats().Drops[echo.DropSourceDenied] == 3 })
		sendRounds(t, dialUDP(t, e.Addr()), 64, 9, 4)
		if got := ledgerOf(t, engine, 9); got.Received != 4 || got.Unanswered != 3 || !slices.Equal(got.Rounds, []byte{0b1111}) {
			t.Errorf("%+v", got)
		}
	})
}
