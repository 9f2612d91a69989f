package cli

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

const (
	monitorHeader = "NAME TARGET EVERY STATE VERDICT SINCE LAST RUNS FAILURES P50-MS LABELS\n"
	runHeader     = "START VERDICT SENT RECEIVED LOST P50-MS P99-MS REASON\n"
)

// newMonitor makes a monitor that ends with the test, and that does not run by itself before a slow machine is done.
func (s *shell) newMonitor(name string, flags ...string) map[string]any {
	s.t.Helper()
	s.t.Cleanup(func() {
		s.ctx = context.Background()
		s.run("monitor", "delete", name)
	})
	return s.json(append([]string{"monitor", "create", "nobody", "--name", name, "--paused"}, flags...)...)
}

// TestLifeOfAMonitor goes through the commands.
func TestLifeOfAMonitor(t *testing.T) {
	s := at(t, ownDaemon(t).GRPC)
	s.run("monitor", "list").want(t, 0, "", "no monitors; create one with: echoctl monitor create TARGET\n")
	s.run("monitor", "ls", "--filter", "verdict = MET").want(t, 0, "", "no monitor matches\n")
	s.ok("create", "udp", "--name", "web-1")
	s.run("monitor", "create", "web-1", "--name", "m-1", "--every", "24h", "-l", "rack=r1", "-c", "2", "-i", "0.01", "-W", "60s").want(t, 0,
		monitorHeader+"m-1 web-1 24h * UNKNOWN - - 0 0 - rack=r1\n", "")
	s.ok("monitor", "pause", "m-1") // so that it runs only when it is asked to
	s.run("monitor", "create", "gone", "--name", "m-2", "--paused", "-o", "name").want(t, 0, "m-2\n", "")
	s.run("monitor", "create", "web-1", "--name", "m-1").want(t, 1, "", "echoctl: *\"m-1\"*\nechoctl monitor get m-1 shows it\n")
	s.run("monitor", "history", "m-2").want(t, 0, "", "no run has ended yet; echoctl monitor run m-2 does one now\n")

	s.run("monitor", "run", "m-1").want(t, 0, runHeader+"* MET 2 2 0 *.* *.* -\n", "")
	s.run("monitor", "run", "m-2").want(t, 3, runHeader+"* NOT_MET - - - - - no such endpoint: \"gone\"\n", "")
	s.run("monitor", "run", "nope").want(t, 1, "", "echoctl: *\"nope\"*\nechoctl monitor list shows those there are\n")
	s.run("monitor", "list", "-l", "rack=r1").want(t, 0, monitorHeader+"m-1 web-1 24h PAUSED MET *s *s * 0 *.* rack=r1\n", "")
	s.run("monitor", "list", "--filter", "verdict = NOT_MET", "-o", "name").want(t, 0, "m-2\n", "")
	if out := s.ok("monitor", "list", "-o", "wide"); !strings.Contains(out, "no such endpoint: \"gone\"") {
		t.Errorf("a wide list: %s", out)
	}
	s.run("monitor", "history", "m-2", "-o", "wide").want(t, 0,
		strings.Replace(runHeader, "REASON", "MAX-MS CORRUPTED LATE ADDRESS ELAPSED-MS REASON", 1)+"* NOT_MET - - - - - - - - - - no such endpoint: \"gone\"\n", "")
	runs, _ := s.json("monitor", "history", "m-2")["runs"].([]any)
	if len(runs) != 1 {
		t.Errorf("%d runs, want 1", len(runs))
	}
	if out := s.ok("monitor", "history", "m-1", "-o", "yaml"); !strings.Contains(out, "received: 2\n") {
		t.Errorf("as YAML: %s", out)
	}
	out := spaces.ReplaceAllString(s.ok("monitor", "get", "m-1"), " ")
	for _, line := range []string{"Name: m-1\n", "Every: 24h\n", "Probe: count: 2\n", "Expect: at least one reply\n", "Verdict: MET\n", "Last run: MET\n"} {
		if !strings.Contains(out, line) {
			t.Errorf("monitor get lacks %q: %s", line, out)
		}
	}
	wantField(t, s.json("monitor", "get", "m-2"), "lastRun.failure", `"no such endpoint: \"gone\""`)
	s.run("monitor", "get", "m-1", "nope", "-o", "name").want(t, 1, "m-1\n", "echoctl: *\"nope\"*\nechoctl monitor list shows those there are\n")

	wantField(t, s.json("monitor", "resume", "m-1"), "paused", "false")
	s.run("monitor", "pause", "m-1").want(t, 0, monitorHeader+"m-1 web-1 24h PAUSED MET *s *s * 0 *.* rack=r1\n", "")
	s.run("monitor", "update", "m-1", "--etag", "old", "--every", "1m").want(t, 1, "", "echoctl: *\nechoctl monitor get m-1 shows it as it is now\n")
	s.run("monitor", "update", "nope", "-l", "a=b").want(t, 1, "", "echoctl: *\"nope\"*\nechoctl monitor list shows those there are\n")
	s.run("monitor", "update", "m-1", "--target", "tcp://127.0.0.1:1", "--every", "1h", "-o", "name").want(t, 0, "m-1\n", "")
	changed := s.json("monitor", "get", "m-1")
	wantField(t, changed, "probe.target", `{"address":"127.0.0.1:1","endpoint":"","protocol":"TCP"}`)
	wantField(t, changed, "probe.count", "2")
	wantField(t, changed, "verdict", `"UNKNOWN"`)
	s.run("monitor", "run", "m-1").want(t, 3, runHeader+"* NOT_MET 2 0 2 - - refused (*)\n", "")

	s.ok("monitor", "update", "m-1", "--target", "web-1", "--expect", "lost == 0", "--expect", "received > 2")
	s.run("monitor", "run", "m-1").want(t, 3, runHeader+"* NOT_MET 2 2 0 *.* *.* received > 2 (received = 2)\n", "")
	s.ok("monitor", "update", "m-1", "--expect", "")
	s.run("monitor", "run", "m-1").want(t, 0, runHeader+"* MET 2 2 0 *.* *.* -\n", "")
	s.run("monitor", "update", "m-1", "--expect", "nonsense").want(t, 1, "", "echoctl: m-1: monitor.probe.expect[0]: *nonsense*\n*nonsense\n*^\n")

	s.run("monitor", "rm", "m-1", "nope").want(t, 1, "", "echoctl: *\"nope\"*\nechoctl monitor list shows those there are\ndeleted m-1\n")
	wantField(t, s.json("monitor", "delete", "m-2"), "names", `["m-2"]`)
	s.run("monitor", "delete", "-l", "a=b").want(t, 0, "", "no monitor matches a=b\n")
}

