package render

import (
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

func monitorRuns() []*echov1.MonitorRun {
	missed := report()
	missed.Met = proto.Bool(false)
	missed.Verdicts = []*echov1.Verdict{
		{Expect: "loss == 0", Seen: []*echov1.SeenValue{{Name: "loss", Value: "20%"}}},
		{Expect: "p99 < 2ms", Met: true, Seen: []*echov1.SeenValue{{Name: "p99", Value: "0.108ms"}}},
		{Expect: "jitter < 1ms && evil \x1b[31m", Seen: []*echov1.SeenValue{{Name: "jitter"}}, Message: "jitter is not known"},
	}
	return []*echov1.MonitorRun{
		{StartTime: ago(10 * time.Second), EndTime: ago(9 * time.Second), Report: missed},
		{StartTime: ago(40 * time.Second), EndTime: ago(39 * time.Second), Met: true, Report: report()},
		{StartTime: ago(70 * time.Second), EndTime: ago(69 * time.Second), Report: refused()},
		{StartTime: ago(100 * time.Second), EndTime: ago(100 * time.Second), Failure: "no such endpoint: \"web-1\" \x1b[2J"},
		{StartTime: ago(130 * time.Second), EndTime: ago(129 * time.Second), Report: &echov1.ProbeReport{Sent: 1, Late: 1}},
	}
}

func monitors() []*echov1.Monitor {
	return []*echov1.Monitor{
		{
			Name: "web-1", Uid: "mu-1", Interval: durationpb.New(30 * time.Second), HistoryLimit: proto.Uint32(10),
			Probe: &echov1.Probe{
				Target: &echov1.ProbeTarget{Endpoint: "web-1"}, Count: proto.Uint32(5), Timeout: durationpb.New(500 * time.Millisecond),
				Rate: proto.Float64(12.5), Pacing: echov1.Probe_POISSON, Tcp: &echov1.TcpProbeOptions{NewConnection: true},
				Expect: []string{"loss == 0", "p99 < 2ms"},
			},
			State: echov1.Monitor_WAITING, Verdict: echov1.Monitor_NOT_MET, Since: ago(9 * time.Second),
			NextRunTime: ago(-20 * time.Second), LastRun: monitorRuns()[0], History: monitorRuns(),
			Labels: map[string]string{"rack": "r1", "app/name": "web"}, Description: "the first one",
			Counters:   &echov1.MonitorCounters{Runs: 1 << 53, Failures: 3, Skipped: 2, Late: 1},
			CreateTime: ago(49 * time.Hour), UpdateTime: ago(3 * time.Hour), Etag: "me-1",
		},
		{
			Name: "far", Uid: "mu-2", Interval: durationpb.New(time.Hour), HistoryLimit: proto.Uint32(1), Paused: true,
			Probe: &echov1.Probe{Target: &echov1.ProbeTarget{Address: "192.0.2.7:7", Protocol: echov1.Protocol_UDP}},
			State: echov1.Monitor_PAUSED, Verdict: echov1.Monitor_UNKNOWN, Counters: &echov1.MonitorCounters{},
			CreateTime: ago(time.Minute), UpdateTime: ago(time.Minute), Etag: "me-2",
		},
		{
			Name: "fine", Interval: durationpb.New(time.Second), Probe: &echov1.Probe{Target: &echov1.ProbeTarget{Endpoint: "web-2"}},
			State: echov1.Monitor_RUNNING, Verdict: echov1.Monitor_MET, Since: ago(26 * time.Hour), NextRunTime: ago(time.Second),
			LastRun: monitorRuns()[1],
		},
		{Name: "of-a-newer-daemon", State: 99, Verdict: 99},
	}
}

func init() {
	scenes["monitor-list"] = func(w Writer) error { return w.MonitorList(monitors()) }
	scenes["monitors"] = func(w Writer) error { return w.Monitors(monitors()[1:2]) }
	scenes["monitors-described"] = func(w Writer) error { return w.DescribeMonitors(monitors()) }
	scenes["monitor-runs"] = func(w Writer) error { return w.MonitorRuns(monitorRuns()) }
	terminalScenes = append(terminalScenes, "monitor-list", "monitor-runs", "monitors-described")
}
