//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// One short round of a case of each kind. irtt comes from the network, and may be missing.
func TestProbesRun(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skipf("the client to compare with is in C: %v", err)
	}
	dir := temporary(t)
	names := "probe-udp-64B,probe-tcp-1200B,probe-tcp-busy"
	var out, talk bytes.Buffer
	args := []string{"-case", names, "-rounds", "1", "-trial", "20ms", "-warm", "5ms"}
	if err := run(testContext(t), args, &out, &talk); err != nil {
		t.Fatalf("%v\n%s%s", err, talk.String(), out.String())
	}
	for name := range strings.SplitSeq(names, ",") {
		_, after, _ := strings.Cut(out.String(), "\n"+name+":")
		table, _, _ := strings.Cut(after, "\n\n")
		for _, want := range []string{"C, the kernel's time ", "C, the process's time ", "echod, network ", "echod, application ",
			"Go's package net ", "within max(5 µs, 10 %)"} {
			if !strings.Contains(table, want) {
				t.Errorf("%s: no %q in:\n%s", name, want, out.String())
			}
		}
		for _, program := range []string{stampClient, ours, "go-net"} {
			if strings.Contains(table, program+" failed") {
				t.Errorf("%s: %s failed:\n%s", name, program, out.String())
			}
		}
	}
	wantEmpty(t, dir)
}

// What runs at the ends of a cable has nothing but the cable.
func TestCable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making a network namespace needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skipf("this needs iproute2: %v", err)
	}
	ctx := testContext(t)
	c, err := newCable(ctx)
	if err != nil {
		t.Skipf("no cable between network namespaces can be made here: %v", err)
	}
	defer c.close()
	at := place{namespace: c.client, pinned: true}
	devices, err := outputAt(ctx, at, []string{"cat", "/proc/self/net/dev"}, startWithin)
	if err != nil || !strings.Contains(devices, "cable") {
		t.Errorf("got %q, %v", devices, err)
	}
	status, err := outputAt(ctx, at, []string{"grep", "Cpus_allowed_list", "/proc/self/status"}, startWithin)
	if err != nil || strings.Join(strings.Fields(status), " ") != "Cpus_allowed_list: 0" {
		t.Errorf("got %q, %v", status, err)
	}
	here, err := os.ReadFile("/proc/thread-self/net/dev")
	if err != nil || strings.Contains(string(here), "cable") {
		t.Errorf("we are in the namespace, too: %q, %v", here, err)
	}
}

func TestOutputAtTellsWhy(t *testing.T) {
	_, err := outputAt(testContext(t), place{}, []string{"sh", "-c", "echo half; echo it is broken >&2; exit 3"}, startWithin)
	if err == nil || !strings.Contains(err.Error(), "sh: exit status 3: it is broken") {
		t.Errorf("got %v", err)
	}
}

func TestParseClient(t *testing.T) {
	for _, test := range []struct {
		name, text string
		skip       int
		want       roundTrips
		wrong      string
	}{
		{name: "all is known", text: "0 2000 3000 100\n1 1000 5000 -300\nsent 2\n",
			want: roundTrips{network: []float64{1e-6, 2e-6}, application: []float64{3e-6, 5e-6}, timer: []float64{1e-7, 3e-7}, sent: 2,
				numbered: map[int]float64{0: 2e-6, 1: 1e-6}}},
		{name: "the kernel says nothing", text: "0 - 3000 100\nsent 1\n",
			want: roundTrips{application: []float64{3e-6}, timer: []float64{1e-7}, sent: 1, numbered: map[int]float64{}}},
		{name: "warm-up and losses in it and after", text: "1 - 9000 900\n2 1000 3000 100\nsent 5", skip: 2,
			want: roundTrips{network: []float64{1e-6}, application: []float64{3e-6}, timer: []float64{1e-7}, sent: 3,
				numbered: map[int]float64{2: 1e-6}}},
		{name: "not in order", text: "1 2000 3000 0\n0 - 9000 0\nsent 2", skip: 1,
			want: roundTrips{network: []float64{2e-6}, application: []float64{3e-6}, timer: []float64{0}, sent: 1,
				numbered: map[int]float64{1: 2e-6}}},
		{name: "nothing came back", text: "sent 3\n", skip: 1, wrong: "nothing came back"},
		{name: "all of it was warm-up", text: "0 - 1 1\nsent 1\n", skip: 5, wrong: "nothing came back"},
		{name: "it broke off", text: "0 1 2 3\n1 4 5", wrong: `ended with "1 4 5"`},
		{name: "it said nothing", wrong: `ended with ""`},
		{name: "too few words", text: "1 2 3\nsent 1", wrong: `said "1 2 3"`},
		{name: "no number", text: "0 1 x 2\nsent 1", wrong: `said "0 1 x 2"`},
		{name: "no number of its own", text: "x 1 2 3\nsent 1", wrong: `said "x 1 2 3"`},
		{name: "no count", text: "0 1 2 3\nsent all", wrong: "all"},
	} {
		got, err := parseClient(test.text, test.skip)
		checkParsed(t, test.name, got, err, test.want, test.wrong)
	}
}

