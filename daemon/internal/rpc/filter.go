package rpc

import (
	"errors"
	"fmt"
	"strings"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"

	"github.com/echod/echod/daemon/internal/registry"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

const (
	maxFilterDepth = 64
	maxShownError  = 200
)

// matcher says whether an endpoint is asked for.
type matcher func(*registry.Endpoint) bool

// textFields are the fields of an endpoint that a filter compares as text.
var textFields = map[string]func(*registry.Endpoint) string{
	"name":        func(e *registry.Endpoint) string { return e.Name },
	"listen":      func(e *registry.Endpoint) string { return e.Listen },
	"address":     func(e *registry.Endpoint) string { return addressText(e.Address) },
	"description": func(e *registry.Endpoint) string { return e.Description },
	"protocol":    func(e *registry.Endpoint) string { return e.Protocol.String() },
	"state":       func(e *registry.Endpoint) string { return stateToProto(e.State).String() },
}

// filterable declares what a filter may name, and how.
var filterable = func() *filtering.Declarations {
	options := []filtering.DeclarationOption{
		filtering.DeclareStandardFunctions(),
		// AIP-160's sequence, "a = b c = d": all of them must be true.
		filtering.DeclareFunction(filtering.FunctionFuzzyAnd, filtering.NewFunctionOverload(
			"FUZZY_bool", filtering.TypeBool, filtering.TypeBool, filtering.TypeBool)),
		filtering.DeclareIdent("port", filtering.TypeInt),
		filtering.DeclareIdent("labels", filtering.TypeMap(filtering.TypeString, filtering.TypeString)),
	}
	for name := range textFields {
		options = append(options, filtering.DeclareIdent(name, filtering.TypeString))
	}
	// The values of the enums may be written bare, protocol = TCP, as well as quoted.
	for _, values := range []map[int32]string{echov1.Protocol_name, echov1.Endpoint_State_name} {
		for _, value := range values {
			options = append(options, filtering.DeclareIdent(value, filtering.TypeString))
		}
	}
	declarations, err := filtering.NewDeclarations(options...)
	if err != nil {
		panic("rpc: the filter's declarations contradict each other: " + err.Error())
	}
	return declarations
}()

// parseFilter reads an AIP-160 filter; an empty one matches everything. A text compared with = or != may have '*' at
// either end.
func parseFilter(filter string) (m matcher, err error) {
	if strings.TrimSpace(filter) == "" {
		return nil, nil
	}
	defer func() {
		if p := recover(); p != nil { // the parser is not ours, and the text is anybody's
			m, err = nil, badField("filter", "cannot be read: %v", p)
		}
	}()
	if depth := nesting(filter); depth > maxFilterDepth {
		return nil, badField("filter", "is nested %d deep, more than %d", depth, maxFilterDepth)
	}
	parsed, err := filtering.ParseFilterString(filter, filterable)
	if err != nil {
		return nil, badField("filter", "%s (fields: name, protocol, state, port, listen, address, description, labels.KEY; text in double quotes)",
			innermost(err))
	}
	m, err = compile(parsed.CheckedExpr.GetExpr())
	if err != nil {
		return nil, badField("filter", "%v", err)
	}
	return m, nil
}

// nesting answers how deep parentheses and negations go, those in quotes included: the parser follows each down, and
// tells of an error once for each.
func nesting(filter string) int {
	return strings.Count(filter, "(") + strings.Count(filter, "NOT") + strings.Count(filter, "-")
}

// innermost answers the part of a parser's error that says what is wrong, without the rules that it was found under.
func innermost(err error) string {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	text := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(lines[len(lines)-1]), "^"))
	return fmt.Sprintf("%.*s", maxShownError, text)
}

