package lab

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
)

const durationName protoreflect.FullName = "google.protobuf.Duration"

// kindOf says what a node is, as a message about it does.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return kindOf(n.Alias)
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "the number " + shorten(n.Value)
	case "!!bool":
		return n.Value
	default:
		return strconv.Quote(shorten(n.Value))
	}
}

// shorten keeps a message readable.
func shorten(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}

// plainDigits are the numbers that everybody reads alike: to YAML 1.1, 010 is 8 and 1_0 is 10.
var plainDigits = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

// readElsewhere are the texts that readers of YAML 1.1 take for booleans, or for numbers to the base 60.
var readElsewhere = regexp.MustCompile(`^(?i:y|n|yes|no|on|off)$|^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$`)

// quoted tells whether a scalar can be nothing but a text.
func quoted(n *yaml.Node) bool {
	return n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
}

// textProblem says why a scalar is not plainly a text; empty when it is.
func textProblem(n *yaml.Node) string {
	switch tag := n.ShortTag(); {
	case quoted(n):
		return ""
	case n.Tag == "!!merge" || tag == "!!str" && !readElsewhere.MatchString(n.Value):
		return ""
	case tag == "!!null":
		return "here is nothing; leave the key out for the default, or write \"\""
	case tag == "!!str":
		return fmt.Sprintf("%s is something else to some readers of YAML: write it in quotes", n.Value)
	default:
		return fmt.Sprintf("%s is none: write it in quotes", shorten(n.Value))
	}
}

// scalar reads a value of a field that is neither a map nor, but for durations, a message. The value is not valid after a
// problem; the error is errTold.
func (r *reader) scalar(n *yaml.Node, field protoreflect.FieldDescriptor) (v protoreflect.Value, err error) {
	n, leave, err := r.follow(n)
	defer leave()
	if err != nil {
		return v, err
	}
	name := field.JSONName()
	if field.ContainingMessage().IsMapEntry() {
		name = "the value of a label"
	}
	switch {
	case n.Kind != yaml.ScalarNode:
		r.problem(n, "%s is %s; here is %s", name, wanted(field), kindOf(n))
		return v, nil
	case n.Style&yaml.TaggedStyle != 0:
		r.problem(n, "%s has the tag %s: write the value without one", name, n.Tag)
		return v, nil
	case field.Kind() == protoreflect.StringKind:
		if problem := textProblem(n); problem != "" {
			if name == "listen" && n.ShortTag() == "!!int" {
				problem = fmt.Sprintf("%s is a number: write \":%s\", or \"127.0.0.1:%s\"", n.Value, n.Value, n.Value)
			}
			r.problem(n, "%s is a text, and %s", name, problem)
			return v, nil
		}
		return protoreflect.ValueOfString(n.Value), nil
	}
	v, ok := parse(n, field)
	if !ok {
		r.problem(n, "%s is %s; here is %s", name, wanted(field), kindOf(n))
		return protoreflect.Value{}, nil
	}
	return v, nil
}

// wanted says what a field takes.
func wanted(field protoreflect.FieldDescriptor) string {
	switch field.Kind() {
	case protoreflect.StringKind:
		return "a text"
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.EnumKind:
		names := enumNames(field.Enum())
		return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
	case protoreflect.Uint32Kind:
		return "a whole number from 0 to 4294967295"
	case protoreflect.Uint64Kind:
		return "a whole number, 0 or more"
	default:
		return `a duration, as "40ms", "1.5s" or "10m"`
	}
}

// enumNames are an enum's values but for the one that says nothing.
func enumNames(enum protoreflect.EnumDescriptor) (names []string) {
	for i := range enum.Values().Len() {
		if v := enum.Values().Get(i); v.Number() != 0 {
			names = append(names, string(v.Name()))
		}
	}
	return names
}

// parse reads what is no text. Numbers may be quoted, as REST writes those of 64 bits.
func parse(n *yaml.Node, field protoreflect.FieldDescriptor) (v protoreflect.Value, ok bool) {
	switch field.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n.Value == "true"), !quoted(n) && (n.Value == "true" || n.Value == "false")
	case protoreflect.EnumKind:
		value := field.Enum().Values().ByName(protoreflect.Name(n.Value))
		if value == nil || value.Number() == 0 {
			return v, false
		}
		return protoreflect.ValueOfEnum(value.Number()), true
	case protoreflect.Uint32Kind:
		i, err := strconv.ParseUint(n.Value, 10, 32)
		return protoreflect.ValueOfUint32(uint32(i)), err == nil && plainDigits.MatchString(n.Value)
	case protoreflect.Uint64Kind:
		i, err := strconv.ParseUint(n.Value, 10, 64)
		return protoreflect.ValueOfUint64(i), err == nil && plainDigits.MatchString(n.Value)
	case protoreflect.MessageKind:
		// A number would have no unit; 0 needs none.
		d, err := time.ParseDuration(n.Value)
		return protoreflect.ValueOfMessage(durationpb.New(d).ProtoReflect()), err == nil
	}
	return v, false
}

// outputOnly tells of fields that the daemon answers and does not take.
func outputOnly(field protoreflect.FieldDescriptor) bool {
	behaviours, _ := proto.GetExtension(field.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	return slices.Contains(behaviours, annotations.FieldBehavior_OUTPUT_ONLY)
}

// suggest is what a message about an unknown key ends with: the key that may have been meant, else all there are.
func suggest(key string, known []string, of string) string {
	best, least := "", len(key)/3+1
	for _, k := range known {
		if d := distance(fold(key), fold(k)); d < least || d == least && best == "" {
			best, least = k, d
		}
	}
	if best != "" {
		return "; did you mean " + best + "?"
	}
	return "; " + of + " " + strings.Join(known, ", ")
}

// fold makes idle_timeout, IdleTimeout and idle-timeout the same.
func fold(s string) string { return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(s)) }

// distance is Levenshtein's: how many letters to insert, delete or replace. Long words are told apart by their beginning.
func distance(a, b string) int {
	const most = 64
	a, b = a[:min(len(a), most)], b[:min(len(b), most)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