func TestMonitorUsage(t *testing.T) {
	for _, c := range []struct{ line, command, want string }{
		{"monitor nonsense", "monitor", `there is no command "nonsense"`},
		{"monitor create", "monitor create", `TARGET is missing`},
		{"monitor create a:7", "monitor create", `target "a:7": say NAME, tcp://HOST:PORT or udp://HOST:PORT`},
		{"monitor create udp://h:7 --await-close", "monitor create", `--new-connection and --await-close are for tcp`},
		{"monitor create a --every soon", "monitor create", `invalid argument "soon" for "--every" flag: ` + durationWords},
		{"monitor create a --history default", "monitor create", `invalid argument "default" for "--history" flag: ` + countWords},
		{"monitor list a", "monitor list", `unexpected argument "a"`},
		{"monitor get", "monitor get", `NAME is missing`},
		{"monitor run a b", "monitor run", `unexpected argument "b"`},
		{"monitor history", "monitor history", `NAME is missing`},
		{"monitor pause", "monitor pause", `say which: NAME..., --selector or --filter`},
		{"monitor resume a -l k=v", "monitor resume", `say either NAME... or --selector and --filter, not both`},
		{"monitor delete", "monitor delete", `say which: NAME..., --selector or --filter`},
		{"monitor update a", "monitor update", `nothing to change: give at least one of the flags`},
		{"monitor update a -l k=v --remove-label k", "monitor update", `label "k" is both to be set and to be removed`},
		{"monitor update a --target h:1", "monitor update", `target "h:1": say NAME, tcp://HOST:PORT or udp://HOST:PORT`},
		{"monitor update a --name b", "monitor update", `unknown flag: --name`},
	} {
		t.Run(c.line, func(t *testing.T) {
			want := "echoctl: " + c.want + " (see echoctl " + c.command + " --help)\n"
			r := at(t, "127.0.0.1:1").run(strings.Fields(c.line)...)
			if r.code != 2 || r.stdout != "" || r.stderr != want {
				t.Errorf("exit %d, stdout %q, stderr\n%swant\n%s", r.code, r.stdout, r.stderr, want)
			}
		})
	}
	s := at(t, closedPort(t))
	if r := s.run("monitor", "list"); r.code != 4 {
		t.Errorf("without a daemon: exit %d, want 4", r.code)
	}
	if out := s.ok("monitor"); out != s.ok("monitor", "--help") {
		t.Errorf("monitor alone: %s", out)
	}
}

