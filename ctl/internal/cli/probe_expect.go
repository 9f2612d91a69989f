package cli

import (
	"errors"
	"slices"
	"strings"

	"github.com/echod/echod/ctl/internal/render"
	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/spf13/cobra"
)

const expectHelp = `--expect says what the report is to say, as in 'loss <= 0.1%' or
'p99 < 2ms && reordered == 0'; docs/probes.md lists the names. A comparison with
a value that is not known is not met.`

// addExpectFlag adds --expect. The daemon reads the expressions, and says what is wrong with one.
func addExpectFlag(cmd *cobra.Command, expect *[]string) {
	cmd.Flags().StringArrayVar(expect, "expect", nil,
		"what the report is to say: `EXPR`, as in 'loss <= 0.1%' or 'p99 < 2ms'; may be repeated")
}

// unmet answers exit code 3 for a report that does not say what was expected: the probe's expectations, or without any
// that at least one reply came.
func unmet(probe *echov1.Probe, report *echov1.ProbeReport) error {
	met := report.GetReceived() > 0
	if len(probe.GetExpect()) > 0 {
		if report.Met == nil {
			return errors.New("the daemon did not judge the expectations; it may be older than this echoctl " +
				"(echoctl version shows both)")
		}
		met = report.GetMet()
	}
	if !met {
		return &exitError{exitUnmet}
	}
	return nil
}

// anyUnmet answers exit code 3 when something was expected of one of the reports that it does not say.
func anyUnmet(reports []*echov1.ProbeReport) error {
	if slices.ContainsFunc(reports, func(r *echov1.ProbeReport) bool { return r.Met != nil && !r.GetMet() }) {
		return &exitError{exitUnmet}
	}
	return nil
}

// writesJUnit marks a command whose output may be JUnit XML.
var writesJUnit = map[string]string{string(render.JUnit): "yes"}

// moreFormats are the formats that a command writes besides render.Formats.
func moreFormats(cmd *cobra.Command) []render.Format {
	if cmd.Annotations[string(render.JUnit)] == "" {
		return nil
	}
	return []render.Format{render.JUnit}
}

// onlyFormats is the annotation of a command that writes no others than these, with commas between.
const onlyFormats = "formats"

// completeFormats offers the formats that the command on the line writes.
func completeFormats(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if only := cmd.Annotations[onlyFormats]; only != "" {
		return strings.Split(only, ","), cobra.ShellCompDirectiveNoFileComp
	}
	var offers []cobra.Completion
	for _, f := range slices.Concat(render.Formats, moreFormats(cmd)) {
		offers = append(offers, string(f))
	}
	return offers, cobra.ShellCompDirectiveNoFileComp
}
