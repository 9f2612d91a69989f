package server

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/wire"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// ledgerCases are for a daemon that has a UDP endpoint "web-1" and a TCP endpoint "made".
func ledgerCases() []contractCase {
	const bad = codes.InvalidArgument
	run := func(p string) string { return `{"probe": ` + p + `}` }
	return []contractCase{
		{name: "no such ledger", call: "LedgerService/GetLedger", request: `{"run": "0123456789abcdef"}`, code: codes.NotFound, reason: "LEDGER_NOT_FOUND", says: "0123456789abcdef"},
		{name: "a run that is too short", call: "LedgerService/GetLedger", request: `{"run": "123"}`, code: bad, reason: "BAD_VALUE", field: "run", says: "16 hexadecimal digits"},
		{name: "a run that is no number", call: "LedgerService/GetLedger", request: `{"run": "0123456789abcdeg"}`, code: bad, reason: "BAD_VALUE", field: "run", says: "16 hexadecimal digits"},
		{
			name: "directions of an endpoint", call: "ProbeService/RunProbe", request: run(`{"target": {"endpoint": "web-1"}, "count": 3, "interval": "0.001s", "ip": {"dscp": 46}}`),
			fields: map[string]string{
				"directions.unknown": "", "directions.lostThere": "0", "directions.lostBack": "0", "directions.ledger.received": "3",
				"directions.ledger.highest": "3", "directions.ledger.dscp.0": "46", "directions.ledger.rounds": "",
			},
		},
		{name: "directions over TCP", call: "ProbeService/RunProbe", request: run(`{"target": {"endpoint": "made"}, "count": 1}`), fields: map[string]string{"directions": "absent"}},
		{
			name: "directions without numbers", call: "ProbeService/RunProbe", request: run(`{"target": {"endpoint": "web-1"}, "count": 1, "payloadSize": 15}`),
			fields: map[string]string{"directions.lostThere": "absent", "directions.unknown": "payloads of less than 16 bytes have no room for the number that a ledger goes by"},
		},
		{
			name: "directions of an address", call: "ProbeService/RunProbe", request: run(`{"target": {"address": "127.0.0.1:1", "protocol": "UDP"}, "count": 1}`),
			fields: map[string]string{"directions.lostThere": "absent", "directions.unknown": "the target's ledger was not asked for: say where its API is (--ledger HOST:PORT)"},
		},
		{
			name: "a ledger that cannot be had", call: "ProbeService/RunProbe", request: run(`{"name": "asks", "target": {"endpoint": "web-1"}, "count": 1, "ledger": {"address": "127.0.0.1:1"}}`),
			fields: map[string]string{"received": "1", "state": "DONE", "directions.unknown": "cannot get the target's ledger from 127.0.0.1:1: connection refused"},
		},
		{
			name: "a ledger from where probes may not go", call: "ProbeService/RunProbe", request: run(`{"target": {"endpoint": "web-1"}, "count": 1, "ledger": {"address": "198.51.100.1:7007"}}`),
			fields: map[string]string{
				"received":           "1",
				"directions.unknown": "cannot get the target's ledger from 198.51.100.1:7007: the target is not allowed: 198.51.100.1:7007 is in 198.51.100.0/24 of --probe-deny",
			},
		},
		{name: "it is shown where it was to come from", call: "ProbeService/GetProbe", request: `{"name": "asks"}`, fields: map[string]string{"ledger.address": "127.0.0.1:1"}},
		{name: "a ledger of TCP", call: "ProbeService/RunProbe", request: run(`{"target": {"endpoint": "made"}, "ledger": {"address": "127.0.0.1:7007"}}`), code: bad, reason: "BAD_VALUE", field: "probe.ledger", says: "UDP"},
		{name: "a ledger from nowhere", call: "ProbeService/RunProbe", request: run(`{"target": {"endpoint": "web-1"}, "ledger": {"address": "127.0.0.1"}}`), code: bad, reason: "BAD_VALUE", field: "probe.ledger.address", says: "HOST:PORT"},
		{name: "a ledger from port 0", call: "ProbeService/RunProbe", request: run(`{"target": {"endpoint": "web-1"}, "ledger": {"address": "127.0.0.1:0"}}`), code: bad, reason: "BAD_VALUE", field: "probe.ledger.address"},
		{name: "a ledger without an address", call: "ProbeService/RunProbe", request: run(`{"target": {"endpoint": "web-1"}, "ledger": {}}`), code: bad, reason: "BAD_VALUE", field: "probe.ledger.address"},
	}
}

