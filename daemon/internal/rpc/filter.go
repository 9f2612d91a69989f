package rpc

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"

	"github.com/echod/echod/daemon/internal/event"
	"github.com/echod/echod/daemon/internal/monitor"
	"github.com/echod/echod/daemon/internal/registry"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

const (
	maxFilterDepth = 64
	maxShownError  = 200
)

// filterable is what a filter may say of a T, and how to read a filter.
type filterable[T any] struct {
	texts     map[string]func(*T) string        // compared as text
	values    map[string][]string               // all that a text can be, where that is known: another one is a slip
	numbers   map[string]func(*T) int64         // compared with a number
	times     map[string]func(*T) time.Time     // compared with a point in time; zero is absent
	durations map[string]func(*T) time.Duration // compared with a duration
	labels    func(*T) map[string]string
	fields    string // all of them, as a message lists them

	declarations *filtering.Declarations
}

// endpointFilter is what a filter may say of an endpoint.
var endpointFilter = newFilterable(endpointFields)

// watchedFilter is what a filter of a watch may say of an endpoint. That one is renewed is no event, so that a watch would
// not know which endpoints a filter over their expiry matches.
var watchedFilter = newFilterable(func() filterable[registry.Endpoint] {
	f := endpointFields
	f.times = maps.Clone(f.times)
	delete(f.times, "expire_time")
	f.fields = strings.Replace(f.fields, " expire_time,", "", 1) + ", but not expire_time, since a renewal is no event"
	return f
}())

// endpointFields are the fields of an endpoint that a filter may compare.
var endpointFields = filterable[registry.Endpoint]{
	texts: map[string]func(*registry.Endpoint) string{
		"name":              func(e *registry.Endpoint) string { return e.Name },
		"uid":               func(e *registry.Endpoint) string { return e.UID },
		"listen":            func(e *registry.Endpoint) string { return e.Listen },
		"address":           func(e *registry.Endpoint) string { return addressText(e.Address) },
		"host":              func(e *registry.Endpoint) string { return hostText(e.Address) },
		"description":       func(e *registry.Endpoint) string { return e.Description },
		"network_namespace": func(e *registry.Endpoint) string { return e.NetworkNamespace },
		"interface":         func(e *registry.Endpoint) string { return e.Interface },
		"protocol":          func(e *registry.Endpoint) string { return e.Protocol.String() },
		"session":           func(e *registry.Endpoint) string { return e.Session },
		"state":             func(e *registry.Endpoint) string { return stateToProto(e.State).String() },
	},
	values: map[string][]string{"protocol": valuesOf(echov1.Protocol_name), "state": valuesOf(echov1.Endpoint_State_name)},
	numbers: map[string]func(*registry.Endpoint) int64{
		"port": func(e *registry.Endpoint) int64 { return int64(e.Address.Port()) },
	},
	times: map[string]func(*registry.Endpoint) time.Time{
		"create_time": func(e *registry.Endpoint) time.Time { return e.CreateTime },
		"update_time": func(e *registry.Endpoint) time.Time { return e.UpdateTime },
		"expire_time": func(e *registry.Endpoint) time.Time { return e.ExpireTime },
	},
	durations: map[string]func(*registry.Endpoint) time.Duration{
		"ttl": func(e *registry.Endpoint) time.Duration { return e.TTL },
	},
	labels: func(e *registry.Endpoint) map[string]string { return e.Labels },
	fields: "name, uid, protocol, state, port, listen, address, host, description, session, network_namespace, interface, labels.KEY, create_time, update_time, expire_time, ttl",
}

