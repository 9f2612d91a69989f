package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// jsonForm is JSON as the contract has it: lowerCamelCase, every field that has a value even if it is 0, no nulls;
// unknown fields refused; durations taken as people write them. Output is compact, with a newline behind each object.
type jsonForm struct{ runtime.JSONPb }

func newJSON() *jsonForm {
	return &jsonForm{runtime.JSONPb{
		MarshalOptions:   protojson.MarshalOptions{EmitDefaultValues: true},
		UnmarshalOptions: protojson.UnmarshalOptions{},
	}}
}

// Marshal writes v and a newline. protojson changes its spacing from build to build; ours stays.
func (j *jsonForm) Marshal(v any) ([]byte, error) {
	text, err := j.JSONPb.Marshal(v)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Compact(&out, text); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// Delimiter is what stands between the messages of a stream: Marshal has ended each with its newline.
func (j *jsonForm) Delimiter() []byte { return []byte{} }

// StreamContentType is the media type of one JSON object a line.
func (j *jsonForm) StreamContentType(any) string { return "application/x-ndjson" }

// NewDecoder reads one message, which must be all there is.
func (j *jsonForm) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		text, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(text)) == 0 {
			return io.EOF // grpc-gateway takes that for an empty message
		}
		return j.Unmarshal(text, v)
	})
}

// Unmarshal reads into a message, or into the field of one that is the body.
func (j *jsonForm) Unmarshal(text []byte, v any) error {
	msg, err := messageIn(v)
	if err != nil {
		return err
	}
	text, err = friendlyDurations(text, msg.ProtoReflect().Descriptor())
	if err != nil {
		return err
	}
	return j.UnmarshalOptions.Unmarshal(text, msg)
}

// messageIn answers v if it is a message, or makes the one that v points to.
func messageIn(v any) (proto.Message, error) {
	if msg, ok := v.(proto.Message); ok {
		return msg, nil
	}
	if at := reflect.ValueOf(v); at.Kind() == reflect.Pointer && at.Elem().Kind() == reflect.Pointer {
		if at.Elem().IsNil() {
			at.Elem().Set(reflect.New(at.Elem().Type().Elem()))
		}
		if msg, ok := at.Elem().Interface().(proto.Message); ok {
			return msg, nil
		}
	}
	return nil, fmt.Errorf("gateway: cannot read JSON into a %T", v)
}

const (
	durationName = "google.protobuf.Duration"
	// maxDepth is more than any message of the contract is nested. What is deeper is left to the real reader, which
	// refuses it without following it down.
	maxDepth = 64
)

var errTooDeep = errors.New("nested too deep")

// friendlyDurations rewrites the durations in a message's JSON from what people write ("40ms", "10m") to what protobuf
// takes ("0.04s"). All else is left as it is, letter by letter, for the real reader to judge.
func friendlyDurations(text []byte, message protoreflect.MessageDescriptor) ([]byte, error) {
	w := durationWalk{text: text, dec: json.NewDecoder(bytes.NewReader(text))}
	w.dec.UseNumber()
	if err := w.value(place{message: message}); err != nil {
		var bad *durationError
		if errors.As(err, &bad) {
			return nil, err
		}
		return text, nil // not well-formed: the real reader says what is wrong, and where
	}
	return append(w.out, text[w.copied:]...), nil
}

// place is where in the contract a JSON value stands: a message, a map's values, or nothing that concerns us.
type place struct {
	message protoreflect.MessageDescriptor
	values  protoreflect.FieldDescriptor // of a map, if it is one
}

type durationWalk struct {
	text   []byte
	dec    *json.Decoder
	out    []byte
	copied int // how much of text is in out
	depth  int
	path   []string // of the member that is being read
}

type durationError struct{ field, value string }

func (e *durationError) Error() string {
	return fmt.Sprintf("invalid value for duration field %s: %q; write it like \"40ms\", \"1.5s\" or \"10m\"", e.field, shorten(e.value))
}

func (w *durationWalk) value(at place) error {
	if w.depth++; w.depth > maxDepth {
		return errTooDeep
	}
	defer func() { w.depth-- }()
	token, err := w.dec.Token()
	if err != nil {
		return err
	}
	switch token {
	case json.Delim('{'):
		for w.dec.More() {
			if err := w.member(at); err != nil {
				return err
			}
		}
	case json.Delim('['):
		for w.dec.More() {
			if err := w.value(at); err != nil {
				return err
			}
		}
	default:
		return nil
	}
	_, err = w.dec.Token() // the closing one
	return err
}

func (w *durationWalk) member(at place) error {
	key, err := w.dec.Token()
	if err != nil {
		return err
	}
	name, _ := key.(string)
	w.path = append(w.path, name)
	defer func() { w.path = w.path[:len(w.path)-1] }()
	var field protoreflect.FieldDescriptor
	switch {
	case at.values != nil:
		field = at.values
	case at.message != nil:
		if field = at.message.Fields().ByJSONName(name); field == nil {
			field = at.message.Fields().ByTextName(name)
		}
	}
	switch {
	case field == nil:
		return w.value(place{})
	case field.IsMap():
		return w.value(place{values: field.MapValue()})
	case field.Message() != nil && field.Message().FullName() == durationName:
		return w.duration(strings.Join(w.path, "."))
	default:
		return w.value(place{message: field.Message()})
	}
}

// duration rewrites the next value if it is a text that Go reads as a duration and protobuf might not.
func (w *durationWalk) duration(field string) error {
	before := w.dec.InputOffset()
	token, err := w.dec.Token()
	if err != nil {
		return err
	}
	given, ok := token.(string)
	if !ok {
		if d, ok := token.(json.Delim); ok {
			return &durationError{field, d.String() + "..."}
		}
		if token == nil {
			return nil // null: absent
		}
		return &durationError{field, fmt.Sprint(token)}
	}
	d, err := time.ParseDuration(given)
	if err != nil {
		return &durationError{field, given}
	}
	after := w.dec.InputOffset()
	start := before + int64(bytes.IndexByte(w.text[before:after], '"'))
	w.out = append(w.out, w.text[w.copied:start]...)
	w.out = append(w.out, strconv.Quote(canonical(d))...)
	w.copied = int(after)
	return nil
}

// canonical writes a duration as protobuf's JSON has it.
func canonical(d time.Duration) string {
	sign := ""
	if d < 0 {
		sign = "-"
	}
	return fmt.Sprintf("%s%d.%09ds", sign, (d / time.Second).Abs(), (d % time.Second).Abs())
}
