package health

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheWorstCounts(t *testing.T) {
	r := New(Check{"a", NotReady, "begins"}, Check{"b", Ready, ""}, Check{"c", Ready, ""})
	for _, step := range []struct {
		set    Check
		state  State
		reason string
	}{
		{Check{"a", NotReady, "begins"}, NotReady, "a: begins"},
		{Check{"c", Degraded, "2 failed"}, NotReady, "a: begins; c: 2 failed"},
		{Check{"a", Degraded, "late"}, Degraded, "a: late; c: 2 failed"},
		{Check{"b", NotReady, "full"}, NotReady, "b: full; a: late; c: 2 failed"},
		{Check{"b", Ready, ""}, Degraded, "a: late; c: 2 failed"},
		{Check{"c", Ready, ""}, Degraded, "a: late"},
		{Check{"a", Ready, ""}, Ready, ""},
	} {
		r.Set(step.set.Name, step.set.State, step.set.Message)
		report := r.Report()
		if report.State != step.state || report.Reason() != step.reason {
			t.Errorf("after %v: %v %q, want %v %q", step.set, report.State, report.Reason(), step.state, step.reason)
		}
	}
	want := []Check{{"a", Ready, ""}, {"b", Ready, ""}, {"c", Ready, ""}}
	if diff := cmp.Diff(want, r.Report().Checks); diff != "" {
		t.Error(diff)
	}
}

func TestAReportChangesNoMore(t *testing.T) {
	r := New(Check{"a", Ready, ""})
	before := r.Report()
	r.Set("a", NotReady, "gone")
	if before.Checks[0].State != Ready {
		t.Error("a later change is in a report of before")
	}
}

func TestAChangeIsTold(t *testing.T) {
	r := New(Check{"a", Ready, ""})
	changed := r.Changed()
	r.Set("a", Ready, "")
	select {
	case <-changed:
		t.Error("told of what is no change")
	default:
	}
	r.Set("a", Ready, "another text")
	select {
	case <-changed:
	default:
		t.Error("not told of a change")
	}
	select {
	case <-r.Changed():
		t.Error("told of the same change again")
	default:
	}
}

func TestACheckThatIsNotThereIsAMistake(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	New(Check{"a", Ready, ""}).Set("b", Ready, "")
}
