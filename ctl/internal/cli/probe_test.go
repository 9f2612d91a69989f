package cli

import (
	"context"
	"strings"
	"sync"
	"testing"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/grpc"
)

// newEndpoint makes an endpoint that ends with the test and answers its address.
func (s *shell) newEndpoint(protocol, name string, flags ...string) string {
	s.t.Helper()
	s.remove(name)
	address, _ := s.json(append([]string{"create", protocol, "--name", name}, flags...)...)["address"].(string)
	return address
}

func TestProbeOfAnEndpoint(t *testing.T) {
	s := at(t, shared.GRPC)
	address := s.newEndpoint("tcp", "probe-1")
	const summary = `--- probe-1 probe statistics ---
3 sent, 3 received, 0 lost (at most 64 % with 95 % confidence), time *.* s
rtt = TIMES
connect = * ms
`
	lines := strings.ReplaceAll(`probing probe-1 (tcp*): 64 bytes, 3 round trips, one every 10ms
64 bytes from ADDRESS: seq=1 time=*.* ms connect=*.* ms
64 bytes from ADDRESS: seq=2 time=*.* ms
64 bytes from ADDRESS: seq=3 time=*.* ms

`, "ADDRESS", address)
	args := []string{"probe", "probe-1", "-c", "3", "-i", "10ms", "-W", "60s"}
	s.run(args...).steady().want(t, 0, summary, "")
	s.run(append(args, "--verbose")...).steady().want(t, 0, lines+summary, "")
	s.run(append(args, "-o", "name", "-v")...).want(t, 0, "probe-*\n", "")
	if out := s.ok(append(args, "-o", "wide")...); !strings.Contains(out, "\nschedule: ") {
		t.Errorf("wide: %s", out)
	}
	report := s.json(append(args, "-v")...)
	wantField(t, report, "target.endpoint", `"probe-1"`)
	wantField(t, report, "received", "3")
	wantField(t, report, "applicationRtt.count", "3")
	if out := s.ok(append(args, "-o", "yaml")...); !strings.Contains(out, "\nreceived: 3\n") {
		t.Errorf("as YAML: %s", out)
	}
	s.terminal = true
	s.run(append(args, "--histogram=false")...).steady().want(t, 0, lines+summary, "")
	s.run(append(args, "-o", "name")...).want(t, 0, "probe-*\n", "")
}

func TestProbeOfAnAddress(t *testing.T) {
	s := at(t, shared.GRPC)
	address := s.newEndpoint("udp", "probe-udp")
	s.run("probe", "udp://"+address, "-c", "2", "-i", "0", "-s", "8", "-v", "-W", "60s").steady().want(t, 0,
		"probing udp://"+address+": 8 bytes, 2 round trips\n"+
			"8 bytes from "+address+": seq=1 time=* ms\n8 bytes from "+address+": seq=2 time=* ms\n\n"+
			"--- udp://"+address+" probe statistics ---\n2 sent, 2 received, 0 lost (at most 78 % with 95 % confidence), time * s\n"+
			"rtt = TIMES\n"+
			"duplicated and reordered: unknown (the payload has no room for a sequence number)\n", "")
}

// TestProbeWithoutReply ends with exit code 3: the probe ran, its result is data, and there are no round-trip times.
// Without a daemon everything is the same but that there are no endpoints.
func TestLocalProbe(t *testing.T) {
	address := at(t, shared.GRPC).newEndpoint("udp", "probe-local")
	s := at(t, "127.0.0.1:1") // where nobody is
	target := []string{"probe", "--local", "udp://" + address, "-c", "2", "-i", "0", "-W", "60s"}
	if out := s.ok(append(target, "--expect", "lost == 0")...); !strings.Contains(out, "2 sent, 2 received") || !strings.Contains(out, "lost == 0") {
		t.Errorf("the summary is:\n%s", out)
	}
	wantField(t, s.json(target...), "received", "2")
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{2, `--local has no endpoint "web-1"`, []string{"web-1"}},
		{1, `there is no name "p98"`, []string{"udp://" + address, "--expect", "p98 < 1ms"}},
		{3, "errors: refused 1", []string{"tcp://127.0.0.1:1", "-c", "1"}},
		{1, "the target is not allowed: 224.0.0.1:7 is a multicast address", []string{"udp://224.0.0.1:7", "-c", "1"}},
	} {
		r := s.run(append([]string{"probe", "--local"}, c.args...)...)
		if r.code != c.code || !strings.Contains(r.stdout+r.stderr, c.says) {
			t.Errorf("%v: exit %d, want %d with %q", c.args, r.code, c.code, c.says)
		}
	}
}

