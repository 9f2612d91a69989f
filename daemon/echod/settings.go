package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/echod/echod/daemon/internal/server"
)

const (
	envPrefix     = "ECHOD_"
	maxConfigSize = 1 << 20
)

// lookupEnv is os.LookupEnv, or a test's. A variable that is set to nothing is set: it switches a listener off.
type lookupEnv func(name string) (value string, ok bool)

// settings are the flags with what they were set to: on the command line, else in the environment, else in the
// configuration file.
type settings struct {
	config    server.Config
	file      string
	logLevel  string
	logFormat string
	version   bool
	flags     *pflag.FlagSet
}

// load reads the settings. The error names the flag, the variable or the line that is wrong.
func load(args []string, lookup lookupEnv) (*settings, error) {
	s := newSettings(lookup)
	if err := s.flags.Parse(args); err != nil {
		return s, err
	}
	if s.flags.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q: echod takes flags only", s.flags.Arg(0))
	}
	given := map[string]bool{}
	s.flags.Visit(func(f *pflag.Flag) { given[f.Name] = true })
	if err := s.readEnvironment(given, lookup); err != nil {
		return s, err
	}
	if s.file != "" {
		if err := s.readFile(given); err != nil {
			return s, err
		}
	}
	return s, s.check()
}

func newSettings(lookup lookupEnv) *settings {
	s := &settings{flags: pflag.NewFlagSet("echod", pflag.ContinueOnError)}
	stateDir, _ := lookup("STATE_DIRECTORY") // systemd's StateDirectory=
	s.flags.SortFlags = false
	s.flags.Usage = func() {}
	s.flags.SetOutput(io.Discard)
	c := &s.config
	s.flags.StringVar(&c.GRPCListen, "grpc-listen", "127.0.0.1:7007", "`address` for gRPC; port 0 picks one, empty switches it off")
	s.flags.StringVar(&c.HTTPListen, "http-listen", "127.0.0.1:7070", "`address` for REST; port 0 picks one, empty switches it off")
	s.flags.StringVar(&c.Socket, "socket", defaultSocket(lookup), "`path` of the unix socket for gRPC; empty switches it off")
	s.flags.BoolVar(&c.Insecure, "insecure", false, "let --grpc-listen and --http-listen be open to the network: anybody who reaches them controls this daemon")
	s.flags.StringSliceVar(&c.AllowHosts, "http-allow-host", nil, "host `name` that REST requests may be addressed to, besides IP addresses and localhost; may be repeated")
	s.flags.StringVar(&c.StateDir, "state-dir", stateDir, "`directory` where endpoints survive a restart; empty: in memory only")
	s.flags.BoolVar(&c.AcceptDataLoss, "accept-data-loss", false, "start empty if what --state-dir holds is damaged and so is its copy; for one start, never for all")
	s.flags.StringVar(&c.DefaultHost, "default-host", "127.0.0.1", "IP `address` where endpoints listen that do not say")
	s.flags.DurationVar(&c.DrainDelay, "drain-delay", 0, "how long a stop says that it is not ready before it stops anything, for load balancers to see it; 0: not at all")
	s.flags.DurationVar(&c.DrainTimeout, "drain-timeout", 5*time.Second, "how long a stop waits for open connections; 0 cuts them")
	s.flags.BoolVar(&c.StrictReady, "strict-ready", false, "not ready, rather than degraded, while an endpoint has failed")
	s.flags.StringSliceVar(&c.ProbeAllow, "probe-allow", nil, "`prefix` that probes may go to, as in 10.0.0.0/8; may be repeated; none: to all that is not refused")
	s.flags.StringSliceVar(&c.ProbeDeny, "probe-deny", nil, "`prefix` that probes may not go to; may be repeated")
	l := &c.ProbeLimits
	s.flags.IntVar(&l.Probes, "max-probes", 1000, "`probes` that run at once; 0: no limit, as for all that begin with --max")
	s.flags.Float64Var(&l.Rate, "max-probe-rate", 200_000, "`rounds` a second that all probes together may send; one with interval 0 gets a quarter of what is left")
	s.flags.IntVar(&l.Sockets, "max-probe-sockets", 2048, "`sockets` of all probes together; never more than a quarter of the open files")
	s.flags.IntVar(&l.MemoryMiB, "max-probe-memory", 2048, "about how many `MiB` of memory all probes together may take")
	s.flags.DurationVar(&l.Duration, "max-probe-duration", 24*time.Hour, "for how long a probe may send; one that would for longer ends then")
	s.flags.IntVar(&l.TargetProbes, "max-target-probes", 100, "`probes` that run at once towards one address; loopback has no such limits")
	s.flags.Float64Var(&l.TargetRate, "max-target-rate", 10_000, "`rounds` a second towards one address; one with interval 0 gets a quarter of what is left")
	s.flags.Float64Var(&l.TargetMbps, "max-target-mbps", 1000, "`megabits` of payload a second towards one address; likewise")
	s.flags.StringVar(&c.ReadyFile, "ready-file", "", "`path` that gets {pid, grpc, http, socket} as JSON once the daemon is ready, notReady if it is not")
	s.flags.DurationVar(&c.UpgradeTimeout, "upgrade-timeout", 30*time.Second, "how long an upgrade may take before this process goes on by itself")
	s.flags.StringVar(&s.logLevel, "log-level", "info", "debug, info, warn or error")
	s.flags.StringVar(&s.logFormat, "log-format", "text", "text or json")
	s.flags.StringVar(&s.file, "config", "", "YAML `file` with any of these flags by name, as in \"state-dir: /var/lib/echod\"")
	s.flags.BoolVar(&s.version, "version", false, "print the version and exit")
	return s
}