func checkParsed(t *testing.T, name string, got roundTrips, err error, want roundTrips, wrong string) {
	t.Helper()
	if wrong != "" {
		if err == nil || !strings.Contains(err.Error(), wrong) {
			t.Errorf("%s: error %v, want %q", name, err, wrong)
		}
		return
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(roundTrips{}, twice{}), cmpopts.EquateApprox(1e-9, 0)); err != nil || diff != "" {
		t.Errorf("%s: %v %s", name, err, diff)
	}
}

func TestParseIrtt(t *testing.T) {
	trip := func(left, rtt int, lost string) string {
		return fmt.Sprintf(`{"seqno": 7, "lost": %q, "delay": {"rtt": %d}, "timestamps": {"client":
			{"receive": {"wall": 1, "monotonic": 2}, "send": {"wall": 3, "monotonic": %d}}, "server": {"send": {}}}}`, lost, rtt, left)
	}
	all := func(trips ...string) string {
		return `{"version": {}, "stats": {"start_time": {"wall": 9, "monotonic": 1000000}}, "round_trips": [` + strings.Join(trips, ",") + `]}`
	}
	for _, test := range []struct {
		name, text string
		skip       int
		want       roundTrips
		wrong      string
	}{
		{name: "late, early and in time", text: all(trip(1000000, 50000, "false"), trip(2250000, 40000, "false"), trip(3900000, 60000, "false")),
			want: roundTrips{application: []float64{40e-6, 50e-6, 60e-6}, timer: []float64{0, 100e-6, 250e-6}, sent: 3}},
		{name: "warm-up and losses", skip: 1,
			text: all(trip(1000000, 50000, "false"), trip(2000000, 40000, "false"), trip(3000000, 0, "true"), trip(4000000, 0, "true_up")),
			want: roundTrips{application: []float64{40e-6}, timer: []float64{0}, sent: 3}},
		{name: "nothing came back", text: all(trip(1000000, 0, "true")), wrong: "nothing came back"},
		{name: "no JSON", text: "[Connecting] ...", wrong: "irtt's JSON"},
	} {
		got, err := parseIrtt(test.text, test.skip, probeInterval)
		checkParsed(t, test.name, got, err, test.want, test.wrong)
	}
}

// times of a turn whose p50 and p99 are the same, in µs.
func turnOf(micros float64) []float64 { return []float64{micros / 1e6, micros / 1e6} }

func TestWithin(t *testing.T) {
	for _, test := range []struct {
		own, reference []float64 // of each round; 0: it failed
		want           string
	}{
		{[]float64{21, 22, 23}, []float64{20, 20, 20}, "yes"}, // 5 µs are the more
		{[]float64{24, 27, 31}, []float64{20, 20, 20}, "unclear"},
		{[]float64{31, 32, 33}, []float64{20, 20, 20}, "no"},
		{[]float64{10, 12, 13}, []float64{20, 20, 20}, "no"},
		{[]float64{108, 109, 107}, []float64{100, 100, 100}, "yes"}, // 10 % are
		{[]float64{208, 0, 102}, []float64{200, 100, 100}, "yes"},   // paired by round
		{[]float64{0, 0, 102}, []float64{200, 100, 0}, "none"},
	} {
		v, reference := view{}, view{}
		for i := range test.own {
			own, theirs := turnOf(test.own[i]), turnOf(test.reference[i])
			if test.own[i] == 0 {
				own = nil
			}
			if test.reference[i] == 0 {
				theirs = nil
			}
			v.turns, reference.turns = append(v.turns, own), append(reference.turns, theirs)
		}
		got := "none"
		if j, ok := v.judge(reference, 99); ok {
			got = j.within()
		}
		if got != test.want {
			t.Errorf("%v of %v: got %s, want %s", test.own, test.reference, got, test.want)
		}
	}
}

