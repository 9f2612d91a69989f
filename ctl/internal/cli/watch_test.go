package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/echod/echod/daemon/echotest"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// written is an output that can be waited for.
type written struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func newWritten() *written { return &written{changed: make(chan struct{})} }

func (w *written) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.changed)
	w.changed = make(chan struct{})
	return w.text.Write(b)
}

func (w *written) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// await waits until a text was written.
func (w *written) await(t *testing.T, text string) {
	t.Helper()
	w.awaitTimes(t, text, 1)
}

// awaitTimes waits until a text is written so often.
func (w *written) awaitTimes(t *testing.T, text string, times int) {
	t.Helper()
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		found, changed := strings.Count(w.text.String(), text) >= times, w.changed
		w.mu.Unlock()
		if found {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%q is not written (%d times), but:\n%s", text, times, w)
		}
	}
}

// background is an echoctl that runs until it is told to stop.
type background struct {
	out  *written
	stop func() result // presses Ctrl-C, and answers what it left
	ends func() result // waits for it to end by itself
}

func (s *shell) start(args ...string) *background {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.ctx)
	other := *s
	out := newWritten()
	other.ctx, other.stdout = ctx, out
	ended := make(chan result, 1)
	go func() { ended <- other.run(args...) }()
	s.t.Cleanup(cancel)
	ends := func() result {
		s.t.Helper()
		select {
		case r := <-ended:
			return r
		case <-time.After(patience):
			s.t.Fatalf("echoctl %q does not end", args)
			return result{}
		}
	}
	return &background{out: out, ends: ends, stop: func() result { s.t.Helper(); cancel(); return ends() }}
}

// TestWatchInEachFormat sees an endpoint come and go.
func TestWatchInEachFormat(t *testing.T) {
	s := at(t, ownDaemon(t).GRPC)
	s.ok("create", "tcp", "--name", "old", "-l", "rack=r1")
	for format, want := range map[string]string{
		"table": "TIME EVENT SUBJECT STATE DETAIL\n* EXISTING daemon READY -\n* EXISTING endpoint/old SERVING TCP 127.0.0.1:*\n* SYNCED - - -\n" +
			"* CREATED endpoint/new SERVING UDP 127.0.0.1:*\n* DELETED endpoint/new STOPPED UDP 127.0.0.1:*\n",
		"wide": "REVISION TIME EVENT SUBJECT STATE UID DETAIL LABELS\n* *Z EXISTING daemon READY - - -\n* *Z EXISTING endpoint/old SERVING *-* TCP 127.0.0.1:* rack=r1\n" +
			"* *Z SYNCED - - - - -\n* CREATED endpoint/new SERVING *\n* DELETED endpoint/new STOPPED *\n",
		"json": "{\"revision\":\"*\",\"type\":\"EXISTING\",\"daemon\":{\"state\":\"READY\"*}}\n{*\"name\":\"old\"*}\n{*\"type\":\"SYNCED\"}\n{*\"type\":\"CREATED\"*}\n{*\"type\":\"DELETED\",\"endpoint\":{\"name\":\"new\"*}\n",
		"name": "daemon\nendpoint/old\nendpoint/new\nendpoint/new\n",
	} {
		t.Run(format, func(t *testing.T) {
			w := s.start("watch", "-o", format)
			w.out.await(t, "old")
			if format != "name" {
				w.out.await(t, "SYNCED")
			}
			s.ok("create", "udp", "--name", "new")
			w.out.await(t, "new") // each line as it comes
			s.ok("delete", "new")
			if format == "name" {
				w.out.await(t, "new\nendpoint/new")
			} else {
				w.out.await(t, "DELETED")
			}
			w.stop().want(t, 0, want, "")
		})
	}
	w := s.start("watch", "-o", "yaml", "--changes-only")
	w.out.await(t, "SYNCED")
	s.ok("create", "udp", "--name", "new")
	w.out.await(t, "name: new")
	if r := w.stop(); r.code != 0 || strings.Count(r.stdout, "---\n") != 1 || strings.Contains(r.stdout, "name: old") {
		t.Errorf("exit %d", r.code)
	}
}

