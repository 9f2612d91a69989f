package server

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// jsonPath answers the value at a path such as "labels.rack" or "endpoints.0.name" as text; "#" is a length, and what is
// not there is "absent".
func jsonPath(text []byte, path string) string {
	var at any
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.UseNumber()
	if err := dec.Decode(&at); err != nil {
		return err.Error()
	}
	for step := range strings.SplitSeq(path, ".") {
		switch v := at.(type) {
		case map[string]any:
			next, ok := v[step]
			if !ok {
				return "absent"
			}
			at = next
		case []any:
			if step == "#" {
				return strconv.Itoa(len(v))
			}
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(v) {
				return "absent"
			}
			at = v[i]
		default:
			return "absent"
		}
	}
	return fmt.Sprint(at)
}
