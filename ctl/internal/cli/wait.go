package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// defaultWait is how long wait waits unless --timeout says otherwise.
const defaultWait = 30 * time.Second

// What can be waited for without a value.
const (
	untilExists  = "exists"
	untilDeleted = "deleted"
)

type waitOptions struct {
	condition string
	timeout   durationFlag
}

func newWaitCommand(a *app) *cobra.Command {
	o := &waitOptions{}
	cmd := &cobra.Command{
		Use:   "wait NAME --for CONDITION",
		Short: "Wait until something is as it should be",
		Long: long(`Waits until an endpoint, probe/NAME or monitor/NAME is as the condition says,
and writes it. It need not be there yet. Nothing is asked again and again: the
daemon tells when it happens.

Conditions are exists, deleted, state=STATE (of an endpoint SERVING, STOPPED,
DRAINING, FAILED; of a probe RUNNING, DONE, STOPPED; of a monitor WAITING,
PAUSED) and, of a monitor, verdict=VERDICT (MET, NOT_MET, UNKNOWN). A monitor is
told of when a run has ended, not when one begins, so there is no RUNNING.

Exit code 1 when the time is over, with what is the case then.`),
		Example: `  echoctl wait web-1 --for state=SERVING --timeout 5s
  echoctl wait web-1 --for deleted
  echoctl wait probe/nightly --for state=DONE --timeout 1h
  echoctl wait monitor/web-1 --for verdict=MET`,
		Args:              argsBetween(1, 1, "NAME"),
		RunE:              func(cmd *cobra.Command, args []string) error { return waitFor(a, cmd, o, args[0]) },
		ValidArgsFunction: firstOnly(a.completeWaited),
	}
	o.timeout.value = defaultWait
	cmd.Flags().StringVar(&o.condition, "for", "", "what to wait for, a `CONDITION`: exists, deleted, state=STATE or verdict=VERDICT")
	cmd.Flags().Var(&o.timeout, "timeout", "give up after `DURATION`; 0 is never")
	mustRegister(cmd.RegisterFlagCompletionFunc("for", completeConditions))
	return cmd
}

// waited is what is waited for: that something is as it should be.
type waited struct {
	kind, name string
	condition  string // as it was said
	met        func(*echov1.Event) bool
}

// parseWaited reads the argument and --for.
func parseWaited(subject, condition string) (*waited, error) {
	w := &waited{kind: "endpoint", name: subject, condition: condition}
	if kind, name, ok := strings.Cut(subject, "/"); ok {
		w.kind, w.name = kind, name
	}
	if states[w.kind] == nil || w.name == "" {
		return nil, usagef("%q: say NAME of an endpoint, probe/NAME or monitor/NAME", subject)
	}
	field, value, _ := strings.Cut(condition, "=")
	value = strings.ToUpper(value)
	switch {
	case condition == "":
		return nil, usagef("--for is missing: say %s", conditionWords(w.kind))
	case condition == untilExists:
		w.met = func(e *echov1.Event) bool { return e != nil }
	case condition == untilDeleted:
		w.met = func(e *echov1.Event) bool { return e == nil }
	case field == "state" && slices.Contains(states[w.kind], value):
		w.met = func(e *echov1.Event) bool { return e != nil && stateOf(e) == value }
	case field == "verdict" && w.kind == "monitor" && slices.Contains(verdicts, value):
		w.met = func(e *echov1.Event) bool {
			return e.GetMonitor() != nil && e.GetMonitor().GetVerdict().String() == value
		}
	default:
		return nil, usagef("--for %q: of %s %s say %s", condition, article(w.kind), w.kind, conditionWords(w.kind))
	}
	return w, nil
}

func article(kind string) string {
	if kind == "endpoint" {
		return "an"
	}
	return "a"
}

// The states of what can be waited for, and the verdicts of monitors, as the contract has them. No event tells that a run of a
// monitor has begun, so that its RUNNING cannot be waited for.
var (
	states = map[string][]string{
		"endpoint": enumNames(echov1.Endpoint_State_name), "probe": enumNames(echov1.Probe_State_name),
		"monitor": slices.DeleteFunc(enumNames(echov1.Monitor_State_name), func(name string) bool { return name == echov1.Monitor_RUNNING.String() }),
	}
	verdicts = enumNames(echov1.Monitor_Verdict_name)
)

// enumNames are the values of an enum by number, without the one that stands for none.
func enumNames(names map[int32]string) (all []string) {
	for _, n := range slices.Sorted(maps.Keys(names)) {
		if n != 0 {
			all = append(all, names[n])
		}
	}
	return all
}

// conditions are all that can be said of a kind.
func conditions(kind string) []string {
	all := []string{untilExists, untilDeleted}
	for _, state := range states[kind] {
		all = append(all, "state="+state)
	}
	if kind == "monitor" {
		for _, verdict := range verdicts {
			all = append(all, "verdict="+verdict)
		}
	}
	return all
}