// defaultSocket is where echoctl looks, too.
func defaultSocket(lookup lookupEnv) string {
	if os.Geteuid() == 0 {
		return "/run/echod/echod.sock"
	}
	if dir, _ := lookup("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "echod.sock")
	}
	return ""
}

// inFile says whether a flag may stand in the environment and the file.
func inFile(name string) bool { return name != "config" && name != "version" }

func (s *settings) readEnvironment(given map[string]bool, lookup lookupEnv) error {
	var errs []error
	s.flags.VisitAll(func(f *pflag.Flag) {
		name := envPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, ok := lookup(name)
		if !ok || given[f.Name] || f.Name == "version" {
			return
		}
		given[f.Name] = true
		if err := f.Value.Set(value); err != nil {
			errs = append(errs, fmt.Errorf("%s=%q: %w", name, value, err))
		}
	})
	return errors.Join(errs...)
}

func (s *settings) readFile(given map[string]bool) error {
	text, err := readLimited(s.file)
	if err != nil {
		return fmt.Errorf("cannot read --config: %w", err)
	}
	var root, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			return nil // an empty file says nothing
		}
		return fmt.Errorf("cannot read --config %s: %w", s.file, err)
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return fmt.Errorf("--config %s: must be one YAML document", s.file)
	}
	top := root.Content[0]
	if top.Kind != yaml.MappingNode {
		return fmt.Errorf("--config %s: must be a mapping of flags to values, as in \"state-dir: /var/lib/echod\"", s.file)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		at := fmt.Sprintf("--config %s, line %d", s.file, key.Line)
		f := s.flags.Lookup(key.Value)
		switch {
		case f == nil || !inFile(key.Value):
			return fmt.Errorf("%s: unknown key %q; the keys are the flags that echod --help lists", at, key.Value)
		case seen[key.Value]:
			return fmt.Errorf("%s: %q is there twice", at, key.Value)
		}
		seen[key.Value] = true
		if err := setFromNode(f, value, given[key.Value]); err != nil {
			return fmt.Errorf("%s: %s: %w", at, key.Value, err)
		}
	}
	return nil
}

// readLimited reads a file that is no larger than a configuration can be.
func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxConfigSize+1))
	err = errors.Join(err, f.Close())
	if err == nil && len(text) > maxConfigSize {
		err = fmt.Errorf("%s has more than %d bytes", path, maxConfigSize)
	}
	return text, err
}

// setFromNode sets a flag from the file, unless something stronger has; the value is looked at in any case.
func setFromNode(f *pflag.Flag, value *yaml.Node, overridden bool) error {
	values := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode && f.Value.Type() == "stringSlice" {
		values = value.Content
	}
	for _, v := range values {
		if v.Kind != yaml.ScalarNode {
			return fmt.Errorf("must be a single value")
		}
		if overridden {
			continue
		}
		text := v.Value
		if v.Tag == "!!null" {
			text = ""
		}
		if err := f.Value.Set(text); err != nil {
			return err
		}
	}
	return nil
}

func (s *settings) check() error {
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, s.logLevel) {
		return fmt.Errorf("--log-level %q: must be debug, info, warn or error", s.logLevel)
	}
	if s.logFormat != "text" && s.logFormat != "json" {
		return fmt.Errorf("--log-format %q: must be text or json", s.logFormat)
	}
	return nil
}

func (s *settings) logHandler(to io.Writer) slog.Handler {
	var level slog.Level
	_ = level.UnmarshalText([]byte(s.logLevel)) // check has seen it
	options := &slog.HandlerOptions{Level: level}
	if s.logFormat == "json" {
		return slog.NewJSONHandler(to, options)
	}
	return slog.NewTextHandler(to, options)
}

func (s *settings) usage() string {
	return `echod hosts TCP and UDP echo endpoints that are created while it runs, and probes them or any echo server.

Usage:
  echod [flags]

Each flag can also be set in the environment (--grpc-listen as ECHOD_GRPC_LISTEN) and in the file of --config.
The command line is stronger than the environment, the environment stronger than the file.

SIGTERM and Ctrl-C drain and stop; a second one cuts what is open and stops.
SIGUSR2 starts the binary that now lies where this one was started from, and hands
everything over to it: sockets, open connections, endpoints. If that fails this
process goes on.

Flags:
` + s.flags.FlagUsages() + `
Talk to it with echoctl, with gRPC (package echo.v1, reflection is on) or with REST (see /openapi.json).
`
}
