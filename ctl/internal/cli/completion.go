package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
)

// completionWait bounds what a shell waits for names when the user presses Tab.
const completionWait = time.Second

func newCompletionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Write a completion script for a shell",
		Long: long(`Writes the script that lets a shell complete commands, flags and the names of
endpoints and probes that there are.

bash needs the package bash-completion. Load the script at each start of the
shell, as the examples show.`),
		Example: `  echoctl completion bash > /etc/bash_completion.d/echoctl
  source <(echoctl completion bash)
  echoctl completion zsh > "${fpath[1]}/_echoctl"
  echoctl completion fish > ~/.config/fish/completions/echoctl.fish
  echoctl completion powershell | Out-String | Invoke-Expression`,
		Args:      argsBetween(1, 1, "bash, zsh, fish or powershell"),
		ValidArgs: []cobra.Completion{"bash", "zsh", "fish", "powershell"},
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(out)
			}
			return usagef("%q is no shell that is known: say bash, zsh, fish or powershell", args[0])
		},
	}
}

// completeEndpoints offers the names of the daemon's endpoints. Without a daemon it offers nothing, and says nothing:
// there is no good place for a message on a half-typed line.
func (a *app) completeEndpoints(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion,
	cobra.ShellCompDirective) {
	return a.complete(cmd, args, typed, func(ctx context.Context, s *session) (map[string]string, error) {
		list, err := s.listEndpoints(ctx, "", echov1.ListEndpointsRequest_BASIC, pageSize)
		names := make(map[string]string, len(list))
		for _, e := range list {
			names[e.GetName()] = e.GetProtocol().String() + " " + e.GetAddress() + " " + e.GetState().String()
		}
		return names, err
	})
}

// completeProbes offers the names of the daemon's probes, running and kept ones.
func (a *app) completeProbes(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion,
	cobra.ShellCompDirective) {
	return a.complete(cmd, args, typed, func(ctx context.Context, s *session) (map[string]string, error) {
		list, err := s.listProbes(ctx, pageSize)
		names := make(map[string]string, len(list))
		for _, p := range list {
			names[p.GetName()] = p.GetState().String()
		}
		return names, err
	})
}

// completeTargets offers what a probe can be sent to.
func (a *app) completeTargets(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion,
	cobra.ShellCompDirective) {
	offers, directive := a.completeEndpoints(cmd, args, typed)
	for _, scheme := range []string{"tcp://", "udp://"} {
		if typed != "" && strings.HasPrefix(scheme, typed) {
			// An address follows at once, without a space.
			return []cobra.Completion{scheme}, directive | cobra.ShellCompDirectiveNoSpace
		}
	}
	return offers, directive
}

// complete offers names with their descriptions, those on the line already left out.
func (a *app) complete(cmd *cobra.Command, args []string, typed string,
	list func(context.Context, *session) (map[string]string, error)) ([]cobra.Completion, cobra.ShellCompDirective) {
	s, err := a.connect(moreFormats(cmd)...)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionWait)
	defer cancel()
	names, err := list(ctx, s)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var offers []cobra.Completion
	for name, description := range names {
		if strings.HasPrefix(name, typed) && !slices.Contains(args, name) {
			offers = append(offers, cobra.CompletionWithDesc(name, description))
		}
	}
	slices.Sort(offers)
	return offers, cobra.ShellCompDirectiveNoFileComp
}

// firstOnly completes the first argument only.
func firstOnly(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, typed)
	}
}

// completeCommands offers the commands below the one on the line, for help.
func completeCommands(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	found, rest, err := cmd.Root().Find(args)
	if err != nil || len(rest) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var offers []cobra.Completion
	for _, c := range found.Commands() {
		if c.IsAvailableCommand() && strings.HasPrefix(c.Name(), typed) {
			offers = append(offers, cobra.CompletionWithDesc(c.Name(), c.Short))
		}
	}
	return offers, cobra.ShellCompDirectiveNoFileComp
}
