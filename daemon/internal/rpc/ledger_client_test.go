package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/registry"
	"github.com/echod/echod/daemon/probe"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// otherDaemon answers for ledgers as answer does, and nothing else.
type otherDaemon struct {
	echov1.UnsafeLedgerServiceServer
	answer func(context.Context) (*echov1.Ledger, error)
}

func (d otherDaemon) GetLedger(ctx context.Context, _ *echov1.GetLedgerRequest) (*echov1.Ledger, error) {
	return d.answer(ctx)
}

// listenTCP serves connections until the test ends.
func listenTCP(t *testing.T, serve func(net.Listener)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		serve(l)
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
	})
	return l.Addr().String()
}

// startOther runs a daemon that answers for ledgers, or serves nothing at all.
func startOther(t *testing.T, answer func(context.Context) (*echov1.Ledger, error)) string {
	server := grpc.NewServer()
	if answer != nil {
		echov1.RegisterLedgerServiceServer(server, otherDaemon{answer: answer})
	}
	t.Cleanup(server.Stop)
	return listenTCP(t, func(l net.Listener) { _ = server.Serve(l) })
}

func goodLedger() *echov1.Ledger {
	return &echov1.Ledger{
		Run: "000000000000002a", Received: 2, Highest: 2, Rounds: []byte{3}, FirstRound: 1, Dscp: []uint32{0, 46},
		MinTtl: proto.Uint32(63), MaxTtl: proto.Uint32(64), FirstSeen: timestamppb.Now(), LastSeen: timestamppb.Now(),
		CompleteFor: durationpb.New(time.Minute),
	}
}

// refuses is a policy against one address.
type refuses string

func (r refuses) PermitControl(a netip.AddrPort) error {
	if a.Addr().String() == string(r) {
		return fmt.Errorf("not to %s", a)
	}
	return nil
}

// fetchFrom fetches run 42 from what is at an address.
func fetchFrom(t *testing.T, address string) (probe.Ledger, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return fetchLedger(ctx, refuses("127.0.0.9"), address, 42)
}

func TestFetchLedger(t *testing.T) {
	got, err := fetchFrom(t, startOther(t, func(context.Context) (*echov1.Ledger, error) { return goodLedger(), nil }))
	if err != nil || got.Received != 2 || *got.MinTTL != 63 || *got.MaxTTL != 64 || len(got.DSCP) != 2 || got.FirstSeen.IsZero() || got.CompleteFor != time.Minute {
		t.Errorf("got %+v, %v", got, err)
	}
	_, err = fetchFrom(t, startOther(t, func(context.Context) (*echov1.Ledger, error) {
		sent, _ := toStatus(registry.ErrNoLedger)
		return nil, sent
	}))
	if !errors.Is(err, errNothingKnown) || errors.Is(err, probe.ErrNoLedger) {
		t.Errorf("a daemon without the ledger: %v", err)
	}
}

// ownEndpoints are a daemon's that has one ledger, or none, for as long as it says.
type ownEndpoints struct {
	Targets
	ledger echo.Ledger
	err    error
}

func (o ownEndpoints) Ledger(uint64) (echo.Ledger, error) { return o.ledger, o.err }

// That a daemon's own endpoints saw nothing is known for as long as that would have been kept.
func TestOwnLedger(t *testing.T) {
	s := &ProbeService{targets: ownEndpoints{ledger: echo.Ledger{CompleteFor: time.Minute}, err: fmt.Errorf("%w: 42", registry.ErrNoLedger)}}
	own := s.ledgerOf("", true)
	if got, err := own(t.Context(), 42); !errors.Is(err, probe.ErrNoLedger) || got.CompleteFor != time.Minute {
		t.Errorf("none: %+v, %v", got, err)
	}
	now := time.Now()
	s.targets = ownEndpoints{ledger: echo.Ledger{Received: 1, Highest: 1, FirstRound: 1, Rounds: []byte{1}, FirstSeen: now, LastSeen: now, CompleteFor: time.Hour}}
	if got, err := own(t.Context(), 42); err != nil || got.Received != 1 || got.CompleteFor != time.Hour {
		t.Errorf("one: %+v, %v", got, err)
	}
}

