package rpc

import (
	"fmt"
	"slices"
	"strings"

	"go.einride.tech/aip/fieldmask"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

const (
	maxMaskPaths = 1000
	maxMaskShown = 64
)

// applyMask writes the fields of src that mask names into dst. Paths may be in lowerCamelCase, as JSON has the names. An
// empty mask stands for the fields that src has, "*" for all settable ones; output-only fields are passed over. It
// answers the paths that it wrote, in snake_case.
func applyMask(dst, src proto.Message, mask *fieldmaskpb.FieldMask) ([]string, error) {
	paths, err := settablePaths(src, mask)
	if err != nil {
		return nil, err
	}
	// To set a field of a message that neither has back to its default would make that message, which may mean something.
	there := slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		names := strings.Split(path, ".")
		return !hasParent(dst.ProtoReflect(), names) && !hasParent(src.ProtoReflect(), names)
	})
	if len(there) > 0 {
		fieldmask.Update(&fieldmaskpb.FieldMask{Paths: there}, dst, proto.Clone(src))
	}
	return paths, nil
}

// hasParent says whether a message has the one that holds the last field of a path.
func hasParent(m protoreflect.Message, names []string) bool {
	for _, name := range names[:len(names)-1] {
		field := m.Descriptor().Fields().ByName(protoreflect.Name(name))
		if field == nil || fieldsOf(field) == nil || !m.Has(field) {
			return false
		}
		m = m.Get(field).Message()
	}
	return true
}

func settablePaths(src proto.Message, mask *fieldmaskpb.FieldMask) ([]string, error) {
	m := src.ProtoReflect()
	asked := mask.GetPaths()
	if slices.Equal(asked, []string{""}) {
		asked = nil // how a mask of nothing is written in a query, and what REST makes of an empty body
	}
	switch {
	case len(asked) > maxMaskPaths:
		return nil, badField("update_mask", "has %d paths, more than %d", len(asked), maxMaskPaths)
	case len(asked) == 0:
		asked = setPaths(m, "")
	case slices.Equal(asked, []string{"*"}):
		for i := range m.Descriptor().Fields().Len() {
			asked = append(asked, string(m.Descriptor().Fields().Get(i).Name()))
		}
		asked = asked[1:]
	}
	var paths []string
	for _, path := range asked {
		names, settable, err := resolvePath(m.Descriptor(), path)
		if err != nil {
			return nil, badField("update_mask", "%v", err)
		}
		if settable {
			paths = append(paths, strings.Join(names, "."))
		}
	}
	return paths, nil
}

// setPaths answers the paths of the fields that a message has, down to those that have none of their own: what REST makes
// of a body without a mask, too.
func setPaths(m protoreflect.Message, prefix string) (paths []string) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		path := prefix + string(fd.Name())
		if inner := fieldsOf(fd); inner != nil && inner.Fields().Len() > 0 {
			if below := setPaths(v.Message(), path+"."); len(below) > 0 {
				paths = append(paths, below...)
				return true
			}
		}
		paths = append(paths, path)
		return true
	})
	return paths
}

// fieldsOf answers the message whose fields a path may name below this one, or nil: lists, maps and what is one value to
// people (durations, timestamps) are taken as a whole.
func fieldsOf(fd protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if fd.IsMap() || fd.IsList() || fd.Message() == nil || strings.HasPrefix(string(fd.Message().FullName()), "google.protobuf.") {
		return nil
	}
	return fd.Message()
}

// resolvePath finds the fields that a path names.
func resolvePath(message protoreflect.MessageDescriptor, path string) (names []string, settable bool, err error) {
	settable = true
	for segment := range strings.SplitSeq(path, ".") {
		if message == nil {
			return nil, false, fmt.Errorf("%.*q: %q has no fields of its own to name", maxMaskShown, path, strings.Join(names, "."))
		}
		field := message.Fields().ByJSONName(segment)
		if field == nil {
			field = message.Fields().ByName(protoreflect.Name(segment))
		}
		if field == nil {
			return nil, false, fmt.Errorf("%.*q: %s has no field %.*q", maxMaskShown, path, message.Name(), maxMaskShown, segment)
		}
		if outputOnly(field) {
			settable = false
		}
		names = append(names, string(field.Name()))
		message = fieldsOf(field)
	}
	return names, settable, nil
}

func outputOnly(field protoreflect.FieldDescriptor) bool {
	behavior, _ := proto.GetExtension(field.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	return slices.Contains(behavior, annotations.FieldBehavior_OUTPUT_ONLY)
}
