package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// readyAgain is how long at most `ready --wait` waits until it asks again.
const readyAgain = time.Second

type readyOptions struct {
	wait    bool
	timeout durationFlag
}

func newReadyCommand(a *app) *cobra.Command {
	o := &readyOptions{}
	cmd := &cobra.Command{
		Use:   "ready",
		Short: "Ask whether the daemon can do its work",
		Long: long(`Shows whether the daemon can do its work, and what it checks for that. READY and
DEGRADED (it works, and something is not as it should be) are exit code 0,
NOT_READY (it starts, stops, or cannot keep changes) is 1.

With --wait it asks until the daemon is there and not NOT_READY. When the time
is over, the exit code is that of the last answer.

With -o name: the state alone.`),
		Example: `  echoctl ready
  echoctl ready --wait --timeout 5s
  echoctl ready -o json | jq -r '.checks[] | select(.state != "READY").message'`,
		Args: argsBetween(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return runReady(a, cmd, o) },
	}
	o.timeout.value = defaultWait
	cmd.Flags().BoolVar(&o.wait, "wait", false, "wait until it can")
	cmd.Flags().Var(&o.timeout, "timeout", "with --wait, give up after `DURATION`; 0 is never")
	return cmd
}

func runReady(a *app, cmd *cobra.Command, o *readyOptions) error {
	if cmd.Flags().Changed("timeout") && !o.wait {
		return usagef("--timeout is for --wait")
	}
	s, err := a.connect()
	if err != nil {
		return err
	}
	if o.wait {
		return s.waitReady(cmd.Context(), o.timeout.value)
	}
	now, err := s.readiness(cmd.Context())
	if err != nil {
		return err
	}
	return s.tellReadiness(now)
}

func (s *session) readiness(ctx context.Context) (*echov1.Readiness, error) {
	ctx, cancel := s.call(ctx, 0)
	defer cancel()
	return s.daemon.GetReadiness(ctx, &echov1.GetReadinessRequest{})
}

// tellReadiness writes it, and ends with the exit code that goes with it.
func (s *session) tellReadiness(r *echov1.Readiness) error {
	if err := s.out.Readiness(r); err != nil {
		return err
	}
	if r.GetState() == echov1.Readiness_NOT_READY {
		return &exitError{exitFailed}
	}
	return nil
}

// waitReady asks until the daemon can do its work, or the time is over; 0: there is always time.
func (s *session) waitReady(outer context.Context, patience time.Duration) error {
	ctx := outer
	if patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, patience, errWaited)
		defer cancel()
	}
	var last *echov1.Readiness
	var lastErr error // why there is no last
	for pause := firstAgain; ; pause = min(2*pause, readyAgain) {
		now, err := s.readiness(ctx)
		switch {
		case err == nil && now.GetState() != echov1.Readiness_NOT_READY:
			return s.tellReadiness(now)
		case ctx.Err() == nil && err != nil && !mayMend(err):
			return err
		case ctx.Err() == nil || err == nil:
			last, lastErr = now, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		switch {
		case outer.Err() != nil:
			return errInterrupted
		case ctx.Err() == nil && err != nil: // a connection of its own waits longer from one attempt to the next
			if err := s.redial(); err != nil {
				return err
			}
		case ctx.Err() == nil:
		case last != nil:
			s.app.talk("echoctl: not ready after %s (--timeout)", patience)
			return s.tellReadiness(last)
		case lastErr != nil:
			return lastErr
		default:
			if _, code := s.app.explain(err); code == exitUnreachable {
				return err
			}
			return fmt.Errorf("echod at %s did not answer within %s (--timeout)", s.app.peer.server, patience)
		}
	}
}