// monitorFilter is what a filter may say of a monitor.
var monitorFilter = newFilterable(filterable[monitor.Monitor]{
	texts: map[string]func(*monitor.Monitor) string{
		"name":        func(m *monitor.Monitor) string { return m.Name },
		"endpoint":    func(m *monitor.Monitor) string { return targetOf(m).GetEndpoint() },
		"address":     func(m *monitor.Monitor) string { return targetOf(m).GetAddress() },
		"description": func(m *monitor.Monitor) string { return m.Description },
		"state":       func(m *monitor.Monitor) string { return monitorStateToProto(m.State).String() },
		"verdict":     func(m *monitor.Monitor) string { return monitorVerdictToProto(m.Verdict).String() },
	},
	values: map[string][]string{"state": valuesOf(echov1.Monitor_State_name), "verdict": valuesOf(echov1.Monitor_Verdict_name)},
	labels: func(m *monitor.Monitor) map[string]string { return m.Labels },
	fields: "name, endpoint, address, state, verdict, description, labels.KEY",
})

// eventFilter is what a filter may say of an event.
var eventFilter = newFilterable(filterable[event.Event]{
	texts: map[string]func(*event.Event) string{
		"type":  func(e *event.Event) string { return eventTypeToProto(e.Type).String() },
		"kind":  func(e *event.Event) string { return string(e.Kind) },
		"name":  func(e *event.Event) string { return e.Name },
		"state": eventState,
	},
	values: map[string][]string{
		"type":  valuesOf(echov1.Event_Type_name),
		"kind":  {"endpoint", "probe", "monitor", "daemon", "traffic"},
		"state": valuesOf(echov1.Endpoint_State_name, echov1.Probe_State_name, echov1.Monitor_State_name, echov1.DaemonEvent_State_name),
	},
	labels: eventLabels,
	fields: "type, kind, name, state, labels.KEY",
})

// valuesOf answers the values of enums, each once and in their order, without those that stand for none.
func valuesOf(enums ...map[int32]string) (values []string) {
	for _, enum := range enums {
		for _, number := range slices.Sorted(maps.Keys(enum)) {
			if value := enum[number]; !strings.HasSuffix(value, "_UNSPECIFIED") && !slices.Contains(values, value) {
				values = append(values, value)
			}
		}
	}
	return values
}

// targetOf answers what a monitor probes.
func targetOf(m *monitor.Monitor) *echov1.ProbeTarget {
	p, err := probeFromJSON(m.Probe)
	if err != nil {
		return nil
	}
	return p.GetTarget()
}

// newFilterable declares the fields, in lowerCamelCase too. The parser takes each for a text: what stands on the right side is
// read when the filter is compiled.
func newFilterable[T any](f filterable[T]) *filterable[T] {
	options := []filtering.DeclarationOption{
		filtering.DeclareStandardFunctions(),
		// AIP-160's sequence, "a = b c = d": all of them must be true.
		filtering.DeclareFunction(filtering.FunctionFuzzyAnd, filtering.NewFunctionOverload(
			"FUZZY_bool", filtering.TypeBool, filtering.TypeBool, filtering.TypeBool)),
		filtering.DeclareIdent("labels", filtering.TypeMap(filtering.TypeString, filtering.TypeString)),
	}
	f.texts, f.numbers, f.times, f.durations = bothCases(f.texts), bothCases(f.numbers), bothCases(f.times), bothCases(f.durations)
	for _, name := range slices.Concat(slices.Collect(maps.Keys(f.texts)), slices.Collect(maps.Keys(f.numbers)),
		slices.Collect(maps.Keys(f.times)), slices.Collect(maps.Keys(f.durations))) {
		options = append(options, filtering.DeclareIdent(name, filtering.TypeString))
	}
	declarations, err := filtering.NewDeclarations(options...)
	if err != nil {
		panic("rpc: the filter's declarations contradict each other: " + err.Error())
	}
	f.declarations = declarations
	return &f
}

// bothCases adds the lowerCamelCase name of each field that has another.
func bothCases[F any](fields map[string]F) map[string]F {
	both := make(map[string]F, 2*len(fields))
	for name, field := range fields {
		first, rest, _ := strings.Cut(name, "_")
		for word := range strings.SplitSeq(rest, "_") {
			if word != "" {
				first += strings.ToUpper(word[:1]) + word[1:]
			}
		}
		both[name], both[first] = field, field
	}
	return both
}

