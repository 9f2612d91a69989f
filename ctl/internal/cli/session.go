package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// sessionVariable has the name of the session that a command runs in. create takes it for --session.
const sessionVariable = "ECHOCTL_SESSION"

// againAfter is how long a session waits before it tries again to be held. A session lives five seconds at least from a
// start of the daemon: it must be there by then.
const againAfter = 200 * time.Millisecond

// longestName is the longest name of an endpoint (RFC 1123).
const longestName = 63

type sessionOptions struct {
	fileOptions
	name   string
	tcp    []string
	udp    []string
	labels labelsFlag
	grace  durationFlag
}

func newSessionCommand(a *app) *cobra.Command {
	o := &sessionOptions{}
	cmd := &cobra.Command{
		Use:   "session [--tcp LISTEN]... [--udp LISTEN]... [-f FILE]... [-- COMMAND ARGS...]",
		Short: "Run a command with endpoints that end with it",
		Long: long(`Creates endpoints in a session, runs the command, and ends the session, which
deletes them. They go however the command ends: when echoctl itself is killed,
or its host is silent for about 20 seconds, the daemon deletes them --grace
later.

The command finds in its environment, for the first --tcp and likewise for each
other endpoint:
  ECHO_TCP_1       its address, HOST:PORT, as this host can reach it
  ECHO_TCP_1_HOST  the parts of that
  ECHO_TCP_1_PORT
  ECHO_TCP_1_NAME  its name: that of the session with "-tcp-1" behind it
Endpoints of files follow those of --tcp and --udp, in their order, and have the
names that the files say. And for echoctl within the command:
  ECHOCTL_SESSION  the session's name; create takes it for --session
  ECHOCTL_SERVER   the daemon

Standard input, output and error are the command's. Signals are handed on to it.
The exit code is the command's, 128 and the signal's number when one killed it,
126 or 127 when it cannot be started. When the daemon goes away the command goes
on, and the session is held again when the daemon is back with --state-dir.

Without a command the endpoints are shown and last until Ctrl-C.

` + filesHelp),
		Example: `  echoctl session --tcp 127.0.0.1:0 --udp 127.0.0.1:0 -- ./run-tests.sh
  echoctl session -f lab.yaml -- ./run-tests.sh
  echoctl session --name ci --tcp :7001 --label run=1234
  echoctl session --tcp '' -- sh -c 'nc -q1 $ECHO_TCP_1_HOST $ECHO_TCP_1_PORT </etc/hosts'
  echoctl session -- sh -c 'echoctl create udp && make test'`,
		RunE: func(cmd *cobra.Command, args []string) error { return runSession(a, cmd, o, args) },
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows the command's name is its own
	flags.StringVar(&o.name, "name", "", "what to call it: `NAME` of a-z, 0-9 and '-'; else the daemon chooses one")
	flags.StringArrayVar(&o.tcp, "tcp", nil, "create a TCP endpoint at `LISTEN`, as in create; '' is a free port; may be repeated")
	flags.StringArrayVar(&o.udp, "udp", nil, "create a UDP endpoint at `LISTEN`; may be repeated")
	o.addTo(cmd)
	flags.VarP(&o.labels, "label", "l", "a label `KEY=VALUE` of the endpoints, instead of what files say of KEY; may be repeated")
	flags.Var(&o.grace, "grace", "have the endpoints live on for `DURATION` when the connection breaks (default: not at all)")
	return cmd
}

func runSession(a *app, cmd *cobra.Command, o *sessionOptions, args []string) error {
	l, err := o.readFiles(a.env.Stdin, len(args) > 0)
	if err != nil {
		return err
	}
	s, err := a.connect()
	if err != nil {
		return err
	}
	held, err := s.openSession(cmd.Context(), o)
	if err != nil {
		return about(aSession, o.name, err)
	}
	defer held.end()
	made, err := held.createAll(cmd.Context(), o)
	if err != nil {
		return err
	}
	described, err := held.createDescribed(cmd.Context(), l, o.labels.values)
	if err != nil {
		return err
	}
	made = append(made, described...)
	if len(args) > 0 {
		return a.runCommand(cmd.Context(), args, held.environment(made))
	}
	if err := s.out.Endpoints(made); err != nil {
		return err
	}
	a.talk("holding session %s until Ctrl-C", held.name)
	select {
	case <-cmd.Context().Done():
		return nil
	case <-held.over:
		return &exitError{exitFailed} // why was said
	}
}

// heldSession is a session that this process holds. A goroutine of its own holds it again when that breaks; end waits for it.
type heldSession struct {
	session      *session
	name, secret string

	ctx    context.Context // of the stream, and of whatever tries to be one
	cancel context.CancelFunc
	ending atomic.Bool // the end was asked for: that it is not held any more is no news
	keeper sync.WaitGroup
	over   chan struct{} // closed when the daemon has it no more, which was said
}

// openSession opens a session and begins to hold it. It outlives ctx, which bounds the opening.
func (s *session) openSession(ctx context.Context, o *sessionOptions) (*heldSession, error) {
	h := &heldSession{session: s, over: make(chan struct{})}
	h.ctx, h.cancel = context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, h.cancel)
	defer stop()
	stream, first, err := h.hold(&echov1.HoldRequest{Name: o.name, Grace: o.grace.proto()})
	if err != nil {
		h.cancel()
		return nil, err
	}
	h.name, h.secret = first.GetName(), first.GetSecret()
	h.keeper.Go(func() { h.keep(stream) })
	return h, nil
}

