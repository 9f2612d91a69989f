package rpc

import (
	"os"
	"regexp"
	"testing"
)

// TestTheDocsKnowEveryReason looks for each reason of an error in the table of docs/rest.md.
func TestTheDocsKnowEveryReason(t *testing.T) {
	text, err := os.ReadFile("../../../docs/rest.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range table {
		if row.reason != "" && !regexp.MustCompile(`(?m)^\| \d+ \|.*\b`+row.reason+`\b`).Match(text) {
			t.Errorf("docs/rest.md has no %s", row.reason)
		}
	}
}