// lossTimeout is how long what is lost is waited for: longer than it takes what is not to come, on a slow machine, too.
const lossTimeout = 5 * time.Second

// startRelay passes datagrams between a prober and a target, and loses the rounds that it is told to. It answers where the
// prober is to send.
func startRelay(t *testing.T, target string, loses func(seq uint32, there bool) bool) (address string) {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp", target)
	if err != nil {
		t.Fatal(err)
	}
	front, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	back, err := net.DialUDP("udp", nil, to)
	if err != nil {
		t.Fatal(err)
	}
	var ways sync.WaitGroup
	t.Cleanup(func() {
		front.Close()
		back.Close()
		ways.Wait()
	})
	var mu sync.Mutex
	var prober *net.UDPAddr
	ways.Go(func() {
		carry(front.ReadFromUDP, func(b []byte, from *net.UDPAddr, seq uint32) {
			mu.Lock()
			prober = from
			mu.Unlock()
			if !loses(seq, true) {
				_, _ = back.Write(b)
			}
		})
	})
	ways.Go(func() {
		carry(back.ReadFromUDP, func(b []byte, _ *net.UDPAddr, seq uint32) {
			mu.Lock()
			to := prober
			mu.Unlock()
			if !loses(seq, false) {
				_, _ = front.WriteToUDP(b, to)
			}
		})
	})
	return front.LocalAddr().String()
}

// carry reads datagrams until their socket is closed.
func carry(read func([]byte) (int, *net.UDPAddr, error), pass func(b []byte, from *net.UDPAddr, seq uint32)) {
	b := make([]byte, 2048)
	for {
		n, from, err := read(b)
		if err != nil {
			return
		}
		_, seq, _ := wire.Parse(b[:n])
		pass(b[:n], from, seq)
	}
}

// A probe of one daemon through a network that loses datagrams, to an endpoint of another.
func TestDirections(t *testing.T) {
	t.Parallel()
	prober, target := startDaemon(t, testConfig(t)), startDaemon(t, testConfig(t))
	conn := target.dial(t, target.GRPC)
	e := mustCreate(t, echov1.NewEndpointServiceClient(conn), &echov1.Endpoint{Name: "far", Protocol: echov1.Protocol_UDP})
	lostThere, lostBack := []uint32{2, 3, 40}, []uint32{1, 17, 18, 19, 50}
	address := startRelay(t, e.GetAddress(), func(seq uint32, there bool) bool {
		if there {
			return slices.Contains(lostThere, seq)
		}
		return slices.Contains(lostBack, seq)
	})
	count := uint32(50)
	probe := &echov1.Probe{
		Target: &echov1.ProbeTarget{Address: address, Protocol: echov1.Protocol_UDP}, Count: &count,
		Interval: durationpb.New(time.Millisecond), Timeout: durationpb.New(lossTimeout), Ledger: &echov1.LedgerSource{Address: target.GRPC},
	}
	probes := echov1.NewProbeServiceClient(prober.dial(t, prober.GRPC))
	report, err := probes.RunProbe(testContext(t), &echov1.RunProbeRequest{Probe: probe})
	if err != nil {
		t.Fatal(err)
	}
	d := report.GetDirections()
	if d.GetUnknown() != "" || d.GetLostThere() != 3 || d.GetLostBack() != 5 || report.GetLost() != 8 || d.GetLedger().GetReceived() != 47 {
		t.Fatalf("got %v of %v", d, report)
	}

	// What the target has of it may be seen over all of its listeners.
	for name, calls := range map[string]transport{
		"grpc": overGRPC{conn}, "unix": overGRPC{target.dial(t, "unix:"+target.Socket)}, "rest": overREST{"http://" + target.HTTP},
	} {
		t.Run(name, func(t *testing.T) {
			contractCase{
				call: "LedgerService/GetLedger", request: `{"run": "` + d.GetLedger().GetRun() + `"}`,
				fields: map[string]string{
					"run": d.GetLedger().GetRun(), "received": "47", "duplicated": "0", "reordered": "0", "unanswered": "0", "highest": "50",
					"firstRound": "1", "rounds": "+f///3//Aw==", // without 2, 3 and 40
				},
			}.run(t, calls)
		})
	}

	// The prober's own daemon has nothing of it: whose endpoint it was cannot be told from there, whether anything came
	// back or not.
	cut := startRelay(t, e.GetAddress(), func(_ uint32, there bool) bool { return there })
	*probe.Count, probe.Ledger.Address = 3, prober.GRPC
	for address, lost := range map[string]uint32{e.GetAddress(): 0, cut: 3} {
		probe.Target.Address = address
		report, err = probes.RunProbe(testContext(t), &echov1.RunProbeRequest{Probe: probe})
		if err != nil {
			t.Fatal(err)
		}
		d, want := report.GetDirections(), "the daemon at "+prober.GRPC+" knows nothing of this probe: no datagram reached it, or it does not host the target"
		if report.GetLost() != lost || d.GetUnknown() != want || d.LostThere != nil || d.LostBack != nil {
			t.Errorf("the wrong daemon is asked of %d lost: %v", report.GetLost(), d)
		}
	}
}

