package cli

import (
	"fmt"
	"strings"
	"testing"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
)

func TestSelector(t *testing.T) {
	for text, want := range map[string]string{
		"k=v":               `labels.k = "v"`,
		"b=2,a=1":           `labels.b = "2" AND labels.a = "1"`,
		"app/name=web":      `labels."app/name" = "web"`,
		"k=":                `labels.k = ""`,
		"k=a=b":             `labels.k = "a=b"`,
		"k=a!":              `labels.k = "a!"`,
		`k=say "hi\"`:       `labels.k = "say \"hi\\\""`,
		"NOT=x":             `labels."NOT" = "x"`,
		"k1=v, under_s=w":   `labels."k1" = "v" AND labels.under_s = "w"`,
		"k!=v":              `labels.k != "v"`,
		"k != v":            `labels.k != "v"`,
		"a.b!=":             `labels."a.b" != ""`,
		"k":                 `labels:"k"`,
		"!k":                `NOT labels:"k"`,
		"lab=a,old!=1,x,!y": `labels.lab = "a" AND labels.old != "1" AND labels:"x" AND NOT labels:"y"`,
	} {
		var f selectorFlag
		if err := f.Set(text); err != nil {
			t.Errorf("%q: %v", text, err)
		} else if got := f.filter(); got != want {
			t.Errorf("%q becomes %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{"", "=v", "a=b,", "!", "!=v", "!!k", "a b=c", "!a=b", "k=a\nb", "k=\xff"} {
		if err := new(selectorFlag).Set(text); err == nil {
			t.Errorf("%q is taken for a selector", text)
		}
	}
	// Given twice, all of both.
	var f selectorFlag
	if f.Set("k=a") != nil || f.Set("k!=b") != nil || f.filter() != `labels.k = "a" AND labels.k != "b"` || f.String() != "k=a,k!=b" {
		t.Errorf("given twice: %s, %s", f.filter(), f.String())
	}
}

func TestBothFilters(t *testing.T) {
	for _, c := range [][3]string{
		{"a = b OR c = d", `labels.k = "v"`, `(a = b OR c = d) AND labels.k = "v"`},
		{"", `labels.k = "v"`, `labels.k = "v"`}, {"a = b", "", "a = b"}, {"*", "", "*"}, {"*", `labels.k = "v"`, `labels.k = "v"`}, {"", "", ""},
	} {
		if got := bothFilters(c[0], c[1]); got != c[2] {
			t.Errorf("%q and %q are %q, want %q", c[0], c[1], got, c[2])
		}
	}
}

// FuzzSelector holds that whatever is taken for a selector is a filter that says the same, whoever parses it, and that no
// label's value gets out of its quotes.
func FuzzSelector(f *testing.F) {
	f.Add("lab=a,old!=1,x,!y")
	f.Add(`k=" OR labels:"x`)
	f.Add(`k=\" AND name = "*`)
	f.Add("app/name=web,a.b-c!=é,NOT,AND=OR,7=8")
	declarations, err := filtering.NewDeclarations(filtering.DeclareStandardFunctions(),
		filtering.DeclareIdent("labels", filtering.TypeMap(filtering.TypeString, filtering.TypeString)))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s selectorFlag
		if s.Set(text) != nil {
			return
		}
		parsed, err := filtering.ParseFilterString(s.filter(), declarations)
		if err != nil {
			t.Fatalf("%q becomes %s: %v", text, s.filter(), err)
		}
		var want []string
		for part := range strings.SplitSeq(text, ",") {
			part = strings.TrimSpace(part)
			key, value, compares := strings.Cut(part, "=")
			value = strings.TrimSpace(value)
			bare := strings.TrimSpace(strings.Trim(key, "!"))
			switch {
			case compares && strings.HasSuffix(key, "!"):
				want = append(want, fmt.Sprintf("%q != %q", bare, value))
			case compares:
				want = append(want, fmt.Sprintf("%q = %q", bare, value))
			case strings.HasPrefix(part, "!"):
				want = append(want, fmt.Sprintf("NOT %q", bare))
			default:
				want = append(want, fmt.Sprintf("HAS %q", bare))
			}
		}
		if got := terms(t, parsed.CheckedExpr.GetExpr()); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%q becomes %s, which says %q and not %q", text, s.filter(), got, want)
		}
	})
}

// terms takes a conjunction of comparisons with labels apart.
func terms(t *testing.T, e *expr.Expr) []string {
	call := e.GetCallExpr()
	args := call.GetArgs()
	switch call.GetFunction() {
	case filtering.FunctionAnd:
		return append(terms(t, args[0]), terms(t, args[1])...)
	case filtering.FunctionNot:
		return []string{strings.Replace(terms(t, args[0])[0], "HAS", "NOT", 1)}
	case filtering.FunctionHas:
		return []string{fmt.Sprintf("HAS %q", args[1].GetConstExpr().GetStringValue())}
	case filtering.FunctionEquals, filtering.FunctionNotEquals:
		return []string{fmt.Sprintf("%q %s %q", args[0].GetSelectExpr().GetField(), call.GetFunction(), args[1].GetConstExpr().GetStringValue())}
	}
	t.Errorf("there is a %v in it", e)
	return []string{""}
}
