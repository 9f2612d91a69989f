package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
)

// allFilter is the filter that a purge takes for all endpoints.
const allFilter = "*"

// namesTold is how many names a question has at most.
const namesTold = 20

type deleteOptions struct {
	selection
	all    bool
	yes    bool
	dryRun bool
	drain  durationFlag
}

func newDeleteCommand(a *app) *cobra.Command {
	o := &deleteOptions{}
	cmd := &cobra.Command{
		Use:     "delete NAME... | --selector KEY=VALUE,... | --filter EXPRESSION | --all",
		Aliases: []string{"rm"},
		Short:   "Stop endpoints and forget them",
		Long: long(`Deletes endpoints by name, or all that match a selector and a filter (see list).
Their ports are free when this returns. All names are tried; the exit code is 1
when any failed.

With a selector, a filter or --all it says first what it would delete, and wants
"yes" typed at a terminal; elsewhere it deletes nothing and the exit code is 1,
unless --yes is given. That none matches is no failure.`),
		Example: `  echoctl delete web-1 web-2
  echoctl delete --selector run=1234 --yes --drain-timeout 5s
  echoctl delete --filter 'state = FAILED' --dry-run
  echoctl delete --all`,
		Args:              func(_ *cobra.Command, args []string) error { return o.check(args) },
		RunE:              func(cmd *cobra.Command, args []string) error { return runDelete(a, cmd, o, args) },
		ValidArgsFunction: a.completeEndpoints,
	}
	o.addTo(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&o.all, "all", false, "all endpoints of the daemon")
	flags.BoolVarP(&o.yes, "yes", "y", false, "delete what matches without asking")
	flags.BoolVar(&o.dryRun, "dry-run", false, "say what would be deleted, and delete nothing")
	addDrain(cmd, &o.drain)
	return cmd
}

func addDrain(cmd *cobra.Command, drain *durationFlag) {
	cmd.Flags().Var(drain, "drain-timeout", "give open connections `DURATION` to finish by themselves (default: cut them)")
}

// check wants one way to say which; that none was said never means all.
func (o *deleteOptions) check(args []string) error {
	switch {
	case o.all && (len(args) > 0 || o.given()):
		return usagef("say either --all or which, not both")
	case o.dryRun && len(args) > 0:
		return usagef("--dry-run is for --selector, --filter and --all")
	case o.all:
		return nil
	case len(args) == 0 && !o.given():
		return usagef("say which: NAME..., --selector, --filter or --all")
	}
	return o.selection.check(args)
}

func runDelete(a *app, cmd *cobra.Command, o *deleteOptions, args []string) error {
	s, err := a.connect()
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return s.purge(cmd.Context(), o)
	}
	return s.deleteEach(args, func(name string) error {
		ctx, cancel := s.call(cmd.Context(), o.drain.value)
		defer cancel()
		_, err := s.endpoints.DeleteEndpoint(ctx, &echov1.DeleteEndpointRequest{
			Name: name, DrainTimeout: o.drain.proto(),
		})
		return about(anEndpoint, name, err)
	})
}

// purge deletes what matches, as one call. Unless the user has said yes it only says what that would be.
func (s *session) purge(ctx context.Context, o *deleteOptions) error {
	request := &echov1.PurgeEndpointsRequest{Filter: allFilter, DrainTimeout: o.drain.proto()}
	if !o.all {
		request.Filter = o.expression()
	}
	if o.dryRun || !o.yes {
		would, err := s.callPurge(ctx, request)
		if err != nil {
			return err
		}
		switch {
		case would.GetCount() == 0:
			return s.purged(o, would)
		case o.dryRun:
			s.talkNames("would delete", would, maxNames)
			return s.out.Purged(would)
		}
		s.talkNames("would delete", would, namesTold)
		if err := s.app.confirm(ctx, "delete "+endpointsText(int(would.GetCount()))); err != nil {
			return err
		}
	}
	request.Force = true
	deleted, err := s.callPurge(ctx, request)
	if err != nil {
		return err
	}
	return s.purged(o, deleted)
}

func (s *session) callPurge(ctx context.Context, r *echov1.PurgeEndpointsRequest) (*echov1.PurgeEndpointsResponse, error) {
	ctx, cancel := s.call(ctx, r.GetDrainTimeout().AsDuration())
	defer cancel()
	return s.endpoints.PurgeEndpoints(ctx, r)
}

// purged tells what is gone: as data where the format has words for it, else as talk.
func (s *session) purged(o *deleteOptions, deleted *echov1.PurgeEndpointsResponse) error {
	switch {
	case deleted.GetCount() == 0 && o.all:
		s.app.talk("there are no endpoints")
	case deleted.GetCount() == 0:
		s.app.talk("no endpoint matches %s", o)
	case s.isTable():
		s.talkNames("deleted", deleted, maxNames)
	}
	if err := s.out.Purged(deleted); err != nil {
		return err
	}
	if deleted.GetCount() > 1 {
		s.app.talk("deleted %s", endpointsText(int(deleted.GetCount())))
	}
	return nil
}

// maxNames is how many names an answer has.
const maxNames = 10_000

// talkNames tells a line for each name, and how many more there are than most.
func (s *session) talkNames(what string, r *echov1.PurgeEndpointsResponse, most int) {
	names := r.GetNames()[:min(most, len(r.GetNames()))]
	for _, name := range names {
		s.app.talk("%s %s", what, name)
	}
	if rest := int(r.GetCount()) - len(names); rest > 0 {
		s.app.talk("%s %d more", what, rest)
	}
}

// endpointsText is "1 endpoint", "2 endpoints".
func endpointsText(n int) string {
	if n == 1 {
		return "1 endpoint"
	}
	return fmt.Sprintf("%d endpoints", n)
}

// confirm has the user type yes at a terminal. Elsewhere, and when it is something else, nothing is to be done.
func (a *app) confirm(ctx context.Context, what string) error {
	if !a.env.StdinTerminal || !a.env.StderrTerminal {
		a.talk("nothing was changed: --yes is needed to %s", what)
		return &exitError{exitFailed}
	}
	_, _ = fmt.Fprintf(a.env.Stderr, "type yes to %s: ", what)
	typed := make(chan string, 1)
	// A read from a terminal cannot be taken back: after a Ctrl-C this ends with the process, which is about to.
	go func() {
		line, _ := bufio.NewReader(a.env.Stdin).ReadString('\n')
		typed <- strings.TrimSpace(line)
	}()
	select {
	case <-ctx.Done():
		_, _ = fmt.Fprintln(a.env.Stderr)
		return errInterrupted
	case line := <-typed:
		if line != "yes" {
			a.talk("nothing was changed")
			return &exitError{exitFailed}
		}
	}
	return nil
}

// deleteEach deletes things by name and tells which are gone: as data where the format has words for it, else as talk.
func (s *session) deleteEach(names []string, remove func(name string) error) error {
	deleted, failed := each(s.app, names, func(name string) (string, error) { return name, remove(name) })
	if s.isTable() {
		for _, name := range deleted {
			s.app.talk("deleted %s", name)
		}
	}
	if err := s.out.Deleted(deleted); err != nil {
		return err
	}
	return failed
}
