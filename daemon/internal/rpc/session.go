package rpc

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/echod/echod/daemon/internal/registry"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// heldEvery is how often a client is told that its session is held. It is also what finds a client over REST that is silent:
// what is not acknowledged breaks the connection.
const heldEvery = 10 * time.Second

// Sessions is what SessionService needs of the registry.
type Sessions interface {
	OpenSession(name string, grace time.Duration) (*registry.Hold, error)
	HoldSession(name, secret string) (*registry.Hold, error)
	EndSession(ctx context.Context, name, secret string) error
}

// SessionService serves echo.v1.SessionService.
type SessionService struct {
	echov1.UnsafeSessionServiceServer
	sessions Sessions
	gate     *Gate // nil: sessions may always be begun
}

// NewSessionService serves the sessions of one registry. Behind a gate that is stopped none is begun; those that there are may be held
// again, as their endpoints serve on and would end without.
func NewSessionService(sessions Sessions, gate *Gate) *SessionService {
	return &SessionService{sessions: sessions, gate: gate}
}

// Hold implements the service.
func (s *SessionService) Hold(req *echov1.HoldRequest, stream grpc.ServerStreamingServer[echov1.HoldResponse]) error {
	hold, err := s.hold(req)
	if err != nil {
		return err
	}
	// Whatever ends this call, the client has left.
	defer hold.Release()
	first := sessionToProto(hold.Session())
	first.Secret = hold.Secret
	if err := stream.Send(&echov1.HoldResponse{Session: first}); err != nil {
		return err
	}
	ticker := time.NewTicker(heldEvery)
	defer ticker.Stop()
	for {
		select {
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		case <-hold.Lost():
			return hold.Err()
		case <-ticker.C:
			if err := stream.Send(&echov1.HoldResponse{Session: sessionToProto(hold.Session())}); err != nil {
				return err
			}
		}
	}
}

func (s *SessionService) hold(req *echov1.HoldRequest) (*registry.Hold, error) {
	switch {
	case req.GetSecret() == "":
		if err := s.gate.begin(); err != nil {
			return nil, err
		}
		return s.sessions.OpenSession(req.GetName(), req.GetGrace().AsDuration())
	case req.GetName() == "":
		return nil, badField("name", "is missing: a secret is of a session that has a name")
	default:
		return s.sessions.HoldSession(req.GetName(), req.GetSecret())
	}
}

// EndSession implements the service.
func (s *SessionService) EndSession(ctx context.Context, req *echov1.EndSessionRequest) (*emptypb.Empty, error) {
	if err := s.sessions.EndSession(ctx, req.GetName(), req.GetSecret()); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

func sessionToProto(s registry.Session) *echov1.Session {
	return &echov1.Session{
		Name: s.Name, Grace: durationpb.New(s.Grace), CreateTime: timestamp(s.CreateTime), Endpoints: uint32(s.Endpoints),
	}
}
