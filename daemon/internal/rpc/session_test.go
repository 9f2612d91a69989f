package rpc

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/echod/echod/daemon/echo"
	"github.com/echod/echod/daemon/internal/registry"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// heldStream notes what it is sent.
type heldStream struct {
	grpc.ServerStreamingServer[echov1.HoldResponse]
	ctx  context.Context
	sent []*echov1.Session
}

func (s *heldStream) Context() context.Context { return s.ctx }

func (s *heldStream) Send(m *echov1.HoldResponse) error {
	s.sent = append(s.sent, m.GetSession())
	return nil
}

// TestAHeldSessionIsSaidToBeHeld holds a session for a minute, and has it end with its stream.
func TestAHeldSessionIsSaidToBeHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sessions := registry.New(registry.Config{Engine: echo.New(echo.Options{})})
		defer sessions.Close(context.Background())
		left := errors.New("the client has left")
		ctx, leave := context.WithCancelCause(context.Background())
		stream := &heldStream{ctx: ctx}
		ended := make(chan error, 1)
		go func() { ended <- NewSessionService(sessions, nil).Hold(&echov1.HoldRequest{Name: "s"}, stream) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(stream.sent) != 7 {
			t.Errorf("%d answers in a minute, want one and one each 10 s", len(stream.sent))
		}
		for i, s := range stream.sent {
			if s.GetName() != "s" || (s.GetSecret() != "") != (i == 0) {
				t.Errorf("answer %d is %v", i, s)
			}
		}
		leave(left)
		if err := <-ended; !errors.Is(err, left) {
			t.Errorf("it ended with %v", err)
		}
		synctest.Wait()
		if _, err := sessions.OpenSession("s", 0); err != nil {
			t.Errorf("it is still held: %v", err)
		}
	})
}
