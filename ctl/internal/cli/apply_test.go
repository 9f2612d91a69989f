package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/echod/echod/ctl/internal/lab"
)

// write makes a file, with the folders on the way.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// lab makes a file of endpoints, each in YAML's flow style, and answers its path.
func (s *shell) lab(endpoints ...string) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "lab.yaml")
	text := "endpoints: []\n"
	if len(endpoints) > 0 {
		text = "endpoints:\n  - " + strings.Join(endpoints, "\n  - ") + "\n"
	}
	write(s.t, path, text)
	return path
}

// TestLifeOfALab goes through apply, diff, prune and export, with all that they write.
func TestLifeOfALab(t *testing.T) {
	s := at(t, ownDaemon(t).GRPC)
	file := s.lab("{name: web-1, protocol: TCP, labels: {lab: a, rack: r1}, tcp: {idleTimeout: 40ms}}",
		`{name: web-2, protocol: TCP, listen: ":0", labels: {lab: a}}`, "{name: dns-1, protocol: UDP, labels: {lab: a}}")
	s.ok("create", "tcp", "--name", "other")

	plan := "+ web-1\n+ web-2\n+ dns-1\n"
	s.run("diff", "-f", file).want(t, 1, plan, "3 to create\n")
	s.run("apply", "-f", file, "--dry-run").want(t, 0, plan, "3 to create\nchecked only; nothing was changed\n")
	s.run("apply", "-f", file).want(t, 0, plan, "3 created\n")
	before := s.ok("list", "-o", "json")
	s.run("apply", "-f", file).want(t, 0, "= web-1\n= web-2\n= dns-1\n", "3 unchanged\n")
	s.run("apply", "-f", file, "-o", "name").want(t, 0, "", "3 unchanged\n")
	s.run("diff", "-f", file).want(t, 0, "", "3 unchanged\n")
	s.run("diff", "-f", file, "-o", "json").want(t, 0, "{\n \"changes\": []\n}\n", "3 unchanged\n")
	if after := s.ok("list", "-o", "json"); after != before {
		t.Errorf("nothing was to change, and there was\n%s\nand is\n%s", before, after)
	}

	// web-2 is gone, and dns-1 listens elsewhere, where its port is as good as surely free.
	changed := s.lab("{name: web-1, protocol: TCP, labels: {lab: a, rack: r2}, tcp: {idleTimeout: 40ms}}", "{name: dns-1, protocol: UDP, listen: '127.0.0.2:0', labels: {lab: a}}")
	r := s.run("apply", "-f", changed)
	if r.code != 1 || !strings.HasPrefix(r.stderr, "echoctl: 1 of 2 endpoints cannot be had, and nothing was changed:\n  "+changed+":3:42: dns-1: listen: ") ||
		!strings.HasSuffix(r.stderr, "\n"+replaceHint+"\n") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	for _, want := range []string{"~   web-1\n      labels.rack: \"r1\" -> \"r2\"\n", "-/+ dns-1\n", "      listen: \"127.0.0.1:0\" -> \"127.0.0.2:0\" (needs a new socket)\n"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("the plan lacks %q: %s", want, r.stdout)
		}
	}
	if r := s.run("apply", "-f", changed, "-o", "json"); r.code != 1 || r.stdout != "" {
		t.Errorf("exit %d: %s", r.code, r.stdout)
	}
	if r := s.run("apply", "-f", changed, "--dry-run"); r.code != 1 || !strings.HasSuffix(r.stderr, "echoctl: an apply would do nothing: 1 endpoint would need a new socket\n"+replaceHint+"\n") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	if after := s.ok("list", "-o", "json"); after != before {
		t.Errorf("nothing was to change, and there was\n%s\nand is\n%s", before, after)
	}
	s.run("apply", "-f", changed, "--replace", "--prune", "-l", "lab=a", "-o", "name").want(t, 0, "web-1\ndns-1\nweb-2\n", "1 updated, 1 replaced, 1 deleted\n")
	s.run("list", "-o", "name").want(t, 0, "dns-1\nother\nweb-1\n", "")
	s.run("apply", "-f", s.lab(), "--prune", "-l", "lab", "--filter", "protocol = UDP OR port > 1").want(t, 0, "- dns-1\n- web-1\n", "2 deleted\n")
	s.run("apply", "-f", s.lab()).want(t, 0, "", "no endpoints\n")
	s.run("list", "-o", "name").want(t, 0, "other\n", "")
}

