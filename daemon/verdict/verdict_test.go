package verdict_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/echod/echod/daemon/probe"
	"github.com/echod/echod/daemon/verdict"
)

func some[T any](v T) *T { return &v }

func times(unit time.Duration) *probe.Distribution {
	return &probe.Distribution{
		Count: 97, Min: unit, Mean: 2 * unit, P50: 3 * unit, P90: 4 * unit, P95: 5 * unit, P99: 6 * unit, P999: 7 * unit,
		Max: 8 * unit, StdDev: 9 * unit,
	}
}

// full is a report in which everything is known, and each figure is another.
func full() probe.Report {
	return probe.Report{
		Elapsed: 20 * time.Second, Sent: 1000, Received: 980, Lost: 10, Corrupted: 3, Late: 2, Outstanding: 5,
		Duplicated: some(uint32(4)), Reordered: some(uint32(6)), WrongAddress: some(uint32(7)), Ignored: some(uint32(8)), DroppedHere: some(uint32(17)),
		PathMTU:    &probe.PathMTU{PayloadBytes: 1472, MTU: 1500, Limit: probe.LimitLocal, TooBig: 1473},
		Directions: &probe.Directions{LostThere: some(uint32(6)), LostBack: some(uint32(4))},
		RTT:        times(time.Millisecond), ApplicationRTT: times(2 * time.Millisecond), Connect: times(3 * time.Millisecond),
		IPDV: times(10 * time.Microsecond), Jitter: some(11 * time.Microsecond),
		Timestamps:  probe.Timestamps{Clock: probe.KernelClock, Uncertainty: time.Microsecond, Missing: 12, Paused: 13, LongestPause: 14 * time.Millisecond},
		Schedule:    &probe.Schedule{Error: times(time.Microsecond), Late: 15, Moved: 16, Omitted: 18},
		Loss:        &probe.Loss{Ratio: 0.01, UpperBound: 0.02, Bursts: 9, LongestBurst: 2},
		Outages:     []probe.Outage{{Length: time.Second}, {Length: 3 * time.Second}, {Length: 2 * time.Second}},
		MoreOutages: 17,
		Throughput:  &probe.Throughput{Sent: 51200, Received: 50176.4},
		Flows:       []probe.FlowReport{{LossOutlier: true}, {RTTOutlier: true}, {LossOutlier: true, RTTOutlier: true}, {}},
		Errors:      []probe.ErrorCount{{Reason: probe.ReasonTimeout, Count: 10}, {Reason: probe.ReasonCorrupted, Count: 3}},
	}
}

// nothing is the report of a probe of which no round was answered, or has ended.
// nothing is the report of a probe none of whose rounds has ended.
func nothing() probe.Report { return probe.Report{Sent: 5, Outstanding: 5} }

// fruitless is the report of a probe one of whose rounds has ended, without a time.
func fruitless() probe.Report { return probe.Report{Sent: 5, Outstanding: 4, Late: 1} }

func judge(t *testing.T, expect string, report probe.Report) verdict.Verdict {
	t.Helper()
	e, err := verdict.Compile([]string{expect})
	if err != nil {
		t.Fatalf("%s: %v", expect, err)
	}
	return e.Judge(report)[0]
}

