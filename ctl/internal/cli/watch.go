package cli

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// A watch that breaks is begun again after a while, which grows from the first to the last.
const (
	firstAgain = 100 * time.Millisecond
	lastAgain  = 5 * time.Second
)

// trafficKind is what the daemon tells of only where it is asked to.
const trafficKind = "traffic"

// maxOneIn is the smallest share of connections that may be asked for, as one in so many.
const maxOneIn = 1_000_000

// lostEvery is how often at most it is said that events were lost.
const lostEvery = time.Second

// eventKinds are what a watch can be of.
var eventKinds = []string{"endpoint", "probe", "monitor", "daemon", trafficKind}

type eventOptions struct {
	matching
	kinds       []string
	changesOnly bool
	traffic     bool
	oneIn       countFlag
}

func newWatchCommand(a *app) *cobra.Command {
	o := &eventOptions{}
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Show what happens, as it happens",
		Long: long(`Shows what is there, as EXISTING, then SYNCED, then each change of an endpoint,
a probe, a monitor or the daemon, a line each, until Ctrl-C. When the connection
breaks it goes on by itself, without missing or repeating an event; when the
daemon was started anew it begins anew. Both are said on standard error.

With --traffic, TCP connections of endpoints are shown, too, as they are opened
and when they have ended, with the bytes and the reason; --traffic-one-in shows
one in so many of them. Those that come faster than they are shown are lost,
which is said on standard error, and so are those of a break.

A filter speaks of type, kind, name, state and labels (AIP-160). With -o json it
is an object a line, with -o name KIND/NAME.`),
		Example: `  echoctl watch
  echoctl watch --kind endpoint --selector rack=r1
  echoctl watch --changes-only --filter 'type = STATE_CHANGED AND state = FAILED'
  echoctl watch --traffic --filter 'name = "web-1"'
  echoctl watch --kind traffic --traffic-one-in 100
  echoctl watch --kind monitor -o json | jq -c .monitor.verdict`,
		Args: argsBetween(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return runWatch(a, cmd, o) },
	}
	flags := cmd.Flags()
	o.addTo(cmd)
	flags.StringSliceVar(&o.kinds, "kind", nil, "only of these `KIND,...`: endpoint, probe, monitor, daemon, traffic")
	flags.BoolVar(&o.changesOnly, "changes-only", false, "not what is there already")
	flags.BoolVar(&o.traffic, "traffic", false, "also each TCP connection that is opened or has ended")
	flags.Var(&o.oneIn, "traffic-one-in", "also one in `N` of these connections, 1 to 1000000")
	mustRegister(cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(eventKinds, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// request is what all flags come to.
func (o *eventOptions) request() (*echov1.WatchEventsRequest, error) {
	var kinds []string
	for _, kind := range trimmed(o.kinds) {
		if !slices.Contains(eventKinds, kind) {
			return nil, usagef("--kind %q: say endpoint, probe, monitor, daemon or traffic", kind)
		}
		kinds = append(kinds, "kind = "+filterString(kind))
	}
	oneIn, err := o.trafficOneIn()
	if err != nil {
		return nil, err
	}
	filter := o.expression()
	if len(kinds) > 0 {
		if oneIn > 0 {
			kinds = append(kinds, "kind = "+filterString(trafficKind))
		}
		filter = bothFilters(filter, "("+strings.Join(kinds, " OR ")+")")
	}
	return &echov1.WatchEventsRequest{Filter: filter, ChangesOnly: o.changesOnly, TrafficOneIn: oneIn}, nil
}

// asksForTraffic says whether connections are to be told: by any of the flags that speak of them.
func (o *eventOptions) asksForTraffic() bool {
	return o.traffic || o.oneIn.set || slices.Contains(trimmed(o.kinds), trafficKind)
}

// trafficOneIn is how many connections there are to one that is told; 0: none is.
func (o *eventOptions) trafficOneIn() (uint32, error) {
	oneIn := o.oneIn.value
	switch {
	case o.oneIn.set && (oneIn == 0 || oneIn > maxOneIn):
		return 0, usagef("--traffic-one-in %d: say 1, for each connection, to %d", oneIn, maxOneIn)
	case !o.asksForTraffic():
		return 0, nil
	}
	return max(oneIn, 1), nil
}

func runWatch(a *app, cmd *cobra.Command, o *eventOptions) error {
	request, err := o.request()
	if err != nil {
		return err
	}
	s, err := a.connect()
	if err != nil {
		return err
	}
	err = s.watchEvents(cmd.Context(), request, eventReader{
		see: func(e *echov1.Event) (bool, error) { return false, s.out.Event(e) },
	})
	if errors.Is(err, context.Canceled) {
		return nil // as it was meant to end
	}
	return err
}

// eventReader is told of events until it has seen what it waits for. What says only that the watch is alive is left out.
type eventReader struct {
	begin func() // a watch begins, or begins anew: what is there is told again; may be nil
	see   func(*echov1.Event) (done bool, err error)
}

// watchEvents watches until the reader is done. It goes on after breaks, once a first answer has come, and tells of them on
// standard error. The error is the reader's, one that trying again would not mend, or ctx's.
func (s *session) watchEvents(ctx context.Context, request *echov1.WatchEventsRequest, reader eventReader) error {
	w := &eventWatch{session: s, request: request, reader: reader, changesOnly: request.GetChangesOnly()}
	w.anew()
	for pause := firstAgain; ; pause = min(2*pause, lastAgain) {
		before := w.answers
		err := w.read(ctx)
		switch {
		case !w.done && ctx.Err() != nil:
			return ctx.Err()
		case w.done, w.answers == 0, !mayMend(err):
			return err
		}
		if w.answers > before {
			pause = firstAgain
		}
		if err := w.again(ctx, err, pause); err != nil {
			return err
		}
	}
}

// eventWatch is one watch, over several connections, if need be.
type eventWatch struct {
	session     *session
	request     *echov1.WatchEventsRequest
	reader      eventReader
	changesOnly bool
	answers     uint64
	broken      bool
	done        bool

	lost     uint64    // events of connections, of this stream, as was said
	lostSaid time.Time // and when
}

func (w *eventWatch) anew() {
	w.request.ResumeToken, w.request.ChangesOnly = "", w.changesOnly
	if w.reader.begin != nil {
		w.reader.begin()
	}
}

// errNoAnswer ends a call whose first answer does not come.
var errNoAnswer = errors.New("no answer")

// read reads one stream to its end. The daemon answers at once, so that the first answer has the time of any call.
func (w *eventWatch) read(outer context.Context) error {
	// gRPC would tell the daemon of a deadline, which may end the stream before we know that our own time is over.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(outer))
	defer cancel(nil)
	stop := context.AfterFunc(outer, func() { cancel(context.Cause(outer)) })
	defer stop()
	if patience := w.session.app.options.callTimeout.value; patience > 0 {
		timer := time.AfterFunc(patience, func() { cancel(errNoAnswer) })
		defer timer.Stop()
		return w.receive(ctx, func() { timer.Stop() })
	}
	return w.receive(ctx, func() {})
}

func (w *eventWatch) receive(ctx context.Context, answered func()) error {
	stream, err := w.session.events.WatchEvents(ctx, w.request)
	w.lost = 0
	for err == nil {
		var m *echov1.WatchEventsResponse
		if m, err = stream.Recv(); err != nil {
			break
		}
		answered()
		w.answers++
		if w.broken {
			w.broken = false
			w.session.app.talk("echoctl: watching again")
		}
		if e := m.GetEvent(); e.GetType() != echov1.Event_HEARTBEAT {
			if w.done, err = w.reader.see(e); w.done || err != nil {
				return err
			}
		}
		w.sayLost(m.GetTrafficDropped())
		if token := m.GetResumeToken(); token != "" {
			w.request.ResumeToken, w.request.ChangesOnly = token, false
		}
	}
	if errors.Is(context.Cause(ctx), errNoAnswer) {
		return status.Error(codes.DeadlineExceeded, "")
	}
	return err
}

// sayLost says that events of connections were lost, now and then.
func (w *eventWatch) sayLost(lost uint64) {
	if lost > w.lost && time.Since(w.lostSaid) >= lostEvery {
		w.lost, w.lostSaid = lost, time.Now()
		w.session.app.talk("echoctl: events of connections lost so far: %d; they came faster than they were read, and --traffic-one-in asks for fewer", lost)
	}
}

// mayMend tells of errors that pass.
func mayMend(err error) bool {
	return errors.Is(err, io.EOF) || slices.Contains([]codes.Code{codes.Unavailable, codes.DeadlineExceeded, codes.OutOfRange, codes.ResourceExhausted}, codeOf(err))
}

// again prepares to watch again, with a connection of its own: the old one may take its time to find out that it is dead.
func (w *eventWatch) again(ctx context.Context, err error, pause time.Duration) error {
	a := w.session.app
	why := "the daemon ended the watch"
	if !errors.Is(err, io.EOF) {
		why, _ = a.explain(err)
	}
	lost := codeOf(err) == codes.OutOfRange
	switch {
	case lost:
		a.talk("echoctl: %s; beginning anew, what happened in between is not shown", strings.TrimSuffix(why, "; watch without a token"))
		w.anew()
	case !w.broken:
		a.talk("echoctl: the watch broke: %s Trying again.", strings.TrimSuffix(why, ".")+".")
		if w.request.GetResumeToken() == "" {
			w.anew() // it broke before all that is there was told
		}
	}
	w.broken = w.broken || !lost
	if !lost {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return w.session.redial()
}

// redial gives the session another connection to the same daemon, for watching and for asking after it.
func (s *session) redial() error {
	a := s.app
	a.close()
	a.peer = &peer{server: a.peer.server}
	conn, err := dial(a.peer)
	if err != nil {
		return err
	}
	a.conn, s.events, s.daemon = conn, echov1.NewEventServiceClient(conn), echov1.NewDaemonServiceClient(conn)
	return nil
}
