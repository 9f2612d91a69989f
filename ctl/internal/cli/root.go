package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const rootLong = `echoctl drives echod, a daemon that hosts TCP and UDP echo endpoints and
measures round trips.

Where the daemon is, in this order: --server, ECHOCTL_SERVER, the unix socket if
it is there (/run/echod/echod.sock for root, else $XDG_RUNTIME_DIR/echod.sock),
127.0.0.1:7007.

Data goes to standard output in the format of --output (or ECHOCTL_OUTPUT), talk
and errors to standard error. Colours appear on a terminal, unless NO_COLOR is
set or --no-color is given.

Durations are "40ms", "1.5s", "10m"; a bare number is seconds. Sizes are bytes,
or as in "64KiB" (1,024 each), "64kB" or "64k" (1,000 each), up to GiB and GB.`

// exitHelp ends the help of every command.
const exitHelp = `Exit codes: 0 done; 1 failed; 2 the command line is wrong; 3 a probe ran and was
not as expected; 4 the daemon cannot be reached.`

// defaultCallTimeout is the deadline of a call unless --call-timeout says otherwise.
const defaultCallTimeout = 30 * time.Second

// The groups of commands in the help.
const (
	groupEndpoints = "endpoints"
	groupFiles     = "files"
	groupProbes    = "probes"
	groupEvents    = "events"
	groupOther     = "other"
)

func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "echoctl",
		Short: "Drive echod: echo endpoints and round trips",
		Long:  long(rootLong),
		Example: `  echoctl create tcp --name web-1
  echoctl list
  echoctl probe web-1 -c 10
  echoctl delete web-1`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          runRoot,
	}
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usagef("%s", err) })
	addGlobalFlags(root, a)
	root.AddGroup(
		&cobra.Group{ID: groupEndpoints, Title: "Endpoints:"},
		&cobra.Group{ID: groupFiles, Title: "Endpoints in files:"},
		&cobra.Group{ID: groupProbes, Title: "Round trips:"},
		&cobra.Group{ID: groupEvents, Title: "What happens:"},
		&cobra.Group{ID: groupOther, Title: "Besides:"},
	)
	addTo(root, groupEndpoints, newCreateCommand(a), newListCommand(a), newGetCommand(a), newUpdateCommand(a),
		newStartCommand(a), newStopCommand(a), newRenewCommand(a), newDeleteCommand(a), newSessionCommand(a))
	addTo(root, groupFiles, newApplyCommand(a), newDiffCommand(a), newExportCommand(a))
	addTo(root, groupProbes, newProbeCommand(a), newMonitorCommand(a))
	addTo(root, groupEvents, newWatchCommand(a), newWaitCommand(a))
	addTo(root, groupOther, newInfoCommand(a), newReadyCommand(a), newUpgradeCommand(a), newVersionCommand(a), newCompletionCommand())
	help := newHelpCommand()
	addTo(root, groupOther, help)
	root.SetHelpCommand(help)
	return root
}

func addTo(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = group
		root.AddCommand(c)
	}
}

func addGlobalFlags(root *cobra.Command, a *app) {
	flags := root.PersistentFlags()
	flags.StringVar(&a.options.server, "server", "", "the daemon's gRPC `ADDRESS`: HOST:PORT or unix:PATH")
	flags.VarP(&a.options.output, "output", "o", "output `FORMAT`: "+formatNames()+"; of probes also junit")
	a.options.callTimeout.value = defaultCallTimeout
	flags.Var(&a.options.callTimeout, "call-timeout", "give up a call without an answer after `DURATION`; 0 is never")
	flags.BoolVar(&a.options.noColor, "no-color", false, "no colours, even on a terminal")
	mustRegister(root.RegisterFlagCompletionFunc("output", completeFormats))
}

// mustRegister is for errors that only a flag's misspelled name in this package can cause.
func mustRegister(err error) {
	if err != nil {
		panic(err)
	}
}

// runRoot is reached without a command, or with one that does not exist.
func runRoot(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	return unknownCommand(cmd, args[0])
}

func unknownCommand(parent *cobra.Command, name string) error {
	text := fmt.Sprintf("there is no command %q", name)
	if parent.SuggestionsMinimumDistance <= 0 {
		parent.SuggestionsMinimumDistance = 2
	}
	if similar := parent.SuggestionsFor(name); len(similar) > 0 {
		text += "; did you mean " + strings.Join(similar, " or ") + "?"
	}
	return usagef("%s", text)
}

func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show the help of a command",
		Long: long(`Shows what a command does, its flags and examples; without a command, which
commands there are.`),
		Example: "  echoctl help probe start",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || found == cmd.Root() && len(rest) > 0 {
				return unknownCommand(cmd.Root(), args[0])
			}
			// cobra adds --help to a command when it runs it, which it does not here.
			found.InitDefaultHelpFlag()
			return found.Help()
		},
		ValidArgsFunction: completeCommands,
	}
}

// long is a command's help with what all have in common at its end.
func long(text string) string { return text + "\n\n" + exitHelp }

// argsBetween checks the number of arguments; what says which one is missing when there are too few.
func argsBetween(least, most int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef("%s is missing", what)
		case most >= 0 && len(args) > most:
			return usagef("unexpected argument %q", args[most])
		}
		return nil
	}
}

// unlimited is for argsBetween.
const unlimited = -1
