// Package packaging_test has systemd check its units.
package packaging_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// analyze copies the units, with programs that are there, and has systemd's tool look at them.
func analyze(t *testing.T, args ...string) (string, error) {
	t.Helper()
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed: the units are not checked")
	}
	dir := t.TempDir()
	for _, name := range []string{"echod.service", "echod.socket"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.NewReplacer("/usr/bin/echod", os.Args[0], "/usr/bin/echoctl", os.Args[0]).Replace(string(text))
		if err := os.WriteFile(filepath.Join(dir, name), []byte(changed), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command(tool, args...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	return string(out), err
}

func TestUnits(t *testing.T) {
	out, err := analyze(t, "verify", "--man=no", "./echod.service", "./echod.socket")
	if err != nil || strings.Contains(out, "echod.") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestTheServiceIsShutIn holds the unit to the exposure that systemd gives it, 0 to 10.
func TestTheServiceIsShutIn(t *testing.T) {
	const most = 2.0
	out, err := analyze(t, "security", "--offline=yes", "--no-pager", "./echod.service")
	_, level, found := strings.Cut(out, "exposure level for echod.service: ")
	if err != nil && !found {
		t.Skipf("systemd-analyze cannot tell: %v\n%s", err, out)
	}
	number, err := strconv.ParseFloat(strings.Fields(level + " ")[0], 64)
	if err != nil || number > most {
		t.Errorf("exposure %q, more than %v: %v", strings.TrimSpace(level), most, err)
	}
}

// TestTraps looks for what would be wrong and no tool tells.
func TestTraps(t *testing.T) {
	text, err := os.ReadFile("echod.service")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		for setting, why := range map[string]string{
			"ProcSubset=":       "hides net.core.somaxconn, and fewer connections may wait",
			"RuntimeDirectory=": "takes the control socket of echod.socket along",
		} {
			if strings.HasPrefix(line, setting) {
				t.Errorf("%s %s", setting, why)
			}
		}
	}
}
