package verdict

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

const (
	// maxDepth is how deep parentheses and operators may nest.
	maxDepth = 100
	// maxCost bounds an evaluation, in CEL's units: an operator is one. An expression has fewer operators than
	// characters, so that this is never reached.
	maxCost = 10 * MaxLength
)

// environment is CEL with our names and operators, and nothing of its standard library. It is safe for concurrent use.
var environment = func() *cel.Env {
	options := []cel.EnvOption{
		cel.ParserRecursionLimit(maxDepth),
		cel.ParserErrorRecoveryLimit(1), // only the first error is told
		cel.Function("duration", cel.Overload("duration_of_text", []*cel.Type{cel.StringType}, cel.DurationType, cel.UnaryBinding(durationOf))),
		cel.Function(operators.LogicalNot, cel.Overload("not", []*cel.Type{cel.BoolType}, cel.BoolType,
			cel.UnaryBinding(func(v ref.Val) ref.Val { return !v.(types.Bool) }))),
		cel.Function(operators.LogicalAnd, overload("and", cel.BoolType, cel.BoolType, cel.BoolType)),
		cel.Function(operators.LogicalOr, overload("or", cel.BoolType, cel.BoolType, cel.BoolType)),
		cel.Function(operators.Conditional, cel.Overload("choose", []*cel.Type{cel.BoolType, cel.TypeParamType("A"), cel.TypeParamType("A")}, cel.TypeParamType("A"))),
		cel.Function(operators.Negate,
			cel.Overload("negate_number", []*cel.Type{cel.DoubleType}, cel.DoubleType,
				cel.UnaryBinding(func(v ref.Val) ref.Val { return -v.(types.Double) })),
			cel.Overload("negate_duration", []*cel.Type{cel.DurationType}, cel.DurationType,
				cel.UnaryBinding(func(v ref.Val) ref.Val { return ofNanoseconds(-nanoseconds(v)) }))),
		cel.Function(operators.Add,
			computed("add_numbers", cel.DoubleType, cel.DoubleType, cel.DoubleType, func(a, b float64) float64 { return a + b }),
			computed("add_durations", cel.DurationType, cel.DurationType, cel.DurationType, func(a, b float64) float64 { return a + b })),
		cel.Function(operators.Subtract,
			computed("subtract_numbers", cel.DoubleType, cel.DoubleType, cel.DoubleType, func(a, b float64) float64 { return a - b }),
			computed("subtract_durations", cel.DurationType, cel.DurationType, cel.DurationType, func(a, b float64) float64 { return a - b })),
		cel.Function(operators.Multiply,
			computed("multiply_numbers", cel.DoubleType, cel.DoubleType, cel.DoubleType, func(a, b float64) float64 { return a * b }),
			computed("multiply_duration_number", cel.DurationType, cel.DoubleType, cel.DurationType, func(a, b float64) float64 { return a * b }),
			computed("multiply_number_duration", cel.DoubleType, cel.DurationType, cel.DurationType, func(a, b float64) float64 { return a * b })),
		cel.Function(operators.Divide,
			computed("divide_numbers", cel.DoubleType, cel.DoubleType, cel.DoubleType, divide),
			computed("divide_duration_number", cel.DurationType, cel.DoubleType, cel.DurationType, divide),
			computed("divide_durations", cel.DurationType, cel.DurationType, cel.DoubleType, divide)),
		compared(operators.Less, func(a, b float64) bool { return a < b }),
		compared(operators.LessEquals, func(a, b float64) bool { return a <= b }),
		compared(operators.Greater, func(a, b float64) bool { return a > b }),
		compared(operators.GreaterEquals, func(a, b float64) bool { return a >= b }),
		equality(operators.Equals), equality(operators.NotEquals),
	}
	for i := range names {
		kind := cel.DoubleType
		if names[i].Kind == TimeDuration {
			kind = cel.DurationType
		}
		options = append(options, cel.Variable(names[i].Name, kind))
	}
	made, err := cel.NewCustomEnv(options...)
	if err != nil {
		panic(fmt.Sprintf("verdict: %v", err)) // only a mistake in this file or in names can cause it
	}
	return made
}()

