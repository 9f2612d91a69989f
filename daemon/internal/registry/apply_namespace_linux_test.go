package registry

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/echod/echod/daemon/echo"
)

// TestAnApplyMovesToAnotherPlace: another namespace or interface needs a new socket, which has the port that was given; the same
// port in two namespaces is no twin.
func TestAnApplyMovesToAnotherPlace(t *testing.T) {
	ctx, r := context.Background(), newRegistry(t, nil)
	first, second := newNamespace(t), newNamespace(t)
	one, two := tcp("one"), tcp("two")
	one.NetworkNamespace, two.NetworkNamespace = first.Path(), second.Path()
	one.Listen, two.Listen = "127.0.0.1:7000", "127.0.0.1:7000"
	mustApply(t, r, want(one, two), ApplyOptions{}, "+one +two")
	mustApply(t, r, want(one, two), ApplyOptions{}, "=one =two")
	if !answers(t, first, mustGet(t, r, "one")) || !answers(t, second, mustGet(t, r, "two")) {
		t.Error("they do not answer where they are")
	}

	moved := one
	moved.NetworkNamespace = ""
	moved.Listen = "127.0.0.1:0"
	one.Interface = "lo"
	for field, def := range map[string]Definition{"network_namespace": moved, "interface": one} {
		_, err := r.Apply(ctx, want(def), ApplyOptions{})
		var problems *Problems
		if !errors.As(err, &problems) || problems.List[0].Field != field || !errors.Is(problems.List[0].Err, ErrNeedsReplace) ||
			!strings.Contains(problems.List[0].Err.Error(), "in network namespace") {
			t.Errorf("%s: %v", field, err)
		}
	}
	mustApply(t, r, want(one), ApplyOptions{Replace: true}, "!one")
	if e := mustGet(t, r, "one"); !answers(t, first, e) || e.Interface != "lo" {
		t.Errorf("%+v", e)
	}
	// One takes the place of the other, in its namespace.
	two.NetworkNamespace, one.NetworkNamespace = one.NetworkNamespace, two.NetworkNamespace
	two.Interface, one.Interface = "lo", ""
	mustApply(t, r, want(one, two), ApplyOptions{Replace: true}, "!one !two")
	if !answers(t, second, mustGet(t, r, "one")) || !answers(t, first, mustGet(t, r, "two")) {
		t.Error("they have not changed places")
	}

	nowhere, device := tcp("nowhere"), tcp("device")
	nowhere.NetworkNamespace, device.Interface = "nowhere7", "nowhere7"
	_, err := r.Apply(ctx, want(nowhere, device, one), ApplyOptions{})
	var problems *Problems
	if !errors.As(err, &problems) || len(problems.List) != 2 ||
		problems.List[0].Field != "network_namespace" || !errors.Is(problems.List[0].Err, ErrNamespaceNotAvailable) ||
		problems.List[1].Field != "interface" || !errors.Is(problems.List[1].Err, echo.ErrInterfaceNotAvailable) {
		t.Errorf("what is not there: %v", err)
	}
	two.Name, two.Listen = "twin", "127.0.0.1:7000"
	three := two
	three.Name = "again"
	if _, err := r.Apply(ctx, want(two, three), ApplyOptions{}); err == nil || !strings.Contains(err.Error(), "already in use by another endpoint of this request") {
		t.Errorf("twins: %v", err)
	}
}