// TestPlanInEachFormat writes one plan in all formats, of apply and of diff, and what a purge would delete.
func TestPlanInEachFormat(t *testing.T) {
	s := at(t, shared.GRPC)
	s.newEndpoint("tcp", "plan-1", "-l", "plan=a")
	s.newEndpoint("tcp", "plan-2", "-l", "plan=a", "-l", "x=1")
	s.newEndpoint("udp", "plan-3", "-l", "plan=a")
	file := s.lab("{name: plan-1, protocol: TCP, labels: {plan: a}}", "{name: plan-2, protocol: TCP, labels: {plan: a, x: '2'}}",
		"{name: plan-4, protocol: UDP}")
	const table = `~ plan-2
 labels.x: "1" -> "2"
+ plan-4
- plan-3
`
	for format, want := range map[string]string{
		"table": table, "wide": table, "name": "plan-2\nplan-4\nplan-3\n",
		"yaml": `changes:
 - name: plan-2
 action: UPDATE
 fields:
 - path: labels.x
 before: '"1"'
 after: '"2"'
 needsReplace: false
 omittedFields: 0
 - name: plan-4
 action: CREATE
 fields: []
 omittedFields: 0
 - name: plan-3
 action: DELETE
 fields: []
 omittedFields: 0
`,
	} {
		args := []string{"-f", file, "--prune", "-l", "plan=a", "-o", format}
		s.run(append([]string{"diff"}, args...)...).want(t, 1, want, "1 to create, 1 to update, 1 to delete, 1 unchanged\n")
		if out := s.ok(append([]string{"apply", "--dry-run"}, args...)...); !strings.Contains(out, "plan-1") && format != "name" {
			t.Errorf("apply as %s leaves out what does not change: %s", format, out)
		}
	}
	m := s.json("apply", "--dry-run", "-f", file)
	wantField(t, m, "changes", `[{"action":"NONE","fields":[],"name":"plan-1","omittedFields":0},`+
		`{"action":"UPDATE","fields":[{"after":"\"2\"","before":"\"1\"","needsReplace":false,"path":"labels.x"}],"name":"plan-2","omittedFields":0},`+
		`{"action":"CREATE","fields":[],"name":"plan-4","omittedFields":0}]`)
	s.terminal = true
	if out := s.ok("apply", "--dry-run", "-f", file); !strings.Contains(out, "\x1b[32m+   plan-4\x1b[0m\n") {
		t.Errorf("no colour on a terminal: %s", out)
	}
}

