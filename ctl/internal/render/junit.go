package render

import (
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	echov1 "github.com/echod/echod/gen/echo/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// JUnit is a format for CI systems: reports of probes as JUnit XML, a suite a probe and a case an expectation. It has no
// words for anything else, and is none of Formats: its caller lets it be chosen only where probes are shown.
const JUnit Format = "junit"

// junitWriter writes what has verdicts as JUnit XML, and the rest, which nobody asks it for, as tables.
type junitWriter struct {
	tableWriter
}

// The elements and attributes that CI systems agree on.
type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Name     string       `xml:"name,attr"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Errors   int          `xml:"errors,attr"`
	Skipped  int          `xml:"skipped,attr"`
	Time     string       `xml:"time,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name       string          `xml:"name,attr"`
	Tests      int             `xml:"tests,attr"`
	Failures   int             `xml:"failures,attr"`
	Errors     int             `xml:"errors,attr"`
	Skipped    int             `xml:"skipped,attr"`
	Time       string          `xml:"time,attr"`
	Timestamp  string          `xml:"timestamp,attr,omitempty"`
	Properties []junitProperty `xml:"properties>property"`
	Cases      []junitCase     `xml:"testcase"`
}

type junitProperty struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitFailure `xml:"failure"`
	Skipped *junitSkipped `xml:"skipped"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",chardata"`
}

type junitSkipped struct {
	Message string `xml:"message,attr"`
}

func (j *junitWriter) Reports(l []*echov1.ProbeReport) error {
	all := junitSuites{Name: "echoctl probe", Suites: make([]junitSuite, 0, len(l))}
	var elapsed time.Duration
	for _, r := range l {
		s := junitSuiteOf(r)
		all.Tests += s.Tests
		all.Failures += s.Failures
		all.Skipped += s.Skipped
		all.Suites = append(all.Suites, s)
		elapsed += r.GetElapsed().AsDuration()
	}
	all.Time = junitTime(elapsed)
	doc, err := xml.MarshalIndent(all, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot write JUnit XML: %w", err)
	}
	_, err = io.WriteString(j.w, xml.Header+string(doc)+"\n")
	return err
}

// DescribeProbes writes the reports so far.
func (j *junitWriter) DescribeProbes(l []*echov1.Probe) error {
	reports := make([]*echov1.ProbeReport, len(l))
	for i, p := range l {
		reports[i] = p.GetReport()
	}
	return j.Reports(reports)
}

// junitSuiteOf is one probe. A probe of which nothing was expected has the case that echoctl's exit code goes by.
func junitSuiteOf(r *echov1.ProbeReport) junitSuite {
	s := junitSuite{
		Name: "probe " + targetText(r.GetTarget()), Time: junitTime(r.GetElapsed().AsDuration()), Properties: junitProperties(r),
	}
	if r.GetStartTime() != nil {
		s.Timestamp = r.GetStartTime().AsTime().UTC().Format("2006-01-02T15:04:05")
	}
	add := func(name string, met bool, reason string, lines []string) {
		// Each case took the whole probe to tell.
		c := junitCase{Name: name, Class: s.Name, Time: s.Time}
		switch {
		case r.GetState() == echov1.Probe_RUNNING:
			soFar := "not met"
			if met {
				soFar = "met"
			}
			c.Skipped = &junitSkipped{Message: "the probe still runs; so far it is " + soFar}
			s.Skipped++
		case !met:
			c.Failure = &junitFailure{Message: reason, Type: "expectation", Text: strings.Join(lines, "\n")}
			s.Failures++
		}
		s.Cases = append(s.Cases, c)
		s.Tests++
	}
	for _, v := range r.GetVerdicts() {
		lines := append([]string{"expected: " + clean(v.GetExpect())}, seenTexts(v)...)
		if v.GetMessage() != "" {
			lines = append(lines, clean(v.GetMessage()))
		}
		add(clean(v.GetExpect()), v.GetMet(), "not met: "+verdictReason(v), lines)
	}
	if len(s.Cases) == 0 {
		lines := []string{totalsLine(r)}
		for _, e := range r.GetErrors() {
			lines = append(lines, reasonText(e.GetReason()+" "+number(e.GetCount()), e.GetMessage()))
		}
		add("at least one reply", r.GetReceived() > 0, "no reply: "+totalsLine(r), lines)
	}
	return s
}

// junitProperties are the main figures, by the names that they have in expectations.
func junitProperties(r *echov1.ProbeReport) []junitProperty {
	properties := []junitProperty{
		{"probe", clean(r.GetProbe())}, {"target", targetText(r.GetTarget())}, {"address", clean(r.GetAddress())},
		{"protocol", protocolText(r.GetTarget().GetProtocol())}, {"state", r.GetState().String()},
	}
	for _, c := range []struct {
		name  string
		value uint32
	}{
		{"sent", r.GetSent()}, {"received", r.GetReceived()}, {"lost", r.GetLost()}, {"corrupted", r.GetCorrupted()},
		{"late", r.GetLate()}, {"outstanding", r.GetOutstanding()},
	} {
		properties = append(properties, junitProperty{c.name, number(c.value)})
	}
	for _, c := range []struct {
		name  string
		value *uint32
	}{{"duplicated", r.Duplicated}, {"reordered", r.Reordered}} {
		if c.value != nil {
			properties = append(properties, junitProperty{c.name, number(*c.value)})
		}
	}
	properties = append(properties, junitTimes("", r.GetRtt())...)
	return append(properties, junitTimes("connect_", r.GetConnect())...)
}

func junitTimes(prefix string, d *echov1.Distribution) (properties []junitProperty) {
	for _, c := range []struct {
		name  string
		value *durationpb.Duration
	}{
		{"min", d.GetMin()}, {"mean", d.GetMean()}, {"p50", d.GetP50()}, {"p90", d.GetP90()}, {"p99", d.GetP99()}, {"max", d.GetMax()},
	} {
		if c.value != nil {
			properties = append(properties, junitProperty{prefix + c.name, milliseconds(c.value) + "ms"})
		}
	}
	return properties
}

// junitTime is in seconds.
func junitTime(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) }
