package cli

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	echov1 "github.com/echod/echod/gen/echo/v1"
)

// effects see what each flag does, by the command's path and the flag's name. TestEveryFlagHasAnEffect wants all of
// them here.
var effects = map[string]func(t *testing.T, s *shell){
	"echoctl --server": func(t *testing.T, s *shell) {
		s.env["ECHOCTL_SERVER"] = "127.0.0.1:1"
		s.ok("list", "--server", shared.GRPC)
	},
	"echoctl --output": func(t *testing.T, s *shell) {
		s.env["ECHOCTL_OUTPUT"] = "json"
		wantField(t, s.json("version"), "client.version", `"dev"`)
		if out := s.ok("version"); !strings.HasPrefix(out, "{") {
			t.Errorf("ECHOCTL_OUTPUT=json writes %s", out)
		}
		if out := s.ok("version", "--output", "name"); out != "dev\n" {
			t.Errorf("--output name writes %s", out)
		}
	},
	"echoctl --call-timeout": func(t *testing.T, s *shell) {
		// Whether the connection was there by then is a matter of luck.
		if r := s.run("list", "--call-timeout", "1ns"); r.code == 0 || !strings.Contains(r.stderr, "(--call-timeout)") {
			t.Errorf("exit %d: %s", r.code, r.stderr)
		}
	},
	"echoctl --no-color": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-color")
		s.terminal = true
		colored := func(args ...string) bool { return strings.Contains(s.ok(args...), "\x1b[") }
		if !colored("get", "e-color") {
			t.Error("no colour on a terminal")
		}
		if colored("get", "e-color", "--no-color") {
			t.Error("colour in spite of --no-color")
		}
		for key, value := range map[string]string{"NO_COLOR": "1", "TERM": "dumb"} {
			s.env[key] = value
			if colored("get", "e-color") {
				t.Errorf("colour in spite of %s", key)
			}
			delete(s.env, key)
		}
		s.terminal = false
		if colored("get", "e-color") {
			t.Error("colour without a terminal")
		}
	},

	"watch --filter":       watchEffect("--filter", `name = "e-watch"`, true),
	"watch --selector":     watchEffect("--selector", "watched=yes", true),
	"watch --kind":         watchEffect("--kind", "endpoint", true),
	"watch --changes-only": watchEffect("--changes-only", "", false),
	"watch --traffic":      trafficEffect("--traffic"),
	"watch --traffic-one-in": func(t *testing.T, s *shell) {
		trafficEffect("--traffic-one-in", "1")(t, s)
		s.newEndpoint("tcp", "e-seldom")
		w := s.start("watch", "--traffic-one-in", "1000000", "--filter", `name = "e-seldom"`)
		all := s.start("watch", "--traffic", "--filter", `name = "e-seldom"`)
		w.out.await(t, "SYNCED")
		all.out.await(t, "SYNCED")
		s.connectOnce("e-seldom")
		all.out.await(t, "CONNECTION_CLOSED")
		all.stop()
		s.ok("delete", "e-seldom")
		w.out.await(t, "DELETED")
		if out := w.stop().stdout; strings.Contains(out, "CONNECTION") {
			t.Errorf("a connection of a million is shown:\n%s", out)
		}
	},
	"wait --for": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-wait")
		s.ok("wait", "e-wait", "--for", "exists")
		s.ok("wait", "e-wait-2", "--for", "deleted")
	},
	"wait --timeout": func(t *testing.T, s *shell) {
		s.waitInVain("wait", "e-wait", "--for", "exists").want(t, 1, "", "echoctl: endpoint e-wait is not there after *\n")
	},

	"ready --wait": func(t *testing.T, _ *shell) {
		asked := 0
		f := &fake{readiness: func(context.Context) (*echov1.Readiness, error) {
			asked++
			return &echov1.Readiness{State: map[bool]echov1.Readiness_State{false: echov1.Readiness_NOT_READY, true: echov1.Readiness_DEGRADED}[asked > 2]}, nil
		}}
		at(t, f.start(t)).run("ready", "--wait", "-o", "name").want(t, 0, "DEGRADED\n", "")
	},
	"ready --timeout": func(t *testing.T, _ *shell) {
		f := &fake{readiness: func(context.Context) (*echov1.Readiness, error) {
			return &echov1.Readiness{State: echov1.Readiness_NOT_READY}, nil
		}}
		// Whether the first answer was there by then is a matter of luck.
		if r := at(t, f.start(t)).run("ready", "--wait", "--timeout", "1s"); r.code != 1 && r.code != 4 {
			t.Errorf("exit %d: %s", r.code, r.stderr)
		}
	},

	"create --name": func(t *testing.T, s *shell) {
		s.remove("e-name")
		wantField(t, s.json("create", "tcp", "--name", "e-name"), "name", `"e-name"`)
	},
	"create --count": func(t *testing.T, s *shell) {
		s.remove("e-count-1", "e-count-2")
		s.run("create", "udp", "--name", "e-count", "--count", "2", "-o", "name").want(t, 0, "e-count-1\ne-count-2\n", "created 2 endpoints\n")
	},
	"create --label": func(t *testing.T, s *shell) {
		s.remove("e-label")
		m := s.json("create", "tcp", "--name", "e-label", "--label", "a=1,2", "-l", "b=")
		wantField(t, m, "labels", `{"a":"1,2","b":""}`)
	},
	"create --description": func(t *testing.T, s *shell) {
		s.remove("e-desc")
		wantField(t, s.json("create", "udp", "--name", "e-desc", "--description", "x y"), "description", `"x y"`)
	},
	"create --one-shot": func(t *testing.T, s *shell) {
		s.remove("e-shot")
		m := s.json("create", "tcp", "--name", "e-shot", "--one-shot")
		wantField(t, m, "tcp.oneShot", "true")
		wantField(t, m, "tcp.idleTimeout", `"600s"`)
	},
	"create --idle-timeout": func(t *testing.T, s *shell) {
		s.remove("e-idle")
		wantField(t, s.json("create", "tcp", "--name", "e-idle", "--idle-timeout", "1.5"), "tcp.idleTimeout", `"1.500s"`)
	},
	"create --max-connections": func(t *testing.T, s *shell) {
		s.remove("e-max")
		wantField(t, s.json("create", "tcp", "--name", "e-max", "--max-connections", "0"), "tcp.maxConnections", "0")
	},
	"create --stall-timeout": func(t *testing.T, s *shell) {
		s.remove("e-stall")
		m := s.json("create", "tcp", "--name", "e-stall", "--stall-timeout", "40ms")
		wantField(t, m, "tcp.stallTimeout", `"0.040s"`)
		wantField(t, m, "tcp.idleTimeout", `"600s"`)
	},
	"create --max-bytes": func(t *testing.T, s *shell) {
		s.remove("e-bytes")
		m := s.json("create", "tcp", "--name", "e-bytes", "--max-bytes", "10MiB")
		wantField(t, m, "tcp.maxBytes", `"10485760"`)
		wantField(t, m, "tcp.stallTimeout", `"300s"`)
	},
	"create --socket-buffer": func(t *testing.T, s *shell) {
		s.remove("e-buffer")
		m := s.json("create", "tcp", "--name", "e-buffer", "--socket-buffer", "64k")
		wantField(t, m, "tcp.socketBufferBytes", "64000")
		// Its range is the daemon's to say.
		s.run("create", "tcp", "--socket-buffer", "1G").want(t, 1, "", "echoctl: *socket_buffer_bytes: must be *\n")
	},
	"create --source-datagrams": func(t *testing.T, s *shell) {
		s.remove("e-datagrams")
		m := s.json("create", "udp", "--name", "e-datagrams", "--source-datagrams", "100")
		wantField(t, m, "udp.maxSourceDatagrams", "100")
		wantField(t, m, "udp.loopGuard", "true")
	},
	"create --source-bytes": func(t *testing.T, s *shell) {
		s.remove("e-source")
		m := s.json("create", "udp", "--name", "e-source", "--source-bytes", "1GB")
		wantField(t, m, "udp.maxSourceBytes", `"1000000000"`)
	},
	"create --allow":             sourcesEffect("allow"),
	"create --deny":              sourcesEffect("deny"),
	"create --network-namespace": createPlaceEffect("networkNamespace", "--network-namespace"),
	"create --netns":             createPlaceEffect("networkNamespace", "--netns"),
	"create --interface":         createPlaceEffect("interface", "--interface"),
	"create --loop-guard": func(t *testing.T, s *shell) {
		s.remove("e-guard")
		wantField(t, s.json("create", "udp", "--name", "e-guard", "--loop-guard=false"), "udp.loopGuard", "false")
		s.run("create", "tcp", "--loop-guard=false").want(t, 2, "", "echoctl: --loop-guard is for udp*\n")
	},
	"create --ttl": func(t *testing.T, s *shell) {
		s.remove("e-ttl")
		m := s.json("create", "tcp", "--name", "e-ttl", "--ttl", "10m")
		wantField(t, m, "ttl", `"600s"`)
		if m["expireTime"] == nil {
			t.Error("it does not expire")
		}
		if out := s.ok("list", "--filter", `name = "e-ttl"`); !strings.Contains(out, "EXPIRES") || !strings.Contains(out, "in ") {
			t.Errorf("list writes\n%s", out)
		}
	},
	"create --session": func(t *testing.T, s *shell) {
		none := "echoctl: no such session: \"%s\"; it may have ended with its client\nechoctl session holds one\n"
		s.run("create", "tcp", "--session", "none").want(t, 1, "", strings.ReplaceAll(none, "%s", "none"))
		s.env[sessionVariable] = "around"
		s.run("create", "tcp").want(t, 1, "", strings.ReplaceAll(none, "%s", "around"))
		s.remove("e-outside")
		wantField(t, s.json("create", "tcp", "--name", "e-outside", "--session", ""), "session", `""`)
	},
	"create --validate-only": validateOnlyEffect("--validate-only"),
	"create --dry-run":       validateOnlyEffect("--dry-run"),

	"list --filter": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-filter")
		s.run("list", "--filter", `name = "e-filter"`, "-o", "name").want(t, 0, "e-filter\n", "")
	},
	"list --selector": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-select", "-l", "e=select")
		s.run("list", "--selector", "e=select", "-o", "name").want(t, 0, "e-select\n", "")
	},
	"list --limit": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-limit-1", "-l", "e=limit")
		s.newEndpoint("tcp", "e-limit-2", "-l", "e=limit")
		s.run("list", "-l", "e=limit", "--limit", "1", "-o", "name").want(t, 0, "e-limit-1\n", "")
	},

	"update --label":        updateEffect("labels", `{"a":"2","b":"1","c":"3"}`, "--label", "a=2", "-l", "c=3"),
	"update --remove-label": updateEffect("labels", `{"b":"1"}`, "--remove-label", "a", "--remove-label", "never-there"),
	"update --description":  updateEffect("description", `""`, "--description", ""),
	"update --one-shot":     updateEffect("tcp.oneShot", "false", "--one-shot=false"),
	"update --idle-timeout": func(t *testing.T, s *shell) {
		updateEffect("tcp.idleTimeout", `"0s"`, "--idle-timeout", "0")(t, s)
		updateEffect("tcp.idleTimeout", `"600s"`, "--idle-timeout", "default")(t, s)
	},
	"update --max-connections": func(t *testing.T, s *shell) {
		updateEffect("tcp.maxConnections", "3", "--max-connections", "3")(t, s)
		updateEffect("tcp.maxConnections", "1024", "--max-connections", "default")(t, s)
	},
	"update --stall-timeout": func(t *testing.T, s *shell) {
		updateEffect("tcp.stallTimeout", `"0s"`, "--stall-timeout", "0")(t, s)
		updateEffect("tcp.stallTimeout", `"300s"`, "--stall-timeout", "default")(t, s)
	},
	"update --max-bytes": func(t *testing.T, s *shell) {
		updateEffect("tcp.maxBytes", `"1000"`, "--max-bytes", "1k")(t, s)
		updateEffect("tcp.maxBytes", `"0"`, "--max-bytes", "default")(t, s)
	},
	"update --socket-buffer": func(t *testing.T, s *shell) {
		updateEffect("tcp.socketBufferBytes", "131072", "--socket-buffer", "128KiB")(t, s)
		updateEffect("tcp.socketBufferBytes", "0", "--socket-buffer", "default")(t, s)
	},
	"update --source-datagrams": sourceRateEffect("udp.maxSourceDatagrams", "--source-datagrams", "7", "0"),
	"update --source-bytes":     sourceRateEffect("udp.maxSourceBytes", "--source-bytes", `"7"`, `"0"`),
	"update --allow": func(t *testing.T, s *shell) {
		updateEffect("sources.allow", `["192.0.2.0/24","::1/128"]`, "--allow", "192.0.2.0/24, ::1")(t, s)
		updateEffect("sources.allow", `[]`, "--allow", "")(t, s)
	},
	"update --deny": func(t *testing.T, s *shell) {
		updateEffect("sources.deny", `["192.0.2.0/24","::1/128"]`, "--deny", "192.0.2.0/24", "--deny", "::1")(t, s)
		updateEffect("sources.deny", `[]`, "--deny", "")(t, s)
	},
	"update --loop-guard": func(t *testing.T, s *shell) {
		s.newEndpoint("udp", "e-guard-2")
		wantField(t, s.json("update", "e-guard-2", "--loop-guard=false"), "udp.loopGuard", "false")
		wantField(t, s.json("update", "e-guard-2", "--loop-guard"), "udp.loopGuard", "true")
	},
	"update --ttl": func(t *testing.T, s *shell) {
		updateEffect("ttl", `"3600s"`, "--ttl", "1h")(t, s)
		updateEffect("ttl", `null`, "--ttl", "0")(t, s)
	},
	"update --listen": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-listen")
		s.ok("stop", "e-listen")
		wantField(t, s.json("update", "e-listen", "--listen", "0.0.0.0:0"), "listen", `"0.0.0.0:0"`)
	},
	"update --network-namespace": updatePlaceEffect("networkNamespace", "--network-namespace"),
	"update --netns":             updatePlaceEffect("networkNamespace", "--netns"),
	"update --interface":         updatePlaceEffect("interface", "--interface"),
	"update --etag": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-etag")
		etag, _ := s.json("get", "e-etag")["etag"].(string)
		s.ok("update", "e-etag", "--etag", etag, "-l", "a=1")
		for _, flag := range []string{"--label=a=2", "--description=x"} {
			if r := s.run("update", "e-etag", "--etag", etag, flag); r.code != 1 {
				t.Errorf("a stale etag and %s: exit %d, want 1", flag, r.code)
			}
		}
	},
	"update --validate-only": updateCheckEffect("--validate-only"),
	"update --dry-run":       updateCheckEffect("--dry-run"),

	"renew --ttl": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-renew")
		wantField(t, s.json("renew", "e-renew", "--ttl", "2h"), "ttl", `"7200s"`)
	},
	"renew --selector": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-renew-1", "-l", "e=renew", "--ttl", "1h")
		s.newEndpoint("tcp", "e-renew-2", "-l", "e=renew")
		s.run("renew", "--selector", "e=renew", "-o", "name").want(t, 0, "e-renew-1\n", "")
	},
	"renew --filter": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-renew-3", "--ttl", "1h")
		s.run("renew", "--filter", `name = "e-renew-*"`, "-o", "name").want(t, 0, "e-renew-3\n", "")
	},
	"session --name":  sessionEffect("name", `"e-session-tcp-1"`, "--name", "e-session", "--tcp", ""),
	"session --label": sessionEffect("labels", `{"a":"b"}`, "--label", "a=b", "--tcp", ""),
	"session --tcp":   sessionEffect("protocol", `"TCP"`, "--tcp", "127.0.0.1:0"),
	"session --udp":   sessionEffect("listen", `"[::1]:0"`, "--udp", "[::1]:0"),
	"session --file": func(t *testing.T, s *shell) {
		sessionEffect("name", `"e-filed"`, "--file", s.lab("{name: e-filed, protocol: TCP}"))(t, s)
	},
	"session --recursive": func(t *testing.T, s *shell) {
		folder := t.TempDir()
		write(t, filepath.Join(folder, "below", "a.yaml"), "endpoints: [{name: e-deep, protocol: TCP}]")
		sessionEffect("name", `"e-deep"`, "--file", folder, "--recursive")(t, s)
	},
	"upgrade --validate-only": func(t *testing.T, _ *shell) {
		f := &fake{upgrade: func(r *echov1.UpgradeDaemonRequest) (*echov1.UpgradeDaemonResponse, error) {
			resp := &echov1.UpgradeDaemonResponse{Pid: 7}
			if r.GetValidateOnly() {
				resp.Pid = 8
			}
			return resp, nil
		}}
		s := at(t, f.start(t))
		if done, tried := s.ok("upgrade", "-o", "name"), s.ok("upgrade", "--validate-only", "-o", "name"); done != "7\n" || tried != "8\n" {
			t.Errorf("done %q, tried %q", done, tried)
		}
	},
	"session --grace": func(t *testing.T, s *shell) {
		// The daemon's own bound shows that the value gets there.
		s.run("session", "--grace", "25h").want(t, 1, "", "echoctl: *grace: must be 0 to 24h*\n")
	},

	"start --selector":  selectorEffect("start", "SERVING", "--selector", "e=sel"),
	"stop --selector":   selectorEffect("stop", "STOPPED", "--selector", "e=sel"),
	"delete --selector": selectorEffect("delete", "", "--selector", "e=sel", "--yes"),
	"start --filter":    selectorEffect("start", "SERVING", "--filter", `labels.e = "sel"`),
	"stop --filter":     selectorEffect("stop", "STOPPED", "--filter", `labels.e = "sel"`),
	"delete --filter":   selectorEffect("delete", "", "--filter", `labels.e = "sel"`, "-y"),
	"delete --yes": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-yes", "-l", "e=yes")
		if r := s.run("delete", "-l", "e=yes"); r.code != 1 {
			t.Errorf("without --yes: exit %d", r.code)
		}
		s.run("delete", "-l", "e=yes", "--yes").want(t, 0, "", "deleted e-yes\n")
	},
	"delete --dry-run": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-dry", "-l", "e=dry")
		s.run("delete", "-l", "e=dry", "--dry-run", "--yes", "-o", "name").want(t, 0, "e-dry\n", "would delete e-dry\n")
		s.ok("get", "e-dry")
	},
	"delete --all": func(t *testing.T, _ *shell) {
		s := at(t, ownDaemon(t).GRPC)
		s.ok("create", "tcp", "--name", "e-all", "--count", "2")
		s.run("delete", "--all", "--yes").want(t, 0, "", "deleted e-all-1\ndeleted e-all-2\ndeleted 2 endpoints\n")
		s.run("delete", "--all").want(t, 0, "", "there are no endpoints\n")
	},

	"apply --file": func(t *testing.T, s *shell) {
		s.remove("e-file")
		s.run("apply", "--file", s.lab("{name: e-file, protocol: TCP}"), "-o", "name").want(t, 0, "e-file\n", "1 created\n")
		s.ok("get", "e-file")
	},
	"apply --recursive": recursiveEffect("apply", 0),
	"apply --prune":     pruneEffect("apply", 0, "--selector", "e=prune"),
	"apply --selector":  pruneEffect("apply", 0, "--selector", "e=prune"),
	"apply --filter":    pruneEffect("apply", 0, "--filter", `labels.e = "prune"`),
	"apply --replace": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-replace")
		file := s.lab("{name: e-replace, protocol: TCP, listen: '127.0.0.2:0'}")
		if r := s.run("apply", "-f", file); r.code != 1 || !strings.HasSuffix(r.stderr, "\n"+replaceHint+"\n") {
			t.Errorf("without --replace: exit %d, %s", r.code, r.stderr)
		}
		s.ok("apply", "-f", file, "--replace")
		wantField(t, s.json("get", "e-replace"), "host", `"127.0.0.2"`)
	},
	"apply --validate-only": applyCheckEffect("--validate-only"),
	"apply --dry-run":       applyCheckEffect("--dry-run"),
	"diff --file": func(t *testing.T, s *shell) {
		s.run("diff", "--file", s.lab("{name: e-diff, protocol: TCP}"), "-o", "name").want(t, 1, "e-diff\n", "1 to create\n")
		s.run("get", "e-diff").want(t, 1, "", "echoctl: *\n*\n")
	},
	"diff --recursive":  recursiveEffect("diff", 1),
	"diff --prune":      pruneEffect("diff", 1, "--selector", "e=prune"),
	"diff --selector":   pruneEffect("diff", 1, "--selector", "e=prune"),
	"diff --filter":     pruneEffect("diff", 1, "--filter", `labels.e = "prune"`),
	"export --selector": exportEffect("--selector", "e=export"),
	"export --filter":   exportEffect("--filter", `labels.e = "export"`),
	"stop --drain-timeout": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-drain")
		// The daemon's own bound shows that the value gets there.
		s.run("stop", "e-drain", "--drain-timeout", "2h").want(t, 1, "", "echoctl: *drain_timeout: must be *\n")
		s.ok("stop", "e-drain", "--drain-timeout", "1s")
	},
	"delete --drain-timeout": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-drain")
		s.run("delete", "e-drain", "--drain-timeout", "2h").want(t, 1, "", "echoctl: *drain_timeout: must be *\n")
		s.ok("delete", "e-drain", "--drain-timeout", "1s")
	},

	"probe --count":          probeEffect("count", "2", "-c", "2"),
	"probe --interval":       probeEffect("interval", `"0.001s"`, "-i", "0.001"),
	"probe --size":           probeEffect("payloadSize", "1400", "-s", "1400"),
	"probe --timeout":        probeEffect("timeout", `"59.500s"`, "-W", "59.5"),
	"probe --duration":       probeEffect("duration", `"0.050s"`, "-w", "50ms"),
	"probe --new-connection": probeEffect("tcp.newConnection", "true", "--new-connection"),
	"probe --await-close":    probeEffect("tcp.awaitClose", "true", "--await-close"),
	"probe --name": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-probe")
		s.run("probe", "e-probe", "-c", "1", "-W", "60s", "--name", "e-p", "-o", "name").want(t, 0, "e-p\n", "")
		s.ok("probe", "rm", "e-p")
	},
	"probe --local": func(t *testing.T, s *shell) {
		if r := s.run("probe", "--local", "tcp://127.0.0.1:1", "-c", "1", "--server", "127.0.0.1:1"); r.code != exitUnmet {
			t.Errorf("exit %d: it asked a daemon", r.code)
		}
	},
	"probe --expect": probeEffect("expect", `["sent == 1","received == 1"]`, "--expect", "sent == 1", "--expect", "received == 1"),
	"probe --ledger": func(t *testing.T, s *shell) {
		s.newEndpoint("udp", "e-far")
		s.ok("probe", "e-far", "-c", "1", "-W", "60s", "--name", "e-asks", "--ledger", "127.0.0.1:1")
		m := s.json("probe", "get", "e-asks")
		wantField(t, m, "ledger.address", `"127.0.0.1:1"`)
		wantField(t, m, "report.directions.unknown", `"cannot get the target's ledger from 127.0.0.1:1: connection refused"`)
		s.ok("probe", "rm", "e-asks")
	},
	"probe --path-mtu": func(t *testing.T, s *shell) {
		s.newEndpoint("udp", "e-mtu")
		out := s.ok("probe", "e-mtu", "-i", "0", "-W", "60s", "--name", "e-m", "--path-mtu=1000")
		if !strings.Contains(out, "path mtu 1028: 1000 bytes come back, more was not tried\n") {
			t.Errorf("probe writes %s", out)
		}
		wantField(t, s.json("probe", "get", "e-m"), "pathMtu.maxPayload", "1000")
		s.ok("probe", "rm", "e-m")
	},
	"probe --verbose": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-probe")
		if out := s.ok("probe", "e-probe", "-c", "1", "-W", "60s", "--verbose"); !strings.Contains(out, "seq=1") {
			t.Errorf("--verbose writes %s", out)
		}
		if out := s.ok("probe", "e-probe", "-c", "1", "-W", "60s"); strings.Contains(out, "seq=1") {
			t.Errorf("without it: %s", out)
		}
	},

	"probe --rate":                     probeEffect("interval", `"0.002s"`, "--rate", "500"),
	"probe --pacing":                   probeEffect("pacing", `"POISSON"`, "--pacing", "poisson"),
	"probe --flows":                    probeEffect("flows", "2", "--flows", "2"),
	"probe --sweep":                    probeEffect("payloadSweep", `{"from":64,"step":64,"to":192}`, "--sweep", "64:200:64"),
	"probe --source":                   probeEffect("source.address", `"127.0.0.1"`, "--source", "127.0.0.1"),
	"probe --source-port":              sourcePortEffect,
	"probe --source-netns":             sourceNamespaceEffect("--source-netns"),
	"probe --source-network-namespace": sourceNamespaceEffect("--source-network-namespace"),
	"probe --source-interface": func(t *testing.T, s *shell) {
		s.run("probe", "tcp://127.0.0.1:1", "-c", "1", "--source-interface", "nowhere7").want(t, 1, "", "echoctl: cannot send by interface nowhere7: *\n")
	},
	"probe --dscp":          probeEffect("ip.dscp", "46", "--dscp", "ef"),
	"probe --dont-fragment": dontFragmentEffect,
	"probe --ttl":           probeEffect("ip.ttl", "7", "--ttl", "7"),
	"probe --aggregate": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-probe")
		out := s.ok("probe", "e-probe", "-c", "1", "-W", "60s", "-v", "--aggregate", "1m")
		if !strings.Contains(out, "\nuntil=") || strings.Contains(out, "seq=") {
			t.Errorf("--aggregate writes %s", out)
		}
	},
	"probe --live": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-probe")
		s.stderrTerminal = true
		args := []string{"probe", "e-probe", "-c", "1", "-W", "60s", "-o", "name"}
		if r := s.run(args...); r.stderr != "" {
			t.Errorf("without --live: %q", r.stderr)
		}
		if r := s.run(append(args, "--live")...); !strings.Contains(r.stderr, "1 sent, 1 received") {
			t.Errorf("--live writes %q", r.stderr)
		}
		s.stderrTerminal = false
		if r := s.run(append(args, "--live")...); r.stderr != "" {
			t.Errorf("--live without a terminal writes %q", r.stderr)
		}
	},
	"probe --histogram": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-probe")
		args := []string{"probe", "e-probe", "-c", "2", "-i", "0", "-W", "60s"}
		drawn := func(args ...string) bool { return strings.Contains(s.ok(args...), "\nrtt, up to:\n") }
		if drawn(args...) || !drawn(append(args, "--histogram")...) {
			t.Error("a histogram, or none, in spite of --histogram")
		}
		s.terminal = true
		if !drawn(args...) || drawn(append(args, "--histogram=false")...) {
			t.Error("no histogram on a terminal, or one in spite of --histogram=false")
		}
	},

	"probe start --rate":                     probeStartEffect("interval", `"2s"`, "--rate", "0.5"),
	"probe start --pacing":                   probeStartEffect("pacing", `"CLOSED"`, "--pacing", "closed"),
	"probe start --flows":                    probeStartEffect("flows", "3", "--flows", "3"),
	"probe start --sweep":                    probeStartEffect("payloadSweep", `{"from":64,"step":64,"to":192}`, "--sweep", "64:200:64"),
	"probe start --source":                   probeStartEffect("source.address", `"127.0.0.1"`, "--source", "127.0.0.1"),
	"probe start --source-port":              sourcePortEffect,
	"probe start --source-netns":             startSourceEffect("networkNamespace", "--source-netns"),
	"probe start --source-network-namespace": startSourceEffect("networkNamespace", "--source-network-namespace"),
	"probe start --source-interface":         startSourceEffect("interface", "--source-interface"),
	"probe start --dscp":                     probeStartEffect("ip.dscp", "8", "--dscp", "cs1"),
	"probe start --dont-fragment":            dontFragmentEffect,
	"probe start --ttl":                      probeStartEffect("ip.ttl", "7", "--ttl", "7"),
	"probe start --count":                    probeStartEffect("count", "2", "--count", "2"),
	"probe start --interval":                 probeStartEffect("interval", `"0.001s"`, "--interval", "0.001"),
	"probe start --size":                     probeStartEffect("payloadSize", "1400", "--size", "1400"),
	"probe start --timeout":                  probeStartEffect("timeout", `"0.500s"`, "--timeout", "0.5"),
	"probe start --duration":                 probeStartEffect("duration", `"60s"`, "--duration", "1m"),
	"probe start --new-connection":           probeStartEffect("tcp.newConnection", "true", "--new-connection"),
	"probe start --await-close":              probeStartEffect("tcp.awaitClose", "true", "--await-close"),
	"probe start --name":                     probeStartEffect("name", `"e-start"`),
	"probe start --ledger": func(t *testing.T, s *shell) {
		s.newEndpoint("udp", "e-far")
		m := s.json("probe", "start", "e-far", "-c", "1", "--name", "e-asks", "--ledger", "127.0.0.1:1")
		wantField(t, m, "ledger.address", `"127.0.0.1:1"`)
		s.ok("probe", "rm", "e-asks")
	},
	"probe start --expect": probeStartEffect("expect", `["lost == 0 // a, b"]`, "--expect", "lost == 0 // a, b"),
	"probe start --path-mtu": func(t *testing.T, s *shell) {
		s.newEndpoint("udp", "e-mtu")
		wantField(t, s.json("probe", "start", "e-mtu", "--name", "e-start", "--path-mtu"), "pathMtu.maxPayload", "0")
		s.ok("probe", "rm", "e-start")
	},
	"probe list --limit": func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-probe")
		s.ok("probe", "start", "e-probe", "--name", "e-l1", "-c", "1")
		s.ok("probe", "start", "e-probe", "--name", "e-l2", "-c", "1")
		if list, _ := s.json("probe", "list", "--limit", "1")["probes"].([]any); len(list) != 1 {
			t.Errorf("%d probes, want 1", len(list))
		}
		s.ok("probe", "rm", "e-l1", "e-l2")
	},
}