// TestExample applies the lab in examples, but for its port, which may be anybody's here.
func TestExample(t *testing.T) {
	s := at(t, ownDaemon(t).GRPC)
	text, err := os.ReadFile("../../../examples/lab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s.stdin = strings.Replace(string(text), ":17007", ":0", 1)
	s.run("apply", "-f", "-").want(t, 0, "+ web-1\n+ web-2\n+ dns-1\n", "3 created\n")
	s.run("apply", "-f", "-", "-o", "name").want(t, 0, "", "3 unchanged\n")
	wantField(t, s.json("get", "web-2"), "tcp.idleTimeout", `"30s"`)
}

// TestRoundTrip writes what is there as a file, which changes nothing, and brings the same back after all is gone.
func TestRoundTrip(t *testing.T) {
	s := at(t, ownDaemon(t).GRPC)
	s.ok("create", "tcp", "--name", "plain", "--ttl", "1h")
	s.ok("create", "udp", ":0", "--name", "dual", "--loop-guard=false", "--source-bytes", "1G", "--allow", "127.0.0.0/8,::1", "-l", "yes=no", "-l", "n=1.10")
	s.ok("create", "tcp", "127.0.0.1:0", "--name", "full", "--one-shot", "--idle-timeout", "0", "--stall-timeout", "40ms", "--max-connections", "0",
		"--max-bytes", "10MiB", "--socket-buffer", "64KiB", "--description", "two\nlines: \"# ~\"")
	s.ok("create", "tcp", "--name", "many", "--count", "20")
	s.ok("stop", "plain")
	addresses := func() (all string) {
		for _, e := range s.json("list")["endpoints"].([]any) {
			e := e.(map[string]any)
			all += fmt.Sprintln(e["name"], e["protocol"], e["address"], e["labels"], e["tcp"], e["udp"], e["sources"], e["description"], e["ttl"])
		}
		return all
	}
	want := addresses()
	for _, format := range []string{"yaml", "json", "env"} {
		args := []string{"export", "-o", format}
		if format == "env" {
			s.env["ECHOCTL_OUTPUT"] = "table"
			args = args[:1]
		}
		s.stdin = s.ok(args...)
		delete(s.env, "ECHOCTL_OUTPUT")
		s.run("apply", "--dry-run", "-f", "-", "-o", "name").want(t, 0, "", "23 unchanged\nchecked only; nothing was changed\n")
		s.run("diff", "-f", "-", "--prune", "--filter", "name = *").want(t, 0, "", "23 unchanged\n")
		s.ok("delete", "--all", "--yes")
		s.run("apply", "-f", "-", "-o", "json")
		if got := addresses(); got != want {
			t.Errorf("there was\n%s\nand is after %s\n%s", want, format, got)
		}
	}
	s.ok("delete", "--all", "-y")
	s.run("export").want(t, 0, "endpoints: []\n", "")
}

// TestFiles reads files, folders and standard input.
func TestFiles(t *testing.T) {
	s := at(t, shared.GRPC)
	folder := t.TempDir()
	one := func(name string) string { return "endpoints: [{name: " + name + ", protocol: TCP}]\n" }
	write(t, filepath.Join(folder, "b.yml"), one("b"))
	write(t, filepath.Join(folder, "a.YAML"), one("a-1")+"---\n"+one("a-2"))
	write(t, filepath.Join(folder, "c.json"), `{"endpoints": [{"name": "c", "protocol": "UDP"}]}`)
	write(t, filepath.Join(folder, ".hidden.yaml"), one("hidden"))
	write(t, filepath.Join(folder, "note.txt"), "no YAML: at: all")
	write(t, filepath.Join(folder, "x", "y", "d.yaml"), one("d"))
	write(t, filepath.Join(folder, ".git", "e.yaml"), one("e"))
	s.stdin = one("stdin")
	s.run("diff", "-f", folder, "-o", "name").want(t, 1, "a-1\na-2\nb\nc\n", "4 to create\n")
	s.run("diff", "-f", "-", "-f", folder, "-R", "-o", "name").want(t, 1, "stdin\na-1\na-2\nb\nc\nd\n", "6 to create\n")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(folder, link); err != nil {
		t.Logf("no links can be made here: %v", err)
	} else {
		s.run("diff", "-f", link, "-o", "name").want(t, 1, "a-1\na-2\nb\nc\n", "4 to create\n")
	}
	empty := t.TempDir()
	large := filepath.Join(empty, "large.yaml")
	for _, c := range []struct{ args, want string }{
		{"-f " + empty, empty + " has no .yaml, .yml, .json file"},
		{"-f " + empty + "/none", "cannot read " + empty + "/none: no such file or directory"},
		{"-f " + folder + " -f " + folder + "/b.yml", folder + `/b.yml:1:20: "b" is there twice: here and at ` + folder + "/b.yml:1:20"},
		{"-f -", "standard input: says nothing; a file for no endpoints says: endpoints: []"},
	} {
		s.stdin = ""
		args := strings.Fields(c.args)
		s.run(append([]string{"apply"}, args...)...).want(t, 1, "", "echoctl: "+c.want+"\n")
		// What diff cannot tell must not look like a difference.
		s.run(append([]string{"diff"}, args...)...).want(t, 2, "", "echoctl: "+c.want+"\n")
	}
	write(t, large, strings.Repeat("#", lab.MaxFileBytes+1))
	s.run("apply", "-f", large).want(t, 1, "", "echoctl: "+large+": has more than 8 MiB, which is the most a file may have\n")
	for i := range 3 {
		write(t, filepath.Join(empty, fmt.Sprintf("large-%d.json", i)), labOf(3, i, 1<<20))
	}
	if err := os.Remove(large); err != nil {
		t.Fatal(err)
	}
	s.run("apply", "-f", empty).want(t, 1, "", "echoctl: that is a request of *.* MiB, and the daemon takes 8 MiB: apply the files in parts\n")
	s.run("diff", "-f", empty).want(t, 2, "", "echoctl: that is a request of *.* MiB, and the daemon takes 8 MiB: apply the files in parts\n")
}

// labOf is a file, as JSON, of so many endpoints with a description of so many bytes.
func labOf(n, file, bytes int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(`{"name": "e-%d-%d", "protocol": "TCP", "description": %q}`, file, i, strings.Repeat("x", bytes)))
	}
	return `{"endpoints": [` + strings.Join(list, ",") + "]}"
}