func TestMetOrNot(t *testing.T) {
	for _, c := range []struct {
		expect string
		met    bool
	}{
		{"loss <= 0.1%", false}, {"loss <= 1%", true}, {"loss <= 1.0 %", true}, {"loss == 1%", true}, {"loss < 1e0%", false},
		{"loss <= 0.01", true}, {"loss == 0.01", true}, {"loss<=1%&&lost==10", true}, {"(loss <= 1%)", true}, {"1%>=loss", true},
		{"loss > 0", true}, {"loss == 0", false}, {"loss != 0", true}, {"loss < 100%", true}, {"loss_upper < .5%", false},
		{"lost == 10", true}, {"lost == 10.0", true}, {"lost == 1e1", true}, {"lost <= sent * 1%", true}, {"lost / sent < 1%", false},
		{"received + lost + corrupted + late + outstanding == sent", true}, {"sent - lost > 989.5", true},
		{"-lost < -9", true}, {"lost > - 1", true}, {"lost-1 == 9", true},
		{"p99 < 2ms", false}, {"p99 < 6ms", false}, {"p99 <= 6ms", true}, {"p99 == 6ms", true}, {"p99 == 6000us", true},
		{"p99 == 6000µs", true}, {"p99 == 6000μs", true}, {"p99 < 6.000001ms", true}, {"p99 < 1m30s", true}, {"p99 < 1.5s", true},
		{"p99 > 5999999ns", true}, {"max < 1h", true}, {".5ms < min", true}, {"-2ms < min", true}, {"min > -1.5ms", true},
		{"p99 <= 2 * p50", true}, {"p99 <= p50 * 1.5", false}, {"p99 - p50 <= 3ms", true}, {"p99 / p50 == 2", true},
		{"p99 + 1ms == 7ms", true}, {"p99 / 3 == mean", true}, {"p99 < p50", false}, {"-p99 < 0s", true},
		{"p99 < duration('7ms')", true}, {`p99 < duration("2ms")`, false}, {`p99 < duration("""7ms""")`, true},
		{"p99 < 7ms && reordered == 0", false}, {"p99 < 7ms || reordered == 0", true}, {"!(p99 < 2ms)", true},
		{"!(p99 < 2ms) == (lost == 10)", true}, {"lost > 0 ? p99 < 7ms : false", true}, {"(lost == 0 ? 1ms : 7ms) > p99", true},
		{"true && lost == 10", true}, {"p99 < 7ms // two percent: 2% of what", true}, {"// first\np99 < 7ms\n&& lost\n== 10", true},
		{"\tp99\t<\t7ms", true},
	} {
		if v := judge(t, c.expect, full()); v.Met != c.met || v.Message != "" || v.Expect != c.expect {
			t.Errorf("%s: met %v (%q), want %v", c.expect, v.Met, v.Message, c.met)
		}
	}
}

// TestEveryName reads each name from where it belongs, and finds it unknown where the report does not say.
func TestEveryName(t *testing.T) {
	want := map[string]string{
		"sent": "1000", "received": "980", "lost": "10", "corrupted": "3", "late": "2", "outstanding": "5", "duplicated": "4",
		"reordered": "6", "wrong_address": "7", "ignored": "8", "dropped_here": "17", "lost_there": "6", "lost_back": "4", "loss": "1%", "loss_upper": "2%", "bursts": "9", "longest_burst": "2",
		"jitter": "11us", "outages": "20", "longest_outage": "3s", "schedule_late": "15", "schedule_moved": "16", "schedule_omitted": "18", "sent_bps": "51200",
		"received_bps": "50176", "elapsed": "20s", "flows_outliers": "3", "uncertainty": "1us", "timestamps_missing": "12",
		"paused": "13", "longest_pause": "14ms", "error_timeout": "10", "error_corrupted": "3", "path_mtu": "1500", "path_mtu_payload": "1472",
	}
	for prefix, unit := range map[string]time.Duration{
		"": time.Millisecond, "application_": 2 * time.Millisecond, "connect_": 3 * time.Millisecond, "ipdv_": 10 * time.Microsecond,
		"schedule_": time.Microsecond,
	} {
		for i, figure := range []string{"min", "mean", "p50", "p90", "p95", "p99", "p999", "max", "stddev"} {
			want[prefix+figure] = strings.Replace((time.Duration(i+1) * unit).String(), "µ", "u", 1)
		}
	}
	known := map[string]string{
		"sent": "5", "outstanding": "5", "elapsed": "0s",
	}
	for _, n := range verdict.Figures() {
		value, isThere := want[n.Name]
		if !isThere && strings.HasPrefix(n.Name, "error_") {
			value = "0"
		}
		// A name's own value, written as it is seen, is what it is equal to.
		expect := n.Name + " == " + value
		if n.Kind == verdict.Rate {
			expect = fmt.Sprintf("%s > %s - 1 && %s < %s + 1", n.Name, value, n.Name, value)
		}
		v := judge(t, expect, full())
		if !v.Met || len(v.Seen) != 1 || v.Seen[0] != (verdict.Seen{Name: n.Name, Value: value}) {
			t.Errorf("%s: %+v", expect, v)
		}
		if n.Doc == "" || n.Kind.String() == "" {
			t.Errorf("%s: doc %q, kind %q", n.Name, n.Doc, n.Kind)
		}
		v = judge(t, expect, nothing())
		if value, isKnown := known[n.Name]; isKnown {
			if v.Seen[0].Value != value || v.Message != "" {
				t.Errorf("%s of nothing: %+v, want %s", n.Name, v, value)
			}
		} else if v.Met || v.Seen[0].Value != "" || !strings.HasPrefix(v.Message, n.Name+" is not known: ") || strings.HasSuffix(v.Message, ": ") {
			t.Errorf("%s of nothing: %+v", n.Name, v)
		}
		delete(want, n.Name)
	}
	if len(want) > 0 {
		t.Errorf("there are no names for %v", want)
	}
}

