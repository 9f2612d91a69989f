package cli

import (
	"errors"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// selectorWords say what a selector looks like.
const selectorWords = "say KEY=VALUE, KEY!=VALUE, KEY or !KEY, with commas between several"

// selectorFlag is "k=v,k2!=v2,k3,!k4": all of these are true of the labels. Given more than once, all of all. What characters
// are allowed is the daemon's to say.
type selectorFlag struct {
	texts []string
	terms []string // of an AIP-160 filter
}

func (f *selectorFlag) Set(text string) error {
	for part := range strings.SplitSeq(text, ",") {
		term, err := selectorTerm(strings.TrimSpace(part))
		if err != nil {
			return err
		}
		f.texts, f.terms = append(f.texts, strings.TrimSpace(part)), append(f.terms, term)
	}
	return nil
}

func (f *selectorFlag) String() string { return strings.Join(f.texts, ",") }
func (f *selectorFlag) Type() string   { return "KEY=VALUE,..." }

// given tells whether there is a selector at all.
func (f *selectorFlag) given() bool { return len(f.terms) > 0 }

// filter is the selector as an AIP-160 filter; empty when none was given.
func (f *selectorFlag) filter() string { return strings.Join(f.terms, " AND ") }

// selectorTerm is one part of a selector as a term of a filter. A value that begins or ends with '*' is a pattern, as it is
// in filters.
func selectorTerm(part string) (string, error) {
	key, value, compares := strings.Cut(part, "=")
	var not bool
	if compares {
		key, not = strings.CutSuffix(key, "!")
	} else {
		key, not = strings.CutPrefix(key, "!")
	}
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	switch {
	case key == "" || strings.ContainsAny(key, "! "):
		return "", errors.New(selectorWords)
	case !utf8.ValidString(part) || strings.ContainsFunc(part, unicode.IsControl):
		return "", errors.New("labels are text without control characters")
	case compares && not:
		return "labels." + filterField(key) + " != " + filterString(value), nil
	case compares:
		return "labels." + filterField(key) + " = " + filterString(value), nil
	case not:
		return "NOT labels:" + filterString(key), nil
	default:
		return "labels:" + filterString(key), nil
	}
}

// filterField writes a label's key as a field in a filter. Keys with dots, dashes or slashes, and those that are
// keywords, need quotes there.
func filterField(key string) string {
	letters := strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_") == ""
	if letters && !slices.Contains([]string{"AND", "OR", "NOT"}, key) {
		return key
	}
	return filterString(key)
}

func filterString(value string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value) + `"`
}

// bothFilters matches what matches both; an empty filter matches all.
func bothFilters(filter, selector string) string {
	switch {
	case filter == "" || filter == allFilter && selector != "":
		return selector
	case selector == "":
		return filter
	default:
		return "(" + filter + ") AND " + selector
	}
}

// matching is how a command is told by what an endpoint is which ones it is about.
type matching struct {
	selector selectorFlag
	filter   string
}

func (m *matching) addTo(cmd *cobra.Command) {
	cmd.Flags().VarP(&m.selector, "selector", "l",
		"those whose labels are as in `KEY=VALUE,KEY2!=VALUE2,KEY3`; KEY alone: have it, !KEY: lack it")
	cmd.Flags().StringVar(&m.filter, "filter", "", "those that match the AIP-160 `EXPRESSION`")
}

func (m *matching) given() bool { return m.selector.given() || m.filter != "" }

// expression is a filter for both flags together.
func (m *matching) expression() string { return bothFilters(m.filter, m.selector.filter()) }

// String is what was asked for, in the user's own words.
func (m *matching) String() string {
	switch {
	case m.filter == "":
		return m.selector.String()
	case !m.selector.given():
		return m.filter
	default:
		return m.filter + ", " + m.selector.String()
	}
}
