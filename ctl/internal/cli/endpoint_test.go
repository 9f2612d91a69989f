package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

const endpointHeader = "NAME PROTOCOL ADDRESS STATE AGE LABELS\n"

// TestLifeOfAnEndpoint goes through all commands of endpoints, with all that they write.
func TestLifeOfAnEndpoint(t *testing.T) {
	s := at(t, ownDaemon(t).GRPC)
	s.run("list").want(t, 0, "", "no endpoints; create one with: echoctl create tcp\n")
	s.run("create", "tcp", "--name", "web-1", "-l", "rack=r1").want(t, 0,
		endpointHeader+"web-1 TCP 127.0.0.1:* SERVING *s rack=r1\n", "")
	s.run("create", "udp", "127.0.0.1:0", "--name", "u-1").want(t, 0,
		endpointHeader+"u-1 UDP 127.0.0.1:* SERVING *s -\n", "")
	s.run("ls").want(t, 0,
		endpointHeader+"u-1 UDP 127.0.0.1:* SERVING *s -\nweb-1 TCP 127.0.0.1:* SERVING *s rack=r1\n", "")
	s.run("get", "web-1").want(t, 0, `Name: web-1
UID: *
Protocol: TCP
State: SERVING
Address: 127.0.0.1:*
Listen: 127.0.0.1:0
Labels: rack=r1
Description: -
One shot: no
Idle timeout: 10m
Stall timeout: 5m
Max connections: 1024
Connections: 0 open, 0 in all
Bytes: 0 in, 0 out
Drops: none
Errors: none
Last activity: never
Created: * (*s ago)
Changed: * (*s ago)
Etag: *
`, "")
	s.run("update", "web-1", "-l", "rack=r2").want(t, 0, endpointHeader+"web-1 TCP 127.0.0.1:* SERVING *s rack=r2\n", "")
	s.run("stop", "web-1").want(t, 0, endpointHeader+"web-1 TCP 127.0.0.1:* STOPPED *s rack=r2\n", "")
	s.run("start", "web-1").want(t, 0, endpointHeader+"web-1 TCP 127.0.0.1:* SERVING *s rack=r2\n", "")
	s.run("rm", "web-1", "u-1").want(t, 0, "", "deleted web-1\ndeleted u-1\n")
	s.run("list", "-o", "json").want(t, 0, "{\n \"endpoints\": []\n}\n",
		"no endpoints; create one with: echoctl create tcp\n")
}

// TestEachFormat runs each command of endpoints in the formats for programs.
func TestEachFormat(t *testing.T) {
	s := at(t, shared.GRPC)
	s.remove("format-1", "format-2")
	for i, c := range []struct {
		format string
		is     func(out, name string) bool
	}{
		{"name", func(out, name string) bool { return out == name+"\n" }},
		{"json", func(out, name string) bool { return strings.HasPrefix(out, "{\n  \"name\": \""+name+"\",\n") }},
		{"yaml", func(out, name string) bool { return strings.HasPrefix(out, "name: "+name+"\nuid: ") }},
		{"wide", func(out, name string) bool {
			return strings.Contains(out, "DATAGRAMS-IN") && strings.Contains(out, "\n"+name+" ")
		}},
	} {
		name := fmt.Sprintf("format-%d", i%2+1)
		for _, args := range [][]string{
			{"create", "tcp", "--name", name, "-l", "set=format"},
			{"get", name},
			{"update", name, "-l", "x=y"},
			{"stop", name},
			{"start", name},
		} {
			if out := s.ok(append(args, "-o", c.format)...); !c.is(out, name) {
				t.Errorf("%q as %s: %s", args, c.format, out)
			}
		}
		list := s.ok("list", "-l", "set=format", "-o", c.format)
		switch c.format {
		case "json":
			list = strings.TrimPrefix(list, "{\n  \"endpoints\": [\n    ")
			list = strings.ReplaceAll(list, "\n    ", "\n")
		case "yaml":
			list = strings.TrimPrefix(list, "endpoints:\n  - ")
			list = strings.ReplaceAll(list, "\n    ", "\n")
		}
		if !c.is(list, name) {
			t.Errorf("list as %s: %s", c.format, list)
		}
		deleted := map[string]string{
			"name": name + "\n", "wide": "",
			"json": "{\n  \"count\": 1,\n  \"names\": [\n    \"" + name + "\"\n  ]\n}\n",
			"yaml": "count: 1\nnames:\n  - " + name + "\n",
		}[c.format]
		if out := s.ok("delete", name, "-o", c.format); out != deleted {
			t.Errorf("delete as %s: %s", c.format, out)
		}
	}
}

