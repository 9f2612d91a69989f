package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/echod/echod/daemon/echotest"
)

// patience bounds every wait of the tests; a machine may be slow.
const patience = 60 * time.Second

// echod is the binary that TestMain has built; shared is a daemon that most tests use together.
var (
	echod  string
	shared *echotest.Process
)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "echoctl-test")
	if err != nil {
		return complain(err)
	}
	defer os.RemoveAll(dir)
	if echod, err = echotest.Build(dir); err != nil {
		return complain(err)
	}
	code := echotest.Main(m, func(t echotest.TB) { shared = ownDaemon(t) })
	if err := goleak.Find(); err != nil {
		code = max(code, complain(err))
	}
	return code
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// ownDaemon is for tests that need to be alone.
func ownDaemon(t echotest.TB) *echotest.Process {
	t.Helper()
	return echotest.StartProcess(t, echotest.ProcessOptions{Binary: echod})
}

// shell is where a test runs echoctl.
type shell struct {
	t        *testing.T
	ctx      context.Context
	env      map[string]string
	terminal bool
	width    int
	// stderrTerminal and stderrWidth are the same of standard error.
	stderrTerminal bool
	stderrWidth    int
	// stdin is what is typed, at a terminal or not.
	stdin         string
	stdinTerminal bool
	stdout        interface {
		Write([]byte) (int, error)
		String() string
	}
}

// at is a shell whose echoctl talks with the given server.
func at(t *testing.T, server string) *shell {
	return &shell{t: t, ctx: t.Context(), env: map[string]string{"ECHOCTL_SERVER": server}}
}

// result is all that a run of echoctl leaves.
type result struct {
	stdout, stderr string
	code           int
}

func (s *shell) run(args ...string) result {
	s.t.Helper()
	out := s.stdout
	if out == nil {
		out = &bytes.Buffer{}
	}
	var stderr bytes.Buffer
	env := Env{
		Stdin: strings.NewReader(s.stdin), StdinTerminal: s.stdinTerminal, Stdout: out, Stderr: &stderr, Terminal: s.terminal, Width: s.width,
		StderrTerminal: s.stderrTerminal, StderrWidth: s.stderrWidth,
		LookupEnv: func(key string) (string, bool) { v, ok := s.env[key]; return v, ok },
	}
	code := Run(s.ctx, env, args)
	r := result{out.String(), stderr.String(), code}
	s.t.Logf("echoctl %q: exit %d\n%s%s", args, code, r.stdout, r.stderr)
	// Whatever happens, nobody is to see gRPC's own words.
	for _, text := range []string{r.stdout, r.stderr} {
		if strings.Contains(text, "rpc error") || strings.Contains(text, "desc =") {
			s.t.Errorf("echoctl %q speaks gRPC: %s", args, text)
		}
	}
	return r
}

// ok runs echoctl, which must succeed, and answers its output.
func (s *shell) ok(args ...string) string {
	s.t.Helper()
	r := s.run(args...)
	if r.code != 0 {
		s.t.Fatalf("echoctl %q: exit %d: %s", args, r.code, r.stderr)
	}
	return r.stdout
}

// json runs echoctl with -o json and answers what it says, as a map.
func (s *shell) json(args ...string) map[string]any {
	s.t.Helper()
	out := s.ok(append(args, "-o", "json")...)
	var m map[string]any
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		s.t.Fatalf("echoctl %q: %v: %s", args, err, out)
	}
	return m
}

// What a summary says on some hosts, or when they are busy, and not on others: with user timestamps a pause of the
// daemon's takes a round trip out of rtt, too.
var (
	hostly  = regexp.MustCompile(`(?m)^(application rtt|jitter|timestamps:|schedule:) .*\n| \(paused\)`)
	anyTime = regexp.MustCompile(`(?m)^rtt (= [0-9.]+|min/mean/p50/p90/p95/p99/max/stddev = ([0-9.]+/){7}[0-9.]+) ms$`)
)

// steady is the result without what depends on the host.
func (r result) steady() result {
	r.stdout = anyTime.ReplaceAllString(hostly.ReplaceAllString(r.stdout, ""), "rtt = TIMES")
	return r
}

// want compares a run with what it should leave; "*" stands for anything.
func (r result) want(t *testing.T, code int, stdout, stderr string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit %d, want %d", r.code, code)
	}
	wantText(t, "stdout", r.stdout, stdout)
	wantText(t, "stderr", r.stderr, stderr)
}

// wantText compares texts. In want, "*" stands for anything on a line, and runs of spaces are one: the width of columns
// depends on ports and names, and their layout has golden files of its own.
func wantText(t *testing.T, what, got, want string) {
	t.Helper()
	pattern := regexp.QuoteMeta(spaces.ReplaceAllString(want, " "))
	pattern = "^" + strings.ReplaceAll(pattern, `\*`, "[^\n]*") + "$"
	if !regexp.MustCompile(pattern).MatchString(spaces.ReplaceAllString(got, " ")) {
		t.Errorf("%s is:\n%s\nwant:\n%s", what, got, want)
	}
}

var spaces = regexp.MustCompile(" +")

// field is a value in a JSON object, by its path: "tcp.oneShot".
func field(m map[string]any, path string) any {
	var v any = m
	for key := range strings.SplitSeq(path, ".") {
		inner, _ := v.(map[string]any)
		v = inner[key]
	}
	return v
}

// wantField fails the test unless the value at path is want, as JSON.
func wantField(t *testing.T, m map[string]any, path, want string) {
	t.Helper()
	got, err := json.Marshal(field(m, path))
	if err != nil || string(got) != want {
		t.Errorf("%s is %s, want %s", path, got, want)
	}
}

// remove deletes endpoints when the test ends.
func (s *shell) remove(names ...string) {
	s.t.Cleanup(func() {
		// t's context has ended by then.
		s.ctx = context.Background()
		s.run(append([]string{"delete"}, names...)...)
	})
}
