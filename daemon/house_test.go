// Package daemon_test holds the law of the house: which package may import which.
package daemon_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/echod/echod/"

// mayImport says, for each package of ours, which others of ours it may import. A package that is not here may not be.
var mayImport = map[string][]string{
	"daemon/internal/wire":     {},
	"daemon/internal/netns":    {},
	"daemon/internal/netwatch": {"daemon/internal/netns"},
	// For tests alone, which are not looked at here.
	"daemon/internal/netns/netnstest":      {},
	"daemon/internal/event/eventtest":      {"daemon/internal/event"},
	"daemon/internal/handover/managertest": {},
	"daemon/internal/store":                {},
	"daemon/echo":                          {"daemon/internal/wire"},
	"daemon/probe":                         {"daemon/internal/wire", "daemon/internal/netns"},
	"daemon/verdict":                       {"daemon/probe"},
	// The domain: it speaks no wire, and knows neither gRPC nor the generated code.
	"daemon/internal/event":    {},
	"daemon/internal/health":   {},
	"daemon/internal/registry": {"daemon/echo", "daemon/internal/event", "daemon/internal/netns", "daemon/internal/netwatch"},
	"daemon/internal/targets":  {"daemon/probe"},
	"daemon/internal/budget":   {"daemon/probe"},
	"daemon/internal/runs":     {"daemon/internal/event", "daemon/internal/budget", "daemon/probe", "daemon/verdict"},
	"daemon/internal/monitor":  {"daemon/internal/event", "daemon/probe", "daemon/verdict"},
	// The contract.
	"daemon/internal/rpc": {
		"gen/echo/v1", "daemon/internal/registry", "daemon/internal/runs", "daemon/internal/monitor", "daemon/internal/budget",
		"daemon/internal/targets", "daemon/internal/event", "daemon/internal/health", "daemon/echo", "daemon/probe", "daemon/verdict",
	},
	"daemon/internal/gateway": {"gen/echo/v1", "gen/openapi"},
	// Sockets that exist already.
	"daemon/internal/handover": {"daemon/echo"},
	// Assembly: the only one that knows everybody.
	"daemon/internal/server": {
		"daemon/echo", "daemon/probe", "daemon/internal/store", "daemon/internal/registry", "daemon/internal/netwatch", "daemon/internal/runs",
		"daemon/internal/budget", "daemon/internal/targets", "daemon/internal/monitor", "daemon/internal/event", "daemon/internal/health", "daemon/internal/rpc", "daemon/internal/gateway",
		"daemon/internal/handover",
	},
	"daemon/echod": {"daemon/internal/server", "daemon/internal/handover"},
	// A daemon for the length of a test. Tests import it, and nothing else.
	"daemon/echotest": {"gen/echo/v1", "daemon/internal/server", "daemon/echo"},
	// The same service without the daemon.
	"daemon/local": {
		"gen/echo/v1", "daemon/internal/rpc", "daemon/internal/runs", "daemon/internal/registry", "daemon/internal/budget", "daemon/internal/targets",
		"daemon/echo", "daemon/probe",
	},
	// The client knows the contract, and the service that stands in for a daemon.
	"ctl/internal/render": {"gen/echo/v1"},
	"ctl/internal/lab":    {"gen/echo/v1"},
	"ctl/internal/cli":    {"gen/echo/v1", "ctl/internal/render", "ctl/internal/lab", "daemon/local"},
	"ctl/echoctl":         {"ctl/internal/cli"},
	"gen/echo/v1":         {},
	"gen/openapi":         {},
	"examples/demo":       {},
	// The benchmark measures from outside; only its server and its client of ours know the engines.
	"bench":                 {"bench/internal/load", "bench/internal/many", "bench/internal/proc"},
	"bench/echoserver":      {"bench/internal/many", "daemon/echo"},
	"bench/probeclient":     {"daemon/probe"},
	"bench/internal/load":   {"bench/internal/proc"},
	"bench/internal/many":   {"bench/internal/proc", "daemon/echo"},
	"bench/internal/proc":   {},
	"bench/peers/netecho":   {},
	"bench/peers/netclient": {},
	"bench/peers/fortio":    {}, // a module of its own
	"tools/protodeps":       {},
	"tools/openapi":         {},
}

// mayNotImport keeps third parties out of rooms that are to stay simple: a prefix of their paths, and where it may be.
var mayNotImport = map[string][]string{
	"google.golang.org/grpc":                 {"daemon/internal/rpc", "daemon/internal/gateway", "daemon/internal/server", "daemon/echotest", "daemon/local", "ctl/", "gen/"},
	"google.golang.org/protobuf":             {"daemon/internal/rpc", "daemon/internal/gateway", "ctl/", "gen/", "tools/"},
	"go.etcd.io/bbolt":                       {"daemon/internal/store"},
	"github.com/coreos/go-systemd":           {"daemon/internal/handover"},
	"github.com/spf13":                       {"daemon/echod", "ctl/internal/cli"},
	"github.com/HdrHistogram":                {"daemon/probe"},
	"cel.dev/cel-go":                         {"daemon/verdict"},
	"github.com/grpc-ecosystem/grpc-gateway": {"daemon/internal/gateway", "gen/", "tools/"},
}

func TestNoArrowPointsUp(t *testing.T) {
	imports := ourImports(t)
	for pkg, imported := range imports {
		allowed, known := mayImport[pkg]
		if !known {
			t.Errorf("%s is a new package: say here what it may import", pkg)
			continue
		}
		for _, path := range imported {
			if ours, ok := strings.CutPrefix(path, module); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s and may not", pkg, ours)
			}
			for prefix, rooms := range mayNotImport {
				if strings.HasPrefix(path, prefix) && !slices.ContainsFunc(rooms, func(room string) bool { return strings.HasPrefix(pkg, room) }) {
					t.Errorf("%s imports %s and may not", pkg, path)
				}
			}
		}
	}
	for pkg := range mayImport {
		if imports[pkg] == nil {
			t.Errorf("the law speaks of %s, which is not there", pkg)
		}
	}
}

// ourImports reads what each package imports, its tests left out.
func ourImports(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != ".." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(strings.TrimPrefix(filepath.Dir(path), ".."+string(filepath.Separator)))
		if found[pkg] == nil {
			found[pkg] = []string{}
		}
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			found[pkg] = append(found[pkg], name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
