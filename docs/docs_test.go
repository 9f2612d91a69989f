// Package docs_test runs every console block of the README and of docs/ against a real daemon, and compares what is shown
// with what came. `go test ./docs -update` writes what came into the pages.
package docs_test

import (
	"bytes"
	"context"
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the outputs that came into the pages")

const patience = time.Minute

func TestPages(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the pages are for a POSIX shell")
	}
	for _, program := range []string{"sh", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	for _, address := range []string{"127.0.0.1:7007", "127.0.0.1:7070", ":17007", ":17008"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%s, which the pages use, is taken: %v", address, err)
			}
			t.Skipf("%s, which the pages use, is taken: %v", address, err)
		}
		l.Close()
	}
	root := build(t)
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append([]string{"../README.md"}, pages...) {
		t.Run(filepath.Base(page), func(t *testing.T) {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			s := &session{t: t, root: root}
			defer s.end()
			got := s.page(string(text))
			if *update && got != string(text) {
				if err := os.WriteFile(page, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// build makes a folder that looks like the project's to who follows the pages: with the binaries in bin, and the examples.
func build(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	command := exec.Command("go", "build", "-o", filepath.Join(root, "bin")+string(filepath.Separator), "../daemon/echod", "../ctl/echoctl")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.CopyFS(filepath.Join(root, "examples"), os.DirFS("../examples")); err != nil {
		t.Fatal(err)
	}
	return root
}

// session follows one page from top to bottom.
type session struct {
	t      *testing.T
	root   string
	daemon *exec.Cmd
}

// page runs a page's commands, and answers the page with what they wrote.
func (s *session) page(text string) string {
	var out strings.Builder
	lines := strings.SplitAfter(text, "\n")
	for i := 0; i < len(lines); i++ {
		out.WriteString(lines[i])
		if strings.TrimSpace(lines[i]) != "```console" {
			continue
		}
		for i++; i < len(lines) && strings.TrimSpace(lines[i]) != "```"; {
			command := lines[i]
			if !strings.HasPrefix(command, "$ ") {
				s.t.Fatalf("line %d of a console block is neither a command nor its output: %s", i+1, command)
			}
			for strings.HasSuffix(lines[i], "\\\n") {
				i++
				command += lines[i]
			}
			i++
			var shown strings.Builder
			for ; i < len(lines) && !strings.HasPrefix(lines[i], "$ ") && strings.TrimSpace(lines[i]) != "```"; i++ {
				shown.WriteString(lines[i])
			}
			out.WriteString(command + s.command(strings.TrimPrefix(command, "$ "), shown.String()))
		}
		out.WriteString(lines[i])
	}
	return out.String()
}

// command runs one command and compares its output with the one that the page shows.
func (s *session) command(command, shown string) string {
	var got string
	if daemon, ok := strings.CutSuffix(strings.TrimSpace(command), "&"); ok {
		got = s.start(daemon)
	} else {
		got = s.sh(command)
	}
	if !*update && alike(got) != alike(shown) {
		s.t.Errorf("$ %s\nshows\n%s\nbut writes\n%s", command, shown, got)
	}
	return got
}

func (s *session) environment() []string {
	return []string{"PATH=" + filepath.Join(s.root, "bin") + ":" + os.Getenv("PATH"), "HOME=" + s.root, "ECHOD_SOCKET=echod.sock"}
}

func (s *session) sh(command string) string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, "sh", "-c", patient(command))
	c.Dir, c.Env = s.root, s.environment()
	out, err := c.CombinedOutput()
	if ctx.Err() != nil {
		s.t.Fatalf("$ %s: %v\n%s", command, err, out)
	}
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	return string(out)
}

var (
	follows  = regexp.MustCompile(`echoctl probe (\S+)`)
	monitors = regexp.MustCompile(`echoctl monitor create \S+`)
	manages  = regexp.MustCompile(`^(start|list|get|stop|delete)$`)
)

// patient gives the probes of a command a timeout that a slow machine keeps; the pages have the default.
func patient(command string) string {
	command = monitors.ReplaceAllString(command, "$0 -W 30")
	command = follows.ReplaceAllStringFunc(command, func(found string) string {
		if target := follows.FindStringSubmatch(found)[1]; manages.MatchString(target) {
			return found
		}
		return found + " -W 30"
	})
	return strings.ReplaceAll(command, `"interval": "10ms"`, `"interval": "10ms", "timeout": "30s"`)
}

// start runs the daemon until the page's end, and answers what it said until it was ready.
func (s *session) start(command string) string {
	s.end()
	s.daemon = exec.Command("sh", "-c", "exec "+command)
	s.daemon.Dir, s.daemon.Env = s.root, s.environment()
	// A file, since what the daemon writes is read while it runs.
	log, err := os.Create(filepath.Join(s.root, "log"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.daemon.Stdout, s.daemon.Stderr = log, log
	if err := s.daemon.Start(); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if text, _ := os.ReadFile(log.Name()); bytes.Contains(text, []byte("msg=ready")) {
			return string(text)
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s is not ready", command)
		}
	}
}

func (s *session) end() {
	if s.daemon == nil {
		return
	}
	_ = s.daemon.Process.Signal(os.Interrupt)
	if err := s.daemon.Wait(); err != nil {
		s.t.Errorf("the daemon ended with: %v", err)
	}
	s.daemon = nil
}

// What differs from run to run, and from host to host: times, ids, ports that were picked, and with them the widths of columns. All other
// numbers are compared.
var varying = []struct {
	form *regexp.Regexp
	as   string
}{
	{regexp.MustCompile(`(?m)^time=.* level=WARN msg="UDP endpoints get .*\n`), ""}, // where the host allows less than we ask for
	// What the host can measure, and how busy it is.
	{regexp.MustCompile(`(?m)^(application rtt|jitter|timestamps:|schedule:) .*\n| \(paused\)`), ""},
	{regexp.MustCompile(`(?m)^rtt (=|min/).* ms$`), "rtt"},
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`"etag":"[0-9a-f]{16}"`), `"etag":"ETAG"`},
	{regexp.MustCompile(`[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z`), "TIME"},
	{regexp.MustCompile(`pid=[0-9]+`), "pid=PID"},
	{regexp.MustCompile(`PID: +[0-9]+`), "PID: PID"},
	{regexp.MustCompile(`[0-9]+\.[0-9]+( |/|s)`), "T$1"},    // 0.071 ms, 0.1/0.2/0.3 ms, "0.000071s"
	{regexp.MustCompile(` = [0-9.]+(us|ms)\b`), " = T"},     // what an expectation saw
	{regexp.MustCompile(`\bin ([0-9]+[dhms])+`), "in TIME"}, // when it expires
	{regexp.MustCompile(`"secret":"[A-Z2-7]+"`), `"secret":"SECRET"`},
	{regexp.MustCompile(`\b[0-9]+s +`), "AGE "},                         // in a column
	{regexp.MustCompile(`(127\.0\.0\.1:|"port":)[0-9]{5}`), "${1}PORT"}, // the pages' own have four
	{regexp.MustCompile(`[ \t]+`), " "},
}

func alike(output string) string {
	for _, v := range varying {
		output = v.form.ReplaceAllString(output, v.as)
	}
	return strings.TrimSpace(output)
}

func TestAlikeTellsApartWhatMatters(t *testing.T) {
	for _, pair := range [][2]string{
		{"exit code 0", "exit code 3"}, {"2 sent, 0 received, 2 lost (100 %)", "2 sent, 2 received, 0 lost (0 %)"}, {"1 lost", "1 received"},
		{"SERVING", "STOPPED"}, {"a\nb", "a b"}, {`"code":3`, `"code":5`},
	} {
		if alike(pair[0]) == alike(pair[1]) {
			t.Errorf("%q is taken for %q", pair[0], pair[1])
		}
	}
	for _, pair := range [][2]string{
		{"connect min/max = 0.071/0.1 ms", "connect min/max = 1.5/22.0 ms"}, {"rtt min/max = 0.071/0.1 ms\nend", "rtt = 1.5 ms\nend"}, {"127.0.0.1:40001  SERVING  0s   -", "127.0.0.1:32768 SERVING 1s -"},
		{"seq=1 time=0.1 ms\ntimestamps: user (±5 us)\nend", "seq=1 time=0.1 ms (paused)\nend"}, {`"min":"0.000070381s"`, `"min":"1.5s"`}, {"pid=1", "pid=12345"},
		{"time=2026-11-22T09:41:16.710Z level=WARN msg=\"UDP endpoints get 208 KiB of ...\"\nready", "ready"},
	} {
		if a, b := alike(pair[0]), alike(pair[1]); a != b {
			t.Errorf("%q is not taken for %q", a, b)
		}
	}
}