func TestCompletionOfMonitors(t *testing.T) {
	s := at(t, ownDaemon(t).GRPC)
	s.ok("create", "tcp", "--name", "web-1")
	s.ok("monitor", "create", "gone", "--name", "m-1", "--paused")
	s.ok("monitor", "create", "gone", "--name", "m-2", "--paused")
	const noFiles = ":4"
	for _, c := range []struct{ line, want string }{
		{"monitor |create|w", "web-1\tTCP *|" + noFiles},
		{"monitor |create|web-1|", noFiles},
		{"monitor |get|m-1|", "m-2\tPAUSED UNKNOWN|" + noFiles},
		{"monitor |update|", "m-1\tPAUSED UNKNOWN|m-2\t*|" + noFiles},
		{"monitor |update|m-1|", noFiles},
		{"monitor |update|m-1|--target|w", "web-1\tTCP *|" + noFiles},
		{"monitor |run|m-2", "m-2\t*|" + noFiles},
		{"monitor |history|m-2|", noFiles},
		{"monitor |pause|m-2|", "m-1\t*|" + noFiles},
		{"monitor |resume|m-2|", "m-1\t*|" + noFiles},
		{"monitor |rm|m-2|", "m-1\t*|" + noFiles},
	} {
		args := strings.Split(strings.ReplaceAll(c.line, " |", "|"), "|")
		wantText(t, c.line, s.complete(args...), c.want)
	}
}

// monitorProbeFlags are the flags of a monitor's probe: what each sets, and to what.
var monitorProbeFlags = map[string]struct{ path, want, value string }{
	"count":                    {"count", "2", "2"},
	"interval":                 {"interval", `"0.001s"`, "0.001"},
	"size":                     {"payloadSize", "1400", "1400"},
	"timeout":                  {"timeout", `"59.500s"`, "59.5"},
	"duration":                 {"duration", `"60s"`, "1m"},
	"new-connection":           {"tcp.newConnection", "true", "true"},
	"await-close":              {"tcp.awaitClose", "true", "true"},
	"rate":                     {"rate", "12.5", "12.5"},
	"pacing":                   {"pacing", `"POISSON"`, "poisson"},
	"flows":                    {"flows", "16", "16"},
	"sweep":                    {"payloadSweep", `{"from":64,"step":64,"to":128}`, "64:128:64"},
	"source":                   {"source.address", `"127.0.0.1"`, "127.0.0.1"},
	"source-port":              {"source.port", "40000", "40000"},
	"source-netns":             {"source.networkNamespace", `"lab-a"`, "lab-a"},
	"source-network-namespace": {"source.networkNamespace", `"/proc/1/ns/net"`, "/proc/1/ns/net"},
	"source-interface":         {"source.interface", `"eth7"`, "eth7"},
	"dscp":                     {"ip.dscp", "46", "ef"},
	"dont-fragment":            {"ip.dontFragment", "true", "true"},
	"ttl":                      {"ip.ttl", "4", "4"},
	"ledger":                   {"ledger.address", `"127.0.0.1:1"`, "127.0.0.1:1"},
	"path-mtu":                 {"pathMtu.maxPayload", "1000", "1000"},
	"expect":                   {"expect", `["loss == 0"]`, "loss == 0"},
}

