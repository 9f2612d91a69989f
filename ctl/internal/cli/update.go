package cli

import (
	"context"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

type updateOptions struct {
	labels       labelsFlag
	removeLabels []string
	description  string
	listen       string
	ttl          durationFlag
	options      endpointOptions
	etag         string
	validateOnly bool
}

func newUpdateCommand(a *app) *cobra.Command {
	o := &updateOptions{}
	cmd := &cobra.Command{
		Use:   "update NAME",
		Short: "Change an endpoint",
		Long: long(`Changes what the flags say and nothing else, without dropping a connection; only
--listen, --network-namespace and --interface need the endpoint to be stopped,
for they need a new socket. --label adds a label or changes its
value, --remove-label takes one away; the other labels stay. --allow and --deny
replace their lists. Another --ttl counts from now; echoctl renew gives an
endpoint the one that it has again.`),
		Example: `  echoctl update web-1 --label rack=r2 --remove-label old
  echoctl update web-1 --description "" --one-shot=false
  echoctl update web-1 --idle-timeout 5m --max-connections default
  echoctl update web-1 --allow 10.0.0.0/8,2001:db8::/32 --deny ""
  echoctl update web-1 --ttl 1h
  echoctl stop web-1 && echoctl update web-1 --listen :7001 && echoctl start web-1`,
		Args:              argsBetween(1, 1, "NAME"),
		RunE:              func(cmd *cobra.Command, args []string) error { return runUpdate(a, cmd, o, args[0]) },
		ValidArgsFunction: firstOnly(a.completeEndpoints),
	}
	flags := cmd.Flags()
	flags.VarP(&o.labels, "label", "l", "set the label `KEY=VALUE`; may be repeated")
	flags.StringArrayVar(&o.removeLabels, "remove-label", nil, "take the label `KEY` away; may be repeated")
	flags.StringVar(&o.description, "description", "", "a `SENTENCE` for people; \"\" for none")
	flags.StringVar(&o.listen, "listen", "", "where to `LISTEN`, as in create; needs the endpoint to be stopped")
	flags.Var(&o.ttl, "ttl", "delete it `DURATION` from now unless it is renewed; 0 is never")
	o.options.addTo(cmd, true)
	flags.StringVar(&o.etag, "etag", "", "change it only if it still has this `ETAG`")
	addValidateOnly(cmd, &o.validateOnly)
	return cmd
}

func runUpdate(a *app, cmd *cobra.Command, o *updateOptions, name string) error {
	request := o.request(cmd, name)
	relabel := len(o.labels.values) > 0 || len(o.removeLabels) > 0
	if len(request.UpdateMask.Paths) == 0 && !relabel {
		return usagef("nothing to change: give at least one of the flags")
	}
	for _, key := range o.removeLabels {
		if _, both := o.labels.values[key]; both {
			return usagef("label %q is both to be set and to be removed", key)
		}
	}
	s, err := a.connect()
	if err != nil {
		return err
	}
	var updated *echov1.Endpoint
	if relabel {
		request.UpdateMask.Paths = append(request.UpdateMask.Paths, "labels")
		updated, err = s.updateLabels(cmd.Context(), o, request)
	} else {
		updated, err = s.update(cmd.Context(), request)
	}
	if err != nil {
		return about(anEndpoint, name, err)
	}
	if o.validateOnly {
		a.talk("checked only; nothing was changed")
	}
	return s.out.Endpoints([]*echov1.Endpoint{updated})
}

// request has exactly the fields whose flags were given, in its mask and in its endpoint; labels come later.
func (o *updateOptions) request(cmd *cobra.Command, name string) *echov1.UpdateEndpointRequest {
	e := &echov1.Endpoint{Name: name, Etag: o.etag}
	mask := &fieldmaskpb.FieldMask{}
	given := func(flag, path string) bool {
		if !cmd.Flags().Changed(flag) {
			return false
		}
		mask.Paths = append(mask.Paths, path)
		return true
	}
	if given("description", "description") {
		e.Description = o.description
	}
	if given("listen", "listen") {
		e.Listen = o.listen
	}
	if given("ttl", "ttl") {
		e.Ttl = o.ttl.proto()
	}
	mask.Paths = append(mask.Paths, o.options.into(e, cmd)...)
	return &echov1.UpdateEndpointRequest{Name: name, Endpoint: e, UpdateMask: mask, ValidateOnly: o.validateOnly}
}

func (s *session) update(ctx context.Context, r *echov1.UpdateEndpointRequest) (*echov1.Endpoint, error) {
	ctx, cancel := s.call(ctx, 0)
	defer cancel()
	return s.endpoints.UpdateEndpoint(ctx, r)
}

// updateLabels merges the labels with those that are there. The contract replaces labels as a whole, so the etag that
// they were read with guards them; a change of somebody else's in between is read and tried once more. An etag of the
// user's own is sent as it is: then that change is what the user wants to hear of.
func (s *session) updateLabels(ctx context.Context, o *updateOptions,
	r *echov1.UpdateEndpointRequest) (*echov1.Endpoint, error) {
	for again := o.etag == ""; ; again = false {
		getCtx, cancel := s.call(ctx, 0)
		present, err := s.endpoints.GetEndpoint(getCtx, &echov1.GetEndpointRequest{Name: r.GetName()})
		cancel()
		if err != nil {
			return nil, err
		}
		r.Endpoint.Labels = relabelled(present.GetLabels(), o.labels.values, o.removeLabels)
		if o.etag == "" {
			r.Endpoint.Etag = present.GetEtag()
		}
		updated, err := s.update(ctx, r)
		if again && codeOf(err) == codes.Aborted {
			continue
		}
		return updated, err
	}
}