func overload(id string, a, b, result *cel.Type, binding ...cel.OverloadOpt) cel.FunctionOpt {
	return cel.Overload(id, []*cel.Type{a, b}, result, binding...)
}

// compared makes an order of numbers and of durations.
func compared(operator string, holds func(a, b float64) bool) cel.EnvOption {
	binding := cel.BinaryBinding(func(a, b ref.Val) ref.Val { return types.Bool(holds(number(a), number(b))) })
	return cel.Function(operator,
		overload(operator+"_numbers", cel.DoubleType, cel.DoubleType, cel.BoolType, binding),
		overload(operator+"_durations", cel.DurationType, cel.DurationType, cel.BoolType, binding))
}

// equality says what may be equal; CEL itself compares.
func equality(operator string) cel.EnvOption {
	return cel.Function(operator,
		overload(operator+"_numbers", cel.DoubleType, cel.DoubleType, cel.BoolType),
		overload(operator+"_durations", cel.DurationType, cel.DurationType, cel.BoolType),
		overload(operator+"_bools", cel.BoolType, cel.BoolType, cel.BoolType))
}

// computed makes an overload of an arithmetic operator. Durations are computed with in nanoseconds; up to 104 days that
// is exact.
func computed(id string, a, b, result *cel.Type, compute func(a, b float64) float64) cel.FunctionOpt {
	return overload(id, a, b, result, cel.BinaryBinding(func(a, b ref.Val) ref.Val {
		value := compute(number(a), number(b))
		switch {
		case math.IsNaN(value) || math.IsInf(value, 0):
			return types.WrapErr(errNotFinite)
		case result == cel.DurationType:
			return ofNanoseconds(value)
		}
		return types.Double(value)
	}))
}

// divide by 0 is not finite, which computed refuses.
func divide(a, b float64) float64 { return a / b }

func number(v ref.Val) float64 {
	if d, ok := v.(types.Duration); ok {
		return float64(d.Duration)
	}
	return float64(v.(types.Double))
}

func nanoseconds(v ref.Val) float64 { return float64(v.(types.Duration).Duration) }

func ofNanoseconds(value float64) ref.Val {
	if math.Abs(value) >= math.MaxInt64 {
		return types.WrapErr(errNotFinite)
	}
	return types.Duration{Duration: time.Duration(math.Round(value))}
}

func durationOf(v ref.Val) ref.Val {
	d, err := time.ParseDuration(string(v.(types.String)))
	if err != nil {
		return types.NewErr(`a duration is written as "200us", "2ms", "1.5s" or "1m30s"`)
	}
	return types.Duration{Duration: d}
}

// compile reads one expectation. The error's Index is the caller's to fill in.
func compile(written string) (expectation, *Error) {
	none := expectation{}
	if n := utf8.RuneCountInString(written); n > MaxLength {
		return none, &Error{Message: fmt.Sprintf("%d characters are more than %d; make several expectations of it", n, MaxLength)}
	}
	if !utf8.ValidString(written) {
		return none, &Error{Message: "it is not valid UTF-8"}
	}
	s, bad := lex(written)
	if bad != nil {
		return none, bad
	}
	if len(s.names) == 0 {
		return none, &Error{Message: `it mentions no figure of the report; say as in "loss <= 0.1%" or "p99 < 2ms"`}
	}
	parsed, issues := environment.ParseSource(common.NewTextSource(string(s.cel)))
	if issues.Err() != nil {
		return none, s.syntaxError(issues.Errors()[0])
	}
	checked, issues := environment.Check(parsed)
	if issues.Err() != nil {
		return none, s.typeError(issues.Errors()[0])
	}
	if kind := checked.OutputType(); kind != cel.BoolType {
		return none, &Error{Message: fmt.Sprintf(`it is %s and says neither yes nor no; compare it, as in "p99 < 2ms"`, kindText(kind.String()))}
	}
	// Optimizing computes what is constant now, once, and so finds a bad text in duration("...").
	program, err := environment.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err != nil {
		return none, &Error{Message: err.Error()}
	}
	return expectation{text: written, names: s.names, program: program}, nil
}