// Somebody makes up more runs than a target keeps, in the midst of a probe: what it has of the probe is not believed.
func TestDirectionsOfADisplacedLedger(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, testConfig(t))
	conn := d.dial(t, d.GRPC)
	e := mustCreate(t, echov1.NewEndpointServiceClient(conn), &echov1.Endpoint{Name: "far", Protocol: echov1.Protocol_UDP})
	address := startRelay(t, e.GetAddress(), func(seq uint32, there bool) bool {
		if seq == 3 && there {
			makeUpRuns(t, e.GetAddress(), 2*echo.MaxLedgers)
		}
		return !there && seq < 3 // rounds that the ledger has no more
	})
	count := uint32(4)
	report, err := echov1.NewProbeServiceClient(conn).RunProbe(testContext(t), &echov1.RunProbeRequest{Probe: &echov1.Probe{
		Target: &echov1.ProbeTarget{Address: address, Protocol: echov1.Protocol_UDP}, Count: &count,
		Interval: durationpb.New(time.Millisecond), Timeout: durationpb.New(lossTimeout), Ledger: &echov1.LedgerSource{Address: d.GRPC},
	}})
	if err != nil {
		t.Fatal(err)
	}
	got := report.GetDirections()
	if !strings.Contains(got.GetUnknown(), "the target has kept ledgers for ") || got.LostThere != nil || got.LostBack != nil {
		t.Errorf("%v of %v", got, report)
	}
}

// makeUpRuns has so many runs of one round come to an endpoint.
func makeUpRuns(t *testing.T, address string, count uint64) {
	conn, err := net.Dial("udp", address)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	b := make([]byte, 64)
	for run := range count {
		wire.Fill(b, run, 1, 0)
		if _, err = conn.Write(b); err == nil {
			_, err = conn.Read(b)
		}
		if err != nil {
			t.Errorf("run %d: %v", run, err)
			return
		}
	}
}

// Nothing comes back: where the datagrams came to, that is known, too. Where none came, the daemon may be the wrong one.
func TestDirectionsOfACutLine(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, testConfig(t))
	conn := d.dial(t, d.GRPC)
	e := mustCreate(t, echov1.NewEndpointServiceClient(conn), &echov1.Endpoint{Name: "far", Protocol: echov1.Protocol_UDP})
	for name, test := range map[string]struct {
		there    bool
		lostBack uint32
		unknown  string
	}{"there": {there: true, unknown: "knows nothing of this probe"}, "back": {lostBack: 3}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			count := uint32(3)
			report, err := echov1.NewProbeServiceClient(conn).RunProbe(testContext(t), &echov1.RunProbeRequest{Probe: &echov1.Probe{
				Target: &echov1.ProbeTarget{
					Address:  startRelay(t, e.GetAddress(), func(_ uint32, there bool) bool { return there == test.there }),
					Protocol: echov1.Protocol_UDP,
				},
				Count: &count, Interval: durationpb.New(time.Millisecond), Timeout: durationpb.New(lossTimeout),
				Ledger: &echov1.LedgerSource{Address: d.GRPC},
			}})
			if err != nil {
				t.Fatal(err)
			}
			got := report.GetDirections()
			if !strings.Contains(got.GetUnknown(), test.unknown) || (got.GetUnknown() == "") != (test.unknown == "") ||
				got.GetLostThere() != 0 || got.GetLostBack() != test.lostBack {
				t.Errorf("%v", got)
			}
		})
	}
}
