package cli

import (
	"fmt"
	"net"
	"strings"
	"testing"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/grpc/codes"
)

// TestNewSeries says what LISTEN and --count come to.
func TestNewSeries(t *testing.T) {
	for _, c := range []struct {
		listen string
		count  uint32
		want   []string // LISTEN of the first and the last; nil: it is no series
		of     int
	}{
		{"", 0, nil, 0},
		{":7000", 0, nil, 0},
		{"nonsense", 0, nil, 0},
		{"a-b", 0, nil, 0},
		{"[fe80::1%eth-0]:7", 0, nil, 0},
		{":7000-7000", 0, []string{":7000", ":7000"}, 1},
		{":20000-29999", 0, []string{":20000", ":29999"}, 10000},
		{"[fe80::1%eth-0]:7-9", 0, []string{"[fe80::1%eth-0]:7", "[fe80::1%eth-0]:9"}, 3},
		{"127.0.0.1:65534-65535", 0, []string{"127.0.0.1:65534", "127.0.0.1:65535"}, 2},
		{"", 3, []string{"", ""}, 3},
		{"127.0.0.1:0", 3, []string{"127.0.0.1:0", "127.0.0.1:0"}, 3},
		{":65534", 2, []string{":65534", ":65535"}, 2},
		{"", 10000, []string{"", ""}, 10000},
	} {
		s, err := newSeries(c.listen, &countFlag{value: c.count, set: c.count > 0})
		if err != nil || (s == nil) != (c.want == nil) {
			t.Errorf("%q with --count %d: %v, %v", c.listen, c.count, s, err)
			continue
		}
		if s == nil {
			continue
		}
		model := &echov1.Endpoint{Name: "a", Listen: c.listen, Labels: map[string]string{"k": "v"}}
		first, last := s.endpoint(model, 0), s.endpoint(model, s.count-1)
		if s.count != c.of || first.GetListen() != c.want[0] || last.GetListen() != c.want[1] ||
			first.GetName() != "a-1" || last.GetName() != fmt.Sprintf("a-%d", c.of) || last.GetLabels()["k"] != "v" {
			t.Errorf("%q with --count %d: %d endpoints from %v to %v", c.listen, c.count, s.count, first, last)
		}
	}
}

func TestCreateMany(t *testing.T) {
	s := at(t, ownDaemon(t).GRPC)
	s.run("create", "udp", "--count", "3", "--name", "m", "-l", "set=m").want(t, 0, endpointHeader+
		"m-1 UDP 127.0.0.1:* SERVING *s set=m\nm-2 UDP 127.0.0.1:* SERVING *s set=m\nm-3 UDP 127.0.0.1:* SERVING *s set=m\n", "created 3 endpoints\n")
	s.run("create", "tcp", "--count", "2", "--name", "n", "--dry-run", "-o", "name").want(t, 0, "n-1\nn-2\n", "checked only; nothing was created\n")
	s.run("create", "tcp", "--count", "2", "--name", "m", "--one-shot").want(t, 1, "", "echoctl: 2 of 2 endpoints cannot be had, and nothing was changed:\n"+
		" m-1: name: *\n m-2: name: *\n")
	if out := s.ok("create", "tcp", "--count", "500", "-l", "set=many", "-o", "name"); strings.Count(out, "\n") != 500 {
		t.Errorf("500 are told as %s", out)
	}
	s.run("list", "-l", "set=many", "--limit", "501", "-o", "name").want(t, 0, strings.Repeat("*\n", 500), "")

	// A range around a port that is taken, wherever it is.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	s.run("create", "tcp", fmt.Sprintf("127.0.0.1:%d-%d", port, port)).want(t, 1, "", fmt.Sprintf("echoctl: 1 of 1 endpoints cannot be had, and nothing was changed:\n"+
		" endpoint 1 (127.0.0.1:%d): listen: cannot bind 127.0.0.1:%d: *\n", port, port))
}

// TestCreateManyRefusals holds errors of a batch to their words.
func TestCreateManyRefusals(t *testing.T) {
	many := reason("BAD_VALUE")
	many.Metadata = map[string]string{"violations": "30"}
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"one", failure(t, codes.InvalidArgument, "requests[1].endpoint.listen: must be so", reason("BAD_VALUE"),
			violations("requests[1].endpoint.listen")), "a-2 (:8): listen: must be so\nnothing was changed\n"},
		{"the whole of one", failure(t, codes.InvalidArgument, "requests[0].endpoint: must be so", reason("BAD_VALUE"),
			violations("requests[0].endpoint")), "a-1 (:7): must be so\nnothing was changed\n"},
		{"many", failure(t, codes.InvalidArgument, "x", many, violations("requests[0].endpoint.name", "requests[1].endpoint.name")),
			"the daemon refuses 30 values, and nothing was changed:\n a-1 (:7): name: must be so\n a-2 (:8): name: must be so\n and 28 more\n"},
		{"with what became of it", failure(t, codes.Aborted, "2 of 2 endpoints cannot be had, and nothing was changed, but x is gone: requests[0].endpoint.name: must be so",
			reason("X"), violations("requests[0].endpoint.name")),
			"2 of 2 endpoints cannot be had, and nothing was changed, but x is gone:\n a-1 (:7): name: must be so\n"},
		{"another field", failure(t, codes.InvalidArgument, "requests: must be so", reason("BAD_VALUE"), violations("requests")), "requests: must be so\n"},
		{"one that is not there", failure(t, codes.InvalidArgument, "requests[2]: must be so", reason("BAD_VALUE"), violations("requests[2]")), "requests[2]: must be so\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fake{batch: func(*echov1.BatchCreateEndpointsRequest) (*echov1.BatchCreateEndpointsResponse, error) {
				return nil, c.err
			}}
			at(t, f.start(t)).run("create", "tcp", ":7-8", "--name", "a").want(t, 1, "", "echoctl: "+c.want)
		})
	}
	at(t, "127.0.0.1:1").run("create", "tcp", "--count", "10000", "-l", "k="+strings.Repeat("x", 1000)).want(t, 1, "",
		"echoctl: that is a request of *.* MiB, and the daemon takes 8 MiB: create fewer at once\n")
}