func validateOnlyEffect(flag string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		s.run("create", "tcp", "--name", "e-check", flag, "-o", "name").want(t, 0, "e-check\n",
			"checked only; nothing was created\n")
		s.run("get", "e-check").want(t, 1, "", "echoctl: *\n*\n")
	}
}

// updateEffect changes an endpoint that has everything, and wants the change and nothing else.
func updateEffect(path, want string, flags ...string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		s.ok("create", "tcp", "--name", "e-update", "-l", "a=1", "-l", "b=1", "--description", "x", "--one-shot",
			"--idle-timeout", "1m", "--max-connections", "5", "--stall-timeout", "2m", "--max-bytes", "1MiB",
			"--socket-buffer", "64KiB", "--allow", "127.0.0.0/8", "--deny", "127.0.0.66")
		before := s.json("get", "e-update")
		s.ok(append([]string{"update", "e-update"}, flags...)...)
		after := s.json("get", "e-update")
		s.ok("delete", "e-update")
		wantField(t, after, path, want)
		for _, other := range []string{"labels", "description", "listen", "tcp.oneShot", "tcp.idleTimeout",
			"tcp.maxConnections", "tcp.stallTimeout", "tcp.maxBytes", "tcp.socketBufferBytes", "sources.allow",
			"sources.deny"} {
			if was, is := fmt.Sprint(field(before, other)), fmt.Sprint(field(after, other)); other != path && was != is {
				t.Errorf("%s was %s and is %s", other, was, is)
			}
		}
	}
}

