package render

import (
	"bytes"
	"errors"
	"flag"
	"io"
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
			StateReason: "cannot bind 192.0.2.1:7: address not available", RetryTime: ago(-45 * time.Second),
			Labels:      map[string]string{"evil": "a\u009b31mb\u202ec"},
			Description: "tab\there, escape \x1b[31m", NetworkNamespace: "lab\x1b[31m", Interface: "eth1",
			Tcp: &echov1.TcpOptions{
				OneShot: true, IdleTimeout: durationpb.New(0), StallTimeout: durationpb.New(0), MaxConnections: proto.Uint32(0),
				MaxBytes: 1 << 53, SocketBufferBytes: 262144,
			},
			Sources:  &echov1.Sources{Deny: []string{"evil\x1b[31m"}},
			Counters: &echov1.Counters{}, CreateTime: ago(-time.Second), UpdateTime: ago(0), Etag: "e-3",
		},
	}
}

// leased are an endpoint with a ttl, one of a session, and one that lives for ever.
func leased() []*echov1.Endpoint {
	all := endpoints()
	all[0].Ttl, all[0].ExpireTime = durationpb.New(10*time.Minute), ago(-598*time.Second)
	all[1].Session = "ci"
	return all
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

// fast is a report with all that there is to say.
func fast() *echov1.ProbeReport {
	r := &echov1.ProbeReport{
		Probe: "p-3", Target: &echov1.ProbeTarget{Address: "192.0.2.7:7", Protocol: echov1.Protocol_UDP},
		Address: "192.0.2.7:7", State: echov1.Probe_DONE, Elapsed: durationpb.New(30 * time.Second),
		Sent: 300000, Received: 299951, Lost: 48, Outstanding: 1, Duplicated: proto.Uint32(2), Reordered: proto.Uint32(7),
		WrongAddress: proto.Uint32(1), Ignored: proto.Uint32(3), DroppedHere: proto.Uint32(5),
		Rtt: &echov1.Distribution{
			Count: 299951, Min: us(31), Mean: us(80), P50: us(41), P90: us(48), P95: us(49), P99: us(9800),
			P999: us(10100), Max: us(10320), Stddev: us(900),
			Buckets: buckets(40, 120000, 50, 171000, 60, 20, 80, 1, 10000, 8000, 12000, 930),
		},
		ApplicationRtt: &echov1.Distribution{
			Count: 299951, Min: us(51), Mean: us(130), P50: us(91), P90: us(98), P95: us(99), P99: us(9900),
			P999: us(10200), Max: us(30320), Stddev: us(950),
		},
		Jitter: us(12), Ipdv: &echov1.Distribution{Count: 299950, P50: us(4), P99: us(9700)},
		Timestamps: &echov1.Timestamps{
			Source: echov1.Timestamps_KERNEL, Resolution: durationpb.New(1), Uncertainty: durationpb.New(1200),
			Missing: 3, Paused: 1, LongestPause: us(20000),
		},
		Schedule: &echov1.Schedule{
			Error: &echov1.Distribution{Count: 300000, P50: us(3), P99: us(60), Max: us(1500)}, Late: 4, Moved: 1,
		},
		Loss: &echov1.Loss{Ratio: 0.00016, UpperBound: 0.0002041, Bursts: 3, LongestBurst: 40},
		Outages: []*echov1.Outage{
			{Flow: 3, Start: ago(10 * time.Second), Length: us(1200345), Lost: 40},
			{Flow: 0, Start: ago(5 * time.Second), Length: us(10000), Lost: 1, Open: true},
		},
		MoreOutages: 2,
		Throughput:  &echov1.Throughput{SentBitsPerSecond: 51.2e6, ReceivedBitsPerSecond: 512e3},
		Coverage:    []*echov1.PathCoverage{{Paths: 2, Probability: 0.9999}, {Paths: 4, Probability: 0.99}, {Paths: 8, Probability: 0.0004}},
		Sizes: []*echov1.SizeReport{
			{PayloadSize: 64, Sent: 150000, Received: 149999, Rtt: &echov1.Distribution{Count: 149999, Min: us(31), P50: us(40), P99: us(9000), Max: us(10000)}},
			{PayloadSize: 1472, Sent: 150000, Lost: 150000},
		},
		Errors: []*echov1.ErrorCount{{Reason: "timeout", Count: 48, Message: "no reply within 1s"}},
	}
	for i := range uint32(24) {
		f := &echov1.FlowReport{
			Flow: i, Source: "192.0.2.1:4000" + string('0'+rune(i%10)), Sent: 12500, Received: 12500,
			Rtt: &echov1.Distribution{Count: 12500, P50: us(41), P99: us(60), Max: us(100)},
		}
		if i == 22 {
			f.Received, f.Lost, f.Outlier = 12452, 48, []string{"loss", "rtt"}
		}
		if i == 23 {
			f.Source, f.Received, f.Rtt = "", 0, nil
		}
		r.Flows = append(r.Flows, f)
	}
	return r
}

// small is what a few datagrams without numbers come to.
func small() *echov1.ProbeReport {
	rtt := &echov1.Distribution{
		Count: 5, Min: us(62), Mean: us(105), P50: us(85), P90: us(189), P95: us(189), P99: us(189), P999: us(189),
		Max: us(189), Stddev: us(44), Buckets: buckets(80, 1, 100, 2, 120, 1, 150, 0, 200, 1),
	}
	return &echov1.ProbeReport{
		Probe: "p-4", Target: &echov1.ProbeTarget{Endpoint: "dns-1", Protocol: echov1.Protocol_UDP},
		Address: "127.0.0.1:40002", State: echov1.Probe_DONE, Elapsed: durationpb.New(800 * time.Millisecond),
		PayloadSize: 8, Sent: 7, Received: 7, Rtt: rtt, ApplicationRtt: rtt,
		Timestamps: &echov1.Timestamps{Source: echov1.Timestamps_USER, Uncertainty: us(3400), Paused: 2, LongestPause: us(2500)},
		Schedule:   &echov1.Schedule{Error: &echov1.Distribution{Count: 5, P50: us(30), P99: us(90), Max: us(90)}},
		Loss:       &echov1.Loss{UpperBound: 0.3481661},
		Throughput: &echov1.Throughput{SentBitsPerSecond: 400, ReceivedBitsPerSecond: 400},
	}
}

// buckets are pairs of an upper end in microseconds and a count.
func buckets(pairs ...int64) (out []*echov1.Bucket) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, &echov1.Bucket{Upper: us(pairs[i]), Count: uint32(pairs[i+1])})
	}
	return out
}

