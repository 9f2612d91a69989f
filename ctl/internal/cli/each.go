package cli

import (
	"sync"
	"sync/atomic"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
)

// atOnce is how many calls run side by side when a command is given many names: enough that a drain of each does not
// add up, few enough not to burden the daemon.
const atOnce = 16

// each does something with every name and answers what came of those that worked, in the order of the names. Failures
// are told on standard error, in that order, too; the error is then only the exit code. What is the same for many names
// (a daemon that cannot be reached, a Ctrl-C) is told once.
func each[T any](a *app, names []string, do func(name string) (T, error)) ([]T, error) {
	names = unique(names)
	results, errs := make([]T, len(names)), make([]error, len(names))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(atOnce, len(names)) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(names); i = int(next.Add(1)) - 1 {
				results[i], errs[i] = do(names[i])
			}
		})
	}
	workers.Wait()

	var worked []T
	code := exitDone
	told := map[string]bool{}
	for i, err := range errs {
		if err == nil {
			worked = append(worked, results[i])
			continue
		}
		message, c := a.explain(err)
		if !told[message] {
			a.talk("echoctl: %s", message)
		}
		told[message] = true
		code = max(code, c)
	}
	if code != exitDone {
		return worked, &exitError{code}
	}
	return worked, nil
}

// unique drops names that were said before; doing something to the same name twice at once is never meant.
func unique(names []string) []string {
	var result []string
	seen := make(map[string]bool, len(names))
	for _, n := range names {
		if !seen[n] {
			result = append(result, n)
		}
		seen[n] = true
	}
	return result
}

// selection is how a command is told what to work on: by names, or by what the endpoints are.
type selection struct {
	matching
}

// check wants either names or a selector or filter: neither must never mean all.
func (o *selection) check(args []string) error {
	switch {
	case len(args) == 0 && !o.given():
		return usagef("say which: NAME..., --selector or --filter")
	case len(args) > 0 && o.given():
		return usagef("say either NAME... or --selector and --filter, not both")
	}
	return nil
}

// names are those given or those that match; with none found it says so.
func (o *selection) names(cmd *cobra.Command, s *session, args []string) ([]string, error) {
	if !o.given() {
		return args, nil
	}
	list, err := s.listEndpoints(cmd.Context(), o.expression(), echov1.ListEndpointsRequest_BASIC, 0)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		s.app.talk("no endpoint matches %s", o)
	}
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.GetName()
	}
	return names, nil
}
