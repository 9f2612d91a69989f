package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commands are all commands, by their path without "echoctl ".
func commands() map[string]*cobra.Command {
	all := map[string]*cobra.Command{}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		all[strings.TrimPrefix(c.CommandPath(), "echoctl ")] = c
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand(&app{}))
	return all
}

func TestEveryCommandHasHelp(t *testing.T) {
	for path, c := range commands() {
		if c.Short == "" || c.Example == "" || !strings.HasSuffix(c.Long, exitHelp) {
			t.Errorf("%s lacks help, an example or its exit codes", path)
		}
		for _, line := range strings.Split(c.Long, "\n") {
			if len(line) > 80 {
				t.Errorf("%s: a line of help has %d characters: %s", path, len(line), line)
			}
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s lacks help", path, f.Name)
			}
		})
		args := append(strings.Fields(path), "--help")
		if path == "echoctl" {
			args = []string{"--help"}
		}
		out := at(t, "127.0.0.1:1").ok(args...)
		if !strings.Contains(out, c.Example) || !strings.Contains(out, "Usage:") {
			t.Errorf("%s --help is:\n%s", path, out)
		}
	}
}

func TestHelpCommand(t *testing.T) {
	s := at(t, "127.0.0.1:1")
	if got, want := s.ok("help", "probe", "start"), s.ok("probe", "start", "--help"); got != want {
		t.Errorf("help probe start is:\n%s\nwant:\n%s", got, want)
	}
	if got, want := s.ok("help"), s.ok(); got != want || !strings.Contains(got, "Endpoints:") {
		t.Errorf("help is:\n%s\nwant:\n%s", got, want)
	}
	s.run("help", "nonsense").want(t, 2, "", "echoctl: there is no command \"nonsense\" (see echoctl help --help)\n")
}

// What flags say of values that they do not take.
const (
	durationWords = `say "40ms", "1.5s", "10m" or a number of seconds`
	countWords    = `say a whole number from 0 to 4294967295`
	sizeWords     = `say a number of bytes, or as in "64KiB", "10MB", "1G"`
	formatWords   = `say table, wide, json, yaml or name`
)