func TestWhatIsNotKnownMeetsNothing(t *testing.T) {
	for _, c := range []struct {
		expect string
		met    bool
	}{
		{"p99 < 2ms", false}, {"p99 > 2ms", false}, {"p99 == 2ms", false}, {"p99 != 2ms", false}, {"p99 == p99", false}, {"p99 != p99", false},
		{"!(p99 > 2ms)", false}, {"!(p99 != 2ms)", false}, {"!!(p99 < 2ms)", false}, {"!(p99 > 2ms) == true", false},
		{"(p99 > 2ms) != true", false}, {"(p99 > 2ms) == (p99 > 2ms)", false}, {"false == (p99 > 2ms)", false},
		{"p99 < 2ms || p99 >= 2ms", false}, {"p99 < 2ms && p99 >= 2ms", false}, {"!(p99 < 2ms && p99 >= 2ms)", false},
		{"p99 < 2ms ? true : true", false}, {"lost == 0 ? p99 < 2ms : true", false}, {"lost == 0 ? true : p99 < 2ms", true},
		{"2 * p99 > -1s", false}, {"-p99 < 1h", false}, {"p99 - p99 == 0s", false}, {"p99 / p50 != 1", false}, {"0 * p99 == 0s", false},
		{"loss <= 100%", false}, {"loss >= 0", false}, {"!(loss > 0%)", false}, {"reordered == 0", false}, {"!(reordered > 0)", false},
		// What is known decides alone, from either side.
		{"lost == 0 || p99 < 2ms", true}, {"p99 < 2ms || lost == 0", true}, {"lost > 0 || p99 < 2ms", false}, {"p99 < 2ms || lost > 0", false},
		{"lost == 0 && p99 < 2ms", false}, {"p99 < 2ms && lost == 0", false}, {"lost > 0 && p99 < 2ms", false},
		{"!(lost > 0 && p99 > 2ms)", true}, {"!(p99 > 2ms && lost > 0)", true}, {"!(lost == 0 && p99 > 2ms)", false},
		{"!(p99 > 2ms) || lost == 0", true}, {"!(p99 > 2ms) && lost == 0", false}, {"p50 < 1ms || p99 < 2ms || lost == 0", true},
		{"p50 < 1ms && p99 < 2ms && lost == 0", false}, {"!(p50 < 1ms && p99 < 2ms && lost > 0)", true},
	} {
		v := judge(t, c.expect, fruitless())
		if v.Met != c.met {
			t.Errorf("%s: met %v (%+v), want %v", c.expect, v.Met, v, c.met)
		}
		if v.Met && v.Message != "" {
			t.Errorf("%s is met, and says %q", c.expect, v.Message)
		}
	}
}

func TestMessages(t *testing.T) {
	received := fruitless()
	received.Outstanding, received.Received, received.RTT = 0, 5, times(time.Millisecond)
	for _, c := range []struct {
		expect  string
		report  probe.Report
		seen    []verdict.Seen
		message string
	}{
		{"p99 < 2ms", fruitless(), []verdict.Seen{{Name: "p99"}}, "p99 is not known: no round trip was received"},
		{"connect_p99 < 2ms && p99 < 1s && lost == 0 && p99 > 0s", fruitless(),
			[]verdict.Seen{{Name: "connect_p99"}, {Name: "p99"}, {Name: "lost", Value: "0"}},
			"connect_p99 is not known: no TCP connection was made; p99 is not known: no round trip was received"},
		{"connect_p99 < 2ms && p99 < 7ms", received, []verdict.Seen{{Name: "connect_p99"}, {Name: "p99", Value: "6ms"}},
			"connect_p99 is not known: no TCP connection was made"},
		{"p99 < 2ms && lost > 0", fruitless(), []verdict.Seen{{Name: "p99"}, {Name: "lost", Value: "0"}}, ""}, // plain: nothing was lost
		{"p99 < 2ms", received, []verdict.Seen{{Name: "p99", Value: "6ms"}}, ""},
		{"lost / corrupted < 1", fruitless(), []verdict.Seen{{Name: "lost", Value: "0"}, {Name: "corrupted", Value: "0"}},
			"it cannot be computed: it divides by 0, or a value gets too large"},
		{"!(sent / lost < 1)", fruitless(), []verdict.Seen{{Name: "sent", Value: "5"}, {Name: "lost", Value: "0"}},
			"it cannot be computed: it divides by 0, or a value gets too large"},
		{"sent * 1e308 * 10 > 0", fruitless(), []verdict.Seen{{Name: "sent", Value: "5"}}, "it cannot be computed: it divides by 0, or a value gets too large"},
		{"sent * 2000000h > 0s", fruitless(), []verdict.Seen{{Name: "sent", Value: "5"}}, "it cannot be computed: it divides by 0, or a value gets too large"},
	} {
		v := judge(t, c.expect, c.report)
		if diff := cmp.Diff(verdict.Verdict{Expect: c.expect, Seen: c.seen, Message: c.message}, v); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.expect, diff)
		}
	}
}

