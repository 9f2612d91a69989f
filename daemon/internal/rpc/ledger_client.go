package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/echod/echod/daemon/internal/registry"
	"github.com/echod/echod/daemon/probe"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

const (
	// maxLedgerMessage is more than the largest ledger takes, which has 8 KiB of rounds.
	maxLedgerMessage = 16 << 10
	// maxPeerText is how much of what another daemon says is repeated in a report.
	maxPeerText = 200
)

// errNothingKnown is what another daemon's lack of a ledger means: it is not known to be the target's, nor since when it runs.
var errNothingKnown = errors.New("nothing of this probe: no datagram reached it, or it does not host the target")

// ledgerOf says how a probe is to learn what its target saw: from the API at an address, or for an endpoint of this daemon
// straight from its engine. Nil: it cannot.
func (s *ProbeService) ledgerOf(address string, endpointOfOurs bool) func(context.Context, uint64) (probe.Ledger, error) {
	switch {
	case address != "":
		return func(ctx context.Context, run uint64) (probe.Ledger, error) {
			l, err := fetchLedger(ctx, s.policy, address, run)
			if errors.Is(err, errNothingKnown) {
				return l, fmt.Errorf("the daemon at %s knows %w", address, err)
			}
			if err != nil {
				return l, fmt.Errorf("cannot get the target's ledger from %s: %w", address, err)
			}
			return l, nil
		}
	case endpointOfOurs:
		return s.ownLedger
	default:
		return nil
	}
}

func (s *ProbeService) ownLedger(_ context.Context, run uint64) (probe.Ledger, error) {
	l, err := s.targets.Ledger(run)
	if errors.Is(err, registry.ErrNoLedger) {
		return probe.Ledger{CompleteFor: l.CompleteFor}, probe.ErrNoLedger
	}
	if err != nil {
		return probe.Ledger{}, err
	}
	return ledgerFromProto(run, ledgerToProto(run, l))
}

// fetchLedger asks another daemon for the ledger of a run. It makes one connection and one call.
func fetchLedger(ctx context.Context, policy Policy, address string, run uint64) (probe.Ledger, error) {
	conn, err := dialLedger(ctx, policy, address)
	if err != nil {
		return probe.Ledger{}, errors.New(dialWords(ctx, err))
	}
	defer func() { _ = conn.Close() }() // gRPC has closed it, if it has ever taken it
	once := make(chan net.Conn, 1)
	once <- conn
	client, err := grpc.NewClient("passthrough:///ledger", grpc.WithAuthority(address),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-once:
				return c, nil
			default:
				return nil, errors.New("it does not speak gRPC, or has closed the connection")
			}
		}),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithMaxHeaderListSize(16<<10),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxLedgerMessage)),
	)
	if err != nil {
		return probe.Ledger{}, err
	}
	defer func() { _ = client.Close() }()
	l, err := echov1.NewLedgerServiceClient(client).GetLedger(ctx, &echov1.GetLedgerRequest{Run: runToText(run)})
	if err != nil {
		return probe.Ledger{}, ledgerError(err)
	}
	return ledgerFromProto(run, l)
}

// dialLedger connects to the API that a probe's ledger is to come from. The policy is asked about each address that is to
// be dialled, after a name was looked up.
func dialLedger(ctx context.Context, policy Policy, address string) (net.Conn, error) {
	d := net.Dialer{Control: func(_, resolved string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(resolved)
		if err != nil {
			return err
		}
		return policy.PermitControl(to)
	}}
	return d.DialContext(ctx, "tcp", address)
}

// dialWords says why there is no connection, without which resolver or port of ours was tried.
func dialWords(ctx context.Context, err error) string {
	var errno syscall.Errno
	var lookup *net.DNSError
	var network net.Error
	var dial *net.OpError
	switch {
	case ctx.Err() != nil, errors.As(err, &network) && network.Timeout():
		return "no connection in time"
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &lookup):
		return lookup.Err
	case errors.As(err, &dial):
		return dial.Err.Error()
	default:
		return err.Error()
	}
}

// ledgerError says what the other daemon's refusal means.
func ledgerError(err error) error {
	s := status.Convert(err)
	switch s.Code() {
	case codes.NotFound:
		for _, d := range s.Details() {
			if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetReason() == reasonNoLedger && info.GetDomain() == domain {
				return errNothingKnown
			}
		}
	case codes.Unimplemented:
		return errors.New("it serves no ledgers: it is no echod, or an older one")
	case codes.DeadlineExceeded:
		return errors.New("no answer in time")
	}
	text := strings.ToValidUTF8(s.Message(), "?")
	if len(text) > maxPeerText {
		text = strings.ToValidUTF8(text[:maxPeerText], "") + "..."
	}
	return fmt.Errorf("%s: %s", s.Code(), text)
}
