package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
)

type interceptor struct {
	stopping context.Context
	gate     *Gate // nil: everything passes
	log      *slog.Logger
}

func (i interceptor) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (resp any, err error) {
	defer func() { err = i.end(info.FullMethod, recover(), err) }()
	if err := validate(req); err != nil {
		return nil, err
	}
	if err := i.gate.pass(ctx, i.stopping, info.FullMethod); err != nil {
		return nil, err
	}
	return handle(ctx, req)
}

func (i interceptor) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	defer func() { err = i.end(info.FullMethod, recover(), err) }()
	ctx, cancel := context.WithCancelCause(s.Context())
	defer cancel(nil)
	stop := context.AfterFunc(i.stopping, func() { cancel(i.why()) })
	defer stop()
	if err := i.gate.pass(ctx, i.stopping, info.FullMethod); err != nil {
		return err
	}
	return handle(srv, checkedStream{s, ctx})
}

// why is what streams end with: the cause, unless it says nothing.
func (i interceptor) why() error {
	if cause := context.Cause(i.stopping); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return ErrStopping
}

// end turns what a call ended with into a status.
func (i interceptor) end(method string, panicked any, err error) error {
	if panicked != nil {
		err = fmt.Errorf("panic: %v\n%s", panicked, debug.Stack())
	}
	sent, internal := toStatus(err)
	if internal {
		i.log.Error("a call failed", "method", method, "error", err)
	}
	return sent
}

// checkedStream checks each message that it receives, and ends with its own context.
type checkedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s checkedStream) Context() context.Context { return s.ctx }

func (s checkedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return validate(m)
}

// validate checks a request against the rules in the protos.
func validate(req any) error {
	msg, ok := req.(proto.Message)
	if !ok {
		return nil // health and reflection have their own; nothing else is registered
	}
	if err := protovalidate.Validate(msg); err != nil {
		return err
	}
	return checkDurations(msg.ProtoReflect(), "")
}

// checkDurations refuses durations that are not well-formed: gRPC can send nanoseconds of the wrong sign or size, which
// the rules in the protos do not see.
func checkDurations(m protoreflect.Message, prefix string) (err error) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		path := prefix + string(fd.Name())
		switch {
		case fd.Message() == nil || fd.IsMap():
		case fd.IsList():
			for i := 0; i < v.List().Len() && err == nil; i++ {
				err = checkDurationsOf(v.List().Get(i).Message(), element(path, i, ""))
			}
		default:
			err = checkDurationsOf(v.Message(), path)
		}
		return err == nil
	})
	return err
}

// checkDurationsOf looks at a message that may be one.
func checkDurationsOf(m protoreflect.Message, path string) error {
	d, ok := m.Interface().(*durationpb.Duration)
	switch {
	case !ok:
		return checkDurations(m, path+".")
	case d.CheckValid() != nil:
		return badField(path, "is no valid duration: %ds and %dns", d.GetSeconds(), d.GetNanos())
	default:
		return nil
	}
}
