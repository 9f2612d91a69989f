package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/echod/echod/ctl/internal/lab"
	"github.com/echod/echod/ctl/internal/render"
	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
)

// wantedOptions say what is to be there: apply and diff have the same.
type wantedOptions struct {
	fileOptions
	matching
	prune bool
}

func (o *wantedOptions) addTo(cmd *cobra.Command) {
	o.fileOptions.addTo(cmd)
	o.matching.addTo(cmd)
	cmd.Flags().BoolVar(&o.prune, "prune", false, "of those that match --selector and --filter, delete what the files do not have")
}

func (o *wantedOptions) check() error {
	switch {
	case o.prune && !o.given():
		return usagef("--prune needs --selector or --filter: without, it would delete every endpoint that the files do not have")
	case !o.prune && o.given():
		return usagef("--selector and --filter say what --prune may delete, and --prune is not given")
	}
	return o.fileOptions.check()
}

// request reads the files.
func (o *wantedOptions) request(a *app) (*echov1.ApplyEndpointsRequest, *lab.Lab, error) {
	l, err := o.read(a.env.Stdin)
	if err != nil {
		return nil, nil, err
	}
	request := &echov1.ApplyEndpointsRequest{Endpoints: l.Endpoints}
	if o.prune {
		request.PruneFilter = o.expression()
	}
	return request, l, fits(request, "apply the files in parts")
}

type applyOptions struct {
	wantedOptions
	replace      bool
	validateOnly bool
}

// replaceHint is what to do where only a new socket will do.
const replaceHint = "--replace gives new sockets, and cuts the connections of the old ones"

func newApplyCommand(a *app) *cobra.Command {
	o := &applyOptions{}
	cmd := &cobra.Command{
		Use:   "apply -f FILE...",
		Short: "Make the endpoints be what files say",
		Long: long(`Creates the endpoints that files have and the daemon has not, and changes those
that differ, as one change: all of it, or nothing. What is as it should be is
left alone, its connections too. It writes what it did with each:

  +    created            ~    changed while it serves
  -    deleted (--prune)  -/+  given a new socket, which cuts its connections
  =    unchanged

Where only a new socket will do (protocol, listen, networkNamespace, interface)
it does nothing unless --replace is given. -o name writes the names of those
that changed; none when nothing did. That one stays FAILED is said on standard
error, with the reason.

` + filesHelp),
		Example: `  echoctl apply -f lab.yaml
  echoctl apply -f lab.yaml --dry-run
  echoctl apply -f common.yaml -f racks/ --prune --selector lab=a
  echoctl export --selector lab=a | echoctl --server other:7007 apply -f -`,
		Args: func(_ *cobra.Command, args []string) error {
			if err := argsBetween(0, 0, "")(nil, args); err != nil {
				return err
			}
			return o.check()
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return runApply(a, cmd, o) },
	}
	o.addTo(cmd)
	cmd.Flags().BoolVar(&o.replace, "replace", false, "give endpoints a new socket where only that will do")
	addValidateOnly(cmd, &o.validateOnly)
	return cmd
}

func runApply(a *app, cmd *cobra.Command, o *applyOptions) error {
	request, l, err := o.request(a)
	if err != nil {
		return err
	}
	request.Replace, request.ValidateOnly = o.replace, o.validateOnly
	s, err := a.connect()
	if err != nil {
		return err
	}
	changes, err := s.apply(cmd.Context(), request, l)
	if err != nil {
		if reasonOf(err) == needsReplace && s.isTable() {
			return s.planReplace(cmd.Context(), request, l, err)
		}
		return err
	}
	if err := s.out.Changes(changes); err != nil {
		return err
	}
	a.talk("%s", render.ChangeSummary(changes, !o.validateOnly))
	a.talkFailures(changes)
	if !o.validateOnly {
		return nil
	}
	a.talk("checked only; nothing was changed")
	replaced := 0
	for _, c := range changes {
		if c.GetAction() == echov1.EndpointChange_REPLACE {
			replaced++
		}
	}
	if replaced > 0 && !o.replace {
		return fmt.Errorf("an apply would do nothing: %s would need a new socket\n%s", endpointsText(replaced), replaceHint)
	}
	return nil
}

// failuresShown is how many endpoints that stay FAILED are named.
const failuresShown = 10

// talkFailures says which endpoints are as described and serve nevertheless not, and why.
func (a *app) talkFailures(changes []*echov1.EndpointChange) {
	failed := 0
	for _, c := range changes {
		if c.GetFailure() == "" {
			continue
		}
		if failed++; failed <= failuresShown {
			a.talk("echoctl: %s is FAILED, and tried again: %s", c.GetName(), strings.Join(strings.Fields(c.GetFailure()), " "))
		}
	}
	if more := failed - failuresShown; more > 0 {
		a.talk("echoctl: and so are %d more", more)
	}
}

// planReplace shows what would have been done with --replace, and answers why it was not.
func (s *session) planReplace(ctx context.Context, r *echov1.ApplyEndpointsRequest, l *lab.Lab, why error) error {
	plan := proto.CloneOf(r)
	plan.Replace, plan.ValidateOnly = true, true
	changes, err := s.apply(ctx, plan, l)
	if err != nil {
		return why // the rest of the story is of no use without its beginning
	}
	if err := s.out.Changes(changes); err != nil {
		return err
	}
	return why
}

// apply calls the daemon. Its errors say where in the files what it objects to stands.
func (s *session) apply(ctx context.Context, r *echov1.ApplyEndpointsRequest, l *lab.Lab) ([]*echov1.EndpointChange, error) {
	ctx, cancel := s.call(ctx, 0)
	defer cancel()
	response, err := s.endpoints.ApplyEndpoints(ctx, r)
	if err == nil {
		return response.GetChanges(), nil
	}
	return nil, &callError{kind: anEndpoint, err: err, locate: inFiles(l, "endpoints", "")}
}

// inFiles says where in files stands what the daemon objects to: fields of list[i], or of what is called within in it.
func inFiles(l *lab.Lab, list, within string) func(field string) string {
	return func(field string) string {
		i, rest, ok := indexed(field, list)
		if !ok || i >= len(l.Endpoints) {
			return ""
		}
		rest = strings.TrimPrefix(strings.TrimPrefix(rest, within), ".")
		return joined(fmt.Sprintf("%s: %s", l.Place(i, rest), l.Endpoints[i].GetName()), rest)
	}
}
