package render

import (
	"io"
	"strings"
	"unicode/utf8"
)

// style is how a cell looks on a terminal with colours.
type style string

// The styles, as ANSI escape sequences.
const (
	plain  style = ""
	dim    style = "\x1b[2m"
	red    style = "\x1b[31m"
	green  style = "\x1b[32m"
	yellow style = "\x1b[33m"
	reset        = "\x1b[0m"
)

// cell is one field of a table; its text is clean already.
type cell struct {
	text  string
	style style
}

// grid is a table without borders: a header, then rows of as many cells, two spaces between columns.
type grid struct {
	header []string
	rows   [][]cell
}

func (g *grid) add(cells ...cell) { g.rows = append(g.rows, cells) }

// write writes nothing for a table without rows: an empty result has no header either.
func (g *grid) write(w io.Writer, o Options) error {
	if len(g.rows) == 0 {
		return nil
	}
	widths := g.widths()
	var b strings.Builder
	headline := make([]cell, len(g.header))
	for i, h := range g.header {
		headline[i].text = h
	}
	writeRow(&b, headline, widths, o)
	for _, row := range g.rows {
		writeRow(&b, row, widths, o)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// widths are counted in characters, which is right for all but the wide characters of East Asia and combining marks.
func (g *grid) widths() []int {
	widths := make([]int, len(g.header))
	for i, h := range g.header {
		widths[i] = utf8.RuneCountInString(h)
	}
	for _, row := range g.rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	return widths
}

func writeRow(b *strings.Builder, row []cell, widths []int, o Options) {
	used := 0
	for i, c := range row {
		text := c.text
		last := i == len(row)-1
		if last {
			text = cut(text, o.Width-used)
		}
		pad := widths[i] - utf8.RuneCountInString(text) + 2
		used += widths[i] + 2
		if o.Color && c.style != plain {
			text = string(c.style) + text + reset
		}
		b.WriteString(text)
		if !last {
			b.WriteString(strings.Repeat(" ", pad))
		}
	}
	b.WriteByte('\n')
}

// leastCut is the fewest columns worth cutting a text to; with less room the line is left to wrap.
const leastCut = 8

func cut(text string, room int) string {
	if room < leastCut || utf8.RuneCountInString(text) <= room {
		return text
	}
	return string([]rune(text)[:room-1]) + "…"
}

// pairs is a description: keys in a column, their values beside them. A value of several lines is written one below
// the other.
type pairs struct {
	keys   []string
	values [][]cell
}

func (p *pairs) add(key string, lines ...string) {
	cells := make([]cell, len(lines))
	for i, l := range lines {
		cells[i].text = l
	}
	p.addCells(key, cells...)
}

func (p *pairs) addCells(key string, lines ...cell) {
	if len(lines) == 0 {
		lines = []cell{{text: "-"}}
	}
	p.keys = append(p.keys, key+":")
	p.values = append(p.values, lines)
}

func (p *pairs) write(b *strings.Builder, o Options) {
	width := 0
	for _, k := range p.keys {
		width = max(width, utf8.RuneCountInString(k))
	}
	for i, key := range p.keys {
		for _, c := range p.values[i] {
			writeRow(b, []cell{{text: key}, c}, []int{width, 0}, Options{Color: o.Color})
			key = ""
		}
	}
}
