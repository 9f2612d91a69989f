package render

import (
	"fmt"
	"strings"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// actions are the marks of what an apply does.
var actions = map[echov1.EndpointChange_Action]cell{
	echov1.EndpointChange_NONE:    {"=", dim},
	echov1.EndpointChange_CREATE:  {"+", green},
	echov1.EndpointChange_UPDATE:  {"~", yellow},
	echov1.EndpointChange_REPLACE: {"-/+", yellow},
	echov1.EndpointChange_DELETE:  {"-", red},
}

// changeLines are a line for each endpoint, with what differs below it.
func changeLines(list []*echov1.EndpointChange, o Options) (lines []string) {
	for _, c := range list {
		mark, ok := actions[c.GetAction()]
		if !ok {
			mark = cell{text: "?"}
		}
		lines = append(lines, colored(fmt.Sprintf("%-3s %s", mark.text, clean(c.GetName())), mark.style, o))
		for _, f := range c.GetFields() {
			line := fmt.Sprintf("      %s: %s -> %s", clean(f.GetPath()), valueText(f.GetBefore()), valueText(f.GetAfter()))
			if f.GetNeedsReplace() {
				line += " (needs a new socket)"
			}
			lines = append(lines, line)
		}
		if n := c.GetOmittedFields(); n > 0 {
			lines = append(lines, fmt.Sprintf("      and %d more", n))
		}
	}
	return lines
}

// valueText is a value as JSON, on one line.
func valueText(json string) string {
	if json == "" {
		return "unset"
	}
	return clean(json)
}

func colored(text string, s style, o Options) string {
	if !o.Color || s == plain {
		return text
	}
	return string(s) + text + reset
}

// ChangeSummary counts what an apply did, or would do: "2 created, 1 updated, 3 unchanged". Colours and formats do not matter
// to it: it is for its caller's talk.
func ChangeSummary(list []*echov1.EndpointChange, done bool) string {
	counts := map[echov1.EndpointChange_Action]int{}
	for _, c := range list {
		counts[c.GetAction()]++
	}
	var parts []string
	for _, p := range []struct {
		action       echov1.EndpointChange_Action
		would, wasIs string
	}{
		{echov1.EndpointChange_CREATE, "to create", "created"},
		{echov1.EndpointChange_UPDATE, "to update", "updated"},
		{echov1.EndpointChange_REPLACE, "to replace", "replaced"},
		{echov1.EndpointChange_DELETE, "to delete", "deleted"},
		{echov1.EndpointChange_NONE, "unchanged", "unchanged"},
	} {
		if n := counts[p.action]; n > 0 && done {
			parts = append(parts, fmt.Sprintf("%d %s", n, p.wasIs))
		} else if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, p.would))
		}
	}
	if len(parts) == 0 {
		return "no endpoints"
	}
	return strings.Join(parts, ", ")
}