type holdStream = grpc.ServerStreamingClient[echov1.HoldResponse]

// hold begins to hold the session, and answers what the daemon says first. The stream lasts until h.ctx ends.
func (h *heldSession) hold(req *echov1.HoldRequest) (holdStream, *echov1.Session, error) {
	ctx, cancel := context.WithCancel(h.ctx)
	var late *time.Timer
	if timeout := h.session.app.options.callTimeout.value; timeout > 0 {
		late = time.AfterFunc(timeout, cancel)
	}
	stream, err := h.session.sessions.Hold(ctx, req)
	var first *echov1.HoldResponse
	if err == nil {
		first, err = stream.Recv()
	}
	if late != nil && !late.Stop() && h.ctx.Err() == nil {
		err = status.FromContextError(context.DeadlineExceeded).Err()
	}
	if err != nil {
		cancel()
		return nil, nil, err
	}
	context.AfterFunc(h.ctx, cancel)
	return stream, first.GetSession(), nil
}

// keep reads the stream, and holds the session again when that has broken.
func (h *heldSession) keep(stream holdStream) {
	for {
		err := drainStream(stream)
		if h.ctx.Err() != nil || h.ending.Load() {
			return
		}
		message, _ := h.session.app.explain(err)
		if errors.Is(err, io.EOF) {
			message = "it was ended"
		}
		h.session.app.talk("echoctl: session %s is not held any more: %s", h.name, message)
		if stream = h.holdAgain(err); stream == nil {
			return
		}
		h.session.app.talk("echoctl: session %s is held again", h.name)
	}
}

func drainStream(stream holdStream) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}

// notOurs are the answers to who would hold a session again that trying once more would not change. What else a broken stream
// ends with depends on who stands in between.
var notOurs = []codes.Code{
	codes.NotFound, codes.PermissionDenied, codes.AlreadyExists, codes.Aborted, codes.InvalidArgument, codes.Unauthenticated,
	codes.Unimplemented,
}

// holdAgain tries to hold the session until it does. It answers nil when the daemon says that it is over, or end was called.
func (h *heldSession) holdAgain(err error) holdStream {
	for {
		if errors.Is(err, io.EOF) || slices.Contains(notOurs, codeOf(err)) {
			h.session.app.talk("echoctl: its endpoints are gone, or another client has them; what runs goes on without")
			close(h.over)
			return nil
		}
		select {
		case <-h.ctx.Done():
			return nil
		case <-time.After(againAfter):
		}
		if conn, ok := h.session.app.conn.(*grpc.ClientConn); ok {
			conn.ResetConnectBackoff() // gRPC would wait longer and longer, and too long
		}
		var stream holdStream
		if stream, _, err = h.hold(&echov1.HoldRequest{Name: h.name, Secret: h.secret}); err == nil {
			return stream
		}
	}
}

