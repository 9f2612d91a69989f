package cli

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// connectOnce connects to a TCP endpoint, has five bytes echoed and ends the connection.
func (s *shell) connectOnce(name string) {
	s.t.Helper()
	address, _ := s.json("get", name)["address"].(string)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		s.t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
		s.t.Fatal(err)
	}
}

// TestWatchTrafficInEachFormat sees a connection come and go.
func TestWatchTrafficInEachFormat(t *testing.T) {
	s := at(t, ownDaemon(t).GRPC)
	s.ok("create", "tcp", "--name", "web", "-l", "rack=r1")
	s.ok("create", "tcp", "--name", "other")
	for format, want := range map[string]string{
		"table": "TIME EVENT SUBJECT STATE DETAIL\n* EXISTING endpoint/web *\n* SYNCED - - -\n* CONNECTION_OPENED traffic/web - peer 127.0.0.1:*\n" +
			"* CONNECTION_CLOSED traffic/web - peer 127.0.0.1:*: peer_closed, 5 bytes in, 5 out\n",
		"wide": "REVISION TIME EVENT SUBJECT STATE UID DETAIL LABELS\n* EXISTING endpoint/web *\n* SYNCED - - - - -\n" +
			"0 *Z CONNECTION_OPENED traffic/web - - peer 127.0.0.1:* -\n" +
			"0 *Z CONNECTION_CLOSED traffic/web - - peer 127.0.0.1:*: peer_closed, 5 bytes in, 5 out -\n",
		"json": "{*\"type\":\"EXISTING\",*}\n{*\"type\":\"SYNCED\"}\n" +
			"{\"revision\":\"0\",*\"type\":\"CONNECTION_OPENED\",\"traffic\":{\"endpoint\":\"web\",\"peer\":\"127.0.0.1:*\",\"connection\":\"*\",\"reason\":\"\",\"openTime\":*}}\n" +
			"{*\"type\":\"CONNECTION_CLOSED\",\"traffic\":{*\"bytesIn\":\"5\",\"bytesOut\":\"5\",\"reason\":\"peer_closed\",*}}\n",
		"name": "endpoint/web\ntraffic/web\ntraffic/web\n",
	} {
		t.Run(format, func(t *testing.T) {
			w := s.start("watch", "--kind", "endpoint", "--traffic", "--selector", "rack=r1", "-o", format)
			w.out.await(t, "web") // from here on connections are told
			s.connectOnce("other")
			s.connectOnce("web")
			if format == "name" {
				w.out.await(t, "traffic/web\ntraffic/web")
			} else {
				w.out.await(t, "peer_closed")
			}
			w.stop().want(t, 0, want, "")
		})
	}
	w := s.start("watch", "--kind", "traffic", "--changes-only", "-o", "yaml")
	w.out.await(t, "SYNCED")
	s.connectOnce("other")
	w.out.await(t, "peer_closed")
	if r := w.stop(); r.code != 0 || strings.Count(r.stdout, "---\n") != 2 {
		t.Errorf("exit %d: %s", r.code, r.stdout)
	}
}

// TestWatchSaysWhatItLost sees that lost traffic is said, each time that there is more of it, and of each watch by itself.
func TestWatchSaysWhatItLost(t *testing.T) {
	calls := 0
	f := &fake{watch: func(r *echov1.WatchEventsRequest, stream grpc.ServerStreamingServer[echov1.WatchEventsResponse]) error {
		if r.GetTrafficOneIn() != 7 || r.GetFilter() != `(kind = "probe" OR kind = "traffic")` {
			t.Errorf("asked for %v", r)
		}
		lost := []uint64{0, 3, 3}
		if calls++; calls > 1 {
			lost = []uint64{0, 0, 0, 1}
		}
		for _, n := range lost {
			beat := &echov1.WatchEventsResponse{Event: &echov1.Event{Type: echov1.Event_HEARTBEAT}, TrafficDropped: n, ResumeToken: "t"}
			if err := stream.Send(beat); err != nil {
				return err
			}
		}
		if calls == 1 {
			<-time.After(lostEvery) // so that it may be said again
			return status.Error(codes.Unavailable, "the daemon is stopping")
		}
		return status.Error(codes.InvalidArgument, "enough")
	}}
	at(t, f.start(t)).run("watch", "--kind", "probe", "--traffic-one-in", "7").want(t, 1, "",
		"echoctl: events of connections lost so far: 3; they came faster than they were read, and --traffic-one-in asks for fewer\n"+
			"echoctl: the watch broke: *\n"+
			"echoctl: watching again\n"+
			"echoctl: events of connections lost so far: 1; *\n"+
			"echoctl: enough\n")
}
