// Package verdict judges what a probe measured by what was expected of it: "loss <= 0.1%", or "p99 < 2ms && reordered ==
// 0". It owns the language of expectations and the names in it (Figures). It never probes and changes no report. Whoever has
// a probe.Report may call it.
//
// The language is CEL (https://cel.dev) with one kind of number, durations written as people write them (200us, 2ms, 1.5s,
// 1m30s) and percentages (0.1%). It has && || ! and ?:, the comparisons, + - * and /, parentheses, and nothing else: there
// are no loops and no texts to build, so that an expression costs no more than its length.
//
// A comparison with a value that is not known is not met, and neither is its negation. An expectation is met only when
// what is known decides so: "lost == 0 || p99 < 2ms" is when nothing was lost, whatever p99 is.
package verdict

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/echod/echod/daemon/probe"
)

const (
	// MaxExpectations is how many expectations Compile takes.
	MaxExpectations = 32
	// MaxLength is how long one of them may be, in characters.
	MaxLength = 500
)

// Expectations are compiled, ready to judge reports. They do not change and are safe for concurrent use.
type Expectations struct{ all []expectation }

type expectation struct {
	text    string
	names   []*name // those that it mentions, each once, in order
	program cel.Program
}

// Verdict is what became of one expectation.
type Verdict struct {
	// Expect is what was expected, as written.
	Expect string
	// Met: the report says so. An expectation that what is known does not decide is not met.
	Met bool
	// Seen is each name that the expectation mentions, in its order.
	Seen []Seen
	// Message says why it is not met where Seen does not show it: what is not known, and why, or what cannot be computed.
	Message string
}

// Seen is a name with its value.
type Seen struct {
	Name string
	// Value is as people write it: "1.23ms", "0.05%", "12"; empty when it is not known.
	Value string
}

// Error says what is wrong with one expectation.
type Error struct {
	// Index is its place in what Compile was given, from 0.
	Index int
	// Column is where in its text, in characters from 1; 0 when it is about the whole.
	Column int
	// Message says what is wrong and what to do, in one line.
	Message string
	// excerpt shows the place, in two lines; empty when Column is 0.
	excerpt string
}

// Error is the message and, below it, the expectation with a caret under the place.
func (e *Error) Error() string {
	if e.Column == 0 {
		return e.Message
	}
	return fmt.Sprintf("column %d: %s\n%s", e.Column, e.Message, e.excerpt)
}

// Errors are all that is wrong: at most one error an expectation, in their order.
type Errors []*Error

// Error is all of them, one after the other.
func (e Errors) Error() string {
	texts := make([]string, len(e))
	for i, one := range e {
		texts[i] = fmt.Sprintf("expectation %d: %v", one.Index+1, one)
	}
	return strings.Join(texts, "\n")
}

// Compile reads expectations. The error is Errors when some of them are no good, or says that there are more than
// MaxExpectations.
func Compile(texts []string) (*Expectations, error) {
	if len(texts) > MaxExpectations {
		return nil, fmt.Errorf("%d expectations are more than %d; join some with &&", len(texts), MaxExpectations)
	}
	compiled := &Expectations{all: make([]expectation, 0, len(texts))}
	var bad Errors
	for i, text := range texts {
		one, err := compile(text)
		if err != nil {
			err.Index = i
			bad = append(bad, err)
			continue
		}
		compiled.all = append(compiled.all, one)
	}
	if len(bad) > 0 {
		return nil, bad
	}
	return compiled, nil
}

// Texts are the expectations as written. Nil when e is nil.
func (e *Expectations) Texts() []string {
	if e == nil {
		return nil
	}
	texts := make([]string, len(e.all))
	for i := range e.all {
		texts[i] = e.all[i].text
	}
	return texts
}

// Judge answers what becomes of each expectation, in their order, by a report that may be a report so far. Nil when e is
// nil.
func (e *Expectations) Judge(report probe.Report) []Verdict {
	if e == nil {
		return nil
	}
	verdicts := make([]Verdict, len(e.all))
	for i := range e.all {
		verdicts[i] = e.all[i].judge(&report)
	}
	return verdicts
}

// Met tells whether all verdicts are met.
func Met(verdicts []Verdict) bool {
	return !slices.ContainsFunc(verdicts, func(v Verdict) bool { return !v.Met })
}

func (x *expectation) judge(report *probe.Report) Verdict {
	v := Verdict{Expect: x.text, Seen: make([]Seen, 0, len(x.names))}
	known := make(map[string]any, len(x.names))
	var missing []string
	for _, n := range x.names {
		value, ok := n.get(report)
		if !ok {
			v.Seen = append(v.Seen, Seen{Name: n.Name})
			missing = append(missing, n.Name+" is not known: "+n.unknown)
			continue
		}
		v.Seen = append(v.Seen, Seen{Name: n.Name, Value: n.write(value)})
		known[n.Name] = n.toCEL(value)
	}
	// A name that is not known is not in the activation, which makes an error of it. CEL carries an error through every
	// operator but && and ||, whose other side may decide alone.
	result, _, err := x.program.Eval(known)
	switch {
	case err == nil:
		v.Met = result == ref.Val(types.True)
	case len(missing) > 0:
		v.Message = strings.Join(missing, "; ")
	default:
		v.Message = "it cannot be computed: " + err.Error()
	}
	return v
}

// errNotFinite is what arithmetic fails with.
var errNotFinite = errors.New("it divides by 0, or a value gets too large")

// writeDuration is exact, and can be written into an expectation from any keyboard.
func writeDuration(d time.Duration) string { return strings.Replace(d.String(), "µ", "u", 1) }
