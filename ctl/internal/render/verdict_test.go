package render

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// judged is a report with each kind of verdict.
func judged() *echov1.ProbeReport {
	r := report()
	r.StartTime = timestamppb.New(now.Add(-time.Minute))
	r.Met = proto.Bool(false)
	r.Verdicts = []*echov1.Verdict{
		{Expect: "lost <= sent * 50%", Met: true, Seen: []*echov1.SeenValue{{Name: "lost", Value: "1"}, {Name: "sent", Value: "5"}}},
		{Expect: "p99 < 100us && lost == 0", Seen: []*echov1.SeenValue{{Name: "p99", Value: "108us"}, {Name: "lost", Value: "1"}}},
		{
			Expect: "ipdv_p99 < 1ms || lost == 0", Seen: []*echov1.SeenValue{{Name: "ipdv_p99"}, {Name: "lost", Value: "1"}},
			Message: "ipdv_p99 is not known: there are no two round trips in a row",
		},
		{Expect: "lost == 0 // \x1b[31m<&>\n\"]]>", Seen: []*echov1.SeenValue{{Name: "lost", Value: "1\x00"}}},
	}
	return r
}

func init() {
	scenes["reports-judged"] = func(w Writer) error { return w.Reports([]*echov1.ProbeReport{judged()}) }
	scenes["probes-judged"] = func(w Writer) error {
		return w.DescribeProbes([]*echov1.Probe{{
			Name: "p-1", Target: report().Target, State: echov1.Probe_DONE, Report: judged(), Expect: []string{"lost <= sent * 50%"},
			CreateTime: ago(time.Minute), EndTime: ago(59 * time.Second),
		}})
	}
}

// junitScenes are those with a test result in them.
var junitScenes = map[string]func(Writer) error{
	"reports": scenes["reports"],
	"reports-judged": func(w Writer) error {
		return w.Reports([]*echov1.ProbeReport{judged()})
	},
	"reports-none": func(w Writer) error { return w.Reports(nil) },
	"probes-described": func(w Writer) error {
		running := judged()
		running.State = echov1.Probe_RUNNING
		return w.DescribeProbes([]*echov1.Probe{{Name: "p-1", Report: running}, {Name: "p-2", Report: refused()}})
	},
}

func TestJUnit(t *testing.T) {
	for scene, write := range junitScenes {
		t.Run(scene, func(t *testing.T) {
			compare(t, scene+".junit.xml", Options{Format: JUnit}, write)
			var b bytes.Buffer
			if err := write(New(&b, Options{Format: JUnit})); err != nil {
				t.Fatal(err)
			}
			if strings.ContainsAny(b.String(), "\x1b\x00\ufffd") {
				t.Errorf("control characters in %q", b.String())
			}
			for d := xml.NewDecoder(&b); ; {
				if _, err := d.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	if err := junitScenes["reports"](New(failing{}, Options{Format: JUnit})); !errors.Is(err, errFull) {
		t.Errorf("error %v, want %v", err, errFull)
	}
}

// TestJUnitIsForProbesAlone keeps it out of what every command takes.
func TestJUnitIsForProbesAlone(t *testing.T) {
	if JUnit.Valid() {
		t.Error("junit is valid everywhere")
	}
}
