package cli

import (
	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
)

type deleteOptions struct {
	selection
	drain durationFlag
}

func newDeleteCommand(a *app) *cobra.Command {
	o := &deleteOptions{}
	cmd := &cobra.Command{
		Use:     "delete NAME... | --selector KEY=VALUE,...",
		Aliases: []string{"rm"},
		Short:   "Stop endpoints and forget them",
		Long: long(`Deletes endpoints by name, or all that have the labels of the selector. Their
ports are free when this returns. All names are tried; the exit code is 1 when
any failed. A selector that matches none is no failure.`),
		Example: `  echoctl delete web-1 web-2
  echoctl delete --selector run=1234 --drain-timeout 5s
  echoctl list -o name --filter 'state = FAILED' | xargs echoctl delete`,
		Args:              func(_ *cobra.Command, args []string) error { return o.check(args) },
		RunE:              func(cmd *cobra.Command, args []string) error { return runDelete(a, cmd, o, args) },
		ValidArgsFunction: a.completeEndpoints,
	}
	addSelector(cmd, &o.selector)
	addDrain(cmd, &o.drain)
	return cmd
}

func addDrain(cmd *cobra.Command, drain *durationFlag) {
	cmd.Flags().Var(drain, "drain-timeout", "give open connections `DURATION` to finish by themselves (default: cut them)")
}

func runDelete(a *app, cmd *cobra.Command, o *deleteOptions, args []string) error {
	s, err := a.connect()
	if err != nil {
		return err
	}
	names, err := o.names(cmd, s, args)
	if err != nil {
		return err
	}
	return s.deleteEach(names, func(name string) error {
		ctx, cancel := s.call(cmd.Context(), o.drain.value)
		defer cancel()
		_, err := s.endpoints.DeleteEndpoint(ctx, &echov1.DeleteEndpointRequest{
			Name: name, DrainTimeout: o.drain.proto(),
		})
		if o.selector.given() && codeOf(err) == codes.NotFound {
			// Somebody else deleted it since it was listed, which is as well.
			return nil
		}
		return about(anEndpoint, name, err)
	})
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