func TestWatchOfOneLineAnEvent(t *testing.T) {
	s := at(t, shared.GRPC)
	s.newEndpoint("tcp", "w-line")
	w := s.start("watch", "-o", "json", "--filter", `name = "w-line"`)
	w.out.await(t, "SYNCED")
	for line := range strings.Lines(w.stop().stdout) {
		if err := json.Unmarshal([]byte(line), &map[string]any{}); err != nil {
			t.Errorf("%v: %s", err, line)
		}
	}
}

// TestWatchGoesOnAfterABreak breaks a watch in three ways: in the middle of what is there, behind it, and with a token that
// is no longer good.
func TestWatchGoesOnAfterABreak(t *testing.T) {
	tell := func(kind echov1.Event_Type, name, token string) *echov1.WatchEventsResponse {
		return &echov1.WatchEventsResponse{ResumeToken: token, Event: &echov1.Event{
			Type: kind, Time: timestamppb.Now(), Subject: &echov1.Event_Endpoint{Endpoint: &echov1.Endpoint{Name: name}},
		}}
	}
	expired := failure(t, codes.OutOfRange, "the resume token is too old: x; watch without a token", &errdetails.ErrorInfo{Reason: "RESUME_TOKEN_EXPIRED"})
	stopping := failure(t, codes.Unavailable, "the daemon is stopping", &errdetails.ErrorInfo{Reason: "SHUTTING_DOWN"})
	var asked []string
	f := &fake{watch: func(r *echov1.WatchEventsRequest, stream grpc.ServerStreamingServer[echov1.WatchEventsResponse]) error {
		asked = append(asked, fmt.Sprintf("%s,%v", r.GetResumeToken(), r.GetChangesOnly()))
		send := func(err error, all ...*echov1.WatchEventsResponse) error {
			for _, m := range all {
				if err := stream.Send(m); err != nil {
					return err
				}
			}
			return err
		}
		switch len(asked) {
		case 1:
			return send(stopping, tell(echov1.Event_EXISTING, "a", ""))
		case 2:
			return send(nil, tell(echov1.Event_EXISTING, "a", ""), tell(echov1.Event_SYNCED, "", "t1"), tell(echov1.Event_CREATED, "b", "t2"))
		case 3, 4:
			return stopping
		case 5:
			return send(expired, tell(echov1.Event_HEARTBEAT, "", "t3"))
		case 6:
			return send(status.Error(codes.InvalidArgument, "enough"), tell(echov1.Event_SYNCED, "", "t4"))
		}
		return errors.New("asked too often")
	}}
	s := at(t, f.start(t))
	r := s.run("watch", "-o", "name")
	r.want(t, 1, "endpoint/a\nendpoint/a\nendpoint/\nendpoint/b\nendpoint/\n", ""+
		"echoctl: the watch broke: the daemon is stopping. Trying again.\n"+
		"echoctl: watching again\n"+
		"echoctl: the watch broke: the daemon ended the watch. Trying again.\n"+
		"echoctl: watching again\n"+
		"echoctl: the resume token is too old: x; beginning anew, what happened in between is not shown\n"+
		"echoctl: enough\n")
	if got := strings.Join(asked, " "); got != ",false ,false t2,false t2,false t2,false ,false" {
		t.Errorf("asked for %s", got)
	}
	// What is not to be told at the beginning is not asked for together with a token, which the daemon would refuse.
	asked = nil
	s.run("watch", "-o", "name", "--changes-only")
	if got := strings.Join(asked, " "); got != ",true ,true t2,false t2,false t2,false ,true" {
		t.Errorf("with --changes-only: asked for %s", got)
	}
}

// TestWatchSurvivesTheDaemon kills the daemon under a watch, and starts another at its place.
func TestWatchSurvivesTheDaemon(t *testing.T) {
	dir, err := os.MkdirTemp("", "echoctl-own") // short: a socket's path is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	options := echotest.ProcessOptions{Binary: echod, Dir: dir}
	first := echotest.StartProcess(t, options)
	s := at(t, "unix:"+first.Socket)
	s.ok("create", "tcp", "--name", "a")
	w := s.start("watch", "--kind", "endpoint")
	w.out.await(t, "SYNCED")
	first.Kill()
	echotest.StartProcess(t, options)
	w.out.awaitTimes(t, "SYNCED", 2) // else b may be shown before it, as one that is there
	s.ok("create", "tcp", "--name", "b")
	w.out.await(t, "endpoint/b")
	r := w.stop()
	if r.code != 0 || !strings.Contains(r.stderr, "the watch broke") || !strings.Contains(r.stderr, "started anew") || strings.Count(r.stdout, "SYNCED") != 2 {
		t.Errorf("exit %d, stderr %s", r.code, r.stderr)
	}
}