// parse reads an AIP-160 filter; an empty one matches everything and is nil. A text compared with = or != may have '*' at
// either end.
func (f *filterable[T]) parse(filter string) (m func(*T) bool, err error) {
	if strings.TrimSpace(filter) == "" {
		return nil, nil
	}
	defer func() {
		if p := recover(); p != nil { // the parser is not ours, and the text is anybody's
			m, err = nil, badField("filter", "cannot be read: %v", p)
		}
	}()
	quoted := quoteBare(filter)
	if depth := nesting(quoted); depth > maxFilterDepth {
		return nil, badField("filter", "is nested %d deep, more than %d", depth, maxFilterDepth)
	}
	parsed, err := filtering.ParseFilterString(quoted, f.declarations)
	if err != nil {
		return nil, badField("filter", "%s (fields: %s; text with spaces in double quotes)", innermost(err), f.fields)
	}
	m, err = f.compile(parsed.CheckedExpr.GetExpr())
	if err != nil {
		return nil, badField("filter", "%v", err)
	}
	return m, nil
}

// bare is a quoted text, which comes first so that nothing in it is taken for more; or the key of a label; or a comparator and
// the text behind it that is not quoted.
var bare = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'` +
	`|\b(labels\.)([^\s"'()=<>!:,]+)` +
	`|((?:!=|<=|>=|[=<>:])\s*)([^\s"'()=<>!,]+)`)

// quoteBare quotes texts, numbers, times and keys of labels that are not quoted. AIP-160 has them bare, as in
// labels.app.example/part-of = web-1 or ttl < 10m; the parser stops at each '-' and '.' in them.
func quoteBare(filter string) string {
	var quoted strings.Builder
	end := 0
	for _, at := range bare.FindAllStringSubmatchIndex(filter, -1) {
		for _, group := range []int{4, 8} { // the key and the text
			from, to := at[group], at[group+1]
			if from < 0 || slices.Contains(keywords, filter[from:to]) {
				continue // a keyword is where a text is forgotten, as in name = AND
			}
			quoted.WriteString(filter[end:from] + `"` + strings.ReplaceAll(filter[from:to], `\`, `\\`) + `"`)
			end = to
		}
	}
	return quoted.String() + filter[end:]
}

var keywords = []string{"AND", "OR", "NOT"}

// nesting answers how deep parentheses and negations go: the parser follows each down, and tells of an error once for each.
func nesting(filter string) (deepest int) {
	var lexer filtering.Lexer
	lexer.Init(filter)
	open, negations := 0, 0 // parentheses, and the negations in a row
	for {
		token, err := lexer.Lex()
		if err != nil {
			return deepest // it is the end, or the parser comes no further either
		}
		switch token.Type {
		case filtering.TokenTypeLeftParen:
			open++
		case filtering.TokenTypeRightParen:
			open--
		case filtering.TokenTypeNot, filtering.TokenTypeMinus:
			negations++
		case filtering.TokenTypeWhitespace:
		default:
			negations = 0
		}
		deepest = max(deepest, open+negations)
	}
}

// plainWords are errors of the parser in words that need no knowledge of it.
var plainWords = map[string]string{
	"EOF":                  "it ends too early",
	"non-bool result type": "a comparison is wanted, as in name = \"web-1\"",
}

// position is where the parser saw something, which is not where that stands in the text before its values were quoted.
var position = regexp.MustCompile(`^[0-9]+:[0-9]+: | \([0-9]+:[0-9]+\)$`)

// innermost answers the part of a parser's error that says what is wrong, without the rules that it was found under.
func innermost(err error) string {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	text := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(lines[len(lines)-1]), "^"))
	for _, layer := range []string{"check call expr: ", "check select expr: "} { // the checker's are in the text
		text = strings.ReplaceAll(text, layer, "")
	}
	if plain := plainWords[text]; plain != "" {
		text = plain
	}
	if name, ok := strings.CutPrefix(text, "undeclared identifier "); ok {
		text = name + " is no field"
	}
	text = position.ReplaceAllString(text, "")
	return fmt.Sprintf("%.*s", maxShownError, text)
}