// sourcesEffect gives a list of sources in each of the ways that there are.
func sourcesEffect(list string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		s.remove("e-sources")
		flag := "--" + list
		m := s.json("create", "udp", "--name", "e-sources", flag, "192.0.2.0/24,10.0.0.1", flag, "2001:DB8::/32")
		wantField(t, m, "sources."+list, `["192.0.2.0/24","10.0.0.1/32","2001:db8::/32"]`)
		s.run("create", "tcp", flag, "10.0.0.0/8,nobody").want(t, 1, "",
			"echoctl: endpoint.sources."+list+"[1]: source \"nobody\" is not *\n")
	}
}

// sourceRateEffect limits a source to 7 of something, and sets that back.
func sourceRateEffect(path, flag, seven, none string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		s.newEndpoint("udp", "e-rate", "--source-datagrams", "5", "--source-bytes", "5", "--loop-guard=false")
		for value, want := range map[string]string{"7": seven, "default": none} {
			before := s.json("get", "e-rate")
			after := s.json("update", "e-rate", flag, value)
			wantField(t, after, path, want)
			for _, other := range []string{"udp.maxSourceDatagrams", "udp.maxSourceBytes", "udp.loopGuard"} {
				if was, is := fmt.Sprint(field(before, other)), fmt.Sprint(field(after, other)); other != path && was != is {
					t.Errorf("%s was %s and is %s", other, was, is)
				}
			}
		}
	}
}

