package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"

	"go.yaml.in/yaml/v3"
)

// newYAMLEmitter writes JSON texts as YAML documents, with "---" between one and the next.
func newYAMLEmitter(w io.Writer) func(doc []byte) error {
	first := true
	return func(doc []byte) error {
		dec := json.NewDecoder(bytes.NewReader(doc))
		dec.UseNumber()
		node, err := yamlNode(dec)
		if err != nil {
			return fmt.Errorf("cannot write YAML: %w", err)
		}
		var b bytes.Buffer
		if !first {
			b.WriteString("---\n")
		}
		first = false
		enc := yaml.NewEncoder(&b)
		enc.SetIndent(2)
		if err := enc.Encode(node); err != nil {
			return fmt.Errorf("cannot write YAML: %w", err)
		}
		if err := enc.Close(); err != nil {
			return fmt.Errorf("cannot write YAML: %w", err)
		}
		_, err = w.Write(b.Bytes())
		return err
	}
}

// yamlNode reads one JSON value. It goes by tokens and not by a map, because the fields' order is to stay.
func yamlNode(dec *json.Decoder) (*yaml.Node, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Delim:
		return yamlCollection(dec, t)
	case string:
		return yamlString(t), nil
	case json.Number:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: t.String()}, nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(t)}, nil
	default:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
	}
}

func yamlCollection(dec *json.Decoder, open json.Delim) (*yaml.Node, error) {
	node := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	if open == '{' {
		node = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	}
	for dec.More() {
		// In an object, keys and values take turns, and a YAML mapping's content does the same.
		item, err := yamlNode(dec)
		if err != nil {
			return nil, err
		}
		node.Content = append(node.Content, item)
	}
	_, err := dec.Token()
	return node, err
}

// readElsewhere matches strings that YAML 1.1 takes for booleans or numbers to the base 60. Version 1.2, which the
// encoder goes by, does not quote them, but readers of 1.1 are common.
var readElsewhere = regexp.MustCompile(`^(?i:y|n|yes|no|on|off)$|^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$`)

func yamlString(s string) *yaml.Node {
	node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if readElsewhere.MatchString(s) {
		node.Style = yaml.DoubleQuotedStyle
	}
	return node
}
