package rpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/echod/echod/daemon/internal/registry"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// heldEvery is how often a client is told that its session is held. It is also what finds a client over REST that is silent:
// what is not acknowledged breaks the connection.
const heldEvery = 10 * time.Second

// errTakenOver is what a stream ends with when its session is held by another.
var errTakenOver = errors.New("the session was taken over by another client with its secret")

// Sessions is what SessionService needs of the registry.
type Sessions interface {
	OpenSession(name string, grace time.Duration) (*registry.Hold, error)
	HoldSession(name, secret string) (*registry.Hold, error)
}

// SessionService serves echo.v1.SessionService.
type SessionService struct {
	echov1.UnsafeSessionServiceServer
	sessions Sessions
}

// NewSessionService serves the sessions of one registry.
func NewSessionService(sessions Sessions) *SessionService { return &SessionService{sessions: sessions} }

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
			return errTakenOver
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
		return s.sessions.OpenSession(req.GetName(), req.GetGrace().AsDuration())
	case req.GetName() == "":
		return nil, badField("name", "is missing: a secret is of a session that has a name")
	default:
		return s.sessions.HoldSession(req.GetName(), req.GetSecret())
	}
}

func sessionToProto(s registry.Session) *echov1.Session {
	return &echov1.Session{
		Name: s.Name, Grace: durationpb.New(s.Grace), CreateTime: timestamp(s.CreateTime), Endpoints: uint32(s.Endpoints),
	}
}
