package render

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// clean makes a text of unknown origin safe to print on one line of a terminal: control characters, bytes that are no
// UTF-8 and characters that turn the direction of text appear escaped, as in Go source.
func clean(s string) string {
	plain := true
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsGraphic(r) {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			b.WriteString(`\x` + strconv.FormatUint(uint64(s[0]), 16))
		case unicode.IsGraphic(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
		s = s[size:]
	}
	return b.String()
}

// cleanAll is clean for each of several texts.
func cleanAll(texts []string) []string {
	out := make([]string, len(texts))
	for i, text := range texts {
		out[i] = clean(text)
	}
	return out
}

// CleanLines is clean for texts of several lines, such as error messages: line feeds stay, all else is escaped.
func CleanLines(s string) string {
	return strings.Join(cleanAll(strings.Split(s, "\n")), "\n")
}

// orDash stands for what there is nothing to say of.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// labelText writes labels as "k=v,k2=v2", by key.
func labelText(labels map[string]string) string {
	return strings.Join(labelLines(labels), ",")
}

func labelLines(labels map[string]string) []string {
	lines := make([]string, 0, len(labels))
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		lines = append(lines, clean(k)+"="+clean(labels[k]))
	}
	return lines
}

// countText writes counters by name as "accept 3, read 1", by key; "none" when nothing was counted.
func countText(counts map[string]uint64) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		if counts[k] > 0 {
			parts = append(parts, clean(k)+" "+strconv.FormatUint(counts[k], 10))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}