func init() {
	for flag, f := range monitorProbeFlags {
		effects["monitor create --"+flag] = func(t *testing.T, s *shell) {
			wantField(t, s.newMonitor("e-mon", "--"+flag+"="+f.value), "probe."+f.path, f.want)
		}
		effects["monitor update --"+flag] = monitorUpdateEffect("probe."+f.path, f.want, "--"+flag+"="+f.value)
	}
	for name, see := range map[string]func(*testing.T, *shell){
		"create --name":        func(t *testing.T, s *shell) { wantField(t, s.newMonitor("e-mon"), "name", `"e-mon"`) },
		"create --paused":      func(t *testing.T, s *shell) { wantField(t, s.newMonitor("e-mon"), "paused", "true") },
		"create --every":       monitorEffect("interval", `"90s"`, "--every", "1.5m"),
		"create --history":     monitorEffect("historyLimit", "100", "--history", "100"),
		"create --label":       monitorEffect("labels", `{"a":"1","b":""}`, "--label", "a=1", "-l", "b="),
		"create --description": monitorEffect("description", `"x y"`, "--description", "x y"),
		"create --validate-only": func(t *testing.T, s *shell) {
			s.run("monitor", "create", "a", "--name", "e-dry", "--validate-only", "-o", "name").want(t, 0, "e-dry\n", "checked only; nothing was created\n")
			s.run("monitor", "get", "e-dry").want(t, 1, "", "echoctl: *\n*\n")
		},
		"create --dry-run": func(t *testing.T, s *shell) {
			s.run("monitor", "create", "a", "--name", "e-dry", "--dry-run", "-o", "name").want(t, 0, "e-dry\n", "checked only; nothing was created\n")
		},

		"list --filter": func(t *testing.T, s *shell) {
			s.newMonitor("e-mon")
			s.run("monitor", "list", "--filter", `name = "e-mon"`, "-o", "name").want(t, 0, "e-mon\n", "")
		},
		"list --selector": func(t *testing.T, s *shell) {
			s.newMonitor("e-mon", "-l", "e=mon")
			s.run("monitor", "list", "--selector", "e=mon", "-o", "name").want(t, 0, "e-mon\n", "")
		},
		"list --limit": func(t *testing.T, s *shell) {
			s.newMonitor("e-mon-1", "-l", "e=mon")
			s.newMonitor("e-mon-2", "-l", "e=mon")
			s.run("monitor", "list", "-l", "e=mon", "--limit", "1", "-o", "name").want(t, 0, "e-mon-1\n", "")
		},

		"update --target":       monitorUpdateEffect("probe.target.endpoint", `"other"`, "--target", "other"),
		"update --every":        monitorUpdateEffect("interval", `"60s"`, "--every", "default"),
		"update --history":      monitorUpdateEffect("historyLimit", "7", "--history", "7"),
		"update --description":  monitorUpdateEffect("description", `""`, "--description", ""),
		"update --label":        monitorUpdateEffect("labels", `{"a":"2","b":"1","c":"3"}`, "--label", "a=2", "-l", "c=3"),
		"update --remove-label": monitorUpdateEffect("labels", `{"b":"1"}`, "--remove-label", "a", "--remove-label", "never-there"),
		"update --etag": func(t *testing.T, s *shell) {
			etag, _ := s.newMonitor("e-mon")["etag"].(string)
			s.ok("monitor", "update", "e-mon", "--etag", etag, "-l", "a=1")
			for _, flag := range []string{"--label=a=2", "--description=x"} {
				if r := s.run("monitor", "update", "e-mon", "--etag", etag, flag); r.code != 1 {
					t.Errorf("a stale etag and %s: exit %d, want 1", flag, r.code)
				}
			}
		},
		"update --validate-only": monitorCheckEffect("--validate-only"),
		"update --dry-run":       monitorCheckEffect("--dry-run"),

		"pause --selector":  monitorPauseEffect("--selector", "e=mon"),
		"pause --filter":    monitorPauseEffect("--filter", `labels.e = "mon"`),
		"resume --selector": monitorResumeEffect("--selector", "e=mon"),
		"resume --filter":   monitorResumeEffect("--filter", `labels.e = "mon"`),
		"delete --selector": monitorDeleteEffect("--selector", "e=mon"),
		"delete --filter":   monitorDeleteEffect("--filter", `labels.e = "mon"`),
	} {
		effects["monitor "+name] = see
	}
}

func monitorEffect(path, want string, flags ...string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) { wantField(t, s.newMonitor("e-mon", flags...), path, want) }
}

// monitorUpdateEffect changes a monitor that has some of everything, and wants the change and nothing else.
func monitorUpdateEffect(path, want string, flags ...string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		before := s.newMonitor("e-mon", "-l", "a=1", "-l", "b=1", "--description", "x", "--every", "1h", "--history", "5", "-c", "9")
		after := s.json(append([]string{"monitor", "update", "e-mon"}, flags...)...)
		wantField(t, after, path, want)
		for _, other := range []string{"labels", "description", "interval", "historyLimit", "paused", "probe.count", "probe.target.endpoint"} {
			if was, is := fmt.Sprint(field(before, other)), fmt.Sprint(field(after, other)); other != path && was != is {
				t.Errorf("%s was %s and is %s", other, was, is)
			}
		}
	}
}

func monitorCheckEffect(flag string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		s.newMonitor("e-mon")
		for _, change := range []string{"--description=new", "--label=new=1"} {
			s.run("monitor", "update", "e-mon", change, flag, "-o", "name").want(t, 0, "e-mon\n", "checked only; nothing was changed\n")
		}
		wantField(t, s.json("monitor", "get", "e-mon"), "description", `""`)
		wantField(t, s.json("monitor", "get", "e-mon"), "labels", "{}")
	}
}

func monitorPauseEffect(flags ...string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		s.newMonitor("e-mon", "-l", "e=mon")
		s.ok("monitor", "resume", "e-mon")
		s.run(append([]string{"monitor", "pause", "-o", "name"}, flags...)...).want(t, 0, "e-mon\n", "")
		wantField(t, s.json("monitor", "get", "e-mon"), "paused", "true")
	}
}

func monitorResumeEffect(flags ...string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		s.newMonitor("e-mon", "-l", "e=mon")
		s.run(append([]string{"monitor", "resume", "-o", "name"}, flags...)...).want(t, 0, "e-mon\n", "")
		wantField(t, s.json("monitor", "get", "e-mon"), "paused", "false")
	}
}

func monitorDeleteEffect(flags ...string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		s.newMonitor("e-mon", "-l", "e=mon")
		s.run(append([]string{"monitor", "delete", "-o", "name"}, flags...)...).want(t, 0, "e-mon\n", "")
		s.run("monitor", "get", "e-mon").want(t, 1, "", "echoctl: *\n*\n")
	}
}