func TestProbeTable(t *testing.T) {
	turn := func(network, application float64) roundTrips {
		r := roundTrips{application: turnOf(application), timer: turnOf(1), sent: 50}
		if network != 0 {
			r.network = turnOf(network)
		}
		return r
	}
	all := []*probed{
		{probeClient: probeClients[0], asked: 50, turns: []roundTrips{turn(20, 40), turn(20, 40), turn(20, 40)}},
		{probeClient: probeClients[1], asked: 50, turns: []roundTrips{turn(21, 50), turn(22, 50), turn(23, 50)}},
		{probeClient: probeClients[2], asked: 100, turns: []roundTrips{turn(0, 60), {}, turn(0, 60)}, wrong: errors.New("it fell")},
		{probeClient: probeClients[3], missing: errors.New("not installed")},
	}
	table := probeTable(probeCases[0], all)
	for _, row := range table.Rows {
		if len(row) != len(table.Header) {
			t.Errorf("%d cells for %d titles: %q", len(row), len(table.Header), row)
		}
	}
	want := [][]string{
		{"C, the kernel's time", "100 %", "20 µs", "-", "-", "20 µs", "-", "-", "1 µs", "1 µs"},
		{"C, the process's time", "100 %", "40 µs", "+20.0 µs [+20.0, +20.0]", "no", "40 µs", "+20.0 µs [+20.0, +20.0]", "no", "1 µs", "1 µs"},
		{"echod, network", "100 %", "22 µs", "+2.0 µs [+1.0, +3.0]", "yes", "22 µs", "+2.0 µs [+1.0, +3.0]", "yes", "1 µs", "1 µs"},
		{"echod, application", "100 %", "50 µs", "+30.0 µs [+30.0, +30.0]", "no", "50 µs", "+30.0 µs [+30.0, +30.0]", "no", "1 µs", "1 µs"},
		{"Go's package net", "33 %", "60 µs", "+40.0 µs [+40.0, +40.0]", "no", "60 µs", "+40.0 µs [+40.0, +40.0]", "no", "1 µs", "1 µs"},
	}
	if diff := cmp.Diff(want, table.Rows); diff != "" {
		t.Error(diff)
	}
	notes := strings.Join(table.Notes, "\n")
	for _, want := range []string{
		"echod, network: within max(5 µs, 10 %) of C's kernel time: p50 yes (+2.0 µs [+1.0, +3.0], bound 5 µs); p99 yes",
		"3 rounds", "go-net failed: it fell", "irtt was not measured: not installed",
	} {
		if !strings.Contains(notes, want) {
			t.Errorf("no %q in:\n%s", want, notes)
		}
	}
}

// Without the reference nothing is judged, and a failure is no 0.
func TestProbeTableWithoutC(t *testing.T) {
	all := []*probed{
		{probeClient: probeClients[0], asked: 50, turns: []roundTrips{{}}, wrong: errors.New("it fell")},
		{probeClient: probeClients[1], asked: 50, turns: []roundTrips{{network: turnOf(9), application: turnOf(9), timer: turnOf(1), sent: 50}}},
	}
	table := probeTable(probeCases[0], all)
	if diff := cmp.Diff([]string{"C, the kernel's time", "0 %", "-", "-", "-", "-", "-", "-", "-", "-"}, table.Rows[0]); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(table.Notes[0], "p50 unknown; p99 unknown") {
		t.Errorf("got %q", table.Notes)
	}
	all[0] = &probed{probeClient: probeClients[0], missing: errors.New("no compiler")}
	table = probeTable(probeCases[0], all)
	if diff := cmp.Diff([]string{"echod, network", "100 %", "9 µs", "-", "-", "9 µs", "-", "-", "1 µs", "1 µs"}, table.Rows[0]); diff != "" {
		t.Error(diff)
	}
}