func updateCheckEffect(flag string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-check")
		for _, change := range []string{"--description=new", "--label=new=1"} {
			s.run("update", "e-check", change, flag, "-o", "name").want(t, 0, "e-check\n", "checked only; nothing was changed\n")
		}
		wantField(t, s.json("get", "e-check"), "description", `""`)
		wantField(t, s.json("get", "e-check"), "labels", "{}")
	}
}

// selectorEffect has a verb work on two of three endpoints, and wants them in a state after it.
func selectorEffect(verb, state string, flags ...string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		for _, name := range []string{"e-sel-1", "e-sel-2", "e-sel-3"} {
			label := "e=sel"
			if name == "e-sel-3" {
				label = "e=other"
			}
			s.newEndpoint("tcp", name, "-l", label)
		}
		other := `"SERVING"`
		if verb == "start" {
			s.ok("stop", "e-sel-1", "e-sel-2", "e-sel-3")
			other = `"STOPPED"`
		}
		s.ok(append([]string{verb}, flags...)...)
		wantField(t, s.json("get", "e-sel-3"), "state", other)
		for _, name := range []string{"e-sel-1", "e-sel-2"} {
			if state == "" {
				s.run("get", name).want(t, 1, "", "echoctl: *\n*\n")
				continue
			}
			wantField(t, s.json("get", name), "state", `"`+state+`"`)
		}
	}
}

