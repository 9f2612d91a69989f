package lab

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

const good = `# A rack.
endpoints:
  - &web
    name: web-1
    protocol: TCP
    listen: ":7000"
    labels: &labels {rack: r1, "no": "7"}
    tcp:
      idleTimeout: 40ms
      max_connections: 0
      max_bytes: "9007199254740993"
    ttl: 1h30m
  - <<: *web
    name: web-2
    listen: :7001
    labels:
      <<: *labels
      rack: r2
---
# nothing here
---
{endpoints: [{name: dns-1, protocol: "UDP", udp: {loop_guard: false}, sources: {allow: [192.0.2.0/24, "::1"]}, networkNamespace: a, interface: eth0}]}
`

func web(name, listen, rack string) *echov1.Endpoint {
	return &echov1.Endpoint{
		Name: name, Protocol: echov1.Protocol_TCP, Listen: listen, Labels: map[string]string{"rack": rack, "no": "7"},
		Tcp: &echov1.TcpOptions{
			IdleTimeout: durationpb.New(40 * time.Millisecond), MaxConnections: proto.Uint32(0), MaxBytes: 9007199254740993,
		},
		Ttl: durationpb.New(90 * time.Minute),
	}
}

func TestRead(t *testing.T) {
	l, err := Read([]Source{{"a.yaml", []byte(good)}})
	if err != nil {
		t.Fatal(err)
	}
	want := []*echov1.Endpoint{
		web("web-1", ":7000", "r1"), web("web-2", ":7001", "r2"),
		{
			Name: "dns-1", Protocol: echov1.Protocol_UDP, Udp: &echov1.UdpOptions{LoopGuard: proto.Bool(false)},
			Sources:          &echov1.Sources{Allow: []string{"192.0.2.0/24", "::1"}},
			NetworkNamespace: "a", Interface: "eth0",
		},
	}
	if len(l.Endpoints) != len(want) {
		t.Fatalf("%d endpoints, want %d", len(l.Endpoints), len(want))
	}
	for i, e := range l.Endpoints {
		if !proto.Equal(e, want[i]) {
			t.Errorf("endpoint %d is %v, want %v", i, e, want[i])
		}
	}
	for _, c := range []struct {
		i    int
		path string
		want string
	}{
		{0, "", "a.yaml:3:5"}, {0, "listen", "a.yaml:6:13"}, {0, "tcp.idle_timeout", "a.yaml:9:20"},
		{0, `labels["rack"]`, "a.yaml:7:28"}, {0, `labels["other"]`, "a.yaml:7:13"}, {0, "udp.loop_guard", "a.yaml:3:5"},
		{1, "tcp.max_bytes", "a.yaml:11:18"}, {1, `labels["rack"]`, "a.yaml:18:13"}, {2, "sources.allow[1]", "a.yaml:22:103"},
		{2, "sources.deny[9]", "a.yaml:22:80"},
	} {
		if got := l.Place(c.i, c.path).String(); got != c.want {
			t.Errorf("%s of endpoint %d is at %s, want %s", c.path, c.i, got, c.want)
		}
	}
}

// TestReadJSON reads what is JSON and no YAML: several values in a row, tabs, surrogates.
func TestReadJSON(t *testing.T) {
	text := "{\"endpoints\": [\n\t{\"name\": \"a\", \"protocol\": \"TCP\", \"description\": \"é\\ud83d\\ude00\", \"tcp\": {\"maxConnections\": 5}}]}\n{\"endpoints\": []}"
	for _, name := range []string{"x.json", "stdin"} {
		l, err := Read([]Source{{name, []byte("\ufeff" + text)}})
		if err != nil {
			t.Fatal(err)
		}
		if e := l.Endpoints[0]; e.GetDescription() != "é😀" || e.GetTcp().GetMaxConnections() != 5 {
			t.Errorf("read %v", e)
		}
		if got := l.Place(0, "tcp.max_connections").String(); got != name+":2:93" {
			t.Errorf("it stands at %s", got)
		}
	}
}

// endpointWith is a file whose third line is one more of an endpoint's.
func endpointWith(line string) string {
	return "endpoints:\n  - {name: a}\n  - name: b\n    " + strings.ReplaceAll(line, "\n", "\n    ") + "\n"
}