func aggregates() []*echov1.Aggregate {
	return []*echov1.Aggregate{
		{
			Until: us(500000), Sent: 5000, Received: 4990, Lost: 2,
			Rtt: &echov1.Distribution{Count: 4990, Min: us(31), P50: us(41), P99: us(98), Max: us(1200)},
		},
		{Until: us(1012345), Sent: 3, Corrupted: 1, Late: 1, Duplicated: 4},
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
		{
			Name: "p-4", Uid: "pu-4", Target: small().Target, Count: proto.Uint32(0), Interval: durationpb.New(100 * time.Microsecond),
			Pacing: echov1.Probe_POISSON, Flows: proto.Uint32(4), Timeout: durationpb.New(time.Second),
			PayloadSweep: &echov1.PayloadSweep{From: 64, To: 1472, Step: 64},
			Source:       &echov1.ProbeSource{Address: "192.0.2.1", Port: 40000, NetworkNamespace: "lab-a", Interface: "eth1"}, Ip: &echov1.IpOptions{Dscp: 46, DontFragment: true, Ttl: 4},
			State: echov1.Probe_RUNNING, Report: small(), CreateTime: ago(time.Second),
		},
	}
}

// searches are probes that search for the path MTU, with each kind of end.
func searches() (list []*echov1.Probe) {
	for i, found := range []*echov1.PathMtu{
		{
			Payload: proto.Uint32(1372), Mtu: proto.Uint32(1400), Limit: echov1.PathMtu_REPORTED, TooBig: proto.Uint32(1373),
			ReportedMtu: proto.Uint32(1400), Router: "10.0.0.1",
		},
		{Payload: proto.Uint32(1372), Mtu: proto.Uint32(1400), Limit: echov1.PathMtu_REPORTED, TooBig: proto.Uint32(1373)},
		{Payload: proto.Uint32(1472), Mtu: proto.Uint32(1500), Limit: echov1.PathMtu_LOCAL, TooBig: proto.Uint32(1473)},
		{Payload: proto.Uint32(1272), Mtu: proto.Uint32(1300), Limit: echov1.PathMtu_SILENT, TooBig: proto.Uint32(1273)},
		{Payload: proto.Uint32(1000), Mtu: proto.Uint32(1028), Limit: echov1.PathMtu_MAX_PAYLOAD},
		{Payload: proto.Uint32(512), Mtu: proto.Uint32(540), Limit: echov1.PathMtu_TRUNCATED, TooBig: proto.Uint32(513)},
		{Payload: proto.Uint32(700), Mtu: proto.Uint32(728), TooBig: proto.Uint32(1472)},
		{Payload: proto.Uint32(16), Mtu: proto.Uint32(44)},
		{Limit: echov1.PathMtu_LOCAL, TooBig: proto.Uint32(16)},
		{},
	} {
		target := &echov1.ProbeTarget{Address: "10.2.0.1:7", Protocol: echov1.Protocol_UDP}
		list = append(list, &echov1.Probe{
			Name: "m-" + string(rune('0'+i)), Target: target, Count: proto.Uint32(3), Duration: durationpb.New(0),
			Interval: durationpb.New(200 * time.Millisecond), Timeout: durationpb.New(time.Second),
			PathMtu: &echov1.PathMtuSearch{}, State: echov1.Probe_DONE, CreateTime: ago(time.Minute), EndTime: ago(time.Second),
			Report: &echov1.ProbeReport{
				Probe: "m-" + string(rune('0'+i)), Target: target, Address: "10.2.0.1:7", State: echov1.Probe_DONE,
				Elapsed: durationpb.New(812 * time.Millisecond), Sent: 5, Received: 3, Lost: 2,
				Duplicated: proto.Uint32(0), Reordered: proto.Uint32(0),
				Errors:  []*echov1.ErrorCount{{Reason: "too_big", Count: 2, Message: "message too long, says 10.0.0.1"}},
				PathMtu: found,
			},
		})
	}
	list[1].PathMtu.MaxPayload, list[1].Duration, list[1].Interval = 9000, durationpb.New(time.Minute), durationpb.New(0)
	return list
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

func readiness() *echov1.Readiness {
	return &echov1.Readiness{State: echov1.Readiness_NOT_READY, Checks: []*echov1.ReadinessCheck{
		{Name: "restored", State: echov1.Readiness_READY},
		{Name: "state", State: echov1.Readiness_NOT_READY, Message: "cannot be written:\nno space left on device"},
		{Name: "endpoints", State: echov1.Readiness_DEGRADED, Message: "1 failed: web-2 (cannot bind :7: address already in use)"},
		{Name: "draining", State: echov1.Readiness_READY},
	}}
}

func changes() []*echov1.EndpointChange {
	return []*echov1.EndpointChange{
		{Name: "web-1", Action: echov1.EndpointChange_NONE},
		{Name: "web-2", Action: echov1.EndpointChange_CREATE},
		{Name: "web-3", Action: echov1.EndpointChange_UPDATE, Fields: []*echov1.FieldChange{
			{Path: "description", Before: `"was"`, After: "\"\x1b[31mis\""}, {Path: "labels.rack", Before: `"r1"`, After: `"r2"`},
			{Path: "tcp.idleTimeout", After: `"30s"`}, {Path: "tcp.oneShot", Before: "true"},
		}, OmittedFields: 3},
		{Name: "web-4", Action: echov1.EndpointChange_REPLACE, Fields: []*echov1.FieldChange{
			{Path: "labels.rack", Before: `"r1"`, After: `"r2"`}, {Path: "listen", Before: `":7"`, After: `":8"`, NeedsReplace: true},
		}},
		{Name: "web-5", Action: echov1.EndpointChange_DELETE},
		{Name: "web-6", Action: 99},
	}
}

func TestChangeSummary(t *testing.T) {
	for _, c := range []struct {
		list        []*echov1.EndpointChange
		would, done string
	}{
		{nil, "no endpoints", "no endpoints"},
		{changes()[:1], "1 unchanged", "1 unchanged"},
		{
			append(changes()[:5], changes()[1]), "2 to create, 1 to update, 1 to replace, 1 to delete, 1 unchanged",
			"2 created, 1 updated, 1 replaced, 1 deleted, 1 unchanged",
		},
	} {
		if would, done := ChangeSummary(c.list, false), ChangeSummary(c.list, true); would != c.would || done != c.done {
			t.Errorf("%q and %q, want %q and %q", would, done, c.would, c.done)
		}
	}
}

// TestGoldenLab writes a file that an apply reads, in each format that there is of it.
func TestGoldenLab(t *testing.T) {
	list := []*echov1.Endpoint{
		{
			Name: "web-1", Protocol: echov1.Protocol_TCP, Listen: ":7000", Labels: map[string]string{"no": "7", "tls": "yes", "v": "1.10", "when": "2026-11-22"},
			Description: "two\nlines: # here", Tcp: &echov1.TcpOptions{IdleTimeout: durationpb.New(40 * time.Millisecond), MaxConnections: proto.Uint32(0), MaxBytes: 1 << 53},
		},
		{Name: "dns-1", Protocol: echov1.Protocol_UDP, Udp: &echov1.UdpOptions{LoopGuard: proto.Bool(false)}, Sources: &echov1.Sources{Allow: []string{"::1/128"}}},
	}
	for file, c := range map[string]struct {
		format Format
		list   []*echov1.Endpoint
	}{
		"lab.yaml": {YAML, list}, "lab.json": {JSON, list}, "lab-empty.yaml": {Table, nil},
	} {
		compareWith(t, file, func(w io.Writer) error { return Lab(w, c.format, c.list) })
	}
	if err := Lab(failing{}, YAML, list); !errors.Is(err, errFull) {
		t.Errorf("error %v, want %v", err, errFull)
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
	"reports-in-full":     func(w Writer) error { return w.Reports([]*echov1.ProbeReport{fast(), small()}) },
	"followed-fast": func(w Writer) error {
		errs := []error{w.ProbeBegin(probes()[3]), w.Sample(&echov1.Sample{
			Seq: 1, Outcome: echov1.Sample_RECEIVED, Rtt: us(71), Flow: 3, PayloadSize: 128, Paused: true,
		})}
		for _, a := range aggregates() {
			errs = append(errs, w.Aggregate(a))
		}
		return errors.Join(errs...)
	},
	"searches-described": func(w Writer) error { return w.DescribeProbes(searches()) },
	"searched": func(w Writer) error {
		errs := []error{w.ProbeBegin(searches()[0])}
		for _, s := range []*echov1.Sample{
			{Seq: 1, Outcome: echov1.Sample_RECEIVED, Rtt: us(71), PayloadSize: 16},
			{Seq: 2, Outcome: echov1.Sample_LOST, Reason: "too_big", Message: "message too long, says 10.0.0.1", PayloadSize: 1472},
		} {
			errs = append(errs, w.Sample(s))
		}
		return errors.Join(append(errs, w.Reports([]*echov1.ProbeReport{searches()[0].Report}))...)
	},
	"endpoint-list-leased": func(w Writer) error { return w.EndpointList(leased()) },
	"endpoints-leased":     func(w Writer) error { return w.DescribeEndpoints(leased()[:2]) },
	"deleted":              func(w Writer) error { return w.Deleted([]string{"web-1", "web-2"}) },
	"info":                 func(w Writer) error { return w.Info(info(), nil) },
	"info-degraded": func(w Writer) error {
		i := info()
		i.Start = echov1.Info_CRASHED
		return w.Info(i, readiness())
	},
	"readiness": func(w Writer) error { return w.Readiness(readiness()) },
	"upgraded": func(w Writer) error {
		u := &echov1.UpgradeDaemonResponse{Pid: 4711, Version: "1.2.4", PreviousVersion: "1.2.3", Endpoints: 1200, Connections: 20000, Pause: us(8200)}
		return w.Upgraded(u, false)
	},
	"upgrade-tried": func(w Writer) error {
		return w.Upgraded(&echov1.UpgradeDaemonResponse{Pid: 4711, Version: "1.2.4", PreviousVersion: "1.2.3", Endpoints: 3}, true)
	},
	"changes":         func(w Writer) error { return w.Changes(changes()) },
	"changes-of-none": func(w Writer) error { return w.Changes(nil) },
	"purged": func(w Writer) error {
		return w.Purged(&echov1.PurgeEndpointsResponse{Count: 2, Names: []string{"web-1", "web-2"}})
	},
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

// terminalScenes are those that are written for a terminal, too.
var terminalScenes = []string{"endpoint-list", "changes", "endpoints-described", "probe-list", "followed", "reports-in-full"}

func TestGoldenOnATerminal(t *testing.T) {
	terminal := Options{Color: true, Width: 76, Histogram: true, Unicode: true}
	for _, scene := range terminalScenes {
		for _, format := range []Format{Table, Wide} {
			t.Run(scene+"/"+string(format), func(t *testing.T) {
				o := terminal
				o.Format = format
				compare(t, scene+".terminal"+extension(format), o, scenes[scene])
			})
		}
	}
}

// TestGoldenHistogramElsewhere draws where there are no block characters and no width.
func TestGoldenHistogramElsewhere(t *testing.T) {
	compare(t, "reports-in-full.plain.table.txt", Options{Histogram: true}, scenes["reports-in-full"])
}

func compare(t *testing.T, file string, o Options, write func(Writer) error) {
	t.Helper()
	o.Now = func() time.Time { return now }
	compareWith(t, file, func(w io.Writer) error { return write(New(w, o)) })
}

func compareWith(t *testing.T, file string, write func(io.Writer) error) {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
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
			silent := (scene == "endpoint-list-empty" || scene == "changes-of-none") && format != JSON && format != YAML ||
				(scene == "deleted" || scene == "purged") && (format == Table || format == Wide) ||
				scene == "followed-fast" && format != Table && format != Wide
			if err := write(New(failing{}, Options{Format: format})); !silent && !errors.Is(err, errFull) {
				t.Errorf("%s as %s: error %v, want %v", scene, format, err, errFull)
			}
		}
	}
}
