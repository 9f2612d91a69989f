package cli

import (
	"context"
	"math"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
)

// pageSize is the most that the daemon answers at once.
const pageSize = 1000

type listOptions struct {
	filter   string
	selector selectorFlag
	limit    countFlag
}

func newListCommand(a *app) *cobra.Command {
	o := &listOptions{}
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the endpoints",
		Long: long(`Lists the endpoints by name, all of them unless a filter, a selector or a limit
is given.

A table shows when endpoints expire where one of them does; -o wide always, and
the session that each belongs to.

A filter speaks of name, protocol, state, port, listen, address, description and
labels (AIP-160).`),
		Example: `  echoctl list
  echoctl list -o wide
  echoctl list --selector rack=r1,role=web
  echoctl list --filter 'protocol = TCP AND NOT state = STOPPED'
  echoctl list -o name --limit 10`,
		Args: argsBetween(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return runList(a, cmd, o) },
	}
	cmd.Flags().StringVar(&o.filter, "filter", "", "only those that match the AIP-160 `EXPRESSION`")
	addSelector(cmd, &o.selector)
	cmd.Flags().Var(&o.limit, "limit", "at most `N`; 0 is all")
	return cmd
}

func addSelector(cmd *cobra.Command, selector *selectorFlag) {
	cmd.Flags().VarP(selector, "selector", "l", "those with all of these labels: `KEY=VALUE,KEY2=VALUE2`")
}

func runList(a *app, cmd *cobra.Command, o *listOptions) error {
	s, err := a.connect()
	if err != nil {
		return err
	}
	list, err := s.listEndpoints(cmd.Context(), bothFilters(o.filter, o.selector.filter()), o.limit.value)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		if o.filter == "" && !o.selector.given() {
			a.talk("no endpoints; create one with: echoctl create tcp")
		} else {
			a.talk("no endpoint matches")
		}
	}
	return s.out.EndpointList(list)
}

// bothFilters matches what matches both; an empty filter matches all.
func bothFilters(filter, selector string) string {
	switch {
	case filter == "":
		return selector
	case selector == "":
		return filter
	default:
		return "(" + filter + ") AND " + selector
	}
}

// listEndpoints reads page after page, up to limit endpoints; 0 is all.
func (s *session) listEndpoints(ctx context.Context, filter string, limit uint32) ([]*echov1.Endpoint, error) {
	return readPages(limit, func(size int32, token string) ([]*echov1.Endpoint, string, error) {
		ctx, cancel := s.call(ctx, 0)
		defer cancel()
		page, err := s.endpoints.ListEndpoints(ctx, &echov1.ListEndpointsRequest{
			PageSize: size, PageToken: token, Filter: filter,
		})
		return page.GetEndpoints(), page.GetNextPageToken(), err
	})
}

// readPages collects pages until there is none left or the limit is reached; 0 is no limit.
func readPages[T any](limit uint32, read func(size int32, token string) ([]T, string, error)) ([]T, error) {
	most := uint64(limit)
	if limit == 0 {
		most = math.MaxUint64
	}
	var all []T
	for token := ""; ; {
		page, next, err := read(int32(min(pageSize, most-uint64(len(all)))), token)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if uint64(len(all)) >= most || next == "" {
			return all[:min(uint64(len(all)), most)], nil
		}
		token = next
	}
}