// TestProblems holds what is wrong to its words and its place.
func TestProblems(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		// The form.
		{"", "f: says nothing; a file for no endpoints says: endpoints: []"},
		{"{}", "f:1:1: says nothing; a document for no endpoints says: endpoints: []"},
		{"endpoints: []\n---\n{}\n", "f:3:1: says nothing; a document for no endpoints says: endpoints: []"},
		{"# only this\n", "f: says nothing; a file for no endpoints says: endpoints: []"},
		{"endpoints:\n", "f:1:11: endpoints is a list; here is nothing"},
		{"- name: a\n", `f:1:1: a document is "endpoints:" and a list of them; here is a list`},
		{"7\n", `f:1:1: a document is "endpoints:" and a list of them; here is the number 7`},
		{"endpoint: []\n", `f:1:1: unknown key "endpoint"; did you mean endpoints?`},
		{"monitors: []\n", `f:1:1: unknown key "monitors"; a document has endpoints`},
		{"endpoints: []\nendpoints: []\n", `f:2:1: "endpoints" is there twice: here and in line 1`},
		{"endpoints:\n  - a\n", `f:2:5: an endpoint is a mapping of keys to values; here is "a"`},
		{"endpoints: [\n", "f:2: is no YAML: did not find expected node content"},
		{"\xff", "f: is not a text in UTF-8"},
		{"a: *b\n", "f: is no YAML: unknown anchor 'b' referenced"},
		{"endpoints:\n  - {protocol: TCP}\n", "f:2:5: this endpoint has no name, and apply tells endpoints by their names"},
		{"endpoints:\n  - {name: a}\n---\nendpoints:\n- name: a\n", `f:5:9: "a" is there twice: here and at f:2:12`},
		// Keys.
		{endpointWith("tcp: {idleTimout: 1s}"), `f:4:11: unknown key "idleTimout"; did you mean idleTimeout?`},
		{endpointWith("Listen: ':7'"), `f:4:5: unknown key "Listen"; did you mean listen?`},
		{endpointWith("sources: {permit: []}"), `f:4:15: unknown key "permit"; sources has allow, deny`},
		{endpointWith("port: 7"), "f:4:5: port is what the daemon answers, and cannot be set; echoctl export leaves it out"},
		{endpointWith("create_time: x"), "f:4:5: create_time is what the daemon answers, and cannot be set; echoctl export leaves it out"},
		{endpointWith("? [x]\n: y"), "f:4:7: a key is a word; here is a list"},
		{endpointWith("labels: {a: x, a: y}"), `f:4:20: "a" is there twice: here and in line 4`},
		{endpointWith("tcp: {one_shot: true, oneShot: true}"), `f:4:27: "oneShot" is there twice: here and as "one_shot" in line 4`},
		// Values.
		{endpointWith("listen: 7"), `f:4:13: listen is a text, and 7 is a number: write ":7", or "127.0.0.1:7"`},
		{endpointWith("listen: 20:30"), `f:4:13: listen is a text, and 20:30 is something else to some readers of YAML: write it in quotes`},
		{endpointWith("listen:"), `f:4:12: listen is a text, and here is nothing; leave the key out for the default, or write ""`},
		{endpointWith("listen: [':7']"), "f:4:13: listen is a text; here is a list"},
		{endpointWith("labels: {tls: yes}"), "f:4:19: the value of a label is a text, and yes is something else to some readers of YAML: write it in quotes"},
		{endpointWith("labels: {tls: true}"), "f:4:19: the value of a label is a text, and true is none: write it in quotes"},
		{endpointWith("labels: {v: 1.10}"), "f:4:17: the value of a label is a text, and 1.10 is none: write it in quotes"},
		{endpointWith("labels: {no: x}"), "f:4:14: the key of a label is a text, and no is something else to some readers of YAML: write it in quotes"},
		{endpointWith("labels: a=b"), `f:4:13: labels is a mapping of keys to values; here is "a=b"`},
		{endpointWith("description: 2026-11-22"), "f:4:18: description is a text, and 2026-11-22 is none: write it in quotes"},
		{endpointWith("protocol: tcp"), `f:4:15: protocol is TCP or UDP; here is "tcp"`},
		{endpointWith("protocol: 1"), "f:4:15: protocol is TCP or UDP; here is the number 1"},
		{endpointWith("tcp: 5"), "f:4:10: tcp is a mapping of keys to values; here is the number 5"},
		{endpointWith("tcp: {oneShot: yes}"), `f:4:20: oneShot is true or false; here is "yes"`},
		{endpointWith("tcp: {oneShot: 'true'}"), `f:4:20: oneShot is true or false; here is "true"`},
		{endpointWith("tcp: {maxConnections: 010}"), "f:4:27: maxConnections is a whole number from 0 to 4294967295; here is the number 010"},
		{endpointWith("tcp: {maxConnections: 1_000}"), "f:4:27: maxConnections is a whole number from 0 to 4294967295; here is the number 1_000"},
		{endpointWith("tcp: {maxConnections: -1}"), "f:4:27: maxConnections is a whole number from 0 to 4294967295; here is the number -1"},
		{endpointWith("tcp: {maxConnections: 4294967296}"), "f:4:27: maxConnections is a whole number from 0 to 4294967295; here is the number 4294967296"},
		{endpointWith("tcp: {maxBytes: 10MiB}"), `f:4:21: maxBytes is a whole number, 0 or more; here is "10MiB"`},
		{endpointWith("tcp: {maxBytes: 1.5}"), "f:4:21: maxBytes is a whole number, 0 or more; here is the number 1.5"},
		{endpointWith("tcp: {idleTimeout: 30}"), `f:4:24: idleTimeout is a duration, as "40ms", "1.5s" or "10m"; here is the number 30`},
		{endpointWith("ttl: soon"), `f:4:10: ttl is a duration, as "40ms", "1.5s" or "10m"; here is "soon"`},
		{endpointWith("sources: {allow: ::1}"), "f:4: is no YAML: did not find expected node content"},
		{endpointWith("sources: {allow: '::1'}"), `f:4:22: allow is a list; here is "::1"`},
		{endpointWith("sources: {allow: [7]}"), "f:4:23: allow is a text, and 7 is none: write it in quotes"},
		{endpointWith("description: !!str 7"), "f:4:18: description has the tag !!str: write the value without one"},
		{endpointWith("<<: 7"), `f:4:9: "<<" takes a mapping, as in "<<: *web"; here is the number 7`},
		// Several, and one that is met twice.
		{"endpoints:\n  - &a {name: a, tpc: {}}\n  - {<<: *a, name: b}\n", `f:2:18: unknown key "tpc"; did you mean tcp?`},
		{"endpoints:\n  - {name: 1}\n  - {nane: b}\n", "2 problems:\n" +
			"  f:2:12: name is a text, and 1 is none: write it in quotes\n" +
			"  f:3:6: unknown key \"nane\"; did you mean name?"},
		{"endpoints: [" + strings.Repeat("1,", 25) + "]", "25 problems:\n" + strings.Repeat("*\n", 20) + "  and 5 more"},
	} {
		_, err := Read([]Source{{"f", []byte(c.text)}})
		if err == nil {
			t.Errorf("%q is taken", c.text)
			continue
		}
		got := err.Error()
		if strings.HasPrefix(c.want, "25 ") {
			if lines := strings.Split(got, "\n"); len(lines) != 22 || lines[0] != "25 problems:" || lines[21] != "  and 5 more" {
				t.Errorf("many problems are told as\n%s", got)
			}
		} else if got != c.want {
			t.Errorf("%q:\n%s\nwant\n%s", c.text, got, c.want)
		}
	}
}

