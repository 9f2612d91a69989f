package rpc

import (
	"errors"
	"fmt"

	"github.com/echod/echod/daemon/verdict"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// expectationsFromProto compiles what a probe's report is expected to say; nil when nothing is. Each expectation that is
// no good is a violation of its own.
func expectationsFromProto(texts []string) (*verdict.Expectations, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	compiled, err := verdict.Compile(texts)
	var all verdict.Errors
	if errors.As(err, &all) {
		bad := &badRequest{}
		for _, one := range all {
			bad.violations = append(bad.violations, violation{fmt.Sprintf("probe.expect[%d]", one.Index), one.Error()})
		}
		return nil, bad
	}
	if err != nil {
		return nil, badField("probe.expect", "%v", err)
	}
	return compiled, nil
}

// judge puts the verdicts into a report.
func judge(report *echov1.ProbeReport, verdicts []verdict.Verdict) {
	if len(verdicts) == 0 {
		return
	}
	for _, v := range verdicts {
		out := &echov1.Verdict{Expect: v.Expect, Met: v.Met, Message: v.Message}
		for _, s := range v.Seen {
			out.Seen = append(out.Seen, &echov1.SeenValue{Name: s.Name, Value: s.Value})
		}
		report.Verdicts = append(report.Verdicts, out)
	}
	report.Met = new(verdict.Met(verdicts))
}