func TestProbeWithoutReply(t *testing.T) {
	s := at(t, shared.GRPC)
	address := closedPort(t)
	s.run("probe", "tcp://"+address, "-c", "2", "-i", "0", "-v", "-W", "60s").steady().want(t, 3,
		"probing tcp://"+address+": 64 bytes, 2 round trips\nseq=1 lost: refused (*)\nseq=2 lost: refused (*)\n\n"+
			"--- tcp://"+address+" probe statistics ---\n2 sent, 0 received, 2 lost (100 %), time * s\n"+
			"errors: refused 2 (*connection refused)\n", "")
	r := s.run("probe", "tcp://"+address, "-c", "1", "-W", "60s", "-o", "json")
	if r.code != 3 || !strings.Contains(r.stdout, `"sent": 1`) || strings.Contains(r.stdout, `"rtt"`) {
		t.Errorf("exit %d: %s", r.code, r.stdout)
	}
	s.run("probe", "udp://"+address, "-c", "1", "-W", "60s", "-o", "name").want(t, 3, "probe-*\n", "")
}

func TestProbeOfNothing(t *testing.T) {
	s := at(t, shared.GRPC)
	s.run("probe", "nope").want(t, 1, "", "echoctl: *\"nope\"*\nechoctl list shows those there are\n")
	s.run("probe", "start", "nope", "--name", "x").want(t, 1, "",
		"echoctl: *\"nope\"*\nechoctl list shows those there are\n")
}

// TestEndpointCalledLikeACommand probes one by the prefix that tells them apart.
func TestEndpointCalledLikeACommand(t *testing.T) {
	s := at(t, shared.GRPC)
	s.newEndpoint("tcp", "list")
	report := s.json("probe", "endpoint/list", "-c", "1", "-W", "60s")
	wantField(t, report, "target.endpoint", `"list"`)
}

// interrupting is a standard output that presses Ctrl-C when it sees a line.
type interrupting struct {
	mu   sync.Mutex
	text strings.Builder
	at   string
	stop context.CancelFunc
}

func (w *interrupting) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(b)
	if strings.Contains(w.text.String(), w.at) {
		w.stop()
	}
	return len(b), nil
}

