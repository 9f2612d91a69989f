package lab

import (
	"errors"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// errTold ends the reading after a problem that makes the rest pointless.
var errTold = errors.New("told already")

// Read reads files, each of one or more documents {endpoints: [...]}. Durations are taken as people write them. The error
// is *Problems where values are wrong: unknown keys, those that cannot be set, values of another kind, no name, and names
// that are there twice. What a value may be is the daemon's to say.
func Read(sources []Source) (*Lab, error) { return read(sources, maxAliased) }

func read(sources []Source, mostAliased int) (*Lab, error) {
	r := &reader{lab: &Lab{}, names: map[string]Place{}, problems: &Problems{}, mostAliased: mostAliased}
	for _, s := range sources {
		docs, err := documents(s)
		if err != nil {
			return nil, err
		}
		if len(docs) == 0 {
			return nil, fmt.Errorf("%s: says nothing; a file for no endpoints says: endpoints: []", s.Name)
		}
		r.file = s.Name
		for _, doc := range docs {
			if r.document(doc) != nil {
				return nil, r.problems
			}
		}
	}
	if len(r.problems.Lines) > 0 {
		return nil, r.problems
	}
	return r.lab, nil
}

type reader struct {
	lab      *Lab
	file     string
	problems *Problems
	names    map[string]Place

	within      int // aliases
	aliased     int // values that were read within one
	mostAliased int
}

func (r *reader) place(n *yaml.Node) Place { return Place{r.file, n.Line, n.Column} }

func (r *reader) problem(n *yaml.Node, format string, args ...any) {
	r.problems.add(r.place(n), format, args...)
}

// follow answers what a node stands for, and counts what is read through aliases; leave is to be called behind it.
func (r *reader) follow(n *yaml.Node) (followed *yaml.Node, leave func(), err error) {
	leave = func() {}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
		r.within++
		leave = func() { r.within-- }
	}
	if r.within > 0 {
		if r.aliased++; r.aliased > r.mostAliased {
			r.problem(n, "aliases stand for more than %d values; write some of them out", r.mostAliased)
			return nil, leave, errTold
		}
	}
	return n, leave, nil
}

func (r *reader) document(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		r.problem(n, "a document is \"endpoints:\" and a list of them; here is %s", kindOf(n))
		return nil
	}
	members, err := r.members(n, 0)
	if err != nil {
		return err
	}
	if len(members) == 0 {
		r.problem(n, "says nothing; a document for no endpoints says: endpoints: []")
	}
	for _, m := range members {
		if m.key.Value != "endpoints" {
			r.problem(m.key, "unknown key %q%s", m.key.Value, suggest(m.key.Value, []string{"endpoints"}, "a document has"))
			continue
		}
		if err := r.list(m.value, "endpoints", r.endpoint); err != nil {
			return err
		}
	}
	return nil
}

// member is a key of a mapping with its value.
type member struct {
	key, value *yaml.Node
	merged     bool
}

