package cli

import (
	"bytes"
	"context"
	"fmt"

	"github.com/echod/echod/ctl/internal/lab"
	"github.com/echod/echod/ctl/internal/render"
	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
)

func newExportCommand(a *app) *cobra.Command {
	o := &matching{}
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write endpoints as a file that apply reads",
		Long: long(`Writes the endpoints, or those that match a selector and a filter (see list), as
a file that makes the same of them: an apply of it changes nothing, and after
they are deleted it brings them back at the same addresses. A port that was
picked is written as the number it is. What is as the daemon has it by default
is left out, and so are endpoints that end with a session, and whether one is
stopped.

It writes YAML, or JSON with -o json.`),
		Example: `  echoctl export > lab.yaml
  echoctl export --selector lab=a -o json`,
		Args:        argsBetween(0, 0, ""),
		RunE:        func(cmd *cobra.Command, _ []string) error { return runExport(a, cmd, o) },
		Annotations: map[string]string{onlyFormats: "yaml,json"},
	}
	o.addTo(cmd)
	return cmd
}

func runExport(a *app, cmd *cobra.Command, o *matching) error {
	if f := a.options.output.format; a.options.output.set && f != render.YAML && f != render.JSON {
		return usagef("-o %s is no format of a file: say yaml or json", f)
	}
	s, err := a.connect()
	if err != nil {
		return err
	}
	list, err := s.listEndpoints(cmd.Context(), o.expression(), echov1.ListEndpointsRequest_BASIC, 0)
	if err != nil {
		return err
	}
	kept, left, err := s.exported(cmd.Context(), list)
	if err != nil {
		return err
	}
	if len(kept) > lab.MaxEndpoints {
		return fmt.Errorf("there are %d endpoints, and an apply takes %d: export them in parts, with --selector or --filter",
			len(kept), lab.MaxEndpoints)
	}
	var file bytes.Buffer
	if err := render.Lab(&file, s.format, kept); err != nil {
		return err
	}
	if file.Len() > lab.MaxFileBytes {
		return fmt.Errorf("that is a file of %.1f MiB, and an apply takes %d MiB: export them in parts, with --selector or --filter",
			float64(file.Len())/(1<<20), lab.MaxFileBytes>>20)
	}
	if _, err := (output{a.env.Stdout}).Write(file.Bytes()); err != nil {
		return err
	}
	if left > 0 {
		a.talk("left out %s that end with a session", endpointsText(left))
	}
	return nil
}

// exported makes of endpoints what a file says of them, and counts those that are left out.
func (s *session) exported(ctx context.Context, list []*echov1.Endpoint) (kept []*echov1.Endpoint, left int, err error) {
	defaults := map[echov1.Protocol]*echov1.Endpoint{}
	for _, e := range list {
		if e.GetSession() != "" {
			left++
			continue
		}
		protocol := e.GetProtocol()
		if defaults[protocol] == nil {
			if defaults[protocol], err = s.defaults(ctx, protocol); err != nil {
				return nil, 0, err
			}
		}
		kept = append(kept, lab.Of(e, defaults[protocol]))
	}
	return kept, left, nil
}

// defaults is what the daemon makes of an endpoint that says nothing but its protocol.
func (s *session) defaults(ctx context.Context, protocol echov1.Protocol) (*echov1.Endpoint, error) {
	ctx, cancel := s.call(ctx, 0)
	defer cancel()
	return s.endpoints.CreateEndpoint(ctx, &echov1.CreateEndpointRequest{
		Endpoint: &echov1.Endpoint{Protocol: protocol}, ValidateOnly: true,
	})
}
