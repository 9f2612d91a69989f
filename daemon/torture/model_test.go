//go:build linux

package torture_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// wanted is what the model knows of one endpoint.
type wanted struct {
	def   *echov1.Endpoint // what a caller can set; complete
	serve bool             // else it is stopped
	// What the daemon chose, nil where no answer has told it yet.
	seen *echov1.Endpoint
}

func (w wanted) clone() wanted {
	w.def = proto.CloneOf(w.def)
	if w.seen != nil {
		w.seen = proto.CloneOf(w.seen)
	}
	return w
}

// endpoints is one state of the endpoints of one client, by name.
type endpoints map[string]wanted

func (e endpoints) clone() endpoints {
	c := make(endpoints, len(e))
	for name, w := range e {
		c[name] = w.clone()
	}
	return c
}

func (e endpoints) names() []string { return slices.Sorted(maps.Keys(e)) }

// model is what may be, as far as one client knows: one state, or two while the answer to its last change is missing.
type model struct{ may []endpoints }

func newModel() model { return model{[]endpoints{{}}} }

// is is the state of a model that has one.
func (m *model) is() endpoints { return m.may[0] }

// uncertain says that an answer is missing.
func (m *model) uncertain() bool { return len(m.may) > 1 }

// settle compares what is there with what may be, takes it for what is from now on, and answers what is wrong, if anything.
func (m *model) settle(got map[string]*echov1.Endpoint) string {
	var all []string
	for i, state := range m.may {
		wrong := state.differs(got)
		if len(wrong) == 0 {
			m.may = []endpoints{state.learn(got)}
			return ""
		}
		all = append(all, fmt.Sprintf("state %d of %d that may be: %s", i+1, len(m.may), strings.Join(wrong, "; ")))
	}
	return strings.Join(all, "\n")
}