// TestFileProblems tells where a file is wrong, and what the daemon says of it.
func TestFileProblems(t *testing.T) {
	s := at(t, shared.GRPC)
	file := s.lab("{name: a, protocol: TCP, listn: ':7'}", "{name: b, protokol: TCP}")
	for verb, code := range map[string]int{"apply": 1, "diff": 2} {
		s.run(verb, "-f", file).want(t, code, "", "echoctl: 2 problems:\n "+file+":2:30: unknown key \"listn\"; did you mean listen?\n "+
			file+":3:15: unknown key \"protokol\"; did you mean protocol?\n")
		good := s.lab("{name: p-a, protocol: TCP}", "{name: p-b}", "{name: p-c, protocol: TCP, sources: {allow: ['::1', nobody]}}")
		s.run(verb, "-f", good).want(t, code, "", "echoctl: the daemon refuses 2 values, and nothing was changed:\n "+
			good+":3:5: p-b: protocol: is missing: *\n "+good+":4:57: p-c: sources.allow[1]: source \"nobody\" is not *\n")
		s.run(verb, "-f", s.lab("{name: p-a, protocol: TCP}"), "--prune", "--filter", "x =").want(t, code, "", "echoctl: prune_filter: *\n")
		at(t, closedPort(t)).run(verb, "-f", s.lab("{name: p-a, protocol: TCP}")).want(t, 4, "", "echoctl: cannot reach *\n")
	}
}

// TestApplyRequest sees what is sent.
func TestApplyRequest(t *testing.T) {
	var got *echov1.ApplyEndpointsRequest
	f := &fake{apply: func(r *echov1.ApplyEndpointsRequest) (*echov1.ApplyEndpointsResponse, error) {
		got = r
		return &echov1.ApplyEndpointsResponse{}, nil
	}}
	s := at(t, f.start(t))
	file := s.lab("{name: a, protocol: TCP, etag: e}")
	want := &echov1.ApplyEndpointsRequest{Endpoints: []*echov1.Endpoint{{Name: "a", Protocol: echov1.Protocol_TCP, Etag: "e"}}}
	for _, c := range []struct {
		args   string
		change func(*echov1.ApplyEndpointsRequest)
	}{
		{"apply", func(*echov1.ApplyEndpointsRequest) {}},
		{"apply --prune -l lab=a,!old --filter state=STOPPED --replace", func(r *echov1.ApplyEndpointsRequest) {
			r.PruneFilter, r.Replace = `(state=STOPPED) AND labels.lab = "a" AND NOT labels:"old"`, true
		}},
		{"apply --dry-run", func(r *echov1.ApplyEndpointsRequest) { r.ValidateOnly = true }},
		{"diff", func(r *echov1.ApplyEndpointsRequest) { r.ValidateOnly, r.Replace = true, true }},
	} {
		s.ok(append(strings.Fields(c.args), "-f", file)...)
		wanted := proto.CloneOf(want)
		c.change(wanted)
		if !proto.Equal(got, wanted) {
			t.Errorf("%s sends %v, want %v", c.args, got, wanted)
		}
	}
}