// TestProblemsOfJSON tells where a JSON text is wrong.
func TestProblemsOfJSON(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"{\"endpoints\": [\n  {\"name\": \"é\", \"port\" 7}]}", "f.json:2:24: is no JSON: invalid character '7' after object key"},
		{"{\"endpoints\": [\n  {", "f.json:2:4: is no JSON: it ends too early"},
		{"endpoints: []", "f.json:1:1: is no JSON: invalid character 'e' looking for beginning of value"},
		{"{\"endpoints\": [{\"name\": \"é\", \"x\": 1}]}", `f.json:1:30: unknown key "x"; an endpoint has *`},
		{"{\"endpoints\": [{\"name\": \"a\", \"name\": \"b\"}]}", `f.json:1:30: "name" is there twice: here and in line 1`},
		{"{\"endpoints\": [{\"name\": null}]}", `f.json:1:25: name is a text, and here is nothing; leave the key out for the default, or write ""`},
		{strings.Repeat("[", 50), "f.json:1:*: is no JSON: nested more than 32 deep"},
	} {
		_, err := Read([]Source{{"f.json", []byte(c.text)}})
		if head, tail, open := strings.Cut(c.want, "*"); err == nil || !open && err.Error() != c.want ||
			!strings.HasPrefix(err.Error(), head) || !strings.HasSuffix(err.Error(), tail) {
			t.Errorf("%q:\n%v\nwant\n%s", c.text, err, c.want)
		}
	}
}

