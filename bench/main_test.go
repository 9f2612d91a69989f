//go:build linux

package main

import (
	"bytes"
	"context"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain is the load generator and the busy process, too: the program starts itself as one.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == loadArgument {
		os.Exit(beLoad(os.Args[2]))
	}
	if len(os.Args) == 2 && os.Args[1] == spinArgument {
		beBusy()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// testContext ends what hangs.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// temporary makes run use a directory that the test can look into.
func temporary(t *testing.T) string {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	return dir
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "echod-bench-") {
			t.Errorf("%s is left behind", e.Name())
		}
	}
}

// One short round of a case of each kind, with our server alone.
func TestEachKindOfCaseRuns(t *testing.T) {
	dir := temporary(t)
	var out, talk bytes.Buffer
	names := "tcp-64x64B,tcp-pipelined,tcp-bulk-8,tcp-connect,udp-64x64B,udp-wildcard,udp-trains," +
		"endpoints,idle-connections,stalled-peers"
	args := []string{"-case", names, "-servers", ours, "-rounds", "1", "-trial", "30ms", "-warm", "10ms", "-count", "50"}
	err := run(testContext(t), args, &out, &talk)
	if err != nil {
		t.Fatalf("%v\n%s%s", err, talk.String(), out.String())
	}
	for name := range strings.SplitSeq(names, ",") {
		_, after, found := strings.Cut(out.String(), "\n"+name+":")
		table, _, _ := strings.Cut(after, "\n\n")
		if !found || strings.Count(table, "\n") < 2 || strings.Contains(table, "was not measured") {
			t.Errorf("no row of %s in:\n%s", name, out.String())
		}
	}
	wantEmpty(t, dir)
}

// What is asked to end ends, with nothing left behind: the leak check sees goroutines, this one the directory.
func TestInterrupted(t *testing.T) {
	dir := temporary(t)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	var out bytes.Buffer
	talk := cancelWhen{text: "measuring", cancel: cancel}
	err := run(ctx, []string{"-case", "tcp-64x64B", "-servers", ours, "-rounds", "1000000"}, &out, talk)
	if err == nil || ctx.Err() == nil {
		t.Fatalf("it went on: %v\n%s", err, out.String())
	}
	wantEmpty(t, dir)
}

// cancelWhen cancels once text is written to it.
type cancelWhen struct {
	text   string
	cancel context.CancelFunc
}

func (c cancelWhen) Write(b []byte) (int, error) {
	if strings.Contains(string(b), c.text) {
		c.cancel()
	}
	return len(b), nil
}

func TestFlags(t *testing.T) {
	for _, test := range []struct {
		args string
		want string // in the error; empty is none
	}{
		{"", ""},
		{"-quick -case tcp-*,endpoints -servers echod,socat", ""},
		{"-case nothing", `no case "nothing"`},
		{"-case tcp-64x64B,x*", `no case "x*"`},
		{"-servers nobody", `no server "nobody"`},
		{"-rounds 0", "1 and up"},
		{"-trial 0s", "more than 0"},
		{"-within 3 -rounds 7 -max-rounds 7", ""},
		{"-within -1", "0 and up"},
		{"-within NaN", "0 and up"},
		{"-within 3 -rounds 7 -max-rounds 6", "no less than -rounds"},
		{"-rounds 100", ""}, // nobody asked to go on
		{"-stalled -1", "-stalled no less"},
		{"more", `unexpected argument "more"`},
	} {
		_, err := parseFlags(strings.Fields(test.args), &bytes.Buffer{})
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%q: error %v, want %q", test.args, err, test.want)
		}
	}
}

func TestQuickKeepsWhatIsGiven(t *testing.T) {
	o, err := parseFlags([]string{"-quick", "-rounds", "9"}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if o.rounds != 9 || o.trial >= 400*time.Millisecond || !o.noFork {
		t.Errorf("got %+v", o)
	}
}

func TestStalledPeersAreATenth(t *testing.T) {
	for args, want := range map[string]int{"": 1000, "-quick": 100, "-count 5": 1, "-stalled 10000": 10000} {
		o, err := parseFlags(strings.Fields(args), &bytes.Buffer{})
		if err != nil || o.stalled != want {
			t.Errorf("%q: got %d, %v, want %d", args, o.stalled, err, want)
		}
	}
}

func TestAsManyAsFilesAllow(t *testing.T) {
	for _, test := range []struct {
		count int
		files uint64
		want  int
	}{
		{10000, 20000, 10000},
		{10000, 10000 + spareFiles, 10000},
		{10000, 9999 + spareFiles, 9999},
		{10000, 1024, 1024 - spareFiles},
		{10000, 10, 1},
		{10000, math.MaxUint64, 10000}, // no limit
	} {
		got, note := fitting(test.count, test.files)
		if got != test.want || (len(note) > 0) != (got < test.count) {
			t.Errorf("%d with %d files: got %d, %q, want %d", test.count, test.files, got, note, test.want)
		}
	}
}

func TestProgramsAreThoseNeeded(t *testing.T) {
	o, err := parseFlags([]string{"-case", "endpoints,tcp-bulk-1", "-servers", "c-epoll-32k,c-epoll-64k"}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(o.programs(), " "); got != "echoserver tcp_epoll" {
		t.Errorf("got %s", got)
	}
}

// The tables of cases and servers fit together.
func TestCasesAreSound(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range cases {
		if seen[c.Name] {
			t.Errorf("%s is there twice", c.Name)
		}
		seen[c.Name] = true
		if len(c.Servers) < 2 || c.Servers[0] != ours {
			t.Errorf("%s: ours is to be the first of several servers, not of %v", c.Name, c.Servers)
		}
		for _, name := range c.Servers {
			if _, err := findServer(name); err != nil {
				t.Errorf("%s: %v", c.Name, err)
			}
		}
	}
}

func TestOrderAlternates(t *testing.T) {
	var got []string
	for round := range 5 {
		var turns strings.Builder
		for _, i := range order(3, round) {
			turns.WriteByte("ABC"[i])
		}
		got = append(got, turns.String())
	}
	if want := "ABC CBA BCA BAC CAB"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}
