package cli

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// TestDeleteAsks goes through what may be answered to the question of a delete.
func TestDeleteAsks(t *testing.T) {
	s := at(t, shared.GRPC)
	s.remove("ask-1", "ask-2")
	s.ok("create", "tcp", "--count", "2", "--name", "ask", "-l", "set=ask")
	would := "would delete ask-1\nwould delete ask-2\n"
	question := would + "type yes to delete 2 endpoints: "

	// Nobody is there to ask, for one reason or the other.
	needed := would + "nothing was changed: --yes is needed to delete 2 endpoints\n"
	s.stdin = "yes\n"
	s.run("delete", "-l", "set=ask", "-o", "json").want(t, 1, "", needed)
	s.stdinTerminal = true
	s.run("delete", "-l", "set=ask").want(t, 1, "", needed)
	s.stdinTerminal, s.stderrTerminal = false, true
	s.run("delete", "-l", "set=ask").want(t, 1, "", needed)

	s.stdinTerminal = true
	for _, no := range []string{"", "\n", "y\n", "no\n", "yes please\n"} {
		s.stdin = no
		s.run("delete", "-l", "set=ask").want(t, 1, "", question+"nothing was changed\n")
	}
	s.run("list", "-l", "set=ask", "-o", "name").want(t, 0, "ask-1\nask-2\n", "")
	s.stdin = " yes\n"
	s.run("delete", "-l", "set=ask", "-o", "yaml").want(t, 0, "count: 2\nnames:\n - ask-1\n - ask-2\n", question+"deleted 2 endpoints\n")

	s.run("delete", "-l", "set=ask", "--yes", "-o", "json").want(t, 0, "{\n \"count\": 0,\n \"names\": []\n}\n", "no endpoint matches set=ask\n")
	s.run("delete", "--filter", "nonsense here =", "--yes").want(t, 1, "", "echoctl: filter: *\n")
}

// blocking is a standard input that nobody types at, until the test ends.
type blocking chan struct{}

func (b blocking) Read([]byte) (int, error) { <-b; return 0, context.Canceled }

// TestDeleteIsInterrupted has a Ctrl-C for an answer.
func TestDeleteIsInterrupted(t *testing.T) {
	f := &fake{purge: func(_ context.Context, r *echov1.PurgeEndpointsRequest) (*echov1.PurgeEndpointsResponse, error) {
		if r.GetForce() {
			t.Error("it deletes")
		}
		return &echov1.PurgeEndpointsResponse{Count: 1, Names: []string{"a"}}, nil
	}}
	typed := make(blocking)
	defer close(typed)
	ctx, cancel := context.WithCancel(t.Context())
	var screen trigger
	screen.when("type yes to delete 1 endpoint: ", cancel)
	code := Run(ctx, Env{
		Stdin: typed, StdinTerminal: true, Stdout: &screen, Stderr: &screen, StderrTerminal: true,
		LookupEnv: func(string) (string, bool) { return "", false },
	}, []string{"delete", "--all", "--server", f.start(t)})
	if want := "would delete a\ntype yes to delete 1 endpoint: \nechoctl: interrupted\n"; code != 1 || screen.text != want {
		t.Errorf("exit %d: %s, want %s", code, screen.text, want)
	}
}

// trigger does something when a text is written to it.
type trigger struct {
	text string
	wait string
	then func()
}

func (w *trigger) when(text string, then func()) { w.wait, w.then = text, then }

func (w *trigger) Write(b []byte) (int, error) {
	w.text += string(b)
	if string(b) == w.wait {
		w.then()
	}
	return len(b), nil
}

// TestDeleteOfMany has more than are named.
func TestDeleteOfMany(t *testing.T) {
	var names []string
	for i := range 10_000 {
		names = append(names, fmt.Sprintf("e-%d", i))
	}
	f := &fake{purge: func(_ context.Context, r *echov1.PurgeEndpointsRequest) (*echov1.PurgeEndpointsResponse, error) {
		if r.GetFilter() != "*" {
			t.Errorf("the filter is %s", r.GetFilter())
		}
		return &echov1.PurgeEndpointsResponse{Count: 12_345, Names: names}, nil
	}}
	s := at(t, f.start(t))
	told := ""
	for _, name := range names[:20] {
		told += "would delete " + name + "\n"
	}
	s.run("delete", "--all").want(t, 1, "", told+"would delete 12325 more\nnothing was changed: --yes is needed to delete 12345 endpoints\n")
	wantField(t, s.json("delete", "--all", "-y"), "count", "12345")
	if r := s.run("delete", "--all", "-y"); r.code != 0 || !strings.HasSuffix(r.stderr, "deleted e-9999\ndeleted 2345 more\ndeleted 12345 endpoints\n") {
		t.Errorf("exit %d, and it ends otherwise", r.code)
	}
}

// TestPurgeExtendsTheDeadline sees that a purge may take as long as its drain.
func TestPurgeExtendsTheDeadline(t *testing.T) {
	f := &fake{purge: func(ctx context.Context, r *echov1.PurgeEndpointsRequest) (*echov1.PurgeEndpointsResponse, error) {
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) < time.Hour || r.GetDrainTimeout().GetSeconds() != 3600 {
			t.Errorf("deadline %v, drain %v", deadline, r.GetDrainTimeout())
		}
		return &echov1.PurgeEndpointsResponse{}, nil
	}}
	at(t, f.start(t)).ok("delete", "--all", "--yes", "--drain-timeout", "1h")
}