func (w *interrupting) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// TestInterruptedProbe ends a probe without bounds by Ctrl-C and wants its summary all the same.
func TestInterruptedProbe(t *testing.T) {
	s := at(t, shared.GRPC)
	s.newEndpoint("tcp", "probe-int")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	alone := at(t, shared.GRPC)
	alone.ctx, alone.stdout = ctx, &interrupting{at: "seq=3", stop: cancel}
	r := alone.run("probe", "probe-int", "-c", "0", "-i", "20ms", "-v", "--name", "interrupted", "-W", "60s")
	if r.code != 0 || !strings.Contains(r.stdout, "\n--- probe-int probe statistics ---\n") ||
		!strings.Contains(r.stdout, "\nrtt ") || r.stderr != "" {
		t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	wantField(t, s.json("probe", "get", "interrupted"), "state", `"STOPPED"`)
	s.ok("probe", "delete", "interrupted")
}

// TestInterruptAsksForTheReport has a daemon that stops the probe only when it is asked to.
func TestInterruptAsksForTheReport(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stopped := make(chan string, 1)
	f := &fake{
		stream: func(stream grpc.ServerStreamingServer[echov1.StreamProbeResponse]) error {
			target := &echov1.ProbeTarget{Endpoint: "web-1"}
			first := &echov1.StreamProbeResponse{Message: &echov1.StreamProbeResponse_Probe{
				Probe: &echov1.Probe{Name: "p-1", Target: target},
			}}
			if err := stream.Send(first); err != nil {
				return err
			}
			select {
			case <-stopped:
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
			return stream.Send(&echov1.StreamProbeResponse{Message: &echov1.StreamProbeResponse_Report{
				Report: &echov1.ProbeReport{Probe: "p-1", Target: target, Sent: 7, Received: 7},
			}})
		},
		stop: func(r *echov1.StopProbeRequest) (*echov1.ProbeReport, error) {
			stopped <- r.GetName()
			return &echov1.ProbeReport{}, nil
		},
	}
	s := at(t, f.start(t))
	s.ctx, s.stdout = ctx, &interrupting{at: "probing", stop: cancel}
	s.run("probe", "web-1", "-v").want(t, 0, "probing web-1: 0 bytes, until stopped\n\n"+
		"--- web-1 probe statistics ---\n7 sent, 7 received, 0 lost\n", "")
}

func TestStreamThatEndsTooEarly(t *testing.T) {
	f := &fake{stream: func(grpc.ServerStreamingServer[echov1.StreamProbeResponse]) error { return nil }}
	s := at(t, f.start(t))
	s.run("probe", "web-1").want(t, 1, "", "echoctl: the daemon ended the probe without a report\n")
}

// TestDaemonThatDies takes the daemon away while a probe runs.
func TestDaemonThatDies(t *testing.T) {
	d := ownDaemon(t)
	s := at(t, d.GRPC)
	s.ok("create", "tcp", "--name", "probe-1")
	s.stdout = &interrupting{at: "seq=2", stop: sync.OnceFunc(d.Kill)}
	r := s.run("probe", "probe-1", "-c", "0", "-i", "20ms", "-v", "-W", "60s")
	if r.code != 4 || r.stderr != "echoctl: lost the connection to echod at "+d.GRPC+"\n" {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
}

const probeHeader = "NAME TARGET STATE SENT RECEIVED LOST P50-MS AGE\n"

// TestLifeOfAProbe goes through the commands of probes that run by themselves.
func TestLifeOfAProbe(t *testing.T) {
	s := at(t, ownDaemon(t).GRPC)
	s.run("probe", "list").want(t, 0, "", "no probes; start one with: echoctl probe start TARGET\n")
	s.ok("create", "tcp", "--name", "web-1")
	s.run("probe", "start", "web-1", "--name", "p-1", "-c", "0", "-i", "10ms").want(t, 0,
		probeHeader+"p-1 web-1 RUNNING * * * * *s\n", "")
	s.run("probe", "ls").want(t, 0, probeHeader+"p-1 web-1 RUNNING * * * * *s\n", "")
	s.run("probe", "start", "web-1", "--name", "p-1").want(t, 1, "",
		"echoctl: *\"p-1\"*\nechoctl probe get p-1 shows it\n")
	out := s.ok("probe", "get", "p-1")
	for _, line := range []string{"Name: p-1\n", "Target: web-1\n", "State: RUNNING\n", "Round trips: for 24h\n",
		"Report: "} {
		if !strings.Contains(spaces.ReplaceAllString(out, " "), line) {
			t.Errorf("probe get lacks %q: %s", line, out)
		}
	}
	out = s.ok("probe", "stop", "p-1")
	if !strings.HasPrefix(out, "--- web-1 probe statistics ---\n") {
		t.Errorf("probe stop: %s", out)
	}
	wantField(t, s.json("probe", "stop", "p-1"), "state", `"STOPPED"`)
	s.run("probe", "stop", "p-1", "nope", "-o", "name").want(t, 1, "p-1\n",
		"echoctl: *\"nope\"*\nechoctl probe list shows those there are\n")
	s.run("probe", "get", "p-1", "-o", "name").want(t, 0, "p-1\n", "")
	list, _ := s.json("probe", "list")["probes"].([]any)
	if len(list) != 1 {
		t.Errorf("%d probes, want 1", len(list))
	}
	if out := s.ok("probe", "list", "-o", "yaml"); !strings.HasPrefix(out, "probes:\n  - name: p-1\n") {
		t.Errorf("probe list as YAML: %s", out)
	}
	s.run("probe", "list", "-o", "name").want(t, 0, "p-1\n", "")
	if out := s.ok("probe", "list", "-o", "wide"); !strings.Contains(out, "INTERVAL") {
		t.Errorf("probe list, wide: %s", out)
	}
	s.run("probe", "rm", "p-1").want(t, 0, "", "deleted p-1\n")
	s.run("probe", "get", "p-1").want(t, 1, "", "echoctl: *\"p-1\"*\nechoctl probe list shows those there are\n")
}