// end ends the session, and returns when its endpoints are deleted or the daemon cannot be told. It is over then, too, as
// soon as the daemon sees that nobody holds it.
func (h *heldSession) end() {
	h.ending.Store(true)
	select {
	case <-h.over:
	default:
		ctx, cancel := h.session.call(context.WithoutCancel(h.ctx), 0)
		defer cancel()
		_, err := h.session.sessions.EndSession(ctx, &echov1.EndSessionRequest{Name: h.name, Secret: h.secret})
		if err != nil && codeOf(err) != codes.NotFound {
			message, _ := h.session.app.explain(err)
			h.session.app.talk("echoctl: cannot end session %s, which ends by itself when the daemon finds nobody to hold it: %s", h.name, message)
		}
	}
	h.cancel()
	h.keeper.Wait()
}

// createAll creates the endpoints of --tcp and --udp, named after the session.
func (h *heldSession) createAll(ctx context.Context, o *sessionOptions) ([]*echov1.Endpoint, error) {
	var made []*echov1.Endpoint
	for _, kind := range []struct {
		protocol echov1.Protocol
		listen   []string
	}{{echov1.Protocol_TCP, o.tcp}, {echov1.Protocol_UDP, o.udp}} {
		for i, listen := range kind.listen {
			name := fmt.Sprintf("%s-%s-%d", h.name, strings.ToLower(kind.protocol.String()), i+1)
			if len(name) > longestName {
				name = "" // the daemon has shorter ones
			}
			callCtx, cancel := h.session.call(ctx, 0)
			e, err := h.session.endpoints.CreateEndpoint(callCtx, &echov1.CreateEndpointRequest{Endpoint: &echov1.Endpoint{
				Name: name, Protocol: kind.protocol, Listen: listen, Labels: o.labels.values, Session: h.name,
			}})
			cancel()
			if err != nil {
				return nil, about(anEndpoint, name, err)
			}
			made = append(made, e)
		}
	}
	return made, nil
}

// environment are the variables that tell a command of the session.
func (h *heldSession) environment(made []*echov1.Endpoint) []string {
	server := h.session.app.peer.server
	env := []string{sessionVariable + "=" + h.name, "ECHOCTL_SERVER=" + server.absolute()}
	counts := map[echov1.Protocol]int{}
	for _, e := range made {
		counts[e.GetProtocol()]++
		variable := fmt.Sprintf("ECHO_%s_%d", e.GetProtocol(), counts[e.GetProtocol()])
		host, port := reachable(e, server), strconv.Itoa(int(e.GetPort()))
		env = append(env, variable+"="+net.JoinHostPort(host, port), variable+"_HOST="+host, variable+"_PORT="+port,
			variable+"_NAME="+e.GetName())
	}
	return env
}

// absolute is the server as --server takes it, from whatever folder.
func (s server) absolute() string {
	if s.network == "unix" {
		if path, err := filepath.Abs(s.address); err == nil {
			s.address = path
		}
	}
	return s.String()
}

// reachable is the host at which this process can reach an endpoint. One that listens on every address is where the daemon
// is.
func reachable(e *echov1.Endpoint, daemon server) string {
	address, err := netip.ParseAddr(e.GetHost())
	if err != nil || !address.IsUnspecified() {
		return e.GetHost()
	}
	if host, _, err := net.SplitHostPort(daemon.address); daemon.network == "tcp" && err == nil {
		return host
	}
	if address.Is6() && strings.HasPrefix(e.GetListen(), "[") {
		return "::1" // IPv6 only
	}
	return "127.0.0.1"
}

// environ is this process's environment with more in it.
func environ(more []string) []string { return append(os.Environ(), more...) }
