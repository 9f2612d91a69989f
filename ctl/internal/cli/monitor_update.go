package cli

import (
	"context"
	"slices"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

type monitorUpdateOptions struct {
	monitorOptions
	target       string
	removeLabels []string
	etag         string
}

func newMonitorUpdateCommand(a *app) *cobra.Command {
	o := &monitorUpdateOptions{}
	cmd := &cobra.Command{
		Use:   "update NAME",
		Short: "Change a monitor",
		Long: long(`Changes what the flags say and nothing else. --label adds a label or changes its
value, --remove-label takes one away; the other labels stay. --expect replaces
all expectations, and "" leaves none. When what is probed or expected changes, a
run that is under way is ended and the verdict is UNKNOWN until the next.`),
		Example: `  echoctl monitor update web-1 --every 10s --label rack=r2
  echoctl monitor update web-1 --target tcp://192.0.2.7:7 -c 20
  echoctl monitor update web-1 --expect 'p99 < 5ms'`,
		Args:              argsBetween(1, 1, "NAME"),
		RunE:              func(cmd *cobra.Command, args []string) error { return runMonitorUpdate(a, cmd, o, args[0]) },
		ValidArgsFunction: firstOnly(a.completeMonitors),
	}
	flags := cmd.Flags()
	flags.StringVar(&o.target, "target", "", "probe `TARGET`, as in create")
	flags.VarP(&o.labels, "label", "l", "set the label `KEY=VALUE`; may be repeated")
	flags.StringArrayVar(&o.removeLabels, "remove-label", nil, "take the label `KEY` away; may be repeated")
	o.addTo(cmd, true)
	flags.StringVar(&o.etag, "etag", "", "change it only if it still has this `ETAG`")
	mustRegister(cmd.RegisterFlagCompletionFunc("target", a.completeTargets))
	return cmd
}

func runMonitorUpdate(a *app, cmd *cobra.Command, o *monitorUpdateOptions, name string) error {
	request, err := o.request(cmd, name)
	if err != nil {
		return err
	}
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
	var updated *echov1.Monitor
	if relabel {
		request.UpdateMask.Paths = append(request.UpdateMask.Paths, "labels")
		updated, err = s.updateMonitorLabels(cmd.Context(), o, request)
	} else {
		updated, err = s.updateMonitor(cmd.Context(), request)
	}
	if err != nil {
		return about(aMonitor, name, err)
	}
	if o.validateOnly {
		a.talk("checked only; nothing was changed")
	}
	return s.out.Monitors([]*echov1.Monitor{updated})
}

// request has exactly the fields whose flags were given, in its mask and in its monitor; labels come later.
func (o *monitorUpdateOptions) request(cmd *cobra.Command, name string) (*echov1.UpdateMonitorRequest, error) {
	target := o.target
	if target == "" {
		target = name // only for the checks of the flags; it is not sent
	}
	m, err := o.monitor(target)
	if err != nil {
		return nil, err
	}
	if o.target == "" {
		m.Probe.Target = nil
	}
	if slices.Equal(m.Probe.Expect, []string{""}) {
		m.Probe.Expect = nil
	}
	m.Name, m.Etag, m.Description = name, o.etag, o.description
	mask := &fieldmaskpb.FieldMask{}
	for _, f := range []struct{ flag, path string }{
		{"every", "interval"}, {"history", "history_limit"}, {"description", "description"},
	} {
		if cmd.Flags().Changed(f.flag) {
			mask.Paths = append(mask.Paths, f.path)
		}
	}
	// What a flag of the probe sets is a field of it.
	fields := m.Probe.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if m.Probe.ProtoReflect().Has(field) || field.Name() == "expect" && cmd.Flags().Changed("expect") {
			mask.Paths = append(mask.Paths, "probe."+string(field.Name()))
		}
	}
	return &echov1.UpdateMonitorRequest{Name: name, Monitor: m, UpdateMask: mask, ValidateOnly: o.validateOnly}, nil
}

func (s *session) updateMonitor(ctx context.Context, r *echov1.UpdateMonitorRequest) (*echov1.Monitor, error) {
	ctx, cancel := s.call(ctx, 0)
	defer cancel()
	return s.monitors.UpdateMonitor(ctx, r)
}

// updateMonitorLabels merges the labels with those that are there, as updateLabels does for endpoints.
func (s *session) updateMonitorLabels(ctx context.Context, o *monitorUpdateOptions,
	r *echov1.UpdateMonitorRequest) (*echov1.Monitor, error) {
	for again := o.etag == ""; ; again = false {
		present, err := s.getMonitor(ctx, r.GetName())
		if err != nil {
			return nil, err
		}
		r.Monitor.Labels = relabelled(present.GetLabels(), o.labels.values, o.removeLabels)
		if o.etag == "" {
			r.Monitor.Etag = present.GetEtag()
		}
		updated, err := s.updateMonitor(ctx, r)
		if again && codeOf(err) == codes.Aborted {
			continue
		}
		return updated, err
	}
}

// flagsOf are the flags of a command.
func flagsOf(cmd *cobra.Command) (all []*pflag.Flag) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) { all = append(all, f) })
	return all
}