// recursiveEffect reads a folder in a folder.
func recursiveEffect(verb string, code int) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		s.remove("e-top", "e-below")
		folder := t.TempDir()
		write(t, filepath.Join(folder, "a.yaml"), "endpoints: [{name: e-top, protocol: TCP}]")
		write(t, filepath.Join(folder, "below", "b.json"), `{"endpoints": [{"name": "e-below", "protocol": "TCP"}]}`)
		if r := s.run(verb, "-f", folder, "-o", "name"); r.code != code || r.stdout != "e-top\n" {
			t.Errorf("%s of a folder: exit %d, %s", verb, r.code, r.stdout)
		}
		if r := s.run(verb, "-f", folder, "--recursive", "-o", "name"); r.code != code || !strings.HasSuffix(r.stdout, "e-below\n") {
			t.Errorf("%s of a folder with what is below: exit %d, %s", verb, r.code, r.stdout)
		}
	}
}

// pruneEffect has one endpoint of two be in no file any more.
func pruneEffect(verb string, code int, which ...string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-kept", "-l", "e=prune")
		s.newEndpoint("tcp", "e-other", "-l", "e=other")
		s.newEndpoint("tcp", "e-pruned", "-l", "e=prune")
		file := s.lab("{name: e-kept, protocol: TCP, labels: {e: prune}}")
		s.run(verb, "-f", file, "-o", "name").want(t, 0, "", "1 unchanged\n")
		args := append([]string{verb, "-f", file, "--prune", "-o", "name"}, which...)
		if r := s.run(args...); r.code != code || r.stdout != "e-pruned\n" {
			t.Errorf("exit %d: %s", r.code, r.stdout)
		}
	}
}