// TestBounds gives more than may be given.
func TestBounds(t *testing.T) {
	var many strings.Builder
	many.WriteString("endpoints:\n")
	for i := range MaxEndpoints {
		fmt.Fprintf(&many, "- name: e-%d\n", i)
	}
	if l, err := Read([]Source{{"f", []byte(many.String())}}); err != nil || len(l.Endpoints) != MaxEndpoints {
		t.Errorf("%d endpoints: %v", MaxEndpoints, err)
	}
	fmt.Fprintf(&many, "- name: last\n")
	loop := "endpoints:\n  - &a\n    name: a\n    <<: *a\n"
	list := "endpoints:\n  - name: a\n    sources: {allow: &a [" + strings.Repeat("a,", 100) + "]}\n"
	for i := range 110 {
		list += fmt.Sprintf("  - {name: e-%d, sources: {allow: *a}}\n", i)
	}
	for _, c := range []struct{ name, text, want string }{
		{"endpoints", many.String(), "f:10002:3: there are more than 10000 endpoints, which is the most that are applied as one change; apply them in parts"},
		{"bytes", strings.Repeat("#", MaxFileBytes+1), "f: has more than 8 MiB, which is the most a file may have"},
		{"a loop of merges", loop, `"<<" is nested more than 32 deep`},
		{"aliases", list, "aliases stand for more than 10000 values; write some of them out"},
	} {
		if _, err := read([]Source{{"f", []byte(c.text)}}, 10_000); err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant %s", c.name, err, c.want)
		}
	}
}

// TestOf makes of what the daemon answers what a file says.
func TestOf(t *testing.T) {
	defaults := &echov1.Endpoint{Tcp: &echov1.TcpOptions{
		IdleTimeout: durationpb.New(10 * time.Minute), MaxConnections: proto.Uint32(1024),
	}}
	for _, c := range []struct {
		given, want *echov1.Endpoint
	}{
		{
			&echov1.Endpoint{
				Name: "a", Uid: "u", Protocol: echov1.Protocol_TCP, Listen: ":0", Address: "[::]:40001", Host: "::", Port: 40001,
				State: echov1.Endpoint_SERVING, Etag: "e", Tcp: proto.CloneOf(defaults.Tcp), Counters: &echov1.Counters{},
			},
			&echov1.Endpoint{Name: "a", Protocol: echov1.Protocol_TCP, Listen: ":40001"},
		},
		{
			&echov1.Endpoint{
				Name: "b", Listen: "[fe80::1%eth0]:0", Port: 7, Labels: map[string]string{"k": "v"}, Ttl: durationpb.New(time.Hour),
				Tcp: &echov1.TcpOptions{IdleTimeout: durationpb.New(0), MaxConnections: proto.Uint32(0), OneShot: true},
			},
			&echov1.Endpoint{
				Name: "b", Listen: "[fe80::1%eth0]:7", Labels: map[string]string{"k": "v"}, Ttl: durationpb.New(time.Hour),
				Tcp: &echov1.TcpOptions{IdleTimeout: durationpb.New(0), MaxConnections: proto.Uint32(0), OneShot: true},
			},
		},
		{&echov1.Endpoint{Name: "c", Listen: "127.0.0.1:9"}, &echov1.Endpoint{Name: "c", Listen: "127.0.0.1:9"}},
		{&echov1.Endpoint{Name: "d", Listen: "192.0.2.1:0"}, &echov1.Endpoint{Name: "d", Listen: "192.0.2.1:0"}},
	} {
		if got := Of(c.given, defaults); !proto.Equal(got, c.want) {
			t.Errorf("of %v:\n%v\nwant\n%v", c.given, got, c.want)
		}
	}
}

// FuzzRead holds that no text does harm, and that what is read from one can be written as JSON and read again.
func FuzzRead(f *testing.F) {
	f.Add(good)
	f.Add(`{"endpoints": [{"name": "a", "labels": {"k": "v"}, "ttl": "40ms"}]}`)
	f.Add("endpoints:\n  - &a\n    name: a\n    <<: [*a, {ttl: 1s}]\n")
	f.Add("%YAML 1.1\n--- !!map\nendpoints: !!seq []\n...\n")
	f.Add("endpoints: [{name: ~, description: |\n  x\n}]")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := Read([]Source{{"f", []byte(text)}})
		if err != nil {
			var p *Problems
			if errors.As(err, &p) && len(p.Lines) == 0 {
				t.Error("a problem without words")
			}
			return
		}
		doc := `{"endpoints": [`
		for i, e := range l.Endpoints {
			one, err := protojson.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			if i > 0 {
				doc += ","
			}
			doc += string(one)
			if at := l.Place(i, "tcp.idle_timeout"); at.Line < 1 || at.Column < 1 {
				t.Errorf("endpoint %d is at %s", i, at)
			}
		}
		again, err := Read([]Source{{"f.json", []byte(doc + "]}")}})
		if err != nil {
			t.Fatalf("%s: %v", doc, err)
		}
		for i, e := range l.Endpoints {
			if !proto.Equal(e, again.Endpoints[i]) {
				t.Errorf("%v became %v", e, again.Endpoints[i])
			}
		}
	})
}
