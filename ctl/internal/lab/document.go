package lab

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// documents reads a text as YAML or JSON, whichever it is, into one kind of tree. An error has its place in it.
func documents(s Source) ([]*yaml.Node, error) {
	if len(s.Text) > MaxFileBytes {
		return nil, fmt.Errorf("%s: has more than %d MiB, which is the most a file may have", s.Name, MaxFileBytes>>20)
	}
	text := bytes.TrimPrefix(s.Text, []byte("\ufeff"))
	if !utf8.Valid(text) {
		return nil, fmt.Errorf("%s: is not a text in UTF-8", s.Name)
	}
	isJSON := strings.HasSuffix(strings.ToLower(s.Name), ".json")
	// JSON is nearly YAML, but several values in a row, tabs and surrogates are not.
	if start := bytes.TrimLeft(text, " \t\r\n"); isJSON || bytes.HasPrefix(start, []byte("{")) || bytes.HasPrefix(start, []byte("[")) {
		docs, err := jsonDocuments(s.Name, text)
		if err == nil || isJSON {
			return docs, err
		}
	}
	return yamlDocuments(s.Name, text)
}

// yamlLine is how the parser says where an error is; it leaves out the first line.
var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// yamlError is the parser's error with its place.
func yamlError(name string, err error) error {
	found := yamlLine.FindStringSubmatch(err.Error())
	if found == nil || strings.Contains(err.Error(), "unknown anchor") { // of which it does not say where
		return fmt.Errorf("%s: is no YAML: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	line, _ := strconv.Atoi(found[1])
	message := err.Error()[len(found[0]):]
	// In errors of its upper half the lines count from 0.
	if line == 0 || strings.HasPrefix(message, "did not find expected ") {
		line++
	}
	return fmt.Errorf("%s:%d: is no YAML: %s", name, line, message)
}

func yamlDocuments(name string, text []byte) (docs []*yaml.Node, err error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var doc yaml.Node
		err := decoder.Decode(&doc)
		switch {
		case errors.Is(err, io.EOF):
			return docs, nil
		case err != nil:
			return nil, yamlError(name, err)
		}
		// A document of comments only, as between two "---", says nothing.
		if top := doc.Content[0]; top.Kind != yaml.ScalarNode || top.Value != "" || top.Tag != "!!null" {
			docs = append(docs, top)
		}
	}
}

func jsonDocuments(name string, text []byte) (docs []*yaml.Node, err error) {
	w := &jsonWalk{text: text, dec: json.NewDecoder(bytes.NewReader(text)), line: 1, column: 1}
	w.dec.UseNumber()
	for {
		node, err := w.value(0)
		if errors.Is(err, io.EOF) && len(bytes.TrimSpace(text[w.dec.InputOffset():])) == 0 {
			return docs, nil
		}
		if err != nil {
			offset := w.dec.InputOffset()
			var syntax *json.SyntaxError
			if errors.As(err, &syntax) {
				offset = max(offset, syntax.Offset-1)
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				offset, err = int64(len(text)), errors.New("it ends too early")
			}
			w.advance(min(offset, int64(len(text))))
			return nil, fmt.Errorf("%s: is no JSON: %w", Place{name, w.line, w.column}, err)
		}
		docs = append(docs, node)
	}
}

// jsonWalk makes a tree of a JSON text, with the place of each value.
type jsonWalk struct {
	text []byte
	dec  *json.Decoder
	// The place of the byte at offset.
	offset       int64
	line, column int
}

func (w *jsonWalk) advance(to int64) {
	for ; w.offset < to; w.offset++ {
		switch b := w.text[w.offset]; {
		case b == '\n':
			w.line, w.column = w.line+1, 1
		case utf8.RuneStart(b):
			w.column++
		}
	}
}

func (w *jsonWalk) value(depth int) (*yaml.Node, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("nested more than %d deep", maxNesting)
	}
	start := w.dec.InputOffset()
	token, err := w.dec.Token()
	if depth > 0 && errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	// Between tokens there are blanks and at most one of these.
	start += int64(len(w.text[start:]) - len(bytes.TrimLeft(w.text[start:], " \t\r\n,:")))
	w.advance(start)
	node := &yaml.Node{Kind: yaml.ScalarNode, Line: w.line, Column: w.column}
	switch t := token.(type) {
	case json.Delim:
		node.Kind, node.Tag = yaml.SequenceNode, "!!seq"
		if t == '{' {
			node.Kind, node.Tag = yaml.MappingNode, "!!map"
		}
		return node, w.content(node, depth)
	case string:
		node.Tag, node.Value, node.Style = "!!str", t, yaml.DoubleQuotedStyle
	case json.Number:
		node.Tag, node.Value = "!!int", t.String()
		if strings.ContainsAny(node.Value, ".eE") {
			node.Tag = "!!float"
		}
	case bool:
		node.Tag, node.Value = "!!bool", fmt.Sprint(t)
	default:
		node.Tag, node.Value = "!!null", "null"
	}
	return node, nil
}

func (w *jsonWalk) content(node *yaml.Node, depth int) error {
	for w.dec.More() {
		// In an object, keys and values take turns, and a YAML mapping's content does the same.
		item, err := w.value(depth + 1)
		if err != nil {
			return err
		}
		node.Content = append(node.Content, item)
	}
	_, err := w.dec.Token() // the closing one
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}
