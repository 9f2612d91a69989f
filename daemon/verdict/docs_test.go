package verdict_test

import (
	"os"
	"strings"
	"testing"

	"github.com/echod/echod/daemon/verdict"
)

// TestEveryNameIsDocumented holds the table in docs/probes.md to the names that there are.
func TestEveryNameIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/probes.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "## Expectations\n")
	if !found {
		t.Fatal("docs/probes.md has no section on expectations")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for _, f := range verdict.Figures() {
		if !strings.Contains(section, "`"+f.Name+"`") {
			t.Errorf("docs/probes.md does not list %s", f.Name)
		}
	}
}