func applyCheckEffect(flag string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		s.run("apply", "-f", s.lab("{name: e-check, protocol: TCP}"), flag).want(t, 0, "+ e-check\n",
			"1 to create\nchecked only; nothing was changed\n")
		s.run("get", "e-check").want(t, 1, "", "echoctl: *\n*\n")
	}
}

func exportEffect(flags ...string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		s.newEndpoint("udp", "e-export", "-l", "e=export")
		s.newEndpoint("udp", "e-other", "-l", "e=other")
		s.run(append([]string{"export"}, flags...)...).want(t, 0, `endpoints:
 - name: e-export
 protocol: UDP
 listen: 127.0.0.1:*
 labels:
 e: export
`, "")
	}
}

// probeEffect follows a probe to its end and looks at what the daemon took it for.
func probeEffect(path, want string, flags ...string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		// The server closes after the first bytes, which --await-close needs.
		s.newEndpoint("tcp", "e-probe", "--one-shot")
		args := []string{"probe", "e-probe", "--name", "e-follow", "-o", "name", "-W", "60s"}
		if path != "count" && path != "duration" {
			args = append(args, "-c", "1")
		}
		if out := s.ok(append(args, flags...)...); out != "e-follow\n" {
			t.Errorf("probe writes %s", out)
		}
		wantField(t, s.json("probe", "get", "e-follow"), path, want)
		s.ok("probe", "rm", "e-follow")
	}
}

