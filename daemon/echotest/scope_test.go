package echotest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

type tests func() int

func (f tests) Run() int { return f() }

func TestMainRunsTestsBetweenSetupAndCleanup(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fails    string // what does
		tests    int    // their code
		want     int
		happened []string
		seen     bool // by a cleanup: that something has failed
	}{
		"all well":        {want: 0, happened: []string{"setup", "tests", "second", "first"}},
		"tests fail":      {tests: 2, want: 2, happened: []string{"setup", "tests", "second", "first"}, seen: true},
		"setup fails":     {fails: "setup", want: 1, happened: []string{"setup", "second", "first"}, seen: true},
		"a cleanup fails": {fails: "second", want: 1, happened: []string{"setup", "tests", "second", "first"}, seen: true},
	} {
		var happened []string
		var seen bool
		do := func(t TB, what string) {
			happened = append(happened, what)
			if what == tc.fails {
				t.Fatalf("%s fails", what)
			}
		}
		var log bytes.Buffer
		code := scopedMain(&scope{log: &log}, tests(func() int { happened = append(happened, "tests"); return tc.tests }), func(t TB) {
			t.Cleanup(func() { seen = t.Failed(); do(t, "first") })
			t.Cleanup(func() { do(t, "second") })
			do(t, "setup")
		})
		if code != tc.want || !slices.Equal(happened, tc.happened) || seen != tc.seen {
			t.Errorf("%s: code %d, %q, failed: %v", name, code, happened, seen)
		}
		if said := log.String(); tc.fails != "" && said != tc.fails+" fails\n" {
			t.Errorf("%s: said %q", name, said)
		}
	}
}

// TestOutputIsBounded writes more than is kept.
func TestOutputIsBounded(t *testing.T) {
	t.Parallel()
	var o output
	const lines = 5 * maxOutputBytes / 16
	for i := range lines {
		fmt.Fprintf(&o, "line %010d\n", i)
	}
	text := o.String()
	first, rest, _ := strings.Cut(text, "\n")
	if first != fmt.Sprintf("(%d bytes before this are not kept)", lines*16-maxOutputBytes) || len(rest) != maxOutputBytes {
		t.Errorf("%q, then %d bytes", first, len(rest))
	}
	if !strings.HasSuffix(rest, fmt.Sprintf("line %010d\n", lines-1)) {
		t.Errorf("it ends with %q", rest[len(rest)-32:])
	}
	if held := cap(o.kept); held > 4*maxOutputBytes {
		t.Errorf("%d bytes are held", held)
	}
}