func TestWatchWithoutAnAnswer(t *testing.T) {
	f := &fake{watch: func(_ *echov1.WatchEventsRequest, stream grpc.ServerStreamingServer[echov1.WatchEventsResponse]) error {
		<-stream.Context().Done()
		return nil
	}}
	s := at(t, f.start(t))
	if r := s.run("watch", "--call-timeout", "1s"); r.code == 0 || !strings.Contains(r.stderr, "--call-timeout") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	at(t, closedPort(t)).run("watch").want(t, 4, "", "echoctl: cannot reach echod at *\n")
	at(t, shared.GRPC).run("watch", "--filter", "colour = 1").want(t, 1, "", "echoctl: filter: *\n")
}

// TestAWatchIsNoCall sees that a watch outlives the time that a call has.
func TestAWatchIsNoCall(t *testing.T) {
	asked := make(chan struct{})
	f := &fake{watch: func(_ *echov1.WatchEventsRequest, stream grpc.ServerStreamingServer[echov1.WatchEventsResponse]) error {
		close(asked)
		if err := stream.Send(&echov1.WatchEventsResponse{Event: &echov1.Event{Type: echov1.Event_SYNCED}}); err != nil {
			return err
		}
		<-time.After(1500 * time.Millisecond)
		return status.Error(codes.InvalidArgument, "enough")
	}}
	s := at(t, f.start(t))
	s.run("watch", "--call-timeout", "1s", "-o", "name").want(t, 1, "", "echoctl: enough\n")
	<-asked
}

// wantPattern wants a whole text to match, runs of spaces being one.
func wantPattern(t *testing.T, got, pattern string) {
	t.Helper()
	if !regexp.MustCompile("^" + pattern + "$").MatchString(spaces.ReplaceAllString(got, " ")) {
		t.Errorf("written:\n%s\nwant:\n%s", got, pattern)
	}
}

// waitInVain waits for what does not happen, for as long as the machine needs to find out how things are.
func (s *shell) waitInVain(args ...string) result {
	s.t.Helper()
	for timeout := 50 * time.Millisecond; ; timeout *= 4 {
		r := s.run(append(args, "--timeout", timeout.String())...)
		if timeout > patience || !strings.Contains(r.stderr, "did not answer") {
			return r
		}
	}
}

