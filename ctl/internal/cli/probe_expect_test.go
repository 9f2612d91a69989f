package cli

import (
	"encoding/xml"
	"strings"
	"testing"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/grpc"
)

func TestExpectations(t *testing.T) {
	s := at(t, shared.GRPC)
	s.newEndpoint("udp", "expect-1")
	probe := func(flags ...string) []string {
		return append([]string{"probe", "expect-1", "-c", "3", "-i", "0", "-W", "60s"}, flags...)
	}
	const summary = "--- expect-1 probe statistics ---\n3 sent, 3 received, 0 lost (at most 64 % with 95 % confidence), time * s\nrtt *\n"
	s.run(probe("--expect", "lost == 0", "--expect", "p99 < 1h && reordered == 0")...).steady().want(t, 0, summary+
		"met: lost == 0 (lost = 0)\nmet: p99 < 1h && reordered == 0 (p99 = *s, reordered = 0)\n", "")
	s.run(probe("--expect", "lost == 0", "--expect", "received > 3", "--expect", "!(connect_p99 > 2ms)")...).steady().want(t, 3, summary+
		"met: lost == 0 (lost = 0)\nNOT MET: received > 3 (received = 3)\n"+
		"NOT MET: !(connect_p99 > 2ms) (connect_p99 is not known: no TCP connection was made)\n", "")
	// Expectations decide alone: that no reply comes may be what is expected.
	s.run("probe", "udp://"+closedPort(t), "-c", "1", "-W", "60s", "--expect", "received == 0", "-o", "name").want(t, 0, "probe-*\n", "")
}

func TestBadExpectations(t *testing.T) {
	s := at(t, shared.GRPC)
	s.newEndpoint("udp", "expect-2")
	s.run("probe", "expect-2", "--expect", "lost == 0 && p98 < 2ms").want(t, 1, "",
		"echoctl: probe.expect[0]: column 14: there is no name \"p98\"; did you mean \"p90\"?\n"+
			"  lost == 0 && p98 < 2ms\n               ^\n")
	s.run("probe", "start", "expect-2", "--expect", "lost == 0", "--expect", "p99").want(t, 1, "",
		"echoctl: probe.expect[1]: it is a duration and says neither yes nor no; compare it, as in \"p99 < 2ms\"\n")
}

// TestExpectationsOfAProbeThatIsLeftToRun are shown by get, and decide when it is stopped.
func TestExpectationsOfAProbeThatIsLeftToRun(t *testing.T) {
	s := at(t, shared.GRPC)
	s.newEndpoint("udp", "expect-3")
	for _, c := range []struct {
		expect, line string
		code         int
	}{{"elapsed > 24h", "NOT MET: elapsed > 24h (", 3}, {"elapsed < 24h", "met: elapsed < 24h (", 0}} {
		s.ok("probe", "start", "expect-3", "-c", "0", "--name", "e-left", "--expect", c.expect)
		for output, part := range map[string]string{"table": c.line, "junit": `<skipped message="the probe still runs; so far it is `} {
			if out := s.ok("probe", "get", "e-left", "-o", output); !strings.Contains(out, part) {
				t.Errorf("get as %s lacks %q: %s", output, part, out)
			}
		}
		if r := s.run("probe", "stop", "e-left"); r.code != c.code || !strings.Contains(r.stdout, "\n"+c.line) || r.stderr != "" {
			t.Errorf("stop: exit %d, want %d", r.code, c.code)
		}
		// Where a name fails, too, that is what counts.
		s.run("probe", "stop", "e-left", "nope", "-o", "name").want(t, 1, "e-left\n", "echoctl: *\n*\n")
		s.ok("probe", "get", "e-left", "-o", "name")
		s.ok("probe", "rm", "e-left")
	}
}

func TestJUnit(t *testing.T) {
	s := at(t, shared.GRPC)
	s.newEndpoint("udp", "expect-4")
	type suites struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Cases    []struct {
			Name    string `xml:"name,attr"`
			Failure *struct {
				Message string `xml:"message,attr"`
			} `xml:"failure"`
		} `xml:"testsuite>testcase"`
	}
	read := func(code int, args ...string) (all suites) {
		t.Helper()
		r := s.run(args...)
		if r.code != code || r.stderr != "" {
			t.Errorf("exit %d, want %d: %s", r.code, code, r.stderr)
		}
		if err := xml.Unmarshal([]byte(r.stdout), &all); err != nil {
			t.Errorf("%v: %s", err, r.stdout)
		}
		return all
	}
	args := []string{"probe", "expect-4", "-c", "1", "-W", "60s", "-o", "junit", "-v"}
	if all := read(0, args...); all.Tests != 1 || all.Failures != 0 || all.Cases[0].Name != "at least one reply" {
		t.Errorf("nothing expected: %+v", all)
	}
	s.env["ECHOCTL_OUTPUT"] = "junit"
	s.terminal = true
	args = []string{"probe", "expect-4", "-c", "1", "-W", "60s", "--name", "e-junit", "--expect", "lost == 0", "--expect", "lost > 0"}
	for _, again := range [][]string{args, {"probe", "stop", "e-junit"}} {
		all := read(3, again...)
		if all.Tests != 2 || all.Failures != 1 || all.Cases[0].Failure != nil || all.Cases[1].Name != "lost > 0" ||
			all.Cases[1].Failure == nil || all.Cases[1].Failure.Message != "not met: lost = 0" {
			t.Errorf("%v: %+v", again, all)
		}
	}
	if all := read(3, "probe", "tcp://"+closedPort(t), "-c", "1", "-W", "60s"); all.Failures != 1 || !strings.HasPrefix(all.Cases[0].Failure.Message, "no reply: 1 sent") {
		t.Errorf("no reply: %+v", all)
	}
}

// TestDaemonThatDoesNotJudge is one from before there were expectations: it must not pass for a yes.
func TestDaemonThatDoesNotJudge(t *testing.T) {
	f := &fake{stream: func(stream grpc.ServerStreamingServer[echov1.StreamProbeResponse]) error {
		return stream.Send(&echov1.StreamProbeResponse{Message: &echov1.StreamProbeResponse_Report{
			Report: &echov1.ProbeReport{Probe: "p-1", Sent: 7, Received: 7},
		}})
	}}
	s := at(t, f.start(t))
	s.run("probe", "web-1", "--expect", "lost == 0").want(t, 1, "--- *\n7 sent, 7 received*\n",
		"echoctl: the daemon did not judge the expectations; it may be older than this echoctl (echoctl version shows both)\n")
}