func TestSharesAreWrittenForPeople(t *testing.T) {
	for ratio, want := range map[float64]string{
		0: "0%", 1: "100%", 0.0005: "0.05%", 1.0 / 3: "33.3333%", 1e-8: "0.000001%", 0.07: "7%", 0.100001: "10.0001%",
	} {
		report := full()
		report.Loss.Ratio = ratio
		if got := judge(t, "loss < 1%", report).Seen[0].Value; got != want {
			t.Errorf("%v: %s, want %s", ratio, got, want)
		}
	}
}

func TestPercentagesAreExact(t *testing.T) {
	for percent, share := range map[string]float64{"0.1%": 0.001, "0.7%": 0.007, "29%": 0.29, "57%": 0.57, "1e-3%": 1e-5, "5E1%": 0.5, ".3%": 0.003} {
		report := full()
		report.Loss.Ratio = share
		if !judge(t, "loss == "+percent, report).Met {
			t.Errorf("%v is not %s", share, percent)
		}
	}
}

// TestErrors holds each mistake to a message that says where it is.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		expect string
		column int
		want   string
	}{
		{"p98 < 2ms", 1, `there is no name "p98"; did you mean "p90"?`},
		{"loss <= 1% && p9999 < 2ms", 15, `there is no name "p9999"; did you mean "p999"?`},
		{"losst == 0", 1, `there is no name "losst"; did you mean "lost"?`},
		{"rtt.p99 < 2ms", 1, `there is no name "rtt.p99"; did you mean "p99"?`},
		{"connect.p99 < 2ms", 1, `there is no name "connect.p99"; did you mean "connect_p99"?`},
		{"applicationRtt.stddev < 2ms", 1, `there is no name "applicationRtt.stddev"; did you mean "application_stddev"?`},
		{"longestBurst < 2", 1, `there is no name "longestBurst"; did you mean "longest_burst"?`},
		{"rtt < 2ms", 1, `there is no name "rtt"; did you mean "mean"?`},
		{"P99 < 2ms", 1, `there is no name "P99"; did you mean "p99"?`},
		{"weather == 0", 1, `there is no name "weather"`},
		{"lost == null", 9, `there is no name "null"`},
		{"size(lost) == 0", 1, `there is no name "size"`},
		{strings.Repeat("z", 60) + " < 1", 1, `there is no name "` + strings.Repeat("z", 40) + `..."`},
		{"loss < 2ms", 6, `< compares a number with a duration; durations have a unit, as in "2ms"`},
		{"p99 < 2", 5, `< compares a duration with a number; durations have a unit, as in "2ms"`},
		{"p99 == 0", 5, `== compares a duration with a number; durations have a unit, as in "2ms"`},
		{"lost == 0 && loss != 2ms", 19, `!= compares a number with a duration; durations have a unit, as in "2ms"`},
		{"1ms < p50 < 2ms", 11, `< compares true or false with a duration; a chain is written as "1ms < p50 && p50 < 2ms"`},
		{"lost + 1ms < 2ms", 6, `+ does not go with a number and a duration`},
		{"p99 * p99 < 2ms", 5, `* does not go with a duration and a duration`},
		{"lost && p99 < 2ms", 1, `&& and || join what is true or false, and this is a number; compare it, as in "p99 < 2ms"`},
		{"lost == 0 || p99 + 1ms", 18, `&& and || join what is true or false, and this is a duration; compare it, as in "p99 < 2ms"`},
		{"!lost", 1, `! does not go with a number`},
		{"-(lost == 0)", 1, `- does not go with true or false`},
		{"lost == 0 ? p99 : 1", 11, `?: takes true or false, and then two values of one kind`},
		{"p99 < duration(2)", 15, `duration() takes a text, as in duration("2ms"); "2ms" alone will do`},
		{`lost < "2%"`, 6, `< compares a number with a text; durations have a unit, as in "2ms"`},
		{"duration < 2ms && lost == 0", 1, `undeclared reference to 'duration' (in container '')`},
		{"lost(1) == 0", 5, `undeclared reference to 'lost' (in container '')`},
		{"lost % 2 == 0", 6, `% makes a percentage of the number before it, as in 0.1%; there is no remainder`},
		{"lost == 10 % 3", 9, `10% is a percentage, and needs an operator behind it; there is no remainder`},
		{"lost == 10%3", 9, `10% is a percentage, and needs an operator behind it; there is no remainder`},
		{"lost < 2ms%", 11, `% makes a percentage of the number before it, as in 0.1%; there is no remainder`},
		{"p99 < 2 ms", 7, `a duration is written without a space: 2ms`},
		{"p99 < 2d", 7, `"2d" is neither a number nor a duration, which is written as 200us, 2ms, 1.5s or 1m30s`},
		{"p99 < 9999999999h", 7, `"9999999999h" is neither a number nor a duration, which is written as 200us, 2ms, 1.5s or 1m30s`},
		{"lost < 5u", 8, `"5u" is neither a number nor a duration, which is written as 200us, 2ms, 1.5s or 1m30s`},
		{"lost < 0x10", 8, `"0x10" is neither a number nor a duration, which is written as 200us, 2ms, 1.5s or 1m30s`},
		{"lost < 1e999", 8, `1e999 is too large`},
		{"lost < 1e999%", 8, `1e999% is too large`},
		{"lost < 1e99999999999999999999%", 8, `1e99999999999999999999% is too large`},
		{"lost = 0", 6, `to compare is "=="`},
		{"lost == 0 and p99 < 2ms", 11, `and is "&&"`},
		{"lost == 0 & p99 < 2ms", 11, `and is "&&"`},
		{"NOT (lost == 0)", 1, `not is "!"`},
		{"p99 ≤ 2ms", 5, `write "<="`},
		{"lost in [0, 1]", 6, `there is no "in"; compare with "==", and join with "||"`},
		{"lost == 0 ; p99 < 2ms", 11, `';' has no meaning here`},
		{"lost == 0\x00", 10, `'\x00' has no meaning here`},
		{`lost == "0`, 9, `the text that begins here does not end`},
		{"lost == ", 9, `something is missing at the end`},
		{"(lost == 0", 11, `something is missing at the end`},
		{"lost == 0)", 10, `) does not belong here, or something is missing before it`},
		{"lost == 0 p99 < 2ms", 11, `p99 does not belong here, or something is missing before it`},
		{"p99 < 5ms 2ms", 11, `2ms does not belong here, or something is missing before it`},
		{"&& lost == 0", 1, `&& does not belong here, or something is missing before it`},
		{"p99", 0, `it is a duration and says neither yes nor no; compare it, as in "p99 < 2ms"`},
		{"lost + 1", 0, `it is a number and says neither yes nor no; compare it, as in "p99 < 2ms"`},
		{"", 0, `it mentions no figure of the report; say as in "loss <= 0.1%" or "p99 < 2ms"`},
		{"true", 0, `it mentions no figure of the report; say as in "loss <= 0.1%" or "p99 < 2ms"`},
		{`"p99 < 2ms"`, 0, `it mentions no figure of the report; say as in "loss <= 0.1%" or "p99 < 2ms"`},
		{"lost == 0 \xff", 0, `it is not valid UTF-8`},
		{"lost == 0" + strings.Repeat(" ", 500), 0, `509 characters are more than 500; make several expectations of it`},
		{strings.Repeat("(", 200) + "lost == 0" + strings.Repeat(")", 200), 0, `it nests deeper than 100`},
		{strings.Repeat("!", 401) + "(lost == 0)x", 413, `there is no name "x"`},
	} {
		_, err := verdict.Compile([]string{"sent > 0", c.expect})
		var bad verdict.Errors
		if !errors.As(err, &bad) || len(bad) != 1 {
			t.Errorf("%.60s: %v", c.expect, err)
			continue
		}
		if bad[0].Index != 1 || bad[0].Column != c.column || bad[0].Message != c.want {
			t.Errorf("%.60s: expectation %d, column %d: %s\nwant column %d: %s", c.expect, bad[0].Index, bad[0].Column, bad[0].Message, c.column, c.want)
		}
	}
}

