package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/echod/echod/daemon/internal/server"
)

func environment(pairs map[string]string) lookupEnv {
	return func(name string) (string, bool) { v, ok := pairs[name]; return v, ok }
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "echod.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCommandLineBeatsEnvironmentBeatsFile(t *testing.T) {
	file := writeFile(t, "grpc-listen: 127.0.0.1:1\nhttp-listen: 127.0.0.1:1\nstate-dir: /from/file\nsocket:\nhttp-allow-host: [a, b]\ninsecure: true\n")
	s, err := load([]string{"--grpc-listen=127.0.0.1:3", "--config", file}, environment(map[string]string{
		"ECHOD_GRPC_LISTEN": "127.0.0.1:2", "ECHOD_HTTP_LISTEN": "", "ECHOD_DRAIN_TIMEOUT": "1m",
	}))
	if err != nil {
		t.Fatal(err)
	}
	c := s.config
	if c.GRPCListen != "127.0.0.1:3" || c.HTTPListen != "" || c.StateDir != "/from/file" || c.Socket != "" || c.DrainTimeout != time.Minute ||
		!slices.Equal(c.AllowHosts, []string{"a", "b"}) || !c.Insecure {
		t.Errorf("%+v", c)
	}
}

func TestTheFileMayBeNamedInTheEnvironment(t *testing.T) {
	s, err := load(nil, environment(map[string]string{"ECHOD_CONFIG": writeFile(t, "log-format: json\n")}))
	if err != nil || s.logFormat != "json" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestDefaults(t *testing.T) {
	s, err := load(nil, environment(map[string]string{"STATE_DIRECTORY": "/var/lib/echod", "XDG_RUNTIME_DIR": "/run/user/1"}))
	if err != nil {
		t.Fatal(err)
	}
	c := s.config
	socket := "/run/user/1/echod.sock"
	if os.Geteuid() == 0 {
		socket = "/run/echod/echod.sock"
	}
	limits := server.ProbeLimits{
		Probes: 1000, Rate: 200_000, Sockets: 2048, MemoryMiB: 2048, Duration: 24 * time.Hour, TargetProbes: 100, TargetRate: 10_000, TargetMbps: 1000,
	}
	if c.ProbeLimits != limits || len(c.ProbeAllow) != 0 || len(c.ProbeDeny) != 0 {
		t.Errorf("probes: %+v", c)
	}
	if c.GRPCListen != "127.0.0.1:7007" || c.HTTPListen != "127.0.0.1:7070" || c.DefaultHost != "127.0.0.1" || c.StateDir != "/var/lib/echod" || c.Socket != socket || c.Insecure {
		t.Errorf("%+v", c)
	}
}

// TestProbeSettings sets each by each way.
func TestProbeSettings(t *testing.T) {
	want := server.ProbeLimits{Probes: 1, Rate: 2.5, Sockets: 3, MemoryMiB: 4, Duration: 5 * time.Minute, TargetProbes: 6, TargetRate: 0, TargetMbps: 8}
	file := "max-probes: 1\nmax-probe-rate: 2.5\nmax-probe-sockets: 3\nmax-probe-memory: 4\nmax-probe-duration: 5m\n" +
		"max-target-probes: 6\nmax-target-rate: 0\nmax-target-mbps: 8\nprobe-allow: [10.0.0.0/8, '::1']\nprobe-deny: 10.1.0.0/16\n"
	inEnvironment, args := map[string]string{}, []string{}
	for _, line := range strings.Split(strings.TrimSpace(strings.NewReplacer("[", "", "]", "", "'", "", ", ", ",").Replace(file)), "\n") {
		key, value, _ := strings.Cut(line, ": ")
		inEnvironment["ECHOD_"+strings.ToUpper(strings.ReplaceAll(key, "-", "_"))] = value
		args = append(args, "--"+key+"="+value)
	}
	for name, try := range map[string]func() (*settings, error){
		"file":         func() (*settings, error) { return load([]string{"--config", writeFile(t, file)}, environment(nil)) },
		"environment":  func() (*settings, error) { return load(nil, environment(inEnvironment)) },
		"command line": func() (*settings, error) { return load(args, environment(nil)) },
	} {
		s, err := try()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c := s.config
		if c.ProbeLimits != want || !slices.Equal(c.ProbeAllow, []string{"10.0.0.0/8", "::1"}) || !slices.Equal(c.ProbeDeny, []string{"10.1.0.0/16"}) {
			t.Errorf("%s: %+v, %q, %q", name, c.ProbeLimits, c.ProbeAllow, c.ProbeDeny)
		}
	}
}

func TestWrongSettingsAreNamed(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		env  map[string]string
		says []string
	}{
		"unknown flag":         {args: []string{"--grcp-listen=x"}, says: []string{"--grcp-listen"}},
		"argument":             {args: []string{"start"}, says: []string{`"start"`}},
		"bad duration":         {args: []string{"--drain-timeout=soon"}, says: []string{"soon", "drain-timeout"}},
		"bad variable":         {env: map[string]string{"ECHOD_DRAIN_TIMEOUT": "soon"}, says: []string{"ECHOD_DRAIN_TIMEOUT", "soon"}},
		"log level":            {args: []string{"--log-level=loud"}, says: []string{"--log-level", "loud", "debug, info"}},
		"log format":           {args: []string{"--log-format=xml"}, says: []string{"--log-format", "xml"}},
		"no file":              {args: []string{"--config=/nonexistent"}, says: []string{"/nonexistent"}},
		"unknown key":          {args: []string{"--config=" + writeFile(t, "socket: x\n\nlisten: y\n")}, says: []string{"line 3", `"listen"`}},
		"key twice":            {args: []string{"--config=" + writeFile(t, "socket: x\nsocket: y\n")}, says: []string{"socket"}},
		"value of wrong type":  {args: []string{"--config=" + writeFile(t, "drain-timeout: soon\n")}, says: []string{"line 1", "drain-timeout", "soon"}},
		"wrong, if overridden": {args: []string{"--socket=x", "--config=" + writeFile(t, "socket: {a: b}\n")}, says: []string{"line 1", "socket"}},
		"no mapping":           {args: []string{"--config=" + writeFile(t, "- a\n")}, says: []string{"mapping"}},
		"no YAML":              {args: []string{"--config=" + writeFile(t, "a: [\n")}, says: []string{"line"}},
		"two documents":        {args: []string{"--config=" + writeFile(t, "socket: x\n---\nnope: y\n")}, says: []string{"one YAML document"}},
		"log level with sum":   {args: []string{"--log-level=debug+3"}, says: []string{"debug+3"}},
		"file in the file":     {args: []string{"--config=" + writeFile(t, "config: x\n")}, says: []string{`"config"`}},
	} {
		_, err := load(tc.args, environment(tc.env))
		for _, part := range tc.says {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v; want it to say %s", name, err, part)
			}
		}
	}
	if _, err := load([]string{"--config=" + writeFile(t, "")}, environment(nil)); err != nil {
		t.Errorf("an empty file: %v", err)
	}
}

