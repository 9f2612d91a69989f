package cli

import (
	"errors"
	"slices"

	"github.com/echod/echod/ctl/internal/render"
	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
)

// What diff ends with, as diff(1) does: a difference must not look like a failure.
const (
	exitDifferent = 1
	exitTrouble   = exitUsage
)

func newDiffCommand(a *app) *cobra.Command {
	o := &wantedOptions{}
	cmd := &cobra.Command{
		Use:   "diff -f FILE...",
		Short: "Show what an apply of files would change",
		Long: long(`Shows what differs between files and the daemon's endpoints, as apply would
write it with --replace, without what is unchanged. It changes nothing.

` + filesHelp + `

It ends as diff(1) does: 0 nothing differs; 1 something does; 2 it cannot tell,
as a file is wrong or the daemon refuses it. So 1 is never a failure here.`),
		Example: `  echoctl diff -f lab.yaml
  echoctl diff -f racks/ --prune --selector lab=a -o name`,
		Args: func(_ *cobra.Command, args []string) error {
			if err := argsBetween(0, 0, "")(nil, args); err != nil {
				return err
			}
			return o.check()
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := runDiff(a, cmd, o)
			var exit *exitError
			var usage *usageError
			if err == nil || errors.As(err, &exit) || errors.As(err, &usage) {
				return err
			}
			message, code := a.explain(err)
			a.talk("echoctl: %s", message)
			if code == exitFailed {
				code = exitTrouble
			}
			return &exitError{code}
		},
	}
	o.addTo(cmd)
	return cmd
}

func runDiff(a *app, cmd *cobra.Command, o *wantedOptions) error {
	request, l, err := o.request(a)
	if err != nil {
		return err
	}
	request.Replace, request.ValidateOnly = true, true
	s, err := a.connect()
	if err != nil {
		return err
	}
	changes, err := s.apply(cmd.Context(), request, l)
	if err != nil {
		return err
	}
	differ := slices.DeleteFunc(slices.Clone(changes), func(c *echov1.EndpointChange) bool {
		return c.GetAction() == echov1.EndpointChange_NONE
	})
	if err := s.out.Changes(differ); err != nil {
		return err
	}
	a.talk("%s", render.ChangeSummary(changes, false))
	if len(differ) > 0 {
		return &exitError{exitDifferent}
	}
	return nil
}
