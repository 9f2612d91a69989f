package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
)

// screen is what is left on one line of a terminal.
func screen(written string) string {
	var line []rune
	at := 0
	for _, r := range written {
		if r == '\r' {
			at = 0
			continue
		}
		if at == len(line) {
			line = append(line, r)
		} else {
			line[at] = r
		}
		at++
	}
	return strings.TrimRight(string(line), " ")
}

func TestLiveLine(t *testing.T) {
	var w bytes.Buffer
	line := newLiveLine(&w, 60)
	long := &echov1.Aggregate{
		Until: durationpb.New(time.Second), Sent: 1000, Received: 998, Lost: 2,
		Rtt: &echov1.Distribution{P50: durationpb.New(time.Millisecond), P99: durationpb.New(2 * time.Millisecond)},
	}
	if err := line.update(long); err != nil {
		t.Fatal(err)
	}
	if got, want := screen(w.String()), "1.0 s: 1000 sent, 998 received, 2 lost (0.2 %), p50/p99 1.0"; got != want || len(want) != 59 {
		t.Errorf("the line is %q, want %q", got, want)
	}
	if err := line.update(&echov1.Aggregate{Until: durationpb.New(2 * time.Second), Late: 2}); err != nil {
		t.Fatal(err)
	}
	if got, want := screen(w.String()), "2.0 s: 1000 sent, 998 received, 0 lost, 0/s"; got != want {
		t.Errorf("the line is %q, want %q", got, want)
	}
	line = newLiveLine(&w, 100)
	if err := line.update(long); err != nil {
		t.Fatal(err)
	}
	w.WriteString(echoedInterrupt)
	line.clear()
	if got := screen(w.String()); got != "" || !strings.HasSuffix(w.String(), "\r") {
		t.Errorf("%q is left of the line", got)
	}
	before := w.Len()
	line.clear()
	if w.Len() != before {
		t.Error("a line that is not shown is cleared")
	}
}

// aggregating is a daemon whose probes have an aggregate, and keeps what it was asked.
func aggregating(asked *echov1.StreamProbeRequest) *fake {
	return &fake{
		asked: asked,
		stream: func(stream grpc.ServerStreamingServer[echov1.StreamProbeResponse]) error {
			target := &echov1.ProbeTarget{Endpoint: "web-1"}
			for _, m := range []*echov1.StreamProbeResponse{
				{Message: &echov1.StreamProbeResponse_Probe{Probe: &echov1.Probe{Name: "p-1", Target: target}}},
				{Message: &echov1.StreamProbeResponse_Aggregate{Aggregate: &echov1.Aggregate{
					Until: durationpb.New(time.Second), Sent: 7, Received: 7,
				}}},
				{Message: &echov1.StreamProbeResponse_Report{Report: &echov1.ProbeReport{
					Probe: "p-1", Target: target, Sent: 7, Received: 7,
				}}},
			} {
				if err := stream.Send(m); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// TestWhatIsSeenOfAFastProbe goes through terminals and flags: what is asked of the daemon, and what is shown.
func TestWhatIsSeenOfAFastProbe(t *testing.T) {
	const (
		headline = "probing web-1: 0 bytes, until stopped\n"
		line     = "until=1.0 s: 7 sent, 7 received, 0 lost\n"
		summary  = "--- web-1 probe statistics ---\n7 sent, 7 received, 0 lost\n"
		live     = "\r1.0 s: 7 sent, 7 received, 0 lost, 7/s"
	)
	for _, c := range []struct {
		name                     string
		terminal, stderrTerminal bool
		flags                    []string
		aggregate                *durationpb.Duration
		stdout                   string
		live                     bool
	}{
		{"a terminal", true, true, nil, nil, headline + "\n" + summary, true},
		{"a terminal, but not for errors", true, false, nil, nil, headline + line + "\n" + summary, false},
		{"no terminal", false, false, nil, nil, summary, false},
		{"a terminal for errors only", false, true, nil, nil, summary, false},
		{"the same, --live", false, true, []string{"--live"}, durationpb.New(liveEvery), summary, true},
		{"JSON, --live", false, true, []string{"--live", "-o", "name"}, durationpb.New(liveEvery), "p-1\n", true},
		{"a terminal, names", true, true, []string{"-o", "name"}, nil, "p-1\n", false},
		{"verbose", true, true, []string{"-v"}, durationpb.New(0), headline + line + "\n" + summary, false},
		{
			"verbose aggregates", false, false, []string{"-v", "--aggregate", "2"}, durationpb.New(2 * time.Second),
			headline + line + "\n" + summary, false,
		},
		{"aggregates", true, true, []string{"--aggregate", "1"}, durationpb.New(time.Second), headline + "\n" + summary, true},
		{
			"aggregates and --live", true, true, []string{"--live", "--aggregate", "1"}, durationpb.New(time.Second),
			headline + "\n" + summary, true,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := &echov1.StreamProbeRequest{}
			s := at(t, aggregating(asked).start(t))
			s.terminal, s.stderrTerminal, s.stderrWidth = c.terminal, c.stderrTerminal, 80
			r := s.run(append([]string{"probe", "web-1"}, c.flags...)...)
			if r.code != 0 || r.stdout != c.stdout {
				t.Errorf("exit %d, stdout is:\n%s\nwant:\n%s", r.code, r.stdout, c.stdout)
			}
			if shown := strings.HasPrefix(r.stderr, live); shown != c.live || screen(r.stderr) != "" {
				t.Errorf("stderr is %q", r.stderr)
			}
			got, want := asked.GetAggregate(), c.aggregate
			if (got == nil) != (want == nil) || got.AsDuration() != want.AsDuration() {
				t.Errorf("aggregate %v was asked for, want %v", got, want)
			}
		})
	}
}

// TestLocale draws with block characters where the locale has them.
func TestLocale(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want bool
	}{
		{nil, false},
		{map[string]string{"LANG": "C"}, false},
		{map[string]string{"LANG": "en_US.UTF-8"}, true},
		{map[string]string{"LC_ALL": "C.utf8", "LANG": "C"}, true},
		{map[string]string{"LC_ALL": "POSIX", "LANG": "C.UTF-8"}, false},
		{map[string]string{"LC_CTYPE": "de_DE.utf-8", "LANG": "C"}, true},
	} {
		a := &app{env: Env{Terminal: true, LookupEnv: func(key string) (string, bool) { v, ok := c.env[key]; return v, ok }}}
		if got := a.unicode(); got != c.want {
			t.Errorf("%v: %v, want %v", c.env, got, c.want)
		}
	}
}