func TestExitCodes(t *testing.T) {
	for _, tc := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{"--help"}, exitDone, "ECHOD_GRPC_LISTEN", ""},
		{[]string{"--version"}, exitDone, "echod dev", ""},
		{[]string{"--nope"}, exitUsage, "", "echod --help"},
		{[]string{"--grpc-listen=0.0.0.0:0", "--socket="}, exitFailed, "", "--insecure"},
		{[]string{"--max-target-rate=-1", "--socket="}, exitFailed, "", "--max-target-rate -1: must be 0 (no limit)"},
		{[]string{"--probe-allow=lab.example", "--socket="}, exitFailed, "", "--probe-allow"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(tc.args, environment(nil), &stdout, &stderr)
		if code != tc.code || !strings.Contains(stdout.String(), tc.stdout) || !strings.Contains(stderr.String(), tc.stderr) ||
			(tc.stdout == "") != (stdout.Len() == 0) || (tc.stderr == "") != (stderr.Len() == 0) {
			t.Errorf("%v: exit %d\nstdout: %s\nstderr: %s", tc.args, code, &stdout, &stderr)
		}
	}
}

// TestEveryFlagIsInTheHelp keeps a flag from being added without words.
func TestEveryFlagIsInTheHelp(t *testing.T) {
	s := newSettings(environment(nil))
	s.flags.VisitAll(func(f *pflag.Flag) {
		if f.Usage == "" || !strings.Contains(s.usage(), "--"+f.Name) {
			t.Errorf("--%s is not explained", f.Name)
		}
	})
}

func TestLogFormats(t *testing.T) {
	for format, want := range map[string]string{"json": `"msg":"hello"`, "text": "msg=hello"} {
		s, err := load([]string{"--log-format", format, "--log-level", "warn"}, environment(nil))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		h := s.logHandler(&out)
		if h.Enabled(t.Context(), -4) || h.Enabled(t.Context(), 0) || !h.Enabled(t.Context(), 4) {
			t.Error("--log-level warn lets through what it should not, or holds back what it should let through")
		}
		if err := h.Handle(t.Context(), slog.NewRecord(time.Time{}, slog.LevelError, "hello", 0)); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %s, %v", format, &out, err)
		}
	}
}