// place answers which character of what was written an error of CEL is about.
func (s *source) place(where common.Location) int {
	at, line := 0, 1
	for ; line < where.Line() && at < len(s.cel); at++ {
		if s.cel[at] == '\n' {
			line++
		}
	}
	if at += where.Column(); at < 0 || at >= len(s.cel) {
		return len(s.text)
	}
	return s.origin[at]
}

// syntaxError says which token is out of place. CEL's own words list every token that it would have taken.
func (s *source) syntaxError(e *common.Error) *Error {
	if strings.Contains(e.Message, "recursion") {
		return &Error{Message: fmt.Sprintf("it nests deeper than %d", maxDepth)}
	}
	at := s.place(e.Location)
	rest := string(s.text[at:])
	if strings.TrimSpace(rest) == "" {
		return s.errorf(len(s.text), "something is missing at the end")
	}
	for _, token := range []*regexp.Regexp{text, numberToken, wordToken, symbol} {
		if found := token.FindString(rest); found != "" {
			if token == numberToken {
				found += suffixToken.FindString(rest[len(found):])
			}
			return s.errorf(at, "%s does not belong here, or something is missing before it", shorten(found))
		}
	}
	return s.errorf(at, "something is missing here")
}

// What CEL says of operands of the wrong types; && and || have words of their own.
var (
	noOverload = regexp.MustCompile(`^found no matching overload for '([^']+)' applied to '\((.*)\)'$`)
	notBool    = regexp.MustCompile(`^expected type 'bool' but found '(.*)'$`)
)

// typeError says what does not go together, in words.
func (s *source) typeError(e *common.Error) *Error {
	at := s.place(e.Location)
	if found := notBool.FindStringSubmatch(e.Message); found != nil {
		return s.errorf(at, `&& and || join what is true or false, and this is %s; compare it, as in "p99 < 2ms"`, kindText(found[1]))
	}
	found := noOverload.FindStringSubmatch(e.Message)
	if found == nil {
		return s.errorf(at, "%s", e.Message)
	}
	operator, kinds := strings.Trim(found[1], "_"), strings.Split(found[2], ", ")
	texts := make([]string, len(kinds))
	for i, kind := range kinds {
		texts[i] = kindText(kind)
	}
	switch {
	case found[1] == operators.Conditional:
		return s.errorf(at, "?: takes true or false, and then two values of one kind")
	case operator == "duration":
		return s.errorf(at, `duration() takes a text, as in duration("2ms"); "2ms" alone will do`)
	case len(kinds) == 1:
		return s.errorf(at, "%s does not go with %s", operator, texts[0])
	case isOrder(operator) && (kinds[0] == boolKind || kinds[1] == boolKind):
		return s.errorf(at, `%s compares %s with %s; a chain is written as "1ms < p50 && p50 < 2ms"`, operator, texts[0], texts[1])
	case isOrder(operator) && kinds[0] != kinds[1]:
		return s.errorf(at, `%s compares %s with %s; durations have a unit, as in "2ms"`, operator, texts[0], texts[1])
	}
	return s.errorf(at, "%s does not go with %s and %s", operator, texts[0], texts[1])
}

func isOrder(operator string) bool { return strings.ContainsAny(operator, "<>=") || operator == "!=" }

// boolKind is CEL's name of a type.
const boolKind = "bool"

// kindText is a type of CEL in words.
func kindText(kind string) string {
	switch kind {
	case "double":
		return "a number"
	case "duration", "google.protobuf.Duration":
		return "a duration"
	case boolKind:
		return "true or false"
	case "string":
		return "a text"
	}
	return kind
}
