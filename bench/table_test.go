package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var someTable = Table{
	Title:  "a case",
	Notes:  []string{"a note"},
	Header: []string{"server", "CPU/echo"},
	Rows:   [][]string{{"ours", "9.1 µs"}, {"a|b", "-"}},
}

func TestText(t *testing.T) {
	var got strings.Builder
	someTable.writeText(&got)
	want := `
a case
  server  CPU/echo
  ours      9.1 µs
  a|b            -
  a note
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Error(diff)
	}
}

func TestMarkdown(t *testing.T) {
	var got strings.Builder
	someTable.writeMarkdown(&got)
	want := `
### a case

| server | CPU/echo |
|---|---:|
| ours | 9.1 µs |
| a\|b | - |

a note
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Error(diff)
	}
}

func TestFormat(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{formatRate(1_660_000), "1.66M/s"},
		{formatRate(96_100), "96.1k/s"},
		{formatRate(8809), "8809/s"},
		{formatBits(1.25e9), "10.00 Gbit/s"},
		{formatSeconds(137e-9), "137 ns"},
		{formatSeconds(9.144e-6), "9.14 µs"},
		{formatSeconds(0.0273), "27.3 ms"},
		{formatSeconds(1.5), "1.5 s"},
		{formatKiB(512), "0.50 KiB"},
		{formatRatio(nil), "-"},
		{formatRatio([]float64{1, 1, 1}), "1.00 [1.00-1.00]"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}