// differs says in what the endpoints that are there are others than these.
func (e endpoints) differs(got map[string]*echov1.Endpoint) (wrong []string) {
	for _, name := range e.names() {
		w := e[name]
		if g := got[name]; g == nil {
			wrong = append(wrong, fmt.Sprintf("%s is missing", name))
		} else if w := w.differs(g); len(w) > 0 {
			wrong = append(wrong, fmt.Sprintf("%s: %s", name, strings.Join(w, ", ")))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := e[name]; !ok {
			wrong = append(wrong, fmt.Sprintf("%s is there and should not be", name))
		}
	}
	return wrong
}

// learn is the state with what the daemon chose.
func (e endpoints) learn(got map[string]*echov1.Endpoint) endpoints {
	for name, w := range e {
		w.seen = proto.CloneOf(got[name])
		w.seen.Counters = nil
		e[name] = w
	}
	return e
}

// differs says in what an endpoint is another than this. One that failed is meant to serve: that it comes good is another
// question.
func (w wanted) differs(g *echov1.Endpoint) (wrong []string) {
	check := func(what string, want, got any) {
		if want, got := fmt.Sprint(want), fmt.Sprint(got); want != got {
			wrong = append(wrong, fmt.Sprintf("%s is %s, not %s", what, got, want))
		}
	}
	d := w.def
	check("protocol", d.Protocol, g.Protocol)
	check("description", d.Description, g.Description)
	check("labels", d.Labels, g.Labels) // maps are printed in order
	check("ttl", span(d.Ttl), span(g.Ttl))
	check("listen", d.Listen, g.Listen)
	if d.Tcp != nil && !proto.Equal(d.Tcp, g.Tcp) {
		check("tcp", d.Tcp, g.Tcp)
	}
	if d.Udp != nil && !proto.Equal(d.Udp, g.Udp) {
		check("udp", d.Udp, g.Udp)
	}
	switch g.State {
	case echov1.Endpoint_DRAINING: // the daemon stops, which changes nothing of what is meant; else nothing drains here
	case echov1.Endpoint_SERVING, echov1.Endpoint_FAILED:
		check("meant to serve", w.serve, true)
	case echov1.Endpoint_STOPPED:
		check("meant to serve", w.serve, false)
	default:
		check("state", "SERVING or STOPPED", g.State)
	}
	if s := w.seen; s != nil {
		check("uid", s.Uid, g.Uid)
		check("create time", instant(s.CreateTime), instant(g.CreateTime))
		if s.Address != "" {
			check("address", s.Address, g.Address)
		}
		if s.Etag != "" {
			check("etag", s.Etag, g.Etag)
			check("update time", instant(s.UpdateTime), instant(g.UpdateTime))
		}
		if s.ExpireTime != nil {
			check("expire time", instant(s.ExpireTime), instant(g.ExpireTime))
		}
	}
	return wrong
}

func span(d *durationpb.Duration) time.Duration { return d.AsDuration() }

func instant(t *timestamppb.Timestamp) string {
	if t == nil {
		return "none"
	}
	return t.AsTime().Format(time.RFC3339Nano)
}

// changed is a wanted after a change whose answer has not come: what the daemon chose anew is not known.
func (w wanted) changed(def *echov1.Endpoint) wanted {
	n := w.clone()
	if n.seen != nil {
		n.seen.Etag, n.seen.UpdateTime, n.seen.ExpireTime = "", nil, nil
		if def.Listen != w.def.Listen {
			n.seen.Address = ""
		}
	}
	n.def = proto.CloneOf(def)
	return n
}

// TestModelSeesWhatIsWrong holds the model to what it is for.
func TestModelSeesWhatIsWrong(t *testing.T) {
	is := func(change func(*echov1.Endpoint)) map[string]*echov1.Endpoint {
		e := &echov1.Endpoint{
			Name: "a", Uid: "1", Protocol: echov1.Protocol_UDP, Listen: "127.0.0.1:7", Address: "127.0.0.1:7", State: echov1.Endpoint_SERVING,
			Labels: map[string]string{"k": "v"}, Ttl: durationpb.New(time.Hour), CreateTime: timestamppb.New(time.Unix(1, 0)),
			UpdateTime: timestamppb.New(time.Unix(2, 0)), ExpireTime: timestamppb.New(time.Unix(3, 0)), Etag: "e",
		}
		change(e)
		return map[string]*echov1.Endpoint{"a": e}
	}
	as := is(func(*echov1.Endpoint) {})
	known := func() endpoints {
		def := &echov1.Endpoint{Name: "a", Protocol: echov1.Protocol_UDP, Listen: "127.0.0.1:7", Labels: map[string]string{"k": "v"}, Ttl: durationpb.New(time.Hour)}
		return endpoints{"a": {def: def, serve: true}}.learn(as)
	}
	stopped := known()
	w := stopped["a"]
	w.serve = false
	stopped["a"] = w
	cases := []struct {
		name string
		may  []endpoints
		got  map[string]*echov1.Endpoint
		says string
	}{
		{"as it was", []endpoints{known()}, as, ""},
		{"failed", []endpoints{known()}, is(func(e *echov1.Endpoint) { e.State = echov1.Endpoint_FAILED }), ""},
		{"gone", []endpoints{known()}, nil, "a is missing"},
		{"deleted, and there", []endpoints{{}}, as, "a is there"},
		{"either", []endpoints{known(), {}}, nil, ""},
		{"or", []endpoints{known(), {}}, as, ""},
		{"neither", []endpoints{known(), stopped}, nil, "state 2 of 2"},
		{"stopped", []endpoints{known()}, is(func(e *echov1.Endpoint) { e.State = echov1.Endpoint_STOPPED }), "meant to serve"},
		{"serves", []endpoints{stopped}, as, "meant to serve"},
		{"another", []endpoints{known()}, is(func(e *echov1.Endpoint) { e.Uid = "2" }), "uid"},
		{"elsewhere", []endpoints{known()}, is(func(e *echov1.Endpoint) { e.Address = "127.0.0.1:8" }), "address"},
		{"an old label", []endpoints{known()}, is(func(e *echov1.Endpoint) { e.Labels["k"] = "old" }), "labels"},
		{"an old etag", []endpoints{known()}, is(func(e *echov1.Endpoint) { e.Etag = "d" }), "etag"},
		{"an old time", []endpoints{known()}, is(func(e *echov1.Endpoint) { e.UpdateTime = nil }), "update time"},
		{"a lease not renewed", []endpoints{known()}, is(func(e *echov1.Endpoint) { e.ExpireTime = nil }), "expire time"},
		{"another ttl", []endpoints{known()}, is(func(e *echov1.Endpoint) { e.Ttl = nil }), "ttl"},
		{"another protocol", []endpoints{known()}, is(func(e *echov1.Endpoint) { e.Protocol = echov1.Protocol_TCP }), "protocol"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := model{c.may}
			wrong := m.settle(c.got)
			if c.says == "" && wrong != "" || !strings.Contains(wrong, c.says) {
				t.Errorf("it says %q, which should have %q", wrong, c.says)
			}
			if c.says == "" && m.uncertain() {
				t.Error("it is no wiser")
			}
		})
	}
}
