// Package lab reads the files that say which endpoints are to be there: YAML or JSON with the field names of the REST
// interface. It owns the file's form, says of whatever is wrong where it stands, and finds the place of a field that the
// daemon objects to. It never calls the daemon and knows none of its rules on values. Only package cli may call it.
package lab

import (
	"fmt"
	"strings"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// What files may come to. MaxEndpoints is what the daemon takes as one change.
const (
	MaxFileBytes = 8 << 20
	MaxEndpoints = 10_000

	// maxProblems is how many are told at once.
	maxProblems = 20
	// maxAliased is how many values aliases may stand for in all, which is several hundred thousand endpoints' worth; and
	// no file of a few bytes becomes a gigabyte.
	maxAliased = 1_000_000
	// maxNesting is more than any file of ours needs.
	maxNesting = 32
)

// Source is a text, and what messages call it by.
type Source struct {
	Name string
	Text []byte
}

// Place is where something stands; lines and columns count from 1.
type Place struct {
	File         string
	Line, Column int
}

func (p Place) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// Lab is what some files say. It does not change once it is read.
type Lab struct {
	// Endpoints are in the order of the files. Each has a name of its own.
	Endpoints []*echov1.Endpoint
	marks     [][]mark // of each endpoint
}

// mark is where a field of an endpoint stands: path is "tcp.idle_timeout", `labels["rack"]` or "sources.allow[1]" as
// protovalidate writes it; that of the endpoint itself is empty, and first.
type mark struct {
	path string
	at   Place
}

// Place answers where a field of the i-th endpoint stands, or where what contains it does when the file leaves it out.
func (l *Lab) Place(i int, path string) Place {
	for {
		for _, m := range l.marks[i] {
			if m.path == path {
				return m.at
			}
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
}

// Problems are what is wrong with files, each with its place.
type Problems struct {
	Lines []string
	// More is how many there were besides.
	More int

	told map[string]bool // what is read through several aliases is wrong once
}

func (p *Problems) Error() string {
	if p.count() == 1 {
		return p.Lines[0]
	}
	text := fmt.Sprintf("%d problems:\n  %s", p.count(), strings.Join(p.Lines, "\n  "))
	if p.More > 0 {
		text += fmt.Sprintf("\n  and %d more", p.More)
	}
	return text
}

func (p *Problems) count() int { return len(p.Lines) + p.More }

func (p *Problems) add(at Place, format string, args ...any) {
	line := at.String() + ": " + fmt.Sprintf(format, args...)
	switch {
	case p.told[line]:
		return
	case p.told == nil:
		p.told = map[string]bool{}
	}
	p.told[line] = true
	if len(p.Lines) == maxProblems {
		p.More++
		return
	}
	p.Lines = append(p.Lines, line)
}