// TestSameFieldsAsREST compares -o json with what REST answers.
func TestSameFieldsAsREST(t *testing.T) {
	s := at(t, shared.GRPC)
	s.remove("rest-1")
	s.ok("create", "tcp", "--name", "rest-1", "-l", "k=v", "--description", "<both> & all")
	got := s.json("get", "rest-1")
	response, err := http.Get("http://" + shared.HTTP + "/v1/endpoints/rest-1")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]any
	if err := json.Unmarshal(body, &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("echoctl says\n%v\nand REST\n%v", got, want)
	}
}

func TestSeveralNames(t *testing.T) {
	s := at(t, shared.GRPC)
	s.remove("many-1", "many-2")
	s.ok("create", "tcp", "--name", "many-1")
	s.ok("create", "tcp", "--name", "many-2")
	missing := "echoctl: *\"nope\"*\nechoctl list shows those there are\n"
	s.run("get", "many-2", "nope", "many-1", "many-2", "-o", "name").want(t, 1, "many-2\nmany-1\n", missing)
	s.run("stop", "many-1", "nope", "-o", "name").want(t, 1, "many-1\n", missing)
	s.run("start", "nope", "many-1", "-o", "name").want(t, 1, "many-1\n", missing)
	s.run("delete", "many-1", "nope", "many-2", "-o", "name").want(t, 1, "many-1\nmany-2\n", missing)
	s.run("delete", "nope", "-o", "json").want(t, 1, "{\n \"count\": 0,\n \"names\": []\n}\n", missing)
	if out := s.run("get", "nope", "-o", "json").stdout; out != "" {
		t.Errorf("nothing was found, but stdout is %s", out)
	}
}

func TestSelectors(t *testing.T) {
	s := at(t, shared.GRPC)
	s.remove("select-1", "select-2", "select-3")
	s.ok("create", "tcp", "--name", "select-1", "-l", "app/name=sel", "-l", "n=1")
	s.ok("create", "tcp", "--name", "select-2", "-l", "app/name=sel", "-l", `n=a "b" \c`)
	s.ok("create", "tcp", "--name", "select-3", "-l", "n=1")
	s.run("list", "-l", "app/name=sel", "-o", "name").want(t, 0, "select-1\nselect-2\n", "")
	s.run("list", "-l", `n=a "b" \c`, "-o", "name").want(t, 0, "select-2\n", "")
	s.run("list", "-l", "app/name=sel,n=1", "-o", "name").want(t, 0, "select-1\n", "")
	s.run("list", "--filter", `name = "select-1" OR name = "select-3"`, "-l", "app/name=sel", "-o", "name").
		want(t, 0, "select-1\n", "")
	s.run("list", "-l", "app/name=nothing").want(t, 0, "", "no endpoint matches\n")
	s.run("stop", "-l", "app/name=sel", "-o", "name").want(t, 0, "select-1\nselect-2\n", "")
	s.run("list", "-l", "n=1", "--filter", "state = STOPPED", "-o", "name").want(t, 0, "select-1\n", "")
	s.run("start", "-l", "app/name=sel", "-o", "name").want(t, 0, "select-1\nselect-2\n", "")
	s.run("list", "-l", "app/name,n!=1", "-o", "name").want(t, 0, "select-2\n", "")
	s.run("list", "-l", "!app/name,n=1", "-o", "name").want(t, 0, "select-3\n", "")
	s.run("list", "-l", "app/name=s*", "-o", "name").want(t, 0, "select-1\nselect-2\n", "")
	s.run("stop", "-l", "n=1", "--filter", `name = "select-3"`, "-o", "name").want(t, 0, "select-3\n", "")
	s.run("start", "--filter", `name = "select-*" AND state = STOPPED`, "-o", "name").want(t, 0, "select-3\n", "")
	s.run("delete", "-l", "app/name=sel", "-y", "-o", "name").want(t, 0, "select-1\nselect-2\n", "deleted 2 endpoints\n")
	for _, args := range [][]string{{"start"}, {"stop"}, {"delete"}, {"delete", "--yes"}, {"delete", "--dry-run"}} {
		s.run(append(args, "-l", "app/name=sel")...).want(t, 0, "", "no endpoint matches app/name=sel\n")
	}
	s.run("stop", "-l", "app/name=sel", "--filter", "port > 1").want(t, 0, "", "no endpoint matches port > 1, app/name=sel\n")
	s.run("list", "--filter", "nonsense here =").want(t, 1, "", "echoctl: filter: *\n")
}

