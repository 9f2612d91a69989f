package cli

import (
	"strings"
	"testing"
)

func TestCompletionScripts(t *testing.T) {
	for shell, sign := range map[string]string{
		"bash": "__start_echoctl", "zsh": "#compdef echoctl", "fish": "complete -c echoctl",
		"powershell": "Register-ArgumentCompleter",
	} {
		if out := at(t, "127.0.0.1:1").ok("completion", shell); !strings.Contains(out, sign) {
			t.Errorf("completion %s lacks %q", shell, sign)
		}
	}
}

// complete answers what the shell would offer for the last of args.
func (s *shell) complete(args ...string) string {
	s.t.Helper()
	out := s.ok(append([]string{"__complete"}, args...)...)
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	return strings.Join(lines, "|")
}

func TestCompletionOfLiveNames(t *testing.T) {
	s := at(t, ownDaemon(t).GRPC)
	s.ok("create", "tcp", "--name", "web-1")
	s.ok("create", "udp", "--name", "web-2")
	s.ok("probe", "start", "web-1", "--name", "p-1", "-c", "1")
	s.ok("probe", "start", "web-1", "--name", "p-2", "-c", "0")
	const noFiles, noSpace, filesOf = ":4", ":6", ":8"
	for _, c := range []struct {
		line string
		want string
	}{
		{"get |w", "web-1\tTCP 127.0.0.1:* SERVING|web-2\tUDP 127.0.0.1:* SERVING|" + noFiles},
		{"get |web-1|", "web-2\tUDP *|" + noFiles},
		{"get |x", noFiles},
		{"update |", "web-1\tTCP *|web-2\tUDP *|" + noFiles},
		{"update |web-1|", noFiles},
		{"delete |web-2|w", "web-1\tTCP *|" + noFiles},
		{"start |web-1|", "web-2\tUDP *|" + noFiles},
		{"stop |web-1|", "web-2\tUDP *|" + noFiles},
		{"probe |w", "web-1\tTCP *|web-2\tUDP *|" + noFiles},
		{"probe |tc", "tcp://|" + noSpace},
		{"probe |start|web-1", "web-1\tTCP *|" + noFiles},
		{"probe |stop|", "p-1\t*|p-2\tRUNNING|" + noFiles},
		{"probe |get|p-1|", "p-2\tRUNNING|" + noFiles},
		{"probe |rm|p-2|", "p-1\t*|" + noFiles},
		{"probe |--pacing|", "fixed|poisson|closed|" + noFiles},
		{"probe |start|--dscp|", strings.Join(dscpNames, "|") + "|" + noFiles},
		{"probe |--rate|", noFiles},
		{"create |", "tcp|udp|" + noFiles},
		{"create |tcp|", noFiles},
		{"list |-o|", "table|wide|json|yaml|name|" + noFiles},
		{"list |--limit|", noFiles},
		{"export |-o|", "yaml|json|" + noFiles},
		{"apply |-o|", "table|wide|json|yaml|name|" + noFiles},
		{"apply |", noFiles},
		{"apply |-f|", "yaml|yml|json|" + filesOf},
		{"diff |-f|lab", "yaml|yml|json|" + filesOf},
		{"create |tcp|--count|", noFiles},
		{"probe |-o|", "table|wide|json|yaml|name|junit|" + noFiles},
		{"probe |stop|-o|", "table|wide|json|yaml|name|junit|" + noFiles},
		{"probe |get|-o|", "table|wide|json|yaml|name|junit|" + noFiles},
		{"probe |start|-o|", "table|wide|json|yaml|name|" + noFiles},
		{"probe |web-1|--expect|", noFiles},
		{"watch |--kind|", "endpoint|probe|monitor|daemon|traffic|" + noFiles},
		{"wait |w", "web-1\tTCP *|web-2\tUDP *|" + noFiles},
		{"wait |pro", "probe/|" + noSpace},
		{"wait |probe/p-2", "probe/p-2\tRUNNING|" + noFiles},
		{"wait |web-1|--for|st", "state=SERVING|state=STOPPED|state=DRAINING|state=FAILED|" + noFiles},
		{"wait |monitor/m|--for|v", "verdict=UNKNOWN|verdict=MET|verdict=NOT_MET|" + noFiles},
		{"completion |", "bash|zsh|fish|powershell|" + noFiles},
		{"help |pro", "probe\tMeasure *|" + noFiles},
		{"help |probe|sta", "start\tStart *|" + noFiles},
	} {
		args := strings.Split(strings.ReplaceAll(c.line, " |", "|"), "|")
		wantText(t, c.line, s.complete(args...), c.want)
	}
	// The flags on the line count.
	elsewhere := at(t, closedPort(t))
	got := elsewhere.complete("--server", s.env["ECHOCTL_SERVER"], "get", "web-1")
	wantText(t, "with --server", got, "web-1\tTCP *|:4")
}

// TestCompletionWithoutDaemon is silent.
func TestCompletionWithoutDaemon(t *testing.T) {
	s := at(t, closedPort(t))
	for _, args := range [][]string{{"get", ""}, {"probe", "stop", ""}} {
		s.run(append([]string{"__complete"}, args...)...).want(t, 0, ":4\n",
			"Completion ended with directive: ShellCompDirectiveNoFileComp\n")
	}
	s.env["ECHOCTL_SERVER"] = "http://nonsense"
	wantText(t, "with a bad server", s.complete("get", ""), ":4")
}
