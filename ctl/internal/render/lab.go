package render

import (
	"io"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// Lab writes endpoints as a file that an apply reads: {"endpoints": [...]} with the fields that are set, as JSON, or as
// YAML in every other format.
func Lab(w io.Writer, format Format, list []*echov1.Endpoint) error {
	d := &documentWriter{emit: newYAMLEmitter(w)}
	if format == JSON {
		d.emit = func(doc []byte) error { return writeJSON(w, doc) }
	}
	return emitListAs(d, protojson.MarshalOptions{}, "endpoints", list)
}