func probeStartEffect(path, want string, flags ...string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-probe")
		m := s.json(append([]string{"probe", "start", "e-probe", "--name", "e-start"}, flags...)...)
		wantField(t, m, path, want)
		s.ok("probe", "rm", "e-start")
	}
}

// sourcePortEffect starts a probe that comes from a port which was free a moment ago; whether it still is, is all the same.
func sourcePortEffect(t *testing.T, s *shell) {
	s.newEndpoint("tcp", "e-probe")
	_, port, err := net.SplitHostPort(closedPort(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"probe", "start"}, {"probe"}} {
		s.run(append(command, "e-probe", "--name", "e-port", "-c", "1", "-W", "60s", "--source-port", port)...)
		wantField(t, s.json("probe", "get", "e-port"), "source", `{"address":"","interface":"","networkNamespace":"","port":`+port+`}`)
		s.ok("probe", "rm", "e-port")
	}
}

// createPlaceEffect sees a network namespace or an interface in what would be created, and in the error of what cannot be.
func createPlaceEffect(field, flag string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		wantField(t, s.json("create", "tcp", "--validate-only", flag, "nowhere7"), field, `"nowhere7"`)
		s.run("create", "udp", flag, "nowhere7").want(t, 1, "", "echoctl: cannot bind 127.0.0.1:0 *nowhere7*\n")
	}
}