// TestApplyTellsWhatStaysFailed: "=" is not all that there is to say of it.
func TestApplyTellsWhatStaysFailed(t *testing.T) {
	failed := 1
	f := &fake{apply: func(*echov1.ApplyEndpointsRequest) (*echov1.ApplyEndpointsResponse, error) {
		resp := &echov1.ApplyEndpointsResponse{Changes: []*echov1.EndpointChange{{Name: "well", Action: echov1.EndpointChange_NONE}}}
		for range failed {
			resp.Changes = append(resp.Changes, &echov1.EndpointChange{
				Name: "bad", Action: echov1.EndpointChange_NONE, Failure: "cannot bind 127.0.0.1:7:\naddress already in use\x1b[31m",
			})
		}
		return resp, nil
	}}
	s := at(t, f.start(t))
	file := s.lab("{name: well, protocol: TCP}")
	s.run("apply", "-f", file).want(t, 0, "= well\n= bad\n",
		"2 unchanged\nechoctl: bad is FAILED, and tried again: cannot bind 127.0.0.1:7: address already in use\\x1b[31m\n")
	failed = 12
	r := s.run("apply", "-f", file, "-o", "name")
	if lines := strings.Split(strings.TrimSpace(r.stderr), "\n"); r.code != 0 || r.stdout != "" || len(lines) != 12 || lines[11] != "echoctl: and so are 2 more" {
		t.Errorf("%+v", r)
	}
}

// TestPlanThatFails has the plan of a replacement fail: what came first is told.
func TestPlanThatFails(t *testing.T) {
	f := &fake{apply: func(r *echov1.ApplyEndpointsRequest) (*echov1.ApplyEndpointsResponse, error) {
		if r.GetReplace() {
			return nil, failure(t, codes.Internal, "internal error", reason("INTERNAL"))
		}
		return nil, failure(t, codes.FailedPrecondition, "a serves", reason("NEEDS_REPLACE"))
	}}
	s := at(t, f.start(t))
	s.run("apply", "-f", s.lab("{name: a}")).want(t, 1, "", "echoctl: a serves\n"+replaceHint+"\n")
}

// TestExportBounds has more than an apply takes, and endpoints that end with a session.
func TestExportBounds(t *testing.T) {
	s := at(t, bigFake(t, 10_001, nil))
	s.run("export").want(t, 1, "", "echoctl: there are 10001 endpoints, and an apply takes 10000: export them in parts, with --selector or --filter\n")
	s = at(t, bigFake(t, 9, func(e *echov1.Endpoint) { e.Description = strings.Repeat("x", 1<<20) }))
	s.run("export", "-o", "json").want(t, 1, "", "echoctl: that is a file of *.* MiB, and an apply takes 8 MiB: export them in parts, with --selector or --filter\n")
	s = at(t, bigFake(t, 3, func(e *echov1.Endpoint) {
		if e.GetName() != "e-1" {
			e.Session = "s"
		}
	}))
	s.run("export").want(t, 0, "endpoints:\n - name: e-1\n protocol: TCP\n", "left out 2 endpoints that end with a session\n")
}

// bigFake is a daemon of so many endpoints.
func bigFake(t *testing.T, n int, change func(*echov1.Endpoint)) string {
	f := &fake{
		create: func(r *echov1.CreateEndpointRequest) (*echov1.Endpoint, error) {
			if !r.GetValidateOnly() {
				t.Error("an export creates")
			}
			return r.GetEndpoint(), nil
		},
		list: func(_ context.Context, r *echov1.ListEndpointsRequest) (*echov1.ListEndpointsResponse, error) {
			response := &echov1.ListEndpointsResponse{}
			first := len(r.GetPageToken())
			const page = 4000
			for i := first; i < min(first+page, n); i++ {
				e := &echov1.Endpoint{Name: fmt.Sprintf("e-%d", i), Protocol: echov1.Protocol_TCP}
				if change != nil {
					change(e)
				}
				response.Endpoints = append(response.Endpoints, e)
			}
			if first+page < n {
				response.NextPageToken = strings.Repeat("x", first+page)
			}
			return response, nil
		},
	}
	return f.start(t)
}
