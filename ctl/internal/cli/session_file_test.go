package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

const sessionLab = `endpoints:
  - name: lab-web
    protocol: TCP
    labels: {lab: a, run: none}
  - name: lab-dns
    protocol: UDP
  - name: lab-db
    protocol: TCP
`

// labFile writes a file of endpoints.
func labFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lab.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSessionOfAFile(t *testing.T) {
	onlyUnix(t)
	s := at(t, shared.GRPC)
	p := startSession(t, buildEchoctl(t), shared.GRPC, "--name", "filed", "--tcp", "", "-f", labFile(t, sessionLab), "-l", "run=1", "--",
		"sh", "-c", "env | grep ^ECHO | sort; echo READY; read line")
	env := p.until("READY")
	for variable, name := range map[string]string{
		"ECHO_TCP_1": "filed-tcp-1", "ECHO_TCP_2": "lab-web", "ECHO_UDP_1": "lab-dns", "ECHO_TCP_3": "lab-db",
	} {
		m := s.json("get", name)
		wantField(t, m, "session", `"filed"`)
		if env[variable+"_NAME"] != name || env[variable] != fmt.Sprint(m["address"]) {
			t.Errorf("%s is %q of %q, want %v of %s", variable, env[variable], env[variable+"_NAME"], m["address"], name)
		}
	}
	wantField(t, s.json("get", "lab-web"), "labels", `{"lab":"a","run":"1"}`)
	p.stdin.Close()
	p.wait()
	for _, name := range []string{"filed-tcp-1", "lab-web", "lab-dns", "lab-db"} {
		if r := s.run("get", name); r.code != 1 {
			t.Errorf("%s is there after the session", name)
		}
	}
}

// TestSessionOfABadFile: nothing runs, and nothing is left behind.
func TestSessionOfABadFile(t *testing.T) {
	onlyUnix(t)
	s := at(t, shared.GRPC)
	s.newEndpoint("tcp", "lab-db")
	taken, typo := labFile(t, sessionLab), labFile(t, "endpoints:\n  - {name: a, protcol: TCP}\n")
	other := labFile(t, "endpoints:\n  - name: a\n    protocol: TCP\n    session: ci\n")
	bad := labFile(t, "endpoints:\n  - {name: bad, protocol: TCP, listen: ':70000'}\n")
	s.run("session", "--tcp", "", "-f", taken, "--", "echo", "never").want(t, 1, "",
		"echoctl: 1 of 3 endpoints cannot be had, and nothing was changed:\n*lab.yaml:7:11: lab-db: name: the name is taken: *\n")
	s.run("session", "-f", bad, "--", "echo", "never").want(t, 1, "", "echoctl: *lab.yaml:2:*: bad: listen: must be *\nnothing was changed\n")
	s.run("session", "-f", typo, "--", "echo", "never").want(t, 1, "", "echoctl: *lab.yaml:2:*: unknown key \"protcol\"; did you mean protocol?\n")
	s.run("session", "-f", other).want(t, 1, "", "echoctl: *lab.yaml:4:*: a: session: the endpoint is to be in this session, not in \"ci\": *\n")
	s.run("session", "-f", "-", "--", "cat").want(t, 2, "", "echoctl: -f - would read the standard input of the command*\n")
	s.run("session", "-R").want(t, 2, "", "echoctl: --recursive is about folders, and -f is not given*\n")
	if r := s.run("get", "lab-web"); r.code != 1 {
		t.Error("what could be had is left behind")
	}
}