// updatePlaceEffect sees that they change while an endpoint is stopped, and are taken away again.
func updatePlaceEffect(field, flag string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-place")
		s.run("update", "e-place", flag, "nowhere7").want(t, 1, "", "echoctl: the endpoint must be stopped first: *\n*\n")
		s.ok("stop", "e-place")
		wantField(t, s.json("update", "e-place", flag, "nowhere7"), field, `"nowhere7"`)
		s.run("start", "e-place").want(t, 1, "", "echoctl: *cannot bind 127.0.0.1:0 *nowhere7*\n")
		wantField(t, s.json("update", "e-place", flag, ""), field, `""`)
		s.ok("start", "e-place")
	}
}

// sourceNamespaceEffect sees that rounds come from nowhere else, also not to an endpoint that is known to be at home.
func sourceNamespaceEffect(flag string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		s.run("probe", "tcp://127.0.0.1:1", "-c", "1", flag, "nowhere7").want(t, 1, "", "echoctl: cannot send from network namespace \"nowhere7\": *\n")
		s.newEndpoint("tcp", "e-probe")
		s.run("probe", "e-probe", flag, "nowhere7").want(t, 1, "", "echoctl: *is \"nowhere7\", where * is not endpoint \"e-probe\", which is in the daemon's own; *\n")
	}
}

func startSourceEffect(field, flag string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		m := s.json("probe", "start", "tcp://127.0.0.1:1", "--name", "e-place", "-c", "1", flag, "nowhere7")
		wantField(t, m, "source."+field, `"nowhere7"`)
		s.ok("probe", "rm", "e-place")
	}
}

// trafficEffect wants a connection shown with a flag, and none without.
func trafficEffect(flags ...string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-traffic")
		args := []string{"watch", "--kind", "endpoint", "--filter", `name = "e-traffic"`}
		without, with := s.start(args...), s.start(append(args, flags...)...)
		without.out.await(t, "SYNCED")
		with.out.await(t, "SYNCED")
		s.connectOnce("e-traffic")
		with.out.await(t, "CONNECTION_CLOSED")
		with.stop()
		s.ok("delete", "e-traffic")
		without.out.await(t, "DELETED")
		if out := without.stop().stdout; strings.Contains(out, "CONNECTION") {
			t.Errorf("without %v there is\n%s", flags, out)
		}
	}
}

// watchEffect watches with a flag until all that is there was told, and wants the endpoint there, or not, and nothing else.
func watchEffect(flag, value string, wanted bool) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		s.newEndpoint("tcp", "e-watch", "-l", "watched=yes")
		s.ok("monitor", "create", "e-watch", "--name", "e-watch-2", "--every", "24h")
		defer s.ok("monitor", "delete", "e-watch-2")
		args := []string{"watch", flag}
		if value != "" {
			args = append(args, value)
		}
		w := s.start(args...)
		w.out.await(t, "SYNCED")
		out := spaces.ReplaceAllString(w.stop().stdout, " ")
		if strings.Contains(out, "EXISTING endpoint/e-watch ") != wanted || strings.Contains(out, "monitor/e-watch-2") || strings.Contains(out, "daemon") {
			t.Errorf("%s %s shows\n%s", flag, value, out)
		}
	}
}

func dontFragmentEffect(t *testing.T, s *shell) {
	s.newEndpoint("udp", "e-probe")
	for _, command := range [][]string{{"probe", "start"}, {"probe"}} {
		s.run(append(command, "e-probe", "--name", "e-df", "-c", "1", "-W", "60s", "--dont-fragment")...)
		wantField(t, s.json("probe", "get", "e-df"), "ip", `{"dontFragment":true,"dscp":0,"ttl":0}`)
		s.ok("probe", "rm", "e-df")
	}
}

// sessionEffect holds a session with one endpoint until that is shown.
func sessionEffect(path, want string, flags ...string) func(*testing.T, *shell) {
	return func(t *testing.T, s *shell) {
		ctx, cancel := context.WithCancel(s.ctx)
		defer cancel()
		s.ctx, s.stdout = ctx, &interrupting{stop: cancel}
		m := s.json(append([]string{"session"}, flags...)...)
		wantField(t, m, path, want)
	}
}

func TestEveryFlagHasAnEffect(t *testing.T) {
	known := map[string]bool{}
	for path, c := range commands() {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name == "help" || c.HasParent() && c.InheritedFlags().Lookup(f.Name) != nil {
				return
			}
			known[path+" --"+f.Name] = true
			if effects[path+" --"+f.Name] == nil {
				t.Errorf("%s --%s: nobody sees its effect", path, f.Name)
			}
		})
	}
	for name, see := range effects {
		if !known[name] {
			t.Errorf("%s does not exist", name)
		}
		t.Run(name, func(t *testing.T) { see(t, at(t, shared.GRPC)) })
	}
}
