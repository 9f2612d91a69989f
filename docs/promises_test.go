package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	promise  = regexp.MustCompile(`(?m)^\| P\d+ \|.*$`)
	testName = regexp.MustCompile("`(Test[A-Z][A-Za-z0-9]*)`")
	testFunc = regexp.MustCompile(`(?m)^func (Test[A-Z][A-Za-z0-9]*)\(`)
)

// TestPromisesAreHeld looks whether each promise names a test, and whether each test that is named exists.
func TestPromisesAreHeld(t *testing.T) {
	page, err := os.ReadFile("reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	exist := tests(t)
	promises := promise.FindAllString(string(page), -1)
	if len(promises) < 5 {
		t.Errorf("only %d promises: is the table another by now?", len(promises))
	}
	for _, line := range promises {
		if !testName.MatchString(line) {
			t.Errorf("no test holds: %s", line)
		}
	}
	for _, match := range testName.FindAllStringSubmatch(string(page), -1) {
		if !exist[match[1]] {
			t.Errorf("there is no %s", match[1])
		}
	}
}

// tests are the names of all tests in the repository.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != ".." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, match := range testFunc.FindAllStringSubmatch(string(text), -1) {
			found[match[1]] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