// TestUsage holds wrong command lines to one line of complaint and exit code 2, before any call: nobody listens.
func TestUsage(t *testing.T) {
	for _, c := range []struct{ line, command, want string }{
		{"nonsense", "",
			`there is no command "nonsense"`},
		{"lits", "",
			`there is no command "lits"; did you mean list?`},
		{"list --nonsense", "list",
			`unknown flag: --nonsense`},
		{"list extra", "list",
			`unexpected argument "extra"`},
		{"list -o xml", "list",
			`invalid argument "xml" for "-o, --output" flag: ` + formatWords},
		{"list --limit -1", "list",
			`invalid argument "-1" for "--limit" flag: ` + countWords},
		{"list -l =k", "list",
			`invalid argument "=k" for "-l, --selector" flag: ` + selectorWords},
		{"list --call-timeout soon", "list",
			`invalid argument "soon" for "--call-timeout" flag: ` + durationWords},
		{"list --server http://h", "list",
			`server "http://h": say HOST:PORT or unix:PATH`},
		{"create", "create",
			`tcp or udp is missing`},
		{"create sctp", "create",
			`"sctp" is no protocol: say tcp or udp`},
		{"create tcp a b", "create",
			`unexpected argument "b"`},
		{"create tcp --label k", "create",
			`invalid argument "k" for "-l, --label" flag: say KEY=VALUE`},
		{"create tcp --idle-timeout -1s", "create",
			`invalid argument "-1s" for "--idle-timeout" flag: must not be negative`},
		{"create udp --one-shot", "create",
			`--one-shot is for tcp`},
		{"create udp --idle-timeout 1", "create",
			`--idle-timeout is for tcp`},
		{"create udp --stall-timeout 1", "create",
			`--stall-timeout is for tcp`},
		{"create udp --max-bytes 1", "create",
			`--max-bytes is for tcp`},
		{"create udp --socket-buffer 0", "create",
			`--socket-buffer is for tcp`},
		{"create tcp --source-datagrams 1", "create",
			`--source-datagrams is for udp`},
		{"create tcp --source-bytes 1k", "create",
			`--source-bytes is for udp`},
		{"create tcp --stall-timeout never", "create",
			`invalid argument "never" for "--stall-timeout" flag: ` + durationWords},
		{"create tcp --max-bytes default", "create",
			`invalid argument "default" for "--max-bytes" flag: ` + sizeWords},
		{"create tcp --socket-buffer 4GiB", "create",
			`invalid argument "4GiB" for "--socket-buffer" flag: must be at most 4294967295 bytes`},
		{"update a --source-bytes -1", "update",
			`invalid argument "-1" for "--source-bytes" flag: ` + sizeWords},
		{"update a --source-datagrams 1k", "update",
			`invalid argument "1k" for "--source-datagrams" flag: ` + countWords},
		{"create tcp --name", "create",
			`flag needs an argument: --name`},
		{"get", "get",
			`NAME is missing`},
		{"update a", "update",
			`nothing to change: give at least one of the flags`},
		{"update a b", "update",
			`unexpected argument "b"`},
		{"update a -l k=v --remove-label k", "update",
			`label "k" is both to be set and to be removed`},
		{"create tcp :7-9 --count 3", "create",
			`say either a range of ports or --count, not both`},
		{"create tcp :9-7", "create",
			`"9-7" is no range of ports: say FIRST-LAST, as in 20000-20999, of 1 to 65535`},
		{"create tcp :0-7", "create",
			`"0-7" is no range of ports: say FIRST-LAST, as in 20000-20999, of 1 to 65535`},
		{"create tcp 127.0.0.1:1-65536", "create",
			`"1-65536" is no range of ports: say FIRST-LAST, as in 20000-20999, of 1 to 65535`},
		{"create tcp :1-10001", "create",
			`at most 10000 endpoints are created at once: create them in parts`},
		{"create tcp --count 10001", "create",
			`at most 10000 endpoints are created at once: create them in parts`},
		{"create tcp --count 4294967295", "create",
			`at most 10000 endpoints are created at once: create them in parts`},
		{"create tcp --count 0", "create",
			`--count must be at least 1`},
		{"create tcp :65530 --count 7", "create",
			`7 ports from 65530 on go beyond 65535`},
		{"create tcp 127.0.0.1 --count 7", "create",
			`LISTEN "127.0.0.1" has no port to count from: say HOST:PORT, with port 0 for free ones`},
		{"delete", "delete",
			`say which: NAME..., --selector, --filter or --all`},
		{"rm a -l k=v", "delete",
			`say either NAME... or --selector and --filter, not both`},
		{"rm a --all", "delete",
			`say either --all or which, not both`},
		{"rm --filter x --all", "delete",
			`say either --all or which, not both`},
		{"rm a --dry-run", "delete",
			`--dry-run is for --selector, --filter and --all`},
		{"start", "start",
			`say which: NAME..., --selector or --filter`},
		{"stop", "stop",
			`say which: NAME..., --selector or --filter`},
		{"start a --filter x", "start",
			`say either NAME... or --selector and --filter, not both`},
		{"apply", "apply",
			`say what to read: -f FILE`},
		{"apply lab.yaml", "apply",
			`unexpected argument "lab.yaml"`},
		{"apply -f - -f -", "apply",
			`-f - reads standard input, which there is one of`},
		{"apply -f a --prune", "apply",
			`--prune needs --selector or --filter: without, it would delete every endpoint that the files do not have`},
		{"apply -f a -l lab=a", "apply",
			`--selector and --filter say what --prune may delete, and --prune is not given`},
		{"diff", "diff",
			`say what to read: -f FILE`},
		{"diff -f a --prune", "diff",
			`--prune needs --selector or --filter: without, it would delete every endpoint that the files do not have`},
		{"export x", "export",
			`unexpected argument "x"`},
		{"export -o table", "export",
			`-o table is no format of a file: say yaml or json`},
		{"renew", "renew",
			`say which: NAME..., --selector or --filter`},
		{"renew a --filter *", "renew",
			`say either NAME... or --selector and --filter, not both`},
		{"renew a --ttl never", "renew",
			`invalid argument "never" for "--ttl" flag: ` + durationWords},
		{"session --grace -1s", "session",
			`invalid argument "-1s" for "--grace" flag: must not be negative`},
		{"create tcp --ttl -1s", "create",
			`invalid argument "-1s" for "--ttl" flag: must not be negative`},
		{"probe", "probe",
			`TARGET is missing`},
		{"probe a:7", "probe",
			`target "a:7": say NAME, tcp://HOST:PORT or udp://HOST:PORT`},
		{"probe udp://h:7 --await-close", "probe",
			`--new-connection and --await-close are for tcp`},
		{"probe a --rate 10 -i 1", "probe",
			`say either --interval or --rate, not both`},
		{"probe a --rate 0", "probe",
			`invalid argument "0" for "--rate" flag: say a number above 0, as 0.5 or 10000`},
		{"probe a --pacing steady", "probe",
			`invalid argument "steady" for "--pacing" flag: say fixed, poisson or closed`},
		{"probe a --sweep 1:2:1 -s 5", "probe",
			`say either --size or --sweep, not both`},
		{"probe a --sweep 64-1400", "probe",
			`invalid argument "64-1400" for "--sweep" flag: say FROM:TO:STEP in bytes, as 64:1472:64`},
		{"probe a --sweep 5:5:1", "probe",
			`invalid argument "5:5:1" for "--sweep" flag: FROM must be below TO, and STEP at least 1`},
		{"probe a --dscp 64", "probe",
			`invalid argument "64" for "--dscp" flag: say 0 to 63, or cs0 to cs7, af11 to af43, ef, va, le`},
		{"probe tcp://h:7 --dont-fragment", "probe",
			`--dont-fragment is for udp`},
		{"probe a --live -v", "probe",
			`say either --live or --verbose, not both`},
		{"probe a --live --aggregate 0", "probe",
			`--live shows aggregates: leave --aggregate out, or give it a time`},
		{"probe tcp://h:7 --ledger h:7007", "probe",
			`--ledger is for udp`},
		{"probe a -c many", "probe",
			`invalid argument "many" for "-c, --count" flag: ` + countWords},
		{"list -o junit", "list",
			`-o junit is for echoctl probe, probe get and probe stop: say table, wide, json, yaml or name`},
		{"probe start a -o junit", "probe start",
			`-o junit is for echoctl probe, probe get and probe stop: say table, wide, json, yaml or name`},
		{"probe a --expect", "probe",
			`flag needs an argument: --expect`},
		{"probe start", "probe start",
			`TARGET is missing`},
		{"probe start a --rate 1 -i 1", "probe start",
			`say either --interval or --rate, not both`},
		{"probe stop", "probe stop",
			`NAME is missing`},
		{"probe get", "probe get",
			`NAME is missing`},
		{"probe rm", "probe delete",
			`NAME is missing`},
		{"probe list x", "probe list",
			`unexpected argument "x"`},
		{"watch x", "watch",
			`unexpected argument "x"`},
		{"watch --kind endpoint,host", "watch",
			`--kind "host": say endpoint, probe, monitor, daemon or traffic`},
		{"watch --traffic-one-in 0", "watch",
			`--traffic-one-in 0: say 1, for each connection, to 1000000`},
		{"watch --traffic-one-in x", "watch",
			`invalid argument "x" for "--traffic-one-in" flag: ` + countWords},
		{"watch --traffic-one-in 1000001", "watch",
			`--traffic-one-in 1000001: say 1, for each connection, to 1000000`},
		{"wait", "wait",
			`NAME is missing`},
		{"wait a", "wait",
			`--for is missing: say exists, deleted, state=SERVING, state=STOPPED, state=DRAINING or state=FAILED`},
		{"wait a --for verdict=MET", "wait",
			`--for "verdict=MET": of an endpoint say exists, deleted, state=SERVING, state=STOPPED, state=DRAINING or state=FAILED`},
		{"wait probe/a --for state=SERVING", "wait",
			`--for "state=SERVING": of a probe say exists, deleted, state=RUNNING, state=DONE or state=STOPPED`},
		{"wait monitor/a --for state=RUNNING", "wait",
			`--for "state=RUNNING": of a monitor say exists, deleted, state=WAITING, state=PAUSED, verdict=UNKNOWN, verdict=MET or verdict=NOT_MET`},
		{"wait host/a --for exists", "wait",
			`"host/a": say NAME of an endpoint, probe/NAME or monitor/NAME`},
		{"wait a --for exists --timeout x", "wait",
			`invalid argument "x" for "--timeout" flag: ` + durationWords},
		{"ready now", "ready",
			`unexpected argument "now"`},
		{"ready --timeout 5s", "ready",
			`--timeout is for --wait`},
		{"ready --wait --timeout x", "ready",
			`invalid argument "x" for "--timeout" flag: ` + durationWords},
		{"completion", "completion",
			`bash, zsh, fish or powershell is missing`},
		{"completion tcsh", "completion",
			`"tcsh" is no shell that is known: say bash, zsh, fish or powershell`},
	} {
		t.Run(c.line, func(t *testing.T) {
			want := "echoctl: " + c.want + " (see " + strings.TrimSpace("echoctl "+c.command) + " --help)\n"
			r := at(t, "127.0.0.1:1").run(strings.Fields(c.line)...)
			if r.code != 2 || r.stdout != "" || r.stderr != want {
				t.Errorf("exit %d, stdout %q, stderr\n%swant\n%s", r.code, r.stdout, r.stderr, want)
			}
		})
	}
	s := at(t, "127.0.0.1:1")
	s.env["ECHOCTL_OUTPUT"] = "junit"
	s.run("list").want(t, 2, "",
		"echoctl: ECHOCTL_OUTPUT is \"junit\": say table, wide, json, yaml or name (see echoctl list --help)\n")
	s.env["ECHOCTL_OUTPUT"] = "xml"
	s.run("list").want(t, 2, "",
		"echoctl: ECHOCTL_OUTPUT is \"xml\": say table, wide, json, yaml or name (see echoctl list --help)\n")
}
