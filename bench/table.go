package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Table is what is printed of a case. All rows have as many cells as the header.
type Table struct {
	Title  string
	Notes  []string
	Header []string
	Rows   [][]string
}

// writeText prints t for a terminal: the first column to the left, the others to the right.
func (t Table) writeText(w io.Writer) {
	fmt.Fprintf(w, "\n%s\n", t.Title)
	widths := make([]int, len(t.Header))
	for _, row := range append([][]string{t.Header}, t.Rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range append([][]string{t.Header}, t.Rows...) {
		var line strings.Builder
		for i, cell := range row {
			padding := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				line.WriteString("  " + cell + padding)
			} else {
				line.WriteString("  " + padding + cell)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
	for _, note := range t.Notes {
		fmt.Fprintf(w, "  %s\n", note)
	}
}

// writeMarkdown prints t for a page of documentation.
func (t Table) writeMarkdown(w io.Writer) {
	fmt.Fprintf(w, "\n### %s\n\n", t.Title)
	writeMarkdownRow(w, t.Header)
	fmt.Fprintln(w, "|---|"+strings.Repeat("---:|", len(t.Header)-1))
	for _, row := range t.Rows {
		writeMarkdownRow(w, row)
	}
	for _, note := range t.Notes {
		fmt.Fprintf(w, "\n%s\n", note)
	}
}

func writeMarkdownRow(w io.Writer, cells []string) {
	escaped := make([]string, len(cells))
	for i, cell := range cells {
		escaped[i] = strings.ReplaceAll(cell, "|", `\|`)
	}
	fmt.Fprintf(w, "| %s |\n", strings.Join(escaped, " | "))
}