// TestAllPages lists more endpoints than the daemon answers at once.
func TestAllPages(t *testing.T) {
	pages := [][]string{{"a", "b"}, {"c"}, {"d", "e"}}
	read := func(size int32, token string) ([]string, string, error) {
		i := len(token)
		next := token + "x"
		if i == len(pages)-1 {
			next = ""
		}
		return pages[i][:min(int(size), len(pages[i]))], next, nil
	}
	for limit, want := range map[uint32]string{0: "abcde", 1: "a", 2: "ab", 3: "abc", 4: "abcd", 99: "abcde"} {
		got, err := readPages(limit, pageSize, read)
		if err != nil || strings.Join(got, "") != want {
			t.Errorf("limit %d: %q, %v, want %s", limit, got, err, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	s := at(t, shared.GRPC)
	s.remove("refuse-1", "refuse-2")
	e := s.json("create", "tcp", "--name", "refuse-1")
	address, _ := e["address"].(string)
	s.run("create", "tcp", "--name", "refuse-1").want(t, 1, "", "echoctl: *\"refuse-1\"*\nechoctl get refuse-1 shows it\n")
	s.run("create", "tcp", address, "--name", "refuse-2").want(t, 1, "",
		"echoctl: *cannot bind "+address+": *; *port 0 for a free one\n")
	s.run("create", "tcp", "192.0.2.1:7", "--name", "refuse-2").want(t, 1, "",
		"echoctl: *cannot bind 192.0.2.1:7: *; *an address of the daemon's host*\n")
	s.run("create", "tcp", "nonsense").want(t, 1, "", "echoctl: endpoint.listen: must be *\n")
	s.run("create", "tcp", "nonsense", "--name", "NO").want(t, 1, "",
		"echoctl: the daemon refuses these values:\n endpoint.*\n endpoint.*\n")
	s.run("update", "refuse-1", "--listen", ":0").want(t, 1, "",
		"echoctl: *\"refuse-1\"*\nstop it first: echoctl stop refuse-1\n")
	s.run("update", "refuse-1", "--etag", "old", "--description", "x").want(t, 1, "",
		"echoctl: *\"refuse-1\"*\nechoctl get refuse-1 shows it as it is now\n")
	s.run("update", "nope", "-l", "a=b").want(t, 1, "", "echoctl: *\"nope\"*\nechoctl list shows those there are\n")
}

func TestInfo(t *testing.T) {
	d := ownDaemon(t)
	s := at(t, d.GRPC)
	s.run("info").want(t, 0, fmt.Sprintf(`Version: *
Platform: go* *
PID: %d
Started: * (*s ago)
Readiness: READY
Listeners: grpc %s
 grpc unix:%s
 http %s
State directory: none: endpoints end with the process
Endpoints: 0
Warnings: *
`, d.PID, d.GRPC, d.Socket, d.HTTP), "")
	s.run("info", "-o", "name").want(t, 0, d.GRPC+"\nunix:"+d.Socket+"\n"+d.HTTP+"\n", "")
	wantField(t, s.json("info"), "pid", fmt.Sprint(d.PID))
	wantField(t, s.json("info"), "stateDirectory", `""`)
	if out := s.ok("info", "-o", "yaml"); !strings.Contains(out, fmt.Sprintf("\npid: %d\n", d.PID)) {
		t.Errorf("info as YAML: %s", out)
	}
}

func TestVersion(t *testing.T) {
	s := at(t, shared.GRPC)
	s.run("version").want(t, 0, "Client: dev (go* */*)\nDaemon: * (go* */*) at "+shared.GRPC+"\n", "")
	s.run("version", "-o", "name").want(t, 0, "dev\n", "")
	wantField(t, s.json("version"), "client.version", `"dev"`)
	wantField(t, s.json("version"), "daemon.address", `"`+shared.GRPC+`"`)

	alone := at(t, closedPort(t))
	alone.run("version").want(t, 0, "Client: dev (go* */*)\nDaemon: none that answers\n", "")
	wantField(t, alone.json("version"), "daemon", "null")
}
