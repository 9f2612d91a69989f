package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
)

// writeJSON writes a JSON text indented by two spaces. protojson varies its white space on purpose; this does not.
func writeJSON(w io.Writer, doc []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, doc, "", "  "); err != nil {
		return fmt.Errorf("cannot write JSON: %w", err)
	}
	b.WriteByte('\n')
	_, err := w.Write(escapeJSON(b.Bytes()))
	return err
}

// writeJSONLine writes a JSON text on a line of its own.
func writeJSONLine(w io.Writer, doc []byte) error {
	var b bytes.Buffer
	if err := json.Compact(&b, doc); err != nil {
		return fmt.Errorf("cannot write JSON: %w", err)
	}
	b.WriteByte('\n')
	_, err := w.Write(escapeJSON(b.Bytes()))
	return err
}

// escapeJSON writes characters that a terminal might obey (C1 controls, DEL, those that turn the direction of text) as
// \uXXXX. JSON itself asks for that below U+0020 only. They can stand in strings alone, so the value stays the same.
func escapeJSON(doc []byte) []byte {
	if bytes.IndexFunc(doc, hidden) < 0 {
		return doc
	}
	var b bytes.Buffer
	for _, r := range string(doc) {
		switch {
		case !hidden(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes()
}

// hidden tells of characters that are no text to look at; line feeds are the layout's own.
func hidden(r rune) bool { return r != '\n' && !unicode.IsGraphic(r) }