func (f *filterable[T]) compile(e *expr.Expr) (func(*T) bool, error) {
	call := e.GetCallExpr()
	if call == nil {
		return nil, fmt.Errorf("a comparison is wanted, as in: labels.rack = \"r1\"")
	}
	args := call.GetArgs()
	switch call.GetFunction() {
	case filtering.FunctionAnd, filtering.FunctionFuzzyAnd, filtering.FunctionOr:
		return f.compileBoth(call.GetFunction() == filtering.FunctionOr, args[0], args[1])
	case filtering.FunctionNot:
		inner, err := f.compile(args[0])
		if err != nil {
			return nil, err
		}
		return func(t *T) bool { return !inner(t) }, nil
	}
	left, right := args[0], args[1]
	switch name := left.GetIdentExpr().GetName(); {
	case f.numbers[name] != nil:
		holds, err := compareNumber(name, call.GetFunction(), right)
		field := f.numbers[name]
		return func(t *T) bool { return holds(field(t)) }, err
	case f.times[name] != nil:
		return f.compareTime(name, call.GetFunction(), right)
	case f.durations[name] != nil:
		return f.compareDuration(name, call.GetFunction(), right)
	case name == "labels":
		key, err := text(right)
		if key == "*" {
			return func(t *T) bool { return len(f.labels(t)) > 0 }, err
		}
		return func(t *T) bool { _, ok := f.labels(t)[key]; return ok }, err
	case f.texts[name] != nil:
		field := f.texts[name]
		if call.GetFunction() == filtering.FunctionHas && isStar(right) {
			return func(t *T) bool { return field(t) != "" }, nil
		}
		return compareText(call.GetFunction(), right, f.values[name], func(t *T) (string, bool) { return field(t), true })
	}
	if s := left.GetSelectExpr(); s.GetOperand().GetIdentExpr().GetName() == "labels" {
		key := s.GetField()
		return compareText(call.GetFunction(), right, nil, func(t *T) (string, bool) { v, ok := f.labels(t)[key]; return v, ok })
	}
	return nil, fmt.Errorf("the left side of %q must be a field", call.GetFunction())
}

func (f *filterable[T]) compileBoth(either bool, a, b *expr.Expr) (func(*T) bool, error) {
	left, err := f.compile(a)
	if err != nil {
		return nil, err
	}
	right, err := f.compile(b)
	if err != nil {
		return nil, err
	}
	if either {
		return func(t *T) bool { return left(t) || right(t) }, nil
	}
	return func(t *T) bool { return left(t) && right(t) }, nil
}

// text answers the text on the right side of a comparison.
func text(e *expr.Expr) (string, error) {
	if c, ok := e.GetConstExpr().GetConstantKind().(*expr.Constant_StringValue); ok {
		return c.StringValue, nil
	}
	return "", fmt.Errorf("one value is wanted on the right side")
}

// compareText compares a field with a value; where a T lacks the field, only != is true. Where all values are known, one that
// is equal to none of them is an error.
func compareText[T any](op string, value *expr.Expr, values []string, field func(*T) (string, bool)) (func(*T) bool, error) {
	want, err := text(value)
	if err != nil {
		return nil, err
	}
	equality := op == filtering.FunctionEquals || op == filtering.FunctionNotEquals
	if equality && values != nil && !slices.ContainsFunc(values, func(v string) bool { return like(v, want) }) {
		return nil, fmt.Errorf("%.*q is none of the values: %s", maxShownValue, want, strings.Join(values, ", "))
	}
	var holds func(string) bool
	switch op {
	case filtering.FunctionEquals:
		holds = func(s string) bool { return like(s, want) }
	case filtering.FunctionNotEquals:
		return func(t *T) bool { s, ok := field(t); return !ok || !like(s, want) }, nil
	case filtering.FunctionHas:
		holds = func(s string) bool { return want == "*" || strings.Contains(s, want) }
	case filtering.FunctionLessThan:
		holds = func(s string) bool { return s < want }
	case filtering.FunctionLessEquals:
		holds = func(s string) bool { return s <= want }
	case filtering.FunctionGreaterThan:
		holds = func(s string) bool { return s > want }
	case filtering.FunctionGreaterEquals:
		holds = func(s string) bool { return s >= want }
	default:
		return nil, fmt.Errorf("text cannot be compared with %q", op)
	}
	return func(t *T) bool { s, ok := field(t); return ok && holds(s) }, nil
}

