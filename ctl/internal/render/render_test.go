package render

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

var update = flag.Bool("update", false, "write the golden files anew")

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }

func us(n int64) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Microsecond) }

func endpoints() []*echov1.Endpoint {
	return []*echov1.Endpoint{
		{
			Name: "web-1", Uid: "u-1", Protocol: echov1.Protocol_TCP, Listen: "127.0.0.1:0", Address: "127.0.0.1:40001",
			Host: "127.0.0.1", Port: 40001, State: echov1.Endpoint_SERVING,
			Labels:      map[string]string{"rack": "r1", "answer": "yes", "app/name": "web"},
			Description: "the first one",
			Tcp: &echov1.TcpOptions{
				IdleTimeout: durationpb.New(10 * time.Minute), StallTimeout: durationpb.New(5 * time.Minute),
				MaxConnections: proto.Uint32(1024),
			},
			Counters: &echov1.Counters{
				ConnectionsOpen: 2, ConnectionsTotal: 17, BytesIn: 1 << 53, BytesOut: 4096,
				Drops:            map[string]uint64{"rest": 1, "max_connections": 3},
				Errors:           map[string]uint64{"reset": 0},
				LastActivityTime: ago(3 * time.Second),
			},
			CreateTime: ago(5 * time.Minute), UpdateTime: ago(30 * time.Second), Etag: "e-1",
		},
		{
			Name: "syslog", Uid: "u-2", Protocol: echov1.Protocol_UDP, Listen: ":7", Address: "[::]:7", Host: "::", Port: 7,
			State:   echov1.Endpoint_STOPPED,
			Udp:     &echov1.UdpOptions{LoopGuard: proto.Bool(true), MaxSourceDatagrams: 100, MaxSourceBytes: 1 << 53},
			Sources: &echov1.Sources{Allow: []string{"192.0.2.0/24", "2001:db8::/32"}, Deny: []string{"192.0.2.7/32"}},
			Counters: &echov1.Counters{
				DatagramsIn: 5, DatagramsOut: 4, BytesIn: 320, BytesOut: 256,
				Drops: map[string]uint64{"source_rate": 2, "source_denied": 1},
			},
			CreateTime: ago(49 * time.Hour), UpdateTime: ago(3 * time.Hour), Etag: "e-2",
		},
		{
			Name: "bad", Uid: "u-3", Protocol: echov1.Protocol_TCP, Listen: "192.0.2.1:7", State: echov1.Endpoint_FAILED,
			StateReason: "cannot bind 192.0.2.1:7: address not available",
			Labels:      map[string]string{"evil": "a\u009b31mb\u202ec"},
			Description: "tab\there, escape \x1b[31m",
			Tcp: &echov1.TcpOptions{
				OneShot: true, IdleTimeout: durationpb.New(0), StallTimeout: durationpb.New(0), MaxConnections: proto.Uint32(0),
				MaxBytes: 1 << 53, SocketBufferBytes: 262144,
			},
			Sources:  &echov1.Sources{Deny: []string{"evil\x1b[31m"}},
			Counters: &echov1.Counters{}, CreateTime: ago(-time.Second), UpdateTime: ago(0), Etag: "e-3",
		},
	}
}

func report() *echov1.ProbeReport {
	return &echov1.ProbeReport{
		Probe: "p-1", Target: &echov1.ProbeTarget{Endpoint: "web-1", Protocol: echov1.Protocol_TCP},
		Address: "127.0.0.1:40001", State: echov1.Probe_DONE, Elapsed: durationpb.New(812 * time.Millisecond),
		PayloadSize: 64, Sent: 5, Received: 3, Lost: 1, Late: 1, Duplicated: proto.Uint32(0),
		Rtt: &echov1.Distribution{
			Count: 3, Min: us(61), Mean: us(80), P50: us(71), P90: us(99), P99: us(108),
			P999: us(109), Max: us(110), Stddev: us(20),
		},
		Connect: &echov1.Distribution{
			Count: 1, Min: us(120), Mean: us(120), P50: us(120), P90: us(120), P99: us(120),
			P999: us(120), Max: us(120), Stddev: us(0),
		},
		Errors: []*echov1.ErrorCount{{Reason: "timeout", Count: 1, Message: "no reply within 1s"}},
	}
}

func refused() *echov1.ProbeReport {
	return &echov1.ProbeReport{
		Probe: "p-2", Target: &echov1.ProbeTarget{Address: "127.0.0.1:9", Protocol: echov1.Protocol_TCP},
		Address: "127.0.0.1:9", State: echov1.Probe_DONE, Elapsed: durationpb.New(800 * time.Millisecond),
		PayloadSize: 64, Sent: 5, Lost: 5,
		Errors: []*echov1.ErrorCount{{Reason: "refused", Count: 5, Message: "connect: connection refused"}},
	}
}

func probes() []*echov1.Probe {
	return []*echov1.Probe{
		{
			Name: "p-1", Uid: "pu-1", Target: report().Target, Count: proto.Uint32(5),
			Interval: durationpb.New(200 * time.Millisecond), Timeout: durationpb.New(time.Second),
			PayloadSize: proto.Uint32(64), Tcp: &echov1.TcpProbeOptions{NewConnection: true, AwaitClose: true},
			State: echov1.Probe_DONE, Report: report(), CreateTime: ago(time.Minute), EndTime: ago(59 * time.Second),
		},
		{
			Name: "p-2", Uid: "pu-2", Target: refused().Target, Count: proto.Uint32(0),
			Duration: durationpb.New(90 * time.Second), Interval: durationpb.New(0), Timeout: durationpb.New(time.Second),
			PayloadSize: proto.Uint32(64), State: echov1.Probe_RUNNING, Report: refused(), CreateTime: ago(time.Second),
		},
		{Name: "p-3", Target: &echov1.ProbeTarget{Endpoint: "gone"}, State: echov1.Probe_STOPPED},
	}
}

