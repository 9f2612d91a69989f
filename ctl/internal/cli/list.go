package cli

import (
	"context"
	"math"

	"github.com/echod/echod/ctl/internal/render"
	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
)

// The most that the daemon answers at once, of endpoints without their counters, and of all else.
const (
	basicPageSize = 10_000
	pageSize      = 1000
)

type listOptions struct {
	matching
	limit countFlag
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

A selector is KEY=VALUE, KEY!=VALUE, KEY (has the label) or !KEY (lacks it),
with commas between several, all of which must be true; a VALUE may begin or end
with '*'. A filter (AIP-160) speaks of name, uid, protocol, state, port, listen,
address, host, description, session, network_namespace, interface, labels.KEY,
create_time, update_time, expire_time and ttl; a value with spaces is quoted.`),
		Example: `  echoctl list
  echoctl list -o wide
  echoctl list --selector 'rack=r1,role!=web,run'
  echoctl list --filter 'protocol = TCP AND labels.rack = r* AND NOT state = STOPPED'
  echoctl list -o name --limit 10`,
		Args: argsBetween(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return runList(a, cmd, o) },
	}
	o.addTo(cmd)
	cmd.Flags().Var(&o.limit, "limit", "at most `N`; 0 is all")
	return cmd
}

func runList(a *app, cmd *cobra.Command, o *listOptions) error {
	s, err := a.connect()
	if err != nil {
		return err
	}
	// Without the columns that show them, nobody looks at the counters.
	view := echov1.ListEndpointsRequest_FULL
	if s.format == render.Table || s.format == render.Name {
		view = echov1.ListEndpointsRequest_BASIC
	}
	list, err := s.listEndpoints(cmd.Context(), o.expression(), view, o.limit.value)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		if !o.given() {
			a.talk("no endpoints; create one with: echoctl create tcp")
		} else {
			a.talk("no endpoint matches")
		}
	}
	return s.out.EndpointList(list)
}

// listEndpoints reads page after page, up to limit endpoints; 0 is all.
func (s *session) listEndpoints(ctx context.Context, filter string, view echov1.ListEndpointsRequest_View,
	limit uint32) ([]*echov1.Endpoint, error) {
	most := uint32(pageSize)
	if view == echov1.ListEndpointsRequest_BASIC {
		most = basicPageSize
	}
	return readPages(limit, most, func(size int32, token string) ([]*echov1.Endpoint, string, error) {
		ctx, cancel := s.call(ctx, 0)
		defer cancel()
		page, err := s.endpoints.ListEndpoints(ctx, &echov1.ListEndpointsRequest{
			PageSize: size, PageToken: token, Filter: filter, View: view,
		})
		return page.GetEndpoints(), page.GetNextPageToken(), err
	})
}

// readPages collects pages of at most pageSize until there is none left or the limit is reached; 0 is no limit.
func readPages[T any](limit, pageSize uint32, read func(size int32, token string) ([]T, string, error)) ([]T, error) {
	most := uint64(limit)
	if limit == 0 {
		most = math.MaxUint64
	}
	var all []T
	for token := ""; ; {
		page, next, err := read(int32(min(uint64(pageSize), most-uint64(len(all)))), token)
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