func TestWaitForEndpoints(t *testing.T) {
	s := at(t, shared.GRPC)
	s.remove("w-wait")
	w := s.start("wait", "w-wait", "--for", "state=serving", "--timeout", "1m")
	s.ok("create", "tcp", "--name", "w-wait")
	w.ends().want(t, 0, "NAME PROTOCOL ADDRESS STATE AGE LABELS\nw-wait TCP 127.0.0.1:* SERVING * -\n", "")
	for format, want := range map[string]string{"name": "w-wait\n", "json": "{\n \"name\": \"w-wait\",\n(.|\n)*}\n", "yaml": "name: w-wait\n(.|\n)*", "wide": "NAME PROTOCOL (.|\n)*"} {
		wantPattern(t, s.ok("wait", "w-wait", "--for", "exists", "-o", format), want)
	}
	s.waitInVain("wait", "endpoint/w-wait", "--for", "state=STOPPED").want(t, 1, "",
		"echoctl: endpoint w-wait is SERVING after *, and --for state=STOPPED was waited for (--timeout)\n")
	w = s.start("wait", "w-wait", "--for", "deleted", "--timeout", "0")
	s.ok("stop", "w-wait")
	s.ok("delete", "w-wait")
	// Which of both was there first is a matter of luck.
	if r := w.ends(); r.code != 0 || r.stdout != "" || r.stderr != "endpoint w-wait is gone\n" && r.stderr != "endpoint w-wait is not there\n" {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	s.run("wait", "w-wait", "--for", "deleted", "-o", "name").want(t, 0, "w-wait\n", "")
	s.waitInVain("wait", "w-wait", "--for", "exists").want(t, 1, "",
		"echoctl: endpoint w-wait is not there after *, and --for exists was waited for (--timeout)\n")
	w = s.start("wait", "w-wait", "--for", "exists")
	w.stop().want(t, 1, "", "echoctl: interrupted\n")
}

func TestWaitForProbesAndMonitors(t *testing.T) {
	s := at(t, shared.GRPC)
	s.newEndpoint("udp", "w-target")
	s.ok("probe", "start", "w-target", "--name", "w-probe", "-c", "1", "-W", "60s")
	wantPattern(t, s.ok("wait", "probe/w-probe", "--for", "state=DONE", "-o", "name"), "w-probe\n")
	s.ok("probe", "rm", "w-probe")
	s.ok("monitor", "create", "w-target", "--name", "w-monitor", "--every", "24h", "-c", "1", "-W", "60s")
	defer s.ok("monitor", "delete", "w-monitor")
	s.waitInVain("wait", "monitor/w-monitor", "--for", "verdict=NOT_MET").want(t, 1, "",
		"echoctl: monitor w-monitor is * with verdict *, and --for verdict=NOT_MET was waited for (--timeout)\n")
	s.ok("monitor", "run", "w-monitor")
	wantPattern(t, s.ok("wait", "monitor/w-monitor", "--for", "verdict=met", "-o", "name"), "w-monitor\n")
}

func TestWaitWithoutAnAnswer(t *testing.T) {
	f := &fake{watch: func(_ *echov1.WatchEventsRequest, stream grpc.ServerStreamingServer[echov1.WatchEventsResponse]) error {
		<-stream.Context().Done()
		return nil
	}}
	address := f.start(t)
	at(t, address).run("wait", "a", "--for", "exists", "--timeout", "50ms").want(t, 1, "",
		"echoctl: endpoint a: echod at "+address+" did not answer within 50ms (--timeout)\n")
	at(t, closedPort(t)).run("wait", "a", "--for", "exists").want(t, 4, "", "echoctl: cannot reach echod at *\n")
}

// TestWaitThroughABreak sees that a wait goes on when its connection breaks, and knows nothing of before when it begins anew:
// since it broke before all was told, or since its token is no longer good.
func TestWaitThroughABreak(t *testing.T) {
	stopping := failure(t, codes.Unavailable, "the daemon is stopping", &errdetails.ErrorInfo{Reason: "SHUTTING_DOWN"})
	expired := failure(t, codes.OutOfRange, "the resume token is too old", &errdetails.ErrorInfo{Reason: "RESUME_TOKEN_EXPIRED"})
	there := &echov1.WatchEventsResponse{Event: &echov1.Event{
		Type: echov1.Event_EXISTING, Subject: &echov1.Event_Endpoint{Endpoint: &echov1.Endpoint{Name: "a"}},
	}}
	synced := &echov1.WatchEventsResponse{ResumeToken: "t", Event: &echov1.Event{Type: echov1.Event_SYNCED}}
	type answer struct {
		all []*echov1.WatchEventsResponse
		err error
	}
	for name, answers := range map[string][]answer{
		"before all was told": {{[]*echov1.WatchEventsResponse{there}, stopping}, {[]*echov1.WatchEventsResponse{synced}, nil}},
		"with a token":        {{[]*echov1.WatchEventsResponse{there, synced}, stopping}, {nil, expired}, {[]*echov1.WatchEventsResponse{synced}, nil}},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			f := &fake{watch: func(r *echov1.WatchEventsRequest, stream grpc.ServerStreamingServer[echov1.WatchEventsResponse]) error {
				if want := `kind = "endpoint" AND name = "a"`; r.GetFilter() != want {
					t.Errorf("the filter is %s, want %s", r.GetFilter(), want)
				}
				a := answers[min(calls, len(answers)-1)]
				calls++
				for _, m := range a.all {
					if err := stream.Send(m); err != nil {
						return err
					}
				}
				return a.err
			}}
			r := at(t, f.start(t)).run("wait", "a", "--for", "deleted")
			if r.code != 0 || calls != len(answers) || !strings.HasSuffix(r.stderr, "endpoint a is gone\n") {
				t.Errorf("exit %d after %d calls: %s", r.code, calls, r.stderr)
			}
		})
	}
}
