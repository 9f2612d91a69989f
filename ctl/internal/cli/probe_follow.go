package cli

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// stopGrace bounds how long a probe that the user interrupted may take to hand over its report.
const stopGrace = 10 * time.Second

// follower is told of a probe as it goes; nil functions are not called.
type follower struct {
	begin     func(*echov1.Probe) error
	sample    func(*echov1.Sample) error
	aggregate func(*echov1.Aggregate) error
}

// follow runs a probe and answers its report. When ctx ends, it has the probe stopped and answers the report of what
// was done until then; only when the daemon does not hand it over soon is the error errInterrupted.
func (s *session) follow(ctx context.Context, request *echov1.StreamProbeRequest,
	see follower) (*echov1.ProbeReport, error) {
	// The stream must outlive ctx, because the report comes after the interruption.
	streamCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	named := make(chan string, 1)
	var watcher sync.WaitGroup
	watcher.Go(func() { s.stopWhenInterrupted(ctx, streamCtx, cancel, named) })
	defer watcher.Wait()
	defer cancel(nil)

	report, err := s.read(streamCtx, request, named, see)
	if err != nil && errors.Is(context.Cause(streamCtx), errInterrupted) {
		return nil, errInterrupted
	}
	return report, err
}

// read reads the stream to its end. It sends the probe's name to named as soon as it is known.
func (s *session) read(ctx context.Context, request *echov1.StreamProbeRequest, named chan<- string,
	see follower) (*echov1.ProbeReport, error) {
	stream, err := s.probes.StreamProbe(ctx, request)
	if err != nil {
		return nil, aboutNewProbe(request.GetProbe(), err)
	}
	var report *echov1.ProbeReport
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) && report != nil {
			return report, nil
		}
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the daemon ended the probe without a report")
		}
		if err != nil {
			return nil, aboutNewProbe(request.GetProbe(), err)
		}
		switch m := m.GetMessage().(type) {
		case *echov1.StreamProbeResponse_Probe:
			select {
			case named <- m.Probe.GetName():
			default:
			}
			err = call(see.begin, m.Probe)
		case *echov1.StreamProbeResponse_Sample:
			err = call(see.sample, m.Sample)
		case *echov1.StreamProbeResponse_Aggregate:
			err = call(see.aggregate, m.Aggregate)
		case *echov1.StreamProbeResponse_Report:
			report = m.Report
		}
		if err != nil {
			return nil, err
		}
	}
}

// aboutNewProbe says what a call that was to make a probe failed about: the endpoint, when that is not there.
func aboutNewProbe(probe *echov1.Probe, err error) error {
	if name := probe.GetTarget().GetEndpoint(); codeOf(err) == codes.NotFound && name != "" {
		return about(anEndpoint, name, err)
	}
	return about(aProbe, probe.GetName(), err)
}

func call[T any](f func(T) error, value T) error {
	if f == nil {
		return nil
	}
	return f(value)
}

// stopWhenInterrupted waits for the stream's end or for ctx's. In the second case it asks the daemon to stop the probe,
// after which the stream brings the report and ends. A probe without a name yet is cut off: it has nothing to report.
func (s *session) stopWhenInterrupted(ctx, streamCtx context.Context, cancel context.CancelCauseFunc,
	named <-chan string) {
	select {
	case <-streamCtx.Done():
		return
	case <-ctx.Done():
	}
	select {
	case name := <-named:
		stopCtx, done := context.WithTimeout(streamCtx, stopGrace)
		defer done()
		// Its answer is not needed: the stream brings the same report. If it fails, so does the stream, or time runs out.
		_, _ = s.probes.StopProbe(stopCtx, &echov1.StopProbeRequest{Name: name})
		<-stopCtx.Done()
	default:
	}
	cancel(errInterrupted)
}