// members are a mapping's, with those that "<<" takes over from others: what is written in the mapping itself wins, and
// of others the first.
func (r *reader) members(n *yaml.Node, depth int) (all []member, err error) {
	if depth > maxNesting {
		r.problem(n, "\"<<\" is nested more than %d deep", maxNesting)
		return nil, errTold
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		key, leave, err := r.follow(key)
		leave()
		switch {
		case err != nil:
			return nil, err
		case key.Kind != yaml.ScalarNode:
			r.problem(n.Content[i], "a key is a word; here is %s", kindOf(key))
		case key.Tag == "!!merge":
		default:
			if first, twice := seen[key.Value]; twice {
				r.problem(key, "%q is there twice: here and in line %d", key.Value, all[first].key.Line)
				continue
			}
			seen[key.Value] = len(all)
			all = append(all, member{key: key, value: value})
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag != "!!merge" {
			continue
		}
		merged, err := r.merge(n.Content[i+1], depth)
		if err != nil {
			return nil, err
		}
		for _, m := range merged {
			if _, taken := seen[m.key.Value]; !taken {
				seen[m.key.Value] = len(all)
				all = append(all, member{m.key, m.value, true})
			}
		}
	}
	return all, nil
}

func (r *reader) merge(n *yaml.Node, depth int) ([]member, error) {
	n, leave, err := r.follow(n)
	defer leave()
	switch {
	case err != nil:
		return nil, err
	case n.Kind == yaml.MappingNode:
		r.within++ // whichever way it came here, it is read again
		defer func() { r.within-- }()
		return r.members(n, depth+1)
	case n.Kind == yaml.SequenceNode && depth <= maxNesting:
		var all []member
		for _, item := range n.Content {
			more, err := r.merge(item, depth+1)
			if err != nil {
				return nil, err
			}
			all = append(all, more...)
		}
		return all, nil
	}
	r.problem(n, "\"<<\" takes a mapping, as in \"<<: *web\"; here is %s", kindOf(n))
	return nil, nil
}

// list reads each item of a list.
func (r *reader) list(n *yaml.Node, what string, item func(n *yaml.Node, i int) error) error {
	n, leave, err := r.follow(n)
	defer leave()
	if err != nil {
		return err
	}
	if n.Kind != yaml.SequenceNode {
		r.problem(n, "%s is a list; here is %s", what, kindOf(n))
		return nil
	}
	for i, v := range n.Content {
		if err := item(v, i); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) endpoint(n *yaml.Node, _ int) error {
	e := &echov1.Endpoint{}
	at := r.place(n)
	if len(r.lab.Endpoints) == MaxEndpoints {
		r.problems.add(at, "there are more than %d endpoints, which is the most that are applied as one change; apply them in parts", MaxEndpoints)
		return errTold
	}
	r.lab.Endpoints = append(r.lab.Endpoints, e)
	r.lab.marks = append(r.lab.marks, []mark{{"", at}})
	before := r.problems.count()
	if err := r.message(n, e.ProtoReflect(), "", "an endpoint"); err != nil {
		return err
	}
	if e.GetName() == "" {
		if r.problems.count() == before {
			r.problems.add(at, "this endpoint has no name, and apply tells endpoints by their names")
		}
		return nil
	}
	at = r.lab.Place(len(r.lab.marks)-1, "name")
	if first, twice := r.names[e.GetName()]; twice {
		r.problems.add(at, "%q is there twice: here and at %s", e.GetName(), first)
		return nil
	}
	r.names[e.GetName()] = at
	return nil
}

func (r *reader) mark(n *yaml.Node, path string) {
	last := len(r.lab.marks) - 1
	r.lab.marks[last] = append(r.lab.marks[last], mark{path, r.place(n)})
}

// message reads a mapping into a message, whose path begins those of its fields.
func (r *reader) message(n *yaml.Node, m protoreflect.Message, path, what string) error {
	n, leave, err := r.follow(n)
	defer leave()
	if err != nil {
		return err
	}
	if n.Kind != yaml.MappingNode {
		r.problem(n, "%s is a mapping of keys to values; here is %s", what, kindOf(n))
		return nil
	}
	members, err := r.members(n, 0)
	if err != nil {
		return err
	}
	fields := m.Descriptor().Fields()
	seen := map[protoreflect.FieldNumber]*yaml.Node{}
	for _, member := range members {
		name := member.key.Value
		field := fields.ByJSONName(name)
		if field == nil {
			field = fields.ByTextName(name)
		}
		switch {
		case field == nil:
			r.problem(member.key, "unknown key %q%s", name, suggest(name, settable(fields), what+" has"))
			continue
		case outputOnly(field):
			r.problem(member.key, "%s is what the daemon answers, and cannot be set; echoctl export leaves it out", name)
			continue
		case seen[field.Number()] != nil:
			if !member.merged {
				r.problem(member.key, "%q is there twice: here and as %q in line %d", name, seen[field.Number()].Value,
					seen[field.Number()].Line)
			}
			continue
		}
		seen[field.Number()] = member.key
		if member.merged {
			r.within++
		}
		err := r.field(member.value, m, field, path+string(field.Name()))
		if member.merged {
			r.within--
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// field reads a value into a field of m.
func (r *reader) field(n *yaml.Node, m protoreflect.Message, field protoreflect.FieldDescriptor, path string) error {
	r.mark(n, path)
	switch {
	case field.IsMap():
		return r.labels(n, m.Mutable(field).Map(), field, path)
	case field.IsList():
		list := m.Mutable(field).List()
		return r.list(n, field.JSONName(), func(n *yaml.Node, i int) error {
			r.mark(n, fmt.Sprintf("%s[%d]", path, i))
			v, err := r.scalar(n, field)
			if v.IsValid() {
				list.Append(v)
			}
			return err
		})
	case field.Message() != nil && field.Message().FullName() != durationName:
		return r.message(n, m.Mutable(field).Message(), path+".", field.JSONName())
	}
	v, err := r.scalar(n, field)
	if v.IsValid() {
		m.Set(field, v)
	}
	return err
}

// labels reads a mapping of texts to texts.
func (r *reader) labels(n *yaml.Node, into protoreflect.Map, field protoreflect.FieldDescriptor, path string) error {
	n, leave, err := r.follow(n)
	defer leave()
	if err != nil {
		return err
	}
	if n.Kind != yaml.MappingNode {
		r.problem(n, "%s is a mapping of keys to values; here is %s", field.JSONName(), kindOf(n))
		return nil
	}
	members, err := r.members(n, 0)
	if err != nil {
		return err
	}
	for _, m := range members {
		key := m.key.Value
		if problem := textProblem(m.key); problem != "" {
			r.problem(m.key, "the key of a label is a text, and %s", problem)
			continue
		}
		r.mark(m.value, fmt.Sprintf("%s[%q]", path, key))
		v, err := r.scalar(m.value, field.MapValue())
		if err != nil {
			return err
		}
		if v.IsValid() {
			into.Set(protoreflect.ValueOfString(key).MapKey(), v)
		}
	}
	return nil
}

// settable are the names of the fields that a file may have.
func settable(fields protoreflect.FieldDescriptors) (names []string) {
	for i := range fields.Len() {
		if f := fields.Get(i); !outputOnly(f) {
			names = append(names, f.JSONName())
		}
	}
	return slices.Clip(names)
}