func info() *echov1.Info {
	return &echov1.Info{
		Version: "1.2.3", Pid: 77, StartTime: ago(26 * time.Hour), Platform: "go1.26 linux/amd64", Endpoints: 3,
		Listeners: []*echov1.Listener{
			{Protocol: "grpc", Address: "127.0.0.1:7007"}, {Protocol: "grpc", Address: "unix:/run/echod/echod.sock"},
			{Protocol: "http", Address: "127.0.0.1:7070"},
		},
		Warnings: []string{"memory only: endpoints end with the process"},
	}
}

func samples() []*echov1.Sample {
	return []*echov1.Sample{
		{Seq: 1, Outcome: echov1.Sample_RECEIVED, Rtt: us(71), Connect: us(120)},
		{Seq: 2, Outcome: echov1.Sample_RECEIVED, Rtt: us(1234567)},
		{Seq: 3, Outcome: echov1.Sample_LOST, Reason: "timeout"},
		{Seq: 4, Outcome: echov1.Sample_LOST, Reason: "refused", Message: "connect: \x1b]connection refused"},
		{Seq: 3, Outcome: echov1.Sample_LATE, Rtt: us(1200000)},
		{Seq: 5, Outcome: echov1.Sample_CORRUPTED, Reason: "corrupted", Message: "byte 3 is 0x41 and not 0x42"},
		{Seq: 2, Outcome: echov1.Sample_DUPLICATED},
	}
}

// scenes are what is written, by the name of the golden file.
var scenes = map[string]func(Writer) error{
	"endpoint-list":       func(w Writer) error { return w.EndpointList(endpoints()) },
	"endpoint-list-empty": func(w Writer) error { return w.EndpointList(nil) },
	"endpoints":           func(w Writer) error { return w.Endpoints(endpoints()[:2]) },
	"endpoints-described": func(w Writer) error { return w.DescribeEndpoints(endpoints()) },
	"probe-list":          func(w Writer) error { return w.ProbeList(probes()) },
	"probes":              func(w Writer) error { return w.Probes(probes()[:1]) },
	"probes-described":    func(w Writer) error { return w.DescribeProbes(probes()) },
	"reports":             func(w Writer) error { return w.Reports([]*echov1.ProbeReport{report(), refused()}) },
	"deleted":             func(w Writer) error { return w.Deleted([]string{"web-1", "web-2"}) },
	"info":                func(w Writer) error { return w.Info(info()) },
	"version": func(w Writer) error {
		return w.Version(Version{
			Client: ClientVersion{Version: "1.2.3", Platform: "go1.26 linux/amd64"},
			Daemon: &DaemonVersion{Version: "1.2.2", Platform: "go1.25 linux/arm64", Address: "127.0.0.1:7007"},
		})
	},
	"version-alone": func(w Writer) error {
		return w.Version(Version{Client: ClientVersion{Version: "dev", Platform: "go1.26 linux/amd64"}})
	},
	"followed": func(w Writer) error {
		errs := []error{w.ProbeBegin(probes()[0])}
		for _, s := range samples() {
			errs = append(errs, w.Sample(s))
		}
		errs = append(errs, w.Reports([]*echov1.ProbeReport{report()}))
		return errors.Join(errs...)
	},
}

// extension makes the golden JSON and YAML files readable for editors.
func extension(f Format) string {
	if f == JSON || f == YAML {
		return "." + string(f)
	}
	return "." + string(f) + ".txt"
}

func TestGolden(t *testing.T) {
	for scene, write := range scenes {
		for _, format := range Formats {
			t.Run(scene+"/"+string(format), func(t *testing.T) {
				compare(t, scene+extension(format), Options{Format: format}, write)
			})
		}
	}
}

func TestGoldenOnATerminal(t *testing.T) {
	terminal := Options{Color: true, Width: 76}
	for _, scene := range []string{"endpoint-list", "endpoints-described", "probe-list", "followed"} {
		for _, format := range []Format{Table, Wide} {
			t.Run(scene+"/"+string(format), func(t *testing.T) {
				o := terminal
				o.Format = format
				compare(t, scene+".terminal"+extension(format), o, scenes[scene])
			})
		}
	}
}

func compare(t *testing.T, file string, o Options, write func(Writer) error) {
	t.Helper()
	o.Now = func() time.Time { return now }
	var b bytes.Buffer
	if err := write(New(&b, o)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// failing is a writer whose disk is full.
type failing struct{}

var errFull = errors.New("disk full")

func (failing) Write([]byte) (int, error) { return 0, errFull }

func TestWriteErrorsAreTold(t *testing.T) {
	for scene, write := range scenes {
		for _, format := range Formats {
			silent := scene == "endpoint-list-empty" && format != JSON && format != YAML ||
				scene == "deleted" && (format == Table || format == Wide)
			if err := write(New(failing{}, Options{Format: format})); !silent && !errors.Is(err, errFull) {
				t.Errorf("%s as %s: error %v, want %v", scene, format, err, errFull)
			}
		}
	}
}