// That another daemon knows nothing says nothing: it may be the wrong one, or have been restarted.
func TestLedgerOfAnotherThatKnowsNothing(t *testing.T) {
	address := startOther(t, func(context.Context) (*echov1.Ledger, error) {
		sent, _ := toStatus(registry.ErrNoLedger)
		return nil, sent
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s := &ProbeService{policy: refuses("127.0.0.9")}
	_, err := s.ledgerOf(address, true)(ctx, 42)
	if want := "the daemon at " + address + " knows nothing of this probe: no datagram reached it, or it does not host the target"; err == nil ||
		err.Error() != want || errors.Is(err, probe.ErrNoLedger) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// Whatever is at the address of the ledger, it is said in words, and not trusted.
func TestFetchLedgerFromOthers(t *testing.T) {
	for name, test := range map[string]struct {
		address string
		says    string
	}{
		"nobody":       {"127.0.0.1:1", "connection refused"},
		"not allowed":  {"127.0.0.9:7007", "not to 127.0.0.9:7007"},
		"an older one": {startOther(t, nil), "it serves no ledgers"},
		"no gRPC":      {listenTCP(t, answerHTTP), "Unavailable"},
		"not found by another": {startOther(t, func(context.Context) (*echov1.Ledger, error) {
			return nil, status.Error(codes.NotFound, "no such page")
		}), "NotFound: no such page"},
		"much to say": {startOther(t, func(context.Context) (*echov1.Ledger, error) {
			return nil, status.Error(codes.Internal, strings.Repeat("ä", 1000))
		}), "ä..."},
		"a message that is too large": {startOther(t, func(context.Context) (*echov1.Ledger, error) {
			l := goodLedger()
			l.Rounds = make([]byte, 1<<20)
			return l, nil
		}), "ResourceExhausted"},
		"another run": {startOther(t, func(context.Context) (*echov1.Ledger, error) {
			l := goodLedger()
			l.Run = "000000000000002b"
			return l, nil
		}), "another run"},
	} {
		_, err := fetchFrom(t, test.address)
		if err == nil || errors.Is(err, probe.ErrNoLedger) || errors.Is(err, errNothingKnown) || !strings.Contains(err.Error(), test.says) || len(err.Error()) > 300 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func answerHTTP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
		c.Close()
	}
}

// One that takes the call and says nothing is given up when the context ends.
func TestFetchLedgerDoesNotWaitForEver(t *testing.T) {
	for name, address := range map[string]string{
		"the call": startOther(t, func(ctx context.Context) (*echov1.Ledger, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}),
		"the connection": listenTCP(t, func(l net.Listener) {
			var held []net.Conn
			for {
				c, err := l.Accept()
				if err != nil {
					for _, c := range held {
						c.Close()
					}
					return
				}
				held = append(held, c)
			}
		}),
	} {
		if err := fetchInTime(t, address); err == nil || err.Error() != "no answer in time" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// fetchInTime fetches with a time that is over soon, but long enough for a connection, however slow the machine is.
func fetchInTime(t *testing.T, address string) error {
	t.Helper()
	for patience := 100 * time.Millisecond; ; patience *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err := fetchLedger(ctx, refuses("127.0.0.9"), address, 42)
		cancel()
		if err == nil || err.Error() != "no connection in time" || patience > time.Minute {
			return err
		}
	}
}

func TestLedgerFromProtoRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*echov1.Ledger){
		"another run":     func(l *echov1.Ledger) { l.Run = "2a" },
		"TTLs":            func(l *echov1.Ledger) { l.MaxTtl = proto.Uint32(256) },
		"swapped TTLs":    func(l *echov1.Ledger) { l.MaxTtl = proto.Uint32(62) },
		"a DSCP":          func(l *echov1.Ledger) { l.Dscp = []uint32{64} },
		"too many DSCPs":  func(l *echov1.Ledger) { l.Dscp = make([]uint32, 65) },
		"no time":         func(l *echov1.Ledger) { l.FirstSeen = nil },
		"an absurd time":  func(l *echov1.Ledger) { l.LastSeen = &timestamppb.Timestamp{Seconds: 1 << 60} },
		"no duration":     func(l *echov1.Ledger) { l.CompleteFor = nil },
		"another one":     func(l *echov1.Ledger) { l.CompleteFor = &durationpb.Duration{Seconds: 1 << 60} },
		"a negative part": func(l *echov1.Ledger) { l.LastSeen = &timestamppb.Timestamp{Nanos: -1} },
	} {
		l := goodLedger()
		if _, err := ledgerFromProto(42, l); err != nil {
			t.Fatal(err)
		}
		spoil(l)
		if got, err := ledgerFromProto(42, l); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// What another daemon answers is read, or refused, whatever it is.
func FuzzLedgerFromProto(f *testing.F) {
	good, err := proto.Marshal(goodLedger())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		l := new(echov1.Ledger)
		if proto.Unmarshal(b, l) != nil {
			return
		}
		got, err := ledgerFromProto(42, l)
		if err != nil {
			return
		}
		out := directionsToProto(42, &probe.Directions{Ledger: &got})
		if _, err := proto.Marshal(out); err != nil || out.GetLedger().GetReceived() != l.GetReceived() {
			t.Errorf("%v becomes %v: %v", l, out, err)
		}
	})
}
