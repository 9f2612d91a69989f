package render

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain":       "plain",
		"größe 日本 🙂":  "größe 日本 🙂",
		"a\tb\nc":     `a\tb\nc`,
		"\x1b[31mred": `\x1b[31mred`,
		"\u009b31m":   `\u009b31m`,
		"\u202eright": `\u202eright`,
		"bad \xff":    `bad \xff`,
		"\ufffd":      "\ufffd",
		`it's "here"`: `it's "here"`,
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
	if got, want := CleanLines("a\x07\nb\r"), `a\a`+"\n"+`b\r`; got != want {
		t.Errorf("CleanLines = %q, want %q", got, want)
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\x1b\u009b\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsGraphic(r) }) {
			t.Errorf("clean(%q) = %q", s, got)
		}
	})
}

// FuzzDocuments holds JSON and YAML to what they must do with any label: stay readable as the same value, print no
// character that a terminal obeys.
func FuzzDocuments(f *testing.F) {
	for _, s := range []string{
		"", "yes", "12:30", "0x10", "1e3", "null", "~", "a: b", "- a", "#", "a\nb", "\u007f\u0085\u009b", "\u2028\ufeff",
		"\U000e0001", "\"\\", " lead", "trail ", "<<", "=", "2026-01-01",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			return
		}
		doc, err := json.Marshal(map[string]string{"key": s})
		if err != nil {
			t.Fatal(err)
		}
		var j, y bytes.Buffer
		if err := writeJSON(&j, doc); err != nil {
			t.Fatal(err)
		}
		if err := newYAMLEmitter(&y)(doc); err != nil {
			t.Fatal(err)
		}
		var fromJSON, fromYAML map[string]any
		if err := json.Unmarshal(j.Bytes(), &fromJSON); err != nil || fromJSON["key"] != s {
			t.Errorf("JSON of %q: %s: %v", s, j.Bytes(), err)
		}
		if err := yaml.Unmarshal(y.Bytes(), &fromYAML); err != nil || fromYAML["key"] != s {
			t.Errorf("YAML of %q: %s: %v", s, y.Bytes(), err)
		}
		for _, text := range []string{j.String(), y.String()} {
			if i := strings.IndexFunc(text, unicode.IsControl); i >= 0 && text[i] != '\n' {
				t.Errorf("%q writes the control character %q", s, text[i:i+1])
			}
		}
	})
}

func TestYAMLKeepsStringsStrings(t *testing.T) {
	var b bytes.Buffer
	doc := `{"count":"9007199254740992","size":64,"on":true,"a":"yes","b":"12:30:00","c":"0.04s","d":{},"e":[],"f":null}`
	if err := newYAMLEmitter(&b)([]byte(doc)); err != nil {
		t.Fatal(err)
	}
	want := "count: \"9007199254740992\"\nsize: 64\n\"on\": true\na: \"yes\"\nb: \"12:30:00\"\nc: 0.04s\n" +
		"d: {}\ne: []\nf: null\n"
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}

func TestPercent(t *testing.T) {
	for _, c := range []struct {
		part, whole uint32
		want        string
	}{
		{0, 5, "0"}, {5, 5, "100"}, {1, 2, "50"}, {1, 3, "33.3"}, {1, 100000, "0.001"}, {99999, 100000, "99.999"},
		{1, 1000000000, "1e-07"}, {1, 8, "12.5"},
	} {
		if got := percent(c.part, c.whole); got != c.want {
			t.Errorf("percent(%d, %d) = %s, want %s", c.part, c.whole, got, c.want)
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 10 * time.Minute: "10m", time.Hour: "1h", 90 * time.Minute: "1h30m", 200 * time.Millisecond: "200ms",
		10 * time.Second: "10s", 100 * time.Minute: "1h40m", 61 * time.Second: "1m1s",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%d) = %s, want %s", d, got, want)
		}
	}
}

func TestUntil(t *testing.T) {
	for left, want := range map[time.Duration]string{
		-time.Hour: "now", 0: "now", time.Millisecond: "in 1s", 597*time.Second + 1: "in 9m58s", 598 * time.Second: "in 9m58s", 10 * time.Minute: "in 10m",
		150 * time.Minute: "in 2h30m", 150*time.Minute + time.Second: "in 2h30m", 24 * time.Hour: "in 1d", 76 * time.Hour: "in 3d4h",
	} {
		if got := until(now, ago(-left)); got != want {
			t.Errorf("until %v = %s, want %s", left, got, want)
		}
	}
	if got := until(now, nil); got != "-" {
		t.Errorf("until never = %s", got)
	}
}

func TestCut(t *testing.T) {
	if got := cut("größere Länge", 10); got != "größere L…" {
		t.Errorf("cut = %q", got)
	}
	for _, room := range []int{-5, 0, leastCut - 1, 13} {
		if got := cut("größere Länge", room); got != "größere Länge" {
			t.Errorf("cut to %d = %q", room, got)
		}
	}
}