func conditionWords(kind string) string {
	all := conditions(kind)
	return strings.Join(all[:len(all)-1], ", ") + " or " + all[len(all)-1]
}

func stateOf(e *echov1.Event) string {
	switch s := e.GetSubject().(type) {
	case *echov1.Event_Endpoint:
		return s.Endpoint.GetState().String()
	case *echov1.Event_Probe:
		return s.Probe.GetState().String()
	case *echov1.Event_Monitor:
		return s.Monitor.GetState().String()
	default:
		return ""
	}
}

// errWaited ends a wait that took too long.
var errWaited = errors.New("the time is over")

func waitFor(a *app, cmd *cobra.Command, o *waitOptions, subject string) error {
	w, err := parseWaited(subject, o.condition)
	if err != nil {
		return err
	}
	s, err := a.connect()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if o.timeout.value > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.timeout.value, errWaited)
		defer cancel()
	}
	var now *echov1.Event // what tells how it is; nil: it is not there
	var last *echov1.Event
	synced := false
	request := &echov1.WatchEventsRequest{Filter: "kind = " + filterString(w.kind) + " AND name = " + filterString(w.name)}
	err = s.watchEvents(ctx, request, eventReader{
		begin: func() { now, synced = nil, false },
		see: func(e *echov1.Event) (bool, error) {
			switch e.GetType() {
			case echov1.Event_SYNCED:
				synced = true
			case echov1.Event_DELETED, echov1.Event_EXPIRED:
				now, last = nil, e
			default:
				now, last = e, e
			}
			// That it is not there is known once all was told.
			return w.met(now) && (now != nil || synced), nil
		},
	})
	switch {
	case errors.Is(context.Cause(ctx), errWaited) && synced:
		return fmt.Errorf("%s %s is %s after %s, and --for %s was waited for (--timeout)", w.kind, w.name, describeWaited(now), o.timeout.value, w.condition)
	case errors.Is(context.Cause(ctx), errWaited):
		return fmt.Errorf("%s %s: echod at %s did not answer within %s (--timeout)", w.kind, w.name, a.peer.server, o.timeout.value)
	case cmd.Context().Err() != nil:
		return errInterrupted
	case err != nil:
		return err
	case now == nil:
		return s.writeGone(w, last)
	default:
		return s.writeSubject(now)
	}
}

// describeWaited says how something is.
func describeWaited(e *echov1.Event) string {
	if e == nil {
		return "not there"
	}
	text := stateOf(e)
	if reason := e.GetEndpoint().GetStateReason(); reason != "" {
		text += " (" + reason + ")"
	}
	if m := e.GetMonitor(); m != nil {
		text += " with verdict " + m.GetVerdict().String()
		if failure := m.GetLastRun().GetFailure(); failure != "" {
			text += " (" + failure + ")"
		}
	}
	return text
}

// writeGone tells that something is gone, as delete does.
func (s *session) writeGone(w *waited, last *echov1.Event) error {
	if s.isTable() {
		verb := "is not there"
		if last != nil {
			verb = "is gone"
		}
		s.app.talk("%s %s %s", w.kind, w.name, verb)
	}
	return s.out.Deleted([]string{w.name})
}

func (s *session) writeSubject(e *echov1.Event) error {
	switch subject := e.GetSubject().(type) {
	case *echov1.Event_Endpoint:
		return s.out.Endpoints([]*echov1.Endpoint{subject.Endpoint})
	case *echov1.Event_Probe:
		return s.out.Probes([]*echov1.Probe{subject.Probe})
	case *echov1.Event_Monitor:
		return s.out.Monitors([]*echov1.Monitor{subject.Monitor})
	}
	return nil
}

// completeWaited offers the names of endpoints, and behind probe/ and monitor/ those of probes and monitors.
func (a *app) completeWaited(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	for kind, complete := range map[string]cobra.CompletionFunc{"probe": a.completeProbes, "monitor": a.completeMonitors} {
		if name, ok := strings.CutPrefix(typed, kind+"/"); ok {
			offers, directive := complete(cmd, args, name)
			for i := range offers {
				offers[i] = kind + "/" + offers[i]
			}
			return offers, directive
		}
		if typed != "" && strings.HasPrefix(kind+"/", typed) {
			return []cobra.Completion{kind + "/"}, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		}
	}
	return a.completeEndpoints(cmd, args, typed)
}

// completeConditions offers what can be said of the kind on the line.
func completeConditions(_ *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	kind := "endpoint"
	if len(args) > 0 {
		if before, _, ok := strings.Cut(args[0], "/"); ok {
			kind = before
		}
	}
	var offers []cobra.Completion
	for _, condition := range conditions(kind) {
		if strings.HasPrefix(condition, typed) {
			offers = append(offers, condition)
		}
	}
	return offers, cobra.ShellCompDirectiveNoFileComp
}