// like compares with a pattern that may have '*' at either end, as AIP-160 has it.
func like(s, pattern string) bool {
	head, tail := strings.CutPrefix(pattern, "*")
	core, open := strings.CutSuffix(head, "*")
	switch {
	case tail && open:
		return strings.Contains(s, core)
	case tail:
		return strings.HasSuffix(s, core)
	case open:
		return strings.HasPrefix(s, core)
	default:
		return s == pattern
	}
}

// isStar says whether a value is "*".
func isStar(value *expr.Expr) bool {
	return value.GetConstExpr().GetStringValue() == "*"
}

// compareTime compares a field with a point in time; where a T lacks it, only != is true.
func (f *filterable[T]) compareTime(name, op string, value *expr.Expr) (func(*T) bool, error) {
	field := f.times[name]
	if op == filtering.FunctionHas && isStar(value) {
		return func(t *T) bool { return !field(t).IsZero() }, nil
	}
	text, err := text(value)
	if err != nil {
		return nil, err
	}
	want, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, fmt.Errorf("%s is compared with a time as in \"2026-01-31T18:00:00Z\", not %.*q", name, maxShownValue, text)
	}
	holds, err := comparison(name, op)
	if op == filtering.FunctionNotEquals {
		return func(t *T) bool { return !field(t).Equal(want) }, nil
	}
	return func(t *T) bool { at := field(t); return !at.IsZero() && holds(at.Compare(want)) }, err
}

// compareDuration compares a field with a duration.
func (f *filterable[T]) compareDuration(name, op string, value *expr.Expr) (func(*T) bool, error) {
	field := f.durations[name]
	if op == filtering.FunctionHas && isStar(value) {
		return func(t *T) bool { return field(t) != 0 }, nil
	}
	text, err := text(value)
	if err != nil {
		return nil, err
	}
	want, err := time.ParseDuration(text)
	if err != nil {
		return nil, fmt.Errorf("%s is compared with a duration as in 90s or 1h30m, not %.*q", name, maxShownValue, text)
	}
	holds, err := comparison(name, op)
	return func(t *T) bool {
		d := field(t)
		there := d != 0 || want == 0 || op == filtering.FunctionNotEquals // one that is not there is not short
		return there && holds(cmp.Compare(d, want))
	}, err
}

// compareNumber answers what a number must be for a comparison with the field of that name to hold.
func compareNumber(name, op string, value *expr.Expr) (func(int64) bool, error) {
	text, err := text(value)
	if err != nil {
		return nil, err
	}
	want, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%s is compared with a number, not %.*q", name, maxShownValue, text)
	}
	holds, err := comparison(name, op)
	return func(n int64) bool { return holds(cmp.Compare(n, want)) }, err
}

// comparison answers whether an order of two values, as cmp.Compare has it, is what an operator asks for.
func comparison(name, op string) (holds func(order int) bool, err error) {
	switch op {
	case filtering.FunctionEquals:
		return func(order int) bool { return order == 0 }, nil
	case filtering.FunctionNotEquals:
		return func(order int) bool { return order != 0 }, nil
	case filtering.FunctionLessThan:
		return func(order int) bool { return order < 0 }, nil
	case filtering.FunctionLessEquals:
		return func(order int) bool { return order <= 0 }, nil
	case filtering.FunctionGreaterThan:
		return func(order int) bool { return order > 0 }, nil
	case filtering.FunctionGreaterEquals:
		return func(order int) bool { return order >= 0 }, nil
	default:
		return nil, fmt.Errorf("%s cannot be compared with %q", name, op)
	}
}