func compile(e *expr.Expr) (matcher, error) {
	call := e.GetCallExpr()
	if call == nil {
		return nil, fmt.Errorf("a comparison is wanted, as in: labels.rack = \"r1\"")
	}
	args := call.GetArgs()
	switch call.GetFunction() {
	case filtering.FunctionAnd, filtering.FunctionFuzzyAnd, filtering.FunctionOr:
		return compileBoth(call.GetFunction() == filtering.FunctionOr, args[0], args[1])
	case filtering.FunctionNot:
		inner, err := compile(args[0])
		if err != nil {
			return nil, err
		}
		return func(e *registry.Endpoint) bool { return !inner(e) }, nil
	}
	left, right := args[0], args[1]
	switch name := left.GetIdentExpr().GetName(); {
	case name == "port":
		return comparePort(call.GetFunction(), right)
	case name == "labels":
		key, err := text(right)
		return func(e *registry.Endpoint) bool { _, ok := e.Labels[key]; return ok }, err
	case textFields[name] != nil:
		field := textFields[name]
		return compareText(call.GetFunction(), right, func(e *registry.Endpoint) (string, bool) { return field(e), true })
	}
	if s := left.GetSelectExpr(); s.GetOperand().GetIdentExpr().GetName() == "labels" {
		key := s.GetField()
		return compareText(call.GetFunction(), right, func(e *registry.Endpoint) (string, bool) { v, ok := e.Labels[key]; return v, ok })
	}
	return nil, fmt.Errorf("the left side of %q must be a field", call.GetFunction())
}

func compileBoth(either bool, a, b *expr.Expr) (matcher, error) {
	left, err := compile(a)
	if err != nil {
		return nil, err
	}
	right, err := compile(b)
	if err != nil {
		return nil, err
	}
	if either {
		return func(e *registry.Endpoint) bool { return left(e) || right(e) }, nil
	}
	return func(e *registry.Endpoint) bool { return left(e) && right(e) }, nil
}

// text answers a literal, or the bare name of an enum's value.
func text(e *expr.Expr) (string, error) {
	if name := e.GetIdentExpr().GetName(); name != "" {
		if textFields[name] != nil {
			return "", fmt.Errorf("the right side must be a value, not the field %s; quote a text", name)
		}
		return name, nil
	}
	if c, ok := e.GetConstExpr().GetConstantKind().(*expr.Constant_StringValue); ok {
		return c.StringValue, nil
	}
	return "", fmt.Errorf("a text in double quotes is wanted on the right side")
}

// compareText compares a field with a value; where the endpoint lacks the field, only != is true.
func compareText(op string, value *expr.Expr, field func(*registry.Endpoint) (string, bool)) (matcher, error) {
	want, err := text(value)
	if err != nil {
		return nil, err
	}
	var holds func(string) bool
	switch op {
	case filtering.FunctionEquals:
		holds = func(s string) bool { return like(s, want) }
	case filtering.FunctionNotEquals:
		return func(e *registry.Endpoint) bool { s, ok := field(e); return !ok || !like(s, want) }, nil
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
	return func(e *registry.Endpoint) bool { s, ok := field(e); return ok && holds(s) }, nil
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

func comparePort(op string, value *expr.Expr) (matcher, error) {
	c, ok := value.GetConstExpr().GetConstantKind().(*expr.Constant_Int64Value)
	if !ok {
		return nil, fmt.Errorf("port is compared with a number")
	}
	want := c.Int64Value
	var holds func(int64) bool
	switch op {
	case filtering.FunctionEquals:
		holds = func(p int64) bool { return p == want }
	case filtering.FunctionNotEquals:
		holds = func(p int64) bool { return p != want }
	case filtering.FunctionLessThan:
		holds = func(p int64) bool { return p < want }
	case filtering.FunctionLessEquals:
		holds = func(p int64) bool { return p <= want }
	case filtering.FunctionGreaterThan:
		holds = func(p int64) bool { return p > want }
	case filtering.FunctionGreaterEquals:
		holds = func(p int64) bool { return p >= want }
	default:
		return nil, fmt.Errorf("a port cannot be compared with %q", op)
	}
	return func(e *registry.Endpoint) bool { return holds(int64(e.Address.Port())) }, nil
}