func TestErrorsShowThePlace(t *testing.T) {
	_, err := verdict.Compile([]string{"los == 0", "sent > 0", "p99 < 5µs || p99 < 1s", "lost == 0 ||\np99 < 2d", "loss", "p99 < duration('2 parsecs')",
		strings.Repeat("lost == 0 && ", 10) + "p99 < 1 && " + strings.Repeat("lost == 0 && ", 9) + "lost == 0"})
	const want = `expectation 1: column 1: there is no name "los"; did you mean "lost"?
  los == 0
  ^
expectation 4: column 20: "2d" is neither a number nor a duration, which is written as 200us, 2ms, 1.5s or 1m30s
  lost == 0 || p99 < 2d
                     ^
expectation 5: it is a number and says neither yes nor no; compare it, as in "p99 < 2ms"
expectation 6: a duration is written as "200us", "2ms", "1.5s" or "1m30s"
expectation 7: column 135: < compares a duration with a number; durations have a unit, as in "2ms"
  ...t == 0 && lost == 0 && lost == 0 && p99 < 1 && lost == 0 && lost == 0 && lost ==...
                                             ^`
	if err == nil {
		t.Fatal("no error")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNumberOfExpectations(t *testing.T) {
	many := make([]string, verdict.MaxExpectations)
	for i := range many {
		many[i] = "lost == 0"
	}
	e, err := verdict.Compile(many)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(many, e.Texts()); diff != "" {
		t.Error(diff)
	}
	if _, err := verdict.Compile(append(many, "lost == 0")); err == nil || err.Error() != "33 expectations are more than 32; join some with &&" {
		t.Errorf("one more: %v", err)
	}
	var none *verdict.Expectations
	if none.Texts() != nil || none.Judge(full()) != nil {
		t.Error("nil expects something")
	}
	if e, err := verdict.Compile(nil); err != nil || len(e.Judge(full())) != 0 {
		t.Errorf("nothing expected: %v", err)
	}
}

func TestMet(t *testing.T) {
	if verdict.Met([]verdict.Verdict{{Met: true}, {}}) || !verdict.Met([]verdict.Verdict{{Met: true}, {Met: true}}) {
		t.Error("all must be met")
	}
}

// TestConcurrentUse is for the race detector.
func TestConcurrentUse(t *testing.T) {
	e, err := verdict.Compile([]string{"p99 < 7ms && lost == 10", "!(loss > 1%)", "connect_p99 < 1ms || jitter < duration('1ms')"})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if verdicts := e.Judge(full()); !verdict.Met(verdicts) {
					t.Errorf("%+v", verdicts)
				}
				if verdict.Met(e.Judge(fruitless())) {
					t.Error("met by nothing")
				}
			}
		})
	}
	wg.Wait()
}

func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		"loss <= 0.1%", "p99 < 2ms && reordered == 0", "!(p99 > 1m30s) || lost == 0", "p99 < duration('2ms') // why", "lost in [1]",
		"lost % 2 == 0", `"""` + "\n" + `""" == lost`, "(lost == 0 ? 1ms : 2ms) > -p50 / .5e-3", "5u", "µ", "\"\\", "a.b.c(1%)", "1..2", "1%%",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expect string) {
		e, err := verdict.Compile([]string{expect})
		if err != nil {
			var bad verdict.Errors
			if !errors.As(err, &bad) || len(bad) != 1 || bad[0].Message == "" || bad[0].Column < 0 || bad[0].Column > len([]rune(expect))+1 {
				t.Fatalf("%q: %v", expect, err)
			}
			return
		}
		for _, report := range []probe.Report{full(), nothing()} {
			v := e.Judge(report)[0]
			if v.Expect != expect || v.Met && v.Message != "" || len(v.Seen) == 0 || strings.Contains(v.Message, "internal") || strings.Contains(v.Message, "cost") {
				t.Fatalf("%q: %+v", expect, v)
			}
		}
	})
}
